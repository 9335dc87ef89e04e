//! What the runtime asks of Kafka. A trait, so that the protocol is tested without a broker.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use tokio::sync::mpsc;
use weir_common::{
    ids::SlotId,
    split::{SplitId, TopicPartition},
};

use super::ResetTo;
use crate::{
    coordinator::event::SplitStates,
    errors::{ErrorEvent, Filter, Found, Position},
    kafka::{KafkaProblem, ReplayEnd, ReplayRequest, ReplayStep},
    start::{JobRecord, topics::TopicIds},
};

/// How far readers of committed records get in a partition of the sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkEnd {
    /// Which.
    pub partition: TopicPartition,
    /// The first offset that such a reader does not get: an open transaction holds it.
    pub last_stable_offset: i64,
    /// The partition's end.
    pub high_watermark: i64,
}

/// Kafka, as the running job needs it. All calls end within a bounded time; dropping a future leaves its call running.
#[async_trait]
pub trait Backend: std::fmt::Debug + Send + Sync {
    /// Makes the broker refuse the slot's former owner.
    async fn fence(&self, slot: SlotId) -> Result<(), KafkaProblem>;

    /// The splits' stable progress, by their partitions of the progress topic.
    async fn read_progress(&self, splits: BTreeMap<SplitId, i32>) -> Result<SplitStates, KafkaProblem>;

    /// Writes progress of splits that nobody owns.
    async fn write_progress(&self, splits: SplitStates, places: BTreeMap<SplitId, i32>) -> Result<(), KafkaProblem>;

    /// Writes the job record.
    async fn write_record(&self, record: JobRecord) -> Result<(), KafkaProblem>;

    /// Grows the progress topic.
    async fn ensure_progress_partitions(&self, partitions: i32) -> Result<(), KafkaProblem>;

    /// Commits the cursors for lag tools.
    async fn mirror(&self, cursors: BTreeMap<TopicPartition, i64>) -> Result<(), KafkaProblem>;

    /// Log end offsets, as far as they are known.
    async fn log_ends(&self, partitions: Vec<TopicPartition>) -> BTreeMap<TopicPartition, i64>;

    /// How far each partition of these topics of the sink cluster is stable.
    async fn sink_ends(&self, topics: Vec<String>) -> Result<Vec<SinkEnd>, KafkaProblem>;

    /// Where a reset leads, for each partition that it means.
    async fn reset_offsets(
        &self,
        partitions: Vec<TopicPartition>,
        to: ResetTo,
    ) -> Result<BTreeMap<TopicPartition, i64>, KafkaProblem>;

    /// The ids of the source topics, as far as they are known.
    async fn topic_ids(&self) -> Result<TopicIds, KafkaProblem>;

    /// Commits plain offsets to a consumer group on the source cluster, which must have no members.
    async fn commit_group(&self, group: String, offsets: BTreeMap<TopicPartition, i64>) -> Result<(), KafkaProblem>;

    /// What a consumer group has committed on the source cluster; partitions without a commit are left out.
    async fn group_offsets(
        &self,
        group: String,
        partitions: Vec<TopicPartition>,
    ) -> Result<BTreeMap<TopicPartition, i64>, KafkaProblem>;

    /// These topics belong to the source, too, from now on.
    ///
    /// # Errors
    /// One that is not there; then none of them does.
    async fn read_also(&self, topics: Vec<String>) -> Result<(), KafkaProblem>;

    /// The source's partitions that are not known yet, each with the offset of its oldest record.
    async fn new_partitions(
        &self,
        known: BTreeSet<TopicPartition>,
    ) -> Result<BTreeMap<TopicPartition, i64>, KafkaProblem>;

    /// The newest error events that the filter takes, at most `limit`.
    async fn list_errors(&self, filter: Filter, limit: usize) -> Result<Found, KafkaProblem>;

    /// The error event at an offset, with its text; `None` where there is no record.
    async fn error_at(&self, position: Position) -> Result<Option<(ErrorEvent, Vec<u8>)>, KafkaProblem>;

    /// Sends the inputs of errors through again; ends early when `steps` is closed.
    async fn replay_errors(
        &self,
        request: ReplayRequest,
        steps: mpsc::Sender<ReplayStep>,
    ) -> Result<ReplayEnd, KafkaProblem>;
}
