//! What exactly-once costs over at-least-once.

use std::{collections::HashMap, time::Instant};

use weir_tests::{
    cases::Environment,
    events::Maker,
    harness::{
        job::no_overrides,
        kafka::{Input, produce},
        process::Usage,
    },
};

use super::{LIMIT, job};

const WARM_UP: usize = 2000;

/// What one run showed.
struct Run {
    events_per_second: f64,
    /// Of both taskmanagers, per 1,000 events.
    cpu_seconds: f64,
}

/// The same load with both guarantees, alternating, so that what else happens on the machine hits both.
pub(super) async fn guarantees(environment: &Environment, events: usize) -> anyhow::Result<String> {
    const PAIRS: usize = 3;
    let mut out =
        String::from("exactly-once against at-least-once, the same load (API 20 ms, content 10 KB), in pairs\n");
    let (mut speed, mut cpu) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        let mut runs = Vec::new();
        for exactly_once in [true, false] {
            let name = format!("figures-{}-{pair}", if exactly_once { "eo" } else { "alo" });
            runs.push(measure(environment, &name, "20 ms", events, exactly_once).await?);
        }
        let [eo, alo] = &runs[..] else { unreachable!("two were pushed") };
        let (faster, dearer) = (eo.events_per_second / alo.events_per_second, eo.cpu_seconds / alo.cpu_seconds);
        out += &format!(
            "  {:>6.0} against {:>6.0} events/s: {faster:.2}; {:.3} against {:.3} CPU-s per 1,000 events: {dearer:.2}\n",
            eo.events_per_second, alo.events_per_second, eo.cpu_seconds, alo.cpu_seconds
        );
        speed.push(faster);
        cpu.push(dearer);
    }
    let median = |mut ratios: Vec<f64>| {
        ratios.sort_by(f64::total_cmp);
        ratios[ratios.len() / 2]
    };
    out += &format!("  median ratio: events/s {:.2}, CPU {:.2}\n", median(speed), median(cpu));
    Ok(out)
}

async fn measure(
    environment: &Environment,
    name: &str,
    latency: &str,
    events: usize,
    exactly_once: bool,
) -> anyhow::Result<Run> {
    let (mut job, stub) = job(environment, name, latency, |spec| spec.exactly_once = exactly_once).await?;
    let inputs: Vec<Input> = Maker::new(1, job.source_topics()).from_stub(&stub.truth, 2000, WARM_UP + events);
    produce(&job.spec.source, &inputs[..WARM_UP], 0).await?;
    job.all_done(WARM_UP as u64, LIMIT).await?;
    // A backlog, so that writing the input is not measured.
    let before: HashMap<String, f64> = job.usage().into_iter().map(|(name, usage)| (name, usage.cpu_seconds)).collect();
    let started = Instant::now();
    produce(&job.spec.source, &inputs[WARM_UP..], 0).await?;
    job.all_done((WARM_UP + events) as u64, LIMIT).await?;
    let took = started.elapsed();

    let events_per_second = events as f64 / took.as_secs_f64();
    let spent = |(process, usage): (String, Usage)| usage.cpu_seconds - before.get(&process).copied().unwrap_or(0.0);
    let taskmanagers = job.usage().into_iter().filter(|(process, _)| process.starts_with("taskmanager"));
    let cpu_seconds = taskmanagers.map(spent).sum::<f64>() * 1000.0 / events as f64;
    job.shut_down().await?;
    job.verdict(&stub.truth, &no_overrides).await?;
    Ok(Run { events_per_second, cpu_seconds })
}
