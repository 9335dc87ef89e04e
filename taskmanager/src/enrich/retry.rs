//! When to ask again: exponential backoff with full jitter, `Retry-After`, a budget. Pure: time and chance come in.

use std::time::Duration;

use weir_common::config::{NotFound, Retry};

use super::fault::{Fault, FaultClass};

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

impl RetryPolicy {
    /// A policy by the configuration.
    #[must_use]
    pub(crate) fn new(retry: &Retry, not_found: &NotFound) -> Self {
        Self { retry: retry.clone(), not_found: not_found.clone() }
    }

    /// Counts the fault and decides.
    pub(crate) fn decide(&self, attempts: &mut Attempts, fault: &Fault, moment: Moment) -> Decision {
        let wait = match fault.class {
            FaultClass::Permanent | FaultClass::TooMuch => return Decision::GiveUp,
            FaultClass::NotFound => {
                attempts.not_found += 1;
                // An old event is not ahead of any replica: one more look is enough. Unknown age counts as old.
                let young = moment.age.is_some_and(|age| age <= self.not_found.max_age);
                let limit = if young { self.not_found.max_attempts } else { self.not_found.max_attempts.min(2) };
                if attempts.not_found >= limit {
                    return Decision::GiveUp;
                }
                self.not_found.delay
            }
            FaultClass::Overloaded | FaultClass::Transient if moment.outage => {
                return Decision::Retry(self.backoff(1, fault.retry_after, moment.chance));
            }
            FaultClass::Overloaded | FaultClass::Transient => {
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
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn policy() -> RetryPolicy {
        RetryPolicy::new(
            &Retry { max_attempts: 4, initial_backoff: SECOND, max_backoff: 10 * SECOND, budget: 60 * SECOND },
            &NotFound { max_attempts: 3, delay: 2 * SECOND, max_age: 100 * SECOND },
        )
    }

    fn moment(elapsed: u32, age: Option<u32>, chance: f64) -> Moment {
        Moment { elapsed: SECOND * elapsed, outage: false, age: age.map(|age| SECOND * age), chance }
    }

    #[test]
    fn the_bound_doubles_up_to_its_cap_and_attempts_end() {
        let fault = Fault::transient("Timeout", "");
        let mut attempts = Attempts::default();
        let waits: Vec<_> = (0..4).map(|_| policy().decide(&mut attempts, &fault, moment(0, None, 0.5))).collect();
        let half = |seconds: u32| Decision::Retry(SECOND * seconds / 2);
        assert_eq!(waits, [half(1), half(2), half(4), Decision::GiveUp]);
        assert_eq!(policy().backoff(40, None, 1.0), 10 * SECOND);
    }

    #[test]
    fn an_outage_uses_up_nothing() {
        let fault = Fault::transient("ConnectionFailed", "");
        let mut attempts = Attempts::default();
        for _ in 0..100 {
            let moment = Moment { outage: true, ..moment(9999, None, 1.0) };
            assert_eq!(policy().decide(&mut attempts, &fault, moment), Decision::Retry(SECOND));
        }
        assert_eq!(attempts, Attempts::default());
        let bad = Fault::permanent("InvalidInput", "");
        let moment = Moment { outage: true, ..moment(0, None, 1.0) };
        assert_eq!(policy().decide(&mut attempts, &bad, moment), Decision::GiveUp);
    }

    #[test]
    fn decisions() {
        let class = |class| Fault::new(class, "", "");
        let overloaded = |seconds: u32| Fault { retry_after: Some(SECOND * seconds), ..class(FaultClass::Overloaded) };
        let none = Attempts::default();
        let seen = Attempts { failed: 0, not_found: 1 };
        let table = [
            ("permanent", none, class(FaultClass::Permanent), moment(0, Some(0), 0.0), Decision::GiveUp),
            ("too large alone", none, class(FaultClass::TooMuch), moment(0, Some(0), 0.0), Decision::GiveUp),
            ("retry-after is a floor", none, overloaded(5), moment(0, None, 0.1), Decision::Retry(5 * SECOND)),
            ("retry-after is capped", none, overloaded(3600), moment(0, None, 0.1), Decision::Retry(10 * SECOND)),
            ("budget", none, overloaded(5), moment(56, None, 0.0), Decision::GiveUp),
            ("young", seen, class(FaultClass::NotFound), moment(0, Some(100), 0.0), Decision::Retry(2 * SECOND)),
            (
                "old: first time",
                none,
                class(FaultClass::NotFound),
                moment(0, Some(101), 0.0),
                Decision::Retry(2 * SECOND),
            ),
            ("old: second time", seen, class(FaultClass::NotFound), moment(0, Some(101), 0.0), Decision::GiveUp),
            ("unknown age is old", seen, class(FaultClass::NotFound), moment(0, None, 0.0), Decision::GiveUp),
        ];
        for (name, mut attempts, fault, moment, wanted) in table {
            assert_eq!(policy().decide(&mut attempts, &fault, moment), wanted, "{name}");
        }
    }
}
