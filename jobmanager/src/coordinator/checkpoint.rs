//! Barriers and snapshots.
//!
//! A barrier asks every owner to commit now and say what is committed. Splits without an owner stand where they stood;
//! an owner that is lost on the way is not waited for, for what it last reported was committed, and a snapshot behind
//! the progress in Kafka is a normal thing.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use weir_common::{
    ids::{CheckpointId, TaskmanagerId},
    progress::Progress,
    split::TopicPartition,
};

use super::{
    Coordinator, Settings,
    action::{Action, Reply, SavepointKind, SnapshotKind},
    event::{RequestId, SplitState, SplitStates},
    suspension::Phase,
    taskmanagers::Lease,
};

/// Savepoints that may wait; more are rejected.
const MAX_WAITING_SAVEPOINTS: usize = 16;

/// Snapshots that are remembered for the operator.
const HISTORY: usize = 100;

/// A snapshot that is being made.
#[derive(Clone, Debug)]
struct Pending {
    id: CheckpointId,
    kind: SnapshotKind,
    request: Option<RequestId>,
    triggered: Duration,
    /// Who has not reported yet.
    awaiting: BTreeSet<TaskmanagerId>,
    /// What it says, where that is not how far the job has come.
    imported: Option<SplitStates>,
    storing: bool,
}

/// A savepoint that waits for its turn.
#[derive(Clone, Debug)]
struct Waiting {
    request: RequestId,
    kind: SnapshotKind,
    imported: Option<SplitStates>,
}

/// How a snapshot ended, or that it has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Barrier or storage is on the way.
    InProgress,
    /// Stored.
    Completed {
        /// Where.
        location: String,
        /// How large.
        size_bytes: u64,
    },
    /// Not stored.
    Failed {
        /// Why, for the operator.
        reason: String,
    },
}

/// A snapshot as the operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointView {
    /// Its number.
    pub id: CheckpointId,
    /// Why it was made.
    pub kind: SnapshotKind,
    /// When, since the coordinator's birth.
    pub triggered: Duration,
    /// From trigger to the end; so far, while it is in progress.
    pub duration: Duration,
    /// How it ended.
    pub status: Status,
}

/// All about snapshots.
#[derive(Clone, Debug)]
pub(super) struct Checkpoints {
    next_id: CheckpointId,
    next_trigger: Duration,
    pending: Option<Pending>,
    waiting: VecDeque<Waiting>,
    pub(super) history: VecDeque<CheckpointView>,
    pub(super) completed: u64,
    pub(super) failed: u64,
}

impl Checkpoints {
    pub(super) fn new(first: CheckpointId, interval: Duration) -> Self {
        Self {
            next_id: first,
            next_trigger: interval,
            pending: None,
            waiting: VecDeque::new(),
            history: VecDeque::new(),
            completed: 0,
            failed: 0,
        }
    }

    /// `may_trigger`: whether the job is in a state to make periodic ones.
    pub(super) fn next_deadline(&self, settings: &Settings, may_trigger: bool) -> Option<Duration> {
        match &self.pending {
            Some(pending) => Some(pending.triggered + settings.checkpoint_timeout),
            None => may_trigger.then_some(self.next_trigger),
        }
    }

    pub(super) fn reported(&mut self, from: &TaskmanagerId, checkpoint: CheckpointId) {
        if let Some(pending) = self.pending.as_mut().filter(|pending| pending.id == checkpoint) {
            pending.awaiting.remove(from);
        }
    }

    /// It will not answer any more.
    pub(super) fn forget(&mut self, taskmanager: &TaskmanagerId) {
        if let Some(pending) = &mut self.pending {
            pending.awaiting.remove(taskmanager);
        }
    }

    pub(super) fn idle(&self) -> bool {
        self.pending.is_none()
    }

    pub(super) fn pending_kind(&self) -> Option<&SnapshotKind> {
        self.pending.as_ref().map(|pending| &pending.kind)
    }

    /// The next one is due at once.
    pub(super) fn hurry(&mut self, now: Duration) {
        self.next_trigger = now;
    }

    fn begin(&mut self, now: Duration, kind: SnapshotKind, request: Option<RequestId>) -> &mut Pending {
        let id = self.next_id;
        self.next_id = id.next();
        let awaiting = BTreeSet::new();
        self.pending.insert(Pending { id, kind, request, triggered: now, awaiting, imported: None, storing: false })
    }

    fn end(&mut self, now: Duration, settings: &Settings, status: Status) -> Option<Pending> {
        let pending = self.pending.take()?;
        match status {
            Status::Completed { .. } => self.completed += 1,
            Status::InProgress | Status::Failed { .. } => self.failed += 1,
        }
        let earliest = now + settings.checkpoint_min_pause;
        self.next_trigger = earliest.max(pending.triggered + settings.checkpoint_interval);
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(pending.view(now, status));
        Some(pending)
    }

    pub(super) fn in_progress(&self, now: Duration) -> Option<CheckpointView> {
        self.pending.as_ref().map(|pending| pending.view(now, Status::InProgress))
    }
}

impl Pending {
    fn view(&self, now: Duration, status: Status) -> CheckpointView {
        let duration = now.saturating_sub(self.triggered);
        CheckpointView { id: self.id, kind: self.kind.clone(), triggered: self.triggered, duration, status }
    }
}

impl Coordinator {
    pub(super) fn may_trigger(&self) -> bool {
        self.is_running() && !self.splits.is_empty()
    }

    pub(super) fn savepoint_requested(&mut self, request: RequestId, label: String, stop: bool) {
        if stop {
            return self.stop_requested(request, label);
        }
        self.wait_for_savepoint(Waiting {
            request,
            kind: SnapshotKind::Savepoint { label, kind: SavepointKind::Operator },
            imported: None,
        });
    }

    /// Counters are not the file's to say: they stay zero, and a restore keeps the job's own.
    pub(super) fn import_requested(
        &mut self,
        request: RequestId,
        label: String,
        offsets: &BTreeMap<TopicPartition, i64>,
    ) {
        let mut imported = SplitStates::new();
        for id in self.splits.keys() {
            let Some(offset) = offsets.get(&id.topic_partition()) else {
                let reason = format!("{} was discovered meanwhile; try again with it", id.topic_partition());
                return self.reply(request, Reply::Rejected { reason });
            };
            imported.insert(id.clone(), SplitState { progress: Progress::at(*offset), ..SplitState::default() });
        }
        let kind = SnapshotKind::Savepoint { label, kind: SavepointKind::Imported };
        self.wait_for_savepoint(Waiting { request, kind, imported: Some(imported) });
    }

    fn wait_for_savepoint(&mut self, waiting: Waiting) {
        let rejected = match self.phase {
            _ if self.splits.is_empty() => Some("the job has no splits yet; try again when it runs"),
            Phase::Running if self.checkpoints.waiting.len() < MAX_WAITING_SAVEPOINTS => None,
            Phase::Running => Some("too many savepoints are waiting; try again when some are done"),
            _ => Some("the job is being cut, stopped or restored; try again when that is done"),
        };
        match rejected {
            None => self.checkpoints.waiting.push_back(waiting),
            Some(reason) => self.reply(waiting.request, Reply::Rejected { reason: reason.to_owned() }),
        }
    }

    /// Starts a waiting savepoint, or a checkpoint that is due.
    pub(super) fn trigger_checkpoint(&mut self) {
        // A job that rests is not disturbed for periodic ones; a savepoint of it may be asked for.
        if !matches!(self.phase, Phase::Running) || self.splits.is_empty() || !self.checkpoints.idle() {
            return;
        }
        if let Some(Waiting { request, kind, imported }) = self.checkpoints.waiting.pop_front() {
            let pending = self.checkpoints.begin(self.now, kind, Some(request));
            if imported.is_some() {
                pending.imported = imported;
                return;
            }
        } else if self.may_trigger()
            && let Some(kind) = self.due_savepoint()
        {
            self.checkpoints.begin(self.now, kind, None);
        } else if self.may_trigger() && self.checkpoints.next_trigger <= self.now {
            self.checkpoints.begin(self.now, SnapshotKind::Checkpoint, None);
        } else {
            return;
        }
        self.send_barriers();
    }

    fn send_barriers(&mut self) {
        let ready =
            self.taskmanagers.iter().filter(|(_, each)| matches!(each.lease, Lease::Ready(..)) && each.connected);
        let owners: BTreeSet<TaskmanagerId> = ready.map(|(id, _)| id).filter(|id| self.owns_any(id)).cloned().collect();
        let Some(pending) = &mut self.checkpoints.pending else { return };
        for taskmanager in &owners {
            self.actions.push(Action::SendBarrier { taskmanager: taskmanager.clone(), checkpoint: pending.id });
        }
        pending.awaiting = owners;
    }

    /// A snapshot of what is committed as far as is known, without a barrier.
    pub(super) fn snapshot_as_it_stands(&mut self, kind: SnapshotKind, request: RequestId) {
        self.checkpoints.begin(self.now, kind, Some(request));
    }

    /// A snapshot of a job where nobody owns anything, for its end.
    pub(super) fn snapshot_at_rest(&mut self, kind: SnapshotKind) -> CheckpointId {
        self.checkpoints.begin(self.now, kind, None).id
    }

    /// Everyone has reported: the snapshot goes to the store.
    pub(super) fn complete_barrier(&mut self) {
        let Some(pending) = &mut self.checkpoints.pending else { return };
        if pending.storing || !pending.awaiting.is_empty() {
            return;
        }
        pending.storing = true;
        let (checkpoint, kind, imported) = (pending.id, pending.kind.clone(), pending.imported.take());
        let splits = imported.unwrap_or_else(|| self.states());
        self.actions.push(Action::StoreSnapshot { checkpoint, kind, splits });
    }

    pub(super) fn snapshot_stored(&mut self, checkpoint: CheckpointId, location: String, size_bytes: u64) {
        if !self.is_pending(checkpoint) {
            return;
        }
        let status = Status::Completed { location: location.clone(), size_bytes };
        let ended = self.checkpoints.end(self.now, &self.settings, status);
        if let Some(pending) = &ended {
            self.periodic_ended(&pending.kind, true);
        }
        if let Some(request) = ended.and_then(|pending| pending.request) {
            self.reply(request, Reply::Savepoint { checkpoint, location: location.clone() });
        }
        self.stop_stored(checkpoint, &location);
        self.rest_stored(checkpoint, Ok(location));
    }

    pub(super) fn checkpoint_failed(&mut self, checkpoint: CheckpointId, reason: &str) {
        if !self.is_pending(checkpoint) {
            return;
        }
        tracing::warn!(%checkpoint, reason, "checkpoint failed; the job goes on and the next one is tried in time");
        let status = Status::Failed { reason: reason.to_owned() };
        let ended = self.checkpoints.end(self.now, &self.settings, status);
        if let Some(pending) = &ended {
            self.periodic_ended(&pending.kind, false);
        }
        if let Some(request) = ended.and_then(|pending| pending.request) {
            self.reply(request, Reply::Failed { reason: reason.to_owned() });
        }
        self.stop_failed(checkpoint, reason);
        self.rest_stored(checkpoint, Err(reason.to_owned()));
    }

    pub(super) fn time_out_checkpoint(&mut self) {
        let Some(pending) = &self.checkpoints.pending else { return };
        if self.now < pending.triggered + self.settings.checkpoint_timeout {
            return;
        }
        let (id, timeout) = (pending.id, self.settings.checkpoint_timeout);
        let reason = if pending.storing {
            format!("not stored within checkpoint.timeout ({timeout:?})")
        } else {
            let names: Vec<&str> = pending.awaiting.iter().map(|id| id.0.as_str()).collect();
            format!("no report within checkpoint.timeout ({timeout:?}) of {}", names.join(", "))
        };
        self.checkpoint_failed(id, &reason);
    }

    pub(super) fn reply(&mut self, request: RequestId, reply: Reply) {
        self.actions.push(Action::Reply { request, reply });
    }

    fn is_pending(&self, checkpoint: CheckpointId) -> bool {
        self.checkpoints.pending.as_ref().is_some_and(|pending| pending.id == checkpoint)
    }

    /// Savepoints that still wait when the job stops are answered.
    pub(super) fn reject_waiting_savepoints(&mut self) {
        for Waiting { request, .. } in std::mem::take(&mut self.checkpoints.waiting) {
            self.reply(request, Reply::Rejected { reason: "the job is being stopped or restored".to_owned() });
        }
    }
}
