//! Weir beside two bare loops on the same machine, broker and API in the same run: what exactly-once and order cost, and how
//! far it is to the limit.

pub(crate) mod api;
pub(crate) mod bare;
pub(crate) mod load;
pub(crate) mod run;
mod steady;
pub(crate) mod verify;

use std::fmt::Write as _;

use serde::Serialize;
use weir_tests::cases::Environment;

use self::{
    load::{Distribution, Load},
    run::{Figures, Plan, Who, run},
};

const BARE: Who = Who::Bare { revisions: 1 };
const BATCHING: Who = Who::Bare { revisions: 50 };
const WEIR: Who = Who::Weir { taskmanagers: 1 };
const TWO: Who = Who::Weir { taskmanagers: 2 };

/// A load and all who work it off.
struct Case {
    about: &'static str,
    content_bytes: Distribution,
    latency_ms: Distribution,
    /// Share of the events asked for that are enough to be measured.
    share: f64,
    runs: &'static [(Who, i32)],
}

const CASES: [Case; 3] = [
    Case {
        about: "API at 0 ms, content 10 KB: the programs are the limit",
        content_bytes: Distribution::fixed(10_000.0),
        latency_ms: Distribution::fixed(0.0),
        share: 1.0,
        runs: &[(BARE, 1), (BATCHING, 1), (WEIR, 1), (TWO, 1), (BARE, 4), (BATCHING, 4), (WEIR, 4), (TWO, 4)],
    },
    Case {
        about: "API at 500 ms, content 10 KB: its latency is the limit",
        content_bytes: Distribution::fixed(10_000.0),
        latency_ms: Distribution::fixed(500.0),
        share: 0.4,
        runs: &[(BATCHING, 1), (WEIR, 1), (TWO, 1)],
    },
    Case {
        about: "API at 50 ms (log-normal, sigma 0.8, at most 5 s), content 4 KB (log-normal, sigma 1.5, at most 2 MiB)",
        content_bytes: Distribution { median: 4000.0, sigma: 1.5, max: 2_097_152.0 },
        latency_ms: Distribution { median: 50.0, sigma: 0.8, max: 5000.0 },
        share: 0.6,
        runs: &[(BARE, 4), (BATCHING, 4), (WEIR, 4), (TWO, 4)],
    },
];

/// One run, for the table and for machines.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    case: &'static str,
    #[serde(flatten)]
    who: Who,
    partitions: i32,
    events: usize,
    #[serde(flatten)]
    figures: Figures,
    /// Against the batching loop of the same case and number of partitions.
    #[serde(skip_serializing_if = "Option::is_none")]
    of_batching_loop: Option<Ratio>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Ratio {
    events_per_second: f64,
    cpu: f64,
}

/// Runs all of them: the table, and its rows.
pub(super) async fn all(environment: &Environment, events: usize, seed: u64) -> anyhow::Result<(String, Vec<Row>)> {
    let mut rows: Vec<Row> = Vec::new();
    for (number, case) in CASES.iter().enumerate() {
        for (nth, (who, partitions)) in case.runs.iter().enumerate() {
            let Case { about, content_bytes, latency_ms, share, .. } = *case;
            let load = Load { seed, content_bytes, latency_ms };
            let events = (events as f64 * share) as usize;
            let plan = Plan { who: *who, partitions: *partitions, load, events };
            let figures = run(environment, &format!("compare-{number}-{nth}"), &plan).await?;
            let limit = rows.iter().find(|row| (row.case, row.who, row.partitions) == (about, BATCHING, *partitions));
            let of_batching_loop = limit.filter(|_| *who != BARE).map(|limit| Ratio {
                events_per_second: figures.steady.events_per_second / limit.figures.steady.events_per_second,
                cpu: figures.steady.cpu_ms / limit.figures.steady.cpu_ms,
            });
            rows.push(Row { case: about, who: *who, partitions: *partitions, events, figures, of_batching_loop });
            eprintln!("{}", rows.last().map(line).unwrap_or_default());
        }
    }
    Ok((table(&rows), rows))
}

const HEAD: &str = "                          parti-            CPU-s per              API requests   checkpoint      of the batching loop
                          tions  events/s  1,000 events  RSS (MB)     per event   p99 (ms)  events/s       CPU   API's CPU";

fn table(rows: &[Row]) -> String {
    let mut out = String::new();
    for (nth, row) in rows.iter().enumerate() {
        if nth == 0 || rows[nth - 1].case != row.case {
            let _ = writeln!(out, "{}{}\n{HEAD}", if nth == 0 { "" } else { "\n" }, row.case);
        }
        let _ = writeln!(out, "{}", line(row));
    }
    out
}

fn line(row: &Row) -> String {
    let who = match row.who {
        Who::Bare { revisions } => format!("bare loop, {revisions} a request"),
        Who::Weir { taskmanagers: 1 } => "Weir, 1 taskmanager".to_owned(),
        Who::Weir { taskmanagers } => format!("Weir, {taskmanagers} taskmanagers"),
    };
    let Figures { steady, checkpoints } = &row.figures;
    let checkpoint = checkpoints.map_or("-".to_owned(), |(_, p99)| format!("{p99:.0}"));
    let (speed, cpu) = row.of_batching_loop.map_or(("-".to_owned(), "-".to_owned()), |ratio| {
        (format!("{:.2}", ratio.events_per_second), format!("{:.2}", ratio.cpu))
    });
    format!(
        "  {who:24} {:>5} {:>9.0} {:>13.3} {:>9.0} {:>13.3} {checkpoint:>10} {speed:>9} {cpu:>9} {:>11.3}",
        row.partitions,
        steady.events_per_second,
        steady.cpu_ms,
        steady.rss_bytes as f64 / 1e6,
        steady.requests_per_event,
        steady.api_cpu_ms
    )
}
