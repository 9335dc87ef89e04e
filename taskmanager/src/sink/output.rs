//! What the sink needs of Kafka, so that its decisions are tested without one.

use std::future::Future;

use weir_common::{progress::entry::ProgressEntry, split::SplitId};

use super::doubt::Doubt;
use crate::record::{Destination, OutputRecord, SourceRecord};

/// A split's progress entry and the partition of the progress topic that keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptEntry {
    /// Of the progress topic.
    pub partition: i32,
    /// What it will say.
    pub entry: ProgressEntry,
}

/// A step that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// This producer is not to be trusted any more: a new one on the same id goes on.
    Doubt(Doubt),
    /// The broker refuses this producer, another one may have its place: the slot is lost.
    Fenced(String),
}

/// A record that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// For what it is (too large); nothing else is affected.
    Record(String),
    /// For the state of the producer.
    Producer(Failure),
}

/// A record that was taken and not delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// As given to [`Output::produce`].
    pub number: usize,
    /// Why.
    pub cause: Cause,
    /// For the log.
    pub reason: String,
}

/// Why a record was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The broker refused its batch for what is in it.
    Content,
    /// The broker refused the producer.
    Fenced,
    /// Anything else.
    Transport,
}

/// The producer of one slot. The futures may block their thread; one call is made at a time, and each future is driven to
/// its end unless the sink itself is dropped.
pub trait Output {
    /// Makes a new producer in place of the old one; exactly-once: initialises its transactional id, which aborts what the
    /// old one left open and gives it a new epoch.
    fn open(&mut self) -> impl Future<Output = Result<(), Failure>>;

    /// Begins a transaction. Nothing to do at-least-once.
    fn begin(&mut self) -> impl Future<Output = Result<(), Failure>>;

    /// Hands a record to the producer. `number` comes back with its failure.
    fn produce(
        &mut self,
        number: usize,
        record: &SourceRecord,
        output: &OutputRecord,
    ) -> impl Future<Output = Result<(), Refusal>>;

    /// Waits until everything that was produced is acknowledged or has failed, and says what has failed.
    fn settle(&mut self) -> impl Future<Output = Vec<Undelivered>>;

    /// Adds progress to the transaction. Nothing to do at-least-once.
    fn send_progress(&mut self, entries: &[KeptEntry]) -> impl Future<Output = Result<(), Failure>>;

    /// Commits the transaction. Nothing to do at-least-once.
    fn commit(&mut self) -> impl Future<Output = Result<(), Failure>>;

    /// Reads progress as it stands in Kafka, after [`Output::open`] (exactly-once).
    fn stable_progress(
        &mut self,
        splits: &[(SplitId, i32)],
    ) -> impl Future<Output = Result<Vec<ProgressEntry>, Failure>>;

    /// What one message to this destination may have, bytes, where it was read again since the broker refused something.
    fn limit(&self, _destination: Destination) -> Option<u64> {
        None
    }

    /// What puts this producer in doubt, as its callbacks saw it.
    fn doubt(&self) -> Option<Doubt>;

    /// Forgets what was seen up to now; right after [`Output::open`].
    fn clear_doubt(&self);
}
