//! Section `savepoint`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration;

/// Periodic savepoints, and the offset cut.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Savepoint {
    /// Time between two periodic savepoints. Default: none are taken.
    #[serde(with = "duration::optional")]
    pub interval: Option<Duration>,
    /// Periodic savepoints older than this are deleted, but for the newest; those of operators never. Default 30 d.
    #[serde(with = "duration")]
    pub retention: Duration,
    /// Time for an offset cut; nothing above the cut is read meanwhile. Default 2 min. Raise it where single events are
    /// retried for longer.
    #[serde(with = "duration")]
    pub cut_timeout: Duration,
}

impl Default for Savepoint {
    fn default() -> Self {
        Self { interval: None, retention: Duration::from_secs(30 * 24 * 3600), cut_timeout: Duration::from_secs(120) }
    }
}
