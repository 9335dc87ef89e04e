//! A jobmanager that does as the test says, and the Kafka around a taskmanager.

// Each test program uses its part of it.
#![allow(dead_code)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
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
    task_manager_service_server::{TaskManagerService, TaskManagerServiceServer},
};
pub(crate) use weir_proto::v1::{job_manager_message::Kind as Say, task_manager_message::Kind as Hear};
use weir_taskmanager::{
    Exit,
    enrich::Enricher,
    record::{Destination, Outcome, OutputRecord, SourceRecord, headers},
    run_with,
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const SPLITS: u32 = 4;

/// Passes records on after a while; every seventh is dropped.
pub(crate) struct PassOn;

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
            // Kafka deletes by age: an output of long ago would not stay.
            timestamp_ms: record.timestamp_ms.unwrap_or_default(),
        };
        Outcome { kind: OutcomeKind::PassedThrough, output: Some(output), error_type: None }
    }
}

/// One stream of a taskmanager, seen from the jobmanager.
pub(crate) struct Peer {
    say: mpsc::Sender<Result<v1::JobManagerMessage, Status>>,
    pub(crate) hear: Streaming<v1::TaskManagerMessage>,
    pub(crate) epoch: u64,
    /// The grant that heartbeats renew, 0 for none.
    pub(crate) granted: u64,
}

impl Peer {
    pub(crate) async fn say(&self, kind: Say) {
        let message = v1::JobManagerMessage { leader_epoch: self.epoch, kind: Some(kind) };
        self.say.send(Ok(message)).await.expect("the taskmanager listens");
    }

    /// The next message that is no heartbeat; those are answered.
    pub(crate) async fn hear(&mut self) -> Hear {
        loop {
            let message = timeout(PATIENCE, self.hear.message()).await.expect("something is said in time");
            match message.expect("the stream is whole").expect("the stream is open").kind.expect("known") {
                Hear::Heartbeat(_) => {
                    let ack = v1::HeartbeatAck { grant_id: self.granted, grant_ttl_ms: 60_000, requests_max: 0 };
                    self.say(Say::HeartbeatAck(ack)).await;
                }
                kind => return kind,
            }
        }
    }

    pub(crate) async fn grant(&mut self, slot: u32, grant_id: u64, grant_ttl_ms: u64) {
        self.granted = grant_id;
        let transactional_id = String::new();
        self.say(Say::Grant(v1::Grant { slot, transactional_id, grant_id, grant_ttl_ms })).await;
    }

    pub(crate) async fn hear_register(&mut self) -> v1::Register {
        match self.hear().await {
            Hear::Register(register) => register,
            other => panic!("first of all comes Register, not {other:?}"),
        }
    }

    /// Reports until `enough`, newest progress by split.
    pub(crate) async fn hear_reports(&mut self, seen: &mut Seen, enough: impl Fn(&Seen) -> bool) {
        while !enough(seen) {
            match self.hear().await {
                Hear::Report(report) => note(seen, report.splits),
                other => panic!("only reports are due, not {other:?}"),
            }
        }
    }
}

pub(crate) type Seen = BTreeMap<u32, (i64, v1::SplitCounters)>;

pub(crate) fn note(seen: &mut Seen, reports: Vec<v1::SplitReport>) {
    for report in reports {
        let (split, progress) = (report.split.expect("named"), report.progress.expect("given"));
        seen.insert(split.index, (progress.cursor, report.counters.expect("given")));
    }
}

pub(crate) fn all_at(seen: &Seen, splits: &[u32], cursor: i64) -> bool {
    splits.iter().all(|split| seen.get(split).is_some_and(|(at, _)| *at == cursor))
}

pub(crate) struct Service(mpsc::Sender<Peer>);

#[async_trait]
impl TaskManagerService for Service {
    type AttachStream = ReceiverStream<Result<v1::JobManagerMessage, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::TaskManagerMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (say, receiver) = mpsc::channel(64);
        let peer = Peer { say, hear: request.into_inner(), epoch: 3, granted: 1 };
        self.0.send(peer).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

pub(crate) struct World {
    pub(crate) job: Job,
    _cluster: Option<MockCluster<'static, DefaultProducerContext>>,
    peers: mpsc::Receiver<Peer>,
    pub(crate) taskmanager: JoinHandle<anyhow::Result<Exit>>,
    pub(crate) shutdown: CancellationToken,
}

impl World {
    /// At-least-once on a mock cluster.
    pub(crate) async fn on_mock() -> Self {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        for topic in ["in", "out", "err"] {
            cluster.create_topic(topic, 1, 1).expect("a topic");
        }
        let job = Job {
            name: "job".to_owned(),
            servers: cluster.bootstrap_servers(),
            guarantee: "AT_LEAST_ONCE",
            input: "in".to_owned(),
            output: "out".to_owned(),
            errors: "err".to_owned(),
        };
        Self::start(job, Some(cluster), serde_json::json!({})).await
    }

    /// A taskmanager for a job whose topics exist. `transaction`: more of that section.
    pub(crate) async fn start(
        job: Job,
        cluster: Option<MockCluster<'static, DefaultProducerContext>>,
        transaction: serde_json::Value,
    ) -> Self {
        // `WEIR_LOG=debug` and `--nocapture` show what goes on.
        let log = weir_common::config::Log { level: "warn".to_owned(), ..weir_common::config::Log::default() };
        weir_common::telemetry::init(&log).expect("a filter");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (sender, peers) = mpsc::channel(4);
        let server = Server::builder().add_service(TaskManagerServiceServer::new(Service(sender)));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let shutdown = CancellationToken::new();
        let config = job.config(&address.to_string(), transaction);
        let factory: weir_taskmanager::job::EnricherFactory =
            Arc::new(|_, _| Box::pin(async { Ok(Arc::new(PassOn) as Arc<dyn Enricher>) }));
        let taskmanager = tokio::spawn(run_with(config, factory, shutdown.clone()));
        Self { job, _cluster: cluster, peers, taskmanager, shutdown }
    }

    pub(crate) async fn peer(&mut self) -> Peer {
        timeout(PATIENCE, self.peers.recv()).await.expect("it dials in time").expect("the server lives")
    }

    /// A registered taskmanager with a ready slot and no splits.
    pub(crate) async fn ready_peer(&mut self) -> Peer {
        let mut peer = self.peer().await;
        let register = peer.hear_register().await;
        assert_eq!((register.job_name.as_str(), &register.held), (self.job.name.as_str(), &None));
        peer.say(Say::Registered(self.job.registered())).await;
        peer.grant(0, 1, 60_000).await;
        assert_eq!(peer.hear().await, Hear::SlotReady(v1::SlotReady { slot: 0, grant_id: 1 }));
        peer
    }

    /// Produces records with ten keys, values counting on from `from`.
    pub(crate) fn produce(&self, from: u32, count: u32) {
        let producer: BaseProducer = self.client().create().expect("a producer");
        for number in from..from + count {
            let (key, value) = (format!("key-{}", number % 10), number.to_string());
            producer.send(BaseRecord::to(&self.job.input).key(&key).payload(&value).partition(0)).expect("queued");
        }
        producer.flush(PATIENCE).expect("delivered");
    }

    /// Everything in the output: source offset and key.
    pub(crate) fn outputs(&self) -> Vec<(i64, String)> {
        let consumer: BaseConsumer = self.client().create().expect("a consumer");
        let mut all = TopicPartitionList::new();
        all.add_partition_offset(&self.job.output, 0, Offset::Beginning).expect("an offset");
        consumer.assign(&all).expect("assigned");
        let mut outputs = Vec::new();
        loop {
            let message = match consumer.poll(PATIENCE).expect("a record or the end") {
                Err(KafkaError::PartitionEOF(_)) => break,
                message => message.expect("no error"),
            };
            let found = message.headers().expect("headers").iter().find(|one| one.key == headers::SOURCE_OFFSET);
            let offset = found.and_then(|one| one.value).expect("an offset");
            let offset = std::str::from_utf8(offset).expect("text").parse().expect("a number");
            let key = String::from_utf8_lossy(message.key().expect("a key")).into_owned();
            outputs.push((offset, key));
        }
        outputs
    }

    pub(crate) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.job.servers).set("group.id", "test");
        client.set("enable.auto.commit", "false").set("enable.partition.eof", "true");
        client
    }
}

/// Names of a job, its cluster and topics.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) name: String,
    pub(crate) servers: String,
    pub(crate) guarantee: &'static str,
    pub(crate) input: String,
    pub(crate) output: String,
    pub(crate) errors: String,
}

impl Job {
    fn config(&self, jobmanager: &str, transaction: serde_json::Value) -> Config {
        let sink = |stream: &str| {
            serde_json::json!({
                "stream": stream,
                "connector": "kafka",
                "options": { "bootstrap_servers": self.servers, "delivery_guarantee": self.guarantee },
            })
        };
        let mut config = serde_json::json!({
            "stream_manager": {
                "job_name": self.name,
                "stream_config_uri": "file:///nowhere",
                "schema_uris": ["file:///nowhere"],
                "source": {
                    "stream": "in:1.0.0",
                    "connector": "kafka",
                    "options": { "bootstrap_servers": self.servers, "consumer_group": "group" },
                },
                "sink": sink("out:1.0.0"),
                "error_sink": sink("err:1.0.0"),
            },
            "transaction": { "interval": "100 ms" },
            "jobmanager": { "address": jobmanager },
            "taskmanager": { "memory_budget": "64 KiB", "drain_timeout": "10 s" },
        });
        for (key, value) in transaction.as_object().expect("a section") {
            config["transaction"][key] = value.clone();
        }
        serde_json::from_value(config).expect("a configuration")
    }

    pub(crate) fn registered(&self) -> v1::Registered {
        let stream = |topic: &str| v1::OutputStream { topic: topic.to_owned(), ..v1::OutputStream::default() };
        let job = v1::JobSpec {
            job_name: self.name.clone(),
            delivery_guarantee: self.guarantee.to_owned(),
            splits_per_partition: SPLITS,
            progress_topic: format!("{}.progress", self.name),
            progress_group: format!("{}.progress", self.name),
            sink: Some(stream(&self.output)),
            error_sink: Some(stream(&self.errors)),
            ..v1::JobSpec::default()
        };
        v1::Registered { protocol_version: 1, heartbeat_interval_ms: 100, job: Some(job) }
    }
}

pub(crate) fn split(topic: &str, index: u32) -> v1::SplitId {
    v1::SplitId { topic: topic.to_owned(), partition: 0, index }
}

pub(crate) fn assign(job: &Job, splits: impl IntoIterator<Item = u32>, seen: &Seen) -> Say {
    assign_up_to(job, splits, seen, None)
}

/// With nothing at or above `limit` to be taken in.
pub(crate) fn assign_up_to(job: &Job, splits: impl IntoIterator<Item = u32>, seen: &Seen, limit: Option<i64>) -> Say {
    let assignment = |index| {
        let (cursor, counters) = seen.get(&index).copied().unwrap_or_default();
        v1::SplitAssignment {
            split: Some(split(&job.input, index)),
            progress_partition: index as i32 + 1,
            progress: Some(v1::Progress { cursor, finished_ahead: Vec::new() }),
            counters: Some(counters),
            limit,
        }
    };
    Say::Assign(v1::Assign { splits: splits.into_iter().map(assignment).collect() })
}

pub(crate) fn revoke(job: &Job, splits: impl IntoIterator<Item = u32>) -> Say {
    Say::Revoke(v1::Revoke { splits: splits.into_iter().map(|index| split(&job.input, index)).collect() })
}

pub(crate) fn expect_each_once_in_order(outputs: &[(i64, String)], records: i64) {
    let offsets: BTreeSet<i64> = outputs.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, (0..records).filter(|offset| offset % 7 != 0).collect());
    assert_eq!(offsets.len(), outputs.len(), "no output comes twice");
    let mut newest = BTreeMap::new();
    for (offset, key) in outputs {
        let before = newest.insert(key, offset);
        assert!(before.is_none_or(|before| before < offset), "{key} leaves in the order it was read");
    }
}
