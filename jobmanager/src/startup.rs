//! From a configuration to a running job: what is checked before a port is bound, and how a leadership begins.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use weir_common::{
    config::{Config, HighAvailabilityType, StartingOffsets},
    split::{SplitId, TopicName, TopicPartition},
    streams::{self, ResolvedStreams, StreamsError},
};
use weir_proto::v1;

use crate::{
    Exit, job,
    kafka::{self, Kafka, KafkaBackend, KafkaProblem, LockLeadership, ProgressIndex, StoredProgress},
    leadership::{self, Leadership, Term, storage::StorageLeadership},
    runtime::Parts,
    start::{self, Facts, Former, JobRecord, Plan, Severity, SnapshotFacts, topics::TopicIds},
    store::{Snapshots, StoreError, object::Objects, snapshot::Snapshot, survey::Survey},
};

/// What is there, checked before a port is bound.
#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) snapshots: Snapshots,
    streams: ResolvedStreams,
}

impl Environment {
    /// Reads the stream configuration, and checks that Kafka has what it names and that storage lets us in. Bounded.
    pub(crate) async fn look(config: &Arc<Config>) -> Result<Self, Exit> {
        let objects = Arc::new(Objects::open(&config.storage)?);
        let snapshots = Snapshots::new(objects, &config.stream_manager.job_name, config.checkpoint.retained);
        let streams = streams::resolve(config).await.map_err(|error| match error {
            StreamsError::Http(_) => Exit::Unreachable(error.to_string()),
            _ => Exit::Configuration(error.to_string()),
        })?;
        let environment = Self { snapshots, streams };
        environment.partitions(&Kafka::new(config)?).await?;
        survey(&environment.snapshots, job::exactly_once(config)).await?;
        Ok(environment)
    }

    /// How this job's jobmanagers agree on who leads.
    pub(crate) fn leadership(&self, config: &Arc<Config>) -> Result<Box<dyn Leadership>, Exit> {
        let address = leadership::advertised_address(config);
        Ok(match config.high_availability.kind {
            HighAvailabilityType::None => {
                Box::new(LockLeadership::new(Kafka::new(config)?, &self.streams.sink.topic, &address))
            }
            HighAvailabilityType::Storage => {
                let (holder, ttl) = (uuid::Uuid::new_v4().to_string(), config.high_availability.lease_ttl);
                let settings = leadership::lease::Settings { holder, address, ttl };
                let job = &config.stream_manager.job_name;
                Box::new(StorageLeadership::new(self.snapshots.storage(), job, settings))
            }
        })
    }

    async fn partitions(&self, kafka: &Kafka) -> Result<Vec<TopicPartition>, Exit> {
        let partitions = kafka.source_partitions(&self.streams.source_topics).await?;
        kafka.verify_sink(&self.streams.sink.topic).await?;
        kafka.verify_error_sink(&self.streams.error_sink.topic).await?;
        Ok(kafka::source::partitions(&partitions))
    }
}

/// Reads and decides where the job goes on, and writes what a leadership begins with. Everything here ends within a
/// bounded time.
///
/// The order matters. The writer is initialised before anything is read, so that an earlier leader changes nothing any
/// more; the leadership is confirmed with its epoch before anything is written, so that a later one has a higher epoch.
pub(crate) async fn prepare(
    config: &Arc<Config>,
    environment: &Environment,
    term: Arc<dyn Term>,
) -> Result<Parts, Exit> {
    let (snapshots, streams) = (environment.snapshots.clone(), environment.streams.clone());
    let exactly_once = job::exactly_once(config);
    let kafka = Kafka::new(config)?;
    let partitions = environment.partitions(&kafka).await?;
    if exactly_once {
        kafka.begin_leadership(Arc::clone(&term)).await?;
    }
    let (survey, storage_trouble) = survey(&snapshots, exactly_once).await?;
    let job_spec = job_spec(config, &kafka, streams.clone()).await;
    let (mut facts, mut index) = facts(config, &kafka, partitions, survey.newest.as_ref()).await?;
    let mut plan = decide(&kafka, &mut facts, &mut index).await?;
    start::storage::heed(&mut plan, &facts, &survey).map_err(|unusable| Exit::Configuration(unusable.to_string()))?;
    plan.leader_epoch = plan.leader_epoch.max(term.epoch());
    term.confirm(plan.leader_epoch).await.map_err(Exit::Refused)?;
    log(&plan);
    if exactly_once {
        carry_out(config, &kafka, &plan, &mut index).await?;
    } else {
        snapshots.claim(plan.leader_epoch).await?;
    }
    let (source_topics, error_topic) = (streams.source_topics.clone(), streams.error_sink.topic.clone());
    let backend = KafkaBackend::new(kafka, source_topics, error_topic, config.job.splits_per_partition);
    Ok(Parts {
        config: Arc::clone(config),
        config_digest: config.digest(),
        job: job_spec,
        streams,
        backend: Arc::new(backend),
        snapshots,
        index,
        plan,
        // A damaged one counts: it may be good again, and a rewind must hold against it, too.
        newest_snapshot: survey.passed_over.first().map(|each| each.id).max(facts.snapshot.map(|snapshot| snapshot.id)),
        storage_trouble,
        term,
    })
}

/// Decides. Where slots must be fenced first, their progress is read again after that, and what it says then counts.
async fn decide(kafka: &Kafka, facts: &mut Facts, index: &mut ProgressIndex) -> Result<Plan, Exit> {
    let decide = |facts: &Facts| start::plan(facts).map_err(|changed| Exit::Configuration(changed.to_string()));
    let first = decide(facts)?;
    if first.fence_first.is_empty() {
        return Ok(first);
    }
    for finding in first.findings.iter().filter(|finding| finding.severity == Severity::Warning) {
        tracing::warn!(slots = ?first.fence_first, "fencing all slots, then looking again: {}", finding.text);
    }
    kafka.fence_all(&first.fence_first).await?;
    if let Some(record) = &mut facts.record {
        record.slots.clear();
    }
    let existing = kafka.progress_partitions().await?;
    *index = sort_progress(facts, &kafka.read_all_progress(existing).await?);
    decide(facts)
}

/// What is in storage; if that does not answer, it is a reason to go on without where Kafka keeps the progress.
async fn survey(snapshots: &Snapshots, exactly_once: bool) -> Result<(Survey, Option<String>), Exit> {
    match snapshots.survey().await {
        Ok(survey) => Ok((survey, None)),
        Err(StoreError::Unreachable(what)) if exactly_once => {
            tracing::warn!("{what}; going on from the progress in Kafka, trying again at every checkpoint");
            Ok((Survey::default(), Some(what)))
        }
        Err(StoreError::Unreachable(what)) => Err(Exit::Unreachable(format!(
            "{what}; at-least-once keeps its progress in snapshots alone, so the job cannot go on before storage answers"
        ))),
        Err(StoreError::Denied(what)) => Err(Exit::Configuration(format!(
            "{what}; check storage.uri, storage.s3.access_key_id and storage.s3.secret_access_key (or AWS_ACCESS_KEY_ID and \
             AWS_SECRET_ACCESS_KEY), and that they may list, read, write and delete there"
        ))),
        Err(StoreError::NotFound(what)) => {
            Err(Exit::Configuration(format!("{what}; create the bucket, or correct storage.uri")))
        }
        Err(error) => Err(error.into()),
    }
}

async fn job_spec(config: &Config, kafka: &Kafka, streams: ResolvedStreams) -> v1::JobSpec {
    let (sink_limit, error_limit) =
        tokio::join!(kafka.max_message_bytes(&streams.sink.topic), kafka.max_message_bytes(&streams.error_sink.topic));
    job::spec(config, output_stream(streams.sink, sink_limit), output_stream(streams.error_sink, error_limit))
}

fn output_stream(stream: streams::OutputStream, max_message_bytes: u64) -> v1::OutputStream {
    let field = |streams::KeyField { name, path }| v1::KeyField { name, path };
    v1::OutputStream {
        stream: stream.stream,
        topic: stream.topic,
        schema_uri: stream.schema_uri,
        message_key_fields: stream.message_key_fields.into_iter().map(field).collect(),
        max_message_bytes,
    }
}

/// Reads what the start rules decide over.
async fn facts(
    config: &Config,
    kafka: &Kafka,
    partitions: Vec<TopicPartition>,
    newest: Option<&Snapshot>,
) -> Result<(Facts, ProgressIndex), Exit> {
    let exactly_once = job::exactly_once(config);
    let snapshot = newest.map(|snapshot| SnapshotFacts {
        id: snapshot.id(),
        splits_per_partition: snapshot.splits_per_partition,
        slots: snapshot.slots.iter().copied().collect(),
        splits: snapshot.states(),
    });
    let mut facts = Facts {
        exactly_once,
        splits_per_partition: config.job.splits_per_partition,
        partitions: BTreeMap::new(),
        topics: BTreeMap::new(),
        record: None,
        progress: BTreeMap::new(),
        former: None,
        snapshot,
    };
    let mut index = ProgressIndex::default();
    let existing = if exactly_once { kafka.progress_partitions().await? } else { 0 };
    if existing > 0 {
        facts.record = kafka.read_record().await?;
        let stored = read_progress(kafka, existing, &mut facts.record).await?;
        index = sort_progress(&mut facts, &stored);
    }
    if exactly_once {
        let topics: BTreeSet<TopicName> = partitions.iter().map(|partition| partition.topic.clone()).collect();
        facts.topics = topic_ids(kafka, topics.into_iter().collect()).await;
    }
    facts.partitions = start_offsets(config, kafka, partitions, &facts).await?;
    Ok((facts, index))
}

/// A broker that does not tell ids is no reason not to start: topics are then known by their names alone.
async fn topic_ids(kafka: &Kafka, topics: Vec<TopicName>) -> TopicIds {
    match kafka.topic_ids(topics).await {
        Ok(ids) => ids,
        Err(error) => {
            tracing::warn!(%error, "whether a source topic was made anew is not known");
            TopicIds::new()
        }
    }
}

/// Progress of the job's number of splits, which the record says, and where that of the configured one is or will be kept.
fn sort_progress(facts: &mut Facts, stored: &StoredProgress) -> ProgressIndex {
    let configured = facts.splits_per_partition;
    let recorded = facts.record.as_ref().map(|record| record.splits_per_partition);
    let of_snapshot = facts.snapshot.as_ref().map(|snapshot| snapshot.splits_per_partition);
    let is = recorded.or_else(|| stored.only_shape()).or(of_snapshot).unwrap_or(configured);
    facts.progress = if is == configured { stored.states(is) } else { BTreeMap::new() };
    facts.former = (is != configured).then(|| Former { splits_per_partition: is, progress: stored.states(is) });
    stored.index(configured, is)
}

/// Stable progress. Where a transaction stays open (its taskmanager died, or works on and on), all recorded slots are
/// fenced first: then nothing can be open, and nobody is left to be adopted.
async fn read_progress(kafka: &Kafka, partitions: i32, record: &mut Option<JobRecord>) -> Result<StoredProgress, Exit> {
    const ATTEMPTS: usize = 3;
    for attempt in 1..=ATTEMPTS {
        match kafka.read_all_progress(partitions).await {
            Err(KafkaProblem::Pending(what)) => tracing::warn!(attempt, "{what}"),
            result => return Ok(result?),
        }
    }
    if let Some(record) = record {
        let slots: Vec<_> = std::mem::take(&mut record.slots).into_keys().collect();
        tracing::warn!(?slots, "progress does not become stable: fencing all slots of the job record");
        kafka.fence_all(&slots).await?;
    }
    Ok(kafka.read_all_progress(partitions).await?)
}

/// Partitions of a topic that the job has read before start at their oldest record, whatever is configured: they are new
/// since, and what came before they were noticed belongs to the job. So does all of its own replay topic.
async fn start_offsets(
    config: &Config,
    kafka: &Kafka,
    partitions: Vec<TopicPartition>,
    facts: &Facts,
) -> Result<BTreeMap<TopicPartition, i64>, Exit> {
    let stored = facts.snapshot.iter().flat_map(|snapshot| snapshot.splits.keys());
    let former = facts.former.iter().flat_map(|former| former.progress.keys());
    let known: Vec<&SplitId> = facts.progress.keys().chain(former).chain(stored).collect();
    let is_replay = |topic: &TopicName| weir_common::kafka::is_replay_topic(&config.stream_manager.job_name, topic);
    let belongs = |topic: &TopicName| is_replay(topic) || known.iter().any(|split| split.topic == *topic);
    let (grown, fresh): (Vec<_>, Vec<_>) = partitions.into_iter().partition(|partition| belongs(&partition.topic));
    let mut offsets = kafka.start_offsets(grown, StartingOffsets::Earliest).await?;
    offsets.extend(kafka.start_offsets(fresh, config.job.starting_offsets).await?);
    Ok(offsets)
}

fn log(plan: &Plan) {
    for finding in &plan.findings {
        match finding.severity {
            Severity::Info => tracing::info!("start: {}", finding.text),
            Severity::Warning => tracing::warn!("start: {}", finding.text),
        }
    }
    tracing::info!(epoch = %plan.leader_epoch, splits = plan.splits.len(), orphaned_slots = ?plan.orphaned_slots, "leading");
}

/// Writes to Kafka what the plan wants there, all at once: a start that dies before is the same start again.
async fn carry_out(config: &Config, kafka: &Kafka, plan: &Plan, index: &mut ProgressIndex) -> Result<(), Exit> {
    let places: BTreeMap<SplitId, i32> =
        plan.to_write.iter().map(|split| (split.clone(), index.assign(split))).collect();
    kafka.ensure_progress_topic(index.partitions_needed()).await?;
    let write = |split: &SplitId| Some((split.clone(), plan.splits.get(split)?.clone()));
    let splits = plan.to_write.iter().filter_map(write).collect();
    let record = JobRecord {
        leader_epoch: plan.leader_epoch,
        splits_per_partition: config.job.splits_per_partition,
        slots: plan.orphaned_slots.clone(),
        rewound: plan.rewound,
        suspended: plan.suspended,
        topics: plan.topics.clone(),
    };
    Ok(kafka.write_start(splits, places, record).await?)
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;

    use super::*;

    /// At-least-once on librdkafka's mock cluster, which keeps no transactions.
    fn config(servers: &str, folder: &std::path::Path) -> Arc<Config> {
        let stream = |name: &str, options: serde_json::Value| serde_json::json!({"stream": format!("{name}:1.0.0"), "connector": "kafka", "options": options});
        let guarantee = "AT_LEAST_ONCE";
        let sink = serde_json::json!({"bootstrap_servers": servers, "delivery_guarantee": guarantee});
        let source = serde_json::json!({"bootstrap_servers": servers, "consumer_group": "group", "topics": ["in"]});
        let config = serde_json::json!({
            "stream_manager": {
                "job_name": "job",
                "stream_config_uri": format!("file://{}/streams.json", folder.display()),
                "schema_uris": [],
                "source": stream("in", source),
                "sink": stream("out", sink.clone()),
                "error_sink": stream("error", sink),
            },
            "storage": {"uri": format!("file://{}", folder.display())},
        });
        Arc::new(serde_json::from_value(config).expect("a configuration"))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_job_starts_once_on_a_cluster_and_topics_must_exist() {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        let folder = std::env::temp_dir().join(format!("weir-startup-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&folder).expect("created");
        let stream = |name: &str| serde_json::json!({"stream": name, "schema_title": "s", "topics": [name]});
        let streams =
            serde_json::json!({"streams": {"in": stream("in"), "out": stream("out"), "error": stream("error")}});
        std::fs::write(folder.join("streams.json"), streams.to_string()).expect("written");
        let config = config(&cluster.bootstrap_servers(), &folder);
        for topic in ["in", "out"] {
            cluster.create_topic(topic, 2, 1).expect("created");
        }
        let missing = Environment::look(&config).await.expect_err("no error topic");
        assert_eq!(missing.code(), 2);
        assert!(missing.to_string().contains("topic `error` (stream_manager.error_sink)"), "{missing}");
        cluster.create_topic("error", 1, 1).expect("created");
        let environment = Environment::look(&config).await.expect("everything is there");
        let leadership = environment.leadership(&config).expect("good settings");
        let term = leadership.lead().await.expect("nobody else is there");
        let parts = prepare(&config, &environment, term).await.expect("everything is there");
        assert_eq!((parts.plan.splits.len(), parts.index.partitions_needed()), (24, 1));
        let second = environment.leadership(&config).expect("good settings").lead().await.expect_err("the first lives");
        assert_eq!(second.code(), 3, "{second}");
        std::fs::remove_dir_all(folder).expect("removed");
    }
}
