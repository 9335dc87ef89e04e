//! Taskmanagers and the slots they lease: who lives, who is lost, whose transactional id must be fenced.

use std::time::Duration;

use weir_common::ids::{GrantId, SlotId, TaskmanagerId};

use super::{Coordinator, action::Action, event::HeldSlot, splits::Owner, suspension::Phase};

/// A taskmanager that is registered.
#[derive(Clone, Debug)]
pub(super) struct Taskmanager {
    pub(super) connected: bool,
    /// When it was last heard of.
    pub(super) heard: Duration,
    pub(super) registered: Duration,
    pub(super) lease: Lease,
    pub(super) draining: bool,
    /// It was told that it may exit.
    pub(super) dismissed: bool,
    /// After a failure: no slot before.
    pub(super) wait_until: Duration,
    /// When it last reported something newly committed.
    pub(super) committed: Option<Duration>,
}

impl Taskmanager {
    /// Whether it counts when splits are shared out. One whose stream broke does, until it is lost.
    pub(super) fn takes_splits(&self) -> bool {
        matches!(self.lease, Lease::Ready(..)) && !self.draining
    }
}

/// A taskmanager's slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lease {
    None,
    /// Granted; its producer is not initialised yet.
    Granted(SlotId, GrantId),
    /// Splits may come.
    Ready(SlotId, GrantId),
}

impl Lease {
    pub(super) fn slot(self) -> Option<(SlotId, GrantId)> {
        match self {
            Self::None => None,
            Self::Granted(slot, grant) | Self::Ready(slot, grant) => Some((slot, grant)),
        }
    }
}

/// A slot that was ever leased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// Leased by an earlier leadership; its holder has not been heard of.
    Orphaned,
    /// Its transactional id is being initialised.
    Fencing,
    /// Nobody has it.
    Free,
    /// Somebody has it.
    Leased(TaskmanagerId),
}

impl Coordinator {
    /// The lease that a taskmanager's heartbeat renews; `None` for one that is not registered or has none.
    #[must_use]
    pub fn grant(&self, taskmanager: &TaskmanagerId) -> Option<(SlotId, GrantId)> {
        self.taskmanagers.get(taskmanager)?.lease.slot()
    }

    /// Slots that are or may be in somebody's hands: a next leadership must know them.
    pub fn slots_in_use(&self) -> impl Iterator<Item = (SlotId, Option<GrantId>)> {
        let in_use = self.slots.iter().filter(|(_, slot)| !matches!(slot, Slot::Free));
        in_use.map(|(id, _)| (*id, self.newest_grants.get(id).copied()))
    }

    /// A stream is open. A grant that follows replaces whatever the taskmanager still holds.
    pub(super) fn register(&mut self, id: TaskmanagerId, held: Option<HeldSlot>) {
        let known = self.taskmanagers.entry(id.clone()).or_insert(Taskmanager {
            connected: true,
            heard: self.now,
            registered: self.now,
            lease: Lease::None,
            draining: false,
            dismissed: false,
            wait_until: Duration::ZERO,
            committed: None,
        });
        known.connected = true;
        known.heard = self.now;
        match (known.lease, held) {
            (Lease::Granted(slot, grant), None) => {
                self.actions.push(Action::SendGrant { taskmanager: id, slot, grant });
            }
            (Lease::Granted(slot, grant) | Lease::Ready(slot, grant), Some(held))
                if (held.slot, held.grant) == (slot, grant) =>
            {
                known.lease = Lease::Ready(slot, grant);
                self.settle(&id, held.splits);
            }
            (Lease::Granted(..) | Lease::Ready(..), _) => self.fence_lease(&id, self.now),
            (Lease::None, Some(held)) => self.adopt(&id, held),
            (Lease::None, None) => {}
        }
    }

    /// It holds a slot of an earlier leadership, or one that was fenced since. The latter it will lose: the broker
    /// refuses it, and the grant that follows says so.
    fn adopt(&mut self, id: &TaskmanagerId, held: HeldSlot) {
        if self.slots.get(&held.slot) != Some(&Slot::Orphaned) {
            return;
        }
        if self.newest_grants.get(&held.slot).is_some_and(|newest| *newest != held.grant) {
            tracing::warn!(taskmanager = %id, slot = %held.slot, "claims a slot that was leased to another since: not adopted");
            return;
        }
        let unclaimed = |split| self.splits.get(split).is_some_and(|known| known.owner == Owner::Unknown);
        if !held.splits.keys().all(unclaimed) {
            tracing::warn!(taskmanager = %id, slot = %held.slot, "claims splits that are not its own: its slot is fenced");
            return self.fence(held.slot);
        }
        self.slots.insert(held.slot, Slot::Leased(id.clone()));
        if let Some(taskmanager) = self.taskmanagers.get_mut(id) {
            taskmanager.lease = Lease::Ready(held.slot, held.grant);
        }
        for split in held.splits.keys() {
            if let Some(known) = self.splits.get_mut(split) {
                (known.owner, known.limit) = (Owner::Taskmanager(id.clone()), None);
            }
        }
        tracing::info!(taskmanager = %id, slot = %held.slot, splits = held.splits.len(), "adopted with what it holds");
        self.note_states(id, held.splits);
    }

    pub(super) fn heard(&mut self, from: &TaskmanagerId) {
        if let Some(taskmanager) = self.taskmanagers.get_mut(from) {
            taskmanager.heard = self.now;
        }
    }

    pub(super) fn disconnected(&mut self, id: &TaskmanagerId) {
        let Some(taskmanager) = self.taskmanagers.get_mut(id) else { return };
        taskmanager.connected = false;
        let leaves = taskmanager.lease == Lease::None;
        // What it last reported was committed; the barrier may not have reached it.
        self.checkpoints.forget(id);
        if leaves {
            self.taskmanagers.remove(id);
        }
    }

    pub(super) fn draining(&mut self, from: &TaskmanagerId) {
        self.heard(from);
        if let Some(taskmanager) = self.taskmanagers.get_mut(from) {
            taskmanager.draining = true;
        }
    }

    pub(super) fn slot_lost(&mut self, from: &TaskmanagerId, grant: GrantId) {
        self.heard(from);
        if self.grant(from).is_some_and(|(_, current)| current == grant) {
            let wait_until = self.failure(&format!("taskmanager {from} lost its slot"));
            self.wait_before_lease(from, wait_until);
            self.fence_lease(from, wait_until);
        }
    }

    pub(super) fn lose_silent_taskmanagers(&mut self) {
        let silent = |each: &Taskmanager| each.heard + self.settings.heartbeat_timeout <= self.now;
        let lost: Vec<TaskmanagerId> =
            self.taskmanagers.iter().filter(|(_, each)| silent(each)).map(|(id, _)| id.clone()).collect();
        for id in lost {
            self.lose(&id);
        }
    }

    /// It is gone for good, or counts as gone: its slot is fenced, then its splits move.
    fn lose(&mut self, id: &TaskmanagerId) {
        let Some(known) = self.taskmanagers.get(id) else { return };
        let leaves = known.dismissed || known.draining || known.lease == Lease::None;
        let wait_until = if leaves { self.now } else { self.failure(&format!("taskmanager {id} was lost")) };
        self.fence_lease(id, wait_until);
        let Some(taskmanager) = self.taskmanagers.remove(id) else { return };
        if !taskmanager.dismissed {
            self.lost += 1;
            tracing::warn!(taskmanager = %id, "taskmanager lost; its splits move to others");
        }
        if taskmanager.connected {
            let reason = "not heard of for heartbeat.timeout: counted as lost; register anew".to_owned();
            self.actions.push(Action::Disconnect { taskmanager: id.clone(), reason });
        }
    }

    /// Ends a lease without its holder's help.
    pub(super) fn fence_lease(&mut self, id: &TaskmanagerId, wait_until: Duration) {
        self.checkpoints.forget(id);
        let Some(taskmanager) = self.taskmanagers.get_mut(id) else { return };
        let Some((slot, _)) = std::mem::replace(&mut taskmanager.lease, Lease::None).slot() else { return };
        self.strip(id, &Owner::Fencing(slot), wait_until);
        self.fence(slot);
    }

    pub(super) fn fence(&mut self, slot: SlotId) {
        self.slots.insert(slot, Slot::Fencing);
        self.actions.push(Action::FenceSlot { slot });
    }

    /// Whether the slot was being fenced; now it is free.
    pub(super) fn unfence(&mut self, slot: SlotId) -> bool {
        let fencing = self.slots.get(&slot) == Some(&Slot::Fencing);
        if fencing {
            self.slots.insert(slot, Slot::Free);
        }
        fencing
    }

    pub(super) fn has_orphans(&self) -> bool {
        self.slots.values().any(|slot| *slot == Slot::Orphaned)
    }

    /// Slots that nobody claimed are fenced; the splits that nobody claimed may be theirs, and wait for it.
    pub(super) fn end_adoption(&mut self) {
        self.adoption_ends = None;
        let orphans: Vec<SlotId> =
            self.slots.iter().filter(|(_, slot)| **slot == Slot::Orphaned).map(|(id, _)| *id).collect();
        for slot in orphans {
            self.fence(slot);
        }
        // An orphan may be on its way to be fenced already; what it may hold is read after that, not before.
        self.free_unclaimed();
    }

    /// The last orphan is fenced: whatever is still unknown is nobody's.
    pub(super) fn free_unclaimed(&mut self) {
        let fencing = self.slots.values().any(|slot| *slot == Slot::Fencing);
        if self.adoption_ends.is_none() && !fencing {
            self.free(self.splits_with(&Owner::Unknown));
        }
    }

    /// Everyone who is connected and stays gets a slot, the lowest first.
    pub(super) fn lease_slots(&mut self) {
        self.free_unclaimed();
        if !self.is_at_work() {
            return;
        }
        let waiting: Vec<TaskmanagerId> = self
            .taskmanagers
            .iter()
            .filter(|(_, each)| each.connected && !each.draining && each.lease == Lease::None)
            .filter(|(_, each)| each.wait_until <= self.now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in waiting {
            let slot = self.lowest_free_slot();
            self.grants += 1;
            let grant = GrantId((self.settings.leader_epoch.0 << 32) + self.grants);
            self.slots.insert(slot, Slot::Leased(id.clone()));
            self.newest_grants.insert(slot, grant);
            if let Some(taskmanager) = self.taskmanagers.get_mut(&id) {
                taskmanager.lease = Lease::Granted(slot, grant);
            }
            self.actions.push(Action::SendGrant { taskmanager: id, slot, grant });
        }
    }

    fn lowest_free_slot(&self) -> SlotId {
        let free = self.slots.iter().find(|(_, slot)| **slot == Slot::Free).map(|(id, _)| *id);
        free.unwrap_or_else(|| self.slots.last_key_value().map_or(SlotId(0), |(highest, _)| highest.next()))
    }

    /// Who has given everything back may exit.
    pub(super) fn dismiss_drained(&mut self) {
        let stopping = matches!(self.phase, Phase::Finished);
        let drained: Vec<TaskmanagerId> = self
            .taskmanagers
            .iter()
            .filter(|(id, each)| (each.draining || stopping) && !each.dismissed && each.connected && !self.owns_any(id))
            .map(|(id, _)| id.clone())
            .collect();
        for id in drained {
            if let Some(taskmanager) = self.taskmanagers.get_mut(&id) {
                taskmanager.dismissed = true;
                if let Some((slot, _)) = std::mem::replace(&mut taskmanager.lease, Lease::None).slot() {
                    self.slots.insert(slot, Slot::Free);
                }
            }
            self.checkpoints.forget(&id);
            self.actions.push(Action::SendDrain { taskmanager: id, leave: true });
        }
    }
}
