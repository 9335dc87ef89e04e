//! Who leads. One jobmanager of a job decides and writes at a time; others stand by and refer to it.
//!
//! [`Leadership`] is how a jobmanager comes to lead: by the lock of a job that has no standby (`kafka::lock`), or by a
//! lease object in storage ([`storage`]). What a leader is given is a [`Term`]. The rules of a lease are [`lease`]: pure.

pub mod lease;
pub mod storage;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;
use weir_common::{
    config::{Config, Jobmanager},
    ids::LeaderEpoch,
};

use crate::Exit;

/// How a jobmanager comes to lead, again and again.
#[async_trait]
pub trait Leadership: std::fmt::Debug + Send + Sync {
    /// Waits until this jobmanager leads: for ever where it stands by, a bounded time where nobody may.
    ///
    /// # Errors
    /// It never will.
    ///
    /// # Cancel safety
    /// Cancel safe.
    async fn lead(&self) -> Result<Arc<dyn Term>, Exit>;

    /// Whether a jobmanager that does not lead, or not any more, waits for its turn.
    fn stands_by(&self) -> bool;

    /// Where who leads is reached, as far as that is known: it may have ended since.
    fn leader(&self) -> watch::Receiver<Option<String>>;

    /// Leads no more, and lets the next one begin at once. Everything that the leader did has ended before. Bounded.
    async fn release(&self);
}

/// One leadership of this jobmanager.
#[async_trait]
pub trait Term: std::fmt::Debug + Send + Sync {
    /// The leader epoch is at least this.
    fn epoch(&self) -> LeaderEpoch;

    /// Whether it lasts, by this process's own clock: asked before anything is said to a taskmanager.
    fn leads(&self) -> bool;

    /// Waits for its end, and says why.
    ///
    /// # Cancel safety
    /// Cancel safe.
    async fn lost(&self) -> String;

    /// Makes sure that it lasts still, by an exchange that begins now: what was done before this was done while it
    /// lasted. From then on whoever follows has an epoch above `at_least`.
    ///
    /// # Errors
    /// Why it does not last, or why that is not known. Bounded.
    async fn confirm(&self, at_least: LeaderEpoch) -> Result<(), String>;
}

/// Where others reach this jobmanager's gRPC.
#[must_use]
pub fn advertised_address(config: &Config) -> String {
    let Jobmanager { bind, advertised_address, .. } = &config.jobmanager;
    if let Some(address) = advertised_address {
        return address.clone();
    }
    let name = weir_common::host::name();
    let host_name = if name.is_empty() { "localhost" } else { &name };
    match bind.rsplit_once(':') {
        Some(("0.0.0.0" | "[::]" | "*", port)) => format!("{}:{port}", host_name),
        _ => bind.clone(),
    }
}
