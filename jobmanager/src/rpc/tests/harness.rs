//! A jobmanager without Kafka, and taskmanagers that do as they are told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Streaming, transport::Channel};
use weir_common::{
    config::Config,
    ids::{CheckpointId, LeaderEpoch, SlotId},
    progress::Progress,
    split::{SplitId, TopicPartition},
    streams,
};
use weir_proto::v1::{
    self, admin_service_client::AdminServiceClient, job_manager_message::Kind as FromJobmanager,
    task_manager_message::Kind as FromTaskmanager, task_manager_service_client::TaskManagerServiceClient,
};

use crate::{
    Exit,
    coordinator::event::{Grants, SplitState, SplitStates},
    errors::{self, ErrorEvent, Filter, Found, FoundInPartition, Position, Tally},
    job,
    kafka::{KafkaProblem, Phase, ProgressIndex, ReplayEnd, ReplayRequest, ReplayStep},
    leadership::Term,
    role::{Role, Roles},
    rpc::{Services, serve},
    runtime::{
        Parts, ResetTo, Runtime,
        backend::{Backend, SinkEnd},
    },
    start::{
        JobRecord, Plan,
        topics::{KnownTopics, TopicIds},
    },
    store::{Snapshots, object::Objects},
};

pub(super) const JOB: &str = "job";

/// Far more than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Progress, record and fences as Kafka would keep them.
#[derive(Debug, Default)]
pub(super) struct Kafka {
    pub(super) progress: Mutex<SplitStates>,
    pub(super) record: Mutex<Option<JobRecord>>,
    /// Slots of all records that were written, and `None` for each fence.
    pub(super) history: Mutex<Vec<Option<Grants>>>,
    pub(super) fenced: Mutex<Vec<SlotId>>,
    pub(super) topics: Mutex<TopicIds>,
    /// How often it was asked for them.
    pub(super) looks: Mutex<u64>,
    pub(super) mirrored: Mutex<BTreeMap<TopicPartition, i64>>,
    pub(super) read_also: Mutex<Vec<String>>,
    pub(super) groups: Mutex<BTreeMap<String, BTreeMap<TopicPartition, i64>>>,
    /// Of source `t-0`, each as old as its offset in milliseconds.
    pub(super) errors: Mutex<Vec<(Position, Vec<u8>)>>,
    /// Records of the replay topic, once there is one.
    pub(super) replayed: Mutex<Option<i64>>,
}

pub(super) fn replay_partition() -> TopicPartition {
    TopicPartition { topic: weir_common::kafka::replay_topic(JOB).into(), partition: 0 }
}

fn error_event((partition, offset): Position, value: &[u8]) -> ErrorEvent {
    let source = [Some(&b"t"[..]), Some(b"0"), Some(b"3")];
    errors::read(&errors::Stored { position: (partition, offset), timestamp_ms: offset, value, source })
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Backend for Kafka {
    async fn fence(&self, slot: SlotId) -> Result<(), KafkaProblem> {
        locked(&self.fenced).push(slot);
        locked(&self.history).push(None);
        Ok(())
    }

    async fn read_progress(&self, splits: BTreeMap<SplitId, i32>) -> Result<SplitStates, KafkaProblem> {
        let progress = locked(&self.progress);
        Ok(splits.into_keys().filter_map(|split| Some((split.clone(), progress.get(&split)?.clone()))).collect())
    }

    async fn write_progress(&self, splits: SplitStates, _: BTreeMap<SplitId, i32>) -> Result<(), KafkaProblem> {
        locked(&self.progress).extend(splits);
        Ok(())
    }

    async fn write_record(&self, record: JobRecord) -> Result<(), KafkaProblem> {
        locked(&self.history).push(Some(record.slots.clone()));
        *locked(&self.record) = Some(record);
        Ok(())
    }

    async fn ensure_progress_partitions(&self, _: i32) -> Result<(), KafkaProblem> {
        Ok(())
    }

    async fn mirror(&self, cursors: BTreeMap<TopicPartition, i64>) -> Result<(), KafkaProblem> {
        *locked(&self.mirrored) = cursors;
        Ok(())
    }

    async fn log_ends(&self, partitions: Vec<TopicPartition>) -> BTreeMap<TopicPartition, i64> {
        partitions.into_iter().map(|partition| (partition, 1000)).collect()
    }

    async fn sink_ends(&self, topics: Vec<String>) -> Result<Vec<SinkEnd>, KafkaProblem> {
        let end = |topic: String| SinkEnd {
            partition: TopicPartition { topic: topic.into(), partition: 0 },
            last_stable_offset: 7,
            high_watermark: 9,
        };
        Ok(topics.into_iter().map(end).collect())
    }

    async fn reset_offsets(
        &self,
        partitions: Vec<TopicPartition>,
        to: ResetTo,
    ) -> Result<BTreeMap<TopicPartition, i64>, KafkaProblem> {
        let offset = match to {
            ResetTo::Latest => 1000,
            ResetTo::Earliest | ResetTo::Timestamp(_) => 0,
            ResetTo::Offsets(offsets) => {
                let outside = offsets.iter().find(|(_, offset)| !(0..=1000).contains(*offset));
                return match outside {
                    Some((partition, offset)) => {
                        Err(KafkaProblem::Configuration(format!("offset {offset} of {partition} is not in the log")))
                    }
                    None => Ok(offsets),
                };
            }
        };
        Ok(partitions.into_iter().map(|partition| (partition, offset)).collect())
    }

    async fn topic_ids(&self) -> Result<TopicIds, KafkaProblem> {
        *locked(&self.looks) += 1;
        Ok(locked(&self.topics).clone())
    }

    async fn commit_group(&self, group: String, offsets: BTreeMap<TopicPartition, i64>) -> Result<(), KafkaProblem> {
        locked(&self.groups).insert(group, offsets);
        Ok(())
    }

    async fn group_offsets(
        &self,
        group: String,
        partitions: Vec<TopicPartition>,
    ) -> Result<BTreeMap<TopicPartition, i64>, KafkaProblem> {
        let committed = locked(&self.groups).get(&group).cloned().unwrap_or_default();
        Ok(committed.into_iter().filter(|(partition, _)| partitions.contains(partition)).collect())
    }

    async fn read_also(&self, topics: Vec<String>) -> Result<(), KafkaProblem> {
        locked(&self.read_also).extend(topics);
        Ok(())
    }

    async fn new_partitions(
        &self,
        known: BTreeSet<TopicPartition>,
    ) -> Result<BTreeMap<TopicPartition, i64>, KafkaProblem> {
        let new = locked(&self.replayed).map(|_| replay_partition()).filter(|replay| !known.contains(replay));
        Ok(new.into_iter().map(|partition| (partition, 0)).collect())
    }

    async fn list_errors(&self, filter: Filter, limit: usize) -> Result<Found, KafkaProblem> {
        let stored = locked(&self.errors);
        let events = stored.iter().map(|(position, value)| error_event(*position, value));
        let errors = events.filter(|error| filter.takes(error)).collect();
        Ok(Found::newest(vec![FoundInPartition { errors, ..FoundInPartition::default() }], limit))
    }

    async fn error_at(&self, position: Position) -> Result<Option<(ErrorEvent, Vec<u8>)>, KafkaProblem> {
        let errors = locked(&self.errors);
        let found = errors.iter().find(|(at, _)| *at == position);
        Ok(found.map(|(at, value)| (error_event(*at, value), value.clone())))
    }

    async fn replay_errors(
        &self,
        request: ReplayRequest,
        steps: mpsc::Sender<ReplayStep>,
    ) -> Result<ReplayEnd, KafkaProblem> {
        let mut tally = Tally::default();
        for (position, value) in locked(&self.errors).iter() {
            if request.selection.takes(&error_event(*position, value)) {
                tally.choose("any");
            }
        }
        if request.dry_run {
            return Ok(ReplayEnd { tally, ends: BTreeMap::new() });
        }
        tally.written = tally.chosen;
        let _ = steps.send(ReplayStep { phase: Phase::Writing, tally: tally.clone() }).await;
        let written = i64::try_from(tally.written).expect("few");
        *locked(&self.replayed) = Some(written);
        Ok(ReplayEnd { tally, ends: [(replay_partition(), written)].into() })
    }
}

/// An answer of EventStreamConfig: the source's topics, and the topic of the sink.
pub(super) fn stream_config(source_topics: &[&str], sink_topic: &str) -> String {
    let stream = |topics: &[&str]| serde_json::json!({"schema_title": "title", "topics": topics});
    let streams =
        serde_json::json!({"in": stream(source_topics), "out": stream(&[sink_topic]), "error": stream(&["error"])});
    serde_json::json!({"streams": streams}).to_string()
}

pub(super) fn config(splits_per_partition: u32, discovery: &str) -> Config {
    let stream = |name: &str, options: serde_json::Value| serde_json::json!({"stream": format!("{name}:1.0.0"), "connector": "kafka", "options": options});
    let sink = serde_json::json!({"bootstrap_servers": "localhost:1"});
    let source = serde_json::json!({"bootstrap_servers": "localhost:1", "consumer_group": "group"});
    serde_json::from_value(serde_json::json!({
        "stream_manager": {
            "job_name": JOB,
            "stream_config_uri": "file:///none",
            "schema_uris": [],
            "source": stream("in", source),
            "sink": stream("out", sink.clone()),
            "error_sink": stream("error", sink),
        },
        "job": {"splits_per_partition": splits_per_partition},
        "checkpoint": {"interval": "1 h"},
        "heartbeat": {"timeout": "30 s"},
        "partition": {"discovery": {"interval": discovery}},
    }))
    .expect("a configuration")
}

/// Where the jobmanager is reached, as far as it knows.
pub(super) const LEADER: &str = "leader:6123";

/// A leadership that lasts, but that its jobmanager may not know it for a while.
#[derive(Debug, Default)]
pub(super) struct Unending {
    pub(super) in_doubt: AtomicBool,
}

#[async_trait]
impl Term for Unending {
    fn epoch(&self) -> LeaderEpoch {
        LeaderEpoch(0)
    }

    fn leads(&self) -> bool {
        !self.in_doubt.load(Ordering::Relaxed)
    }

    async fn lost(&self) -> String {
        std::future::pending().await
    }

    async fn confirm(&self, _: LeaderEpoch) -> Result<(), String> {
        Ok(())
    }
}

/// A running jobmanager. Ends with its value.
pub(super) struct Jobmanager {
    address: String,
    pub(super) kafka: Arc<Kafka>,
    pub(super) role: watch::Sender<Role>,
    pub(super) term: Arc<Unending>,
    pub(super) end: JoinHandle<Result<(), Exit>>,
    _stop: DropGuard,
}

impl Jobmanager {
    /// Partitions `t-0`, `t-1`, … with so many splits each.
    pub(super) async fn start(partitions: i32, splits_per_partition: u32) -> Self {
        Self::start_discovering(partitions, splits_per_partition, "1 h").await
    }

    /// The same, with its `partition.discovery.interval`.
    pub(super) async fn start_discovering(partitions: i32, splits_per_partition: u32, discovery: &str) -> Self {
        Self::start_as(partitions, config(splits_per_partition, discovery)).await
    }

    /// The same, with a configuration that was changed.
    pub(super) async fn start_with(
        partitions: i32,
        splits_per_partition: u32,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config = config(splits_per_partition, "1 h");
        change(&mut config);
        Self::start_as(partitions, config).await
    }

    async fn start_as(partitions: i32, config: Config) -> Self {
        let splits_per_partition = config.job.splits_per_partition.get();
        let config = Arc::new(config);
        let mut splits = SplitStates::new();
        let mut index = ProgressIndex::default();
        for partition in 0..partitions {
            for number in 0..splits_per_partition {
                let split = SplitId { topic: "t".into(), partition, index: number };
                index.assign(&split);
                splits.insert(split, SplitState { progress: Progress::at(10), ..SplitState::default() });
            }
        }
        let topics = Mutex::new([("t".into(), "first".to_owned())].into());
        let kafka = Arc::new(Kafka { progress: Mutex::new(splits.clone()), topics, ..Kafka::default() });
        let plan = Plan {
            suspended: false,
            topics: KnownTopics::of_field("t=first"),
            recreated: BTreeMap::new(),
            leader_epoch: LeaderEpoch(7),
            first_checkpoint: CheckpointId(3),
            orphaned_slots: BTreeMap::new(),
            rewound: None,
            splits,
            to_write: Vec::new(),
            fence_first: Vec::new(),
            findings: Vec::new(),
        };
        let snapshots = Snapshots::new(Arc::new(Objects::in_memory()), JOB, 10);
        let term = Arc::new(Unending::default());
        let (runtime, handle) = Runtime::new(Parts {
            streams: streams::resolve_from(&config, stream_config(&["t"], "out").as_bytes()).expect("streams"),
            job: job::spec(&config, v1::OutputStream::default(), v1::OutputStream::default()),
            config: Arc::clone(&config),
            config_digest: "digest".to_owned(),
            backend: kafka.clone(),
            snapshots: snapshots.clone(),
            index,
            plan,
            newest_snapshot: None,
            storage_trouble: None,
            term: term.clone(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("bound"));
        let stop = CancellationToken::new();
        let role = watch::Sender::new(Role::Leading { runtime: handle, epoch: LeaderEpoch(7) });
        let leader = watch::Sender::new(Some(LEADER.to_owned()));
        let roles = Roles::new(role.subscribe(), leader.subscribe(), true);
        let services = Services { config, roles, snapshots };
        tokio::spawn(serve(services, listener, stop.clone()));
        let end = tokio::spawn(runtime.run(stop.clone()));
        Self { address, kafka, role, term, end, _stop: stop.drop_guard() }
    }

    async fn channel(&self) -> Channel {
        Channel::from_shared(self.address.clone()).expect("an address").connect().await.expect("it listens")
    }

    pub(super) async fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.channel().await)
    }

    /// Opens a stream; nothing is said on it yet.
    pub(super) async fn dial(&self) -> Stream {
        let (outgoing, messages) = mpsc::channel(64);
        let mut client = TaskManagerServiceClient::new(self.channel().await);
        let incoming = client.attach(ReceiverStream::new(messages)).await.expect("a stream").into_inner();
        Stream { outgoing, incoming }
    }

    /// A taskmanager that registers and from then on does as it is told.
    pub(super) async fn taskmanager(&self, id: &str) -> Obedient {
        let stream = self.dial().await;
        stream.say(FromTaskmanager::Register(register(id))).await;
        let held = Arc::new(Mutex::new(BTreeMap::new()));
        let task = tokio::spawn(obey(stream, Arc::clone(&held), Arc::clone(&self.kafka)));
        Obedient { held, task }
    }
}

pub(super) fn register(id: &str) -> v1::Register {
    v1::Register {
        protocol_version: weir_proto::PROTOCOL_VERSION,
        protocol_version_min: weir_proto::PROTOCOL_VERSION_MIN,
        taskmanager_id: id.to_owned(),
        job_name: JOB.to_owned(),
        config_digest: "digest".to_owned(),
        ..v1::Register::default()
    }
}

/// A taskmanager's end of a stream.
pub(super) struct Stream {
    pub(super) outgoing: mpsc::Sender<v1::TaskManagerMessage>,
    incoming: Streaming<v1::JobManagerMessage>,
}

impl Stream {
    pub(super) async fn say(&self, kind: FromTaskmanager) {
        self.outgoing.send(v1::TaskManagerMessage { kind: Some(kind) }).await.expect("it listens");
    }

    /// The next message; `None` at the stream's end.
    pub(super) async fn next(&mut self) -> Option<FromJobmanager> {
        let message = self.message().await?;
        assert_eq!(message.leader_epoch, 7);
        message.kind
    }

    /// The next message with its epoch; `None` at the stream's end.
    pub(super) async fn message(&mut self) -> Option<v1::JobManagerMessage> {
        timeout(PATIENCE, self.incoming.message()).await.expect("an answer in time").ok()?
    }
}

/// Holds what it was assigned.
pub(super) struct Obedient {
    pub(super) held: Arc<Mutex<BTreeMap<SplitId, v1::SplitReport>>>,
    pub(super) task: JoinHandle<bool>,
}

impl Obedient {
    pub(super) fn splits(&self) -> Vec<SplitId> {
        locked(&self.held).keys().cloned().collect()
    }

    /// Every split it holds gets so much further: consumed, enriched and committed.
    pub(super) fn work(&self, records: u64) {
        self.work_on(records, |_| true);
    }

    /// Those that are meant get so much further.
    pub(super) fn work_on(&self, records: u64, meant: impl Fn(&SplitId) -> bool) {
        for (_, report) in locked(&self.held).iter_mut().filter(|(split, _)| meant(split)) {
            if let Some(progress) = &mut report.progress {
                progress.cursor += i64::try_from(records).expect("few");
            }
            let counters = report.counters.get_or_insert_default();
            counters.consumed += records;
            counters.enriched += records;
        }
    }
}

/// Returns whether it was told to leave.
async fn obey(mut stream: Stream, held: Arc<Mutex<BTreeMap<SplitId, v1::SplitReport>>>, kafka: Arc<Kafka>) -> bool {
    let reports = |held: &Mutex<BTreeMap<SplitId, v1::SplitReport>>| locked(held).values().cloned().collect::<Vec<_>>();
    let commit = |reports: &[v1::SplitReport]| {
        let states = crate::rpc::convert::states(reports.to_vec()).expect("well formed");
        locked(&kafka.progress).extend(states);
    };
    while let Some(message) = stream.next().await {
        match message {
            FromJobmanager::Grant(grant) => {
                let ready = v1::SlotReady { slot: grant.slot, grant_id: grant.grant_id };
                stream.say(FromTaskmanager::SlotReady(ready)).await;
            }
            FromJobmanager::Assign(assign) => {
                let limited = assign.splits.iter().any(|each| each.limit.is_some());
                for mut each in assign.splits {
                    if let Some(limit) = each.limit {
                        come_to(&mut each, limit);
                    }
                    let report = v1::SplitReport {
                        split: each.split,
                        progress: each.progress,
                        counters: each.counters,
                        progress_partition: each.progress_partition,
                    };
                    assert!(report.progress_partition > 0, "exactly-once progress has a place");
                    locked(&held).insert(split_id(report.split.as_ref()), report);
                }
                if limited {
                    let splits = reports(&held);
                    commit(&splits);
                    stream.say(FromTaskmanager::Report(v1::Report { checkpoint_id: 0, slot: 0, splits })).await;
                }
            }
            FromJobmanager::Revoke(revoke) => {
                let released: Vec<_> =
                    revoke.splits.iter().filter_map(|split| locked(&held).remove(&split_id(Some(split)))).collect();
                commit(&released);
                stream.say(FromTaskmanager::Released(v1::Released { splits: released })).await;
            }
            FromJobmanager::Barrier(barrier) => {
                let splits = reports(&held);
                commit(&splits);
                let report = v1::Report { checkpoint_id: barrier.checkpoint_id, slot: 0, splits };
                stream.say(FromTaskmanager::Report(report)).await;
            }
            FromJobmanager::Drain(drain) => return drain.leave,
            FromJobmanager::Registered(_) | FromJobmanager::HeartbeatAck(_) | FromJobmanager::Refused(_) => {}
        }
    }
    false
}

/// Everything below is enriched.
fn come_to(assignment: &mut v1::SplitAssignment, limit: i64) {
    let (progress, counters) =
        (assignment.progress.get_or_insert_default(), assignment.counters.get_or_insert_default());
    let records = u64::try_from(limit - progress.cursor).expect("not behind");
    (progress.cursor, progress.finished_ahead) = (limit, Vec::new());
    counters.consumed += records;
    counters.enriched += records;
}

fn split_id(split: Option<&v1::SplitId>) -> SplitId {
    let split = split.expect("named");
    SplitId { topic: split.topic.as_str().into(), partition: split.partition, index: split.index }
}

/// Waits until it is so.
pub(super) async fn until(what: &str, so: impl Fn() -> bool) {
    for _ in 0..2000 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never came: {what}");
}

/// The same for what has to be asked for.
pub(super) async fn until_async(what: &str, so: impl AsyncFn() -> bool) {
    for _ in 0..2000 {
        if so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never came: {what}");
}
