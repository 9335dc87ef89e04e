//! The jobmanager's addresses, and who leads where several jobmanagers of a job run.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration;

/// The jobmanager's own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Jobmanager {
    /// Where taskmanagers and the CLI find it, `host:port`; with a standby, all of them, separated by commas. Default
    /// `127.0.0.1:6123`.
    pub address: String,
    /// gRPC listens here. Default `127.0.0.1:6123`.
    pub bind: String,
    /// Where others reach this one's gRPC, `host:port`: a standby refers to the leader by it. Default: `bind`, with the
    /// host's name in place of a wildcard.
    pub advertised_address: Option<String>,
    /// HTTP (health, later the UI) listens here. Default `127.0.0.1:8081`.
    pub http_bind: String,
    /// Prometheus metrics listen here. Default `127.0.0.1:9999`.
    pub metrics_bind: String,
}

impl Default for Jobmanager {
    fn default() -> Self {
        Self {
            address: "127.0.0.1:6123".to_owned(),
            bind: "127.0.0.1:6123".to_owned(),
            advertised_address: None,
            http_bind: "127.0.0.1:8081".to_owned(),
            metrics_bind: "127.0.0.1:9999".to_owned(),
        }
    }
}

impl Jobmanager {
    /// The addresses in [`Jobmanager::address`].
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.address.split(',').map(str::trim)
    }
}

/// Flink's `high-availability`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HighAvailability {
    /// Default `none`.
    #[serde(rename = "type")]
    pub kind: HighAvailabilityType,
    /// A leader that is gone is followed by a standby after so long. Default 10 s.
    #[serde(with = "duration")]
    pub lease_ttl: Duration,
}

/// How the leader is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HighAvailabilityType {
    /// One jobmanager. Another one of the job refuses to start.
    #[default]
    None,
    /// By a lease object in `storage.uri`, which must be `s3://` and heed conditional writes.
    Storage,
}

impl Default for HighAvailability {
    fn default() -> Self {
        Self { kind: HighAvailabilityType::default(), lease_ttl: Duration::from_secs(10) }
    }
}
