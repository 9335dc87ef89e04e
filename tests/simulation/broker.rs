//! The broker of the sink cluster: transaction coordinator, output and group offsets, as CORRECTNESS of the design has
//! seen them: last caller of `init` wins, an end that is late ends whatever transaction of its epoch is open then, offsets
//! of a transaction are pending until its markers are written, a little after its coordinator says that it is complete.

use std::{collections::BTreeMap, rc::Rc};

use weir_common::{counters::OutcomeKind, ids::SlotId, progress::entry::ProgressEntry, split::SplitId};
use weir_jobmanager::start::JobRecord;
use weir_taskmanager::record::Destination;

use crate::{
    time::{MS, Micros, SECOND},
    variants::Variant,
    world::World,
};

/// `transaction.timeout.ms`
pub(crate) const TRANSACTION_TIMEOUT: Micros = 12 * SECOND;

/// How often the coordinator looks for transactions that are too old.
const SCAN_INTERVAL: Micros = 4 * SECOND;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TransactionalId {
    /// The writer of job record and first progress.
    Jobmanager,
    Slot(SlotId),
}

/// A record of output or error topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Produced {
    pub(crate) split: SplitId,
    pub(crate) offset: i64,
    pub(crate) kind: OutcomeKind,
    pub(crate) destination: Destination,
}

/// What a group offset of the progress topic keeps.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kept {
    Record(JobRecord),
    Progress(ProgressEntry),
}

pub(crate) type Offsets = Vec<(i32, Kept)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Empty,
    Ongoing,
    /// Decided, markers are being written.
    Ending,
    Ended {
        commit: bool,
    },
}

#[derive(Clone, Debug)]
struct Transaction {
    epoch: u32,
    state: State,
    produced: Vec<Produced>,
    offsets: Offsets,
    began: Micros,
}

/// Why the broker does not do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Another producer has the id.
    Fenced,
    /// `CONCURRENT_TRANSACTIONS`: the former transaction is still ending, try again.
    Concurrent,
    /// There is no transaction to end, or it ended the other way.
    InvalidState,
}

#[derive(Default)]
pub(crate) struct Broker {
    transactions: BTreeMap<TransactionalId, Transaction>,
    stable: BTreeMap<i32, Kept>,
    /// Transactions whose offsets of a partition are not stable yet.
    pending: BTreeMap<i32, usize>,
    /// The coordinator is moving until then.
    pub(crate) available_at: Micros,
    /// When the offsets of the newest transaction that has ended are stable.
    settled: Micros,
    /// Writing markers takes so much longer.
    pub(crate) slow_markers: Micros,
}

impl Broker {
    pub(crate) fn epoch(&self, id: TransactionalId) -> Option<u32> {
        self.transactions.get(&id).map(|transaction| transaction.epoch)
    }

    /// Whether nothing is on its way any more.
    pub(crate) fn is_quiet(&self) -> bool {
        self.pending.values().all(|count| *count == 0)
            && self.transactions.values().all(|each| !matches!(each.state, State::Ongoing | State::Ending))
    }

    pub(crate) fn stable(&self, partition: i32) -> Option<&Kept> {
        self.stable.get(&partition)
    }

    /// `read_committed`: nothing while an offset of one of them is pending. Otherwise what stands there.
    fn read(&self, partitions: &[i32], stable: bool) -> Option<Offsets> {
        let pending = partitions.iter().any(|partition| self.pending.get(partition).is_some_and(|count| *count > 0));
        let kept = |partition: &i32| Some((*partition, self.stable.get(partition)?.clone()));
        (!pending || !stable).then(|| partitions.iter().filter_map(kept).collect())
    }

    /// The open transaction of a producer, which the first record or offset begins.
    fn open(&mut self, id: TransactionalId, epoch: u32, now: Micros) -> Result<&mut Transaction, Refusal> {
        let transaction = self.transactions.get_mut(&id).filter(|each| each.epoch == epoch).ok_or(Refusal::Fenced)?;
        match transaction.state {
            State::Ending => return Err(Refusal::Concurrent),
            State::Ongoing => {}
            State::Empty | State::Ended { .. } => (transaction.state, transaction.began) = (State::Ongoing, now),
        }
        Ok(transaction)
    }
}

impl World {
    /// `InitProducerId`
    pub(crate) fn init(self: &Rc<Self>, id: TransactionalId) -> Result<u32, Refusal> {
        let mut broker = self.broker.borrow_mut();
        let new = Transaction { epoch: 0, state: State::Empty, produced: Vec::new(), offsets: Vec::new(), began: 0 };
        let transaction = broker.transactions.entry(id).or_insert(new);
        let state = transaction.state;
        if state == State::Ending {
            return Err(Refusal::Concurrent);
        }
        transaction.epoch += 1;
        if state == State::Ongoing {
            drop(broker);
            self.end(id, false);
            return Err(Refusal::Concurrent);
        }
        transaction.state = State::Empty;
        Ok(transaction.epoch)
    }

    /// `AddPartitionsToTxn` and `Produce`
    pub(crate) fn produce(&self, id: TransactionalId, epoch: u32, record: Produced) -> Result<(), Refusal> {
        if !self.exactly_once {
            self.checker.borrow_mut().delivered(&record);
            return Ok(());
        }
        self.broker.borrow_mut().open(id, epoch, self.time.now())?.produced.push(record);
        Ok(())
    }

    /// `AddOffsetsToTxn` and `TxnOffsetCommit`
    pub(crate) fn add_offsets(&self, id: TransactionalId, epoch: u32, offsets: &Offsets) -> Result<(), Refusal> {
        let mut broker = self.broker.borrow_mut();
        broker.open(id, epoch, self.time.now())?.offsets.extend_from_slice(offsets);
        for (partition, _) in offsets {
            *broker.pending.entry(*partition).or_default() += 1;
        }
        Ok(())
    }

    /// `EndTxn` version 1: it knows the epoch, not the transaction.
    pub(crate) fn end_transaction(
        self: &Rc<Self>,
        id: TransactionalId,
        epoch: u32,
        commit: bool,
    ) -> Result<(), Refusal> {
        let state = {
            let broker = self.broker.borrow();
            let known = broker.transactions.get(&id).filter(|each| each.epoch == epoch);
            known.ok_or(Refusal::Fenced)?.state
        };
        match state {
            State::Ongoing => {
                self.end(id, commit);
                Ok(())
            }
            State::Ending => Err(Refusal::Concurrent),
            State::Ended { commit: ended } if ended == commit => Ok(()),
            State::Ended { .. } | State::Empty => Err(Refusal::InvalidState),
        }
    }

    /// It is decided here; what it wrote becomes visible when the markers are written, its offsets a little later.
    fn end(self: &Rc<Self>, id: TransactionalId, commit: bool) {
        let mut broker = self.broker.borrow_mut();
        let slow = broker.slow_markers;
        let Some(transaction) = broker.transactions.get_mut(&id) else { return };
        transaction.state = State::Ending;
        let (produced, offsets) = (std::mem::take(&mut transaction.produced), std::mem::take(&mut transaction.offsets));
        drop(broker);
        self.note(|| format!("broker: {id:?} ends, commit {commit}, {} records, {offsets:?}", produced.len()));
        if commit {
            let checked = self.checker.borrow_mut().decided(&produced, &offsets);
            self.check(checked);
        }
        let markers = self.time.between(MS, 40 * MS) + slow;
        self.time.after(markers, None, move |world| {
            if let Some(transaction) = world.broker.borrow_mut().transactions.get_mut(&id) {
                transaction.state = State::Ended { commit };
            }
            // Markers reach the group's log one after another.
            let settled = (world.time.now() + world.time.between(0, 60 * MS)).max(world.broker.borrow().settled);
            world.broker.borrow_mut().settled = settled;
            world.time.after(settled - world.time.now(), None, move |world| world.settle_offsets(offsets, commit));
        });
    }

    fn settle_offsets(&self, offsets: Offsets, commit: bool) {
        let mut broker = self.broker.borrow_mut();
        for (partition, kept) in offsets {
            if let Some(count) = broker.pending.get_mut(&partition) {
                *count -= 1;
            }
            if commit {
                broker.stable.insert(partition, kept);
            }
        }
    }

    /// A plain commit, which no epoch keeps out.
    pub(crate) fn commit_plainly(&self, offsets: &Offsets) {
        self.note(|| format!("broker: plain commit of {offsets:?}"));
        let checked = self.checker.borrow_mut().decided(&[], offsets);
        self.check(checked);
        self.broker.borrow_mut().stable.extend(offsets.iter().cloned());
    }

    /// `OffsetFetch`; nothing while something is pending.
    pub(crate) fn read_offsets(&self, partitions: &[i32]) -> Option<Offsets> {
        self.broker.borrow().read(partitions, self.variant != Variant::UncommittedRead)
    }

    /// Aborts what is open for too long, from time to time.
    pub(crate) fn scan_transactions(self: &Rc<Self>) {
        let now = self.time.now();
        let too_old = |transaction: &Transaction| {
            transaction.state == State::Ongoing && now >= transaction.began + TRANSACTION_TIMEOUT
        };
        let mut broker = self.broker.borrow_mut();
        let old = broker.transactions.iter_mut().filter(|(_, transaction)| too_old(transaction));
        let ids: Vec<TransactionalId> = old
            .map(|(id, transaction)| {
                transaction.epoch += 1;
                *id
            })
            .collect();
        drop(broker);
        for id in ids {
            self.count("transaction timed out");
            self.end(id, false);
        }
        self.time.after(SCAN_INTERVAL, None, World::scan_transactions);
    }
}
