//! From a record that was read to a result that may be produced: [`cell`] follows one split, [`order`] puts results back
//! into the order of their records, and [`Pipeline`] runs the enrichment in between.

pub(crate) mod cell;
pub(crate) mod order;

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt as _;
use tokio::runtime::Handle;
use tracing::error;
use weir_common::{counters::OutcomeKind, split::KeyHash};

use self::cell::SplitCell;
use crate::{
    budget::{Admission, Budget, Held},
    enrich::Enricher,
    record::{Outcome, SourceRecord},
    sink::inbox::Inbox,
};

/// A record whose work is done, on its way to the sink.
#[derive(Debug)]
pub struct Finished {
    /// Its split.
    pub cell: Arc<SplitCell>,
    /// The record.
    pub record: Arc<SourceRecord>,
    /// What became of it.
    pub outcome: Outcome,
    /// Its share of the budget.
    pub held: Held,
}

/// Runs the enricher for many records at once.
#[derive(Clone)]
pub(crate) struct Pipeline {
    enricher: Arc<dyn Enricher>,
    budget: Budget,
    inbox: Arc<Inbox>,
    runtime: Handle,
}

impl Pipeline {
    pub(crate) fn new(enricher: Arc<dyn Enricher>, budget: Budget, inbox: Arc<Inbox>, runtime: Handle) -> Self {
        Self { enricher, budget, inbox, runtime }
    }

    /// Waits for room for a record. Cancel safe.
    pub(crate) async fn admit(&self, record: &SourceRecord) -> Admission {
        self.budget.admit(record_bytes(record).saturating_add(self.enricher.reservation(record))).await
    }

    /// Where a record's key falls: hash of the key, else of its page, else of its partition.
    pub(crate) fn key_of(&self, record: &SourceRecord) -> KeyHash {
        // Nothing is parsed for records that have a key: most of them belong to other taskmanagers.
        if let Some(key) = &record.key {
            return KeyHash::of(key);
        }
        match self.enricher.page(record) {
            Some((wiki, page)) => KeyHash::of_page(&wiki, page),
            None => KeyHash::of_partition(record.partition),
        }
    }

    /// Enriches an admitted record. Ends early, without a result, when the split is closed.
    pub(crate) fn start(&self, cell: Arc<SplitCell>, key: KeyHash, record: SourceRecord, admission: Admission) {
        let (enricher, inbox) = (Arc::clone(&self.enricher), Arc::clone(&self.inbox));
        self.runtime.spawn(async move {
            let work = AssertUnwindSafe(enricher.enrich(&record)).catch_unwind();
            let outcome = tokio::select! {
                () = cell.closed() => return,
                outcome = work => outcome.unwrap_or_else(|_| panicked(&*enricher, &record)),
            };
            let output_bytes = outcome.output.as_ref().map_or(0, |output| output.value.len() as u64);
            let held = admission.settle(record_bytes(&record).saturating_add(output_bytes));
            let finished = Finished { cell: Arc::clone(&cell), record: Arc::new(record), outcome, held };
            cell.complete(key, finished, &inbox);
        });
    }
}

fn record_bytes(record: &SourceRecord) -> u64 {
    let len = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
    len(&record.key) + len(&record.value)
}

/// A defect of ours must not stop the split: the record goes to the error stream, and the log says where it is.
fn panicked(enricher: &dyn Enricher, record: &SourceRecord) -> Outcome {
    let position = record.topic_partition();
    error!(%position, offset = record.offset, "enrichment panicked, the record becomes an error event; please report this");
    let output = enricher.error_event(record, "internal_error", "the enrichment of this record panicked", None);
    Outcome { kind: OutcomeKind::Error, output, error_type: Some("internal_error") }
}
