//! What waits for the sink thread: commands first, then results.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::Notify;
use weir_common::{counters::SplitCounters, ids::CheckpointId, progress::Progress, split::SplitId};

use crate::{
    clock::Clock,
    pipeline::{Finished, cell::SplitCell},
};

/// So many results are taken at once, so that a command waits for no more than these.
const BATCH: usize = 256;

/// Asks the sink for something. Answered by a [`super::SinkEvent`].
#[derive(Debug)]
pub enum Command {
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
pub struct AssignedSplit {
    /// Shared with reader and enrichment.
    pub cell: Arc<SplitCell>,
    /// Where its progress is kept (exactly-once).
    pub progress_partition: i32,
    /// What is committed.
    pub progress: Progress,
    /// Outcomes of what is committed.
    pub counters: SplitCounters,
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
pub struct Inbox {
    queues: Mutex<Queues>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Queues {
    commands: VecDeque<Command>,
    results: VecDeque<Finished>,
}

impl Inbox {
    /// Before everything that waits already but commands.
    pub fn push_command(&self, command: Command) {
        self.lock().commands.push_back(command);
        self.filled.notify_one();
    }

    /// Behind everything that waits already.
    pub fn push_results(&self, results: Vec<Finished>) {
        if !results.is_empty() {
            self.lock().results.extend(results);
            self.filled.notify_one();
        }
    }

    /// Waits for something to do, at most until `deadline`. One consumer only.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is taken before it returns.
    pub(crate) async fn next(&self, clock: &impl Clock, deadline: Instant) -> Next {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            if clock.now() >= deadline {
                return Next::Nothing;
            }
            tokio::select! {
                biased;
                () = self.filled.notified() => {}
                () = clock.sleep_until(deadline) => {}
            }
        }
    }

    fn take(&self) -> Option<Next> {
        let mut queues = self.lock();
        if let Some(command) = queues.commands.pop_front() {
            return Some(Next::Command(command));
        }
        let count = queues.results.len().min(BATCH);
        (count > 0).then(|| Next::Results(queues.results.drain(..count).collect()))
    }

    /// The results that are `wanted`, past the commands. Others stay: the command that makes their split known may still
    /// wait.
    pub(crate) fn take_results(&self, wanted: impl Fn(&Finished) -> bool) -> Vec<Finished> {
        let results = &mut self.lock().results;
        let (taken, left) = std::mem::take(results).into_iter().partition(wanted);
        *results = left;
        let taken: VecDeque<Finished> = taken;
        taken.into()
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
