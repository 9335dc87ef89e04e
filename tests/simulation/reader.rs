//! Reading and enrichment of one slot: the rules of the source's reader and of the pipeline, on a source in memory. Cells,
//! order, budget and inbox are the real ones.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    rc::{Rc, Weak},
    sync::Arc,
};

use bytes::Bytes;
use futures::FutureExt as _;
use weir_common::{
    counters::OutcomeKind,
    split::{KeyHash, SplitId},
};
use weir_taskmanager::{
    budget::{Admission, Budget},
    engine::{Finished, Inbox, SplitCell},
    record::{Destination, Outcome, OutputRecord, SourceRecord},
};

use crate::{
    output::{ENRICHED, ERROR, PASSED_THROUGH},
    time::{MS, Micros, Pid, SECOND, Sleep},
    world::World,
};

/// So many records are read in one step.
const STEP_RECORDS: usize = 6;

pub(crate) struct Readers {
    world: Rc<World>,
    pid: Pid,
    inbox: Arc<Inbox>,
    budget: Budget,
    partitions: BTreeMap<i32, Partition>,
    stopped: bool,
    running: bool,
    this: Weak<RefCell<Self>>,
}

#[derive(Default)]
struct Partition {
    /// The next offset to come.
    position: i64,
    cells: BTreeMap<u32, Arc<SplitCell>>,
}

impl Readers {
    pub(crate) fn new(world: &Rc<World>, pid: Pid, inbox: Arc<Inbox>, budget: Budget) -> Rc<RefCell<Self>> {
        Rc::new_cyclic(|this| {
            RefCell::new(Self {
                world: Rc::clone(world),
                pid,
                inbox,
                budget,
                partitions: BTreeMap::new(),
                stopped: false,
                running: false,
                this: this.clone(),
            })
        })
    }

    /// Goes back where one of them stands below the reader: what others have read already is read again and dropped.
    pub(crate) fn add(&mut self, cells: Vec<Arc<SplitCell>>) {
        for cell in cells {
            let known = self.partitions.contains_key(&cell.id.partition);
            let partition = self.partitions.entry(cell.id.partition).or_default();
            let position = partition.position;
            partition.cells.values().for_each(|other| other.advance(position));
            partition.position = if known { position.min(cell.cursor()) } else { cell.cursor() };
            partition.cells.insert(cell.id.index, cell);
        }
        self.wake();
    }

    pub(crate) fn remove(&mut self, splits: &[SplitId]) {
        for split in splits {
            let Some(partition) = self.partitions.get_mut(&split.partition) else { continue };
            partition.cells.remove(&split.index);
            if partition.cells.is_empty() {
                self.partitions.remove(&split.partition);
            }
        }
    }

    /// Splits that were read up to a limit are read on.
    pub(crate) fn lift_limits(&mut self) {
        for partition in self.partitions.values_mut() {
            for cell in partition.cells.values() {
                cell.ask_to_lift_limit();
                partition.position = partition.position.min(cell.lift_limit().unwrap_or(i64::MAX));
            }
        }
    }

    pub(crate) fn stop(&mut self) {
        self.stopped = true;
        self.partitions.clear();
    }

    fn wake(&mut self) {
        if !std::mem::replace(&mut self.running, true) {
            self.schedule();
        }
    }

    fn schedule(&self) {
        let (this, wait) = (self.this.clone(), self.world.time.between(20 * MS, 400 * MS));
        self.world.time.after(wait, Some(self.pid), move |_| {
            if let Some(readers) = this.upgrade() {
                readers.borrow_mut().step();
            }
        });
    }

    fn step(&mut self) {
        if self.stopped || self.partitions.is_empty() {
            self.running = false;
            return;
        }
        for (number, partition) in &mut self.partitions {
            read(&self.world, self.pid, &self.inbox, &self.budget, *number, partition);
        }
        self.schedule();
    }
}

fn read(world: &Rc<World>, pid: Pid, inbox: &Arc<Inbox>, budget: &Budget, number: i32, partition: &mut Partition) {
    let now = world.time.now();
    let records = &world.input.partitions[number as usize];
    for _ in 0..STEP_RECORDS {
        let position = usize::try_from(partition.position).unwrap_or(usize::MAX);
        let Some(record) = records.get(position).filter(|record| record.at <= now) else { break };
        let key = record.key.to_le_bytes();
        let hash = KeyHash::of(&key);
        let owned = partition.cells.get(&world.input.splits_per_partition.index_of(hash));
        if let Some(cell) = owned.filter(|cell| cell.reaches(partition.position)) {
            // A record larger than any other, now and then.
            let bytes = if position % 17 == 3 { 5_000 } else { 400 };
            let Some(admission) = budget.admit(bytes).now_or_never() else { break };
            if cell.admit(hash, partition.position) {
                let source = SourceRecord {
                    topic: world.input.topic.clone(),
                    partition: number,
                    offset: partition.position,
                    timestamp_ms: None,
                    key: Some(Bytes::copy_from_slice(&key)),
                    value: None,
                };
                enrich(world, pid, inbox, Arc::clone(cell), source, admission, record.dropped);
            }
        }
        partition.position += 1;
    }
    partition.cells.values().for_each(|cell| cell.advance(partition.position));
}

fn enrich(
    world: &Rc<World>,
    pid: Pid,
    inbox: &Arc<Inbox>,
    cell: Arc<SplitCell>,
    record: SourceRecord,
    admission: Admission,
    dropped: bool,
) {
    let time = &world.time;
    let takes: Micros = match time.between(0, 1000) {
        0..15 if !world.healed() => time.between(SECOND, 20 * SECOND),
        0..200 => time.between(100 * MS, 2 * SECOND),
        _ => time.between(MS, 200 * MS),
    };
    let done = Sleep::until(world, time.now() + takes);
    let (world, inbox) = (Rc::clone(world), Arc::clone(inbox));
    time.spawn(pid, async move {
        tokio::select! {
            biased;
            () = cell.closed() => return,
            () = done => {}
        }
        let outcome = outcome(&world, &record, dropped);
        let held = admission.settle(record_bytes(&outcome));
        let key = KeyHash::of(record.key.as_deref().unwrap_or_default());
        let finished = Finished { cell: Arc::clone(&cell), record: Arc::new(record), outcome, held };
        cell.complete(key, finished, &inbox);
    });
}

/// What the API says may be another thing each time it is asked.
fn outcome(world: &World, record: &SourceRecord, dropped: bool) -> Outcome {
    if dropped {
        return Outcome { kind: OutcomeKind::Dropped, output: None, error_type: None };
    }
    let (kind, destination, value) = match world.time.between(0, 100) {
        0..8 => (OutcomeKind::Error, Destination::ErrorSink, ERROR),
        8..16 => (OutcomeKind::PassedThrough, Destination::Sink, PASSED_THROUGH),
        _ => (OutcomeKind::Enriched, Destination::Sink, ENRICHED),
    };
    let value = Bytes::from_static(value);
    let output = Some(OutputRecord { destination, key: record.key.clone(), value, timestamp_ms: 0 });
    Outcome { kind, output, error_type: None }
}

fn record_bytes(outcome: &Outcome) -> u64 {
    outcome.output.as_ref().map_or(0, |output| output.value.len() as u64)
}
