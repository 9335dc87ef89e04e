//! What must hold after every event. Checked in debug builds and by every test.

use std::collections::BTreeSet;

use super::{
    Coordinator,
    splits::Owner,
    taskmanagers::{Lease, Slot},
};

impl Coordinator {
    /// The first broken invariant, in words.
    #[must_use]
    pub fn violation(&self) -> Option<String> {
        let mut leased = BTreeSet::new();
        for (id, taskmanager) in &self.taskmanagers {
            if let Some((slot, _)) = taskmanager.lease.slot() {
                if !leased.insert(slot) {
                    return Some(format!("slot {slot} is leased twice"));
                }
                if self.slots.get(&slot) != Some(&Slot::Leased(id.clone())) {
                    return Some(format!("slot {slot} of {id} is {:?}", self.slots.get(&slot)));
                }
            }
        }
        for (slot, state) in &self.slots {
            if matches!(state, Slot::Leased(_)) && !leased.contains(slot) {
                return Some(format!("slot {slot} is {state:?}, but not that one's lease"));
            }
        }
        if let Some(slot) = self.aborts.keys().find(|slot| self.slots.get(*slot) != Some(&Slot::Fencing)) {
            return Some(format!("an operator waits for the fence of slot {slot}, which nobody fences"));
        }
        for (id, split) in &self.splits {
            if let Some(owner) = split.owner.taskmanager() {
                let lease = self.taskmanagers.get(owner).map(|taskmanager| taskmanager.lease);
                if !matches!(lease, Some(Lease::Ready(..))) {
                    return Some(format!("split {id} belongs to {owner}, whose lease is {lease:?}"));
                }
            }
            if let Owner::Fencing(slot) = split.owner
                && self.slots.get(&slot) != Some(&Slot::Fencing)
            {
                return Some(format!("split {id} waits for the fence of slot {slot}, which nobody fences"));
            }
            if !split.state.progress.is_well_formed() {
                return Some(format!("split {id} has progress {:?}", split.state.progress));
            }
            if !split.state.counters.conserved() {
                return Some(format!("split {id} has counters {:?}", split.state.counters));
            }
        }
        None
    }
}
