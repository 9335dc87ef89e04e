//! What waits for the sink thread: commands first, then results.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use weir_common::{counters::SplitCounters, ids::CheckpointId, progress::Progress, split::SplitId};

use crate::pipeline::{Finished, cell::SplitCell};

/// So many results are taken at once, so that a command waits for no more than these.
const BATCH: usize = 256;

/// Asks the sink for something. Answered by a [`super::SinkEvent`].
#[derive(Debug)]
pub(crate) enum Command {
    /// Results of these splits will come.
    Assign(Vec<AssignedSplit>),
    /// Commit, drop these splits, answer `Released`.
    Revoke(Vec<SplitId>),
    /// Commit, answer `Reported` with this number.
    Barrier(CheckpointId),
    /// End without a commit; no answer.
    Stop,
}

/// A split that comes to the sink.
#[derive(Debug)]
pub(crate) struct AssignedSplit {
    /// Shared with reader and enrichment.
    pub(crate) cell: Arc<SplitCell>,
    /// Where its progress is kept (exactly-once).
    pub(crate) progress_partition: i32,
    /// What is committed.
    pub(crate) progress: Progress,
    /// Outcomes of what is committed.
    pub(crate) counters: SplitCounters,
}

/// What the sink does next.
#[derive(Debug)]
pub(crate) enum Next {
    Command(Command),
    Results(VecDeque<Finished>),
    /// Nothing came until the deadline.
    Nothing,
}

/// The queue. Bounded from outside: every result holds its share of the byte budget until it is committed, and commands
/// are as many as the jobmanager has asked for.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    queues: Mutex<Queues>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct Queues {
    commands: VecDeque<Command>,
    results: VecDeque<Finished>,
}

impl Inbox {
    pub(crate) fn push_command(&self, command: Command) {
        self.lock().commands.push_back(command);
        self.filled.notify_one();
    }

    pub(crate) fn push_results(&self, results: Vec<Finished>) {
        if !results.is_empty() {
            self.lock().results.extend(results);
            self.filled.notify_one();
        }
    }

    /// Waits for something to do, at most until `deadline`. One consumer only.
    pub(crate) fn next(&self, deadline: Instant) -> Next {
        let mut queues = self.lock();
        loop {
            if let Some(command) = queues.commands.pop_front() {
                return Next::Command(command);
            }
            if !queues.results.is_empty() {
                let count = queues.results.len().min(BATCH);
                return Next::Results(queues.results.drain(..count).collect());
            }
            let wait = deadline.saturating_duration_since(Instant::now());
            if wait == Duration::ZERO {
                return Next::Nothing;
            }
            queues = self.filled.wait_timeout(queues, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Everything that is ready now, past the commands.
    pub(crate) fn take_results(&self) -> VecDeque<Finished> {
        std::mem::take(&mut self.lock().results)
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
