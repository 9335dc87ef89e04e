//! What a job does to its records. The runtime around it knows nothing of MediaWiki.

pub mod metrics;
pub mod reconcile;
pub mod stream;

use async_trait::async_trait;

pub use self::{
    reconcile::{ReconcileEnricher, Schemas, enrich_one, enricher_for},
    stream::OutputStream,
};
use crate::record::{Outcome, SourceRecord};

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
}
