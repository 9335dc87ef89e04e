//! Time, the network and the steps that happen in it.

mod faults;
mod jobmanager;
mod taskmanagers;

use std::{collections::BTreeMap, sync::Arc};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use weir_common::{
    ids::{CheckpointId, GrantId, SlotId},
    progress::Progress,
    split::SplitId,
};
use weir_jobmanager::coordinator::{
    Coordinator,
    event::{Event, SplitState, SplitStates},
};

use crate::{
    broker::{Broker, Transaction},
    taskmanager::Taskmanager,
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
                self.tell_coordinator(epoch, Event::DeadlineReached);
            }
            Step::Result(epoch, event) => self.tell_coordinator(epoch, event),
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
}
