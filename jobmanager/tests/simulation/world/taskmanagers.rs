//! The shells of the taskmanagers.

use std::collections::BTreeMap;

use rand::RngExt;
use weir_common::{
    ids::{GrantId, SlotId},
    split::SplitId,
};
use weir_jobmanager::coordinator::event::{Event, SplitStates};

use super::{HEARTBEAT, HEARTBEAT_TIMEOUT, Sabotage, Step, TRANSACTION_INTERVAL, ToJobmanager, ToTaskmanager, World};
use crate::{
    broker::Transaction,
    taskmanager::{Slot, Taskmanager},
};

impl World {
    pub(super) fn taskmanager(&mut self, at: usize) -> Option<&mut Taskmanager> {
        self.taskmanagers[at].as_mut()
    }

    pub(super) fn start_taskmanager(&mut self) {
        let number = self.taskmanagers.len();
        self.taskmanagers.push(Some(Taskmanager::new(number as u64)));
        self.at(1, Step::Dial(number));
        self.at(10, Step::Tick(number));
    }

    pub(super) fn dial(&mut self, at: usize) {
        if self.jobmanager.is_none() || self.taskmanager(at).is_none_or(|each| each.connection.is_some()) {
            if self.taskmanagers[at].is_some() {
                self.at(700, Step::Dial(at));
            }
            return;
        }
        self.connections += 1;
        let stream = self.connections;
        self.streams.insert(stream, (at, self.now));
        if let Some(taskmanager) = self.taskmanager(at) {
            taskmanager.connection = Some(stream);
        }
        self.tell(at, ToJobmanager::Hello);
        if self.taskmanager(at).is_some_and(|each| each.draining) {
            self.drain(at);
        }
        self.at(700, Step::Dial(at));
    }

    pub(super) fn tell(&mut self, at: usize, message: ToJobmanager) {
        let Some(stream) = self.taskmanager(at).and_then(|each| each.connection) else { return };
        let due = self.in_order(stream);
        self.at(due, Step::ToJobmanager(stream, at, message));
    }

    pub(super) fn hang_up(&mut self, at: usize) {
        let Some(taskmanager) = self.taskmanager(at) else { return };
        let (id, Some(stream)) = (taskmanager.id.clone(), taskmanager.connection.take()) else { return };
        self.streams.remove(&stream);
        self.tell_coordinator(self.epoch, Event::Disconnected { taskmanager: id });
    }

    pub(super) fn at_taskmanager(&mut self, stream: u64, at: usize, message: ToTaskmanager) {
        let now = self.now;
        let Some(taskmanager) = self.taskmanager(at).filter(|each| each.connection == Some(stream)) else { return };
        if taskmanager.paused_until > now {
            let wait = taskmanager.paused_until - now;
            return self.at(wait, Step::ToTaskmanager(stream, at, message));
        }
        match message {
            ToTaskmanager::Ack { grant, sent } => {
                if taskmanager.held.as_ref().is_some_and(|held| held.grant == grant) {
                    taskmanager.acknowledged = taskmanager.acknowledged.max(sent);
                }
            }
            ToTaskmanager::Grant(slot, grant) => self.granted(at, slot, grant),
            ToTaskmanager::Assign(splits) => taskmanager.assign(splits),
            ToTaskmanager::Revoke(splits) => {
                taskmanager.revoked.extend(splits);
                taskmanager.next_cut = now;
            }
            ToTaskmanager::Barrier(checkpoint) => {
                taskmanager.barriers.push(checkpoint);
                taskmanager.next_cut = now;
            }
            ToTaskmanager::Leave => {
                self.hang_up(at);
                self.taskmanagers[at] = None;
            }
            ToTaskmanager::Hangup => self.hang_up(at),
        }
    }

    /// A grant replaces whatever is held.
    pub(super) fn granted(&mut self, at: usize, slot: SlotId, grant: GrantId) {
        let now = self.now;
        let Some(taskmanager) = self.taskmanager(at) else { return };
        taskmanager.drop_slot();
        taskmanager.acknowledged = now;
        taskmanager.held = Some(Slot { slot, grant, epoch: None, splits: BTreeMap::new(), cutting: false });
        self.initialise(at);
    }

    pub(super) fn initialise(&mut self, at: usize) {
        let delay = self.delay();
        let Some(taskmanager) = self.taskmanager(at) else { return };
        taskmanager.incarnation += 1;
        let Some(held) = &mut taskmanager.held else { return };
        held.epoch = None;
        let (incarnation, slot) = (taskmanager.incarnation, held.slot);
        self.at(delay, Step::Init(at, incarnation, slot));
    }

    /// Only what was initialised while the grant was fresh came before any fence.
    pub(super) fn fresh(&self, at: usize) -> bool {
        let acknowledged = self.taskmanagers[at].as_ref().map_or(0, |each| each.acknowledged);
        self.sabotage == Sabotage::InitWithStaleGrant || self.now < acknowledged + HEARTBEAT_TIMEOUT
    }

    pub(super) fn recycle(&mut self, at: usize) {
        if self.fresh(at) { self.initialise(at) } else { self.lose_slot(at) }
    }

    pub(super) fn initialised(&mut self, at: usize, incarnation: u64, epoch: u64) {
        let fresh = self.fresh(at);
        let Some(taskmanager) = self.taskmanagers[at].as_mut().filter(|each| each.incarnation == incarnation) else {
            return;
        };
        let Some(held) = &mut taskmanager.held else { return };
        if !fresh {
            return self.lose_slot(at);
        }
        let splits: Vec<SplitId> = held.splits.keys().cloned().collect();
        let Some(stable) = self.broker.stable(&splits) else { return self.recycle(at) };
        held.epoch = Some(epoch);
        let (id, grant, first) = (taskmanager.id.clone(), held.grant, held.splits.is_empty());
        taskmanager.rewind(stable);
        if first {
            self.tell(at, ToJobmanager::Event(Event::SlotReady { taskmanager: id, grant }));
        }
    }

    pub(super) fn lose_slot(&mut self, at: usize) {
        let Some(taskmanager) = self.taskmanager(at) else { return };
        let Some(grant) = taskmanager.held.as_ref().map(|held| held.grant) else { return };
        taskmanager.drop_slot();
        let taskmanager = taskmanager.id.clone();
        self.tell(at, ToJobmanager::Event(Event::SlotLost { taskmanager, grant }));
    }

    pub(super) fn tick(&mut self, at: usize) {
        let now = self.now;
        let Some(taskmanager) = self.taskmanagers[at].as_mut() else { return };
        if taskmanager.paused_until > now {
            let wait = taskmanager.paused_until - now;
            return self.at(wait, Step::Tick(at));
        }
        taskmanager.work(&self.logs, &mut self.rng);
        if now / HEARTBEAT != (now.saturating_sub(100)) / HEARTBEAT {
            self.tell(at, ToJobmanager::Heartbeat { sent: now });
        }
        self.cut_if_due(at);
        self.at(100, Step::Tick(at));
    }

    pub(super) fn cut_if_due(&mut self, at: usize) {
        let now = self.now;
        let Some(taskmanager) = self.taskmanager(at) else { return };
        let Some(held) = taskmanager.held.as_ref().filter(|held| !held.cutting) else { return };
        let Some(epoch) = held.epoch.filter(|_| taskmanager.next_cut <= now) else { return };
        taskmanager.next_cut = now + TRANSACTION_INTERVAL;
        let (incarnation, slot) = (taskmanager.incarnation, held.slot);
        match taskmanager.cut() {
            None => self.report(at),
            Some(transaction) => {
                let delay = self.delay();
                self.at(delay, Step::CommitArrives { taskmanager: at, incarnation, slot, epoch, transaction });
            }
        }
    }

    pub(super) fn commit_arrives(
        &mut self,
        at: usize,
        incarnation: u64,
        slot: SlotId,
        epoch: u64,
        transaction: Transaction,
    ) {
        let progress = transaction.progress.clone();
        let lost = self.fails();
        if lost && self.rng.random_bool(0.5) {
            // The request was lost: nothing happened.
            return self.at(500, Step::Unclear(at, incarnation));
        }
        let committed = self.broker.commit(slot, epoch, transaction);
        if committed {
            let visible = self.delay();
            self.at(visible, Step::Visible(slot));
        }
        let (delay, progress) = (self.delay(), committed.then_some(progress));
        if lost {
            *self.faults.entry("unclear commit").or_default() += 1;
            return self.at(500, Step::Unclear(at, incarnation));
        }
        self.at(delay, Step::Committed { taskmanager: at, incarnation, progress });
    }

    pub(super) fn committed(&mut self, at: usize, incarnation: u64, progress: Option<SplitStates>) {
        let now = self.now;
        let Some(taskmanager) = self.taskmanagers[at].as_mut().filter(|each| each.incarnation == incarnation) else {
            return;
        };
        if taskmanager.paused_until > now {
            let wait = taskmanager.paused_until - now;
            return self.at(wait, Step::Committed { taskmanager: at, incarnation, progress });
        }
        let Some(progress) = progress else { return self.lose_slot(at) };
        // The client's commit returns when the markers are written.
        if let Some(slot) = taskmanager.held.as_ref().map(|held| held.slot) {
            self.broker.complete(slot);
        }
        taskmanager.committed(progress);
        self.report(at);
    }

    pub(super) fn report(&mut self, at: usize) {
        let Some(taskmanager) = self.taskmanager(at) else { return };
        let id = taskmanager.id.clone();
        let splits = taskmanager.report();
        let barriers = std::mem::take(&mut taskmanager.barriers);
        let released = taskmanager.release();
        for checkpoint in [None].into_iter().chain(barriers.into_iter().map(Some)) {
            let report = Event::Reported { taskmanager: id.clone(), checkpoint, splits: splits.clone() };
            self.tell(at, ToJobmanager::Event(report));
        }
        if !released.is_empty() {
            self.tell(at, ToJobmanager::Event(Event::Released { taskmanager: id, splits: released }));
        }
    }
}
