//! Streams between taskmanagers and jobmanagers. Inside a stream nothing is lost or overtakes, as TCP has it; a stream may
//! be slow, break, or be cut, and each side hears of its end in its own time.

use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

use weir_common::ids::{LeaderEpoch, TaskmanagerId};
use weir_jobmanager::coordinator::event::HeldSlot;
use weir_taskmanager::engine::{FromJobmanager, ToJobmanager};

use crate::{
    time::{MS, Micros, Pid, SECOND},
    world::World,
};

/// A side that hears nothing gives the stream up after at most so long.
const KEEP_ALIVE: Micros = 6 * SECOND;

pub(crate) type StreamId = usize;

/// To the jobmanager.
#[derive(Debug)]
pub(crate) enum Up {
    Register { taskmanager: TaskmanagerId, held: Option<HeldSlot> },
    Heartbeat,
    Said(ToJobmanager),
}

/// To the taskmanager.
#[derive(Debug)]
pub(crate) enum Down {
    Registered(LeaderEpoch),
    Said(LeaderEpoch, FromJobmanager),
}

struct Direction<M> {
    /// On the way; `None` is the end.
    queue: VecDeque<Option<M>>,
    last_due: Micros,
    /// Whoever reads still does.
    open: bool,
}

impl<M> Direction<M> {
    fn new() -> Self {
        Self { queue: VecDeque::new(), last_due: 0, open: true }
    }
}

struct Stream {
    taskmanager: Pid,
    jobmanager: Pid,
    up: Direction<Up>,
    down: Direction<Down>,
}

#[derive(Default)]
pub(crate) struct Network {
    streams: Vec<Option<Stream>>,
    /// Pairs of processes between which nothing passes until then.
    cuts: BTreeMap<(Pid, Pid), Micros>,
    /// Processes that do not reach the broker until then.
    cut_off: BTreeMap<Pid, Micros>,
}

impl Network {
    pub(crate) fn is_cut_off(&self, pid: Pid, now: Micros) -> bool {
        self.cut_off.get(&pid).is_some_and(|until| now < *until)
    }

    pub(crate) fn cut_off(&mut self, pid: Pid, until: Micros) {
        self.cut_off.insert(pid, until);
    }

    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
        self.cut_off.clear();
    }

    fn cut_until(&self, one: Pid, other: Pid) -> Micros {
        self.cuts.get(&(one.min(other), one.max(other))).copied().unwrap_or(0)
    }
}

impl World {
    pub(crate) fn open_stream(&self, taskmanager: Pid, jobmanager: Pid) -> StreamId {
        let mut network = self.network.borrow_mut();
        let (up, down) = (Direction::new(), Direction::new());
        network.streams.push(Some(Stream { taskmanager, jobmanager, up, down }));
        network.streams.len() - 1
    }

    pub(crate) fn is_cut(&self, one: Pid, other: Pid) -> bool {
        self.network.borrow().cut_until(one, other) > self.time.now()
    }

    /// When something that is sent now may arrive.
    fn arrival(&self, from: Pid, to: Pid) -> Micros {
        let time = &self.time;
        let slow = !self.healed() && time.chance(self.weather.borrow().slow);
        let most = if time.chance(250) { 9 * SECOND } else { 3 * SECOND };
        let slow = if slow { time.between(50 * MS, most) } else { 0 };
        time.now().max(self.network.borrow().cut_until(from, to)) + time.between(MS, 20 * MS) + slow
    }

    pub(crate) fn send_up(self: &Rc<Self>, id: StreamId, message: Option<Up>) {
        let Some((from, to)) = self.ends(id) else { return };
        let arrival = self.arrival(from, to);
        let mut network = self.network.borrow_mut();
        let Some(stream) = network.streams[id].as_mut() else { return };
        stream.up.queue.push_back(message);
        stream.up.last_due = arrival.max(stream.up.last_due);
        let delay = stream.up.last_due - self.time.now();
        drop(network);
        self.time.after(delay, Some(to), move |world| world.arrive_up(id));
    }

    pub(crate) fn send_down(self: &Rc<Self>, id: StreamId, message: Option<Down>) {
        let Some((to, from)) = self.ends(id) else { return };
        let arrival = self.arrival(from, to);
        let mut network = self.network.borrow_mut();
        let Some(stream) = network.streams[id].as_mut() else { return };
        stream.down.queue.push_back(message);
        stream.down.last_due = arrival.max(stream.down.last_due);
        let delay = stream.down.last_due - self.time.now();
        drop(network);
        self.time.after(delay, Some(to), move |world| world.arrive_down(id));
    }

    fn ends(&self, id: StreamId) -> Option<(Pid, Pid)> {
        self.network.borrow().streams[id].as_ref().map(|stream| (stream.taskmanager, stream.jobmanager))
    }

    fn arrive_up(self: &Rc<Self>, id: StreamId) {
        let Some((_, jobmanager)) = self.ends(id) else { return };
        let message = {
            let mut network = self.network.borrow_mut();
            let Some(stream) = network.streams[id].as_mut() else { return };
            stream.up.queue.pop_front().filter(|_| stream.up.open)
        };
        match message {
            None => {}
            Some(Some(message)) => self.hear_up(jobmanager, id, message),
            Some(None) => self.end_up(id),
        }
    }

    fn arrive_down(self: &Rc<Self>, id: StreamId) {
        let Some((taskmanager, _)) = self.ends(id) else { return };
        let message = {
            let mut network = self.network.borrow_mut();
            let Some(stream) = network.streams[id].as_mut() else { return };
            stream.down.queue.pop_front().filter(|_| stream.down.open)
        };
        match message {
            None => {}
            Some(Some(message)) => self.hear_down(taskmanager, id, message),
            Some(None) => self.end_down(id),
        }
    }

    /// The jobmanager sees the stream's end.
    fn end_up(self: &Rc<Self>, id: StreamId) {
        let Some((_, jobmanager)) = self.ends(id) else { return };
        if self.close(id, true) {
            self.stream_ended_up(jobmanager, id);
        }
    }

    /// The taskmanager sees the stream's end.
    fn end_down(self: &Rc<Self>, id: StreamId) {
        let Some((taskmanager, _)) = self.ends(id) else { return };
        if self.close(id, false) {
            self.stream_ended_down(taskmanager, id);
        }
    }

    /// One side reads no more; whether it did.
    fn close(&self, id: StreamId, up: bool) -> bool {
        let mut network = self.network.borrow_mut();
        let Some(stream) = network.streams[id].as_mut() else { return false };
        let open = if up { &mut stream.up.open } else { &mut stream.down.open };
        std::mem::replace(open, false)
    }

    /// The taskmanager closes its side; the other one hears of it.
    pub(crate) fn hang_up_from_taskmanager(self: &Rc<Self>, id: StreamId) {
        if self.close(id, false) {
            self.send_up(id, None);
        }
    }

    /// The jobmanager closes its side; the other one hears of it.
    pub(crate) fn hang_up_from_jobmanager(self: &Rc<Self>, id: StreamId) {
        if self.close(id, true) {
            self.send_down(id, None);
        }
    }

    /// The connection is lost: nothing on the way arrives, each side hears of it in its time.
    pub(crate) fn break_stream(self: &Rc<Self>, id: StreamId, patience: Micros) {
        let Some((taskmanager, jobmanager)) = self.ends(id) else { return };
        if let Some(stream) = self.network.borrow_mut().streams[id].as_mut() {
            stream.up.queue.clear();
            stream.down.queue.clear();
        }
        let (one, other) = (self.time.between(0, patience), self.time.between(0, patience));
        self.time.after(one, Some(jobmanager), move |world| world.end_up(id));
        self.time.after(other, Some(taskmanager), move |world| world.end_down(id));
    }

    /// Nothing passes between two processes for a while; what is given up meanwhile is gone.
    pub(crate) fn cut(self: &Rc<Self>, taskmanager: Pid, jobmanager: Pid, duration: Micros) {
        let until = self.time.now() + duration;
        self.network.borrow_mut().cuts.insert((taskmanager.min(jobmanager), taskmanager.max(jobmanager)), until);
        if duration > KEEP_ALIVE / 2 {
            for id in self.streams_of(taskmanager) {
                if self.ends(id) == Some((taskmanager, jobmanager)) {
                    let patience = KEEP_ALIVE.min(duration);
                    self.time.after(patience / 2, None, move |world| world.break_stream(id, patience / 2));
                }
            }
        }
    }

    pub(crate) fn streams_of(&self, pid: Pid) -> Vec<StreamId> {
        let network = self.network.borrow();
        let open = |stream: &Stream| stream.up.open || stream.down.open;
        let of = |stream: &Stream| (stream.taskmanager == pid || stream.jobmanager == pid) && open(stream);
        let streams = network.streams.iter().enumerate();
        streams.filter(|(_, stream)| stream.as_ref().is_some_and(of)).map(|(id, _)| id).collect()
    }

    /// A process is gone: its machine may say so, or not.
    pub(crate) fn break_streams_of(self: &Rc<Self>, pid: Pid) {
        for id in self.streams_of(pid) {
            let patience = if self.time.chance(700) { 50 * MS } else { KEEP_ALIVE };
            self.break_stream(id, patience);
        }
    }
}
