//! Section `restart_strategy`, Flink's names.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration;

/// What follows a failure: how long the failed splits and the failed slot wait before they are handed out again, and when
/// the job gives up. All others go on meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RestartStrategy {
    /// Default `exponential-delay`.
    #[serde(rename = "type")]
    pub kind: RestartKind,
    /// For `type: exponential-delay`.
    pub exponential_delay: ExponentialDelay,
    /// For `type: fixed-delay`.
    pub fixed_delay: FixedDelay,
    /// For `type: failure-rate`.
    pub failure_rate: FailureRate,
}

/// Which strategy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartKind {
    /// Waits longer from failure to failure, and never gives up.
    #[default]
    ExponentialDelay,
    /// Waits the same each time, and gives up after so many failures.
    FixedDelay,
    /// Waits the same each time, and gives up when failures come too often.
    FailureRate,
    /// Gives up at the first failure.
    None,
}

/// For `type: exponential-delay`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExponentialDelay {
    /// Wait after the first failure. Default 200 ms: less than fencing takes, so that a single takeover does not wait.
    #[serde(with = "duration")]
    pub initial_backoff: Duration,
    /// Longest wait. Default 30 s.
    #[serde(with = "duration")]
    pub max_backoff: Duration,
    /// Each wait is so many times the one before. Default 1.5.
    pub backoff_multiplier: f64,
    /// After so long without a failure the wait is the initial one again. Default 1 min.
    #[serde(with = "duration")]
    pub reset_backoff_threshold: Duration,
}

impl Default for ExponentialDelay {
    fn default() -> Self {
        Self {
            initial_backoff: Duration::from_millis(200),
            max_backoff: Duration::from_secs(30),
            backoff_multiplier: 1.5,
            reset_backoff_threshold: Duration::from_secs(60),
        }
    }
}

/// For `type: fixed-delay`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FixedDelay {
    /// Failures that are survived, counted since the jobmanager leads or the job was resumed. Default 10.
    pub attempts: u32,
    /// Wait after each. Default 1 s.
    #[serde(with = "duration")]
    pub delay: Duration,
}

impl Default for FixedDelay {
    fn default() -> Self {
        Self { attempts: 10, delay: Duration::from_secs(1) }
    }
}

/// For `type: failure-rate`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FailureRate {
    /// Failures that are survived in one interval, at most 1,000. Default 10.
    pub max_failures_per_interval: u32,
    /// The interval. Default 5 min.
    #[serde(with = "duration")]
    pub failure_rate_interval: Duration,
    /// Wait after each. Default 1 s.
    #[serde(with = "duration")]
    pub delay: Duration,
}

impl Default for FailureRate {
    fn default() -> Self {
        Self {
            max_failures_per_interval: 10,
            failure_rate_interval: Duration::from_secs(300),
            delay: Duration::from_secs(1),
        }
    }
}
