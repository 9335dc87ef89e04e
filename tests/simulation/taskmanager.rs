//! A taskmanager: the real session, sink, writer, cells and budget, in a shell that does what the process's shell does.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio::sync::mpsc;
use weir_common::{
    config::{DeliveryGuarantee, Order, size::ByteSize},
    counters::OutcomeKind,
    ids::{LeaderEpoch, SlotId, TaskmanagerId},
    split::SplitId,
};
use weir_jobmanager::coordinator::event::{HeldSlot, SplitState};
use weir_taskmanager::{
    budget::Budget,
    engine::{
        AssignedSplit, Assignment, Command, Effect, FromJobmanager, Inbox, Input, Lease, Session, Setup, Sink,
        SinkEventKind, SplitCell, SplitReport, ToJobmanager, Writer,
    },
    enrich::Enricher,
    record::{Outcome, OutputRecord, SourceRecord},
};

use crate::{
    network::{Down, StreamId, Up},
    output::{Producer, SimulatedOutput, producer},
    reader::Readers,
    time::{MS, Micros, Pid, ProcessClock, SECOND},
    variants::Variant,
    world::World,
};

pub(crate) const HEARTBEAT_INTERVAL: Micros = SECOND;
const TRANSACTION_INTERVAL: Duration = Duration::from_secs(1);
const TRANSACTION_SLOW: Duration = Duration::from_secs(2);

/// Small, so that it is full at times: two dozen records.
const BUDGET: ByteSize = ByteSize(24 * 1024);

pub(crate) struct Taskmanager {
    pub(crate) pid: Pid,
    pub(crate) id: TaskmanagerId,
    pub(crate) session: Session,
    pub(crate) stream: Option<StreamId>,
    dials: u64,
    failures: u32,
    job_known: bool,
    lease: Option<Arc<Lease>>,
    pub(crate) slot: Option<Slot>,
    pub(crate) draining: bool,
    /// When the heartbeats were sent that are not answered yet.
    heartbeats: VecDeque<Instant>,
    answered: Option<Instant>,
    pub(crate) budget: Budget,
    highest_epoch: LeaderEpoch,
}

/// A slot at work.
pub(crate) struct Slot {
    pub(crate) slot: SlotId,
    pub(crate) producer: Rc<Producer>,
    inbox: Arc<Inbox>,
    pub(crate) cells: BTreeMap<SplitId, Arc<SplitCell>>,
    /// All that ever were assigned; those that were given back are closed.
    pub(crate) owned: Vec<Arc<SplitCell>>,
    pub(crate) readers: Rc<RefCell<Readers>>,
}

/// The enrichment itself is the reader's, see there.
pub(crate) struct Job;

#[async_trait]
impl Enricher for Job {
    fn reservation(&self, _: &SourceRecord) -> u64 {
        0
    }

    fn page(&self, _: &SourceRecord) -> Option<(String, i64)> {
        None
    }

    async fn enrich(&self, _: &SourceRecord) -> Outcome {
        Outcome { kind: OutcomeKind::Dropped, output: None, error_type: None }
    }

    fn error_event(&self, _: &SourceRecord, _: &'static str, _: &str, _: Option<u64>) -> Option<OutputRecord> {
        None
    }
}

impl World {
    pub(crate) fn start_taskmanager(self: &Rc<Self>) {
        let rate = self.time.between(980_000, 1_020_000);
        let pid = self.time.start_process(rate);
        let taskmanager = Taskmanager {
            pid,
            id: TaskmanagerId(format!("tm-{pid}")),
            session: Session::default(),
            stream: None,
            dials: 0,
            failures: 0,
            job_known: false,
            lease: None,
            slot: None,
            draining: false,
            heartbeats: VecDeque::new(),
            answered: None,
            budget: Budget::new(BUDGET, 12),
            highest_epoch: LeaderEpoch(0),
        };
        self.note(|| format!("tm-{pid}: starts"));
        self.taskmanagers.borrow_mut().insert(pid, Rc::new(RefCell::new(taskmanager)));
        self.dial(pid, 0);
        self.beat(pid);
    }

    pub(crate) fn taskmanager(&self, pid: Pid) -> Option<Rc<RefCell<Taskmanager>>> {
        self.taskmanagers.borrow().get(&pid).cloned()
    }

    fn dial(self: &Rc<Self>, pid: Pid, wait: Micros) {
        let Some(taskmanager) = self.taskmanager(pid) else { return };
        let dial = {
            let mut taskmanager = taskmanager.borrow_mut();
            taskmanager.stream = None;
            taskmanager.dials += 1;
            taskmanager.dials
        };
        let wait = wait + self.time.between(MS, 30 * MS);
        self.time.after(wait, Some(pid), move |world| world.connect(pid, dial));
    }

    fn connect(self: &Rc<Self>, pid: Pid, dial: u64) {
        let Some(shared) = self.taskmanager(pid) else { return };
        let mut taskmanager = shared.borrow_mut();
        if taskmanager.dials != dial {
            return;
        }
        let jobmanagers: Vec<Pid> = self.jobmanagers.borrow().keys().copied().collect();
        let at = self.time.between(0, jobmanagers.len() as u64) as usize;
        let reached = jobmanagers.get(at).filter(|jobmanager| !self.is_cut(pid, **jobmanager));
        let Some(jobmanager) = reached.copied() else {
            drop(taskmanager);
            return self.dial_again(pid);
        };
        let stream = self.open_stream(pid, jobmanager);
        taskmanager.stream = Some(stream);
        taskmanager.heartbeats.clear();
        let held = taskmanager.session.held().map(|held| HeldSlot {
            slot: held.slot,
            grant: held.grant,
            splits: held.splits.values().map(state).collect(),
        });
        let register = Up::Register { taskmanager: taskmanager.id.clone(), held };
        drop(taskmanager);
        self.send_up(stream, Some(register));
        self.apply(pid, Input::Connected);
    }

    fn dial_again(self: &Rc<Self>, pid: Pid) {
        let Some(taskmanager) = self.taskmanager(pid) else { return };
        let failures = {
            let mut taskmanager = taskmanager.borrow_mut();
            taskmanager.failures += 1;
            taskmanager.failures
        };
        let wait = ((200 * MS) << failures.min(3)).min(SECOND);
        self.redial(pid, wait);
    }

    fn redial(self: &Rc<Self>, pid: Pid, wait: Micros) {
        if let Some(stream) = self.taskmanager(pid).and_then(|taskmanager| taskmanager.borrow_mut().stream.take()) {
            self.hang_up_from_taskmanager(stream);
        }
        self.dial(pid, wait);
        self.apply(pid, Input::Disconnected);
    }

    pub(crate) fn stream_ended_down(self: &Rc<Self>, pid: Pid, stream: StreamId) {
        if self.taskmanager(pid).is_some_and(|taskmanager| taskmanager.borrow().stream == Some(stream)) {
            self.dial_again(pid);
        }
    }

    pub(crate) fn hear_down(self: &Rc<Self>, pid: Pid, stream: StreamId, message: Down) {
        let Some(shared) = self.taskmanager(pid) else { return };
        let mut taskmanager = shared.borrow_mut();
        if taskmanager.stream != Some(stream) {
            return;
        }
        let (mut epoch, mut message) = match message {
            Down::Registered(epoch) => {
                taskmanager.failures = 0;
                let job_changed = !std::mem::replace(&mut taskmanager.job_known, true);
                (epoch, FromJobmanager::Registered { job_changed })
            }
            Down::Said(epoch, message) => (epoch, message),
        };
        if self.variant == Variant::LowerEpochObeyed && epoch < taskmanager.highest_epoch {
            self.note(|| format!("tm-{pid}: obeys epoch {epoch}"));
            let highest = taskmanager.highest_epoch;
            self.violate(format!("tm-{pid} obeys epoch {epoch} after {highest}"));
            epoch = highest;
        }
        taskmanager.highest_epoch = taskmanager.highest_epoch.max(epoch);
        if let FromJobmanager::HeartbeatAck { grant, .. } = &mut message {
            taskmanager.answered = taskmanager.heartbeats.pop_front();
            match self.variant {
                Variant::ConfirmedByArrival => taskmanager.answered = Some(self.time.instant(pid)),
                Variant::StaleGrant => *grant = taskmanager.session.grant().unwrap_or(*grant),
                _ => {}
            }
        }
        drop(taskmanager);
        self.apply(pid, Input::Message { epoch, message });
    }

    pub(crate) fn apply(self: &Rc<Self>, pid: Pid, input: Input) {
        let Some(shared) = self.taskmanager(pid) else { return };
        if !matches!(input, Input::Message { message: FromJobmanager::HeartbeatAck { .. }, .. }) {
            self.note(|| format!("tm-{pid}: {input:?}"));
        }
        let effects = shared.borrow_mut().session.handle(input);
        for effect in effects {
            self.perform(pid, &shared, effect);
        }
    }

    fn perform(self: &Rc<Self>, pid: Pid, shared: &Rc<RefCell<Taskmanager>>, effect: Effect) {
        let mut taskmanager = shared.borrow_mut();
        match effect {
            Effect::Send(message) => {
                let stream = taskmanager.stream;
                let message = self.ahead(&taskmanager, message);
                drop(taskmanager);
                if let Some(stream) = stream {
                    self.send_up(stream, Some(Up::Said(message)));
                }
            }
            Effect::BuildEnricher => {
                let takes = self.time.between(0, 100 * MS);
                self.time.after(takes, Some(pid), move |world| world.apply(pid, Input::EnricherReady));
            }
            Effect::Lease { grant, ttl_ms } => {
                let ttl = Duration::from_millis(ttl_ms);
                taskmanager.lease = Some(Arc::new(Lease::new(grant, ttl, self.time.instant(pid))));
            }
            Effect::LimitRequests(_) => {}
            Effect::Renew { ttl_ms } => {
                if let (Some(lease), Some(sent)) = (&taskmanager.lease, taskmanager.answered) {
                    lease.renew(sent, Duration::from_millis(ttl_ms));
                }
            }
            Effect::StartSlot { slot } => self.start_slot(&mut taskmanager, slot),
            Effect::Assign(splits) => self.assign(&mut taskmanager, splits),
            Effect::Revoke(splits) => {
                if let Some(slot) = &mut taskmanager.slot {
                    slot.readers.borrow_mut().remove(&splits);
                    splits.iter().for_each(|split| drop(slot.cells.remove(split)));
                    slot.inbox.push_command(Command::Revoke(splits));
                }
            }
            Effect::Barrier(checkpoint) => {
                if let Some(slot) = &taskmanager.slot {
                    slot.inbox.push_command(Command::Barrier(checkpoint));
                }
            }
            Effect::LiftLimits => {
                if let Some(slot) = &taskmanager.slot {
                    slot.readers.borrow_mut().lift_limits();
                }
            }
            Effect::StopReading => {
                if let Some(slot) = &taskmanager.slot {
                    let splits: Vec<SplitId> = slot.cells.keys().cloned().collect();
                    slot.readers.borrow_mut().remove(&splits);
                }
            }
            Effect::DropSlot => {
                if let Some(lease) = taskmanager.lease.take() {
                    lease.end();
                }
                if let Some(slot) = taskmanager.slot.take() {
                    slot.inbox.push_command(Command::Stop);
                    slot.readers.borrow_mut().stop();
                    slot.cells.values().for_each(|cell| cell.close());
                }
            }
            Effect::Redial { after_ms } => {
                drop(taskmanager);
                self.redial(pid, after_ms * MS);
            }
            Effect::Exit(_) => {
                drop(taskmanager);
                self.note(|| format!("tm-{pid}: leaves"));
                self.remove_taskmanager(pid);
            }
            Effect::Ignored(_) => {}
        }
    }

    /// It is gone, whatever it was doing.
    pub(crate) fn remove_taskmanager(self: &Rc<Self>, pid: Pid) {
        self.taskmanagers.borrow_mut().remove(&pid);
        self.time.kill(pid);
        self.break_streams_of(pid);
    }

    fn ahead(&self, taskmanager: &Taskmanager, message: ToJobmanager) -> ToJobmanager {
        match (message, &taskmanager.slot) {
            (ToJobmanager::Report { checkpoint, slot, mut splits }, Some(at_work)) if self.variant.reports_ahead() => {
                for report in &mut splits {
                    if let Some(cell) = at_work.cells.get(&report.split) {
                        report.progress = cell.progress();
                    }
                }
                ToJobmanager::Report { checkpoint, slot, splits }
            }
            (message, _) => message,
        }
    }

    fn start_slot(self: &Rc<Self>, taskmanager: &mut Taskmanager, slot: SlotId) {
        let Some(lease) = taskmanager.lease.clone() else { return };
        let pid = taskmanager.pid;
        let producer = producer(self, pid, slot);
        let setup = Setup {
            guarantee: if self.exactly_once { DeliveryGuarantee::ExactlyOnce } else { DeliveryGuarantee::AtLeastOnce },
            slot,
            splits_per_partition: self.input.splits_per_partition,
            slow: if self.variant == Variant::NoRecycle { Duration::MAX } else { TRANSACTION_SLOW },
            cut_bytes: BUDGET.0 / 3,
        };
        let inbox = Arc::new(Inbox::default());
        let output = SimulatedOutput::new(Rc::clone(&producer), Arc::clone(&lease));
        let clock = ProcessClock { world: Rc::clone(self), pid };
        let writer = Writer::new(output, clock, setup, Arc::clone(&lease), Arc::new(Job), self.metrics.clone());
        let (events, mut heard) = mpsc::unbounded_channel();
        let sink = Sink::new(writer, Arc::clone(&inbox), Arc::clone(&lease), TRANSACTION_INTERVAL, events);
        self.time.spawn(pid, sink.run());
        let world = Rc::clone(self);
        self.time.spawn(pid, async move {
            while let Some(event) = heard.recv().await {
                if let SinkEventKind::Lost { reason } = &event.kind {
                    world.note(|| format!("tm-{pid}: slot {slot} is lost: {reason}"));
                }
                world.apply(pid, Input::Sink(event));
            }
        });
        let world = Rc::clone(self);
        self.time.spawn(pid, async move {
            loop {
                lease.heartbeat_wanted().await;
                world.heartbeat(pid);
            }
        });
        let readers = Readers::new(self, pid, Arc::clone(&inbox), taskmanager.budget.clone());
        taskmanager.slot = Some(Slot { slot, producer, inbox, cells: BTreeMap::new(), owned: Vec::new(), readers });
    }

    fn assign(self: &Rc<Self>, taskmanager: &mut Taskmanager, splits: Vec<Assignment>) {
        let draining = taskmanager.draining;
        let Some(slot) = &mut taskmanager.slot else { return };
        let (mut cells, mut assigned) = (Vec::new(), Vec::new());
        for Assignment { report, limit } in splits {
            let SplitReport { split, progress, counters, progress_partition } = report;
            let cell = Arc::new(SplitCell::new(split.clone(), &progress, Order::Key).up_to(limit));
            slot.cells.insert(split, Arc::clone(&cell));
            slot.owned.push(Arc::clone(&cell));
            cells.push(Arc::clone(&cell));
            assigned.push(AssignedSplit { cell, progress_partition, progress, counters });
        }
        slot.inbox.push_command(Command::Assign(assigned));
        if !draining {
            let readers = Rc::clone(&slot.readers);
            readers.borrow_mut().add(cells);
        }
        // Its owners are looked at when nobody is being changed any more.
        self.time.after(0, None, |world| world.look_at_owners());
    }

    fn beat(self: &Rc<Self>, pid: Pid) {
        self.time.after(HEARTBEAT_INTERVAL, Some(pid), move |world| {
            world.heartbeat(pid);
            world.beat(pid);
        });
    }

    fn heartbeat(self: &Rc<Self>, pid: Pid) {
        let Some(shared) = self.taskmanager(pid) else { return };
        let mut taskmanager = shared.borrow_mut();
        let Some(stream) = taskmanager.stream.filter(|_| taskmanager.session.is_registered()) else { return };
        let now = self.time.instant(pid);
        taskmanager.heartbeats.push_back(now);
        drop(taskmanager);
        self.send_up(stream, Some(Up::Heartbeat));
    }

    /// SIGTERM.
    pub(crate) fn drain(self: &Rc<Self>, pid: Pid) {
        if let Some(taskmanager) = self.taskmanager(pid) {
            taskmanager.borrow_mut().draining = true;
            self.apply(pid, Input::Shutdown);
        }
    }
}

pub(crate) fn state(report: &SplitReport) -> (SplitId, SplitState) {
    let SplitReport { split, progress, counters, .. } = report.clone();
    (split, SplitState { progress, counters })
}
