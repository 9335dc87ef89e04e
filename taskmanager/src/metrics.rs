//! Prometheus metrics of a taskmanager, and the HTTP service that shows them: `/metrics`, `/healthz`, `/readyz`.

use std::{
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use prometheus_client::{
    encoding::{
        EncodeLabelSet,
        text::{encode_eof, encode_registry},
    },
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use tokio_util::sync::CancellationToken;
use weir_common::{
    counters::{OutcomeKind, SplitCounters},
    split::{SplitId, TopicPartition},
};

use crate::{enrich::Enricher, record::Outcome};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
    error_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SplitLabels {
    topic: String,
    partition: i32,
    split: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabels {
    topic: String,
    partition: i32,
}

/// Counts and gauges of a taskmanager. Cheap to clone; all clones count into the same numbers.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    /// Of the current job's enricher.
    enricher: Mutex<Registry>,
    records: Family<OutcomeLabels, Counter>,
    records_read: Family<PartitionLabels, Counter>,
    reader_failures: Family<PartitionLabels, Counter>,
    refused: Counter,
    recycles: Family<ReasonLabels, Counter>,
    slots_lost: Counter,
    unknown_messages: Counter,
    transaction_duration: Histogram,
    budget: Gauge,
    budget_used: Gauge,
    in_flight: Gauge,
    splits: Gauge,
    connected: Gauge,
    resident: Gauge,
    lag: Family<SplitLabels, Gauge>,
    /// For heartbeats.
    totals: Mutex<SplitCounters>,
    recycled: AtomicU64,
    committed: AtomicU64,
    last_cut_us: AtomicU64,
}

/// Numbers that heartbeats carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) counters: SplitCounters,
    pub(crate) committed: u64,
    pub(crate) recycles: u64,
    pub(crate) last_cut_us: u64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut inner = Inner {
            registry: Registry::default(),
            enricher: Mutex::default(),
            records: Family::default(),
            records_read: Family::default(),
            reader_failures: Family::default(),
            refused: Counter::default(),
            recycles: Family::default(),
            slots_lost: Counter::default(),
            unknown_messages: Counter::default(),
            transaction_duration: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            budget: Gauge::default(),
            budget_used: Gauge::default(),
            in_flight: Gauge::default(),
            splits: Gauge::default(),
            connected: Gauge::default(),
            resident: Gauge::default(),
            lag: Family::default(),
            totals: Mutex::default(),
            recycled: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            last_cut_us: AtomicU64::new(0),
        };
        inner.registry = inner.register();
        Self(Arc::new(inner))
    }

    /// Adds the enricher's own, in place of a former job's.
    pub(crate) fn register_enricher(&self, enricher: &dyn Enricher) {
        let mut registry = Registry::with_prefix("weir");
        enricher.register_metrics(&mut registry);
        *self.0.enricher.lock().unwrap_or_else(PoisonError::into_inner) = registry;
    }

    /// A record is finished.
    pub(crate) fn finished(&self, outcome: &Outcome) {
        let name = match outcome.kind {
            OutcomeKind::Enriched => "enriched",
            OutcomeKind::PassedThrough => "passed_through",
            OutcomeKind::Error => "error",
            OutcomeKind::Dropped => "dropped",
        };
        let labels = OutcomeLabels { outcome: name, error_type: outcome.error_type.unwrap_or("") };
        self.0.records.get_or_create(&labels).inc();
        self.0.totals.lock().unwrap_or_else(PoisonError::into_inner).count(outcome.kind);
    }

    /// Records of any split were read.
    pub(crate) fn read(&self, partition: &TopicPartition, count: u64) {
        self.0.records_read.get_or_create(&partition.into()).inc_by(count);
    }

    /// A reader cannot go on.
    pub(crate) fn reader_failed(&self, partition: &TopicPartition) {
        self.0.reader_failures.get_or_create(&partition.into()).inc();
    }

    /// Kafka refused a record for what it is.
    pub(crate) fn refused_record(&self) {
        self.0.refused.inc();
    }

    /// A producer was recycled.
    pub(crate) fn recycled(&self, reason: &'static str) {
        self.0.recycles.get_or_create(&ReasonLabels { reason }).inc();
        self.0.recycled.fetch_add(1, Ordering::Relaxed);
    }

    /// A slot was lost.
    pub(crate) fn slot_lost(&self) {
        self.0.slots_lost.inc();
    }

    /// The jobmanager sent something that this build does not know.
    pub(crate) fn unknown_message(&self) {
        self.0.unknown_messages.inc();
    }

    /// A cut ended.
    pub(crate) fn cut(&self, took: Duration) {
        self.0.transaction_duration.observe(took.as_secs_f64());
        self.0.last_cut_us.store(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.0.committed.fetch_add(1, Ordering::Relaxed);
    }

    /// What is held now, in bytes and records.
    pub(crate) fn set_load(&self, budget: u64, used: u64, in_flight: u64, resident: u64) {
        let gauges = [(&self.0.budget, budget), (&self.0.budget_used, used), (&self.0.in_flight, in_flight)];
        for (gauge, value) in gauges.into_iter().chain([(&self.0.resident, resident)]) {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }

    /// Whether the jobmanager is there, and how many splits are held.
    pub(crate) fn set_session(&self, connected: bool, splits: usize) {
        self.0.connected.set(i64::from(connected));
        self.0.splits.set(i64::try_from(splits).unwrap_or(i64::MAX));
    }

    /// Lag of one split in source offsets.
    pub(crate) fn set_lag(&self, split: &SplitId, lag: i64) {
        self.0.lag.get_or_create(&split.into()).set(lag);
    }

    /// The split is not ours any more.
    pub(crate) fn forget_split(&self, split: &SplitId) {
        self.0.lag.remove(&split.into());
    }

    /// For heartbeats.
    pub(crate) fn totals(&self) -> Totals {
        Totals {
            counters: *self.0.totals.lock().unwrap_or_else(PoisonError::into_inner),
            committed: self.0.committed.load(Ordering::Relaxed),
            recycles: self.0.recycled.load(Ordering::Relaxed),
            last_cut_us: self.0.last_cut_us.load(Ordering::Relaxed),
        }
    }

    /// What `/metrics` shows.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        let enricher = self.0.enricher.lock().unwrap_or_else(PoisonError::into_inner);
        let encoded = encode_registry(&mut text, &self.0.registry)
            .and_then(|()| encode_registry(&mut text, &enricher))
            .and_then(|()| encode_eof(&mut text));
        if encoded.is_err() {
            let _ = writeln!(text, "# not everything could be encoded");
        }
        text
    }

    fn is_connected(&self) -> bool {
        self.0.connected.get() == 1
    }
}

impl Inner {
    fn register(&self) -> Registry {
        let mut root = Registry::default();
        let registry = root.sub_registry_with_prefix("weir");
        registry.register("records", "Finished records by outcome", self.records.clone());
        registry.register(
            "records_read",
            "Records read, those of other taskmanagers included",
            self.records_read.clone(),
        );
        let help = "Times a partition's reader stopped: offset out of range, topic gone";
        registry.register("reader_failures", help, self.reader_failures.clone());
        registry.register("refused_records", "Outputs that Kafka refused for what they are", self.refused.clone());
        registry.register("recycles", "Producers replaced because a transaction was in doubt", self.recycles.clone());
        registry.register("slots_lost", "Slots lost: fenced, or the grant ran out", self.slots_lost.clone());
        registry.register(
            "unknown_messages",
            "Unknown or stale messages of the jobmanager",
            self.unknown_messages.clone(),
        );
        let duration = self.transaction_duration.clone();
        let help = "Cut of a transaction, first acknowledgement to committed";
        registry.register_with_unit("transaction_duration", help, Unit::Seconds, duration);
        registry.register_with_unit("budget", "Byte budget", Unit::Bytes, self.budget.clone());
        registry.register_with_unit("budget_used", "Bytes of the budget in use", Unit::Bytes, self.budget_used.clone());
        registry.register("in_flight", "Records being enriched", self.in_flight.clone());
        registry.register("splits", "Splits held", self.splits.clone());
        registry.register("jobmanager_connected", "1 while the jobmanager's stream is open", self.connected.clone());
        registry.register_with_unit("resident_memory", "Resident memory", Unit::Bytes, self.resident.clone());
        registry.register("lag_records", "Log end of the partition minus the split's cursor", self.lag.clone());
        root
    }
}

impl From<&SplitId> for SplitLabels {
    fn from(split: &SplitId) -> Self {
        Self { topic: split.topic.to_string(), partition: split.partition, split: split.index }
    }
}

impl From<&TopicPartition> for PartitionLabels {
    fn from(partition: &TopicPartition) -> Self {
        Self { topic: partition.topic.to_string(), partition: partition.partition }
    }
}

/// Serves until `shutdown`.
///
/// # Errors
/// The listener fails.
pub(crate) async fn serve(
    listener: tokio::net::TcpListener,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(|State(metrics): State<Metrics>| async move { metrics.render() }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(metrics);
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

async fn ready(State(metrics): State<Metrics>) -> (StatusCode, &'static str) {
    if metrics.is_connected() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not registered with the jobmanager\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_their_units() {
        let metrics = Metrics::new();
        metrics.finished(&Outcome { kind: OutcomeKind::Error, output: None, error_type: Some("timeout") });
        metrics.cut(Duration::from_millis(7));
        metrics.set_lag(&SplitId { topic: "t".into(), partition: 0, index: 3 }, 12);
        let text = metrics.render();
        for line in [
            r#"weir_records_total{outcome="error",error_type="timeout"} 1"#,
            "weir_transaction_duration_seconds_count 1",
            "weir_budget_bytes 0",
            r#"weir_lag_records{topic="t",partition="0",split="3"} 12"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert_eq!(metrics.totals().last_cut_us, 7000);
    }
}
