//! Virtual time, processes, and a single-threaded executor that polls their futures: the order of everything follows from
//! the seed alone.

use std::{
    cell::{Cell, RefCell},
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use weir_taskmanager::engine::Clock;

use crate::{random::Random, world::World};

/// Microseconds since the world began.
pub(crate) type Micros = u64;

pub(crate) const MS: Micros = 1_000;
pub(crate) const SECOND: Micros = 1_000_000;

/// One incarnation of a process; never used again.
pub(crate) type Pid = usize;

/// What a process is made of, for the machine it runs on.
#[derive(Debug)]
struct Process {
    alive: bool,
    /// Stopped by a signal until then: messages and timers wait.
    paused_until: Micros,
    /// Its clock's speed in parts per million.
    rate: u64,
}

type Call = Box<dyn FnOnce(&Rc<World>)>;

enum Event {
    /// Something happens; in a process, if there is one: when that does not live any more, nothing does.
    Call(Option<Pid>, Call),
    /// A task's time has come.
    Poll(usize),
}

struct Entry {
    at: Micros,
    number: u64,
    event: Event,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}

struct Task {
    pid: Pid,
    /// Taken out while it is polled.
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    waker: Waker,
}

type Ready = Arc<Mutex<VecDeque<usize>>>;

struct WakeTask {
    task: usize,
    ready: Ready,
}

impl Wake for WakeTask {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).push_back(self.task);
    }
}

pub(crate) struct Time {
    base: Instant,
    now: Cell<Micros>,
    numbers: Cell<u64>,
    random: RefCell<Random>,
    queue: RefCell<BinaryHeap<Reverse<Entry>>>,
    tasks: RefCell<Vec<Option<Task>>>,
    free: RefCell<Vec<usize>>,
    ready: Ready,
    polled: Cell<usize>,
    processes: RefCell<Vec<Process>>,
    /// Of everything that has happened, in its order.
    digest: Cell<u64>,
}

impl Time {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            base: Instant::now(),
            now: Cell::new(0),
            numbers: Cell::new(0),
            random: RefCell::new(Random::new(seed)),
            queue: RefCell::default(),
            tasks: RefCell::default(),
            free: RefCell::default(),
            ready: Ready::default(),
            polled: Cell::new(usize::MAX),
            processes: RefCell::default(),
            digest: Cell::new(seed),
        }
    }

    pub(crate) fn now(&self) -> Micros {
        self.now.get()
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest.get()
    }

    pub(crate) fn between(&self, low: u64, high: u64) -> u64 {
        self.random.borrow_mut().between(low, high)
    }

    pub(crate) fn chance(&self, per_mille: u64) -> bool {
        self.random.borrow_mut().chance(per_mille)
    }

    /// Schedules something that happens to nobody in particular, or to a process as long as it lives.
    pub(crate) fn after(&self, delay: Micros, pid: Option<Pid>, call: impl FnOnce(&Rc<World>) + 'static) {
        self.push(self.now() + delay, Event::Call(pid, Box::new(call)));
    }

    fn push(&self, at: Micros, event: Event) {
        let number = self.numbers.get();
        self.numbers.set(number + 1);
        self.queue.borrow_mut().push(Reverse(Entry { at, number, event }));
    }

    pub(crate) fn start_process(&self, rate: u64) -> Pid {
        let mut processes = self.processes.borrow_mut();
        processes.push(Process { alive: true, paused_until: 0, rate });
        processes.len() - 1
    }

    /// Its futures are dropped where they stand.
    pub(crate) fn kill(&self, pid: Pid) {
        self.processes.borrow_mut()[pid].alive = false;
        let mut dropped = Vec::new();
        for (number, place) in self.tasks.borrow_mut().iter_mut().enumerate() {
            if place.as_ref().is_some_and(|task| task.pid == pid) {
                dropped.push(place.take());
                self.free.borrow_mut().push(number);
            }
        }
    }

    pub(crate) fn pause(&self, pid: Pid, until: Micros) {
        let mut processes = self.processes.borrow_mut();
        processes[pid].paused_until = processes[pid].paused_until.max(until);
    }

    pub(crate) fn is_alive(&self, pid: Pid) -> bool {
        self.processes.borrow()[pid].alive
    }

    /// What a process's monotonic clock shows.
    pub(crate) fn local(&self, pid: Pid) -> Duration {
        Duration::from_micros(self.now() * self.processes.borrow()[pid].rate / 1_000_000)
    }

    pub(crate) fn instant(&self, pid: Pid) -> Instant {
        self.base + self.local(pid)
    }

    /// When a process's clock shows so much.
    pub(crate) fn global(&self, pid: Pid, local: Duration) -> Micros {
        let micros = local.as_nanos().div_ceil(1000) * 1_000_000;
        u64::try_from(micros.div_ceil(u128::from(self.processes.borrow()[pid].rate))).unwrap_or(u64::MAX)
    }

    /// Runs a future in a process, from now on.
    pub(crate) fn spawn(&self, pid: Pid, future: impl Future<Output = ()> + 'static) {
        let number = self.free.borrow_mut().pop().unwrap_or(self.tasks.borrow().len());
        let waker = Waker::from(Arc::new(WakeTask { task: number, ready: Arc::clone(&self.ready) }));
        let task = Some(Task { pid, future: Some(Box::pin(future)), waker });
        let mut tasks = self.tasks.borrow_mut();
        if number == tasks.len() {
            tasks.push(task)
        } else {
            tasks[number] = task
        }
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).push_back(number);
    }

    /// Does the next thing; `false`: nothing is left.
    pub(crate) fn step(&self, world: &Rc<World>) -> bool {
        let Some(Reverse(Entry { at, number, event })) = self.queue.borrow_mut().pop() else { return false };
        self.now.set(at);
        self.digest.set((self.digest.get() ^ at ^ number.rotate_left(40)).wrapping_mul(0x0000_0100_0000_01B3));
        match event {
            Event::Call(pid, call) => {
                match pid.map(|pid| (self.is_alive(pid), self.processes.borrow()[pid].paused_until)) {
                    Some((false, _)) => {}
                    Some((true, until)) if until > at => self.push(until, Event::Call(pid, call)),
                    _ => call(world),
                }
            }
            Event::Poll(task) => self.poll(task),
        }
        while let Some(task) = self.next_ready() {
            self.poll(task);
        }
        true
    }

    fn next_ready(&self) -> Option<usize> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn poll(&self, number: usize) {
        let Some((pid, mut future, waker)) = self
            .tasks
            .borrow_mut()
            .get_mut(number)
            .and_then(Option::as_mut)
            .and_then(|task| Some((task.pid, task.future.take()?, task.waker.clone())))
        else {
            return;
        };
        let until = self.processes.borrow()[pid].paused_until;
        let mut done = false;
        if until > self.now() {
            self.push(until, Event::Poll(number));
        } else {
            self.polled.set(number);
            done = future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        }
        // It may have been killed meanwhile by what it did itself, and its place may have been taken.
        let mut tasks = self.tasks.borrow_mut();
        match tasks.get_mut(number) {
            Some(place) if place.as_ref().is_some_and(|task| task.future.is_none()) => {
                if done {
                    *place = None;
                    self.free.borrow_mut().push(number);
                } else if let Some(task) = place {
                    task.future = Some(future);
                    return;
                }
            }
            _ => {}
        }
        drop(tasks);
        drop(future);
    }

    /// Drops everything that is still under way: the world is held by it.
    pub(crate) fn end(&self) {
        let (queue, tasks) = (self.queue.take(), self.tasks.take());
        drop((queue, tasks));
    }
}

/// Ends at a time, or later.
pub(crate) struct Sleep {
    world: Rc<World>,
    until: Micros,
    armed: bool,
}

impl Sleep {
    pub(crate) fn until(world: &Rc<World>, until: Micros) -> Self {
        Self { world: Rc::clone(world), until, armed: false }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let time = &self.world.time;
        if time.now() >= self.until {
            return Poll::Ready(());
        }
        if !self.armed {
            time.push(self.until, Event::Poll(time.polled.get()));
            self.armed = true;
        }
        Poll::Pending
    }
}

/// The monotonic clock of one process, which is a little fast or slow.
#[derive(Clone)]
pub(crate) struct ProcessClock {
    pub(crate) world: Rc<World>,
    pub(crate) pid: Pid,
}

impl Clock for ProcessClock {
    fn now(&self) -> Instant {
        self.world.time.instant(self.pid)
    }

    fn sleep_until(&self, deadline: Instant) -> impl Future<Output = ()> {
        let local = deadline.saturating_duration_since(self.world.time.base);
        Sleep::until(&self.world, self.world.time.global(self.pid, local))
    }
}

/// A value that comes later.
pub(crate) struct Promise<T>(Rc<RefCell<Promised<T>>>);

/// The other end of a [`Promise`].
pub(crate) struct Keeper<T>(Rc<RefCell<Promised<T>>>);

struct Promised<T> {
    value: Option<T>,
    waker: Option<Waker>,
}

pub(crate) fn promise<T>() -> (Keeper<T>, Promise<T>) {
    let shared = Rc::new(RefCell::new(Promised { value: None, waker: None }));
    (Keeper(Rc::clone(&shared)), Promise(shared))
}

impl<T> Keeper<T> {
    pub(crate) fn keep(self, value: T) {
        let mut promised = self.0.borrow_mut();
        promised.value = Some(value);
        if let Some(waker) = promised.waker.take() {
            waker.wake();
        }
    }
}

impl<T> Future for Promise<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut promised = self.0.borrow_mut();
        match promised.value.take() {
            Some(value) => Poll::Ready(value),
            None => {
                promised.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
