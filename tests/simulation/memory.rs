//! The memory of it: finished-ahead map, withheld results and byte budget, with the real cells, sink and writer. Whatever
//! finishes in whatever order, the map never overflows, results are withheld and never lost, and what is held stays inside
//! the budget.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::FutureExt as _;
use proptest::prelude::*;
use tokio::sync::mpsc;
use weir_common::{
    config::{DeliveryGuarantee, Order, size::ByteSize},
    counters::{OutcomeKind, SplitCounters},
    ids::{GrantId, SlotId},
    progress::{
        Progress,
        entry::{MAX_METADATA_CHARS, ProgressEntry},
    },
    split::{KeyHash, SplitId, SplitsPerPartition},
};
use weir_taskmanager::{
    budget::{Admission, Budget},
    engine::{
        AssignedSplit, Clock, Command, Doubt, Failure, Finished, Inbox, KeptEntry, Lease, Metrics, Output, Refusal,
        Setup, Sink, SplitCell, Undelivered, Writer,
    },
    record::{Destination, Outcome, OutputRecord, SourceRecord},
};

use crate::{random::Random, taskmanager::Job};

const KIB: u64 = 1024;

/// What a record takes of the budget: its value and the overhead of a record.
const RECORD_UNITS: u64 = 2;

/// Time that passes by hand.
#[derive(Clone)]
struct HandClock(Rc<Cell<Instant>>);

impl Clock for HandClock {
    fn now(&self) -> Instant {
        self.0.get()
    }

    fn sleep_until(&self, deadline: Instant) -> impl Future<Output = ()> {
        let now = Rc::clone(&self.0);
        poll_fn(move |_| if now.get() >= deadline { Poll::Ready(()) } else { Poll::Pending })
    }
}

/// What the broker has.
#[derive(Default)]
struct Kept {
    /// How often each offset is visible.
    visible: BTreeMap<i64, usize>,
    entries: BTreeMap<i32, ProgressEntry>,
    longest_metadata: usize,
    commits: u64,
}

/// A broker without surprises, but that every so many commits one fails, done or not.
struct Broker {
    kept: Rc<RefCell<Kept>>,
    open: Vec<i64>,
    offsets: Vec<KeptEntry>,
    failing_every: Option<u64>,
}

impl Output for Broker {
    async fn open(&mut self) -> Result<(), Failure> {
        self.open.clear();
        self.offsets.clear();
        Ok(())
    }

    async fn begin(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    async fn produce(&mut self, _: usize, record: &SourceRecord, _: &OutputRecord) -> Result<(), Refusal> {
        self.open.push(record.offset);
        Ok(())
    }

    async fn settle(&mut self) -> Vec<Undelivered> {
        Vec::new()
    }

    async fn send_progress(&mut self, entries: &[KeptEntry]) -> Result<(), Failure> {
        for kept in entries {
            let mut broker = self.kept.borrow_mut();
            broker.longest_metadata = broker.longest_metadata.max(kept.entry.metadata().len());
        }
        self.offsets.extend_from_slice(entries);
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), Failure> {
        let mut kept = self.kept.borrow_mut();
        kept.commits += 1;
        let fails = self.failing_every.is_some_and(|every| kept.commits.is_multiple_of(every));
        if !fails || kept.commits.is_multiple_of(2) {
            self.open.drain(..).for_each(|offset| *kept.visible.entry(offset).or_default() += 1);
            kept.entries.extend(self.offsets.drain(..).map(|kept| (kept.partition, kept.entry)));
        }
        if fails { Err(Failure::Doubt(Doubt::FailedCall("as told".to_owned()))) } else { Ok(()) }
    }

    async fn stable_progress(&mut self, splits: &[(SplitId, i32)]) -> Result<Vec<ProgressEntry>, Failure> {
        let kept = self.kept.borrow();
        Ok(splits.iter().filter_map(|(_, partition)| kept.entries.get(partition).cloned()).collect())
    }

    fn doubt(&self) -> Option<Doubt> {
        None
    }

    fn clear_doubt(&self) {}
}

/// A partition of so many records, some of which take their time.
struct Scene {
    records: i64,
    splits: u32,
    budget: u64,
    failing_every: Option<u64>,
    /// What is quick finishes out of order among so many.
    window: u64,
}

/// What was seen on the way.
#[derive(Debug, Default)]
struct Seen {
    /// Most results that were finished and not in the output after a cut.
    withheld: usize,
    /// Records in the output when nothing but the stuck one was left to be finished.
    before_the_stuck: usize,
    most_units: u64,
}

struct Bench {
    sink: Pin<Box<dyn Future<Output = ()>>>,
    clock: HandClock,
    kept: Rc<RefCell<Kept>>,
    inbox: Arc<Inbox>,
    cells: Vec<Arc<SplitCell>>,
    splits: SplitsPerPartition,
    budget: Budget,
    /// Admitted and not finished.
    pending: BTreeMap<i64, Admission>,
    next: i64,
    records: i64,
    finished: usize,
    window: u64,
    seen: Seen,
}

fn hash(offset: i64) -> KeyHash {
    KeyHash::of(&offset.to_le_bytes())
}

impl Bench {
    fn new(scene: &Scene) -> Self {
        let clock = HandClock(Rc::new(Cell::new(Instant::now())));
        let kept = Rc::new(RefCell::new(Kept::default()));
        let splits = SplitsPerPartition::new(scene.splits).expect("legal");
        let budget = Budget::new(ByteSize(scene.budget), usize::MAX);
        let ttl = Duration::from_secs(1_000_000_000);
        let lease = Arc::new(Lease::new(GrantId(1), ttl, clock.now()));
        // Confirmed for as long as this takes.
        lease.renew(clock.now() + ttl / 2, ttl);
        let broker = Broker {
            kept: Rc::clone(&kept),
            open: Vec::new(),
            offsets: Vec::new(),
            failing_every: scene.failing_every,
        };
        let setup = Setup {
            guarantee: DeliveryGuarantee::ExactlyOnce,
            slot: SlotId(0),
            splits_per_partition: splits,
            slow: Duration::MAX,
            cut_bytes: scene.budget / 3,
        };
        let writer = Writer::new(broker, clock.clone(), setup, Arc::clone(&lease), Arc::new(Job), Metrics::new());
        let inbox = Arc::new(Inbox::default());
        let (events, _) = mpsc::unbounded_channel();
        let sink = Sink::new(writer, Arc::clone(&inbox), lease, Duration::from_secs(1), events);
        let split = |index| SplitId { topic: "a.topic".into(), partition: 0, index };
        let cell = |index| Arc::new(SplitCell::new(split(index), &Progress::at(0), Order::Key));
        let cells: Vec<Arc<SplitCell>> = (0..scene.splits).map(cell).collect();
        let assigned = |cell: &Arc<SplitCell>| AssignedSplit {
            cell: Arc::clone(cell),
            progress_partition: 1 + cell.id.index as i32,
            progress: Progress::at(0),
            counters: SplitCounters::default(),
        };
        for cell in &cells {
            let entry = ProgressEntry {
                split: cell.id.clone(),
                splits_per_partition: splits,
                slot: None,
                progress: Progress::at(0),
                counters: SplitCounters::default(),
            };
            kept.borrow_mut().entries.insert(1 + cell.id.index as i32, entry);
        }
        inbox.push_command(Command::Assign(cells.iter().map(assigned).collect()));
        Self {
            sink: Box::pin(sink.run()),
            clock,
            kept,
            inbox,
            cells,
            splits,
            budget,
            pending: BTreeMap::new(),
            next: 0,
            records: scene.records,
            finished: 0,
            window: scene.window,
            seen: Seen::default(),
        }
    }

    /// Reads as much as there is room for.
    fn read(&mut self) -> usize {
        let before = self.next;
        while self.next < self.records {
            let Some(admission) = self.budget.admit(KIB).now_or_never() else { break };
            let cell = &self.cells[self.splits.index_of(hash(self.next)) as usize];
            assert!(cell.admit(hash(self.next), self.next));
            self.pending.insert(self.next, admission);
            self.next += 1;
        }
        self.cells.iter().for_each(|cell| cell.advance(self.next));
        self.seen.most_units = self.seen.most_units.max(self.budget.used_bytes() / KIB);
        (self.next - before) as usize
    }

    fn finish(&mut self, offset: i64) {
        let admission = self.pending.remove(&offset).expect("it is pending");
        let cell = Arc::clone(&self.cells[self.splits.index_of(hash(offset)) as usize]);
        let record =
            SourceRecord { topic: "a.topic".into(), partition: 0, offset, timestamp_ms: None, key: None, value: None };
        let output = OutputRecord { destination: Destination::Sink, key: None, value: Bytes::new(), timestamp_ms: 0 };
        let outcome = Outcome { kind: OutcomeKind::Enriched, output: Some(output), error_type: None };
        let held = admission.settle(KIB);
        self.finished += 1;
        let finished = Finished { cell: Arc::clone(&cell), record: Arc::new(record), outcome, held };
        cell.complete(hash(offset), finished, &self.inbox);
    }

    /// The sink takes what there is, then its time for a cut comes.
    fn cut(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        assert!(self.sink.as_mut().poll(&mut context).is_pending(), "the slot is lost");
        self.clock.0.set(self.clock.now() + Duration::from_secs(2));
        assert!(self.sink.as_mut().poll(&mut context).is_pending(), "the slot is lost");
        let visible = self.kept.borrow().visible.len();
        self.seen.withheld = self.seen.withheld.max(self.finished - visible);
        // Whatever is not in the output is held, and nothing else is.
        let held = self.next as u64 - visible as u64;
        assert_eq!(self.budget.used_bytes() / KIB, held * RECORD_UNITS, "after {visible} of {} records", self.next);
    }

    /// `is_quick`: finishes as soon as it is read; the others wait until nothing else can go on, and 0 for the very last.
    fn run(mut self, is_quick: impl Fn(i64) -> bool, random: &mut Random) -> Seen {
        loop {
            let mut moved = self.read();
            let quick = self.pending.keys().copied().filter(|offset| *offset > 0 && is_quick(*offset));
            let mut quick: VecDeque<i64> = quick.collect();
            while !quick.is_empty() {
                let chosen = random.between(0, self.window.min(quick.len() as u64)) as usize;
                let offset = quick.swap_remove_front(chosen).expect("it is there");
                self.finish(offset);
                moved += 1;
            }
            self.cut();
            if moved > 0 {
                continue;
            }
            // Nothing goes on any more without the slow ones: some of them finish, out of order.
            let slow: Vec<i64> = self.pending.keys().copied().filter(|offset| *offset > 0).collect();
            let some: Vec<i64> = slow.iter().skip(1).copied().filter(|_| random.chance(100)).collect();
            match slow.first() {
                Some(lowest) => some.into_iter().chain([*lowest]).for_each(|offset| self.finish(offset)),
                None if self.pending.contains_key(&0) => {
                    self.seen.before_the_stuck = self.kept.borrow().visible.len();
                    self.finish(0);
                }
                None => break,
            }
            self.cut();
        }
        let kept = self.kept.borrow();
        assert_eq!(kept.visible.len() as i64, self.records, "every record is in the output");
        assert!(kept.visible.values().all(|times| *times == 1), "once");
        let of_split = |entry: &ProgressEntry| (entry.progress.clone(), entry.counters.enriched);
        let (cursors, counts): (Vec<Progress>, Vec<u64>) = kept.entries.values().map(of_split).unzip();
        assert!(cursors.iter().all(|progress| progress.finished_ahead.is_empty()), "{cursors:?}");
        assert_eq!(counts.iter().sum::<u64>() as i64, self.records);
        assert_eq!(self.budget.used_bytes(), 0, "nothing is held any more");
        assert!(kept.longest_metadata <= MAX_METADATA_CHARS, "{} characters", kept.longest_metadata);
        self.seen
    }
}

#[test]
fn one_stuck_record_among_50_000_holds_up_nobody() {
    for splits in [1, 12] {
        let scene = Scene { records: 50_000, splits, budget: 512 * KIB, failing_every: Some(7), window: 64 };
        let seen = Bench::new(&scene).run(|_| true, &mut Random::new(1));
        assert_eq!((seen.withheld, seen.before_the_stuck), (0, 49_999), "{splits} splits");
        assert!(seen.most_units <= 512);
    }
}

#[test]
fn whatever_is_left_open_the_map_never_overflows_and_nothing_is_lost() {
    type Quick = fn(i64) -> bool;
    // Name, which records finish at once, whether their map can never fit.
    let patterns: [(&str, Quick, bool); 6] = [
        ("alternating", |offset| offset % 2 == 1, true),
        ("every third", |offset| offset % 3 == 1, true),
        ("two of three", |offset| offset % 3 > 0, true),
        ("random, sparse", |offset| hash(offset).0.is_multiple_of(5), true),
        ("random, dense", |offset| !hash(offset).0.is_multiple_of(5), true),
        ("bursts", |offset| offset / 700 % 2 == 1, false),
    ];
    for (name, is_quick, overflows) in patterns {
        // 10,000 records fit into the budget, then all of them.
        for (records, budget) in [(50_000, 20_000 * KIB), (12_000, 64_000 * KIB)] {
            let scene = Scene { records, splits: 1, budget, failing_every: Some(5), window: 64 };
            let seen = Bench::new(&scene).run(is_quick, &mut Random::new(records as u64));
            assert!(seen.withheld > 0 || !overflows, "{name}, {records} records: {seen:?}");
            assert!(seen.most_units <= budget / KIB, "{name}: {seen:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_pattern_any_budget_any_failures(
        (records, splits) in (1..6_000i64, 1..5u32),
        budget in 3..16_000u64,
        (share, run_length, window, seed) in (0..100u32, 1..40i64, 1..5_000u64, any::<u64>()),
        failing_every in prop::option::of(2..9u64),
    ) {
        let scene = Scene { records, splits, budget: budget * KIB, failing_every, window };
        let is_quick = |offset: i64| hash(offset / run_length).0 % 100 < share;
        let seen = Bench::new(&scene).run(is_quick, &mut Random::new(seed));
        prop_assert!(seen.most_units <= budget, "{seen:?}");
    }
}
