//! What the sink says.

use weir_common::{
    counters::SplitCounters,
    ids::{CheckpointId, GrantId},
    progress::Progress,
    split::SplitId,
};

/// What is durably committed of a split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitReport {
    /// Which split.
    pub split: SplitId,
    /// How far it is.
    pub progress: Progress,
    /// Outcomes of what is finished.
    pub counters: SplitCounters,
    /// Where its progress is kept.
    pub progress_partition: i32,
}

/// A split as it is handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Where it goes on.
    pub report: SplitReport,
    /// Nothing at or above this offset is to be taken in.
    pub limit: Option<i64>,
}

/// Something the sink of one grant has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkEvent {
    /// Whose: events of an earlier grant mean nothing any more.
    pub grant: GrantId,
    /// What.
    pub kind: SinkEventKind,
}

/// See [`SinkEvent`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkEventKind {
    /// The producer is initialised.
    Ready,
    /// Committed; in answer to a barrier all splits, else those that changed.
    Reported {
        /// The barrier that it answers.
        checkpoint: Option<CheckpointId>,
        /// What is committed.
        splits: Vec<SplitReport>,
    },
    /// Committed and dropped.
    Released {
        /// What is committed of them.
        splits: Vec<SplitReport>,
    },
    /// The slot is gone with all its splits.
    Lost {
        /// Why, for log and jobmanager.
        reason: String,
    },
}
