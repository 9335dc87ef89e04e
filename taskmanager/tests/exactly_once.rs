//! Exactly-once on a real broker; the mock cluster keeps no transactions. Needs `WEIR_TEST_BOOTSTRAP_SERVERS`.

mod support;

use std::{
    collections::BTreeMap,
    env,
    time::{SystemTime, UNIX_EPOCH},
};

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, CommitMode, Consumer as _},
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use support::*;
use weir_common::{
    progress::{Progress, entry::ProgressEntry},
    split::{SplitId, SplitsPerPartition},
};

/// A fresh job on the broker, its topics and first progress made as a jobmanager makes them.
async fn job(name: &str) -> Job {
    let servers = env::var("WEIR_TEST_BOOTSTRAP_SERVERS").expect("WEIR_TEST_BOOTSTRAP_SERVERS names a real broker");
    let unique = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros();
    let name = format!("{name}-{unique}");
    let topic = |suffix: &str| format!("{name}.{suffix}");
    let job = Job {
        servers: servers.clone(),
        guarantee: "EXACTLY_ONCE",
        input: topic("in"),
        output: topic("out"),
        errors: topic("err"),
        name: name.clone(),
    };
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &servers).create().expect("an admin client");
    let progress = topic("progress");
    let topics = [(&job.input, 1), (&job.output, 1), (&job.errors, 1), (&progress, 1 + SPLITS as i32)];
    let topics = topics.map(|(name, partitions)| NewTopic::new(name, partitions, TopicReplication::Fixed(1)));
    for result in admin.create_topics(&topics, &AdminOptions::new()).await.expect("an answer") {
        result.expect("created");
    }
    let mut first = TopicPartitionList::new();
    for index in 0..SPLITS {
        let entry = ProgressEntry {
            split: SplitId { topic: job.input.as_str().into(), partition: 0, index },
            splits_per_partition: SplitsPerPartition::new(SPLITS).expect("legal"),
            slot: None,
            progress: Progress::at(0),
            counters: Default::default(),
        };
        let mut element = first.add_partition(&progress, index as i32 + 1);
        element.set_offset(Offset::Offset(0)).expect("an offset");
        element.set_metadata(entry.metadata());
    }
    progress_consumer(&job).commit(&first, CommitMode::Sync).expect("committed");
    job
}

fn progress_consumer(job: &Job) -> BaseConsumer {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", &job.servers)
        .set("group.id", format!("{}.progress", job.name))
        .set("enable.auto.commit", "false");
    client.create().expect("a consumer")
}

/// What stands in Kafka, by split.
fn stable(job: &Job) -> BTreeMap<u32, ProgressEntry> {
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition_range(&format!("{}.progress", job.name), 1, SPLITS as i32);
    let committed = progress_consumer(job).committed_offsets(wanted, PATIENCE).expect("nothing is pending");
    let entry = |offset, metadata| ProgressEntry::parse(offset, metadata).expect("ours");
    let elements = committed.elements();
    let entries = elements.iter().map(|one| entry(one.offset().to_raw().expect("an offset"), one.metadata()));
    entries.map(|entry| (entry.split.index, entry)).collect()
}

/// Produces in transactions: the log ends with a marker that no message stands for.
fn produce(job: &Job, from: u32, count: u32) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &job.servers)
        .set("transactional.id", format!("{}-input", job.name))
        .create()
        .expect("a producer");
    producer.init_transactions(PATIENCE).expect("initialised");
    producer.begin_transaction().expect("begun");
    for number in from..from + count {
        let (key, value) = (format!("key-{}", number % 10), number.to_string());
        producer.send(BaseRecord::to(&job.input).key(&key).payload(&value).partition(0)).expect("queued");
    }
    producer.commit_transaction(PATIENCE).expect("committed");
}

fn fence(job: &Job, slot: u32) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &job.servers)
        .set("transactional.id", format!("{}-{slot}", job.name))
        .create()
        .expect("a producer");
    producer.init_transactions(PATIENCE).expect("fenced");
}

fn expect_stable(job: &Job, seen: &Seen) {
    for (index, entry) in stable(job) {
        let (cursor, counters) = seen[&index];
        assert_eq!((entry.progress.cursor, entry.counters.consumed), (cursor, counters.consumed), "split {index}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real broker in WEIR_TEST_BOOTSTRAP_SERVERS"]
async fn output_and_progress_commit_together_up_to_the_end_of_the_log() {
    let job = job("flow").await;
    produce(&job, 0, 1000);
    let mut world = World::start(job.clone(), None, serde_json::json!({})).await;
    let mut peer = world.ready_peer().await;
    let mut seen = Seen::new();
    peer.say(assign(&job, 0..SPLITS, &seen)).await;
    // 1000 records and the marker of their transaction.
    peer.hear_reports(&mut seen, |seen| all_at(seen, &[0, 1, 2, 3], 1001)).await;
    expect_stable(&job, &seen);
    expect_each_once_in_order(&world.outputs(), 1000);
    world.taskmanager.abort();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real broker in WEIR_TEST_BOOTSTRAP_SERVERS"]
async fn every_transaction_in_doubt_is_recycled_and_nothing_is_lost_or_doubled() {
    let job = job("doubt").await;
    produce(&job, 0, 1000);
    // No cut is that quick: each one ends with a new producer and a look at what is stable.
    let mut world = World::start(job.clone(), None, serde_json::json!({ "slow": "0 ms", "interval": "300 ms" })).await;
    let mut peer = world.ready_peer().await;
    let mut seen = Seen::new();
    peer.say(assign(&job, 0..SPLITS, &seen)).await;
    peer.hear_reports(&mut seen, |seen| all_at(seen, &[0, 1, 2, 3], 1001)).await;
    expect_stable(&job, &seen);
    expect_each_once_in_order(&world.outputs(), 1000);
    world.taskmanager.abort();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real broker in WEIR_TEST_BOOTSTRAP_SERVERS"]
async fn a_fenced_slot_is_given_up_and_its_splits_go_on_where_they_stand() {
    let job = job("fence").await;
    produce(&job, 0, 3000);
    let mut world = World::start(job.clone(), None, serde_json::json!({})).await;
    let mut peer = world.ready_peer().await;
    let mut seen = Seen::new();
    peer.say(assign(&job, 0..SPLITS, &seen)).await;
    peer.hear_reports(&mut seen, |seen| seen.len() == SPLITS as usize).await;
    // A jobmanager that fences a slot renews its grant no more.
    peer.granted = 0;
    fence(&job, 0);
    loop {
        match peer.hear().await {
            Hear::Report(_) => {}
            Hear::SlotLost(lost) => {
                assert_eq!((lost.slot, lost.grant_id), (0, 1));
                break;
            }
            other => panic!("the slot is lost, not {other:?}"),
        }
    }
    peer.grant(0, 2, 60_000).await;
    let Hear::SlotReady(_) = peer.hear().await else { panic!("a slot starts") };
    // As a jobmanager: what stands in Kafka is where the splits go on, finished-ahead map and all.
    peer.say(assign_entries(&stable(&job))).await;
    peer.hear_reports(&mut seen, |seen| all_at(seen, &[0, 1, 2, 3], 3001)).await;
    expect_stable(&job, &seen);
    expect_each_once_in_order(&world.outputs(), 3000);
    world.taskmanager.abort();
}

fn assign_entries(entries: &BTreeMap<u32, ProgressEntry>) -> Say {
    use weir_proto::v1;
    let assignment = |entry: &ProgressEntry| v1::SplitAssignment {
        limit: None,
        split: Some(split(&entry.split.topic, entry.split.index)),
        progress_partition: entry.split.index as i32 + 1,
        progress: Some(v1::Progress {
            cursor: entry.progress.cursor,
            finished_ahead: (entry.progress.finished_ahead.iter())
                .map(|range| v1::OffsetRange { start: range.start, end: range.end })
                .collect(),
        }),
        counters: Some(v1::SplitCounters {
            consumed: entry.counters.consumed,
            enriched: entry.counters.enriched,
            passed_through: entry.counters.passed_through,
            errors: entry.counters.errors,
            dropped: entry.counters.dropped,
        }),
    };
    Say::Assign(v1::Assign { splits: entries.values().map(assignment).collect() })
}
