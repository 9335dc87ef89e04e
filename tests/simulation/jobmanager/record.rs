//! The job record is written before a grant is sent and before a fenced slot's splits are handed on, one write at a time, by
//! a writer that fences its predecessor.

use std::{collections::BTreeSet, rc::Rc};

use weir_common::ids::{GrantId, LeaderEpoch, SlotId, TaskmanagerId};
use weir_jobmanager::{
    coordinator::event::{Event, Grants},
    start::{JobRecord, topics::KnownTopics},
};

use crate::{
    broker::{Kept, Offsets},
    client::Trouble,
    time::{MS, Pid, SECOND, Sleep},
    variants::Variant,
    world::World,
};

pub(super) type Grant = (TaskmanagerId, SlotId, GrantId);

/// What waits for the record.
#[derive(Clone)]
pub(super) enum Then {
    Grant(Grant),
    Fenced(SlotId),
}

#[derive(Default)]
pub(super) struct Recorder {
    recorded: Grants,
    /// Of which the coordinator does not know yet.
    fenced: BTreeSet<SlotId>,
    writing: bool,
    /// Something is to be written whatever the slots are.
    dirty: bool,
    /// For the write on the way.
    covered: Vec<Then>,
    /// For the next one.
    waiting: Vec<Then>,
}

impl Recorder {
    pub(super) fn new(recorded: Grants) -> Self {
        Self { recorded, ..Self::default() }
    }
}

impl World {
    pub(super) fn record_then(self: &Rc<Self>, pid: Pid, then: Then) {
        if !self.exactly_once {
            return self.proceed(pid, then);
        }
        match &then {
            Then::Grant(grant) if self.variant == Variant::GrantBeforeRecord => self.send_grant(pid, grant.clone()),
            Then::Fenced(slot) if self.variant == Variant::FencedSlotStaysRecorded => {
                return self.tell_coordinator(pid, Event::SlotFenced { slot: *slot });
            }
            Then::Grant(_) | Then::Fenced(_) => {}
        }
        self.with_leadership(pid, |leadership| {
            if let Then::Fenced(slot) = &then {
                leadership.recorder.fenced.insert(*slot);
                leadership.recorder.dirty = true;
            }
            leadership.recorder.waiting.push(then);
        });
        self.record(pid);
    }

    fn record(self: &Rc<Self>, pid: Pid) {
        let begun = self.with_leadership(pid, |leadership| {
            let mut slots: Grants = leadership.coordinator.slots_in_use().collect();
            let recorder = &mut leadership.recorder;
            if recorder.writing || recorder.waiting.is_empty() {
                return None;
            }
            recorder.covered = std::mem::take(&mut recorder.waiting);
            recorder.writing = true;
            slots.retain(|slot, _| !recorder.fenced.contains(slot));
            let known = |(slot, grant)| recorder.recorded.get(slot) == Some(grant);
            let changed = std::mem::take(&mut recorder.dirty) || !slots.iter().all(known);
            let record = changed.then(|| JobRecord {
                leader_epoch: leadership.epoch,
                splits_per_partition: self.input.splits_per_partition,
                slots,
                rewound: None,
                suspended: false,
                topics: KnownTopics::default(),
            });
            Some((leadership.term, record))
        });
        let Some((term, record)) = begun.flatten() else { return };
        let Some(record) = record else { return self.recorded(pid, Ok(None)) };
        let world = Rc::clone(self);
        self.spawn_in_term(pid, async move {
            if world.variant == Variant::GrantBeforeRecord {
                Sleep::until(&world, world.time.now() + 2 * SECOND).await;
            }
            let slots = record.slots.clone();
            let written = world.write(pid, vec![(0, Kept::Record(record))]).await;
            if world.is_term(pid, term) {
                world.recorded(pid, written.map(|()| Some(slots)));
            }
        });
    }

    fn recorded(self: &Rc<Self>, pid: Pid, written: Result<Option<Grants>, Trouble>) {
        let covered = self.with_leadership(pid, |leadership| {
            leadership.recorder.writing = false;
            std::mem::take(&mut leadership.recorder.covered)
        });
        let covered = covered.unwrap_or_default();
        match written {
            Ok(slots) => {
                if let Some(slots) = slots {
                    self.with_leadership(pid, |leadership| leadership.recorder.recorded = slots);
                }
                covered.into_iter().for_each(|then| self.proceed(pid, then));
                self.record(pid);
            }
            Err(_) => {
                self.with_leadership(pid, |leadership| {
                    leadership.recorder.dirty = true;
                    leadership.recorder.waiting.splice(0..0, covered);
                });
                self.time.after(300 * MS, Some(pid), move |world| {
                    if world.may_act(pid) {
                        world.record(pid);
                    }
                });
            }
        }
    }

    fn proceed(self: &Rc<Self>, pid: Pid, then: Then) {
        match then {
            Then::Grant(grant) => self.send_grant(pid, grant),
            Then::Fenced(slot) => {
                self.with_leadership(pid, |leadership| leadership.recorder.fenced.remove(&slot));
                self.tell_coordinator(pid, Event::SlotFenced { slot });
            }
        }
    }

    /// One transaction of the jobmanager's writer. After any doubt it is initialised anew, which may take its place from a
    /// successor: so the lease is confirmed after that, before anything is written.
    async fn write(self: &Rc<Self>, pid: Pid, offsets: Offsets) -> Result<(), Trouble> {
        let shared = self.jobmanager(pid).ok_or(Trouble::Fenced)?;
        let writer = Rc::clone(&shared.borrow().writer);
        drop(shared);
        if self.variant == Variant::UnfencedRecord {
            return writer.commit_plainly(offsets).await;
        }
        if writer.doubt().is_some() || writer.epoch.get().is_none() {
            writer.init().await?;
            writer.clear_doubt();
            self.confirm(pid, LeaderEpoch(0)).await.ok_or(Trouble::Fenced)?;
        }
        writer.write(offsets).await
    }
}
