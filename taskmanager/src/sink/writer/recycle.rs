//! The recycle: a new producer on the same id, the truth from Kafka, and what it lacks is produced again.

use std::{collections::BTreeMap, time::Duration};

use tracing::{info, warn};
use weir_common::{
    progress::{Progress, entry::ProgressEntry},
    split::SplitId,
};

use super::{Lost, Transaction, Writer};
use crate::{
    clock::Clock,
    sink::{
        doubt::Doubt,
        output::{Failure, Output},
    },
};

/// Wait between two tries of a recycle, doubled up to the second.
const RECYCLE_BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

impl<O: Output, C: Clock> Writer<O, C> {
    /// After a doubt: whether the goal is reached all the same.
    pub(super) async fn recover(&mut self, doubt: &Doubt, goal: &BTreeMap<SplitId, Progress>) -> Result<bool, Lost> {
        if self.is_exactly_once() {
            return self.recycle(doubt, goal).await;
        }
        warn!(%doubt, "the cut did not succeed, records that were not acknowledged are produced again");
        if matches!(self.transaction, Transaction::Broken(_)) {
            self.retry(async |writer| writer.output.open().await).await?;
            self.kept.values_mut().for_each(|kept| kept.sent = false);
        }
        self.transaction = Transaction::Closed;
        self.resend_in_order();
        self.clock.sleep(RECYCLE_BACKOFF.0).await;
        if self.lease.is_valid(self.clock.now()) { Ok(false) } else { Err(grant_over()) }
    }

    /// A new producer on the same id, then the truth, then what it lacks is marked to be produced again. Whether the goal
    /// is reached.
    pub(super) async fn recycle(&mut self, doubt: &Doubt, goal: &BTreeMap<SplitId, Progress>) -> Result<bool, Lost> {
        warn!(slot = %self.setup.slot, %doubt, "the transaction is in doubt, recycling the producer");
        self.metrics.recycled(doubt.name());
        self.transaction = Transaction::Closed;
        let splits: Vec<_> = self.splits.iter().map(|(id, split)| (id.clone(), split.progress_partition)).collect();
        let stable = self
            .retry(async |writer| {
                writer.output.open().await?;
                if !writer.lease.confirmed_since(&writer.clock, writer.clock.now()).await {
                    return Err(Failure::Fenced(grant_over().0));
                }
                writer.output.stable_progress(&splits).await
            })
            .await?;
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
        let now = self.clock.now();
        for (id, split) in &mut self.splits {
            let entry = stable.iter().find(|entry| entry.split == *id);
            let entry = entry.ok_or_else(|| Lost(format!("split {id} has no progress in Kafka any more")))?;
            if goal.get(id).is_some_and(|progress| same(progress, &entry.progress)) {
                (split.committed, split.committed_counters) = (entry.progress.clone(), entry.counters);
                split.committed_at = now;
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

    pub(super) async fn retry<T>(
        &mut self,
        mut step: impl AsyncFnMut(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, Lost> {
        let (mut wait, most) = RECYCLE_BACKOFF;
        loop {
            if !self.lease.is_valid(self.clock.now()) {
                return Err(grant_over());
            }
            match step(self).await {
                Ok(value) => return Ok(value),
                Err(Failure::Fenced(reason)) => return Err(Lost(reason)),
                Err(Failure::Doubt(doubt)) => {
                    warn!(slot = %self.setup.slot, %doubt, "producer cannot be initialised, trying again");
                    self.clock.sleep(wait).await;
                    wait = (wait * 2).min(most);
                }
            }
        }
    }
}

fn grant_over() -> Lost {
    Lost("the grant ran out or was withdrawn".to_owned())
}

fn same(one: &Progress, other: &Progress) -> bool {
    one.is_covered_by(other) && other.is_covered_by(one)
}
