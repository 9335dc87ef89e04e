//! What the demo says at its end.

use std::time::Duration;

use serde_json::{Value, json};

use super::verify::{JobCounters, Tally};
use crate::output::{facts, number};

/// The verdict and what it rests on.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    pub(crate) job_name: String,
    pub(crate) delivery_guarantee: &'static str,
    pub(crate) tally: Tally,
    pub(crate) job: Option<JobCounters>,
    /// The first ones.
    pub(crate) violations: Vec<String>,
    pub(crate) violations_total: u64,
    /// All inputs had come out when the demo ended.
    pub(crate) drained: bool,
    pub(crate) checkpoints: u64,
    pub(crate) restarts: u64,
    /// Requests to the stub wiki, and how many of them failed on purpose.
    pub(crate) requests: (u64, u64),
    /// First input to last output.
    pub(crate) duration: Duration,
    /// Where logs, configuration and snapshots are, if kept.
    pub(crate) folder: Option<String>,
}

impl Summary {
    pub(crate) fn json(&self) -> Value {
        json!({
            "result": if self.violations_total == 0 { "ok" } else { "violations" },
            "job_name": self.job_name,
            "delivery_guarantee": self.delivery_guarantee,
            "drained": self.drained,
            "tally": self.tally,
            "job_counters": self.job,
            "violations": self.violations,
            "violations_total": self.violations_total,
            "checkpoints_completed": self.checkpoints,
            "restarts": self.restarts,
            "api_requests": self.requests.0,
            "api_faults": self.requests.1,
            "duration_s": (self.duration.as_secs_f64() * 1000.0).round() / 1000.0,
            "events_per_s": self.rate().round(),
            "folder": self.folder,
        })
    }

    fn rate(&self) -> f64 {
        self.tally.inputs as f64 / self.duration.as_secs_f64().max(0.001)
    }

    pub(crate) fn text(&self) -> String {
        let tally = &self.tally;
        let mut lines = vec![
            (
                "Events",
                format!("{} in {:.1} s, {:.0}/s", number(tally.inputs), self.duration.as_secs_f64(), self.rate()),
            ),
            (
                "Enriched",
                format!("{}, {} of them without content (hidden)", number(tally.enriched), tally.without_body),
            ),
            ("Passed through", number(tally.passed_through)),
            ("Error events", number(tally.errors)),
            ("Canaries", format!("{} dropped", number(tally.dropped))),
            ("Repeats", format!("{} ({})", number(tally.repeats), self.delivery_guarantee)),
            ("Restarts", self.restarts.to_string()),
            ("Checkpoints", self.checkpoints.to_string()),
            ("Requests", format!("{}, {} failed on purpose", number(self.requests.0), number(self.requests.1))),
        ];
        if let Some(folder) = &self.folder {
            lines.push(("Kept", folder.clone()));
        }
        let verdict = match self.violations_total {
            0 => "every input came out as it must".to_owned(),
            count => format!("{count} violations"),
        };
        lines.push(("Verdict", verdict));
        lines.extend(self.violations.iter().map(|violation| ("", violation.clone())));
        facts(&lines)
    }
}
