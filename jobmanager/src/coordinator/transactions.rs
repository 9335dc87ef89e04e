//! The slots' transactional ids: who has which, and fencing one because an operator says so.

use std::time::Duration;

use weir_common::ids::{GrantId, SlotId, TaskmanagerId};

use super::{
    Coordinator,
    action::Reply,
    event::{RequestId, SplitStates},
    splits::Owner,
    taskmanagers::Slot,
};

/// A slot that was ever leased, as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionView {
    /// Names the transactional id.
    pub slot: SlotId,
    /// `LEASED`, `FREE`, `FENCING`, `ORPHANED` (leased by an earlier leadership, its holder not heard of yet).
    pub state: &'static str,
    /// Who has it.
    pub taskmanager: Option<TaskmanagerId>,
    /// With which grant.
    pub grant: Option<GrantId>,
    /// Splits of its holder, or that wait for its fence.
    pub splits: usize,
    /// Time since its holder last reported something newly committed; `None`: not in this leadership.
    pub committed_for: Option<Duration>,
}

/// An operator's abort that waits for the fence.
#[derive(Clone, Debug)]
pub(super) struct Abort {
    request: RequestId,
    holder: Option<TaskmanagerId>,
}

impl Coordinator {
    /// Every slot of this leadership, the lowest first.
    pub fn transactions(&self) -> impl Iterator<Item = TransactionView> {
        self.slots.iter().map(|(slot, state)| {
            let holder = if let Slot::Leased(holder) = state { Some(holder) } else { None };
            let taskmanager = holder.and_then(|holder| self.taskmanagers.get(holder));
            let theirs = |owner: &Owner| match holder {
                Some(holder) => owner.taskmanager() == Some(holder),
                None => *owner == Owner::Fencing(*slot),
            };
            TransactionView {
                slot: *slot,
                state: match state {
                    Slot::Orphaned => "ORPHANED",
                    Slot::Fencing => "FENCING",
                    Slot::Free => "FREE",
                    Slot::Leased(_) => "LEASED",
                },
                taskmanager: holder.cloned(),
                grant: taskmanager.and_then(|each| each.lease.slot()).map(|(_, grant)| grant),
                splits: self.splits.values().filter(|split| theirs(&split.owner)).count(),
                committed_for: taskmanager
                    .and_then(|each| each.committed)
                    .map(|committed| self.now.saturating_sub(committed)),
            }
        })
    }

    /// Fences the slot, whoever has it: its holder loses it as if it had been lost, but no failure is counted.
    pub(super) fn abort_requested(&mut self, request: RequestId, slot: SlotId) {
        if !self.settings.exactly_once {
            let reason = "the job writes without transactions (AT_LEAST_ONCE): there is none to abort".to_owned();
            return self.reply(request, Reply::Rejected { reason });
        }
        if self.aborts.contains_key(&slot) {
            let reason = format!("slot {slot} is being fenced for an earlier request; see `weir transactions list`");
            return self.reply(request, Reply::Rejected { reason });
        }
        let holder = match self.slots.get(&slot).cloned() {
            None => {
                let reason = format!("this job has no slot {slot}; `weir transactions list` names those it has");
                return self.reply(request, Reply::Rejected { reason });
            }
            Some(Slot::Leased(holder)) => {
                self.fence_lease(&holder, self.now);
                Some(holder)
            }
            Some(Slot::Orphaned | Slot::Free) => {
                self.fence(slot);
                None
            }
            // Answered with the fence that is on its way.
            Some(Slot::Fencing) => None,
        };
        self.aborts.insert(slot, Abort { request, holder });
    }

    /// What was open on the slot's id is aborted, and its splits are on their way to others.
    pub(super) fn abort_fenced(&mut self, slot: SlotId) {
        if let Some(Abort { request, holder }) = self.aborts.remove(&slot) {
            self.reply(request, Reply::TransactionAborted { slot, holder });
        }
    }

    /// Remembers when an owner has committed something, which `splits` say.
    pub(super) fn note_commit(&mut self, from: &TaskmanagerId, splits: &SplitStates) {
        let news = splits.iter().any(|(id, state)| {
            self.splits.get(id).is_some_and(|known| known.owner.taskmanager() == Some(from) && known.state != *state)
        });
        if news && let Some(taskmanager) = self.taskmanagers.get_mut(from) {
            taskmanager.committed = Some(self.now);
        }
    }
}
