//! Topics: whether they exist, how large a record may be, how many partitions progress has.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication},
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
};
use weir_common::{kafka as settings, split::TopicName};

use super::{Kafka, KafkaProblem, REQUEST_TIMEOUT, problem, refused};

/// Kafka's name of the limit.
const MAX_MESSAGE_BYTES: &str = "max.message.bytes";

/// A broker that does not know the request (librdkafka's mock) never answers it.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(5);

/// The replay topic keeps what was replayed for so long at least, milliseconds.
const REPLAY_RETENTION_MIN_MS: i64 = 7 * 24 * 3600 * 1000;

/// `num_partitions` and replication: the broker's default.
const BROKER_DEFAULT: i32 = -1;

/// A new topic is known to all brokers after a while.
const CREATION_POLLS: usize = 100;
const CREATION_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How many partitions a topic has; `None` where there is none.
pub(super) fn partition_count<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    address: &str,
) -> Result<Option<i32>, KafkaProblem> {
    let what = || format!("asking {address} for topic `{topic}`");
    let metadata = consumer.fetch_metadata(Some(topic), REQUEST_TIMEOUT).map_err(|error| problem(&what(), &error))?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
    match found.error().map(RDKafkaErrorCode::from) {
        None => Ok(i32::try_from(found.partitions().len()).ok().filter(|count| *count > 0)),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(None),
        Some(code) => Err(problem(&what(), &KafkaError::MetadataFetch(code))),
    }
}

/// What an administrator's request comes to, for each thing that was asked for.
type Done<T> = Result<T, (String, RDKafkaErrorCode)>;

/// Why the one thing that was asked for was not done.
fn code_of<T>(results: Result<Vec<Done<T>>, KafkaError>) -> Option<RDKafkaErrorCode> {
    match results.map(|mut results| results.pop()) {
        Ok(None | Some(Ok(_))) => None,
        Ok(Some(Err((_, code)))) => Some(code),
        Err(error) => Some(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown)),
    }
}

fn missing(topic: &str, address: &str, key: &str) -> KafkaProblem {
    KafkaProblem::Configuration(format!(
        "topic `{topic}` ({key}) does not exist at {address}; create it, or correct the name or the address"
    ))
}

impl Kafka {
    /// Partitions of the source topics, and of the replay topic where there is one.
    ///
    /// # Errors
    /// [`KafkaProblem::Configuration`] names a topic that does not exist, and its key.
    pub async fn source_partitions(&self, topics: &[String]) -> Result<BTreeMap<TopicName, i32>, KafkaProblem> {
        let topics = topics.to_vec();
        self.blocking(move |shared| {
            let replay = settings::replay_topic(shared.job());
            let replayed = partition_count(&*shared.progress, &replay, shared.sink_address())?;
            let address = shared.source_address();
            let count = |topic: &String| {
                let count = partition_count(&shared.source, topic, address)?;
                let key = "stream_manager.source.options.topics, or the stream configuration's";
                Ok((TopicName::from(topic.as_str()), count.ok_or_else(|| missing(topic, address, key))?))
            };
            let counts = topics.iter().map(count).collect::<Result<Vec<_>, _>>()?;
            Ok(counts.into_iter().chain(replayed.map(|count| (replay.into(), count))).collect())
        })
        .await
    }

    /// Whether a topic that is written to exists.
    ///
    /// # Errors
    /// It does not: [`KafkaProblem::Configuration`] names it.
    pub async fn verify_sink(&self, topic: &str) -> Result<(), KafkaProblem> {
        let topic = topic.to_owned();
        self.blocking(move |shared| {
            let address = shared.sink_address();
            let count = partition_count(&shared.progress, &topic, address)?;
            count.map(|_| ()).ok_or_else(|| missing(&topic, address, "stream_manager.sink"))
        })
        .await
    }

    /// Whether the error topic exists, on whichever cluster it is.
    ///
    /// # Errors
    /// It does not: [`KafkaProblem::Configuration`] names it.
    pub async fn verify_error_sink(&self, topic: &str) -> Result<(), KafkaProblem> {
        let topic = topic.to_owned();
        self.blocking(move |shared| {
            let address = shared.config.stream_manager.error_sink.options.bootstrap_servers.as_str();
            let exists = match settings::error_producer(&shared.config) {
                None => partition_count(&shared.progress, &topic, address)?.is_some(),
                // A producer that asks for one topic may create it; asking for all does not.
                Some(config) => {
                    let client: AdminClient<settings::LoggingContext> = config
                        .create_with_context(settings::LoggingContext::new("error-sink"))
                        .map_err(|error| refused("error_sink", &error))?;
                    let what = format!("asking {address} for topic `{topic}`");
                    let metadata = client.inner().fetch_metadata(None, REQUEST_TIMEOUT);
                    let metadata = metadata.map_err(|error| problem(&what, &error))?;
                    metadata.topics().iter().any(|found| found.name() == topic)
                }
            };
            if exists { Ok(()) } else { Err(missing(&topic, address, "stream_manager.error_sink")) }
        })
        .await
    }

    /// The topic's `max.message.bytes`, the broker's default included; 0 where it is not known.
    pub async fn max_message_bytes(&self, topic: &str) -> u64 {
        let limit = self.topic_setting(topic, MAX_MESSAGE_BYTES).await.and_then(|value| value.parse().ok());
        if limit.is_none() {
            tracing::warn!(topic, "{MAX_MESSAGE_BYTES} of the topic is not known; only the producer's limit is kept");
        }
        limit.unwrap_or_default()
    }

    /// A setting of a topic of the sink cluster, the broker's default included, if it can be had.
    async fn topic_setting(&self, topic: &str, name: &str) -> Option<String> {
        let admin = self.admin().ok()?;
        let options = AdminOptions::new().request_timeout(Some(DESCRIBE_TIMEOUT));
        let resource = ResourceSpecifier::Topic(topic);
        let described = admin.describe_configs([&resource], &options);
        let resources = tokio::time::timeout(DESCRIBE_TIMEOUT, described).await.ok()?.ok()?;
        resources.into_iter().flatten().find_map(|resource| resource.get(name)?.value.clone())
    }

    /// Makes sure that there is a replay topic: one partition, for key ranges share it. It remembers what was replayed, so it
    /// keeps its records as long as the error topic keeps an event, and for seven days at least; and it takes whatever a
    /// producer of the job may write.
    ///
    /// # Errors
    /// It cannot be created; the text says how to create it by hand.
    pub async fn ensure_replay_topic(&self, error_topic: &str) -> Result<(), KafkaProblem> {
        let topic = settings::replay_topic(self.shared.job());
        if self.replay_partitions().await?.is_some() {
            return Ok(());
        }
        // Where the error topic is elsewhere its retention is not looked up: for ever is long enough.
        let kept = if settings::error_sink_is_elsewhere(&self.shared.config) {
            None
        } else {
            self.topic_setting(error_topic, "retention.ms").await
        };
        let retention = match kept.and_then(|text| text.parse::<i64>().ok()) {
            Some(kept) if kept >= 0 => kept.max(REPLAY_RETENTION_MIN_MS),
            _ => -1,
        };
        let (retention, limit) =
            (retention.to_string(), settings::effective_max_message_bytes(&self.shared.config).to_string());
        let new = NewTopic::new(&topic, 1, TopicReplication::Fixed(BROKER_DEFAULT))
            .set("cleanup.policy", "delete")
            .set("retention.ms", &retention)
            .set("retention.bytes", "-1")
            .set(MAX_MESSAGE_BYTES, &limit);
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
        let results = self.admin()?.create_topics([&new], &options).await;
        match code_of(results) {
            None | Some(RDKafkaErrorCode::TopicAlreadyExists) => {}
            Some(code) => {
                return Err(KafkaProblem::Configuration(format!(
                    "topic `{topic}` at {} cannot be created: {code}; create it by hand with one partition and retention.ms \
                     {retention}, or give the job's user the right to",
                    self.shared.sink_address()
                )));
            }
        }
        for _ in 0..CREATION_POLLS {
            if self.replay_partitions().await?.is_some() {
                return Ok(());
            }
            tokio::time::sleep(CREATION_POLL_INTERVAL).await;
        }
        Err(KafkaProblem::Unreachable(format!(
            "topic `{topic}` was created, but {} does not show it",
            self.shared.sink_address()
        )))
    }

    async fn replay_partitions(&self) -> Result<Option<i32>, KafkaProblem> {
        self.blocking(|shared| {
            partition_count(&*shared.progress, &settings::replay_topic(shared.job()), shared.sink_address())
        })
        .await
    }

    /// Makes sure that the progress topic has so many partitions, creating it or growing it.
    ///
    /// # Errors
    /// It cannot be created; the text says how to create it by hand.
    pub async fn ensure_progress_topic(&self, partitions: i32) -> Result<(), KafkaProblem> {
        let topic = settings::progress_topic(self.shared.job());
        let have = self.progress_partitions().await?;
        if have >= partitions {
            return Ok(());
        }
        let admin = self.admin()?;
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
        let results = if have == 0 {
            let new = NewTopic::new(&topic, partitions, TopicReplication::Fixed(BROKER_DEFAULT));
            admin.create_topics([&new], &options).await
        } else {
            let count = usize::try_from(partitions).unwrap_or_default();
            admin.create_partitions([&NewPartitions::new(&topic, count)], &options).await
        };
        match code_of(results) {
            None | Some(RDKafkaErrorCode::TopicAlreadyExists) => self.await_progress_topic(&topic, partitions).await,
            Some(code) => Err(KafkaProblem::Configuration(format!(
                "topic `{topic}` at {} cannot be given {partitions} partitions: {code}; create it by hand (it is never \
                 written to), or give the job's user the right to",
                self.shared.sink_address()
            ))),
        }
    }

    async fn await_progress_topic(&self, topic: &str, partitions: i32) -> Result<(), KafkaProblem> {
        for _ in 0..CREATION_POLLS {
            if self.progress_partitions().await? >= partitions {
                return Ok(());
            }
            tokio::time::sleep(CREATION_POLL_INTERVAL).await;
        }
        Err(KafkaProblem::Unreachable(format!(
            "topic `{topic}` was given {partitions} partitions, but {} does not show them",
            self.shared.sink_address()
        )))
    }

    /// Partitions of the progress topic, 0 before it was created.
    ///
    /// # Errors
    /// The sink cluster does not answer.
    pub async fn progress_partitions(&self) -> Result<i32, KafkaProblem> {
        self.blocking(|shared| {
            let topic = settings::progress_topic(shared.job());
            Ok(partition_count(&shared.progress, &topic, shared.sink_address())?.unwrap_or_default())
        })
        .await
    }

    fn admin(&self) -> Result<AdminClient<settings::LoggingContext>, KafkaProblem> {
        settings::sink_admin(&self.shared.config)
            .create_with_context(settings::LoggingContext::new("admin"))
            .map_err(|error| refused("sink", &error))
    }
}
