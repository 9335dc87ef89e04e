//! Figures of the whole system: `figures [EVENTS [PART...]]`. Events per second, CPU and memory beside bare loops, the bounds
//! of memory, the cost of exactly-once, checkpoints under a slow and a silent API, and how soon work goes on after a kill or
//! a move. `figures api` and `figures bare-loop` are parts of a comparison that want processes of their own.

#![allow(clippy::print_stdout, reason = "a program for people")]

mod checkpoints;
mod compare;
mod guarantee;
mod kills;
mod memory;

use std::time::Duration;

use anyhow::{Context, bail};
use weir_tests::{
    cases::{Environment, Stub},
    harness::{job::Job, workspace::Workspace},
};

const PARTS: [&str; 7] = ["compare", "memory", "guarantee", "checkpoints", "taskmanager", "jobmanager", "moves"];

/// Enough for a run at full speed to be steady for a few seconds.
const DEFAULT_EVENTS: usize = 100_000;

/// Nothing here may take longer.
const LIMIT: Duration = Duration::from_secs(600);

/// Of every page.
const CONTENT_BYTES: usize = 10_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["api", load] => compare::api::serve(serde_json::from_str(load)?).await,
        ["bare-loop", plan] => compare::bare::run(serde_json::from_str(plan)?).await,
        [] => figures(DEFAULT_EVENTS, &[]).await,
        [events, ref parts @ ..] => {
            figures(events.parse().with_context(|| format!("`{events}` is no number of events"))?, parts).await
        }
    }
}

async fn figures(events: usize, wanted: &[&str]) -> anyhow::Result<()> {
    if let Some(unknown) = wanted.iter().find(|part| !PARTS.contains(part)) {
        bail!("`{unknown}` is none of {}", PARTS.join(", "));
    }
    let seed = std::env::var("WEIR_BENCH_SEED").map_or(Ok(1), |seed| seed.parse()).context("WEIR_BENCH_SEED")?;
    let workspace = Workspace::new()?;
    let environment = Environment::new(workspace.clone());
    let mut tables = Vec::new();
    for part in PARTS.iter().filter(|part| wanted.is_empty() || wanted.contains(part)) {
        tables.push(match *part {
            "compare" => {
                let (table, rows) = compare::all(&environment, events, seed).await?;
                let path = workspace.bin.join("bench.json");
                std::fs::write(&path, serde_json::to_vec_pretty(&rows)?)?;
                format!("{table}\nas JSON: {}\n", path.display())
            }
            "memory" => memory::bounds(&environment, seed).await?,
            "guarantee" => guarantee::guarantees(&environment, events / 5).await?,
            "checkpoints" => checkpoints::under_a_slow_api(&environment).await?,
            "taskmanager" => kills::taskmanager(&environment).await?,
            "jobmanager" => kills::jobmanager(&environment).await?,
            _ => kills::moves(&environment).await?,
        });
    }
    tokio::task::spawn_blocking(move || drop(environment)).await?;
    workspace.clear();
    println!("\n{}", tables.join("\n"));
    Ok(())
}

/// A running job with two taskmanagers. The product's own defaults where the other tests shorten them.
async fn job(
    environment: &Environment,
    name: &str,
    latency: &str,
    change: impl FnOnce(&mut weir_tests::harness::job::Spec),
) -> anyhow::Result<(Job, Stub)> {
    let stub = environment.stub(name, latency, "0", CONTENT_BYTES).await?;
    let mut spec = environment.spec(name, &stub.api).await?;
    spec.environment = vec![("WEIR__HEARTBEAT__INTERVAL", "1 s"), ("WEIR__HEARTBEAT__TIMEOUT", "10 s")];
    change(&mut spec);
    let mut job = Job::prepare(&environment.workspace, spec).await?;
    job.start().await?;
    Ok((job, stub))
}

/// The middle and the 99th of a hundred, in milliseconds.
struct Percentiles {
    count: usize,
    p50: f64,
    p99: f64,
    longest: f64,
}

impl Percentiles {
    fn of_micros(mut micros: Vec<u64>) -> Self {
        micros.sort_unstable();
        let at = |share: f64| {
            let rank = (micros.len() as f64 * share).ceil() as usize;
            micros.get(rank.clamp(1, micros.len().max(1)) - 1).map_or(f64::NAN, |us| *us as f64 / 1000.0)
        };
        Self { count: micros.len(), p50: at(0.5), p99: at(0.99), longest: at(1.0) }
    }
}

impl std::fmt::Display for Percentiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { count, p50, p99, longest } = self;
        write!(f, "{count:>4}   p50 {p50:>6.0} ms   p99 {p99:>6.0} ms   longest {longest:>6.0} ms")
    }
}
