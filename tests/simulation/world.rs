//! One schedule: everything there is, from a seed.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use weir_common::{progress::Progress, split::SplitId};
use weir_taskmanager::engine::Metrics;

use crate::{
    broker::{Broker, Kept, TransactionalId},
    bucket::{Bucket, Objects},
    checker::{Checker, Input},
    jobmanager::Jobmanager,
    network::Network,
    random::Random,
    taskmanager::Taskmanager,
    time::{Micros, Pid, SECOND, Time},
    variants::Variant,
    weather::Weather,
};

/// After the faults have stopped, everything must be finished within so long.
const PATIENCE: Micros = 150 * SECOND;

/// What is finished is left alone for so long: nothing more may come of it.
const REST: Micros = 3 * SECOND;

pub(crate) struct World {
    pub(crate) time: Time,
    pub(crate) variant: Variant,
    /// Otherwise at-least-once.
    pub(crate) exactly_once: bool,
    pub(crate) input: Input,
    pub(crate) broker: RefCell<Broker>,
    pub(crate) bucket: Bucket,
    pub(crate) objects: RefCell<Objects>,
    pub(crate) network: RefCell<Network>,
    pub(crate) taskmanagers: RefCell<BTreeMap<Pid, Rc<RefCell<Taskmanager>>>>,
    pub(crate) jobmanagers: RefCell<BTreeMap<Pid, Rc<RefCell<Jobmanager>>>>,
    pub(crate) checker: RefCell<Checker>,
    pub(crate) weather: RefCell<Weather>,
    pub(crate) metrics: Metrics,
    /// The mistake of a lease by the wall clock: until when it says that it is held.
    pub(crate) wall_lease: Cell<Option<i64>>,
    healed: Cell<bool>,
    violation: RefCell<Option<String>>,
    /// What happened, in words; only where a schedule is replayed.
    trace: Option<RefCell<Vec<String>>>,
    counts: RefCell<BTreeMap<&'static str, u64>>,
}

/// How a schedule ended.
pub(crate) struct Outcome {
    pub(crate) result: Result<(), String>,
    pub(crate) steps: u64,
    pub(crate) digest: u64,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) trace: Vec<String>,
}

impl World {
    /// Runs the schedule of a seed. `metrics` only count.
    pub(crate) fn run(seed: u64, variant: Variant, metrics: &Metrics, traced: bool) -> Outcome {
        let time = Time::new(seed);
        let mut random = Random::new(seed.rotate_left(17) ^ 0xD1CE);
        let weather = Weather::new(&mut random, variant);
        let input = Input::new(&mut random, weather.heals_at - 4 * SECOND);
        let world = Rc::new(Self {
            time,
            variant,
            exactly_once: variant.exactly_once(&mut random),
            checker: RefCell::new(Checker::new(&input)),
            input,
            broker: RefCell::default(),
            bucket: Bucket::default(),
            objects: RefCell::default(),
            network: RefCell::default(),
            taskmanagers: RefCell::default(),
            jobmanagers: RefCell::default(),
            weather: RefCell::new(weather),
            metrics: metrics.clone(),
            wall_lease: Cell::new(None),
            healed: Cell::new(false),
            violation: RefCell::new(None),
            trace: traced.then(RefCell::default),
            counts: RefCell::default(),
        });
        world.begin_all();
        let mut steps = 0;
        let result = world.play(&mut steps);
        let outcome = Outcome {
            result,
            steps,
            digest: world.time.digest(),
            counts: world.counts.take(),
            trace: world.trace.as_ref().map(RefCell::take).unwrap_or_default(),
        };
        world.end_all();
        outcome
    }

    fn begin_all(self: &Rc<Self>) {
        self.start_jobmanager();
        self.start_jobmanager();
        for _ in 0..self.time.between(1, 4) {
            self.start_taskmanager();
        }
        self.scan_transactions();
        self.begin_weather();
    }

    fn play(self: &Rc<Self>, steps: &mut u64) -> Result<(), String> {
        let end = self.weather.borrow().heals_at + PATIENCE;
        let mut finished_at = None;
        while self.time.step(self) {
            self.serve_bucket();
            *steps += 1;
            if let Some(violation) = self.violation.take() {
                return Err(violation);
            }
            if self.healed.get() && finished_at.is_none() && self.is_finished() {
                finished_at = Some(self.time.now());
            }
            if finished_at.is_some_and(|at| self.time.now() > at + REST) {
                return self.finally();
            }
            if self.time.now() > end {
                break;
            }
        }
        Err(format!(
            "no progress: after {} s of calm, unfinished are [{}], or bytes of a budget are not given back",
            PATIENCE / SECOND,
            self.checker.borrow().unfinished()
        ))
    }

    fn is_finished(&self) -> bool {
        let gives_back = |taskmanager: &Rc<RefCell<Taskmanager>>| taskmanager.borrow().budget.used_bytes() == 0;
        let checker = self.checker.borrow();
        (if self.exactly_once { checker.is_complete() } else { checker.is_delivered() })
            && self.broker.borrow().is_quiet()
            && self.taskmanagers.borrow().values().all(gives_back)
    }

    fn finally(&self) -> Result<(), String> {
        if !self.exactly_once {
            return Ok(());
        }
        let broker = self.broker.borrow();
        let stable = |split: &SplitId| -> Option<Progress> {
            match broker.stable(self.input.place(split)) {
                Some(Kept::Progress(entry)) => Some(entry.progress.clone()),
                _ => None,
            }
        };
        self.checker.borrow().finally(stable)
    }

    /// Everything holds the world, which holds everything.
    fn end_all(&self) {
        let (taskmanagers, jobmanagers) = (self.taskmanagers.take(), self.jobmanagers.take());
        self.time.end();
        drop((taskmanagers, jobmanagers));
        self.time.end();
    }

    /// At most one owner of a split can write, and its slot is in the job record.
    pub(crate) fn look_at_owners(&self) {
        if !self.exactly_once {
            return;
        }
        let broker = self.broker.borrow();
        let mut owners: BTreeMap<SplitId, Pid> = BTreeMap::new();
        for (pid, taskmanager) in &*self.taskmanagers.borrow() {
            let Ok(taskmanager) = taskmanager.try_borrow() else { continue };
            let Some(slot) = &taskmanager.slot else { continue };
            let epoch = slot.producer.client.epoch.get();
            let able = epoch.is_some() && epoch == broker.epoch(TransactionalId::Slot(slot.slot));
            if !able || !slot.producer.confirmed.get() {
                continue;
            }
            for cell in slot.owned.iter().filter(|cell| !cell.is_closed()) {
                if let Some(other) = owners.insert(cell.id.clone(), *pid) {
                    self.violate(format!("split {} can be written by tm-{other} and by tm-{pid}", cell.id));
                }
                let (slot, grant) = (slot.slot, taskmanager.session.grant());
                let recorded = self.checker.borrow().recorded.get(&slot).copied();
                if recorded != Some(grant) {
                    self.violate(format!("tm-{pid} has slot {slot} by {grant:?}, the job record has {recorded:?}"));
                }
            }
        }
    }

    pub(crate) fn healed(&self) -> bool {
        self.healed.get()
    }

    pub(crate) fn set_healed(&self) {
        self.healed.set(true);
    }

    pub(crate) fn check(&self, checked: Result<(), String>) {
        if let Err(violation) = checked {
            self.violate(violation);
        }
    }

    /// The first one counts.
    pub(crate) fn violate(&self, violation: String) {
        self.note(|| format!("VIOLATION: {violation}"));
        self.violation.borrow_mut().get_or_insert(violation);
    }

    pub(crate) fn count(&self, what: &'static str) {
        *self.counts.borrow_mut().entry(what).or_default() += 1;
    }

    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        if let Some(trace) = &self.trace {
            let now = self.time.now();
            trace.borrow_mut().push(format!("{:>4}.{:06} {}", now / SECOND, now % SECOND, what()));
        }
    }
}
