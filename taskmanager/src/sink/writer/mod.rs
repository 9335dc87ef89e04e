//! The slot loop without its thread: results go to the producer, cuts make them and the progress one fact. Every step that
//! waits is awaited, so that the same code runs on real Kafka and in a simulation's time.
//!
//! ```text
//! hand_over*  cut: settle -> send_progress -> commit -> (doubt? recycle: open -> confirm grant -> stable progress
//!                   -> kept results that it does not cover are produced again -> settle -> …) -> report
//! ```

mod cut;
mod kept;
mod recycle;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use weir_common::{
    config::DeliveryGuarantee,
    counters::SplitCounters,
    ids::SlotId,
    progress::Progress,
    split::{SplitId, SplitsPerPartition},
};

use self::kept::Kept;
use super::{
    doubt::Doubt,
    inbox::AssignedSplit,
    lease::Lease,
    output::{Failure, Output, Refusal},
    report::SplitReport,
};
use crate::{
    clock::Clock,
    enrich::Enricher,
    metrics::Metrics,
    pipeline::{Finished, cell::SplitCell},
};

/// The slot is no longer ours to write with: everything is dropped, the jobmanager grants anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost(pub String);

/// What the writer is told once.
pub struct Setup {
    /// The job's.
    pub guarantee: DeliveryGuarantee,
    /// Whose producer it is.
    pub slot: SlotId,
    /// The job's.
    pub splits_per_partition: SplitsPerPartition,
    /// `transaction.slow`
    pub slow: Duration,
    /// Kept bytes from which a cut is due before its time: the budget must not run dry between two cuts.
    pub cut_bytes: u64,
}

struct OwnedSplit {
    cell: Arc<SplitCell>,
    progress_partition: i32,
    committed: Progress,
    committed_at: Instant,
    committed_counters: SplitCounters,
    /// With everything finished, committed or not.
    counters: SplitCounters,
    /// Results whose bit does not fit into the progress entry now. Ascending: that keeps the order of each key.
    withheld: BTreeMap<i64, Finished>,
}

#[derive(Debug)]
enum Transaction {
    Closed,
    Open,
    /// Nothing more can be done with this producer.
    Broken(Doubt),
}

/// See the module.
pub struct Writer<O, C> {
    output: O,
    clock: C,
    setup: Setup,
    lease: Arc<Lease>,
    enricher: Arc<dyn Enricher>,
    metrics: Metrics,
    splits: BTreeMap<SplitId, OwnedSplit>,
    transaction: Transaction,
    /// Results of the open transaction in the order they were produced.
    kept: BTreeMap<usize, Kept>,
    kept_bytes: u64,
    next_number: usize,
}

impl<O: Output, C: Clock> Writer<O, C> {
    /// A writer without splits and, until [`Writer::start`], without a producer.
    pub fn new(
        output: O,
        clock: C,
        setup: Setup,
        lease: Arc<Lease>,
        enricher: Arc<dyn Enricher>,
        metrics: Metrics,
    ) -> Self {
        Self {
            output,
            clock,
            setup,
            lease,
            enricher,
            metrics,
            splits: BTreeMap::new(),
            transaction: Transaction::Closed,
            kept: BTreeMap::new(),
            kept_bytes: 0,
            next_number: 0,
        }
    }

    /// Makes the slot's first producer. The grant is fresh, so nothing needs to be confirmed.
    ///
    /// # Errors
    /// The slot is lost.
    pub async fn start(&mut self) -> Result<(), Lost> {
        self.retry(async |writer| writer.output.open().await).await?;
        self.output.clear_doubt();
        Ok(())
    }

    /// Takes splits over where they stand.
    pub fn assign(&mut self, splits: Vec<AssignedSplit>) {
        let committed_at = self.clock.now();
        for AssignedSplit { cell, progress_partition, progress, counters } in splits {
            let owned = OwnedSplit {
                progress_partition,
                committed: progress,
                committed_at,
                committed_counters: counters,
                counters,
                withheld: BTreeMap::new(),
                cell: Arc::clone(&cell),
            };
            self.splits.insert(cell.id.clone(), owned);
        }
    }

    /// Drops splits after a cut; says what is committed of them.
    pub fn remove(&mut self, splits: &[SplitId]) -> Vec<SplitReport> {
        let removed: Vec<_> = splits.iter().filter_map(|split| self.splits.remove(split)).collect();
        removed
            .iter()
            .map(|split| {
                split.cell.close();
                split.report()
            })
            .collect()
    }

    /// What is committed of every split.
    #[must_use]
    pub fn reports(&self) -> Vec<SplitReport> {
        self.splits.values().map(OwnedSplit::report).collect()
    }

    /// Whether a cut should not wait for its time.
    #[must_use]
    pub fn cut_is_due(&self) -> bool {
        matches!(self.transaction, Transaction::Broken(_)) || self.kept_bytes >= self.setup.cut_bytes
    }

    /// Whether a result is of a split that is here.
    #[must_use]
    pub fn owns(&self, finished: &Finished) -> bool {
        self.splits.get(&finished.cell.id).is_some_and(|split| Arc::ptr_eq(&split.cell, &finished.cell))
    }

    /// Takes a result, in its order. It is withheld while its bit would not fit into the progress entry.
    ///
    /// # Errors
    /// The slot is lost.
    ///
    /// # Cancel safety
    /// None: the writer is to be dropped with the future.
    pub async fn hand_over(&mut self, finished: Finished) -> Result<(), Lost> {
        if !self.owns(&finished) {
            return Ok(());
        }
        let Some(split) = self.splits.get_mut(&finished.cell.id) else { return Ok(()) };
        let (cell, offset) = (Arc::clone(&split.cell), finished.record.offset);
        if split.withheld.is_empty() && cell.may_finish(offset) {
            return self.accept(finished).await;
        }
        split.withheld.insert(offset, finished);
        while let Some(next) = self.splits.get_mut(&cell.id).and_then(|split| {
            split.withheld.first_entry().filter(|first| cell.may_finish(*first.key())).map(|first| first.remove())
        }) {
            self.accept(next).await?;
        }
        Ok(())
    }

    async fn accept(&mut self, finished: Finished) -> Result<(), Lost> {
        let Finished { cell, record, outcome, held } = finished;
        // Before anything else: a recycle on the way to `begin` compares what is committed, not what is finished.
        if outcome.output.is_some() {
            self.ensure_open().await?;
        }
        cell.finish(record.offset);
        if let Some(split) = self.splits.get_mut(&cell.id) {
            split.counters.count(outcome.kind);
        }
        self.metrics.finished(&outcome);
        let Some(output) = outcome.output else { return Ok(()) };
        let number = self.next_number;
        self.next_number = self.next_number.wrapping_add(1);
        self.kept_bytes += held.bytes();
        let kept =
            Kept { cell, record, output, kind: outcome.kind, held, sent: false, suspect: false, replacements: 0 };
        self.kept.insert(number, kept);
        self.produce(number).await
    }

    async fn ensure_open(&mut self) -> Result<(), Lost> {
        if !matches!(self.transaction, Transaction::Closed) {
            return Ok(());
        }
        if self.is_exactly_once()
            && let Some(doubt) = self.output.doubt()
        {
            self.recycle(&doubt, &BTreeMap::new()).await?;
        }
        self.transaction = match self.output.begin().await {
            Ok(()) => Transaction::Open,
            Err(Failure::Doubt(doubt)) => Transaction::Broken(doubt),
            Err(Failure::Fenced(reason)) => return Err(Lost(reason)),
        };
        Ok(())
    }

    /// Sends a kept record, unless the producer is broken already: then the cut sends it.
    async fn produce(&mut self, number: usize) -> Result<(), Lost> {
        while let (Transaction::Open, Some(kept)) = (&self.transaction, self.kept.get_mut(&number)) {
            match self.output.produce(number, &kept.record, &kept.output).await {
                Ok(()) => {
                    kept.sent = true;
                    break;
                }
                Err(Refusal::Record(reason)) => self.replace(number, &reason),
                Err(Refusal::Producer(Failure::Doubt(doubt))) => self.transaction = Transaction::Broken(doubt),
                Err(Refusal::Producer(Failure::Fenced(reason))) => return Err(Lost(reason)),
            }
        }
        Ok(())
    }

    /// The clock that it lives by.
    pub(super) fn clock(&self) -> &C {
        &self.clock
    }

    fn is_exactly_once(&self) -> bool {
        self.setup.guarantee == DeliveryGuarantee::ExactlyOnce
    }
}

impl<O, C> Drop for Writer<O, C> {
    fn drop(&mut self) {
        for split in self.splits.values() {
            split.cell.close();
        }
    }
}

impl OwnedSplit {
    fn report(&self) -> SplitReport {
        SplitReport {
            split: self.cell.id.clone(),
            progress: self.committed.clone(),
            counters: self.committed_counters,
            progress_partition: self.progress_partition,
        }
    }
}
