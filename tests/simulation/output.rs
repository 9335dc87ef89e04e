//! The producer of a slot, on the model of client and broker: what the real sink drives.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use weir_common::{counters::OutcomeKind, ids::SlotId, progress::entry::ProgressEntry, split::SplitId};
use weir_taskmanager::{
    engine::{Cause, Clock, Doubt, Failure, KeptEntry, Lease, Output, Refusal, Undelivered},
    record::{OutputRecord, SourceRecord},
};

use crate::{
    broker::{Kept, Produced, Refusal as BrokerRefusal, TransactionalId},
    client::{Client, Fate, Trouble},
    time::{Keeper, MS, Micros, ProcessClock, promise},
    variants::Variant,
    world::World,
};

/// Values of output records: what became of them.
pub(crate) const ENRICHED: &[u8] = b"enriched";
pub(crate) const PASSED_THROUGH: &[u8] = b"passed through";
pub(crate) const ERROR: &[u8] = b"error";

/// Records that were handed to one producer and are on their way, in their order. Those that come twice are kept apart by
/// their sequence numbers, so each arrives once here.
#[derive(Default)]
struct Outbox {
    queue: VecDeque<(Micros, usize, Produced)>,
    running: bool,
    failed: Vec<Undelivered>,
    /// A record ran into `message.timeout.ms`: the producer takes no more.
    broken: bool,
    settling: Option<Keeper<()>>,
}

/// What others must know of a producer.
pub(crate) struct Producer {
    pub(crate) client: Client,
    /// Whatever its epoch is, it may be used: the grant was confirmed after it was initialised.
    pub(crate) confirmed: Cell<bool>,
}

pub(crate) struct SimulatedOutput {
    producer: Rc<Producer>,
    outbox: Rc<RefCell<Outbox>>,
    lease: Arc<Lease>,
    opened: bool,
    /// Sent something since the transaction began.
    used: bool,
    /// The next look at the doubt is that at the end of a cut.
    cutting: Cell<bool>,
    highest: Option<usize>,
    again: Vec<(usize, Produced)>,
}

impl SimulatedOutput {
    pub(crate) fn new(producer: Rc<Producer>, lease: Arc<Lease>) -> Self {
        Self {
            producer,
            outbox: Rc::default(),
            lease,
            opened: false,
            used: false,
            cutting: Cell::new(false),
            highest: None,
            again: Vec::new(),
        }
    }

    fn client(&self) -> &Client {
        &self.producer.client
    }

    fn world(&self) -> &Rc<World> {
        &self.client().world
    }

    fn variant(&self) -> Variant {
        self.world().variant
    }

    /// Hands a record to the network.
    fn send(&mut self, number: usize, record: Produced) -> Result<(), Refusal> {
        let (id, Some(epoch)) = (self.client().id, self.client().epoch.get()) else {
            return Err(Refusal::Producer(failed("there is no producer")));
        };
        let mut outbox = self.outbox.borrow_mut();
        if outbox.broken {
            return Err(Refusal::Producer(failed("the producer takes no more")));
        }
        self.used = true;
        let world = self.world();
        let now = world.time.now();
        let due = match world.fate(self.client().pid) {
            Fate::Through { there, .. } => now + there,
            Fate::Broken { noticed, .. } => {
                self.client().raise_doubt();
                now + noticed
            }
            Fate::GivenUp { arrives, .. } => {
                self.client().raise_doubt();
                outbox.broken = true;
                outbox.failed.push(Undelivered { number, cause: Cause::Transport, reason: "timed out".to_owned() });
                if let Some(arrives) = arrives {
                    world.at_broker(arrives, move |world| {
                        let _ = world.produce(id, epoch, record);
                    });
                }
                return Ok(());
            }
        };
        outbox.queue.push_back((due, number, record));
        if !std::mem::replace(&mut outbox.running, true) {
            let outbox = Rc::clone(&self.outbox);
            world.at_broker(due - now, move |world| world.pump(&outbox, id, epoch));
        }
        Ok(())
    }

    fn flush_again(&mut self) -> Result<(), Refusal> {
        while let Some((number, record)) = self.again.pop() {
            self.send(number, record)?;
        }
        Ok(())
    }
}

impl World {
    /// Brings to the broker what is due.
    fn pump(self: &Rc<Self>, outbox: &Rc<RefCell<Outbox>>, id: TransactionalId, epoch: u32) {
        let mut box_ = outbox.borrow_mut();
        let now = self.time.now();
        while let Some((due, number, record)) = box_.queue.pop_front() {
            let wait = if due > now {
                due - now
            } else {
                match self.produce(id, epoch, record.clone()) {
                    Ok(()) => continue,
                    Err(BrokerRefusal::Concurrent) => 15 * MS,
                    Err(_) => {
                        let numbers = std::iter::once(number).chain(box_.queue.drain(..).map(|(_, number, _)| number));
                        let refuse = |number| Undelivered { number, cause: Cause::Fenced, reason: "fenced".to_owned() };
                        let refused: Vec<Undelivered> = numbers.map(refuse).collect();
                        box_.failed.extend(refused);
                        break;
                    }
                }
            };
            box_.queue.push_front((due, number, record));
            let outbox = Rc::clone(outbox);
            return self.at_broker(wait, move |world| world.pump(&outbox, id, epoch));
        }
        box_.running = false;
        if let Some(settling) = box_.settling.take() {
            self.time.after(self.time.between(MS, 12 * MS), None, |_| settling.keep(()));
        }
    }

    pub(crate) fn split_of(&self, record: &SourceRecord) -> SplitId {
        let index = self.input.index_of(record.key.as_deref().unwrap_or_default());
        SplitId { topic: record.topic.clone(), partition: record.partition, index }
    }
}

impl Output for SimulatedOutput {
    async fn open(&mut self) -> Result<(), Failure> {
        let again = std::mem::replace(&mut self.opened, true);
        self.outbox = Rc::default();
        (self.used, self.again) = (false, Vec::new());
        if again && self.variant() == Variant::NoRecycle {
            return match self.client().end(false).await {
                Err(Trouble::Fenced) => Err(Failure::Fenced("fenced".to_owned())),
                _ => Ok(()),
            };
        }
        if !self.world().exactly_once {
            self.client().epoch.set(Some(0));
            return Ok(());
        }
        self.producer.confirmed.set(!again);
        self.client().init().await.map_err(|trouble| failure("init_transactions", trouble))?;
        if again && self.variant() == Variant::NoConfirmation {
            let clock = ProcessClock { world: Rc::clone(self.world()), pid: self.client().pid };
            self.lease.renew(clock.now(), Duration::from_secs(1));
        }
        Ok(())
    }

    async fn begin(&mut self) -> Result<(), Failure> {
        self.used = false;
        Ok(())
    }

    async fn produce(&mut self, number: usize, record: &SourceRecord, output: &OutputRecord) -> Result<(), Refusal> {
        let kind = match output.value.as_ref() {
            ENRICHED => OutcomeKind::Enriched,
            PASSED_THROUGH => OutcomeKind::PassedThrough,
            _ => OutcomeKind::Error,
        };
        let split = self.world().split_of(record);
        let record = Produced { split, offset: record.offset, kind, destination: output.destination };
        let again = self.highest.is_some_and(|highest| number <= highest);
        self.highest = self.highest.max(Some(number));
        match self.variant() {
            Variant::NotReplayed if again => return Ok(()),
            Variant::ReplayedInAnotherOrder if again => {
                self.again.push((number, record));
                return Ok(());
            }
            _ => {}
        }
        self.flush_again()?;
        self.send(number, record)
    }

    async fn settle(&mut self) -> Vec<Undelivered> {
        // What it refuses is said below.
        let _ = self.flush_again();
        let settled = {
            let mut outbox = self.outbox.borrow_mut();
            let (keeper, settled) = promise();
            outbox.settling = outbox.running.then_some(keeper);
            outbox.running.then_some(settled)
        };
        if let Some(settled) = settled {
            settled.await;
        }
        std::mem::take(&mut self.outbox.borrow_mut().failed)
    }

    async fn send_progress(&mut self, entries: &[KeptEntry]) -> Result<(), Failure> {
        if self.variant() == Variant::ProgressApart && self.used {
            self.client().end(true).await.map_err(|trouble| failure("commit_transaction", trouble))?;
        }
        if entries.is_empty() {
            return Ok(());
        }
        self.used = true;
        let kept = |kept: &KeptEntry| (kept.partition, Kept::Progress(kept.entry.clone()));
        let offsets = entries.iter().map(kept).collect();
        let sent = self.client().add_offsets(offsets).await;
        sent.map_err(|trouble| failure("send_offsets_to_transaction", trouble))
    }

    async fn commit(&mut self) -> Result<(), Failure> {
        self.cutting.set(true);
        if !self.used {
            return Ok(());
        }
        self.client().end(true).await.map_err(|trouble| failure("commit_transaction", trouble))
    }

    async fn stable_progress(&mut self, splits: &[(SplitId, i32)]) -> Result<Vec<ProgressEntry>, Failure> {
        self.producer.confirmed.set(true);
        self.world().look_at_owners();
        let partitions = splits.iter().map(|(_, partition)| *partition).collect();
        let read = self.client().read(partitions).await.map_err(|trouble| failure("stable read", trouble))?;
        let entry = |(_, kept)| match kept {
            Kept::Progress(entry) => Some(entry),
            Kept::Record(_) => None,
        };
        Ok(read.into_iter().filter_map(entry).collect())
    }

    fn doubt(&self) -> Option<Doubt> {
        let cutting = self.cutting.replace(false);
        match self.variant() {
            Variant::NoRecycle => None,
            Variant::NoLookBeforeBegin if !cutting => None,
            _ => self.client().doubt(),
        }
    }

    fn clear_doubt(&self) {
        self.client().clear_doubt();
    }
}

pub(crate) fn producer(world: &Rc<World>, pid: usize, slot: SlotId) -> Rc<Producer> {
    let client = Client::new(world, pid, TransactionalId::Slot(slot));
    Rc::new(Producer { client, confirmed: Cell::new(true) })
}

fn failed(what: &str) -> Failure {
    Failure::Doubt(Doubt::FailedCall(what.to_owned()))
}

fn failure(what: &str, trouble: Trouble) -> Failure {
    match trouble {
        Trouble::Unclear => failed(what),
        Trouble::Fenced => Failure::Fenced(format!("{what}: fenced")),
    }
}
