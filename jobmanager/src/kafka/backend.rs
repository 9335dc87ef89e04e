//! Kafka for the running job.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use tokio::sync::mpsc;
use weir_common::{
    config::StartingOffsets,
    ids::SlotId,
    split::{SplitId, SplitsPerPartition, TopicName, TopicPartition},
};

use super::{Kafka, KafkaProblem, ReplayEnd, ReplayRequest, ReplayStep, Topics};
use crate::{
    coordinator::event::SplitStates,
    errors::{ErrorEvent, Filter, Found, Position},
    runtime::{
        ResetTo,
        backend::{Backend, SinkEnd},
    },
    start::{JobRecord, topics::TopicIds},
};

/// [`Backend`] on the job's clusters.
#[derive(Debug)]
pub struct KafkaBackend {
    kafka: Kafka,
    source_topics: Mutex<Vec<String>>,
    error_topic: String,
    splits_per_partition: SplitsPerPartition,
}

impl KafkaBackend {
    /// For a job that reads these topics.
    #[must_use]
    pub fn new(
        kafka: Kafka,
        source_topics: Vec<String>,
        error_topic: String,
        splits_per_partition: SplitsPerPartition,
    ) -> Self {
        Self { kafka, source_topics: Mutex::new(source_topics), error_topic, splits_per_partition }
    }

    fn source_topics(&self) -> Vec<String> {
        self.source_topics.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Backend for KafkaBackend {
    async fn fence(&self, slot: SlotId) -> Result<(), KafkaProblem> {
        self.kafka.fence(slot).await
    }

    async fn read_progress(&self, splits: BTreeMap<SplitId, i32>) -> Result<SplitStates, KafkaProblem> {
        self.kafka.read_progress(splits).await
    }

    async fn write_progress(&self, splits: SplitStates, places: BTreeMap<SplitId, i32>) -> Result<(), KafkaProblem> {
        self.kafka.write_progress(splits, places, self.splits_per_partition).await
    }

    async fn write_record(&self, record: JobRecord) -> Result<(), KafkaProblem> {
        self.kafka.write_record(record).await
    }

    async fn ensure_progress_partitions(&self, partitions: i32) -> Result<(), KafkaProblem> {
        self.kafka.ensure_progress_topic(partitions).await
    }

    async fn mirror(&self, cursors: BTreeMap<TopicPartition, i64>) -> Result<(), KafkaProblem> {
        self.kafka.mirror(cursors).await
    }

    async fn log_ends(&self, partitions: Vec<TopicPartition>) -> BTreeMap<TopicPartition, i64> {
        self.kafka.log_ends(partitions).await
    }

    async fn sink_ends(&self, topics: Vec<String>) -> Result<Vec<SinkEnd>, KafkaProblem> {
        self.kafka.sink_ends(topics).await
    }

    async fn reset_offsets(
        &self,
        partitions: Vec<TopicPartition>,
        to: ResetTo,
    ) -> Result<BTreeMap<TopicPartition, i64>, KafkaProblem> {
        self.kafka.reset_offsets(partitions, to).await
    }

    async fn topic_ids(&self) -> Result<TopicIds, KafkaProblem> {
        let topics = self.source_topics().into_iter().chain([self.kafka.replay_topic()]);
        self.kafka.topic_ids(topics.map(TopicName::from).collect()).await
    }

    async fn commit_group(&self, group: String, offsets: BTreeMap<TopicPartition, i64>) -> Result<(), KafkaProblem> {
        self.kafka.commit_group(group, offsets).await
    }

    async fn group_offsets(
        &self,
        group: String,
        partitions: Vec<TopicPartition>,
    ) -> Result<BTreeMap<TopicPartition, i64>, KafkaProblem> {
        self.kafka.group_offsets(group, partitions).await
    }

    async fn read_also(&self, topics: Vec<String>) -> Result<(), KafkaProblem> {
        self.kafka.source_partitions(&topics).await?;
        let mut known = self.source_topics.lock().unwrap_or_else(PoisonError::into_inner);
        let new: Vec<String> = topics.into_iter().filter(|topic| !known.contains(topic)).collect();
        known.extend(new);
        Ok(())
    }

    async fn new_partitions(
        &self,
        known: BTreeSet<TopicPartition>,
    ) -> Result<BTreeMap<TopicPartition, i64>, KafkaProblem> {
        let counts = self.kafka.source_partitions(&self.source_topics()).await?;
        let all = super::source::partitions(&counts);
        let new: Vec<TopicPartition> = all.into_iter().filter(|partition| !known.contains(partition)).collect();
        if new.is_empty() {
            return Ok(BTreeMap::new());
        }
        self.kafka.start_offsets(new, StartingOffsets::Earliest).await
    }

    async fn list_errors(&self, filter: Filter, limit: usize) -> Result<Found, KafkaProblem> {
        self.kafka.list_errors(self.error_topic.clone(), filter, limit).await
    }

    async fn error_at(&self, position: Position) -> Result<Option<(ErrorEvent, Vec<u8>)>, KafkaProblem> {
        self.kafka.error_at(self.error_topic.clone(), position).await
    }

    async fn replay_errors(
        &self,
        request: ReplayRequest,
        steps: mpsc::Sender<ReplayStep>,
    ) -> Result<ReplayEnd, KafkaProblem> {
        let topics = Topics { errors: self.error_topic.clone(), source: self.source_topics() };
        self.kafka.replay_errors(topics, request, steps).await
    }
}
