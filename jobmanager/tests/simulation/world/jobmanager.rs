//! The shell around the coordinator.

use std::time::Duration;

use weir_common::ids::{CheckpointId, LeaderEpoch, SlotId, TaskmanagerId};
use weir_jobmanager::coordinator::{
    Coordinator, Settings,
    action::Action,
    event::{Event, SplitStates},
};

use super::{HEARTBEAT_TIMEOUT, Sabotage, Step, ToJobmanager, ToTaskmanager, World};
use crate::taskmanager::Taskmanager;

impl World {
    pub(super) fn start_jobmanager(&mut self) {
        self.epoch += 1;
        // A stable read waits for what is decided.
        let slots: Vec<SlotId> = self.broker.recorded_slots.iter().copied().collect();
        slots.iter().for_each(|slot| self.broker.complete(*slot));
        let mut coordinator = Coordinator::new(Settings {
            leader_epoch: LeaderEpoch(self.epoch),
            first_checkpoint: CheckpointId(self.checkpoints),
            exactly_once: true,
            orphaned_slots: slots,
            checkpoint_interval: Duration::from_secs(3),
            checkpoint_min_pause: Duration::from_millis(100),
            checkpoint_timeout: Duration::from_secs(8),
            heartbeat_timeout: Duration::from_millis(HEARTBEAT_TIMEOUT),
            retry_delay: Duration::from_millis(300),
            mirror_interval: Duration::from_secs(5),
            savepoints: weir_common::config::Savepoint::default(),
            restart_strategy: weir_common::config::RestartStrategy::default(),
            suspended: false,
        });
        let actions =
            coordinator.handle(Duration::ZERO, Event::SplitsDiscovered { splits: self.broker.progress().clone() });
        self.jobmanager = Some((coordinator, self.now));
        self.act(actions);
    }

    pub(super) fn tell_coordinator(&mut self, epoch: u64, event: Event) {
        let Some((coordinator, born)) = self.jobmanager.as_mut().filter(|_| epoch == self.epoch) else { return };
        let actions = coordinator.handle(Duration::from_millis(self.now - *born), event);
        self.act(actions);
    }

    pub(super) fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            let delay = self.delay();
            match action {
                Action::RenewProgress { .. } => {}
                Action::SendGrant { taskmanager, slot, grant } => {
                    self.broker.recorded_slots.insert(slot);
                    self.send(&taskmanager, ToTaskmanager::Grant(slot, grant));
                }
                Action::SendAssign { taskmanager, splits, .. } => {
                    self.send(&taskmanager, ToTaskmanager::Assign(splits))
                }
                Action::SendRevoke { taskmanager, splits } => self.send(&taskmanager, ToTaskmanager::Revoke(splits)),
                Action::SendBarrier { taskmanager, checkpoint } => {
                    self.send(&taskmanager, ToTaskmanager::Barrier(checkpoint));
                }
                Action::SendDrain { taskmanager, .. } => self.send(&taskmanager, ToTaskmanager::Leave),
                Action::Disconnect { taskmanager, .. } => self.send(&taskmanager, ToTaskmanager::Hangup),
                Action::FenceSlot { slot } => {
                    let epoch = self.epoch;
                    if self.sabotage == Sabotage::ReadBeforeFence {
                        self.at(0, Step::Result(epoch, Event::SlotFenced { slot }));
                    }
                    let answered = !self.fails();
                    self.at(delay, Step::FenceArrives(epoch, slot, answered));
                }
                Action::ReadProgress { splits } => self.at(delay, Step::ReadArrives(self.epoch, splits)),
                Action::StoreSnapshot { checkpoint, splits, .. } => self.store(checkpoint, &splits),
                Action::MirrorLag { .. } => {}
                Action::WriteProgress { .. }
                | Action::RecordRest { .. }
                | Action::ListSavepoints
                | Action::DeleteSavepoints { .. }
                | Action::Reply { .. }
                | Action::Finish => {
                    panic!("nobody asked for {action:?}")
                }
            }
        }
        let deadline = self
            .jobmanager
            .as_ref()
            .and_then(|(coordinator, born)| Some(coordinator.next_deadline()?.as_millis() as u64 + born));
        let deadline = deadline.map(|deadline| deadline.max(self.now + 1));
        if let Some(deadline) = deadline.filter(|deadline| self.deadline.is_none_or(|known| *deadline < known)) {
            self.deadline = Some(deadline);
            self.at(deadline - self.now, Step::Deadline(self.epoch));
        }
    }

    pub(super) fn store(&mut self, checkpoint: CheckpointId, splits: &SplitStates) {
        assert_eq!(splits.len(), self.logs.len(), "a snapshot names every split");
        for (id, state) in splits {
            let truth = &self.broker.progress()[id];
            assert!(state.progress.is_covered_by(&truth.progress), "snapshot {checkpoint} is ahead of Kafka at {id}");
        }
        self.checkpoints = self.checkpoints.max(checkpoint.0 + 1);
        let (delay, failed) = (self.delay(), self.fails());
        let event = if failed {
            Event::SnapshotFailed { checkpoint, reason: "unreachable".to_owned() }
        } else {
            Event::SnapshotStored { checkpoint, location: String::new(), size_bytes: 0 }
        };
        self.at(delay, Step::Result(self.epoch, event));
    }

    pub(super) fn send(&mut self, to: &TaskmanagerId, message: ToTaskmanager) {
        let position = |each: &Option<Taskmanager>| each.as_ref().is_some_and(|each| each.id == *to);
        let Some(at) = self.taskmanagers.iter().position(position) else { return };
        let Some(stream) = self.taskmanager(at).and_then(|each| each.connection) else { return };
        let due = self.in_order(stream);
        self.at(due, Step::ToTaskmanager(stream, at, message));
    }

    /// Streams keep their order: one is never faster than the one before it.
    pub(super) fn in_order(&mut self, stream: u64) -> u64 {
        let due = self.now + self.delay();
        let Some((_, last)) = self.streams.get_mut(&stream) else { return 0 };
        *last = due.max(*last);
        *last - self.now
    }

    pub(super) fn at_jobmanager(&mut self, stream: u64, from: usize, message: ToJobmanager) {
        let Some(taskmanager) = self.taskmanagers[from].as_ref().filter(|_| self.streams.contains_key(&stream)) else {
            return;
        };
        let id = taskmanager.id.clone();
        match message {
            ToJobmanager::Hello => {
                let held = taskmanager.claim();
                self.tell_coordinator(self.epoch, Event::Registered { taskmanager: id, held });
            }
            ToJobmanager::Heartbeat { sent } => {
                self.tell_coordinator(self.epoch, Event::Heartbeat { taskmanager: id.clone() });
                let grant = self.jobmanager.as_ref().and_then(|(coordinator, _)| coordinator.grant(&id));
                if let Some((_, grant)) = grant {
                    self.send(&id, ToTaskmanager::Ack { grant, sent });
                }
            }
            ToJobmanager::Event(event) => self.tell_coordinator(self.epoch, event),
        }
    }
}
