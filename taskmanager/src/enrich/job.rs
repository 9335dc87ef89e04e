//! The enricher of a configured job: streams and schemas found, then put together.

use anyhow::Context;
use bytes::Bytes;
use weir_common::{
    config::Config,
    kafka::effective_max_message_bytes,
    schema::Repository,
    streams::{self, ResolvedStreams},
};
use weir_proto::v1::JobSpec;

use super::{Enricher, OutputStream, Recipe, ReconcileEnricher, Schemas};
use crate::record::{Outcome, SourceRecord};

/// The enricher of a job as the jobmanager resolved it; fetches the schemas of both output streams.
///
/// # Errors
/// A schema that cannot be had, and what [`ReconcileEnricher::new`] refuses.
pub async fn enricher_for(config: &Config, job: &JobSpec) -> anyhow::Result<ReconcileEnricher> {
    let stream = |stream: Option<&weir_proto::v1::OutputStream>, which| {
        stream.cloned().map(OutputStream::from).with_context(|| format!("the jobmanager's job names no {which}"))
    };
    let sink = stream(job.sink.as_ref(), "sink")?;
    let error_sink = stream(job.error_sink.as_ref(), "error sink")?;
    assemble(config, &job.job_name, sink, error_sink).await
}

/// Enriches one event without Kafka, for `weir enrich`. The outcome is what a taskmanager would produce.
///
/// # Errors
/// Streams or schemas that cannot be resolved. A bad event is not an error: its outcome is the error event.
pub async fn enrich_one(config: &Config, event: &[u8]) -> anyhow::Result<Outcome> {
    let ResolvedStreams { sink, error_sink, .. } = streams::resolve(config).await?;
    let enricher = assemble(config, &config.stream_manager.job_name, sink.into(), error_sink.into()).await?;
    let record = SourceRecord {
        topic: config.stream_manager.source.stream.name.as_str().into(),
        partition: 0,
        offset: 0,
        timestamp_ms: None,
        key: None,
        value: Some(Bytes::copy_from_slice(event)),
    };
    Ok(enricher.enrich(&record).await)
}

async fn assemble(
    config: &Config,
    job_name: &str,
    sink: OutputStream,
    error_sink: OutputStream,
) -> anyhow::Result<ReconcileEnricher> {
    let repository = Repository::new(config)?;
    let schemas = Schemas {
        sink: repository.fetch(&sink.schema_uri).await?,
        error: repository.fetch(&error_sink.schema_uri).await?,
    };
    let producer_limit = effective_max_message_bytes(config);
    let [sink, error_sink] = [sink, error_sink].map(|stream| stream.limited_to(producer_limit));
    let enricher = ReconcileEnricher::new(&config.enrich, job_name, sink, error_sink, &schemas)?;
    Ok(enricher.following(Recipe::of(config)))
}
