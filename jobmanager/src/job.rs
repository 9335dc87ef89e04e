//! The job as all its taskmanagers are told: one reading of the stream configuration.

use weir_common::config::{Config, DeliveryGuarantee};
use weir_proto::v1;

/// In [`v1::JobSpec::delivery_guarantee`].
pub const EXACTLY_ONCE: &str = "EXACTLY_ONCE";

/// In [`v1::JobSpec::delivery_guarantee`].
pub const AT_LEAST_ONCE: &str = "AT_LEAST_ONCE";

/// Whether the job's progress is kept in Kafka.
#[must_use]
pub fn exactly_once(config: &Config) -> bool {
    config.stream_manager.sink.options.delivery_guarantee == DeliveryGuarantee::ExactlyOnce
}

/// The job without its outputs.
#[must_use]
pub fn spec(config: &Config, sink: v1::OutputStream, error_sink: v1::OutputStream) -> v1::JobSpec {
    let job_name = config.stream_manager.job_name.clone();
    let progress = format!("{job_name}.progress");
    v1::JobSpec {
        delivery_guarantee: if exactly_once(config) { EXACTLY_ONCE } else { AT_LEAST_ONCE }.to_owned(),
        splits_per_partition: config.job.splits_per_partition.get(),
        progress_topic: progress.clone(),
        progress_group: progress,
        sink: Some(sink),
        error_sink: Some(error_sink),
        source_stream: config.stream_manager.source.stream.name.clone(),
        job_name,
    }
}
