//! The enricher of a configured job: streams and schemas found, then put together.

use anyhow::bail;
use weir_common::config::Config;
use weir_proto::v1::JobSpec;

use super::ReconcileEnricher;
use crate::record::Outcome;

/// The enricher of a job as the jobmanager resolved it; fetches the schemas of both output streams.
///
/// # Errors
/// A schema that cannot be had, and what [`ReconcileEnricher::new`] refuses.
pub async fn enricher_for(_config: &Config, job: &JobSpec) -> anyhow::Result<ReconcileEnricher> {
    bail!("job {}: no schemas yet", job.job_name)
}

/// Enriches one event without Kafka, for `weir enrich`. The outcome is what a taskmanager would produce.
///
/// # Errors
/// Streams or schemas that cannot be resolved. A bad event is not an error: its outcome is the error event.
pub async fn enrich_one(config: &Config, _event: &[u8]) -> anyhow::Result<Outcome> {
    bail!("job {}: no streams yet", config.stream_manager.job_name)
}
