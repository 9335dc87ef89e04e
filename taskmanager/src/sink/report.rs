//! What the sink says.

use weir_common::{
    counters::SplitCounters,
    ids::{CheckpointId, GrantId},
    progress::Progress,
    split::SplitId,
};

/// What is durably committed of a split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SplitReport {
    /// Which split.
    pub(crate) split: SplitId,
    /// How far it is.
    pub(crate) progress: Progress,
    /// Outcomes of what is finished.
    pub(crate) counters: SplitCounters,
    /// Where its progress is kept.
    pub(crate) progress_partition: i32,
}

/// Something the sink of one grant has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SinkEvent {
    /// Whose: events of an earlier grant mean nothing any more.
    pub(crate) grant: GrantId,
    /// What.
    pub(crate) kind: SinkEventKind,
}

/// See [`SinkEvent`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SinkEventKind {
    /// The producer is initialised.
    Ready,
    /// Committed; in answer to a barrier all splits, else those that changed.
    Reported { checkpoint: Option<CheckpointId>, splits: Vec<SplitReport> },
    /// Committed and dropped.
    Released { splits: Vec<SplitReport> },
    /// The slot is gone with all its splits.
    Lost { reason: String },
}
