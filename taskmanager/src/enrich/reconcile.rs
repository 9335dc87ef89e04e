//! The enricher of `mw-content-history-reconcile-enrich`: content of all slots, redirect target, all of it bounded.

use anyhow::bail;
use async_trait::async_trait;
use serde_json::Value;
use weir_common::{
    config::{Config, Enrich},
    counters::OutcomeKind,
};
use weir_proto::v1::JobSpec;

use super::{Enricher, OutputStream, metrics::Metrics};
use crate::record::{Outcome, SourceRecord};

/// The output streams' JSON schemas, `$ref` resolved.
#[derive(Clone, Debug)]
pub struct Schemas {
    /// Schema of the sink, the version that is pinned.
    pub sink: Value,
    /// Schema of the error sink.
    pub error: Value,
}

/// See the module. One a taskmanager: requests and batches are shared by all records.
#[derive(Debug)]
pub struct ReconcileEnricher {
    metrics: Metrics,
}

impl ReconcileEnricher {
    /// Puts the enricher together. `job_name` becomes the error events' `emitter_id`.
    ///
    /// # Errors
    /// A schema that does not compile, an endpoint template that is no URL, a CA bundle that cannot be read.
    pub fn new(
        _config: &Enrich,
        _job_name: &str,
        _sink: OutputStream,
        _error_sink: OutputStream,
        _schemas: &Schemas,
    ) -> anyhow::Result<Self> {
        Ok(Self { metrics: Metrics::default() })
    }

    /// Requests, retries, pruned fields; clones count into the same numbers.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

#[async_trait]
impl Enricher for ReconcileEnricher {
    fn reservation(&self, record: &SourceRecord) -> u64 {
        record.value.as_ref().map_or(0, |value| value.len() as u64)
    }

    fn page(&self, _record: &SourceRecord) -> Option<(String, i64)> {
        None
    }

    async fn enrich(&self, _record: &SourceRecord) -> Outcome {
        Outcome { kind: OutcomeKind::Dropped, output: None, error_type: None }
    }
}

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
