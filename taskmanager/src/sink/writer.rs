//! The slot loop without its threads: results go to the producer, cuts make them and the progress one fact.
//!
//! ```text
//! hand_over*  cut: settle -> send_progress -> commit -> (doubt? recycle: open -> confirm grant -> stable progress
//!                   -> kept results that it does not cover are produced again -> settle -> …) -> report
//! ```

use std::{
    collections::BTreeMap,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tracing::{error, info, warn};
use weir_common::{
    config::DeliveryGuarantee,
    counters::{OutcomeKind, SplitCounters},
    ids::SlotId,
    progress::{Progress, entry::ProgressEntry},
    split::{SplitId, SplitsPerPartition},
};

use super::{
    doubt::Doubt,
    inbox::AssignedSplit,
    lease::Lease,
    output::{Cause, Failure, KeptEntry, Output, Refusal, Undelivered},
    report::SplitReport,
};
use crate::{
    budget::Held,
    enrich::Enricher,
    metrics::Metrics,
    pipeline::{Finished, cell::SplitCell},
    record::{Destination, OutputRecord, SourceRecord},
};

/// Progress that has not changed is committed again after this: Kafka forgets offsets that nobody has committed for seven
/// days.
const RECOMMIT_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Wait between two tries of a recycle, doubled up to the second.
const RECYCLE_BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// The slot is no longer ours to write with: everything is dropped, the jobmanager grants anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lost(pub(crate) String);

/// What the writer is told once.
pub(crate) struct Setup {
    pub(crate) guarantee: DeliveryGuarantee,
    pub(crate) slot: SlotId,
    pub(crate) splits_per_partition: SplitsPerPartition,
    /// `transaction.slow`
    pub(crate) slow: Duration,
    /// Kept bytes from which a cut is due before its time: the budget must not run dry between two cuts.
    pub(crate) cut_bytes: u64,
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

struct Kept {
    cell: Arc<SplitCell>,
    record: Arc<SourceRecord>,
    output: OutputRecord,
    kind: OutcomeKind,
    held: Held,
    /// The producer has it.
    sent: bool,
    /// The broker refused a batch that it was in: it goes alone next time.
    suspect: bool,
    /// It is the error event that stands for a refused output.
    replaced: bool,
}

#[derive(Debug)]
enum Transaction {
    Closed,
    Open,
    /// Nothing more can be done with this producer.
    Broken(Doubt),
}

/// See the module.
pub(crate) struct Writer<O> {
    output: O,
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

impl<O: Output> Writer<O> {
    pub(crate) fn new(
        output: O,
        setup: Setup,
        lease: Arc<Lease>,
        enricher: Arc<dyn Enricher>,
        metrics: Metrics,
    ) -> Self {
        Self {
            output,
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
    pub(crate) fn start(&mut self) -> Result<(), Lost> {
        self.retry(|writer| writer.output.open())?;
        self.output.clear_doubt();
        Ok(())
    }

    /// Takes splits over where they stand.
    pub(crate) fn assign(&mut self, splits: Vec<AssignedSplit>) {
        for AssignedSplit { cell, progress_partition, progress, counters } in splits {
            let owned = OwnedSplit {
                progress_partition,
                committed: progress,
                committed_at: Instant::now(),
                committed_counters: counters,
                counters,
                withheld: BTreeMap::new(),
                cell: Arc::clone(&cell),
            };
            self.splits.insert(cell.id.clone(), owned);
        }
    }

    /// Drops splits after a cut; says what is committed of them.
    pub(crate) fn remove(&mut self, splits: &[SplitId]) -> Vec<SplitReport> {
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
    pub(crate) fn reports(&self) -> Vec<SplitReport> {
        self.splits.values().map(OwnedSplit::report).collect()
    }

    /// Whether a cut should not wait for its time.
    pub(crate) fn cut_is_due(&self) -> bool {
        matches!(self.transaction, Transaction::Broken(_)) || self.kept_bytes >= self.setup.cut_bytes
    }

    /// Takes a result, in its order. It is withheld while its bit would not fit into the progress entry.
    pub(crate) fn hand_over(&mut self, finished: Finished) -> Result<(), Lost> {
        let id = &finished.cell.id;
        let Some(split) = self.splits.get_mut(id).filter(|split| Arc::ptr_eq(&split.cell, &finished.cell)) else {
            return Ok(());
        };
        let (cell, offset) = (Arc::clone(&split.cell), finished.record.offset);
        if split.withheld.is_empty() && cell.may_finish(offset) {
            return self.accept(finished);
        }
        split.withheld.insert(offset, finished);
        while let Some(next) = self.splits.get_mut(&cell.id).and_then(|split| {
            split.withheld.first_entry().filter(|first| cell.may_finish(*first.key())).map(|first| first.remove())
        }) {
            self.accept(next)?;
        }
        Ok(())
    }

    fn accept(&mut self, finished: Finished) -> Result<(), Lost> {
        let Finished { cell, record, outcome, held } = finished;
        // Before anything else: a recycle on the way to `begin` compares what is committed, not what is finished.
        if outcome.output.is_some() {
            self.ensure_open()?;
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
            Kept { cell, record, output, kind: outcome.kind, held, sent: false, suspect: false, replaced: false };
        self.kept.insert(number, kept);
        self.produce(number)
    }

    fn ensure_open(&mut self) -> Result<(), Lost> {
        if !matches!(self.transaction, Transaction::Closed) {
            return Ok(());
        }
        if self.is_exactly_once()
            && let Some(doubt) = self.output.doubt()
        {
            self.recycle(&doubt, &BTreeMap::new())?;
        }
        self.transaction = match self.output.begin() {
            Ok(()) => Transaction::Open,
            Err(Failure::Doubt(doubt)) => Transaction::Broken(doubt),
            Err(Failure::Fenced(reason)) => return Err(Lost(reason)),
        };
        Ok(())
    }

    /// Sends a kept record, unless the producer is broken already: then the cut sends it.
    fn produce(&mut self, number: usize) -> Result<(), Lost> {
        while let (Transaction::Open, Some(kept)) = (&self.transaction, self.kept.get_mut(&number)) {
            match self.output.produce(number, &kept.record, &kept.output) {
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

    /// Makes output and progress durable, whatever it takes; nothing to do when nothing has changed. Says what has
    /// changed. Blocks while Kafka is away, as long as the grant lasts.
    pub(crate) fn cut(&mut self) -> Result<Vec<SplitReport>, Lost> {
        let goal = self.goal();
        if goal.is_empty() && matches!(self.transaction, Transaction::Closed) {
            return Ok(Vec::new());
        }
        let started = Instant::now();
        loop {
            let attempt = Instant::now();
            let doubt = match self.attempt(&goal) {
                Ok(()) if !self.is_exactly_once() => break,
                Ok(()) => self.output.doubt().or_else(|| Doubt::of_duration(attempt.elapsed(), self.setup.slow)),
                Err(Failure::Doubt(doubt)) => Some(doubt),
                Err(Failure::Fenced(reason)) => return Err(Lost(reason)),
            };
            let Some(doubt) = doubt else { break };
            if self.recover(&doubt, &goal)? {
                break;
            }
        }
        self.metrics.cut(started.elapsed());
        Ok(self.committed(goal))
    }

    fn goal(&self) -> BTreeMap<SplitId, Progress> {
        let changed = self.splits.iter().map(|(id, split)| (id, split, split.cell.progress()));
        changed
            .filter(|(_, split, progress)| {
                *progress != split.committed || split.committed_at.elapsed() > RECOMMIT_AFTER
            })
            .map(|(id, _, progress)| (id.clone(), progress))
            .collect()
    }

    fn attempt(&mut self, goal: &BTreeMap<SplitId, Progress>) -> Result<(), Failure> {
        match self.ensure_open() {
            Ok(()) => {}
            Err(Lost(reason)) => return Err(Failure::Fenced(reason)),
        }
        let unsent: Vec<usize> = self.kept.iter().filter(|(_, kept)| !kept.sent).map(|(number, _)| *number).collect();
        for number in unsent {
            self.resend(number)?;
        }
        if let Transaction::Broken(doubt) = &self.transaction {
            return Err(Failure::Doubt(doubt.clone()));
        }
        self.settle()?;
        if self.is_exactly_once() {
            self.output.send_progress(&self.entries(goal))?;
            self.output.commit()?;
        }
        self.transaction = Transaction::Closed;
        Ok(())
    }

    /// Produces a record again. One that may be to blame for a refused batch goes alone, so that it fails alone.
    fn resend(&mut self, number: usize) -> Result<(), Failure> {
        let suspect = self.kept.get(&number).is_some_and(|kept| kept.suspect);
        if suspect {
            self.settle()?;
        }
        self.produce(number).map_err(|Lost(reason)| Failure::Fenced(reason))?;
        if !suspect {
            return Ok(());
        }
        let failed = self.output.settle();
        if let Some(refused) = failed.iter().find(|failed| failed.number == number && failed.cause == Cause::Content) {
            self.replace(number, &refused.reason);
        } else if failed.is_empty()
            && let Some(kept) = self.kept.get_mut(&number)
        {
            kept.suspect = false;
        }
        self.note(failed)
    }

    fn settle(&mut self) -> Result<(), Failure> {
        let failed = self.output.settle();
        self.note(failed)
    }

    fn note(&mut self, failed: Vec<Undelivered>) -> Result<(), Failure> {
        let Some(first) = failed.first() else { return Ok(()) };
        if let Some(fenced) = failed.iter().find(|failed| failed.cause == Cause::Fenced) {
            return Err(Failure::Fenced(fenced.reason.clone()));
        }
        let reason = first.reason.clone();
        for Undelivered { number, cause, .. } in failed {
            if let Some(kept) = self.kept.get_mut(&number) {
                kept.sent = false;
                kept.suspect |= cause == Cause::Content && !kept.replaced;
            }
        }
        Err(Failure::Doubt(Doubt::FailedDelivery(reason)))
    }

    /// A record that Kafka does not take for what it is: its error event goes instead, and if that is refused too, nothing
    /// does. Counted and logged with its position: never silent, never for ever.
    fn replace(&mut self, number: usize, reason: &str) {
        let Some(kept) = self.kept.get_mut(&number) else { return };
        let split = self.splits.get_mut(&kept.cell.id);
        if let Some(split) = split.filter(|_| kept.kind != OutcomeKind::Error) {
            recount_as_error(&mut split.counters, kept.kind);
            kept.kind = OutcomeKind::Error;
        }
        self.metrics.refused_record();
        let position = kept.record.topic_partition();
        let error_event = if kept.replaced || kept.output.destination == Destination::ErrorSink {
            None
        } else {
            let message = format!("Kafka refused the output of this record: {reason}");
            self.enricher.error_event(&kept.record, "output_refused", &message)
        };
        let offset = kept.record.offset;
        if let Some(output) = error_event {
            warn!(%position, offset, reason, "Kafka refused an output, its error event goes instead");
            (kept.output, kept.replaced, kept.suspect, kept.sent) = (output, true, false, false);
        } else {
            error!(%position, offset, reason, "Kafka refused an error event, nothing is produced for this record");
            if let Some(kept) = self.kept.remove(&number) {
                self.kept_bytes -= kept.held.bytes();
            }
        }
    }

    fn entries(&self, goal: &BTreeMap<SplitId, Progress>) -> Vec<KeptEntry> {
        let owned = goal.iter().filter_map(|(id, progress)| Some((self.splits.get(id)?, progress)));
        owned
            .map(|(split, progress)| KeptEntry {
                partition: split.progress_partition,
                entry: ProgressEntry {
                    split: split.cell.id.clone(),
                    splits_per_partition: self.setup.splits_per_partition,
                    slot: Some(self.setup.slot),
                    progress: progress.clone(),
                    counters: split.counters,
                },
            })
            .collect()
    }

    /// After a doubt: whether the goal is reached all the same.
    fn recover(&mut self, doubt: &Doubt, goal: &BTreeMap<SplitId, Progress>) -> Result<bool, Lost> {
        if self.is_exactly_once() {
            return self.recycle(doubt, goal);
        }
        warn!(%doubt, "the cut did not succeed, records that were not acknowledged are produced again");
        if matches!(self.transaction, Transaction::Broken(_)) {
            self.retry(|writer| writer.output.open())?;
            self.kept.values_mut().for_each(|kept| kept.sent = false);
        }
        self.transaction = Transaction::Closed;
        self.resend_in_order();
        thread::sleep(RECYCLE_BACKOFF.0);
        if self.lease.is_valid(Instant::now()) { Ok(false) } else { Err(grant_over()) }
    }

    /// At-least-once: with a record, the later ones of its key go again, so that the newest stays the last.
    fn resend_in_order(&mut self) {
        let mut again = std::collections::HashSet::new();
        for kept in self.kept.values_mut() {
            let key = (kept.cell.id.clone(), kept.output.key.clone());
            if !kept.sent {
                again.insert(key);
            } else if again.contains(&key) {
                kept.sent = false;
            }
        }
    }

    /// A new producer on the same id, then the truth, then what it lacks is marked to be produced again. Whether the goal
    /// is reached.
    fn recycle(&mut self, doubt: &Doubt, goal: &BTreeMap<SplitId, Progress>) -> Result<bool, Lost> {
        warn!(slot = %self.setup.slot, %doubt, "the transaction is in doubt, recycling the producer");
        self.metrics.recycled(doubt.name());
        self.transaction = Transaction::Closed;
        let splits: Vec<_> = self.splits.iter().map(|(id, split)| (id.clone(), split.progress_partition)).collect();
        let stable = self.retry(|writer| {
            writer.output.open()?;
            if !writer.lease.confirmed_since(Instant::now()) {
                return Err(Failure::Fenced(grant_over().0));
            }
            writer.output.stable_progress(&splits)
        })?;
        self.output.clear_doubt();
        let reached = self.adopt(&stable, goal)?;
        self.kept.retain(|_, kept| {
            kept.sent = false;
            let split = self.splits.get(&kept.cell.id);
            split.is_none_or(|split| !split.committed.is_finished(kept.record.offset))
        });
        self.kept_bytes = self.kept.values().map(|kept| kept.held.bytes()).sum();
        info!(slot = %self.setup.slot, committed = reached, again = self.kept.len(), "producer recycled");
        Ok(reached)
    }

    /// Takes over what stands in Kafka. It is what was committed before or what this cut wanted; anything else was written
    /// by another owner.
    fn adopt(&mut self, stable: &[ProgressEntry], goal: &BTreeMap<SplitId, Progress>) -> Result<bool, Lost> {
        for (id, split) in &mut self.splits {
            let entry = stable.iter().find(|entry| entry.split == *id);
            let entry = entry.ok_or_else(|| Lost(format!("split {id} has no progress in Kafka any more")))?;
            if goal.get(id).is_some_and(|progress| same(progress, &entry.progress)) {
                (split.committed, split.committed_counters) = (entry.progress.clone(), entry.counters);
                split.committed_at = Instant::now();
            } else if !same(&split.committed, &entry.progress) {
                let Progress { cursor, .. } = entry.progress;
                let expected = split.committed.cursor;
                return Err(Lost(format!(
                    "progress of split {id} in Kafka stands at {cursor}, this slot committed {expected}: it has another owner"
                )));
            }
        }
        Ok(goal.iter().all(|(id, progress)| self.splits.get(id).is_some_and(|split| same(&split.committed, progress))))
    }

    fn committed(&mut self, goal: BTreeMap<SplitId, Progress>) -> Vec<SplitReport> {
        self.transaction = Transaction::Closed;
        self.kept.clear();
        self.kept_bytes = 0;
        let mut reports = Vec::with_capacity(goal.len());
        for (id, progress) in goal {
            if let Some(split) = self.splits.get_mut(&id) {
                (split.committed, split.committed_counters) = (progress, split.counters);
                split.committed_at = Instant::now();
                reports.push(split.report());
            }
        }
        reports
    }

    fn retry<T>(&mut self, mut step: impl FnMut(&mut Self) -> Result<T, Failure>) -> Result<T, Lost> {
        let (mut wait, most) = RECYCLE_BACKOFF;
        loop {
            if !self.lease.is_valid(Instant::now()) {
                return Err(grant_over());
            }
            match step(self) {
                Ok(value) => return Ok(value),
                Err(Failure::Fenced(reason)) => return Err(Lost(reason)),
                Err(Failure::Doubt(doubt)) => {
                    warn!(slot = %self.setup.slot, %doubt, "producer cannot be initialised, trying again");
                    thread::sleep(wait);
                    wait = (wait * 2).min(most);
                }
            }
        }
    }

    fn is_exactly_once(&self) -> bool {
        self.setup.guarantee == DeliveryGuarantee::ExactlyOnce
    }
}

impl<O> Drop for Writer<O> {
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

/// A result that was counted by its outcome ends as an error.
fn recount_as_error(counters: &mut SplitCounters, kind: OutcomeKind) {
    let counted = match kind {
        OutcomeKind::Enriched => &mut counters.enriched,
        OutcomeKind::PassedThrough => &mut counters.passed_through,
        OutcomeKind::Dropped => &mut counters.dropped,
        OutcomeKind::Error => return,
    };
    *counted -= 1;
    counters.errors += 1;
}

fn grant_over() -> Lost {
    Lost("the grant ran out or was withdrawn".to_owned())
}

fn same(one: &Progress, other: &Progress) -> bool {
    one.is_covered_by(other) && other.is_covered_by(one)
}
