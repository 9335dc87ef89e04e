//! How many requests one endpoint is given at once, and whether any: pure, time comes in.
//!
//! **AIMD** (additive increase, multiplicative decrease: TCP's congestion avoidance, Jacobson 1988, with an API's word of
//! overload in place of a lost packet; the same as `AIMDLimit` of Netflix' concurrency-limits). The limit begins low and grows
//! by one with each good answer until the first trouble, from then on by one for each round of answers; only while it is
//! used. Overload (429, 503, maxlag) and requests without an answer halve it, once for what was in flight together.
//! While answers take twice as long as they usually do it does not grow.
//!
//! **Circuit breaker.** After a row of failures in which nothing succeeded the endpoint counts as down: nothing is sent but
//! one request at a time, with growing pauses, until one is answered. Records wait meanwhile: an outage is lag, not errors.

use std::time::Duration;

/// Where the limit begins, if it may be so high.
const INITIAL_LIMIT: f64 = 8.0;

/// Failures in a row, nothing else between them, after which the endpoint counts as down.
const FAILURES_TO_OPEN: u32 = 10;

/// And the time that they must have lasted at least: a restart of the endpoint is no outage.
const TIME_TO_OPEN: Duration = Duration::from_secs(2);

/// Pauses between probes.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Longest `Retry-After` that is heeded.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Shares of a new latency in the moving averages: what is, and what is usual.
const RECENT: f64 = 0.1;
const USUAL: f64 = 0.005;

/// So much slower than usual the limit does not grow.
const SLOW: f64 = 2.0;

/// How a request ended, as far as the endpoint is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It was answered, whatever the answer says about what was asked.
    Answered,
    /// It was answered: less, please.
    Overloaded {
        /// Not before this.
        retry_after: Option<Duration>,
    },
    /// No answer, or none of the API's.
    Failed,
    /// Nobody knows: it was given up by ourselves.
    Abandoned,
}

/// Why the limit is not higher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    /// It is as high as it may be, or is not used.
    None,
    /// The API asked for less.
    Overloaded,
    /// Requests got no answer.
    Failed,
    /// Answers take longer than usual.
    Slow,
    /// The endpoint counts as down.
    Down,
}

impl Reason {
    pub(crate) const ALL: [Self; 5] = [Self::None, Self::Overloaded, Self::Failed, Self::Slow, Self::Down];

    /// For metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Overloaded => "overloaded",
            Self::Failed => "failed",
            Self::Slow => "slow",
            Self::Down => "down",
        }
    }
}

/// Whether one more request may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Now.
    Now,
    /// When another one has ended.
    WhenOneEnds,
    /// Not before this.
    At(Duration),
}

#[derive(Clone, Copy, Debug)]
enum Breaker {
    Closed,
    /// Down; the next probe is due then.
    Open {
        until: Duration,
        pause: Duration,
        since: Duration,
    },
}

/// See the module. Times count from any fixed moment and do not go back.
#[derive(Debug)]
pub(crate) struct Limiter {
    max: f64,
    limit: f64,
    in_flight: usize,
    slow_start: bool,
    reason: Reason,
    /// What was sent before it belongs to a round that has been counted.
    decreased_at: Option<Duration>,
    not_before: Duration,
    recent: Option<f64>,
    usual: Option<f64>,
    failures: u32,
    failing_since: Duration,
    breaker: Breaker,
    down_for: Duration,
}

impl Limiter {
    /// At most `max` requests at once; at least one.
    pub(crate) fn new(max: usize) -> Self {
        let max = max.max(1) as f64;
        Self {
            max,
            limit: INITIAL_LIMIT.min(max),
            in_flight: 0,
            slow_start: true,
            reason: Reason::None,
            decreased_at: None,
            not_before: Duration::ZERO,
            recent: None,
            usual: None,
            failures: 0,
            failing_since: Duration::ZERO,
            breaker: Breaker::Closed,
            down_for: Duration::ZERO,
        }
    }

    /// At most so many at once from now on; at least one. What is on its way above it ends by itself.
    pub(crate) fn set_max(&mut self, max: usize) {
        self.max = max.max(1) as f64;
        self.limit = self.limit.min(self.max);
    }

    /// Whether one more may start; if so, [`Limiter::started`] follows.
    pub(crate) fn may_start(&self, now: Duration) -> Start {
        if let Breaker::Open { until, .. } = self.breaker {
            return match self.in_flight {
                0 if now >= until => Start::Now,
                0 => Start::At(until),
                _ => Start::WhenOneEnds,
            };
        }
        if now < self.not_before {
            return Start::At(self.not_before);
        }
        if self.in_flight < self.limit() { Start::Now } else { Start::WhenOneEnds }
    }

    /// A request is on its way.
    pub(crate) fn started(&mut self) {
        self.in_flight += 1;
    }

    /// A request that was sent then has ended.
    pub(crate) fn ended(&mut self, ending: Ending, sent: Duration, now: Duration) {
        let used = self.in_flight as f64 * 2.0 >= self.limit;
        self.in_flight = self.in_flight.saturating_sub(1);
        match ending {
            Ending::Answered => {
                self.up_again(now);
                self.measure(now.saturating_sub(sent));
                self.grow(used);
            }
            Ending::Overloaded { retry_after } => {
                let pause = retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
                self.not_before = self.not_before.max(now + pause);
                self.shrink(Reason::Overloaded, sent, now);
                self.count_failure(now);
            }
            Ending::Failed => {
                self.shrink(Reason::Failed, sent, now);
                self.count_failure(now);
            }
            Ending::Abandoned => {}
        }
    }

    /// Requests that may be on their way at once.
    pub(crate) fn limit(&self) -> usize {
        // At least 1 and at most what a `usize` was made of.
        self.limit as usize
    }

    /// Why it is not higher.
    pub(crate) fn reason(&self) -> Reason {
        match self.breaker {
            Breaker::Open { .. } => Reason::Down,
            Breaker::Closed => self.reason,
        }
    }

    /// For how long the endpoint has been down, all outages together.
    pub(crate) fn down_for(&self, now: Duration) -> Duration {
        match self.breaker {
            Breaker::Closed => self.down_for,
            Breaker::Open { since, .. } => self.down_for + now.saturating_sub(since),
        }
    }

    fn grow(&mut self, used: bool) {
        if self.is_slow() {
            self.reason = Reason::Slow;
            return;
        }
        if used {
            let step = if self.slow_start { 1.0 } else { 1.0 / self.limit };
            self.limit = (self.limit + step).min(self.max);
        }
        if self.limit >= self.max || self.reason == Reason::Slow {
            self.reason = Reason::None;
        }
    }

    fn shrink(&mut self, reason: Reason, sent: Duration, now: Duration) {
        self.slow_start = false;
        self.reason = reason;
        if self.decreased_at.is_none_or(|at| sent >= at) {
            self.limit = (self.limit / 2.0).max(1.0);
            self.decreased_at = Some(now);
        }
    }

    fn count_failure(&mut self, now: Duration) {
        if self.failures == 0 {
            self.failing_since = now;
        }
        self.failures += 1;
        self.breaker = match self.breaker {
            Breaker::Open { pause, since, .. } => {
                let pause = (pause * 2).min(LONGEST_PAUSE);
                Breaker::Open { until: now + pause, pause, since }
            }
            Breaker::Closed
                if self.failures >= FAILURES_TO_OPEN && now.saturating_sub(self.failing_since) >= TIME_TO_OPEN =>
            {
                Breaker::Open { until: now + FIRST_PAUSE, pause: FIRST_PAUSE, since: now }
            }
            Breaker::Closed => Breaker::Closed,
        };
    }

    fn up_again(&mut self, now: Duration) {
        self.failures = 0;
        if let Breaker::Open { .. } = self.breaker {
            self.down_for = self.down_for(now);
            self.breaker = Breaker::Closed;
            (self.limit, self.slow_start, self.reason) = (1.0, true, Reason::Failed);
        }
    }

    fn measure(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        let mix = |average: Option<f64>, share: f64| average.map_or(took, |average| average + share * (took - average));
        (self.recent, self.usual) = (Some(mix(self.recent, RECENT)), Some(mix(self.usual, USUAL)));
    }

    fn is_slow(&self) -> bool {
        matches!((self.recent, self.usual), (Some(recent), Some(usual)) if recent > SLOW * usual)
    }
}

#[cfg(test)]
#[path = "limiter_tests.rs"]
mod tests;
