//! What the operator sees of the coordinator.

use std::time::Duration;

use weir_common::{
    failure::SplitFailure,
    ids::{SlotId, TaskmanagerId},
    split::SplitId,
};

use super::{
    Coordinator,
    event::SplitState,
    splits::Owner,
    suspension::{Phase, Purpose, Rest},
    taskmanagers::Lease,
};
pub use super::{
    checkpoint::{CheckpointView, Status as CheckpointStatus},
    splits::Moves,
    transactions::TransactionView,
};

/// A registered taskmanager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskmanagerView {
    /// Who.
    pub id: TaskmanagerId,
    /// `REGISTERED` (waits for a slot or its producer), `READY`, `DRAINING`, `DISCONNECTED`.
    pub state: &'static str,
    /// Its slot.
    pub slot: Option<SlotId>,
    /// How many splits it owns.
    pub splits: usize,
    /// When it registered, since the coordinator's birth.
    pub registered: Duration,
    /// Time since it was last heard of.
    pub silent_for: Duration,
}

/// A split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitView {
    /// Which.
    pub id: SplitId,
    /// `UNASSIGNED`, `RESTARTING` (waits after a failure), `READING`, `RUNNING`, `RELEASING`, `FENCING`, `ADOPTING`, `FAILED` (an
    /// operator must say where it goes on).
    pub state: &'static str,
    /// Its owner.
    pub taskmanager: Option<TaskmanagerId>,
    /// The newest that is known to be committed.
    pub committed: SplitState,
    /// Why it cannot be read.
    pub failure: Option<SplitFailure>,
}

impl Coordinator {
    /// `INITIALIZING` (no splits yet), `RUNNING`, `RESTARTING` (something waits after a failure, the rest goes on),
    /// `CUTTING` (an offset cut is made), `SUSPENDING`, `SUSPENDED`, `FAILING`, `FAILED`, `STOPPING`, `RESTORING`, `RESETTING`, `FINISHED`.
    #[must_use]
    pub fn job_state(&self) -> &'static str {
        match &self.phase {
            Phase::Running if self.splits.is_empty() => "INITIALIZING",
            Phase::Running | Phase::Renewing { .. } | Phase::Recording { .. } => match self.rest {
                Some(Rest::Suspended) => "SUSPENDED",
                Some(Rest::Failed { .. }) => "FAILED",
                None if matches!(self.phase, Phase::Recording { .. }) => "SUSPENDING",
                None if self.next_restart().is_some() => "RESTARTING",
                None => "RUNNING",
            },
            Phase::Releasing(Purpose::Cut(_)) | Phase::Cutting(_) => "CUTTING",
            Phase::Releasing(Purpose::Rest { rest: Rest::Failed { .. }, .. }) => "FAILING",
            Phase::Releasing(Purpose::Rest { .. }) | Phase::Suspending { .. } => "SUSPENDING",
            Phase::Releasing(Purpose::Reset { .. }) => "RESETTING",
            Phase::Releasing(Purpose::Stop { .. }) | Phase::Stopping { .. } => "STOPPING",
            Phase::Releasing(Purpose::Restore { .. }) | Phase::Restoring { .. } => "RESTORING",
            Phase::Finished => "FINISHED",
        }
    }

    /// Why the job is in that state, where that is not plain.
    #[must_use]
    pub fn state_reason(&self) -> Option<String> {
        match (&self.phase, &self.rest) {
            (Phase::Releasing(Purpose::Rest { rest: Rest::Failed { reason }, .. }), _)
            | (_, Some(Rest::Failed { reason })) => Some(format!("{reason}; `weir resume` starts the job again")),
            (_, Some(Rest::Suspended)) => Some("an operator suspended the job; `weir resume` lets it go on".to_owned()),
            (Phase::Cutting(_) | Phase::Releasing(Purpose::Cut(_)), None) => {
                let waiting = self.waits_for()?;
                Some(format!("an offset cut is made, nothing above it is read meanwhile: {waiting}"))
            }
            (Phase::Running, None) => {
                let wait = self.next_restart()?.saturating_sub(self.now);
                let last = self.restarts.last.as_deref().unwrap_or("a failure");
                Some(format!("{last}; what failed is handed out again in {wait:.1?}, all others go on"))
            }
            _ => None,
        }
    }

    /// Flink's `numRestarts`: failures after which something was handed out again, since the coordinator's birth.
    #[must_use]
    pub fn number_of_restarts(&self) -> u64 {
        self.restarts.count
    }

    /// Everyone registered.
    pub fn taskmanagers(&self) -> impl Iterator<Item = TaskmanagerView> {
        self.taskmanagers.iter().map(|(id, each)| TaskmanagerView {
            id: id.clone(),
            state: match each.lease {
                _ if !each.connected => "DISCONNECTED",
                _ if each.draining || each.dismissed => "DRAINING",
                Lease::Ready(..) => "READY",
                Lease::None | Lease::Granted(..) => "REGISTERED",
            },
            slot: each.lease.slot().map(|(slot, _)| slot),
            splits: self.splits.values().filter(|split| split.owner.taskmanager() == Some(id)).count(),
            registered: each.registered,
            silent_for: self.now.saturating_sub(each.heard),
        })
    }

    /// Every split.
    pub fn splits(&self) -> impl Iterator<Item = SplitView> {
        self.splits.iter().map(|(id, split)| SplitView {
            id: id.clone(),
            state: match split.owner {
                Owner::Unknown => "ADOPTING",
                Owner::Nobody if split.needs_decision() => "FAILED",
                Owner::Nobody if split.wait_until > self.now => "RESTARTING",
                Owner::Nobody => "UNASSIGNED",
                Owner::Taskmanager(_) => "RUNNING",
                Owner::Releasing(_) => "RELEASING",
                Owner::Fencing(_) => "FENCING",
                Owner::Reading => "READING",
            },
            taskmanager: split.owner.taskmanager().cloned(),
            committed: split.state.clone(),
            failure: split.failure.clone(),
        })
    }

    /// Snapshots, the newest first: the one in progress and the last hundred.
    pub fn checkpoints(&self) -> impl Iterator<Item = CheckpointView> {
        self.checkpoints.in_progress(self.now).into_iter().chain(self.checkpoints.history.iter().rev().cloned())
    }

    /// Flink's `numberOfCompletedCheckpoints`, savepoints included.
    #[must_use]
    pub fn number_of_completed_checkpoints(&self) -> u64 {
        self.checkpoints.completed
    }

    /// Flink's `numberOfFailedCheckpoints`, savepoints included.
    #[must_use]
    pub fn number_of_failed_checkpoints(&self) -> u64 {
        self.checkpoints.failed
    }

    /// How splits have moved since the coordinator's birth.
    #[must_use]
    pub fn moves(&self) -> Moves {
        self.moves
    }

    /// Taskmanagers that were lost since the coordinator's birth.
    #[must_use]
    pub fn number_of_lost_taskmanagers(&self) -> u64 {
        self.lost
    }
}
