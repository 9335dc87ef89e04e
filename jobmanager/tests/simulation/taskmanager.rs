//! A taskmanager as the protocol sees it, with the real tracker of progress inside.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt, rngs::StdRng};
use weir_common::{
    counters::OutcomeKind,
    ids::{CheckpointId, GrantId, SlotId, TaskmanagerId},
    progress::tracker::Tracker,
    split::SplitId,
};
use weir_jobmanager::coordinator::event::{HeldSlot, SplitState, SplitStates};

use crate::broker::Transaction;

/// A split in work.
#[derive(Debug)]
pub(crate) struct Work {
    tracker: Tracker,
    counters: weir_common::counters::SplitCounters,
    committed: SplitState,
    in_flight: Vec<i64>,
    produced: Vec<i64>,
}

impl Work {
    fn new(state: SplitState) -> Self {
        let tracker = Tracker::new(&state.progress);
        Self { tracker, counters: state.counters, committed: state, in_flight: Vec::new(), produced: Vec::new() }
    }
}

#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) slot: SlotId,
    pub(crate) grant: GrantId,
    /// Epoch of the producer; `None` while it is being initialised.
    pub(crate) epoch: Option<u64>,
    pub(crate) splits: BTreeMap<SplitId, Work>,
    /// A cut is on its way; no result is handed over meanwhile.
    pub(crate) cutting: bool,
}

#[derive(Debug)]
pub(crate) struct Taskmanager {
    pub(crate) id: TaskmanagerId,
    pub(crate) connection: Option<u64>,
    pub(crate) paused_until: u64,
    pub(crate) held: Option<Slot>,
    /// Changes whenever producer or slot do: answers to an earlier one are nobody's.
    pub(crate) incarnation: u64,
    pub(crate) revoked: BTreeSet<SplitId>,
    pub(crate) barriers: Vec<CheckpointId>,
    pub(crate) draining: bool,
    /// When the last heartbeat was sent that was acknowledged.
    pub(crate) acknowledged: u64,
    pub(crate) next_cut: u64,
}

impl Taskmanager {
    pub(crate) fn new(number: u64) -> Self {
        Self {
            id: TaskmanagerId(format!("tm-{number}")),
            connection: None,
            paused_until: 0,
            held: None,
            incarnation: 0,
            revoked: BTreeSet::new(),
            barriers: Vec::new(),
            draining: false,
            acknowledged: 0,
            next_cut: 0,
        }
    }

    pub(crate) fn drop_slot(&mut self) {
        self.held = None;
        self.incarnation += 1;
        self.revoked.clear();
        self.barriers.clear();
    }

    /// What Register says. A producer that is not initialised is nothing to hold.
    pub(crate) fn claim(&self) -> Option<HeldSlot> {
        let held = self.held.as_ref().filter(|held| held.epoch.is_some() || !held.splits.is_empty())?;
        let splits = held.splits.iter().map(|(id, work)| (id.clone(), work.committed.clone())).collect();
        Some(HeldSlot { slot: held.slot, grant: held.grant, splits })
    }

    pub(crate) fn assign(&mut self, splits: SplitStates) {
        if let Some(held) = &mut self.held {
            for (id, state) in splits {
                held.splits.entry(id).or_insert_with(|| Work::new(state));
            }
        }
    }

    /// Reads some, finishes some.
    pub(crate) fn work(&mut self, logs: &BTreeMap<SplitId, Vec<i64>>, rng: &mut StdRng) {
        let Some(held) = self.held.as_mut().filter(|held| held.epoch.is_some() && !held.cutting) else { return };
        for (id, work) in &mut held.splits {
            if !self.revoked.contains(id) && !self.draining {
                let unread: Vec<i64> =
                    logs[id].iter().copied().filter(|at| *at >= work.tracker.next()).take(4).collect();
                work.in_flight.extend(unread.into_iter().filter(|offset| work.tracker.admit(*offset)));
            }
            while !work.in_flight.is_empty() && rng.random_bool(0.6) {
                let offset = work.in_flight.swap_remove(rng.random_range(0..work.in_flight.len()));
                work.tracker.finish(offset);
                work.counters.count(OutcomeKind::Enriched);
                work.produced.push(offset);
            }
        }
    }

    /// What the cut commits; `None` when there is nothing to.
    pub(crate) fn cut(&mut self) -> Option<Transaction> {
        let held = self.held.as_mut()?;
        let mut transaction = Transaction::default();
        for (id, work) in &mut held.splits {
            let state = SplitState { progress: work.tracker.progress(), counters: work.counters };
            if state != work.committed {
                transaction.outputs.extend(work.produced.drain(..).map(|offset| (id.clone(), offset)));
                transaction.progress.insert(id.clone(), state);
            }
        }
        held.cutting = !transaction.progress.is_empty();
        held.cutting.then_some(transaction)
    }

    pub(crate) fn committed(&mut self, progress: SplitStates) {
        let Some(held) = &mut self.held else { return };
        held.cutting = false;
        for (id, state) in progress {
            if let Some(work) = held.splits.get_mut(&id) {
                work.committed = state;
            }
        }
    }

    /// After a recycle: everything goes on from what is stable.
    pub(crate) fn rewind(&mut self, stable: SplitStates) {
        let Some(held) = &mut self.held else { return };
        held.cutting = false;
        held.splits = stable.into_iter().map(|(id, state)| (id, Work::new(state))).collect();
    }

    /// All that is held, for a report.
    pub(crate) fn report(&self) -> SplitStates {
        let splits = self.held.iter().flat_map(|held| &held.splits);
        splits.map(|(id, work)| (id.clone(), work.committed.clone())).collect()
    }

    /// Drops what was revoked; its committed state goes to the jobmanager.
    pub(crate) fn release(&mut self) -> SplitStates {
        let revoked = std::mem::take(&mut self.revoked);
        let Some(held) = &mut self.held else { return SplitStates::new() };
        let take = |id: SplitId| held.splits.remove(&id).map(|work| (id, work.committed));
        revoked.into_iter().filter_map(take).collect()
    }
}
