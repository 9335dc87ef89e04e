//! From looks at a run to its figures: warm-up and drain are left out. Pure.

use std::time::Duration;

use serde::Serialize;

/// Shares of all events between which a run counts as steady.
const WARM: f64 = 0.15;
const DRAINING: f64 = 0.85;

/// What one look at a run saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    /// Since the run began.
    pub(crate) at: Duration,
    /// Records that the sink's topic has.
    pub(crate) produced: u64,
    /// CPU time since its start of each process that does the work, and memory in bytes.
    pub(crate) workers: Vec<(f64, u64)>,
    /// CPU time of the API's process.
    pub(crate) api_cpu: f64,
    /// Requests that the API has had.
    pub(crate) requests: u64,
}

/// What a run was like while it was steady.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Steady {
    pub(crate) seconds: f64,
    pub(crate) events_per_second: f64,
    /// Of all workers, milliseconds for an event: seconds for 1,000.
    pub(crate) cpu_ms: f64,
    /// Of the API, which is no part of what is measured.
    pub(crate) api_cpu_ms: f64,
    pub(crate) requests_per_event: f64,
    /// Of the largest worker.
    pub(crate) rss_bytes: u64,
}

/// The figures of a run of `events`, steady at the earliest from `ready` on. `None`: it was over too soon to tell.
pub(crate) fn steady(looks: &[Look], events: u64, ready: Duration) -> Option<Steady> {
    let share = |share: f64| (events as f64 * share) as u64;
    let first = looks.iter().find(|look| look.at >= ready && look.produced >= share(WARM))?;
    let last = looks.iter().rev().find(|look| look.produced <= share(DRAINING))?;
    let done = last.produced.checked_sub(first.produced).filter(|done| *done > 0)? as f64;
    let seconds = last.at.checked_sub(first.at)?.as_secs_f64();
    let cpu = |look: &Look| look.workers.iter().map(|(cpu, _)| cpu).sum::<f64>();
    let between = looks.iter().filter(|look| look.at >= first.at && look.at <= last.at);
    Some(Steady {
        seconds,
        events_per_second: done / seconds,
        cpu_ms: (cpu(last) - cpu(first)) * 1000.0 / done,
        api_cpu_ms: (last.api_cpu - first.api_cpu) * 1000.0 / done,
        requests_per_event: (last.requests - first.requests) as f64 / done,
        rss_bytes: between.flat_map(|look| &look.workers).map(|(_, rss)| *rss).max().unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(seconds: u64, produced: u64) -> Look {
        let cpu = produced as f64 / 10_000.0;
        let workers = vec![(cpu, 40 + produced), (cpu + 5.0, 50)];
        Look { at: Duration::from_secs(seconds), produced, workers, api_cpu: cpu / 2.0, requests: produced / 50 }
    }

    #[test]
    fn start_and_end_are_left_out() {
        let looks =
            [look(0, 0), look(10, 100), look(11, 200), look(12, 400), look(13, 600), look(14, 800), look(90, 1000)];
        let found = steady(&looks, 1000, Duration::ZERO).expect("long enough");
        assert_eq!((found.seconds, found.events_per_second), (3.0, 200.0));
        assert!((found.cpu_ms - 0.2).abs() < 1e-9 && (found.api_cpu_ms - 0.05).abs() < 1e-9, "{found:?}");
        assert_eq!((found.requests_per_event, found.rss_bytes), (0.02, 840));
        let late = steady(&looks, 1000, Duration::from_secs(13)).expect("long enough");
        assert_eq!(late.seconds, 1.0, "the backlog was written until then");
    }

    #[test]
    fn a_run_that_is_over_at_once_has_no_figures() {
        assert_eq!(steady(&[look(0, 0), look(1, 1000)], 1000, Duration::ZERO), None);
        assert_eq!(steady(&[], 1000, Duration::ZERO), None);
    }
}
