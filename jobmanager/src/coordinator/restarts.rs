//! Restart strategies: what follows a failure.
//!
//! A failure is a taskmanager that was lost without having asked to leave, a slot that its sink lost, or a split that
//! cannot be read. A restart is small here: what failed waits and is handed out again, all others go on.

use std::{collections::VecDeque, time::Duration};

use weir_common::{
    config::{RestartKind, RestartStrategy},
    ids::TaskmanagerId,
};

use super::{
    Coordinator,
    suspension::{Purpose, Rest},
};

/// Failures that are remembered for `failure-rate`.
const MAX_REMEMBERED: usize = 1000;

/// What a failure leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// What failed is handed out again at this time.
    At(Duration),
    /// The job gives up; why, for the operator.
    GiveUp(String),
}

/// A strategy and what it remembers.
#[derive(Clone, Debug)]
pub(super) struct Restarts {
    strategy: RestartStrategy,
    /// Flink's `numRestarts`.
    pub(super) count: u64,
    /// Since the strategy began anew.
    attempts: u32,
    recent: VecDeque<Duration>,
    backoff: Duration,
    /// When what failed last is or was handed out again.
    restart_at: Option<Duration>,
    /// The newest failure, in words.
    pub(super) last: Option<String>,
}

impl Restarts {
    pub(super) fn new(strategy: RestartStrategy) -> Self {
        let backoff = strategy.exponential_delay.initial_backoff;
        Self { strategy, count: 0, attempts: 0, recent: VecDeque::new(), backoff, restart_at: None, last: None }
    }

    /// The operator has resumed the job: earlier failures are forgotten.
    pub(super) fn begin_anew(&mut self) {
        *self = Self { count: self.count, ..Self::new(self.strategy.clone()) };
    }

    pub(super) fn failed(&mut self, now: Duration, what: &str) -> Verdict {
        self.count += 1;
        self.attempts = self.attempts.saturating_add(1);
        self.last = Some(what.to_owned());
        let delay = match self.strategy.kind {
            RestartKind::ExponentialDelay => self.next_backoff(now),
            RestartKind::FixedDelay => {
                let allowed = self.strategy.fixed_delay.attempts;
                if self.attempts > allowed {
                    let key = "restart_strategy.fixed_delay.attempts";
                    return Verdict::GiveUp(format!(
                        "{what}; that was failure {}, {key} allows {allowed}",
                        self.attempts
                    ));
                }
                self.strategy.fixed_delay.delay
            }
            RestartKind::FailureRate => {
                if let Some(too_often) = self.too_often(now) {
                    return Verdict::GiveUp(format!("{what}; {too_often}"));
                }
                self.strategy.failure_rate.delay
            }
            RestartKind::None => {
                return Verdict::GiveUp(format!(
                    "{what}; restart_strategy.type is none, so that the first failure ends it"
                ));
            }
        };
        let at = now + delay;
        self.restart_at = Some(at);
        Verdict::At(at)
    }

    /// Failures that come while a restart still waits are one with the failure before: a machine that goes takes several
    /// taskmanagers along.
    fn next_backoff(&mut self, now: Duration) -> Duration {
        let settings = &self.strategy.exponential_delay;
        match self.restart_at {
            Some(at) if now < at => return at - now,
            Some(at) if now < at + settings.reset_backoff_threshold => {
                self.backoff = self.backoff.mul_f64(settings.backoff_multiplier).min(settings.max_backoff);
            }
            _ => self.backoff = settings.initial_backoff,
        }
        self.backoff
    }

    fn too_often(&mut self, now: Duration) -> Option<String> {
        let settings = &self.strategy.failure_rate;
        self.recent.push_back(now);
        while self.recent.len() > MAX_REMEMBERED
            || self.recent.front().is_some_and(|first| *first + settings.failure_rate_interval <= now)
        {
            self.recent.pop_front();
        }
        let allowed = settings.max_failures_per_interval;
        (self.recent.len() > allowed as usize).then(|| {
            format!(
                "{} failures within {:?}, restart_strategy.failure_rate allows {allowed}",
                self.recent.len(),
                settings.failure_rate_interval
            )
        })
    }
}

impl Coordinator {
    /// Something failed: from when on what failed may be handed out again. A job that is at rest, or comes to it, has
    /// nothing to restart.
    pub(super) fn failure(&mut self, what: &str) -> Duration {
        if !self.is_at_work() {
            return self.now;
        }
        match self.restarts.failed(self.now, what) {
            Verdict::At(at) => at,
            Verdict::GiveUp(reason) => {
                tracing::error!(reason, "the job has FAILED: all splits are released; `weir resume` starts it again");
                self.come_to_rest(Purpose::Rest { rest: Rest::Failed { reason }, request: None });
                self.now
            }
        }
    }

    /// When the next of those that wait after a failure may go on.
    pub(super) fn next_restart(&self) -> Option<Duration> {
        let splits = self.splits.values().map(|split| split.wait_until);
        let taskmanagers = self.taskmanagers.values().map(|taskmanager| taskmanager.wait_until);
        splits.chain(taskmanagers).filter(|until| *until > self.now).min()
    }

    pub(super) fn wait_before_lease(&mut self, id: &TaskmanagerId, until: Duration) {
        if let Some(taskmanager) = self.taskmanagers.get_mut(id) {
            taskmanager.wait_until = until;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_common::config::{ExponentialDelay, FailureRate, FixedDelay};

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn of(kind: RestartKind) -> RestartStrategy {
        RestartStrategy {
            kind,
            exponential_delay: ExponentialDelay {
                initial_backoff: ms(100),
                max_backoff: ms(500),
                backoff_multiplier: 2.0,
                reset_backoff_threshold: ms(10_000),
            },
            fixed_delay: FixedDelay { attempts: 2, delay: ms(70) },
            failure_rate: FailureRate { max_failures_per_interval: 2, failure_rate_interval: ms(1000), delay: ms(30) },
        }
    }

    /// When it is handed out again after failures at these times; `None`: given up.
    fn run(kind: RestartKind, failures: &[u64]) -> Vec<Option<u64>> {
        let mut restarts = Restarts::new(of(kind));
        let verdict = |at: &u64| match restarts.failed(ms(*at), "x") {
            Verdict::At(at) => Some(at.as_millis() as u64),
            Verdict::GiveUp(reason) => {
                assert!(reason.starts_with("x; "), "{reason}");
                None
            }
        };
        failures.iter().map(verdict).collect()
    }

    #[test]
    fn each_strategy_by_its_rule() {
        use RestartKind::{ExponentialDelay, FailureRate, FixedDelay, None as Never};
        type Row = (RestartKind, &'static [u64], &'static [Option<u64>]);
        let table: [Row; 7] = [
            (ExponentialDelay, &[0, 200, 500, 1000, 2000], &[Some(100), Some(400), Some(900), Some(1500), Some(2500)]),
            // Two at once are one; after a quiet time it begins anew.
            (ExponentialDelay, &[0, 60, 20_000], &[Some(100), Some(100), Some(20_100)]),
            (FixedDelay, &[0, 10_000, 20_000], &[Some(70), Some(10_070), None]),
            (FailureRate, &[0, 400, 800], &[Some(30), Some(430), None]),
            (FailureRate, &[0, 400, 1000, 1399], &[Some(30), Some(430), Some(1030), None]),
            (FailureRate, &[0, 400, 1000, 1400], &[Some(30), Some(430), Some(1030), Some(1430)]),
            (Never, &[5], &[None]),
        ];
        for (kind, failures, expected) in table {
            assert_eq!(run(kind, failures), expected, "{kind:?} {failures:?}");
        }
    }

    #[test]
    fn a_resumed_job_begins_anew_and_goes_on_counting() {
        let mut restarts = Restarts::new(of(RestartKind::FixedDelay));
        for at in 0..3 {
            restarts.failed(ms(at), "x");
        }
        restarts.begin_anew();
        assert_eq!(restarts.failed(ms(10), "x"), Verdict::At(ms(80)));
        assert_eq!(restarts.count, 4);
    }

    proptest! {
        #[test]
        fn an_exponential_wait_stays_between_its_bounds(gaps in prop::collection::vec(0..40_000u64, 1..60)) {
            let mut restarts = Restarts::new(of(RestartKind::ExponentialDelay));
            let mut now = 0;
            for gap in gaps {
                now += gap;
                let Verdict::At(at) = restarts.failed(ms(now), "x") else { panic!("gave up") };
                prop_assert!(at > ms(now) && at <= ms(now + 500), "{at:?} after {now}");
            }
        }
    }
}
