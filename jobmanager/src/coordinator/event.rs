//! What happens outside of the coordinator.

use std::{collections::BTreeMap, time::Duration};

use weir_common::{
    counters::SplitCounters,
    failure::SplitFailure,
    ids::{CheckpointId, GrantId, SlotId, TaskmanagerId},
    progress::Progress,
    split::{SplitId, TopicName, TopicPartition},
};

use super::action::SavepointKind;

/// A split's progress and what has become of its records, always together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SplitState {
    /// How far it has come.
    pub progress: Progress,
    /// Outcomes of everything finished.
    pub counters: SplitCounters,
}

/// Progress by split.
pub type SplitStates = BTreeMap<SplitId, SplitState>;

/// Slots that are or may be in somebody's hands, each with its newest grant: whoever shows another one has lost it. `None`:
/// not known.
pub type Grants = BTreeMap<SlotId, Option<GrantId>>;

/// A slot that a taskmanager still holds when it registers again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldSlot {
    /// The slot.
    pub slot: SlotId,
    /// The grant it was leased with.
    pub grant: GrantId,
    /// Its splits with what is durably committed.
    pub splits: SplitStates,
}

/// Names one request of an operator, so that its answer finds the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What an operator allows a reset to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Finished records are done again, their output comes twice.
    pub replay: bool,
    /// Records are passed over that nobody has read.
    pub skip: bool,
}

/// What becomes of the job after an offset cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterCut {
    /// It goes on.
    GoOn,
    /// It ends there.
    Stop,
    /// It rests there until it is resumed.
    Suspend,
}

/// A savepoint as it lies in storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSavepoint {
    /// Names it there.
    pub key: String,
    /// Which kind.
    pub kind: SavepointKind,
    /// Since it was written.
    pub age: Duration,
}

/// Something that happened outside of the coordinator. Events of one taskmanager arrive in the order it sent them.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A taskmanager's stream is open and it said who it is.
    Registered {
        /// Who.
        taskmanager: TaskmanagerId,
        /// What it still holds from an earlier stream.
        held: Option<HeldSlot>,
    },
    /// Its stream broke. It may come back before `heartbeat.timeout`.
    Disconnected {
        /// Who.
        taskmanager: TaskmanagerId,
    },
    /// A heartbeat, or anything else that proves it alive.
    Heartbeat {
        /// Who.
        taskmanager: TaskmanagerId,
    },
    /// It initialised its producer on the granted slot.
    SlotReady {
        /// Who.
        taskmanager: TaskmanagerId,
        /// With which grant.
        grant: GrantId,
    },
    /// What it has durably committed; `checkpoint` when it answers a barrier.
    Reported {
        /// Who.
        taskmanager: TaskmanagerId,
        /// The barrier that this answers.
        checkpoint: Option<CheckpointId>,
        /// Its splits.
        splits: SplitStates,
    },
    /// It dropped these splits after its last commit.
    Released {
        /// Who.
        taskmanager: TaskmanagerId,
        /// The splits.
        splits: SplitStates,
    },
    /// SIGTERM: it wants to leave.
    Draining {
        /// Who.
        taskmanager: TaskmanagerId,
    },
    /// Its producer is gone and with it slot and splits, without a final commit.
    SlotLost {
        /// Who.
        taskmanager: TaskmanagerId,
        /// Which grant.
        grant: GrantId,
    },
    /// A slot's transactional id was initialised: what was open is aborted, and its former owner is refused.
    SlotFenced {
        /// The slot.
        slot: SlotId,
    },
    /// Fencing did not succeed; it is tried again.
    FenceFailed {
        /// The slot.
        slot: SlotId,
    },
    /// Stable progress as it stands in Kafka (exactly-once).
    ProgressRead {
        /// What was asked for.
        splits: SplitStates,
    },
    /// Reading did not succeed; it is tried again.
    ProgressReadFailed {
        /// What was asked for.
        splits: Vec<SplitId>,
    },
    /// Splits with their starting progress: at job start all, later those of new partitions.
    SplitsDiscovered {
        /// New splits.
        splits: SplitStates,
    },
    /// The snapshot is stored.
    SnapshotStored {
        /// Which.
        checkpoint: CheckpointId,
        /// Where.
        location: String,
        /// How large.
        size_bytes: u64,
    },
    /// The snapshot could not be stored.
    SnapshotFailed {
        /// Which.
        checkpoint: CheckpointId,
        /// Why.
        reason: String,
    },
    /// An operator asks for a savepoint; with `stop`, for the end of the job after it.
    SavepointRequested {
        /// Who asks.
        request: RequestId,
        /// A name for it, may be empty.
        label: String,
        /// End the job with it.
        stop: bool,
    },
    /// An operator asks for a savepoint in which every partition is one plain offset.
    OffsetCutRequested {
        /// Who asks.
        request: RequestId,
        /// A name for it, may be empty.
        label: String,
        /// What becomes of the job.
        then: AfterCut,
    },
    /// An operator makes a savepoint from plain offsets that the shell has checked against the log.
    ImportRequested {
        /// Who asks.
        request: RequestId,
        /// A name for it, may be empty.
        label: String,
        /// One for each partition.
        offsets: BTreeMap<TopicPartition, i64>,
    },
    /// What [`super::action::Action::ListSavepoints`] found.
    SavepointsListed {
        /// All of them.
        savepoints: Vec<StoredSavepoint>,
    },
    /// Storage did not answer.
    SavepointsUnknown,
    /// An operator rewinds the job to a savepoint that the shell has read and checked.
    RestoreRequested {
        /// Who asks.
        request: RequestId,
        /// The savepoint's splits.
        splits: SplitStates,
        /// Go on although output beyond it exists.
        allow_replay: bool,
    },
    /// The restored progress is written.
    ProgressWritten,
    /// It could not be written.
    ProgressWriteFailed {
        /// Why.
        reason: String,
    },
    /// It is long ago that progress of a job that rests was committed.
    RenewalDue,
    /// A taskmanager cannot read splits that it owns.
    SplitsFailed {
        /// Who.
        taskmanager: TaskmanagerId,
        /// Which.
        splits: Vec<SplitId>,
        /// Why.
        failure: SplitFailure,
    },
    /// A source topic was deleted and made anew: none of its offsets mean what they did.
    TopicRecreated {
        /// Which.
        topic: TopicName,
        /// What was seen, for the operator.
        message: String,
    },
    /// An operator wants the job to rest until it is resumed.
    SuspendRequested {
        /// Who asks.
        request: RequestId,
    },
    /// An operator wants a job that rests to go on.
    ResumeRequested {
        /// Who asks.
        request: RequestId,
    },
    /// [`super::action::Action::RecordRest`] is done.
    RestRecorded,
    /// An operator moves splits to other offsets.
    ResetRequested {
        /// Who asks.
        request: RequestId,
        /// Where they go.
        splits: BTreeMap<SplitId, i64>,
        /// What may come of it.
        allowed: Allowed,
    },
    /// [`super::Coordinator::next_deadline`] has come.
    DeadlineReached,
    /// An operator wants whatever is open on a slot's transactional id aborted, and its holder off it.
    AbortRequested {
        /// Who asks.
        request: RequestId,
        /// Which.
        slot: SlotId,
    },
}
