//! The cut: output and progress become one fact.

use std::{collections::BTreeMap, time::Duration};

use weir_common::{
    progress::{Progress, entry::ProgressEntry},
    split::SplitId,
};

use super::{Lost, Transaction, Writer};
use crate::{
    clock::Clock,
    sink::{
        doubt::Doubt,
        output::{Cause, Failure, KeptEntry, Output, Undelivered},
        report::SplitReport,
    },
};

/// Progress that has not changed is committed again after this: Kafka forgets offsets that nobody has committed for seven
/// days.
const RECOMMIT_AFTER: Duration = Duration::from_secs(24 * 3600);

impl<O: Output, C: Clock> Writer<O, C> {
    /// Makes output and progress durable, whatever it takes; nothing to do when nothing has changed. Says what has
    /// changed. Waits while Kafka is away, as long as the grant lasts.
    ///
    /// # Errors
    /// The slot is lost, and what is not committed is dropped with it.
    ///
    /// # Cancel safety
    /// None: the writer is to be dropped with the future.
    pub async fn cut(&mut self) -> Result<Vec<SplitReport>, Lost> {
        let goal = self.goal();
        if goal.is_empty() && matches!(self.transaction, Transaction::Closed) {
            return Ok(Vec::new());
        }
        let started = self.clock.now();
        loop {
            let attempt = self.clock.now();
            let doubt = match self.attempt(&goal).await {
                Ok(()) if !self.is_exactly_once() => break,
                Ok(()) => {
                    self.output.doubt().or_else(|| Doubt::of_duration(self.clock.now() - attempt, self.setup.slow))
                }
                Err(Failure::Doubt(doubt)) => Some(doubt),
                Err(Failure::Fenced(reason)) => return Err(Lost(reason)),
            };
            let Some(doubt) = doubt else { break };
            if self.recover(&doubt, &goal).await? {
                break;
            }
        }
        self.metrics.cut(self.clock.now() - started);
        Ok(self.committed(goal))
    }

    fn goal(&self) -> BTreeMap<SplitId, Progress> {
        let now = self.clock.now();
        let changed = self.splits.iter().map(|(id, split)| (id, split, split.cell.progress()));
        changed
            .filter(|(_, split, progress)| *progress != split.committed || now - split.committed_at > RECOMMIT_AFTER)
            .map(|(id, _, progress)| (id.clone(), progress))
            .collect()
    }

    async fn attempt(&mut self, goal: &BTreeMap<SplitId, Progress>) -> Result<(), Failure> {
        match self.ensure_open().await {
            Ok(()) => {}
            Err(Lost(reason)) => return Err(Failure::Fenced(reason)),
        }
        let unsent: Vec<usize> = self.kept.iter().filter(|(_, kept)| !kept.sent).map(|(number, _)| *number).collect();
        for number in unsent {
            self.resend(number).await?;
        }
        if let Transaction::Broken(doubt) = &self.transaction {
            return Err(Failure::Doubt(doubt.clone()));
        }
        self.settle().await?;
        if self.is_exactly_once() {
            self.output.send_progress(&self.entries(goal)).await?;
            self.output.commit().await?;
        }
        self.transaction = Transaction::Closed;
        Ok(())
    }

    /// Produces a record again. One that may be to blame for a refused batch goes alone, so that it fails alone.
    async fn resend(&mut self, number: usize) -> Result<(), Failure> {
        let suspect = self.kept.get(&number).is_some_and(|kept| kept.suspect);
        if suspect {
            self.settle().await?;
        }
        self.produce(number).await.map_err(|Lost(reason)| Failure::Fenced(reason))?;
        if !suspect {
            return Ok(());
        }
        let failed = self.output.settle().await;
        if let Some(refused) = failed.iter().find(|failed| failed.number == number && failed.cause == Cause::Content) {
            self.replace(number, &refused.reason);
        } else if failed.is_empty()
            && let Some(kept) = self.kept.get_mut(&number)
        {
            kept.suspect = false;
        }
        self.note(failed)
    }

    async fn settle(&mut self) -> Result<(), Failure> {
        let failed = self.output.settle().await;
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
                kept.suspect |= cause == Cause::Content;
            }
        }
        Err(Failure::Doubt(Doubt::FailedDelivery(reason)))
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

    fn committed(&mut self, goal: BTreeMap<SplitId, Progress>) -> Vec<SplitReport> {
        self.transaction = Transaction::Closed;
        self.kept.clear();
        self.kept_bytes = 0;
        let now = self.clock.now();
        let mut reports = Vec::with_capacity(goal.len());
        for (id, progress) in goal {
            if let Some(split) = self.splits.get_mut(&id) {
                (split.committed, split.committed_counters) = (progress, split.counters);
                split.committed_at = now;
                reports.push(split.report());
            }
        }
        reports
    }
}
