//! The writer against a model of the broker that fails as it is told.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt as _;
use proptest::prelude::*;
use weir_common::{
    config::{DeliveryGuarantee, Order, size::ByteSize},
    counters::{OutcomeKind, SplitCounters},
    ids::{GrantId, SlotId},
    progress::{Progress, entry::ProgressEntry},
    split::{KeyHash, SplitId, SplitsPerPartition},
};

use super::{Lost, Setup, Writer};
use crate::{
    budget::Budget,
    clock::{Clock as _, SystemClock, block_on},
    enrich::Enricher,
    metrics::Metrics,
    pipeline::{Finished, cell::SplitCell},
    record::{Destination, Outcome, OutputRecord, SourceRecord},
    sink::{
        Sink,
        doubt::Doubt,
        inbox::{AssignedSplit, Command, Inbox},
        lease::Lease,
        output::{Cause, Failure, KeptEntry, Output, Refusal, Undelivered},
        report::{SinkEventKind, SplitReport},
    },
};

const SLOT: SlotId = SlotId(4);
const PROGRESS_PARTITION: i32 = 9;
/// Source offset of the record that the broker does not take.
const POISON: i64 = 13;

/// What the next commit does instead of committing and saying so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// It is committed, but the answer is lost.
    AnswerLost,
    /// It fails, nothing is committed.
    Fails,
    /// It says Ok, nothing is committed, and the client's log knew.
    OkButLost,
    /// It is committed and the client's log spoke of something.
    FalseAlarm,
    /// A record is not delivered.
    NotDelivered,
    /// The progress is refused.
    ProgressFails,
    /// Somebody else has initialised the id.
    Fenced,
}

/// Of the record that the broker does not take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Refuses {
    /// Its output.
    #[default]
    Outputs,
    /// Its error event too, unless that is cut.
    LongErrorEvents,
    /// Whatever stands for it.
    All,
}

#[derive(Default)]
struct Broker {
    refuses: Refuses,
    /// Source offset and destination of visible records, in order.
    visible: Vec<(i64, Destination)>,
    entries: BTreeMap<i32, ProgressEntry>,
    opens: usize,
    begins: usize,
    faults: VecDeque<Fault>,
}

#[derive(Clone)]
struct Fake {
    broker: Arc<Mutex<Broker>>,
    exactly_once: bool,
    transaction: Vec<(usize, i64, Destination)>,
    progress: Vec<KeptEntry>,
    failed: Vec<Undelivered>,
    fault: Fault,
    doubt: Option<Doubt>,
}

impl Fake {
    fn broker(&self) -> MutexGuard<'_, Broker> {
        self.broker.lock().expect("no panic")
    }

    fn publish(&mut self) {
        let visible: Vec<_> = self.transaction.drain(..).map(|(_, offset, to)| (offset, to)).collect();
        let progress = std::mem::take(&mut self.progress);
        let mut broker = self.broker();
        broker.visible.extend(visible);
        broker.entries.extend(progress.into_iter().map(|kept| (kept.partition, kept.entry)));
    }
}

fn failed_call() -> Failure {
    Failure::Doubt(Doubt::FailedCall("as told".to_owned()))
}

impl Output for Fake {
    async fn open(&mut self) -> Result<(), Failure> {
        (self.transaction, self.progress, self.failed, self.doubt) = Default::default();
        self.broker().opens += 1;
        Ok(())
    }

    async fn begin(&mut self) -> Result<(), Failure> {
        self.broker().begins += 1;
        let fault = self.broker().faults.pop_front();
        self.fault = fault.unwrap_or(Fault::None);
        Ok(())
    }

    async fn produce(&mut self, number: usize, record: &SourceRecord, output: &OutputRecord) -> Result<(), Refusal> {
        if record.offset == POISON && output.value.as_ref() == b"too large for the client" {
            return Err(Refusal::Record("too large".to_owned()));
        }
        let is_refused = match output.value.as_ref() {
            b"too large for the broker" => true,
            b"cut" => self.broker().refuses == Refuses::All,
            _ => output.destination == Destination::ErrorSink && self.broker().refuses != Refuses::Outputs,
        };
        if record.offset == POISON && is_refused {
            // Its whole batch fails with it.
            let batch = std::mem::take(&mut self.transaction);
            let numbers = batch.into_iter().map(|(number, ..)| number).chain([number]);
            let refuse = |number| Undelivered { number, cause: Cause::Content, reason: "too large".to_owned() };
            self.failed.extend(numbers.map(refuse));
            return Ok(());
        }
        self.transaction.push((number, record.offset, output.destination));
        Ok(())
    }

    async fn settle(&mut self) -> Vec<Undelivered> {
        if self.fault == Fault::NotDelivered && !self.transaction.is_empty() {
            self.fault = Fault::None;
            let (number, ..) = self.transaction.remove(0);
            self.failed.push(Undelivered { number, cause: Cause::Transport, reason: "as told".to_owned() });
        }
        if !self.exactly_once {
            self.publish();
        }
        std::mem::take(&mut self.failed)
    }

    async fn send_progress(&mut self, entries: &[KeptEntry]) -> Result<(), Failure> {
        if self.fault == Fault::ProgressFails {
            return Err(failed_call());
        }
        self.progress.extend_from_slice(entries);
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), Failure> {
        match self.fault {
            Fault::None | Fault::NotDelivered | Fault::ProgressFails => self.publish(),
            Fault::AnswerLost => {
                self.publish();
                return Err(failed_call());
            }
            Fault::Fails => return Err(failed_call()),
            Fault::OkButLost => self.doubt = Some(Doubt::LogLine("FAIL".to_owned())),
            Fault::FalseAlarm => {
                self.publish();
                self.doubt = Some(Doubt::LogLine("FAIL".to_owned()));
            }
            Fault::Fenced => return Err(Failure::Fenced("as told".to_owned())),
        }
        Ok(())
    }

    async fn stable_progress(&mut self, splits: &[(SplitId, i32)]) -> Result<Vec<ProgressEntry>, Failure> {
        let broker = self.broker();
        Ok(splits.iter().filter_map(|(_, partition)| broker.entries.get(partition).cloned()).collect())
    }

    fn limit(&self, destination: Destination) -> Option<u64> {
        (destination == Destination::ErrorSink && self.broker().refuses != Refuses::Outputs).then_some(100)
    }

    fn doubt(&self) -> Option<Doubt> {
        self.doubt.clone()
    }

    fn clear_doubt(&self) {}
}

struct Job;

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

    fn error_event(
        &self,
        _: &SourceRecord,
        _: &'static str,
        message: &str,
        bytes_max: Option<u64>,
    ) -> Option<OutputRecord> {
        Some(output(Destination::ErrorSink, if bytes_max.is_some() { "cut" } else { message }))
    }
}

fn output(destination: Destination, value: &str) -> OutputRecord {
    OutputRecord { destination, key: None, value: Bytes::copy_from_slice(value.as_bytes()), timestamp_ms: 0 }
}

struct Bench {
    writer: Writer<Fake, SystemClock>,
    broker: Arc<Mutex<Broker>>,
    cell: Arc<SplitCell>,
    budget: Budget,
}

impl Bench {
    fn new(guarantee: DeliveryGuarantee, faults: &[Fault]) -> Self {
        let exactly_once = guarantee == DeliveryGuarantee::ExactlyOnce;
        let broker = Arc::new(Mutex::new(Broker { faults: faults.iter().copied().collect(), ..Broker::default() }));
        let lease = Lease::new(GrantId(1), Duration::from_secs(3600), Instant::now());
        lease.renew(Instant::now() + Duration::from_secs(3600), Duration::from_secs(3600));
        let fake = Fake {
            broker: Arc::clone(&broker),
            exactly_once,
            transaction: Vec::new(),
            progress: Vec::new(),
            failed: Vec::new(),
            fault: Fault::None,
            doubt: None,
        };
        let setup = Setup {
            guarantee,
            slot: SLOT,
            splits_per_partition: SplitsPerPartition::DEFAULT,
            slow: Duration::from_secs(60),
            cut_bytes: u64::MAX,
        };
        let mut writer = Writer::new(fake, SystemClock, setup, Arc::new(lease), Arc::new(Job), Metrics::new());
        let id = SplitId { topic: "t".into(), partition: 0, index: 2 };
        let cell = Arc::new(SplitCell::new(id.clone(), &Progress::at(0), Order::None));
        broker.lock().expect("no panic").entries.insert(PROGRESS_PARTITION, entry(&id, Progress::at(0)));
        block_on(writer.start()).expect("the model opens");
        writer.assign(vec![AssignedSplit {
            cell: Arc::clone(&cell),
            progress_partition: PROGRESS_PARTITION,
            progress: Progress::at(0),
            counters: SplitCounters::default(),
        }]);
        Self { writer, broker, cell, budget: Budget::new(ByteSize::mib(64), 10_000) }
    }

    fn admit(&self, offsets: impl IntoIterator<Item = i64>) {
        for offset in offsets {
            assert!(self.cell.admit(KeyHash(0), offset));
        }
    }

    fn finish(&mut self, offset: i64, value: &str) -> Result<(), Lost> {
        let finished = self.finished(offset, value);
        block_on(self.writer.hand_over(finished))
    }

    fn finished(&self, offset: i64, value: &str) -> Finished {
        let held = self.budget.admit(0).now_or_never().expect("there is room").settle(0);
        let record =
            SourceRecord { topic: "t".into(), partition: 0, offset, timestamp_ms: None, key: None, value: None };
        let output = Some(output(Destination::Sink, value));
        let outcome = Outcome { kind: OutcomeKind::Enriched, output, error_type: None };
        Finished { cell: Arc::clone(&self.cell), record: Arc::new(record), outcome, held }
    }

    fn cut(&mut self) -> Result<Vec<SplitReport>, Lost> {
        block_on(self.writer.cut())
    }

    /// Takes in and finishes.
    fn pass(&mut self, offsets: impl IntoIterator<Item = i64>) {
        for offset in offsets {
            self.admit([offset]);
            self.finish(offset, "fine").expect("nothing fences us");
        }
    }

    fn visible(&self) -> Vec<i64> {
        self.broker.lock().expect("no panic").visible.iter().map(|(offset, _)| *offset).collect()
    }

    fn errors(&self) -> Vec<i64> {
        let broker = self.broker.lock().expect("no panic");
        broker.visible.iter().filter(|(_, to)| *to == Destination::ErrorSink).map(|(offset, _)| *offset).collect()
    }

    fn stable(&self) -> ProgressEntry {
        self.broker.lock().expect("no panic").entries[&PROGRESS_PARTITION].clone()
    }
}

fn entry(id: &SplitId, progress: Progress) -> ProgressEntry {
    ProgressEntry {
        split: id.clone(),
        splits_per_partition: SplitsPerPartition::DEFAULT,
        slot: None,
        progress,
        counters: SplitCounters::default(),
    }
}

use DeliveryGuarantee::{AtLeastOnce, ExactlyOnce};

#[test]
fn output_and_progress_become_one_fact_at_the_cut() {
    let mut bench = Bench::new(ExactlyOnce, &[]);
    bench.admit(0..4);
    for offset in [0, 2, 3] {
        bench.finish(offset, "fine").expect("not fenced");
    }
    assert!(bench.visible().is_empty(), "nothing before the cut");
    let reports = bench.cut().expect("committed");
    assert_eq!(bench.visible(), [0, 2, 3]);
    let stable = bench.stable();
    assert_eq!((stable.slot, stable.counters.enriched), (Some(SLOT), 3));
    assert_eq!(stable.progress, Progress { cursor: 1, finished_ahead: vec![(2, 4).into()] });
    assert_eq!((&reports[0].progress, reports[0].counters), (&stable.progress, stable.counters));
    assert_eq!(bench.budget.used_bytes(), 0, "committed results give their bytes back");
}

#[test]
fn an_idle_slot_opens_no_transaction() {
    let mut bench = Bench::new(ExactlyOnce, &[]);
    assert_eq!(bench.cut(), Ok(Vec::new()));
    assert_eq!(bench.broker.lock().expect("no panic").begins, 0);
    bench.cell.advance(100);
    assert_eq!(bench.cut().expect("committed")[0].progress, Progress::at(100), "foreign records move the cursor");
    assert_eq!(bench.cut(), Ok(Vec::new()));
    assert_eq!(bench.broker.lock().expect("no panic").begins, 1);
}

#[test]
fn after_any_doubt_every_result_is_there_once() {
    for fault in [
        Fault::AnswerLost,
        Fault::Fails,
        Fault::OkButLost,
        Fault::FalseAlarm,
        Fault::NotDelivered,
        Fault::ProgressFails,
    ] {
        let mut bench = Bench::new(ExactlyOnce, &[fault]);
        bench.pass(0..5);
        let reports = bench.cut().expect("recovers");
        assert_eq!(bench.visible(), [0, 1, 2, 3, 4], "{fault:?}");
        assert_eq!(bench.stable().progress, Progress::at(5), "{fault:?}");
        assert_eq!(reports[0].progress, Progress::at(5), "{fault:?}");
        assert_eq!(bench.broker.lock().expect("no panic").opens, 2, "{fault:?}: recycled once");
        bench.pass(5..7);
        bench.cut().expect("committed");
        assert_eq!(bench.visible(), [0, 1, 2, 3, 4, 5, 6], "{fault:?}");
    }
}

#[test]
fn a_fenced_producer_is_not_replaced_by_ourselves() {
    let mut bench = Bench::new(ExactlyOnce, &[Fault::Fenced]);
    bench.pass(0..2);
    assert_eq!(bench.cut(), Err(Lost("as told".to_owned())));
    assert_eq!(bench.broker.lock().expect("no panic").opens, 1);
}

#[test]
fn progress_of_another_owner_ends_the_slot() {
    let mut bench = Bench::new(ExactlyOnce, &[Fault::Fails]);
    bench.pass(0..2);
    let theirs = entry(&bench.cell.id, Progress::at(1));
    bench.broker.lock().expect("no panic").entries.insert(PROGRESS_PARTITION, theirs);
    let Err(Lost(reason)) = bench.cut() else { panic!("went on") };
    assert!(reason.contains("another owner"), "{reason}");
    assert!(bench.visible().is_empty());
}

#[test]
fn a_record_too_large_for_the_client_goes_as_its_error_event() {
    let mut bench = Bench::new(ExactlyOnce, &[]);
    bench.pass(12..13);
    bench.admit([POISON]);
    bench.finish(POISON, "too large for the client").expect("not fenced");
    bench.cut().expect("committed");
    assert_eq!((bench.visible(), bench.errors()), (vec![12, POISON], vec![POISON]));
    let counters = bench.stable().counters;
    assert!(counters.conserved() && counters.errors == 1 && counters.enriched == 1, "{counters:?}");
}

#[test]
fn a_record_that_the_broker_refuses_takes_no_innocent_ones_with_it() {
    for guarantee in [ExactlyOnce, AtLeastOnce] {
        let mut bench = Bench::new(guarantee, &[]);
        bench.pass(10..13);
        bench.admit([POISON]);
        bench.finish(POISON, "too large for the broker").expect("not fenced");
        bench.pass(14..15);
        bench.cut().expect("ends");
        let mut visible = bench.visible();
        visible.sort_unstable();
        visible.dedup();
        assert_eq!((visible, bench.errors()), (vec![10, 11, 12, POISON, 14], vec![POISON]), "{guarantee:?}");
    }
}

#[test]
fn an_error_event_that_is_refused_too_is_cut_and_at_last_given_up() {
    for (guarantee, refuses, errors) in [
        (ExactlyOnce, Refuses::LongErrorEvents, vec![POISON]),
        (ExactlyOnce, Refuses::All, vec![]),
        (AtLeastOnce, Refuses::LongErrorEvents, vec![POISON]),
        (AtLeastOnce, Refuses::All, vec![]),
    ] {
        let mut bench = Bench::new(guarantee, &[]);
        bench.broker.lock().expect("no panic").refuses = refuses;
        bench.pass(10..12);
        bench.admit([POISON]);
        bench.finish(POISON, "too large for the broker").expect("not fenced");
        bench.pass(14..15);
        bench.cut().expect("ends");
        let mut visible = bench.visible();
        visible.retain(|offset| *offset != POISON);
        visible.sort_unstable();
        visible.dedup();
        assert_eq!((visible, bench.errors()), (vec![10, 11, 14], errors), "{guarantee:?}, {refuses:?}");
        assert!(bench.broker.lock().expect("no panic").opens <= 5, "{guarantee:?}, {refuses:?}: no loop");
        assert_eq!(bench.cell.progress(), Progress::at(15), "{guarantee:?}, {refuses:?}: nobody waits for it");
    }
}

#[test]
fn at_least_once_produces_again_what_was_not_acknowledged() {
    let mut bench = Bench::new(AtLeastOnce, &[Fault::NotDelivered]);
    bench.pass(0..3);
    let reports = bench.cut().expect("recovers");
    assert_eq!(bench.visible(), [1, 2, 0, 1, 2], "later ones of its key go again, the newest stays the last");
    assert_eq!(reports[0].progress, Progress::at(3));
}

#[test]
fn results_that_do_not_fit_the_map_wait_for_the_lowest() {
    let mut bench = Bench::new(ExactlyOnce, &[]);
    let count = 8000;
    bench.admit(0..count);
    for offset in (1..count).step_by(2) {
        bench.finish(offset, "fine").expect("not fenced");
    }
    bench.cut().expect("committed");
    let first = bench.visible().len();
    assert!(first < count as usize / 2, "something is withheld");
    assert!(bench.stable().metadata().len() <= 4096);
    for offset in (0..count).step_by(2) {
        bench.finish(offset, "fine").expect("not fenced");
    }
    bench.cut().expect("committed");
    assert_eq!(bench.visible().len(), count as usize);
    assert_eq!(bench.stable().progress, Progress::at(count));
}

#[test]
fn a_removed_split_takes_no_results_any_more() {
    let mut bench = Bench::new(ExactlyOnce, &[]);
    bench.pass(0..2);
    bench.admit([2]);
    bench.cut().expect("committed");
    let id = bench.cell.id.clone();
    assert_eq!(bench.writer.remove(&[id])[0].progress, Progress::at(2));
    bench.finish(2, "late").expect("ignored");
    bench.cut().expect("nothing to do");
    assert_eq!(bench.visible(), [0, 1]);
}

/// Results of a split may be there before the sink has come to its `Assign`: a `Revoke` before that must leave them alone.
#[test]
fn a_revocation_leaves_the_results_of_splits_that_are_still_to_come() {
    let mut bench = Bench::new(ExactlyOnce, &[]);
    let id = SplitId { topic: "t".into(), partition: 0, index: 3 };
    let cell = Arc::new(SplitCell::new(id.clone(), &Progress::at(0), Order::None));
    let progress_partition = PROGRESS_PARTITION + 1;
    bench.broker.lock().expect("no panic").entries.insert(progress_partition, entry(&id, Progress::at(0)));
    let (former, next) = (Arc::clone(&bench.cell), Arc::clone(&cell));
    let mut finished = |cell: &Arc<SplitCell>, offset| {
        assert!(cell.admit(KeyHash(0), offset));
        bench.cell = Arc::clone(cell);
        bench.finished(offset, "fine")
    };
    let results = vec![finished(&former, 0), finished(&next, 0)];
    let Bench { writer, broker, .. } = bench;
    let inbox = Arc::new(Inbox::default());
    let (events, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let lease = Arc::clone(&writer.lease);
    inbox.push_command(Command::Revoke(vec![former.id.clone()]));
    let (progress, counters) = (Progress::at(0), SplitCounters::default());
    inbox.push_command(Command::Assign(vec![AssignedSplit { cell, progress_partition, progress, counters }]));
    inbox.push_results(results);
    let sink = Sink::new(writer, Arc::clone(&inbox), lease, Duration::from_millis(1), events);
    let reported = async {
        while !matches!(heard.recv().await.map(|event| event.kind), Some(SinkEventKind::Reported { .. }) | None) {}
    };
    let stop = async {
        // A result that was dropped is never reported: the test is to fail then, not to wait.
        tokio::select! {
            () = reported => {}
            () = SystemClock.sleep(Duration::from_secs(10)) => {}
        }
        inbox.push_command(Command::Stop);
    };
    block_on(async { tokio::join!(sink.run(), stop) });
    let broker = broker.lock().expect("no panic");
    assert_eq!(broker.visible.len(), 2, "the result of the next split was kept for it");
    assert_eq!(broker.entries[&progress_partition].progress, Progress::at(1));
}

fn faults() -> impl Strategy<Value = Fault> {
    prop_oneof![
        3 => Just(Fault::None),
        1 => Just(Fault::AnswerLost),
        1 => Just(Fault::Fails),
        1 => Just(Fault::OkButLost),
        1 => Just(Fault::FalseAlarm),
        1 => Just(Fault::NotDelivered),
        1 => Just(Fault::ProgressFails),
    ]
}

proptest! {
    // Each at-least-once recovery sleeps; exactly-once does not.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_fails_each_result_is_there_once_in_order(
        faults in prop::collection::vec(faults(), 0..12),
        cuts in prop::collection::vec(1..6i64, 1..10),
    ) {
        let mut bench = Bench::new(ExactlyOnce, &faults);
        let mut next = 0;
        for count in cuts {
            bench.pass((next..next + count).map(|offset| offset + 100));
            next += count;
            let reports = bench.cut().expect("recovers");
            prop_assert_eq!(&reports[0].progress, &bench.stable().progress);
        }
        let expected: Vec<i64> = (100..100 + next).collect();
        prop_assert_eq!(bench.visible(), expected);
        prop_assert_eq!(bench.stable().progress, Progress::at(100 + next));
        prop_assert_eq!(bench.stable().counters.enriched, next as u64);
    }
}
