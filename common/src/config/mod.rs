//! The configuration file: one YAML for both binaries, production's PyFlink file accepted as it stands.
//!
//! `stream_manager` and `enrich` are production's sections; everything else is Weir's. Dotted keys
//! (`checkpoint.interval: 30 s`) and nested ones mean the same.

mod budget;
mod checks;
pub mod duration;
mod effective;
mod enrich;
mod jobmanager;
mod load;
mod nearest;
mod reader;
mod restart_strategy;
mod savepoint;
pub mod size;
mod starting_offsets;
mod template;

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

pub(crate) use self::nearest::nearest;
use self::size::ByteSize;
pub use self::{
    budget::RetryBudget,
    effective::EffectiveValue,
    enrich::{Enrich, EnrichJob, NotFound, Retry, UnknownFields},
    jobmanager::{HighAvailability, HighAvailabilityType, Jobmanager},
    load::{ConfigError, Ignored, Loaded, Origin, Problem, load},
    restart_strategy::{ExponentialDelay, FailureRate, FixedDelay, RestartKind, RestartStrategy},
    savepoint::Savepoint,
    starting_offsets::StartingOffsets,
};
use crate::split::SplitsPerPartition;

/// The effective configuration. Every field has its unit, default and the reason to change it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What to read and write.
    pub stream_manager: StreamManager,
    /// How to ask MediaWiki.
    #[serde(default)]
    pub enrich: Enrich,
    /// Splits, order and start of the job.
    #[serde(default)]
    pub job: Job,
    /// Periodic snapshots.
    #[serde(default)]
    pub checkpoint: Checkpoint,
    /// Periodic savepoints, and the offset cut.
    #[serde(default)]
    pub savepoint: Savepoint,
    /// Where snapshots live.
    #[serde(default)]
    pub storage: Storage,
    /// The sink's transactions.
    #[serde(default)]
    pub transaction: Transaction,
    /// Discovery of partitions.
    #[serde(default)]
    pub partition: Partition,
    /// How often the stream configuration is read again.
    #[serde(default)]
    pub stream_config: StreamConfig,
    /// How soon a silent taskmanager counts as lost.
    #[serde(default)]
    pub heartbeat: Heartbeat,
    /// What follows a failure.
    #[serde(default)]
    pub restart_strategy: RestartStrategy,
    /// The jobmanager's addresses.
    #[serde(default)]
    pub jobmanager: Jobmanager,
    /// Whether another jobmanager stands by.
    #[serde(default)]
    pub high_availability: HighAvailability,
    /// The taskmanager's addresses and limits.
    #[serde(default)]
    pub taskmanager: Taskmanager,
    /// Logging of both.
    #[serde(default)]
    pub log: Log,
}

/// Production's section of the same name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamManager {
    /// Names the job: transactional ids, progress topic and storage keys carry it. `[A-Za-z0-9._-]{1,200}`.
    pub job_name: String,
    /// EventStreamConfig's API (`action=streamconfigs`), `http(s)://`; or `file://` of a file with its answer.
    pub stream_config_uri: String,
    /// Requests for a URL that starts with the key go to the value's scheme, host and port, with the key's `Host`.
    #[serde(default)]
    pub http_client_routes: BTreeMap<String, String>,
    /// Schema repositories, asked in order: `file://` or `http(s)://`.
    pub schema_uris: Vec<String>,
    /// Events in.
    pub source: Source,
    /// Enriched events out.
    pub sink: Sink,
    /// Error events out.
    pub error_sink: Sink,
}

/// The stream that is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// `name:schema-version`.
    pub stream: StreamName,
    /// `kafka`, the only one.
    pub connector: String,
    /// Kafka's part.
    pub options: SourceOptions,
}

/// A stream and the version of its schema that is pinned, written `name:version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StreamName {
    /// Name in the stream configuration.
    pub name: String,
    /// Version of the schema, `1.2.0`.
    pub version: String,
}

impl TryFrom<String> for StreamName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once(':') {
            Some((name, version)) if !name.is_empty() && !version.is_empty() => {
                Ok(Self { name: name.to_owned(), version: version.to_owned() })
            }
            _ => Err(format!("`{text}` is not `stream:schema-version`, for example `mediawiki.page_change.v1:1.2.0`")),
        }
    }
}

impl From<StreamName> for String {
    fn from(stream: StreamName) -> Self {
        format!("{}:{}", stream.name, stream.version)
    }
}

/// Where and how the source is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceOptions {
    /// `host:port,host:port`.
    pub bootstrap_servers: String,
    /// Topics to read. Default: those of the stream configuration.
    #[serde(default)]
    pub topics: Option<Vec<String>>,
    /// Group that the lag is mirrored to; it must have no members of its own.
    pub consumer_group: String,
    /// Further client properties, Java names translated; see [`crate::kafka`].
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}

/// A stream that is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sink {
    /// `name:schema-version`.
    pub stream: StreamName,
    /// `kafka`, the only one.
    pub connector: String,
    /// Kafka's part.
    pub options: SinkOptions,
}

/// Where and how a sink is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkOptions {
    /// `host:port,host:port`.
    pub bootstrap_servers: String,
    /// The topic is this and the stream's name. Default: the stream configuration's first topic.
    #[serde(default)]
    pub kafka_topic_prefix: Option<String>,
    /// Default `EXACTLY_ONCE`. Both sinks must agree.
    #[serde(default)]
    pub delivery_guarantee: DeliveryGuarantee,
    /// Further client properties, Java names translated; see [`crate::kafka`].
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}

/// What an input's output is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DeliveryGuarantee {
    /// Output, error events and progress are one transaction.
    #[default]
    ExactlyOnce,
    /// No transactions; after a failure some records come twice.
    AtLeastOnce,
}

impl Config {
    /// The configured job; where none is, page_change's own stream makes it the job of that, all others are reconciled.
    #[must_use]
    pub fn enrich_job(&self) -> EnrichJob {
        let by_stream = match self.stream_manager.source.stream.name.as_str() {
            "mediawiki.page_change.v1" => EnrichJob::PageContentChange,
            _ => EnrichJob::ContentHistoryReconcile,
        };
        self.enrich.job.unwrap_or(by_stream)
    }
}

/// In which order results of one split leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// As read, for records with the same key.
    #[default]
    Key,
    /// As read, for all records of a partition; needs `splits_per_partition: 1`.
    Partition,
    /// As they come.
    None,
}

/// The job's shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Job {
    /// Key ranges of every partition; changed at an offset cut alone. Default 12: up to twelve taskmanagers share a
    /// partition.
    pub splits_per_partition: SplitsPerPartition,
    /// Default `key`.
    pub order: Order,
    /// Where a job starts that has neither progress nor snapshot. Default `earliest`: nothing is missed.
    pub starting_offsets: StartingOffsets,
}

impl Default for Job {
    fn default() -> Self {
        Self {
            splits_per_partition: SplitsPerPartition::DEFAULT,
            order: Order::Key,
            starting_offsets: StartingOffsets::Earliest,
        }
    }
}

/// Periodic snapshots, Flink's names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Checkpoint {
    /// Time between two barriers. Default 30 s.
    #[serde(with = "duration")]
    pub interval: Duration,
    /// Least time between the end of one and the next barrier. Default 0 s.
    #[serde(with = "duration")]
    pub min_pause: Duration,
    /// After this a checkpoint fails. Default 10 min.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// Newest checkpoints that are kept. Default 10. Savepoints are never deleted by themselves.
    pub retained: usize,
    /// Consecutive failures after which status says degraded. Default 0.
    pub tolerable_failed_checkpoints: u32,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(30),
            min_pause: Duration::ZERO,
            timeout: Duration::from_secs(600),
            retained: 10,
            tolerable_failed_checkpoints: 0,
        }
    }
}

/// Where snapshots live.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Storage {
    /// `s3://bucket/prefix` or `file:///folder`. Keys below it: `<job>/checkpoints/…`, `<job>/savepoints/…`.
    pub uri: String,
    /// How to reach S3.
    pub s3: S3,
}

impl Default for Storage {
    fn default() -> Self {
        Self { uri: "file:///var/lib/weir".to_owned(), s3: S3::default() }
    }
}

/// S3-compatible storage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct S3 {
    /// `https://rgw.example.org`. Default: AWS by region.
    pub endpoint: Option<String>,
    /// Default `us-east-1`; RGW ignores it.
    pub region: String,
    /// Bucket in the path instead of the host name. Default true.
    #[serde(rename = "path_style_access")]
    pub path_style_access: bool,
    /// Default: `AWS_ACCESS_KEY_ID` of the environment.
    pub access_key_id: Option<String>,
    /// Default: `AWS_SECRET_ACCESS_KEY` of the environment.
    pub secret_access_key: Option<Secret>,
    /// Time for one request. Default 10 s.
    #[serde(with = "duration")]
    pub request_timeout: Duration,
}

impl Default for S3 {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: "us-east-1".to_owned(),
            path_style_access: true,
            access_key_id: None,
            secret_access_key: None,
            request_timeout: Duration::from_secs(10),
        }
    }
}

/// Text that is never shown: its `Debug` and `Serialize` write stars.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the one place that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

/// The sink's transactions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Transaction {
    /// Time between two commits; also how often progress is reported. Default 1 s; at most a fifth of `timeout`.
    #[serde(with = "duration")]
    pub interval: Duration,
    /// `transaction.timeout.ms`: the broker aborts what is open longer. Default 60 s.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// A cut slower than this counts as doubtful, and the producer is recycled. Default 2 s.
    #[serde(with = "duration")]
    pub slow: Duration,
}

impl Default for Transaction {
    fn default() -> Self {
        Self { interval: Duration::from_secs(1), timeout: Duration::from_secs(60), slow: Duration::from_secs(2) }
    }
}

/// Section `partition`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Partition {
    /// Section `partition.discovery`.
    pub discovery: Discovery,
}

/// Discovery of new partitions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Discovery {
    /// Time between two looks. Default 60 s.
    #[serde(with = "duration")]
    pub interval: Duration,
}

impl Default for Discovery {
    fn default() -> Self {
        Self { interval: Duration::from_secs(60) }
    }
}

/// Section `stream_config`: what EventStreamConfig said is not for ever.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamConfig {
    /// Time between two readings. Default 5 min.
    #[serde(with = "duration")]
    pub refresh_interval: Duration,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self { refresh_interval: Duration::from_secs(300) }
    }
}

/// Heartbeats between jobmanager and taskmanagers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Heartbeat {
    /// Time between two. Default 1 s.
    #[serde(with = "duration")]
    pub interval: Duration,
    /// A taskmanager silent for this long is fenced and its splits move. Default 10 s.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// How long a taskmanager goes on committing without hearing from a jobmanager. Default 5 min. It may exceed
    /// `timeout`: what keeps two owners apart is the fence, the grant only keeps a zombie from initialising anew.
    #[serde(with = "duration")]
    pub grant: Duration,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { interval: Duration::from_secs(1), timeout: Duration::from_secs(10), grant: Duration::from_secs(300) }
    }
}

/// The taskmanager's own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Taskmanager {
    /// Prometheus metrics and health listen here. Default `127.0.0.1:0`: any free port, logged.
    pub metrics_bind: String,
    /// Bytes of events, answers and results held at once. Default: 40 % of the memory limit that the process sees, at
    /// most 64 MiB.
    pub memory_budget: Option<ByteSize>,
    /// Time for SIGTERM's drain; after it the process leaves anyway. Default 25 s, under Kubernetes' 30.
    #[serde(with = "duration")]
    pub drain_timeout: Duration,
    /// Records being enriched at once. Default 2000.
    pub max_in_flight: usize,
}

impl Default for Taskmanager {
    fn default() -> Self {
        Self {
            metrics_bind: "127.0.0.1:0".to_owned(),
            memory_budget: None,
            drain_timeout: Duration::from_secs(25),
            max_in_flight: 2000,
        }
    }
}

/// Logging of both binaries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Default `text`.
    pub format: LogFormat,
    /// `info`, or a filter such as `info,weir_taskmanager=debug`. Default `info`.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// Elastic Common Schema, a JSON object a line.
    Ecs,
}
