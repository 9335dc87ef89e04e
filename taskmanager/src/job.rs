//! The job as the jobmanager resolved it: what every taskmanager works from.

use std::sync::Arc;

use futures::future::BoxFuture;
use weir_common::{
    config::{Config, DeliveryGuarantee},
    split::SplitsPerPartition,
};
use weir_proto::v1;

use crate::enrich::Enricher;

/// The job as the jobmanager resolved it.
#[derive(Clone, Debug, PartialEq)]
pub struct JobSpec {
    /// Name of the job.
    pub job_name: String,
    /// What an input's output is worth.
    pub delivery_guarantee: DeliveryGuarantee,
    /// Key ranges of every partition.
    pub splits_per_partition: SplitsPerPartition,
    /// Topic whose group offsets carry the progress.
    pub progress_topic: String,
    /// Topic of enriched events.
    pub sink_topic: String,
    /// Topic of error events.
    pub error_topic: String,
    /// All of it, as it was sent: for the enricher.
    pub message: v1::JobSpec,
}

/// A job that this build cannot run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobSpecError {
    /// A guarantee of a newer jobmanager.
    #[error(
        "the jobmanager's job has delivery guarantee `{0}`, which this build does not know: upgrade the taskmanager"
    )]
    UnknownGuarantee(String),
    /// Out of bounds.
    #[error("the jobmanager's job has {0} splits per partition, outside of 1..={max}", max = SplitsPerPartition::MAX)]
    SplitsPerPartition(u32),
    /// A part without which nothing works.
    #[error("the jobmanager's job has no `{0}`")]
    Missing(&'static str),
}

impl TryFrom<v1::JobSpec> for JobSpec {
    type Error = JobSpecError;

    fn try_from(job: v1::JobSpec) -> Result<Self, JobSpecError> {
        let delivery_guarantee = match job.delivery_guarantee.as_str() {
            "EXACTLY_ONCE" => DeliveryGuarantee::ExactlyOnce,
            "AT_LEAST_ONCE" => DeliveryGuarantee::AtLeastOnce,
            _ => return Err(JobSpecError::UnknownGuarantee(job.delivery_guarantee)),
        };
        let topic = |stream: &Option<v1::OutputStream>| stream.as_ref().map(|stream| stream.topic.clone());
        Ok(Self {
            job_name: job.job_name.clone(),
            delivery_guarantee,
            splits_per_partition: SplitsPerPartition::new(job.splits_per_partition)
                .ok_or(JobSpecError::SplitsPerPartition(job.splits_per_partition))?,
            progress_topic: job.progress_topic.clone(),
            sink_topic: topic(&job.sink).ok_or(JobSpecError::Missing("sink"))?,
            error_topic: topic(&job.error_sink).ok_or(JobSpecError::Missing("error_sink"))?,
            message: job,
        })
    }
}

/// Makes the job's enricher once the job is known; tried again when it fails (schemas out of reach).
pub type EnricherFactory =
    Arc<dyn Fn(Arc<Config>, Arc<JobSpec>) -> BoxFuture<'static, anyhow::Result<Arc<dyn Enricher>>> + Send + Sync>;
