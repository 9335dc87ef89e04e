//! How long one event can take at worst, which nobody adds up in their head.

use std::{fmt, time::Duration};

use super::{Enrich, duration};

/// What one event may cost before it becomes an error event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// Requests at most.
    pub requests: u32,
    /// Waits between them at most, without `Retry-After`.
    pub backoff: Duration,
    /// All of it at most: requests that time out, waits as long as `Retry-After` may make them, cut by `retry.budget`
    /// (after which no further request starts).
    pub total: Duration,
}

impl Enrich {
    /// Total retry budget of one event: what may pass and what is not found, together.
    #[must_use]
    pub fn retry_budget(&self) -> RetryBudget {
        let transient_waits = self.retry.max_attempts.saturating_sub(1);
        let not_found_waits = self.not_found.max_attempts.saturating_sub(1);
        let requests = transient_waits.saturating_add(not_found_waits).saturating_add(1);
        let not_found = self.not_found.delay.saturating_mul(not_found_waits);
        let exponential = (0..transient_waits.min(64)).fold(Duration::ZERO, |sum, doublings| {
            let bound = 1u32.checked_shl(doublings).map(|factor| self.retry.initial_backoff.saturating_mul(factor));
            sum.saturating_add(bound.unwrap_or(Duration::MAX).min(self.retry.max_backoff))
        });
        let longest_waits = self.retry.max_backoff.saturating_mul(transient_waits).saturating_add(not_found);
        let uncut = self.request_timeout.saturating_mul(requests).saturating_add(longest_waits);
        RetryBudget {
            requests,
            backoff: exponential.saturating_add(not_found),
            total: uncut.min(self.retry.budget.saturating_add(self.request_timeout)),
        }
    }
}

impl fmt::Display for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "at most {} requests, {} of backoff, {} in all",
            self.requests,
            duration::format(self.backoff),
            duration::format(self.total)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_adds_up() {
        let mut enrich = Enrich::default();
        // 0.5 + 1 + 2 + 4 + 8 + 16 + 3 x 30 s, and 3 x 1 s; ten minutes and one last request.
        let defaults = enrich.retry_budget();
        assert_eq!((defaults.requests, defaults.backoff), (13, Duration::from_millis(124_500)));
        assert_eq!(defaults.total, Duration::from_secs(720));
        enrich.retry.max_attempts = 2;
        enrich.not_found.max_attempts = 1;
        enrich.request_timeout = Duration::from_secs(10);
        assert_eq!(enrich.retry_budget().to_string(), "at most 2 requests, 500 ms of backoff, 50 s in all");
    }
}
