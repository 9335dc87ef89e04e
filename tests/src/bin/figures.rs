//! First figures: `figures [EVENTS]`. Events per second, CPU time, memory, checkpoints, and how soon output resumes
//! after a kill.

#![allow(clippy::print_stdout, reason = "a program for people")]

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use weir_tests::{
    cases::Environment,
    events::Maker,
    harness::{
        job::{Job, no_overrides},
        kafka::{Input, produce},
        until,
        workspace::Workspace,
    },
};

const CONTENT_BYTES: usize = 10_000;
const WARM_UP: usize = 2000;
const LIMIT: Duration = Duration::from_secs(600);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let events = match std::env::args().nth(1) {
        Some(text) => text.parse().with_context(|| format!("`{text}` is no number of events"))?,
        None => 20_000,
    };
    let workspace = Workspace::new()?;
    let environment = Environment::new(workspace.clone());
    let mut tables = Vec::new();
    for (latency, name) in [("0", "figures-0ms"), ("50 ms", "figures-50ms")] {
        tables.push(format!(
            "API latency {latency}, content 10 KB\n{}",
            measure(&environment, name, latency, events).await?
        ));
    }
    tables.push(format!("kill -9 of one of two taskmanagers\n{}", kill(&environment).await?));
    tokio::task::spawn_blocking(move || drop(environment)).await?;
    workspace.clear();
    println!("\n{}", tables.join("\n"));
    Ok(())
}

async fn job(environment: &Environment, name: &str, latency: &str) -> anyhow::Result<(Job, weir_tests::cases::Stub)> {
    let stub = environment.stub(name, latency, "0", CONTENT_BYTES).await?;
    let mut spec = environment.spec(name, &stub.api).await?;
    // The product's own defaults, which the other tests shorten.
    spec.environment = vec![("WEIR__HEARTBEAT__INTERVAL", "1 s"), ("WEIR__HEARTBEAT__TIMEOUT", "10 s")];
    let mut job = Job::prepare(&environment.workspace, spec).await?;
    job.start().await?;
    Ok((job, stub))
}

async fn measure(environment: &Environment, name: &str, latency: &str, events: usize) -> anyhow::Result<String> {
    let (mut job, stub) = job(environment, name, latency).await?;
    let inputs: Vec<Input> = Maker::new(1, job.source_topics()).from_stub(&stub.truth, 2000, WARM_UP + events);
    produce(&job.spec.source, &inputs[..WARM_UP], 0).await?;
    job.all_done(WARM_UP as u64, LIMIT).await?;
    // A backlog, so that writing the input is not measured.
    let before: HashMap<String, f64> = job.usage().into_iter().map(|(name, usage)| (name, usage.cpu_seconds)).collect();
    let started = Instant::now();
    produce(&job.spec.source, &inputs[WARM_UP..], 0).await?;
    let produced = started.elapsed();
    job.all_done((WARM_UP + events) as u64, LIMIT).await?;
    let took = started.elapsed();

    let mut lines = format!(
        "  events/s                   {:>10.0}   ({events} in {:.1} s, of which writing them took {:.1} s)\n",
        events as f64 / took.as_secs_f64(),
        took.as_secs_f64(),
        produced.as_secs_f64()
    );
    let stub_usage = stub.process.usage()?;
    for (process, usage) in job.usage() {
        let spent = usage.cpu_seconds - before.get(&process).copied().unwrap_or(0.0);
        lines += &format!(
            "  {process:16} {:>8.3} CPU-s per 1,000 events, RSS {:>5.0} MB, peak {:>5.0} MB\n",
            spent * 1000.0 / events as f64,
            usage.rss_bytes as f64 / 1e6,
            usage.peak_bytes as f64 / 1e6
        );
    }
    lines += &format!("  (stub wiki since its start: {:.1} CPU-s)\n", stub_usage.cpu_seconds);
    lines += &checkpoints(&job).await?;
    job.shut_down().await?;
    job.verdict(&stub.truth, &no_overrides).await?;
    Ok(lines)
}

async fn checkpoints(job: &Job) -> anyhow::Result<String> {
    let all = job.admin.checkpoints().await?;
    let mut durations: Vec<u64> =
        all.iter().filter(|found| found.status == "COMPLETED").map(|c| c.duration_us).collect();
    durations.sort_unstable();
    let (Some(most), Some(middle)) = (durations.last(), durations.get(durations.len() / 2)) else {
        return Ok("  no checkpoint completed\n".to_owned());
    };
    let ms = |us: &u64| *us as f64 / 1000.0;
    Ok(format!(
        "  checkpoints: {} completed, median {:.0} ms, longest {:.0} ms\n",
        durations.len(),
        ms(middle),
        ms(most)
    ))
}

/// From the kill to the first and to the last of the victim's splits finishing something again.
async fn kill(environment: &Environment) -> anyhow::Result<String> {
    let (mut job, stub) = job(environment, "figures-kill", "20 ms").await?;
    let inputs: Arc<Vec<Input>> = Arc::new(Maker::new(2, job.source_topics()).from_stub(&stub.truth, 2000, 15_000));
    let feeding = {
        let (bootstrap, inputs) = (job.spec.source.clone(), Arc::clone(&inputs));
        tokio::spawn(async move { produce(&bootstrap, &inputs, 400).await })
    };
    job.consumed(2000, LIMIT).await?;
    let mut victim = job.taskmanagers.remove(0);
    let id = job.info(victim.pid).await?.taskmanager_id;
    let consumed = async |job: &Job| -> anyhow::Result<HashMap<i32, (String, u64)>> {
        let splits = job.admin.splits().await?;
        Ok(splits
            .iter()
            .map(|s| (s.progress_partition, (s.taskmanager_id.clone(), s.counters.unwrap_or_default().consumed)))
            .collect())
    };
    victim.kill().await?;
    let killed = Instant::now();
    let before: HashMap<i32, u64> = consumed(&job)
        .await?
        .into_iter()
        .filter(|(_, (owner, _))| *owner == id)
        .map(|(split, (_, count))| (split, count))
        .collect();
    let mut first = None;
    let last = until("all splits of the victim to go on", Duration::from_secs(90), async || {
        let now = consumed(&job).await?;
        // The victim's last report may come late: only what another owner finishes counts.
        let resumed =
            before.iter().filter(|(split, count)| now.get(split).is_some_and(|(owner, n)| *owner != id && n > count));
        let resumed = resumed.count();
        if resumed > 0 {
            first.get_or_insert(killed.elapsed());
        }
        Ok((resumed == before.len()).then(|| killed.elapsed()))
    })
    .await?;
    feeding.await??;
    job.all_done(inputs.len() as u64, LIMIT).await?;
    job.shut_down().await?;
    job.verdict(&stub.truth, &no_overrides).await?;
    Ok(format!(
        "  output resumes after {:.1} s (first split), {:.1} s (all {} splits); heartbeat.timeout is 10 s\n",
        first.unwrap_or(last).as_secs_f64(),
        last.as_secs_f64(),
        before.len()
    ))
}
