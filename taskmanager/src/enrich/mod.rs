//! What a job does to its records. The runtime around it knows nothing of MediaWiki.

mod api;
mod content;
mod edit;
mod error_event;
mod event;
mod fault;
#[cfg(test)]
mod fuzz;
mod job;
pub mod metrics;
mod output;
mod prune;
mod recipe;
pub mod reconcile;
mod retry;
mod routes;
pub mod stream;
mod strict;
mod validate;

use async_trait::async_trait;
use prometheus_client::registry::Registry;

pub(crate) use self::output::FRAMING_BYTES;
pub use self::{
    job::{enrich_one, enricher_for},
    recipe::Recipe,
    reconcile::{ReconcileEnricher, Schemas},
    stream::OutputStream,
};
use crate::record::{Outcome, OutputRecord, SourceRecord};

/// What an enricher has done since the process started, for heartbeats.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnricherStats {
    /// Requests sent to the API, retries included.
    pub api_requests: u64,
    /// Of these, retries.
    pub api_retries: u64,
    /// Fields left out because the sink's schema does not know them.
    pub pruned_fields: u64,
    /// Their names, as far as they are told apart: a bounded number.
    pub pruned_field_names: Vec<String>,
}

/// Turns one record into one outcome. A job is an enricher and a configuration.
#[async_trait]
pub trait Enricher: Send + Sync + 'static {
    /// Bytes to reserve before the work starts: what the answer and the result may take, by what the record declares.
    /// Cheap, never fails: a record that cannot be read reserves what its error event needs.
    fn reservation(&self, record: &SourceRecord) -> u64;

    /// The page that the record is about (wiki, page id), to order and split records that carry no key.
    fn page(&self, record: &SourceRecord) -> Option<(String, i64)>;

    /// Does the work: every input has an outcome, bad ones an error event. Called for many records at once.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the record; nothing was produced.
    async fn enrich(&self, record: &SourceRecord) -> Outcome;

    /// The error event of a record whose result could not be made or produced: the runtime's own failures (a panic in
    /// [`Enricher::enrich`], an output that the broker refuses). `bytes_max`: what the error topic takes now, if that
    /// is known better than at the start. `None` when there is no way to say it; the record is then counted as an error
    /// and logged.
    fn error_event(
        &self,
        _record: &SourceRecord,
        _error_type: &'static str,
        _message: &str,
        _bytes_max: Option<u64>,
    ) -> Option<OutputRecord> {
        None
    }

    /// What was done so far.
    fn stats(&self) -> EnricherStats {
        EnricherStats::default()
    }

    /// At most so many requests at once from now on, as the jobmanager divides what the whole job may have in flight; what
    /// the enricher's own configuration says holds as well.
    fn limit_requests(&self, _max: usize) {}

    /// Adds the enricher's own metrics (`weir_api_…`) to the taskmanager's. Called once.
    fn register_metrics(&self, _registry: &mut Registry) {}
}
