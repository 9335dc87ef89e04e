//! The writers, their records, and the harm that is done to them.

use std::{
    collections::BTreeMap,
    future::{self, Future},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt as _;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, CommitMode, Consumer as _},
    producer::{BaseProducer, Producer as _},
};
use tokio::runtime::Handle;
use weir_common::{
    config::{Config, DeliveryGuarantee, Order, size::ByteSize},
    counters::{OutcomeKind, SplitCounters},
    ids::{GrantId, SlotId},
    progress::{Progress, entry::ProgressEntry},
    split::{KeyHash, SplitId, SplitsPerPartition},
};
use weir_proto::v1;
use weir_taskmanager::{
    budget::Budget,
    engine::{AssignedSplit, Clock, Finished, Lease, Lost, Metrics, Output, Setup, SplitCell, Writer},
    enrich::Enricher,
    job::JobSpec,
    record::{Destination, Outcome, OutputRecord, SourceRecord},
};
use weir_tests::{
    harness::parts::ProxiedKafka,
    proxy::{Plan, frame},
};

use super::verdict::{Transaction, Verdict};

/// At the same time: most of the time a writer waits for a connection to come back.
const WRITERS: u32 = 16;
/// Records of one transaction. They come in two bursts, so that what is late can arrive in between.
const RECORDS: i64 = 6;
const KEYS: i64 = 3;
const PAUSE: Duration = Duration::from_millis(20);
/// From the last record to the cut: what is late meets a transaction that has records and no progress yet.
const QUIET: Duration = Duration::from_millis(250);
/// What the clients wait for an answer. Some requests and answers are held back longer.
const SOCKET_TIMEOUT_MS: u32 = 1000;
/// What a record may take: some are given up, and their transactions are aborted.
const MESSAGE_TIMEOUT_MS: u32 = 1200;
const LATE_MS: std::ops::Range<u64> = 20..1600;
const PATIENCE: Duration = Duration::from_secs(60);
/// A transaction takes less, however it is disturbed.
const STUCK: Duration = Duration::from_secs(300);
/// Topic that the records would have been read from.
pub(crate) const SOURCE: &str = "source";

/// One trial.
pub(crate) struct Trial {
    /// Of the job.
    pub(crate) name: &'static str,
    /// Of the faults.
    pub(crate) seed: u64,
    /// Ends when so many transactions were disturbed.
    pub(crate) disturbed: u64,
    /// `transaction.slow`
    pub(crate) slow: Duration,
}

/// Shares of the requests that are disturbed. The end of a transaction above all.
fn plan(seed: u64) -> Plan {
    let shares = vec![
        (frame::PRODUCE, 0.05),
        (frame::INIT_PRODUCER_ID, 0.06),
        (frame::ADD_PARTITIONS_TO_TXN, 0.1),
        (frame::ADD_OFFSETS_TO_TXN, 0.2),
        (frame::TXN_OFFSET_COMMIT, 0.3),
        (frame::END_TXN, 0.4),
    ];
    Plan { seed, shares, delay_ms: LATE_MS }
}

impl Trial {
    /// Runs it; `output` makes the producer of a slot.
    pub(crate) async fn run<O: Output>(
        &self,
        kafka: &ProxiedKafka,
        output: impl Fn(&Config, Arc<JobSpec>, SlotId) -> O + Sync,
    ) -> Verdict {
        let job = Arc::new(self.job());
        self.prepare(kafka, &job).await;
        let proxied = kafka.proxy.address().to_string();
        let started = Instant::now();
        let (stop, metrics, transactions) = (AtomicBool::new(false), Metrics::new(), Mutex::default());
        kafka.proxy.disturb(Some(plan(self.seed)));
        let writers: Vec<Mutex<Worker>> = (0..WRITERS).map(|slot| Mutex::new(Worker::new(slot))).collect();
        let runtime = Handle::current();
        let watched = || transactions.lock().unwrap_or_else(PoisonError::into_inner);
        tokio::task::block_in_place(|| {
            thread::scope(|scope| {
                for worker in &writers {
                    let (stop, job, output, proxied, metrics, transactions, runtime) =
                        (&stop, &job, &output, &proxied, &metrics, &transactions, &runtime);
                    scope.spawn(move || {
                        let mut worker = worker.lock().unwrap_or_else(PoisonError::into_inner);
                        let config = self.config(proxied, worker.slot);
                        let slot = SlotId(worker.slot);
                        let make = || output(&config, Arc::clone(job), slot);
                        let direct = kafka.direct.as_str();
                        let context = Context { trial: self, job, direct, metrics, transactions, stop, runtime };
                        context.work(&mut worker, make);
                    });
                }
                let mut seen = (0, Instant::now());
                loop {
                    thread::sleep(Duration::from_millis(200));
                    let disturbed = Verdict::disturbed(&watched(), &kafka.proxy.injected());
                    if disturbed > seen.0 {
                        seen = (disturbed, Instant::now());
                    }
                    let stuck = seen.1.elapsed() > STUCK;
                    if disturbed >= self.disturbed || stuck {
                        stop.store(true, Ordering::Relaxed);
                        kafka.proxy.heal();
                        assert!(!stuck, "no transaction was disturbed for {STUCK:?}");
                        break;
                    }
                }
            });
        });
        let took = started.elapsed();
        self.fence_all(&kafka.direct);
        let stable = stable(&kafka.direct, self.name, 0..WRITERS).expect("nothing is pending after the fences");
        let written: BTreeMap<u32, i64> = writers
            .into_iter()
            .map(|worker| worker.into_inner().unwrap_or_else(PoisonError::into_inner))
            .map(|worker| (worker.slot, worker.next))
            .collect();
        let outputs = weir_tests::checker::read::topic(&kafka.direct, &job.sink_topic).expect("the output can be read");
        let transactions = transactions.into_inner().unwrap_or_else(PoisonError::into_inner);
        Verdict::new(&transactions, &kafka.proxy.injected(), &metrics.render(), took).judge(&written, &stable, &outputs)
    }

    fn job(&self) -> JobSpec {
        let stream = |kind: &str| v1::OutputStream { topic: format!("{}.{kind}", self.name), ..Default::default() };
        let job = v1::JobSpec {
            job_name: self.name.to_owned(),
            delivery_guarantee: "EXACTLY_ONCE".to_owned(),
            splits_per_partition: 1,
            progress_topic: format!("{}.progress", self.name),
            progress_group: format!("{}.progress", self.name),
            sink: Some(stream("out")),
            error_sink: Some(stream("err")),
            ..Default::default()
        };
        job.try_into().expect("a job")
    }

    fn config(&self, servers: &str, slot: u32) -> Config {
        let sink = |stream: &str| {
            serde_json::json!({
                "stream": stream,
                "connector": "kafka",
                "options": { "bootstrap_servers": servers, "properties": {
                    "client.id": client(slot),
                    "socket.timeout.ms": SOCKET_TIMEOUT_MS.to_string(),
                    "message.timeout.ms": MESSAGE_TIMEOUT_MS.to_string() } },
            })
        };
        let config = serde_json::json!({
            "stream_manager": {
                "job_name": self.name,
                "stream_config_uri": "file:///nowhere",
                "schema_uris": ["file:///nowhere"],
                "source": {
                    "stream": "in:1.0.0",
                    "connector": "kafka",
                    "options": { "bootstrap_servers": servers, "consumer_group": "group" },
                },
                "sink": sink("out:1.0.0"),
                "error_sink": sink("err:1.0.0"),
            },
        });
        serde_json::from_value(config).expect("a configuration")
    }

    /// Topics and first progress, as a jobmanager makes them.
    async fn prepare(&self, kafka: &ProxiedKafka, job: &JobSpec) {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &kafka.direct).create().expect("an admin client");
        let topics = [(&job.sink_topic, 3), (&job.error_topic, 1), (&job.progress_topic, 1 + WRITERS as i32)];
        let topics = topics.map(|(name, partitions)| NewTopic::new(name, partitions, TopicReplication::Fixed(1)));
        for result in admin.create_topics(&topics, &AdminOptions::new()).await.expect("an answer") {
            result.expect("created");
        }
        let mut first = TopicPartitionList::new();
        for slot in 0..WRITERS {
            let entry = ProgressEntry {
                split: split(slot),
                splits_per_partition: one_split(),
                slot: None,
                progress: Progress::at(0),
                counters: SplitCounters::default(),
            };
            let mut element = first.add_partition(&job.progress_topic, progress_partition(slot));
            element.set_offset(Offset::Offset(0)).expect("an offset");
            element.set_metadata(entry.metadata());
        }
        progress_consumer(&kafka.direct, self.name).commit(&first, CommitMode::Sync).expect("committed");
    }

    /// Aborts what is still open, as a jobmanager would.
    fn fence_all(&self, servers: &str) {
        for slot in 0..WRITERS {
            let producer: BaseProducer = ClientConfig::new()
                .set("bootstrap.servers", servers)
                .set("transactional.id", SlotId(slot).transactional_id(self.name))
                .create()
                .expect("a producer");
            producer.init_transactions(PATIENCE).expect("fenced");
        }
    }
}

/// One writer's records, across its producers and grants.
struct Worker {
    slot: u32,
    /// Lowest offset that no transaction was begun with.
    next: i64,
}

impl Worker {
    fn new(slot: u32) -> Self {
        Self { slot, next: 0 }
    }
}

/// What the threads share.
struct Context<'a> {
    trial: &'a Trial,
    job: &'a JobSpec,
    direct: &'a str,
    metrics: &'a Metrics,
    transactions: &'a Mutex<Vec<Transaction>>,
    stop: &'a AtomicBool,
    runtime: &'a Handle,
}

impl Context<'_> {
    /// From grant to grant: a slot that is lost is granted anew, as a jobmanager does.
    fn work<O: Output>(&self, worker: &mut Worker, make: impl Fn() -> O) {
        while let Err(Lost(_)) = self.grant(worker, make()) {
            self.transactions.lock().unwrap_or_else(PoisonError::into_inner).push(Transaction::lost(worker.slot));
        }
    }

    fn grant<O: Output>(&self, worker: &mut Worker, output: O) -> Result<(), Lost> {
        let setup = Setup {
            guarantee: DeliveryGuarantee::ExactlyOnce,
            slot: SlotId(worker.slot),
            splits_per_partition: one_split(),
            slow: self.trial.slow,
            cut_bytes: u64::MAX,
        };
        // Confirmed for ever: who else may have the slot is not what is tried here.
        let far = Instant::now() + Duration::from_secs(24 * 3600);
        let lease = Lease::new(GrantId(1), Duration::from_secs(24 * 3600), Instant::now());
        lease.renew(far, Duration::from_secs(24 * 3600));
        let metrics = self.metrics.clone();
        let mut writer = Writer::new(output, Blocking, setup, Arc::new(lease), Arc::new(Nothing), metrics);
        self.runtime.block_on(writer.start())?;
        let slots = worker.slot..worker.slot + 1;
        let stable = stable(self.direct, &self.job.job_name, slots).map_err(Lost)?;
        let progress = stable.get(&worker.slot).ok_or_else(|| Lost("no progress".to_owned()))?.progress.clone();
        let cell = Arc::new(SplitCell::new(split(worker.slot), &progress, Order::Key));
        writer.assign(vec![AssignedSplit {
            cell: Arc::clone(&cell),
            progress_partition: progress_partition(worker.slot),
            progress: progress.clone(),
            counters: SplitCounters::default(),
        }]);
        // What an earlier grant had begun and not committed.
        let mut offsets: Vec<i64> =
            (progress.cursor..worker.next).filter(|offset| !progress.is_finished(*offset)).collect();
        loop {
            if offsets.is_empty() {
                if self.stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                offsets = (worker.next..worker.next + RECORDS).collect();
                worker.next += RECORDS;
            }
            let started = Instant::now();
            let result = self.transaction(&mut writer, &cell, worker.slot, &std::mem::take(&mut offsets));
            let transaction = Transaction { slot: worker.slot, started, ended: Instant::now(), lost: false };
            self.transactions.lock().unwrap_or_else(PoisonError::into_inner).push(transaction);
            result?;
        }
    }

    fn transaction<O: Output>(
        &self,
        writer: &mut Writer<O, Blocking>,
        cell: &Arc<SplitCell>,
        slot: u32,
        offsets: &[i64],
    ) -> Result<(), Lost> {
        for (index, offset) in offsets.iter().enumerate() {
            if index == offsets.len() / 2 {
                thread::sleep(PAUSE);
            }
            let finished = finished(cell, slot, *offset);
            cell.admit(KeyHash::of(&key(slot, *offset)), *offset);
            self.runtime.block_on(writer.hand_over(finished))?;
        }
        thread::sleep(QUIET);
        self.runtime.block_on(writer.cut()).map(drop)
    }
}

fn finished(cell: &Arc<SplitCell>, slot: u32, offset: i64) -> Finished {
    let budget = Budget::new(ByteSize::mib(1), 10);
    let held = budget.admit(0).now_or_never().expect("there is room").settle(0);
    let key = Bytes::from(key(slot, offset));
    let record = SourceRecord {
        topic: SOURCE.into(),
        partition: slot as i32,
        offset,
        timestamp_ms: None,
        key: Some(key.clone()),
        value: None,
    };
    let output = OutputRecord {
        destination: Destination::Sink,
        key: Some(key),
        value: Bytes::from(format!("{slot} {offset}")),
        timestamp_ms: 1_700_000_000_000 + offset,
    };
    let outcome = Outcome { kind: OutcomeKind::Enriched, output: Some(output), error_type: None };
    Finished { cell: Arc::clone(cell), record: Arc::new(record), outcome, held }
}

/// The message key of a record.
pub(crate) fn key(slot: u32, offset: i64) -> Vec<u8> {
    format!("{slot}-{}", offset % KEYS).into_bytes()
}

/// `client.id` of a writer, by which its requests are known.
pub(crate) fn client(slot: u32) -> String {
    format!("writer-{slot}")
}

fn split(slot: u32) -> SplitId {
    SplitId { topic: SOURCE.into(), partition: slot as i32, index: 0 }
}

fn one_split() -> SplitsPerPartition {
    SplitsPerPartition::new(1).expect("legal")
}

fn progress_partition(slot: u32) -> i32 {
    slot as i32 + 1
}

fn progress_consumer(servers: &str, job: &str) -> BaseConsumer {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", servers).set("group.id", format!("{job}.progress"));
    client.set("enable.auto.commit", "false").create().expect("a consumer")
}

/// Stable progress by slot.
fn stable(servers: &str, job: &str, slots: std::ops::Range<u32>) -> Result<BTreeMap<u32, ProgressEntry>, String> {
    let mut wanted = TopicPartitionList::new();
    for slot in slots {
        wanted.add_partition(&format!("{job}.progress"), progress_partition(slot));
    }
    let committed = progress_consumer(servers, job).committed_offsets(wanted, PATIENCE);
    let committed = committed.map_err(|error| format!("progress cannot be read: {error}"))?;
    let entry = |offset: Offset, metadata: &str| {
        let cursor = offset.to_raw().ok_or("progress is not an offset")?;
        ProgressEntry::parse(cursor, metadata).map_err(|error| error.to_string())
    };
    let elements = committed.elements();
    elements.iter().map(|one| Ok(((one.partition() - 1) as u32, entry(one.offset(), one.metadata())?))).collect()
}

/// The system's clock for a thread that may be blocked.
struct Blocking;

impl Clock for Blocking {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep_until(&self, deadline: Instant) -> impl Future<Output = ()> {
        thread::sleep(deadline.saturating_duration_since(Instant::now()));
        future::ready(())
    }
}

/// Everything is enriched already.
struct Nothing;

#[async_trait]
impl Enricher for Nothing {
    fn reservation(&self, _: &SourceRecord) -> u64 {
        0
    }

    fn page(&self, _: &SourceRecord) -> Option<(String, i64)> {
        None
    }

    async fn enrich(&self, _: &SourceRecord) -> Outcome {
        Outcome { kind: OutcomeKind::Dropped, output: None, error_type: None }
    }
}
