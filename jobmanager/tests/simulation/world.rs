//! Time, network, faults and the two shells around the coordinator and the taskmanagers.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use weir_common::{
    ids::{CheckpointId, GrantId, LeaderEpoch, SlotId, TaskmanagerId},
    progress::Progress,
    split::SplitId,
};
use weir_jobmanager::coordinator::{
    Coordinator, Settings,
    action::Action,
    event::{Event, SplitState, SplitStates},
};

use crate::{
    broker::{Broker, Transaction},
    taskmanager::{Slot, Taskmanager},
};

const HEARTBEAT: u64 = 1_000;
const HEARTBEAT_TIMEOUT: u64 = 5_000;
const TRANSACTION_INTERVAL: u64 = 700;
/// Faults stop here.
const HEAL: u64 = 60_000;
/// By then everything must be finished.
const END: u64 = 240_000;

/// A deliberate mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    None,
    /// The broker does not refuse a former producer.
    FenceWithoutEffect,
    /// A slot counts as fenced before it is.
    ReadBeforeFence,
    /// A taskmanager initialises its producer anew however old its grant is.
    InitWithStaleGrant,
}

/// To the jobmanager, on a stream.
#[derive(Clone, Debug)]
enum ToJobmanager {
    Hello,
    Heartbeat { sent: u64 },
    Event(Event),
}

/// To a taskmanager, on a stream.
#[derive(Clone, Debug)]
enum ToTaskmanager {
    Ack { grant: GrantId, sent: u64 },
    Grant(SlotId, GrantId),
    Assign(SplitStates),
    Revoke(Vec<SplitId>),
    Barrier(CheckpointId),
    Leave,
    Hangup,
}

#[derive(Clone, Debug)]
enum Step {
    Deadline(u64),
    /// Result of an action, to the leadership that wanted it.
    Result(u64, Event),
    FenceArrives(u64, SlotId, bool),
    ReadArrives(u64, Vec<SplitId>),
    ToJobmanager(u64, usize, ToJobmanager),
    ToTaskmanager(u64, usize, ToTaskmanager),
    Tick(usize),
    Dial(usize),
    Init(usize, u64, SlotId),
    Initialised(usize, u64, u64),
    CommitArrives {
        taskmanager: usize,
        incarnation: u64,
        slot: SlotId,
        epoch: u64,
        transaction: Transaction,
    },
    Visible(SlotId),
    Committed {
        taskmanager: usize,
        incarnation: u64,
        progress: Option<SplitStates>,
    },
    /// The answer was lost.
    Unclear(usize, u64),
    Fault,
    StartJobmanager,
}

pub(crate) struct Summary {
    pub(crate) steps: u64,
    pub(crate) faults: BTreeMap<&'static str, u64>,
}

pub(crate) struct World {
    rng: StdRng,
    sabotage: Sabotage,
    now: u64,
    queue: BTreeMap<(u64, u64), Step>,
    sequence: u64,
    logs: BTreeMap<SplitId, Vec<i64>>,
    broker: Broker,
    jobmanager: Option<(Coordinator, u64)>,
    epoch: u64,
    checkpoints: u64,
    taskmanagers: Vec<Option<Taskmanager>>,
    streams: BTreeMap<u64, (usize, u64)>,
    connections: u64,
    /// The earliest deadline that is on the way already.
    deadline: Option<u64>,
    faults: BTreeMap<&'static str, u64>,
}

impl World {
    pub(crate) fn new(seed: u64, sabotage: Sabotage) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let (partitions, per_partition) = (rng.random_range(1..3), rng.random_range(1..5));
        let topic: Arc<str> = Arc::from("topic");
        let mut logs = BTreeMap::new();
        for partition in 0..partitions {
            let mut owned: Vec<Vec<i64>> = vec![Vec::new(); per_partition];
            (0..rng.random_range(20..200)).for_each(|offset| owned[rng.random_range(0..per_partition)].push(offset));
            for (index, offsets) in owned.into_iter().enumerate() {
                logs.insert(SplitId { topic: Arc::clone(&topic), partition, index: index as u32 }, offsets);
            }
        }
        let start = SplitState { progress: Progress::at(0), ..SplitState::default() };
        let mut broker = Broker::new(logs.keys().map(|split| (split.clone(), start.clone())).collect());
        broker.fences = sabotage != Sabotage::FenceWithoutEffect;
        let mut world = Self {
            rng,
            sabotage,
            now: 0,
            queue: BTreeMap::new(),
            sequence: 0,
            logs,
            broker,
            jobmanager: None,
            epoch: 0,
            checkpoints: 1,
            taskmanagers: Vec::new(),
            streams: BTreeMap::new(),
            connections: 0,
            deadline: None,
            faults: BTreeMap::new(),
        };
        world.start_jobmanager();
        for _ in 0..world.rng.random_range(1..4) {
            world.start_taskmanager();
        }
        world.at(500, Step::Fault);
        world
    }

    pub(crate) fn run(mut self) -> Result<Summary, String> {
        let mut steps = 0;
        let wanted: usize = self.logs.values().map(Vec::len).sum();
        while let Some(((at, _), step)) = self.queue.pop_first() {
            self.now = at;
            self.perform(step);
            steps += 1;
            if let Some(violation) = self.violation() {
                return Err(format!("at {} ms: {violation}", self.now));
            }
            if self.now > HEAL && self.broker.written() == wanted {
                return Ok(Summary { steps, faults: self.faults });
            }
            if self.now > END {
                break;
            }
        }
        Err(format!("{} of {wanted} records are written when all should be", self.broker.written()))
    }

    fn violation(&self) -> Option<String> {
        let coordinator = self.jobmanager.as_ref().and_then(|(coordinator, _)| coordinator.violation());
        coordinator.or_else(|| self.broker.violation(&self.logs))
    }

    fn at(&mut self, delay: u64, step: Step) {
        self.sequence += 1;
        self.queue.insert((self.now + delay, self.sequence), step);
    }

    fn delay(&mut self) -> u64 {
        let slow = self.now < HEAL && self.rng.random_bool(0.03);
        if slow { self.rng.random_range(100..8_000) } else { self.rng.random_range(1..40) }
    }

    fn fails(&mut self) -> bool {
        self.now < HEAL && self.rng.random_bool(0.05)
    }

    fn perform(&mut self, step: Step) {
        match step {
            Step::Deadline(epoch) => {
                self.deadline = None;
                self.to_coordinator(epoch, Event::DeadlineReached);
            }
            Step::Result(epoch, event) => self.to_coordinator(epoch, event),
            Step::FenceArrives(epoch, slot, answered) => {
                self.broker.init(slot);
                let event = if answered { Event::SlotFenced { slot } } else { Event::FenceFailed { slot } };
                let delay = self.delay();
                self.at(delay, Step::Result(epoch, event));
            }
            Step::ReadArrives(epoch, splits) => {
                let event = match self.broker.stable(&splits) {
                    Some(splits) => Event::ProgressRead { splits },
                    None => Event::ProgressReadFailed { splits },
                };
                let delay = self.delay();
                self.at(delay, Step::Result(epoch, event));
            }
            Step::ToJobmanager(stream, from, message) => self.at_jobmanager(stream, from, message),
            Step::ToTaskmanager(stream, to, message) => self.at_taskmanager(stream, to, message),
            Step::Tick(at) => self.tick(at),
            Step::Dial(at) => self.dial(at),
            Step::Init(at, incarnation, slot) => {
                let epoch = self.broker.init(slot);
                let delay = self.delay();
                self.at(delay, Step::Initialised(at, incarnation, epoch));
            }
            Step::Initialised(at, incarnation, epoch) => self.initialised(at, incarnation, epoch),
            Step::CommitArrives { taskmanager, incarnation, slot, epoch, transaction } => {
                self.commit_arrives(taskmanager, incarnation, slot, epoch, transaction);
            }
            Step::Visible(slot) => self.broker.complete(slot),
            Step::Committed { taskmanager, incarnation, progress } => {
                self.committed(taskmanager, incarnation, progress);
            }
            Step::Unclear(at, incarnation) => {
                if self.taskmanager(at).is_some_and(|taskmanager| taskmanager.incarnation == incarnation) {
                    self.recycle(at);
                }
            }
            Step::Fault => self.fault(),
            Step::StartJobmanager => self.start_jobmanager(),
        }
    }

    // The jobmanager's shell.

    fn start_jobmanager(&mut self) {
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
        });
        let actions =
            coordinator.handle(Duration::ZERO, Event::SplitsDiscovered { splits: self.broker.progress().clone() });
        self.jobmanager = Some((coordinator, self.now));
        self.act(actions);
    }

    fn to_coordinator(&mut self, epoch: u64, event: Event) {
        let Some((coordinator, born)) = self.jobmanager.as_mut().filter(|_| epoch == self.epoch) else { return };
        let actions = coordinator.handle(Duration::from_millis(self.now - *born), event);
        self.act(actions);
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            let delay = self.delay();
            match action {
                Action::SendGrant { taskmanager, slot, grant } => {
                    self.broker.recorded_slots.insert(slot);
                    self.send(&taskmanager, ToTaskmanager::Grant(slot, grant));
                }
                Action::SendAssign { taskmanager, splits } => self.send(&taskmanager, ToTaskmanager::Assign(splits)),
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
                Action::WriteProgress { .. } | Action::Reply { .. } | Action::Finish => {
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

    fn store(&mut self, checkpoint: CheckpointId, splits: &SplitStates) {
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

    fn send(&mut self, to: &TaskmanagerId, message: ToTaskmanager) {
        let position = |each: &Option<Taskmanager>| each.as_ref().is_some_and(|each| each.id == *to);
        let Some(at) = self.taskmanagers.iter().position(position) else { return };
        let Some(stream) = self.taskmanager(at).and_then(|each| each.connection) else { return };
        let due = self.in_order(stream);
        self.at(due, Step::ToTaskmanager(stream, at, message));
    }

    /// Streams keep their order: one is never faster than the one before it.
    fn in_order(&mut self, stream: u64) -> u64 {
        let due = self.now + self.delay();
        let Some((_, last)) = self.streams.get_mut(&stream) else { return 0 };
        *last = due.max(*last);
        *last - self.now
    }

    fn at_jobmanager(&mut self, stream: u64, from: usize, message: ToJobmanager) {
        let Some(taskmanager) = self.taskmanagers[from].as_ref().filter(|_| self.streams.contains_key(&stream)) else {
            return;
        };
        let id = taskmanager.id.clone();
        match message {
            ToJobmanager::Hello => {
                let held = taskmanager.claim();
                self.to_coordinator(self.epoch, Event::Registered { taskmanager: id, held });
            }
            ToJobmanager::Heartbeat { sent } => {
                self.to_coordinator(self.epoch, Event::Heartbeat { taskmanager: id.clone() });
                let grant = self.jobmanager.as_ref().and_then(|(coordinator, _)| coordinator.grant(&id));
                if let Some((_, grant)) = grant {
                    self.send(&id, ToTaskmanager::Ack { grant, sent });
                }
            }
            ToJobmanager::Event(event) => self.to_coordinator(self.epoch, event),
        }
    }

    // The taskmanager's shell.

    fn taskmanager(&mut self, at: usize) -> Option<&mut Taskmanager> {
        self.taskmanagers[at].as_mut()
    }

    fn start_taskmanager(&mut self) {
        let number = self.taskmanagers.len();
        self.taskmanagers.push(Some(Taskmanager::new(number as u64)));
        self.at(1, Step::Dial(number));
        self.at(10, Step::Tick(number));
    }

    fn dial(&mut self, at: usize) {
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

    fn tell(&mut self, at: usize, message: ToJobmanager) {
        let Some(stream) = self.taskmanager(at).and_then(|each| each.connection) else { return };
        let due = self.in_order(stream);
        self.at(due, Step::ToJobmanager(stream, at, message));
    }

    fn hang_up(&mut self, at: usize) {
        let Some(taskmanager) = self.taskmanager(at) else { return };
        let (id, Some(stream)) = (taskmanager.id.clone(), taskmanager.connection.take()) else { return };
        self.streams.remove(&stream);
        self.to_coordinator(self.epoch, Event::Disconnected { taskmanager: id });
    }

    fn at_taskmanager(&mut self, stream: u64, at: usize, message: ToTaskmanager) {
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
    fn granted(&mut self, at: usize, slot: SlotId, grant: GrantId) {
        let now = self.now;
        let Some(taskmanager) = self.taskmanager(at) else { return };
        taskmanager.drop_slot();
        taskmanager.acknowledged = now;
        taskmanager.held = Some(Slot { slot, grant, epoch: None, splits: BTreeMap::new(), cutting: false });
        self.initialise(at);
    }

    fn initialise(&mut self, at: usize) {
        let delay = self.delay();
        let Some(taskmanager) = self.taskmanager(at) else { return };
        taskmanager.incarnation += 1;
        let Some(held) = &mut taskmanager.held else { return };
        held.epoch = None;
        let (incarnation, slot) = (taskmanager.incarnation, held.slot);
        self.at(delay, Step::Init(at, incarnation, slot));
    }

    /// Only what was initialised while the grant was fresh came before any fence.
    fn fresh(&self, at: usize) -> bool {
        let acknowledged = self.taskmanagers[at].as_ref().map_or(0, |each| each.acknowledged);
        self.sabotage == Sabotage::InitWithStaleGrant || self.now < acknowledged + HEARTBEAT_TIMEOUT
    }

    fn recycle(&mut self, at: usize) {
        if self.fresh(at) { self.initialise(at) } else { self.lose_slot(at) }
    }

    fn initialised(&mut self, at: usize, incarnation: u64, epoch: u64) {
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

    fn lose_slot(&mut self, at: usize) {
        let Some(taskmanager) = self.taskmanager(at) else { return };
        let Some(grant) = taskmanager.held.as_ref().map(|held| held.grant) else { return };
        taskmanager.drop_slot();
        let taskmanager = taskmanager.id.clone();
        self.tell(at, ToJobmanager::Event(Event::SlotLost { taskmanager, grant }));
    }

    fn tick(&mut self, at: usize) {
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

    fn cut_if_due(&mut self, at: usize) {
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

    fn commit_arrives(&mut self, at: usize, incarnation: u64, slot: SlotId, epoch: u64, transaction: Transaction) {
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

    fn committed(&mut self, at: usize, incarnation: u64, progress: Option<SplitStates>) {
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

    fn report(&mut self, at: usize) {
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

    // Faults.

    fn fault(&mut self) {
        if self.now > HEAL {
            return self.heal();
        }
        let living: Vec<usize> = (0..self.taskmanagers.len()).filter(|at| self.taskmanagers[*at].is_some()).collect();
        let victim = living.get(self.rng.random_range(0..living.len().max(1))).copied();
        let (now, roll) = (self.now, self.rng.random_range(0..100));
        let name = match (roll, victim) {
            (0..20, Some(at)) => {
                self.hang_up(at);
                "stream broken"
            }
            (20..35, Some(at)) => {
                let length = self.rng.random_range(100..20_000);
                if let Some(taskmanager) = self.taskmanager(at) {
                    taskmanager.paused_until = now + length;
                }
                "taskmanager paused"
            }
            (35..50, Some(at)) => {
                self.hang_up(at);
                self.taskmanagers[at] = None;
                self.start_taskmanager();
                "taskmanager killed"
            }
            (50..60, _) if living.len() < 6 => {
                self.start_taskmanager();
                "taskmanager added"
            }
            (60..70, Some(at)) if living.len() > 1 => {
                self.drain(at);
                "taskmanager drained"
            }
            (70..85, _) if self.jobmanager.is_some() => {
                self.kill_jobmanager();
                "jobmanager killed"
            }
            _ => "none",
        };
        if name != "none" {
            *self.faults.entry(name).or_default() += 1;
        }
        let wait = self.rng.random_range(100..6_000);
        self.at(wait, Step::Fault);
    }

    fn drain(&mut self, at: usize) {
        let now = self.now;
        let Some(taskmanager) = self.taskmanager(at) else { return };
        taskmanager.draining = true;
        taskmanager.next_cut = now;
        let taskmanager = taskmanager.id.clone();
        self.tell(at, ToJobmanager::Event(Event::Draining { taskmanager }));
    }

    fn kill_jobmanager(&mut self) {
        self.jobmanager = None;
        for at in 0..self.taskmanagers.len() {
            self.hang_up(at);
        }
        let wait = self.rng.random_range(100..10_000);
        self.at(wait, Step::StartJobmanager);
    }

    /// A last taskmanager that nothing happens to, if none is left that stays.
    fn heal(&mut self) {
        let stays = |each: &Option<Taskmanager>| each.as_ref().is_some_and(|each| !each.draining);
        if !self.taskmanagers.iter().any(stays) {
            self.start_taskmanager();
        }
    }
}
