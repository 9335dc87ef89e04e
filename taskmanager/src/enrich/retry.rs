//! When to ask again: exponential backoff with full jitter, `Retry-After`, a budget. Pure: time and chance come in.

use std::time::Duration;

use weir_common::config::{NotFound, Retry};

use super::{
    fault::Fault,
    routes::{Effect, Kind, Route},
};

/// The settings that decide.
#[derive(Clone, Debug)]
pub(crate) struct RetryPolicy {
    retry: Retry,
    not_found: NotFound,
}

/// What one event has been through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attempts {
    /// Requests that ended in a fault which may pass.
    pub(crate) failed: u32,
    /// Answers that did not know the revision.
    pub(crate) not_found: u32,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Ask again after this time.
    Retry(Duration),
    /// An error event.
    GiveUp,
}

/// The moment of the decision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Time since the event was first asked for.
    pub(crate) elapsed: Duration,
    /// The API counts as down, and this fault is of that.
    pub(crate) outage: bool,
    /// Age of the event, if it tells.
    pub(crate) age: Option<Duration>,
    /// A random number in `[0, 1)`.
    pub(crate) chance: f64,
}

/// Whether to ask apart from others now: one revision can make the API fail for all that are asked for with it.
pub(crate) fn asks_alone(fault: &Fault, attempts: Attempts) -> bool {
    let failures = match (fault.kind, fault.effect()) {
        // Mostly the endpoint's own state, but proxies say so too when one request has brought a server down.
        (Kind::Unavailable, _) => 5,
        (_, Effect::Overloaded) => return false,
        _ => 2,
    };
    fault.route() == Route::Retry && attempts.failed >= failures
}

impl RetryPolicy {
    /// A policy by the configuration.
    #[must_use]
    pub(crate) fn new(retry: &Retry, not_found: &NotFound) -> Self {
        Self { retry: retry.clone(), not_found: not_found.clone() }
    }

    /// Counts the fault and decides.
    pub(crate) fn decide(&self, attempts: &mut Attempts, fault: &Fault, moment: Moment) -> Decision {
        let wait = match fault.route() {
            // `Split` was split before, down to this one; `WithoutBody` is no fault.
            Route::ErrorEvent | Route::Split | Route::WithoutBody => return Decision::GiveUp,
            Route::RetryWhileYoung => {
                attempts.not_found += 1;
                // An old event is not ahead of any replica: one more look is enough. Unknown age counts as old.
                let young = moment.age.is_some_and(|age| age <= self.not_found.max_age);
                let limit = if young { self.not_found.max_attempts } else { self.not_found.max_attempts.min(2) };
                if attempts.not_found >= limit {
                    return Decision::GiveUp;
                }
                self.not_found.delay
            }
            Route::Retry if moment.outage => {
                return Decision::Retry(self.backoff(1, fault.retry_after, moment.chance));
            }
            Route::Retry => {
                attempts.failed += 1;
                if attempts.failed >= self.retry.max_attempts {
                    return Decision::GiveUp;
                }
                self.backoff(attempts.failed, fault.retry_after, moment.chance)
            }
        };
        if moment.elapsed + wait > self.retry.budget { Decision::GiveUp } else { Decision::Retry(wait) }
    }

    /// Full jitter: evenly between nothing and the exponential bound, so that what failed together comes back apart.
    fn backoff(&self, failed: u32, retry_after: Option<Duration>, chance: f64) -> Duration {
        let doublings = 1u32.checked_shl(failed - 1).unwrap_or(u32::MAX);
        let bound = self.retry.initial_backoff.saturating_mul(doublings).min(self.retry.max_backoff);
        let asked = retry_after.unwrap_or_default().min(self.retry.max_backoff);
        bound.mul_f64(chance.clamp(0.0, 1.0)).max(asked)
    }
}

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;
