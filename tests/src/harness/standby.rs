//! A second jobmanager, which stands by or leads.

use anyhow::Context;
use tokio::process::Command;

use super::{http, process::Process, workspace::free_port};

/// Where it listens, and the process when it runs.
pub struct Standby {
    /// gRPC.
    pub address: String,
    http: String,
    metrics: String,
    /// `None`: it does not run.
    pub process: Option<Process>,
}

impl Standby {
    /// Ports of its own; nothing runs yet.
    ///
    /// # Errors
    /// No port is free.
    pub fn new() -> anyhow::Result<Self> {
        let local = || Ok::<_, anyhow::Error>(format!("127.0.0.1:{}", free_port()?));
        Ok(Self { address: local()?, http: local()?, metrics: local()?, process: None })
    }

    /// What differs from the other jobmanager's configuration.
    pub fn override_addresses(&self, command: &mut Command) {
        command
            .env("WEIR__JOBMANAGER__BIND", &self.address)
            .env("WEIR__JOBMANAGER__HTTP_BIND", &self.http)
            .env("WEIR__JOBMANAGER__METRICS_BIND", &self.metrics);
    }

    /// What `/readyz` says: `STANDBY`, or the job's state.
    ///
    /// # Errors
    /// It does not answer, or is not ready.
    pub async fn ready(&self) -> anyhow::Result<String> {
        ready(&self.http).await
    }
}

/// What `/readyz` says at an HTTP address.
///
/// # Errors
/// It does not answer, or is not ready.
pub async fn ready(http: &str) -> anyhow::Result<String> {
    let (status, body) = http::get(http, "/readyz", "localhost").await?;
    (status == 200).then(|| body.trim().to_owned()).with_context(|| format!("/readyz: {status} {body}"))
}
