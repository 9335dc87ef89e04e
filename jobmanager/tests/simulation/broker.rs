//! As much of a transactional broker as the protocol leans on: producer epochs, transactions whose end is decided before
//! it is visible, stable reads.

use std::collections::{BTreeMap, BTreeSet};

use weir_common::{ids::SlotId, split::SplitId};
use weir_jobmanager::coordinator::event::SplitStates;

/// One transaction: output and progress, atomic.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transaction {
    pub(crate) outputs: Vec<(SplitId, i64)>,
    pub(crate) progress: SplitStates,
}

#[derive(Debug, Default)]
pub(crate) struct Broker {
    epochs: BTreeMap<SlotId, u64>,
    /// Decided, not visible yet.
    prepared: BTreeMap<SlotId, Transaction>,
    progress: SplitStates,
    outputs: BTreeMap<(SplitId, i64), u32>,
    /// Slots that the job record names.
    pub(crate) recorded_slots: BTreeSet<SlotId>,
    /// Sabotage: initialising does not refuse the former producer.
    pub(crate) fences: bool,
}

impl Broker {
    pub(crate) fn new(progress: SplitStates) -> Self {
        Self { progress, fences: true, ..Self::default() }
    }

    /// `init_transactions`: waits for what was decided, refuses everyone before.
    pub(crate) fn init(&mut self, slot: SlotId) -> u64 {
        self.complete(slot);
        let epoch = self.epochs.entry(slot).or_default();
        if self.fences {
            *epoch += 1;
        }
        *epoch
    }

    /// EndTxn arrives. `false`: fenced.
    pub(crate) fn commit(&mut self, slot: SlotId, epoch: u64, transaction: Transaction) -> bool {
        if self.epochs.get(&slot) != Some(&epoch) {
            return false;
        }
        self.complete(slot);
        self.prepared.insert(slot, transaction);
        true
    }

    pub(crate) fn complete(&mut self, slot: SlotId) {
        let Some(transaction) = self.prepared.remove(&slot) else { return };
        for output in transaction.outputs {
            *self.outputs.entry(output).or_default() += 1;
        }
        self.progress.extend(transaction.progress);
    }

    /// `None`: a transaction on one of them is pending, the read times out.
    pub(crate) fn stable(&self, splits: &[SplitId]) -> Option<SplitStates> {
        let pending =
            |split: &SplitId| self.prepared.values().any(|transaction| transaction.progress.contains_key(split));
        let read = |split: &SplitId| (!pending(split)).then(|| (split.clone(), self.progress[split].clone()));
        splits.iter().map(read).collect()
    }

    pub(crate) fn progress(&self) -> &SplitStates {
        &self.progress
    }

    /// Output and progress tell the same story, and nothing is there twice.
    pub(crate) fn violation(&self, logs: &BTreeMap<SplitId, Vec<i64>>) -> Option<String> {
        if let Some((output, count)) = self.outputs.iter().find(|(_, count)| **count > 1) {
            return Some(format!("{}@{} was written {count} times", output.0, output.1));
        }
        for (split, offsets) in logs {
            for offset in offsets {
                let finished = self.progress[split].progress.is_finished(*offset);
                let written = self.outputs.contains_key(&(split.clone(), *offset));
                if finished != written {
                    return Some(format!("{split}@{offset}: finished {finished}, written {written}"));
                }
            }
        }
        None
    }

    pub(crate) fn written(&self) -> usize {
        self.outputs.len()
    }
}
