//! What the coordinator wants done.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weir_common::{
    ids::{CheckpointId, GrantId, SlotId, TaskmanagerId},
    split::{SplitId, TopicPartition},
};

use super::event::{RequestId, SplitStates};

/// Why a snapshot is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotKind {
    /// Periodic, and gone when there are enough newer ones.
    Checkpoint,
    /// To be kept.
    Savepoint {
        /// The operator's name for it, may be empty.
        label: String,
        /// Which.
        kind: SavepointKind,
    },
}

/// What a savepoint is, and what becomes of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SavepointKind {
    /// Asked for; never deleted by itself.
    #[default]
    Operator,
    /// Asked for as an offset cut: every partition is finished below one offset and untouched from there on.
    OffsetCut,
    /// Taken every `savepoint.interval`; deleted by age.
    Periodic,
    /// Made from plain Kafka offsets: it says where to go, not how far the job has come.
    Imported,
}

impl SavepointKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Operator, Self::OffsetCut, Self::Periodic, Self::Imported];

    /// As it stands in a savepoint and in the protocol.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Operator => "OPERATOR",
            Self::OffsetCut => "OFFSET_CUT",
            Self::Periodic => "PERIODIC",
            Self::Imported => "IMPORTED",
        }
    }
}

/// Something that the shell must do. Those to one taskmanager keep their order. Slow ones come back as events.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Lease a fenced slot to a taskmanager.
    SendGrant {
        /// To whom.
        taskmanager: TaskmanagerId,
        /// The slot.
        slot: SlotId,
        /// The lease.
        grant: GrantId,
    },
    /// Hand splits over; the owner starts each where it stands.
    SendAssign {
        /// To whom.
        taskmanager: TaskmanagerId,
        /// The splits.
        splits: SplitStates,
        /// Where a partition is named, nothing at or above its offset is to be taken in.
        limits: BTreeMap<TopicPartition, i64>,
    },
    /// Take splits back; answered by `Released`.
    SendRevoke {
        /// From whom.
        taskmanager: TaskmanagerId,
        /// The splits.
        splits: Vec<SplitId>,
    },
    /// Commit now and report.
    SendBarrier {
        /// To whom.
        taskmanager: TaskmanagerId,
        /// The barrier.
        checkpoint: CheckpointId,
    },
    /// Everything is released: it may exit (`leave`), or idle.
    SendDrain {
        /// To whom.
        taskmanager: TaskmanagerId,
        /// Whether it exits.
        leave: bool,
    },
    /// Close the stream: the taskmanager counts as lost, and is told so if it still listens.
    Disconnect {
        /// Whom.
        taskmanager: TaskmanagerId,
        /// For the log and the peer.
        reason: String,
    },
    /// Initialise the slot's transactional id; then `SlotFenced` or `FenceFailed`. Nothing to do at-least-once: the
    /// shell answers `SlotFenced` at once.
    FenceSlot {
        /// The slot.
        slot: SlotId,
    },
    /// Read the splits' stable progress from Kafka; then `ProgressRead` or `ProgressReadFailed`.
    ReadProgress {
        /// Which.
        splits: Vec<SplitId>,
    },
    /// Write progress plainly (nobody owns a split now); then `ProgressWritten` or `ProgressWriteFailed`.
    WriteProgress {
        /// Progress to write.
        splits: SplitStates,
    },
    /// Write progress as it is (nobody owns a split now), so that the broker does not forget it; then as for
    /// `WriteProgress`.
    RenewProgress {
        /// Progress to write.
        splits: SplitStates,
    },
    /// Store a snapshot; then `SnapshotStored` or `SnapshotFailed`.
    StoreSnapshot {
        /// Its number.
        checkpoint: CheckpointId,
        /// Why it is made.
        kind: SnapshotKind,
        /// All splits of the job.
        splits: SplitStates,
    },
    /// Look which savepoints there are; then `SavepointsListed` or `SavepointsUnknown`.
    ListSavepoints,
    /// Delete these; one that cannot be deleted is seen again at the next look.
    DeleteSavepoints {
        /// As they were listed.
        keys: Vec<String>,
    },
    /// Answer an operator.
    Reply {
        /// Whom.
        request: RequestId,
        /// What.
        reply: Reply,
    },
    /// Mirror min(cursor) per partition to the consumer group on the source cluster; never read back.
    MirrorLag {
        /// Cursor by topic and partition.
        cursors: BTreeMap<TopicPartition, i64>,
    },
    /// Keep durably whether the job rests; then `RestRecorded`, whatever it takes. Nothing to do at-least-once: the shell
    /// answers at once.
    RecordRest {
        /// Whether a next jobmanager finds it suspended.
        suspended: bool,
    },
    /// The job has ended as asked: answer what is open, leave with exit code 0.
    Finish,
}

impl Action {
    /// The taskmanager to whom something is said.
    #[must_use]
    pub fn addressee(&self) -> Option<&TaskmanagerId> {
        match self {
            Self::SendGrant { taskmanager, .. }
            | Self::SendAssign { taskmanager, .. }
            | Self::SendRevoke { taskmanager, .. }
            | Self::SendBarrier { taskmanager, .. }
            | Self::SendDrain { taskmanager, .. }
            | Self::Disconnect { taskmanager, .. } => Some(taskmanager),
            _ => None,
        }
    }
}

/// Answer to an operator.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The savepoint is stored.
    Savepoint {
        /// Its number.
        checkpoint: CheckpointId,
        /// Where it is.
        location: String,
    },
    /// The job goes on from the savepoint.
    Restored {
        /// Records per split that are done again.
        replayed: BTreeMap<SplitId, Replay>,
    },
    /// Restoring would repeat output and was not allowed to.
    ReplayRefused {
        /// Records per split that would be done again.
        replayed: BTreeMap<SplitId, Replay>,
    },
    /// The job rests.
    Suspended {
        /// What was stored on the way, or why nothing was.
        snapshot: Result<String, String>,
    },
    /// The job goes on.
    Resumed,
    /// The splits were moved.
    Reset(Consequences),
    /// They were not, for this would come of it and was not allowed.
    ResetRefused(Consequences),
    /// It did not work.
    Failed {
        /// Why, for the operator.
        reason: String,
    },
    /// Not possible now.
    Rejected {
        /// Why, for the operator.
        reason: String,
    },
    /// The slot's transactional id is fenced.
    TransactionAborted {
        /// Which.
        slot: SlotId,
        /// Who had it.
        holder: Option<TaskmanagerId>,
    },
}

/// What comes of moving splits, by partition: upper bounds, for records of other key ranges lie in between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consequences {
    /// Splits that move.
    pub splits: usize,
    /// Finished records that are done again.
    pub replayed: BTreeMap<TopicPartition, u64>,
    /// Records that nobody has read and nobody will.
    pub skipped: BTreeMap<TopicPartition, u64>,
}

/// A split's way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Cursor before.
    pub from_cursor: i64,
    /// Cursor of the savepoint.
    pub to_cursor: i64,
    /// Finished records that are done again, counted by outcomes.
    pub records: u64,
}
