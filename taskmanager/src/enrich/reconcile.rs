//! The enricher of `mw-content-history-reconcile-enrich`: content of all slots, redirect target, all of it bounded. Jobs of the
//! same kind follow another [`Recipe`].

use std::{future::Future, str, sync::Arc, time::Duration};

use anyhow::Context;
use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use weir_common::{
    config::{Enrich, UnknownFields},
    counters::OutcomeKind,
};

use super::{
    Enricher, EnricherStats, OutputStream,
    api::{Batcher, Client, Gate, Limits, Link, RedirectAsk, Redirects, Revision, RevisionAsk, Revisions},
    content,
    edit::Patch,
    error_event::error_event,
    event::{self, Sketch, Target, Treatment},
    fault::Fault,
    metrics::Metrics,
    output::{self, FRAMING_BYTES},
    prune::unknown_fields,
    recipe::Recipe,
    retry::{Attempts, Decision, Moment, RetryPolicy, asks_alone},
    routes::Kind,
    strict,
    validate::Schema,
};
use crate::record::{Destination, Outcome, OutputRecord, SourceRecord};

/// Most content that one event is counted with: the API's answers are capped, whatever an event declares.
const RESERVED_CONTENT_MAX: u64 = 16 * 1024 * 1024;

/// What an event takes beside its content: buffers, headers, bookkeeping.
const RESERVED_BASE: u64 = 4 * 1024;

/// What an object takes at least when it is parsed, however small: a node of its map.
const RESERVED_OBJECT: u64 = 700;

/// The output streams' JSON schemas, `$ref` resolved.
#[derive(Clone, Debug)]
pub struct Schemas {
    /// Schema of the sink, the version that is pinned.
    pub sink: Value,
    /// Schema of the error sink.
    pub error: Value,
}

/// See the module. One a taskmanager: requests and batches are shared by all records.
pub struct ReconcileEnricher {
    recipe: Recipe,
    emitter_id: String,
    sink: OutputStream,
    error_sink: OutputStream,
    schema: Schema,
    /// Content makes no valid event invalid: the sink's schema takes any text there.
    takes_any_content: bool,
    unknown_fields: UnknownFields,
    validate_output: bool,
    revisions: Batcher<Revisions>,
    redirects: Batcher<Redirects>,
    gate: Arc<Gate>,
    /// What the configuration allows this taskmanager.
    requests_max: usize,
    policy: RetryPolicy,
    metrics: Metrics,
}

impl ReconcileEnricher {
    /// Puts the enricher together. `job_name` becomes the error events' `emitter_id`.
    ///
    /// # Errors
    /// A schema that does not compile or that error events do not conform to, an endpoint template that is no URL, a CA
    /// bundle that cannot be read.
    pub fn new(
        config: &Enrich,
        job_name: &str,
        sink: OutputStream,
        error_sink: OutputStream,
        schemas: &Schemas,
    ) -> anyhow::Result<Self> {
        let schema = Schema::compile(&schemas.sink).with_context(|| format!("schema {}", sink.schema_uri))?;
        check_error_schema(job_name, &error_sink, &schemas.error)?;
        let metrics = Metrics::default();
        let client = Client::new(config, metrics.clone())?;
        let gate = Gate::new(config.max_concurrent_requests, metrics.clone());
        let limits = Limits { count: config.batch_revisions, bytes: config.batch_bytes.0, linger: config.batch_linger };
        Ok(Self {
            recipe: Recipe::CONTENT_HISTORY_RECONCILE,
            emitter_id: job_name.to_owned(),
            sink,
            error_sink,
            takes_any_content: content::TEXTS.iter().all(|path| schema.takes_any_text(path)),
            schema,
            unknown_fields: config.unknown_fields,
            validate_output: config.validate_output,
            revisions: Batcher::new(Revisions(client.clone()), limits, Arc::clone(&gate)),
            redirects: Batcher::new(Redirects(client), limits, Arc::clone(&gate)),
            gate,
            requests_max: config.max_concurrent_requests,
            policy: RetryPolicy::new(&config.retry, &config.not_found),
            metrics,
        })
    }

    /// The same for another job.
    #[must_use]
    pub fn following(mut self, recipe: Recipe) -> Self {
        self.recipe = recipe;
        self
    }

    /// Requests, retries, pruned fields; clones count into the same numbers.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    async fn work(&self, record: &SourceRecord) -> Result<Outcome, Fault> {
        let mut event = event::parse(record.value.as_deref())?;
        let time = event::event_time(&event);
        let treatment = event::treatment(&event, self.recipe.passed_through)?;
        if treatment == Treatment::Canary {
            return Ok(Outcome { kind: OutcomeKind::Dropped, output: None, error_type: None });
        }
        let timestamp_ms = time?.as_millisecond();
        let born = event::produced_at(&event)
            .or_else(|| record.timestamp_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()));
        let mut patch = Patch::default();
        output::stamp(&mut patch, &self.sink, Timestamp::now());
        self.conform(&mut patch, &mut event, Kind::InvalidInput)?;
        let kind = match treatment {
            Treatment::Enrich(target) => {
                let (revision, link) = self.fetch(&target, born).await?;
                let valid = self.takes_any_content && content::changes_texts_alone(&target, &revision, link.as_ref());
                content::fill(&mut patch, &target, revision, link.as_ref())?;
                if valid {
                    // The key may be made of what has changed.
                    patch.apply_to_value(&mut event);
                } else {
                    self.conform(&mut patch, &mut event, Kind::InvalidOutput)?;
                }
                OutcomeKind::Enriched
            }
            Treatment::PassThrough | Treatment::Canary => OutcomeKind::PassedThrough,
        };
        let output = self.output(record, &patch, &event, timestamp_ms)?;
        Ok(Outcome { kind, output: Some(output), error_type: None })
    }

    /// Brings `event` to where `patch` leads, treats what the sink's schema does not know, and validates the rest.
    fn conform(&self, patch: &mut Patch, event: &mut Value, invalid: Kind) -> Result<(), Fault> {
        patch.apply_to_value(event);
        let unknown = unknown_fields(self.schema.document(), event);
        if !unknown.is_empty() {
            if self.unknown_fields == UnknownFields::Error {
                let names: Vec<&str> = unknown.iter().map(|field| field.name.as_str()).take(20).collect();
                let message = format!("{} does not know: {}", self.sink.schema_uri, names.join(", "));
                return Err(Fault::new(Kind::UnknownFields, message));
            }
            let mut validated = Patch::default();
            for field in &unknown {
                let path: Vec<&str> = field.path.iter().map(String::as_str).collect();
                validated.remove(&path);
                if self.unknown_fields == UnknownFields::Prune {
                    patch.remove(&path);
                    self.metrics.count_pruned(&field.name);
                }
            }
            validated.apply_to_value(event);
        }
        if !self.validate_output {
            return Ok(());
        }
        let fault = |why| Fault::new(invalid, format!("does not conform to {}: {why}", self.sink.schema_uri));
        self.schema.check(event).map_err(fault)
    }

    /// Asks the API for content and redirect target, as often as the policy allows.
    async fn fetch(&self, target: &Target, born: Option<Timestamp>) -> Result<(Revision, Option<Link>), Fault> {
        let begun = Begun { at: Instant::now(), down_for: self.gate.down_for() };
        let revision = |alone| {
            let ask = RevisionAsk { rev_id: target.rev_id };
            self.revisions.ask(&target.domain, ask, target.content_bytes, alone)
        };
        let revision = self.persist(begun, born, revision).await?;
        if !(target.is_redirect && self.recipe.redirect_target) {
            return Ok((revision, None));
        }
        let title = Some(revision.page_title.clone()).filter(|_| revision.page_id == target.page_id);
        let link = |alone| {
            let ask = RedirectAsk { page_id: target.page_id, title: title.clone() };
            self.redirects.ask(&target.domain, ask, 0, alone)
        };
        let link = self.persist(begun, born, link).await?;
        Ok((revision, link))
    }

    async fn persist<T, F>(
        &self,
        begun: Begun,
        born: Option<Timestamp>,
        ask: impl Fn(bool) -> F + Send,
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>> + Send,
    {
        let mut attempts = Attempts::default();
        let mut alone = false;
        loop {
            let fault = match ask(alone).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            let age = born.map(|born| Duration::try_from(Timestamp::now().duration_since(born)).unwrap_or_default());
            // An outage is lag: its time is nobody's, and what fails in it is no attempt.
            let down_for = self.gate.down_for().saturating_sub(begun.down_for);
            let elapsed = begun.at.elapsed().saturating_sub(down_for);
            let outage = self.gate.is_down() && fault.is_of_the_endpoint();
            let moment = Moment { elapsed, age, outage, chance: rand::random() };
            match self.policy.decide(&mut attempts, &fault, moment) {
                Decision::GiveUp => return Err(given_up(fault, attempts)),
                Decision::Retry(wait) => {
                    self.metrics.count_retry();
                    alone = asks_alone(&fault, attempts);
                    sleep(wait).await;
                }
            }
        }
    }

    fn output(
        &self,
        record: &SourceRecord,
        patch: &Patch,
        event: &Value,
        timestamp_ms: i64,
    ) -> Result<OutputRecord, Fault> {
        let malformed = |why: String| Fault::new(Kind::MalformedInput, why);
        let raw = record.value.as_deref().unwrap_or_default();
        let text = str::from_utf8(raw).map_err(|error| malformed(format!("input is not UTF-8: {error}")))?;
        let value = patch.apply_to_text(text).map_err(|error| malformed(error.to_string()))?;
        let key = output::message_key(&self.sink, event)?;
        if !output::fits(&self.sink, key.as_ref(), &value) {
            let message = format!(
                "the output has {} bytes, more than the {} that one message to {} may have",
                value.len(),
                self.sink.max_message_bytes,
                self.sink.topic
            );
            return Err(Fault::new(Kind::Oversized, message));
        }
        Ok(OutputRecord { destination: Destination::Sink, key, value: Bytes::from(value), timestamp_ms })
    }

    fn error_record(&self, record: &SourceRecord, why: (&str, &str), bytes_max: Option<u64>) -> OutputRecord {
        let now = Timestamp::now();
        let raw = record.value.as_deref();
        // Parsed once more: errors are rare, and what was parsed first has been edited since.
        let input = event::parse(raw).ok();
        let key = input.as_ref().and_then(|event| output::message_key(&self.error_sink, event).ok()).flatten();
        let limit = match (self.error_sink.max_message_bytes, bytes_max) {
            (known, None) => known,
            (0, Some(now)) => now,
            (known, Some(now)) => known.min(now),
        };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let bytes_max = if limit == 0 {
            0
        } else {
            limit.saturating_sub(FRAMING_BYTES + key.as_ref().map_or(0, Bytes::len)).max(1)
        };
        let value = error_event(&self.error_sink, &self.emitter_id, why, raw, input.as_ref(), (now, bytes_max));
        let value = Bytes::from(value);
        OutputRecord { destination: Destination::ErrorSink, key, value, timestamp_ms: now.as_millisecond() }
    }
}

#[async_trait]
impl Enricher for ReconcileEnricher {
    fn reservation(&self, record: &SourceRecord) -> u64 {
        let raw = record.value.as_deref();
        let event = raw.map_or(0, <[u8]>::len) as u64;
        let content = Sketch::read(raw).map_or(0, |sketch| sketch.content_bytes());
        // The event is held as read, parsed (several times its size) and edited; the content as answer and in the output.
        let objects =
            raw.into_iter().flatten().filter(|byte| **byte == b'{').count().min(strict::VALUES_MAX as usize) as u64;
        RESERVED_BASE + 6 * event + RESERVED_OBJECT * objects + 2 * content.min(RESERVED_CONTENT_MAX)
    }

    fn page(&self, record: &SourceRecord) -> Option<(String, i64)> {
        Sketch::read(record.value.as_deref())?.page()
    }

    async fn enrich(&self, record: &SourceRecord) -> Outcome {
        self.work(record).await.unwrap_or_else(|fault| {
            let output = Some(self.error_record(record, (fault.error_type(), &fault.message), None));
            Outcome { kind: OutcomeKind::Error, output, error_type: Some(fault.error_type()) }
        })
    }

    fn error_event(
        &self,
        record: &SourceRecord,
        error_type: &'static str,
        message: &str,
        bytes_max: Option<u64>,
    ) -> Option<OutputRecord> {
        Some(self.error_record(record, (error_type, message), bytes_max))
    }

    fn stats(&self) -> EnricherStats {
        EnricherStats {
            api_requests: self.metrics.requests(),
            api_retries: self.metrics.retries(),
            pruned_fields: self.metrics.pruned_fields(),
            pruned_field_names: self.metrics.pruned_field_names(),
        }
    }

    fn limit_requests(&self, max: usize) {
        self.gate.set_max(max.min(self.requests_max));
    }

    fn register_metrics(&self, registry: &mut Registry) {
        self.metrics.register(registry);
    }
}

/// When an event was first asked for, and for how long the API had been down by then.
#[derive(Clone, Copy)]
struct Begun {
    at: Instant,
    down_for: Duration,
}

fn given_up(mut fault: Fault, attempts: Attempts) -> Fault {
    let count = attempts.failed + attempts.not_found;
    if count > 0 {
        fault.message.push_str(&format!(" (given up after {count} attempts)"));
    }
    fault
}

/// Error events are made of texts alone, so one that conforms stands for all.
fn check_error_schema(job_name: &str, stream: &OutputStream, schema: &Value) -> anyhow::Result<()> {
    let context = || format!("schema {}", stream.schema_uri);
    let schema = Schema::compile(schema).with_context(context)?;
    let input = serde_json::json!({"$schema": "/a/1.0.0", "meta": {"stream": "a", "domain": "a", "request_id": "a"}});
    let event = error_event(stream, job_name, ("Probe", "probe"), Some(b"{}"), Some(&input), (Timestamp::now(), 0));
    let event = serde_json::from_slice(&event).with_context(context)?;
    schema.check(&event).map_err(anyhow::Error::msg).with_context(|| {
        format!(
            "error events do not conform to schema {}: use /error/2.1.0 or one that allows as much",
            stream.schema_uri
        )
    })
}
