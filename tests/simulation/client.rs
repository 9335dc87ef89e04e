//! A transactional client as librdkafka is one: it repeats by itself what a broken connection may have carried or not,
//! says so in its log, and what it believes lost may still arrive.

use std::{cell::Cell, rc::Rc};

use weir_taskmanager::engine::Doubt;

use crate::{
    broker::{Offsets, Refusal, TransactionalId},
    time::{MS, Micros, Pid, SECOND, Sleep, promise},
    world::World,
};

/// Time of one call, but for the end of a transaction, which is waited for as long as it takes.
const CALL_TIMEOUT: Micros = 10 * SECOND;

/// What becomes of one request.
pub(crate) enum Fate {
    Through {
        there: Micros,
        back: Micros,
    },
    /// Its connection breaks, and the client tries again.
    Broken {
        /// It arrives all the same, after so long.
        arrives: Option<Micros>,
        noticed: Micros,
    },
    /// The call gives up.
    GivenUp {
        arrives: Option<Micros>,
        noticed: Micros,
    },
}

/// A call that did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It may have been done or not, or be done yet.
    Unclear,
    Fenced,
}

/// The doubt about one producer. A log line may come late: it is there when one looks the second time.
#[derive(Debug, Default)]
struct Log(Cell<Line>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Line {
    #[default]
    Nothing,
    /// Whoever looks now does not see it yet.
    Soon,
    Trouble,
}

impl Log {
    fn doubt(&self) -> Option<Doubt> {
        match self.0.get() {
            Line::Nothing => None,
            Line::Soon => {
                self.0.set(Line::Trouble);
                None
            }
            Line::Trouble => Some(Doubt::LogLine("FAIL".to_owned())),
        }
    }
}

pub(crate) struct Client {
    pub(crate) world: Rc<World>,
    pub(crate) pid: Pid,
    pub(crate) id: TransactionalId,
    /// Of its producer, once that is initialised.
    pub(crate) epoch: Cell<Option<u32>>,
    log: Log,
}

impl Client {
    pub(crate) fn new(world: &Rc<World>, pid: Pid, id: TransactionalId) -> Self {
        Self { world: Rc::clone(world), pid, id, epoch: Cell::new(None), log: Log::default() }
    }

    pub(crate) fn doubt(&self) -> Option<Doubt> {
        self.log.doubt()
    }

    pub(crate) fn clear_doubt(&self) {
        self.log.0.set(Line::Nothing);
    }

    pub(crate) fn raise_doubt(&self) {
        if self.log.0.get() == Line::Nothing {
            self.log.0.set(if self.world.time.chance(400) { Line::Soon } else { Line::Trouble });
        }
    }

    pub(crate) async fn sleep(&self, duration: Micros) {
        Sleep::until(&self.world, self.world.time.now() + duration).await;
    }

    /// `init_transactions`
    pub(crate) async fn init(&self) -> Result<(), Trouble> {
        let id = self.id;
        self.epoch.set(None);
        let until = self.world.time.now() + CALL_TIMEOUT;
        loop {
            match self.call(until, move |world| world.init(id)).await? {
                Ok(epoch) => {
                    self.epoch.set(Some(epoch));
                    return Ok(());
                }
                Err(_) => self.wait_a_little(until).await?,
            }
        }
    }

    /// `send_offsets_to_transaction`
    pub(crate) async fn add_offsets(&self, offsets: Offsets) -> Result<(), Trouble> {
        let (id, epoch) = (self.id, self.epoch.get().ok_or(Trouble::Unclear)?);
        let until = self.world.time.now() + CALL_TIMEOUT;
        let offsets = Rc::new(offsets);
        loop {
            let offsets = Rc::clone(&offsets);
            let added = self.call(until, move |world| world.add_offsets(id, epoch, &offsets)).await?;
            if self.is_done(added, until).await? {
                return Ok(());
            }
        }
    }

    /// `commit_transaction` or `abort_transaction`
    pub(crate) async fn end(&self, commit: bool) -> Result<(), Trouble> {
        let (id, epoch) = (self.id, self.epoch.get().ok_or(Trouble::Unclear)?);
        loop {
            let ended = self.call(Micros::MAX, move |world| world.end_transaction(id, epoch, commit)).await?;
            if self.is_done(ended, Micros::MAX).await? {
                return Ok(());
            }
        }
    }

    /// `committed` with `isolation.level=read_committed`, tried until nothing is pending.
    pub(crate) async fn read(&self, partitions: Vec<i32>) -> Result<Offsets, Trouble> {
        let until = self.world.time.now() + CALL_TIMEOUT;
        let partitions = Rc::new(partitions);
        loop {
            let partitions = Rc::clone(&partitions);
            match self.call(until, move |world| world.read_offsets(&partitions)).await? {
                Some(read) => return Ok(read),
                None => self.wait_a_little(until).await?,
            }
        }
    }

    /// One transaction of offsets alone. After any doubt about it, the producer is not to be used again.
    pub(crate) async fn write(&self, offsets: Offsets) -> Result<(), Trouble> {
        let written = match self.add_offsets(offsets).await {
            Ok(()) => self.end(true).await,
            failed => failed,
        };
        if written.is_err() || self.doubt().is_some() {
            self.epoch.set(None);
        }
        written
    }

    /// A plain commit of offsets.
    pub(crate) async fn commit_plainly(&self, offsets: Offsets) -> Result<(), Trouble> {
        let until = self.world.time.now() + CALL_TIMEOUT;
        let offsets = Rc::new(offsets);
        self.call(until, move |world| world.commit_plainly(&offsets)).await
    }

    async fn is_done(&self, answer: Result<(), Refusal>, until: Micros) -> Result<bool, Trouble> {
        match answer {
            Ok(()) => Ok(true),
            Err(Refusal::Fenced) => Err(Trouble::Fenced),
            Err(Refusal::InvalidState) => Err(Trouble::Unclear),
            Err(Refusal::Concurrent) => self.wait_a_little(until).await.map(|()| false),
        }
    }

    async fn wait_a_little(&self, until: Micros) -> Result<(), Trouble> {
        if self.world.time.now() > until {
            return Err(Trouble::Unclear);
        }
        self.sleep(self.world.time.between(10 * MS, 50 * MS)).await;
        Ok(())
    }

    /// One request with its repetitions.
    async fn call<R: 'static>(
        &self,
        until: Micros,
        request: impl Fn(&Rc<World>) -> R + Clone + 'static,
    ) -> Result<R, Trouble> {
        loop {
            let (arrives, noticed, given_up) = match self.world.fate(self.pid) {
                Fate::Through { there, back } => {
                    let (keeper, answer) = promise();
                    let answered = request.clone();
                    self.world.at_broker(there, move |world| {
                        let value = answered(world);
                        world.time.after(back, None, move |_| keeper.keep(value));
                    });
                    return Ok(answer.await);
                }
                Fate::Broken { arrives, noticed } => (arrives, noticed, false),
                Fate::GivenUp { arrives, noticed } => (arrives, noticed, true),
            };
            if let Some(arrives) = arrives {
                let request = request.clone();
                self.world.at_broker(arrives, move |world| drop(request(world)));
            }
            self.raise_doubt();
            self.sleep(noticed).await;
            if given_up || self.world.time.now() > until {
                return Err(Trouble::Unclear);
            }
        }
    }
}

impl World {
    /// Something arrives at the broker, and waits there while the coordinator moves.
    pub(crate) fn at_broker(self: &Rc<Self>, delay: Micros, request: impl FnOnce(&Rc<World>) + 'static) {
        self.time.after(delay, None, move |world| {
            let wait = world.broker.borrow().available_at.saturating_sub(world.time.now());
            if wait > 0 { world.at_broker(wait, request) } else { request(world) }
        });
    }

    pub(crate) fn fate(&self, pid: Pid) -> Fate {
        let time = &self.time;
        if self.network.borrow().is_cut_off(pid, time.now()) {
            return Fate::Broken { arrives: None, noticed: time.between(100 * MS, 600 * MS) };
        }
        let (troubled, slow) = (self.weather.borrow().trouble, self.weather.borrow().slow);
        if self.healed() || !time.chance(troubled) {
            let slow = if !self.healed() && time.chance(slow) { time.between(100 * MS, 3 * SECOND) } else { 0 };
            return Fate::Through { there: time.between(MS, 12 * MS) + slow, back: time.between(MS, 12 * MS) };
        }
        self.count("broken request");
        let arrives = match time.between(0, 10) {
            0..3 => None,
            3..6 => Some(time.between(MS, 20 * MS)),
            _ => Some(time.between(50 * MS, 6 * SECOND)),
        };
        let noticed = time.between(5 * MS, 300 * MS);
        if time.chance(250) { Fate::GivenUp { arrives, noticed } } else { Fate::Broken { arrives, noticed } }
    }
}
