//! What the enricher counts. Cheap to clone: clones count into the same numbers.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use tracing::warn;

use super::api::Reason;

/// Field names come from the input: more distinct ones than this count as `other`.
const FIELD_NAMES_MAX: usize = 100;

/// Counters of one enricher.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    requests_total: Arc<AtomicU64>,
    retries: Counter,
    in_flight: Gauge<i64, AtomicI64>,
    limit: Gauge<i64, AtomicI64>,
    limited_by: Family<ReasonLabels, Gauge<i64, AtomicI64>>,
    waiting: Gauge<i64, AtomicI64>,
    latency: Histogram,
    batch_size: Histogram,
    pruned: Family<FieldLabels, Counter>,
    pruned_total: Arc<AtomicU64>,
    field_names: Arc<Mutex<BTreeSet<String>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FieldLabels {
    field: String,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            requests_total: Arc::default(),
            retries: Counter::default(),
            in_flight: Gauge::default(),
            limit: Gauge::default(),
            limited_by: Family::default(),
            waiting: Gauge::default(),
            // 1 ms to 65 s.
            latency: Histogram::new(exponential_buckets(0.001, 2.0, 17)),
            batch_size: Histogram::new([1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0]),
            pruned: Family::default(),
            pruned_total: Arc::default(),
            field_names: Arc::default(),
        }
    }
}

impl Metrics {
    /// Requests sent to the API since the start.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests_total.load(Ordering::Relaxed)
    }

    /// Revisions and pages that were asked for once more.
    #[must_use]
    pub fn retries(&self) -> u64 {
        self.retries.get()
    }

    /// Fields left out because the sink's schema does not know them.
    #[must_use]
    pub fn pruned_fields(&self) -> u64 {
        self.pruned_total.load(Ordering::Relaxed)
    }

    /// Names of the fields that were left out, as far as they are told apart.
    #[must_use]
    pub fn pruned_field_names(&self) -> Vec<String> {
        self.field_names.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Exports everything under the registry's prefix.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("api_requests", "Requests to the API, by status class", self.requests.clone());
        registry.register("api_retries", "Revisions and pages asked for once more", self.retries.clone());
        registry.register("api_in_flight", "Requests waiting for their answer", self.in_flight.clone());
        registry.register(
            "api_limit",
            "Requests that may be in flight at once, as the API bears it",
            self.limit.clone(),
        );
        registry.register(
            "api_limited_by",
            "1 for the reason why the limit is not higher: none, overloaded, failed, slow, down",
            self.limited_by.clone(),
        );
        registry.register("api_waiting", "Requests that wait for their turn", self.waiting.clone());
        registry.register_with_unit(
            "api_latency",
            "Time from the request to the last byte of its answer",
            Unit::Seconds,
            self.latency.clone(),
        );
        registry.register("api_batch_size", "Revisions or pages asked for together", self.batch_size.clone());
        registry.register("pruned_fields", "Fields that the sink's schema does not know", self.pruned.clone());
    }

    pub(crate) fn set_limit(&self, limit: usize, limited_by: Reason, waiting: usize) {
        self.limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
        self.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        for reason in Reason::ALL {
            let labels = ReasonLabels { reason: reason.name() };
            self.limited_by.get_or_create(&labels).set(i64::from(reason == limited_by));
        }
    }

    pub(crate) fn count_retry(&self) {
        self.retries.inc();
    }

    pub(crate) fn count_batch(&self, size: usize) {
        self.batch_size.observe(size as f64);
    }

    /// Counts the field; the first time, the log names it.
    pub(crate) fn count_pruned(&self, name: &str) {
        self.pruned_total.fetch_add(1, Ordering::Relaxed);
        let mut names = self.field_names.lock().unwrap_or_else(PoisonError::into_inner);
        let known = names.contains(name);
        let field = if known || names.len() < FIELD_NAMES_MAX { name } else { "other" };
        if !known && names.len() < FIELD_NAMES_MAX {
            names.insert(name.to_owned());
            warn!(field = name, "the sink's schema does not know this field: it is left out from now on, and counted");
        }
        drop(names);
        self.pruned.get_or_create(&FieldLabels { field: field.to_owned() }).inc();
    }

    /// Counts a request as in flight until the guard goes.
    pub(crate) fn begin_request(&self) -> InFlight {
        self.in_flight.inc();
        self.requests_total.fetch_add(1, Ordering::Relaxed);
        InFlight(self.in_flight.clone())
    }

    /// `status` is the HTTP status, `None` if there was no answer.
    pub(crate) fn end_request(&self, status: Option<u16>, took: Duration) {
        let status = match status {
            None => "none",
            Some(429) => "429",
            Some(200..=299) => "2xx",
            Some(300..=399) => "3xx",
            Some(400..=499) => "4xx",
            Some(_) => "5xx",
        };
        self.requests.get_or_create(&RequestLabels { status }).inc();
        self.latency.observe(took.as_secs_f64());
    }
}

/// One request in flight.
pub(crate) struct InFlight(Gauge<i64, AtomicI64>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}
