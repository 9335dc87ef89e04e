//! What goes wrong until it heals: how rough it is, and what happens when.

use std::rc::Rc;

use weir_jobmanager::coordinator::event::{AfterCut, Event, RequestId};

use crate::{
    network::StreamId,
    random::Random,
    time::{MS, Micros, Pid, SECOND},
    variants::Variant,
    world::World,
};

/// Taskmanagers at most.
const MAX_TASKMANAGERS: usize = 5;

type Fault = fn(&Rc<World>) -> Option<&'static str>;

/// What may happen. Each schedule has some of it, and so more of that.
const FAULTS: [Fault; 16] = [
    stop_taskmanager,
    stop_taskmanager_for_long,
    kill_taskmanager,
    add_taskmanager,
    drain_taskmanager,
    break_stream,
    cut_taskmanager_from_jobmanager,
    cut_taskmanager_from_broker,
    cut_jobmanager_from_broker,
    stop_jobmanager,
    kill_jobmanager,
    move_coordinator,
    slow_markers,
    take_store_away,
    ask_for_savepoint,
    ask_for_offset_cut,
];

/// How rough a schedule is.
pub(crate) struct Weather {
    pub(crate) heals_at: Micros,
    /// Requests to the broker whose connection breaks, per mille.
    pub(crate) trouble: u64,
    /// Messages and requests that take long, per mille.
    pub(crate) slow: u64,
    /// Requests to the store that go wrong, per mille.
    pub(crate) bucket: u64,
    /// Time between two faults, at most.
    gap: Micros,
    faults: Vec<Fault>,
}

impl Weather {
    pub(crate) fn new(random: &mut Random, variant: Variant) -> Self {
        let weather = Self::any(random);
        // Where a mistake shows in few schedules, it is looked for in those.
        match variant {
            Variant::FencedSlotStaysRecorded => Self {
                gap: 2 * SECOND,
                faults: vec![
                    stop_taskmanager_for_long,
                    kill_jobmanager,
                    cut_taskmanager_from_jobmanager,
                    drain_taskmanager,
                    add_taskmanager,
                ],
                ..weather
            },
            Variant::ConfirmedByArrival | Variant::StaleGrant => Self {
                trouble: 50,
                slow: 150,
                gap: 4 * SECOND,
                faults: vec![stop_taskmanager, add_taskmanager],
                ..weather
            },
            Variant::Overwritten => {
                Self { bucket: 150, gap: 4 * SECOND, faults: vec![stop_jobmanager, kill_jobmanager], ..weather }
            }
            _ => weather,
        }
    }

    fn any(random: &mut Random) -> Self {
        let pick = |random: &mut Random, of: &[u64]| of[random.between(0, of.len() as u64) as usize];
        Self {
            heals_at: random.between(14 * SECOND, 32 * SECOND),
            trouble: pick(random, &[0, 3, 15, 50]),
            slow: pick(random, &[0, 5, 20, 60, 150]),
            bucket: pick(random, &[0, 20, 150]),
            gap: pick(random, &[SECOND, 2 * SECOND, 4 * SECOND, 8 * SECOND]),
            faults: FAULTS.into_iter().filter(|_| random.chance(500)).collect(),
        }
    }
}

impl World {
    pub(crate) fn begin_weather(self: &Rc<Self>) {
        let heals_at = self.weather.borrow().heals_at;
        self.time.after(heals_at, None, |world| world.heal());
        self.time.after(SECOND, None, |world| world.fault());
    }

    fn fault(self: &Rc<Self>) {
        if self.healed() {
            return;
        }
        let (gap, fault) = {
            let weather = self.weather.borrow();
            let chosen = self.time.between(0, weather.faults.len() as u64) as usize;
            (weather.gap, weather.faults.get(chosen).copied())
        };
        if let Some(what) = fault.and_then(|fault| fault(self)) {
            self.count(what);
            self.note(|| format!("FAULT: {what}"));
        }
        self.time.after(self.time.between(gap / 10, gap), None, |world| world.fault());
    }

    fn some_taskmanager(&self) -> Option<Pid> {
        let taskmanagers = self.taskmanagers.borrow();
        let chosen = self.time.between(0, taskmanagers.len() as u64) as usize;
        taskmanagers.keys().nth(chosen).copied()
    }

    fn some_jobmanager(&self) -> Option<Pid> {
        let jobmanagers = self.jobmanagers.borrow();
        let chosen = self.time.between(0, jobmanagers.len() as u64) as usize;
        jobmanagers.keys().nth(chosen).copied()
    }

    /// Nothing goes wrong any more, and somebody is there to work.
    fn heal(self: &Rc<Self>) {
        self.note(|| "healed".to_owned());
        self.set_healed();
        self.network.borrow_mut().heal();
        self.broker.borrow_mut().available_at = 0;
        self.broker.borrow_mut().slow_markers = 0;
        self.objects.borrow_mut().away_until = 0;
        let stays = self.taskmanagers.borrow().values().any(|taskmanager| !taskmanager.borrow().draining);
        if !stays {
            self.start_taskmanager();
        }
    }
}

/// SIGSTOP, then SIGCONT.
fn stop_taskmanager(world: &Rc<World>) -> Option<&'static str> {
    let until = world.time.now() + world.time.between(50 * MS, 3 * SECOND);
    world.time.pause(world.some_taskmanager()?, until);
    Some("taskmanager stopped")
}

fn stop_taskmanager_for_long(world: &Rc<World>) -> Option<&'static str> {
    let until = world.time.now() + world.time.between(3 * SECOND, 20 * SECOND);
    world.time.pause(world.some_taskmanager()?, until);
    Some("taskmanager stopped for long")
}

fn kill_taskmanager(world: &Rc<World>) -> Option<&'static str> {
    world.remove_taskmanager(world.some_taskmanager()?);
    world.time.after(world.time.between(0, 5 * SECOND), None, World::start_taskmanager);
    Some("taskmanager killed")
}

fn add_taskmanager(world: &Rc<World>) -> Option<&'static str> {
    let more = world.taskmanagers.borrow().len() < MAX_TASKMANAGERS;
    more.then(|| {
        world.start_taskmanager();
        "taskmanager added"
    })
}

/// SIGTERM.
fn drain_taskmanager(world: &Rc<World>) -> Option<&'static str> {
    let others = world.taskmanagers.borrow().len() > 1;
    let taskmanager = world.some_taskmanager().filter(|_| others)?;
    world.drain(taskmanager);
    Some("taskmanager drained")
}

fn break_stream(world: &Rc<World>) -> Option<&'static str> {
    let stream: StreamId = *world.streams_of(world.some_taskmanager()?).first()?;
    world.break_stream(stream, 2 * SECOND);
    Some("stream broken")
}

fn cut_taskmanager_from_jobmanager(world: &Rc<World>) -> Option<&'static str> {
    let duration = world.time.between(500 * MS, 12 * SECOND);
    world.cut(world.some_taskmanager()?, world.some_jobmanager()?, duration);
    Some("taskmanager cut from jobmanager")
}

fn cut_taskmanager_from_broker(world: &Rc<World>) -> Option<&'static str> {
    cut_from_broker(world, world.some_taskmanager()?);
    Some("taskmanager cut from broker")
}

fn cut_jobmanager_from_broker(world: &Rc<World>) -> Option<&'static str> {
    cut_from_broker(world, world.some_jobmanager()?);
    Some("jobmanager cut from broker")
}

fn cut_from_broker(world: &World, pid: Pid) {
    let until = world.time.now() + world.time.between(500 * MS, 8 * SECOND);
    world.network.borrow_mut().cut_off(pid, until);
}

fn stop_jobmanager(world: &Rc<World>) -> Option<&'static str> {
    let until = world.time.now() + world.time.between(100 * MS, 15 * SECOND);
    world.time.pause(world.some_jobmanager()?, until);
    Some("jobmanager stopped")
}

fn kill_jobmanager(world: &Rc<World>) -> Option<&'static str> {
    world.crash_jobmanager(world.some_jobmanager()?);
    Some("jobmanager killed")
}

fn move_coordinator(world: &Rc<World>) -> Option<&'static str> {
    world.broker.borrow_mut().available_at = world.time.now() + world.time.between(50 * MS, 4 * SECOND);
    Some("coordinator moved")
}

fn slow_markers(world: &Rc<World>) -> Option<&'static str> {
    world.broker.borrow_mut().slow_markers = world.time.between(0, 3 * SECOND);
    world.time.after(2 * SECOND, None, |world| world.broker.borrow_mut().slow_markers = 0);
    Some("slow markers")
}

fn ask_for_savepoint(world: &Rc<World>) -> Option<&'static str> {
    let request = RequestId(world.time.now());
    world.ask(Event::SavepointRequested { request, label: String::new(), stop: false })?;
    Some("savepoint asked for")
}

fn ask_for_offset_cut(world: &Rc<World>) -> Option<&'static str> {
    let request = RequestId(world.time.now());
    world.ask(Event::OffsetCutRequested { request, label: String::new(), then: AfterCut::GoOn })?;
    Some("offset cut asked for")
}

fn take_store_away(world: &Rc<World>) -> Option<&'static str> {
    world.objects.borrow_mut().away_until = world.time.now() + world.time.between(SECOND, 10 * SECOND);
    Some("store away")
}
