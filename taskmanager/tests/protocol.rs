//! A taskmanager against a jobmanager that does as the test says, with librdkafka's mock cluster in between.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    message::Headers as _,
    mocking::MockCluster,
    producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _},
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle, time::timeout};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, transport::Server};
use weir_common::{config::Config, counters::OutcomeKind};
use weir_proto::v1::{
    self,
    job_manager_message::Kind as Say,
    task_manager_message::Kind as Hear,
    task_manager_service_server::{TaskManagerService, TaskManagerServiceServer},
};
use weir_taskmanager::{
    Exit,
    enrich::Enricher,
    record::{Destination, Outcome, OutputRecord, SourceRecord, headers},
    run_with,
};

const PATIENCE: Duration = Duration::from_secs(30);
const SPLITS: u32 = 4;
const JOB: &str = "job";

/// Passes records on after a while; every seventh is dropped.
struct PassOn;

#[async_trait]
impl Enricher for PassOn {
    fn reservation(&self, record: &SourceRecord) -> u64 {
        record.value.as_ref().map_or(0, |value| value.len() as u64)
    }

    fn page(&self, _: &SourceRecord) -> Option<(String, i64)> {
        None
    }

    async fn enrich(&self, record: &SourceRecord) -> Outcome {
        tokio::time::sleep(Duration::from_millis((record.offset * 37 % 11) as u64)).await;
        if record.offset % 7 == 0 {
            return Outcome { kind: OutcomeKind::Dropped, output: None, error_type: None };
        }
        let output = OutputRecord {
            destination: Destination::Sink,
            key: record.key.clone(),
            value: record.value.clone().unwrap_or_default(),
            timestamp_ms: 1,
        };
        Outcome { kind: OutcomeKind::PassedThrough, output: Some(output), error_type: None }
    }
}

/// One stream of a taskmanager, seen from the jobmanager.
struct Peer {
    say: mpsc::Sender<Result<v1::JobManagerMessage, Status>>,
    hear: Streaming<v1::TaskManagerMessage>,
    epoch: u64,
}

impl Peer {
    async fn say(&self, kind: Say) {
        let message = v1::JobManagerMessage { leader_epoch: self.epoch, kind: Some(kind) };
        self.say.send(Ok(message)).await.expect("the taskmanager listens");
    }

    /// The next message that is no heartbeat; those are answered.
    async fn hear(&mut self) -> Hear {
        loop {
            let message = timeout(PATIENCE, self.hear.message()).await.expect("something is said in time");
            match message.expect("the stream is whole").expect("the stream is open").kind.expect("known") {
                Hear::Heartbeat(heartbeat) => {
                    let ack = v1::HeartbeatAck { grant_id: heartbeat.grant_id, grant_ttl_ms: 60_000 };
                    self.say(Say::HeartbeatAck(ack)).await;
                }
                kind => return kind,
            }
        }
    }

    async fn hear_register(&mut self) -> v1::Register {
        match self.hear().await {
            Hear::Register(register) => register,
            other => panic!("first of all comes Register, not {other:?}"),
        }
    }

    /// Reports until `enough`, newest progress by split.
    async fn hear_reports(&mut self, seen: &mut Seen, enough: impl Fn(&Seen) -> bool) {
        while !enough(seen) {
            match self.hear().await {
                Hear::Report(report) => note(seen, report.splits),
                other => panic!("only reports are due, not {other:?}"),
            }
        }
    }
}

type Seen = BTreeMap<u32, (i64, v1::SplitCounters)>;

fn note(seen: &mut Seen, reports: Vec<v1::SplitReport>) {
    for report in reports {
        let (split, progress) = (report.split.expect("named"), report.progress.expect("given"));
        seen.insert(split.index, (progress.cursor, report.counters.expect("given")));
    }
}

fn all_at(seen: &Seen, splits: &[u32], cursor: i64) -> bool {
    splits.iter().all(|split| seen.get(split).is_some_and(|(at, _)| *at == cursor))
}

struct Service(mpsc::Sender<Peer>);

#[async_trait]
impl TaskManagerService for Service {
    type AttachStream = ReceiverStream<Result<v1::JobManagerMessage, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::TaskManagerMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (say, receiver) = mpsc::channel(64);
        let peer = Peer { say, hear: request.into_inner(), epoch: 3 };
        self.0.send(peer).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

struct World {
    cluster: MockCluster<'static, DefaultProducerContext>,
    peers: mpsc::Receiver<Peer>,
    taskmanager: JoinHandle<anyhow::Result<Exit>>,
    shutdown: CancellationToken,
}

impl World {
    async fn start() -> Self {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        for topic in ["in", "out", "err"] {
            cluster.create_topic(topic, 1, 1).expect("a topic");
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (sender, peers) = mpsc::channel(4);
        let server = Server::builder().add_service(TaskManagerServiceServer::new(Service(sender)));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let shutdown = CancellationToken::new();
        let config = config(&cluster.bootstrap_servers(), &address.to_string());
        let factory: weir_taskmanager::job::EnricherFactory =
            Arc::new(|_, _| Box::pin(async { Ok(Arc::new(PassOn) as Arc<dyn Enricher>) }));
        let taskmanager = tokio::spawn(run_with(config, factory, shutdown.clone()));
        Self { cluster, peers, taskmanager, shutdown }
    }

    async fn peer(&mut self) -> Peer {
        timeout(PATIENCE, self.peers.recv()).await.expect("it dials in time").expect("the server lives")
    }

    /// A registered taskmanager with a ready slot and no splits.
    async fn ready_peer(&mut self) -> Peer {
        let mut peer = self.peer().await;
        let register = peer.hear_register().await;
        assert_eq!((register.job_name.as_str(), &register.held), (JOB, &None));
        peer.say(Say::Registered(registered())).await;
        let transactional_id = format!("{JOB}-0");
        peer.say(Say::Grant(v1::Grant { slot: 0, transactional_id, grant_id: 1, grant_ttl_ms: 60_000 })).await;
        assert_eq!(peer.hear().await, Hear::SlotReady(v1::SlotReady { slot: 0, grant_id: 1 }));
        peer
    }

    /// Produces records with ten keys, values counting on from `from`.
    fn produce(&self, from: u32, count: u32) {
        let producer: BaseProducer = self.client().create().expect("a producer");
        for number in from..from + count {
            let (key, value) = (format!("key-{}", number % 10), number.to_string());
            producer.send(BaseRecord::to("in").key(&key).payload(&value).partition(0)).expect("queued");
        }
        producer.flush(PATIENCE).expect("delivered");
    }

    /// Everything in the output: source offset and key.
    fn outputs(&self) -> Vec<(i64, String)> {
        let consumer: BaseConsumer = self.client().create().expect("a consumer");
        let (_, end) = consumer.fetch_watermarks("out", 0, PATIENCE).expect("an end");
        let mut all = TopicPartitionList::new();
        all.add_partition_offset("out", 0, Offset::Beginning).expect("an offset");
        consumer.assign(&all).expect("assigned");
        let mut outputs = Vec::new();
        while (outputs.len() as i64) < end {
            let message = consumer.poll(PATIENCE).expect("a record").expect("no error");
            let found = message.headers().expect("headers").iter().find(|one| one.key == headers::SOURCE_OFFSET);
            let offset = found.and_then(|one| one.value).expect("an offset");
            let offset = std::str::from_utf8(offset).expect("text").parse().expect("a number");
            let key = String::from_utf8_lossy(message.key().expect("a key")).into_owned();
            outputs.push((offset, key));
        }
        outputs
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", self.cluster.bootstrap_servers()).set("group.id", "test");
        client.set("enable.auto.commit", "false");
        client
    }
}

fn config(servers: &str, jobmanager: &str) -> Config {
    let sink = |stream: &str| {
        serde_json::json!({
            "stream": stream,
            "connector": "kafka",
            "options": { "bootstrap_servers": servers, "delivery_guarantee": "AT_LEAST_ONCE" },
        })
    };
    serde_json::from_value(serde_json::json!({
        "stream_manager": {
            "job_name": JOB,
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
        "transaction": { "interval": "100 ms" },
        "jobmanager": { "address": jobmanager },
        "taskmanager": { "memory_budget": "64 KiB", "drain_timeout": "10 s" },
    }))
    .expect("a configuration")
}

fn registered() -> v1::Registered {
    let stream = |topic: &str| v1::OutputStream { topic: topic.to_owned(), ..v1::OutputStream::default() };
    let job = v1::JobSpec {
        job_name: JOB.to_owned(),
        delivery_guarantee: "AT_LEAST_ONCE".to_owned(),
        splits_per_partition: SPLITS,
        sink: Some(stream("out")),
        error_sink: Some(stream("err")),
        ..v1::JobSpec::default()
    };
    v1::Registered { protocol_version: 1, heartbeat_interval_ms: 100, job: Some(job) }
}

fn split(index: u32) -> v1::SplitId {
    v1::SplitId { topic: "in".to_owned(), partition: 0, index }
}

fn assign(splits: impl IntoIterator<Item = u32>, seen: &Seen) -> Say {
    let assignment = |index| {
        let (cursor, counters) = seen.get(&index).copied().unwrap_or_default();
        v1::SplitAssignment {
            split: Some(split(index)),
            progress_partition: 0,
            progress: Some(v1::Progress { cursor, finished_ahead: Vec::new() }),
            counters: Some(counters),
        }
    };
    Say::Assign(v1::Assign { splits: splits.into_iter().map(assignment).collect() })
}

fn revoke(splits: impl IntoIterator<Item = u32>) -> Say {
    Say::Revoke(v1::Revoke { splits: splits.into_iter().map(split).collect() })
}

fn expect_each_once_in_order(outputs: &[(i64, String)], records: i64) {
    let offsets: BTreeSet<i64> = outputs.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, (0..records).filter(|offset| offset % 7 != 0).collect());
    assert_eq!(offsets.len(), outputs.len(), "no output comes twice");
    let mut newest = BTreeMap::new();
    for (offset, key) in outputs {
        let before = newest.insert(key, offset);
        assert!(before.is_none_or(|before| before < offset), "{key} leaves in the order it was read");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_flow_from_register_to_drain() {
    let mut world = World::start().await;
    world.produce(0, 500);
    let mut peer = world.ready_peer().await;
    let mut seen = Seen::new();
    peer.say(assign(0..SPLITS, &seen)).await;
    peer.hear_reports(&mut seen, |seen| all_at(seen, &[0, 1, 2, 3], 500)).await;
    let consumed: u64 = seen.values().map(|(_, counters)| counters.consumed).sum();
    assert_eq!(consumed, 500, "every record counts once");

    peer.say(Say::Barrier(v1::Barrier { checkpoint_id: 8 })).await;
    let Hear::Report(report) = peer.hear().await else { panic!("a barrier is answered") };
    assert_eq!((report.checkpoint_id, report.splits.len()), (8, SPLITS as usize));

    world.shutdown.cancel();
    assert_eq!(peer.hear().await, Hear::Draining(v1::Draining {}));
    peer.say(revoke(0..SPLITS)).await;
    let Hear::Released(released) = peer.hear().await else { panic!("a revocation is answered") };
    assert_eq!(released.splits.len(), SPLITS as usize);
    peer.say(Say::Drain(v1::Drain { leave: true })).await;
    let exit = timeout(PATIENCE, &mut world.taskmanager).await.expect("it leaves").expect("no panic");
    assert_eq!(exit.expect("no failure"), Exit::Drained);
    expect_each_once_in_order(&world.outputs(), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn splits_come_and_go_and_work_goes_on_without_a_jobmanager() {
    let mut world = World::start().await;
    world.produce(0, 300);
    let mut peer = world.ready_peer().await;
    let mut seen = Seen::new();
    peer.say(assign(0..SPLITS, &seen)).await;
    peer.hear_reports(&mut seen, |seen| all_at(seen, &[0, 1, 2, 3], 300)).await;

    peer.say(revoke([1, 2])).await;
    let Hear::Released(released) = peer.hear().await else { panic!("a revocation is answered") };
    note(&mut seen, released.splits);
    world.produce(300, 300);
    peer.hear_reports(&mut seen, |seen| all_at(seen, &[0, 3], 600)).await;
    assert!(all_at(&seen, &[1, 2], 300), "nobody works on what was revoked");

    // No jobmanager for a while: what is held goes on, and is said at the next Register.
    drop(peer);
    world.produce(600, 100);
    let mut peer = world.peer().await;
    let held = peer.hear_register().await.held.expect("the slot is still held");
    assert_eq!((held.slot, held.grant_id, held.splits.len()), (0, 1, 2));
    note(&mut seen, held.splits);
    peer.say(Say::Registered(registered())).await;
    // What comes back stands below the reader, which goes back for it.
    peer.say(assign([1, 2], &seen)).await;
    peer.hear_reports(&mut seen, |seen| all_at(seen, &[0, 1, 2, 3], 700)).await;
    expect_each_once_in_order(&world.outputs(), 700);

    // A jobmanager that was replaced is not obeyed.
    peer.epoch = 2;
    peer.say(Say::Drain(v1::Drain { leave: true })).await;
    peer.epoch = 3;
    peer.say(Say::Barrier(v1::Barrier { checkpoint_id: 9 })).await;
    let Hear::Report(report) = peer.hear().await else { panic!("a barrier is answered") };
    assert_eq!(report.checkpoint_id, 9);

    // A new grant replaces the slot: nothing is held any more.
    let grant = v1::Grant { slot: 0, transactional_id: String::new(), grant_id: 2, grant_ttl_ms: 60_000 };
    peer.say(Say::Grant(grant)).await;
    assert_eq!(peer.hear().await, Hear::SlotReady(v1::SlotReady { slot: 0, grant_id: 2 }));
    peer.say(Say::Barrier(v1::Barrier { checkpoint_id: 10 })).await;
    let Hear::Report(report) = peer.hear().await else { panic!("a barrier is answered") };
    assert!(report.splits.is_empty());
    world.taskmanager.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_for_good_ends_the_process_with_its_reason() {
    let mut world = World::start().await;
    let mut peer = world.peer().await;
    peer.hear_register().await;
    let refused = v1::Refused { reason: "JOB".to_owned(), message: "another job".to_owned(), retry_after_ms: 0 };
    peer.say(Say::Refused(refused)).await;
    let exit = timeout(PATIENCE, &mut world.taskmanager).await.expect("it leaves").expect("no panic");
    assert_eq!(exit.expect("no failure"), Exit::Refused("another job".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_grant_drops_the_slot_and_says_so() {
    let mut world = World::start().await;
    let mut peer = world.peer().await;
    peer.hear_register().await;
    peer.say(Say::Registered(registered())).await;
    let grant = v1::Grant { slot: 5, transactional_id: String::new(), grant_id: 1, grant_ttl_ms: 1000 };
    peer.say(Say::Grant(grant)).await;
    // Heartbeats are not answered here.
    let lost = loop {
        let message = timeout(PATIENCE, peer.hear.message()).await.expect("in time").expect("whole").expect("open");
        if let Some(Hear::SlotLost(lost)) = message.kind {
            break lost;
        }
    };
    assert_eq!((lost.slot, lost.grant_id), (5, 1));
    world.taskmanager.abort();
}
