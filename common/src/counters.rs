//! Conservation: what went in has come out.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// How a record ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeKind {
    /// Written to the sink with content.
    Enriched,
    /// Written to the sink without asking the API (deletes).
    PassedThrough,
    /// Written to the error stream.
    Error,
    /// Dropped on purpose (canaries).
    Dropped,
}

/// Finished records of one split, by outcome, since the job's first start. They travel with the progress, so they are
/// exact wherever the progress is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitCounters {
    /// Records whose work is finished.
    pub consumed: u64,
    /// See [`OutcomeKind::Enriched`].
    pub enriched: u64,
    /// See [`OutcomeKind::PassedThrough`].
    pub passed_through: u64,
    /// See [`OutcomeKind::Error`].
    pub errors: u64,
    /// See [`OutcomeKind::Dropped`].
    pub dropped: u64,
}

impl SplitCounters {
    /// Counts one finished record.
    pub fn count(&mut self, outcome: OutcomeKind) {
        self.consumed += 1;
        match outcome {
            OutcomeKind::Enriched => self.enriched += 1,
            OutcomeKind::PassedThrough => self.passed_through += 1,
            OutcomeKind::Error => self.errors += 1,
            OutcomeKind::Dropped => self.dropped += 1,
        }
    }

    /// consumed = enriched + passed through + errors + dropped.
    #[must_use]
    pub fn conserved(&self) -> bool {
        self.consumed == self.enriched + self.passed_through + self.errors + self.dropped
    }
}

impl AddAssign for SplitCounters {
    fn add_assign(&mut self, other: Self) {
        self.consumed += other.consumed;
        self.enriched += other.enriched;
        self.passed_through += other.passed_through;
        self.errors += other.errors;
        self.dropped += other.dropped;
    }
}
