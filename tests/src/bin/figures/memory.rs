//! Bounds of memory, each with the load that strains it. A bound that is passed fails the run.

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use weir_tests::{
    cases::Environment,
    harness::{
        job::Job,
        kafka::{delete_topics, produce},
        process::Process,
    },
};

use super::{
    LIMIT,
    compare::{
        load::{Distribution, Load},
        run::{Api, Plan, Who, prepared},
        verify,
    },
};

const WEIR: Who = Who::Weir { taskmanagers: 1 };

/// What the container of a taskmanager may use, and the budget that a taskmanager takes of it by default.
const LIMIT_BYTES: u64 = 1_500_000_000;
const BUDGET_OF_LIMIT: &str = "600 MB";

/// Largest content that MediaWiki accepts unless it is told otherwise: `$wgMaxArticleSize`, 2048 KiB.
const LARGEST_PAGE_BYTES: f64 = 2_097_152.0;
const LARGE_PAGES: usize = 1000;

/// The usual load of production: so many events in a second, of so many bytes of content, for so long.
const USUAL_PER_SECOND: u32 = 25;
const USUAL_BYTES: f64 = 10_000.0;
const USUAL_SECONDS: usize = 40;
const USUAL_LIMIT_BYTES: u64 = 100_000_000;

pub(super) async fn bounds(environment: &Environment, seed: u64) -> anyhow::Result<String> {
    let mut out = String::from("memory of one taskmanager, exactly once, 4 partitions\n");
    let largest = largest_pages(environment, seed).await?;
    writeln!(
        out,
        "  {LARGE_PAGES} events of the largest pages (2 MiB), 1,000 wanted in flight, limit 1,500 MB: peak RSS {:.0} MB",
        largest as f64 / 1e6
    )?;
    let usual = usual_load(environment, seed).await?;
    writeln!(
        out,
        "  {USUAL_PER_SECOND} events/s with 10 KB for {USUAL_SECONDS} s: peak RSS {:.0} MB of at most 100",
        usual as f64 / 1e6
    )?;
    Ok(out)
}

/// The process may not have more than the limit: where the machine lets us, the kernel sees to it.
async fn largest_pages(environment: &Environment, seed: u64) -> anyhow::Result<u64> {
    let plan = plan(seed, LARGEST_PAGE_BYTES, LARGE_PAGES);
    let api = Api::start(environment, "memory-largest", &plan.load).await?;
    let mut job = prepared(environment, "memory-largest", &plan, &api, |spec| {
        spec.environment.push(("WEIR__TASKMANAGER__MEMORY_BUDGET", BUDGET_OF_LIMIT));
        spec.environment.push(("WEIR__TASKMANAGER__MAX_IN_FLIGHT", "1000"));
    })
    .await?;
    produce(&job.spec.source, &plan.load.events(&job.source_topics()[0], plan.events), 0).await?;
    job.start_jobmanager()?;
    job.start_taskmanager()?;
    let cage = Cage::around(&job.taskmanagers[0]);
    let peak = finish(&mut job, plan.events).await?;
    ensure!(peak <= LIMIT_BYTES, "the taskmanager has taken {peak} bytes of {LIMIT_BYTES}");
    drop(cage);
    Ok(peak)
}

async fn usual_load(environment: &Environment, seed: u64) -> anyhow::Result<u64> {
    let plan = plan(seed, USUAL_BYTES, USUAL_PER_SECOND as usize * USUAL_SECONDS);
    let api = Api::start(environment, "memory-usual", &plan.load).await?;
    let mut job = prepared(environment, "memory-usual", &plan, &api, |_| ()).await?;
    job.start_jobmanager()?;
    job.start_taskmanager()?;
    job.running(1).await?;
    produce(&job.spec.source, &plan.load.events(&job.source_topics()[0], plan.events), USUAL_PER_SECOND).await?;
    let peak = finish(&mut job, plan.events).await?;
    ensure!(peak < USUAL_LIMIT_BYTES, "the taskmanager has taken {peak} bytes of {USUAL_LIMIT_BYTES}");
    Ok(peak)
}

fn plan(seed: u64, content_bytes: f64, events: usize) -> Plan {
    let (content_bytes, latency_ms) = (Distribution::fixed(content_bytes), Distribution::fixed(0.0));
    Plan { who: WEIR, partitions: 4, load: Load { seed, content_bytes, latency_ms }, events }
}

/// Waits for the end of the load and checks the output; the highest that the taskmanager's memory was.
async fn finish(job: &mut Job, events: usize) -> anyhow::Result<u64> {
    job.all_done(events as u64, LIMIT).await?;
    let errors = job.admin.status().await?.counters.unwrap_or_default().errors;
    ensure!(errors == 0, "{errors} error events");
    let peak = job.taskmanagers[0].usage()?.peak_bytes;
    job.shut_down().await?;
    let (sink, topic) = (job.spec.sink.clone(), job.sink_topic());
    tokio::task::spawn_blocking(move || verify::once_and_in_order(&sink, &topic, events)).await??;
    let [eqiad, codfw] = job.source_topics();
    delete_topics(&job.spec.source, &[&eqiad, &codfw, &job.sink_topic(), &job.error_topic()]).await?;
    Ok(peak)
}

/// A control group (version 1 or 2) that ends a process that takes more than the limit.
struct Cage(PathBuf);

impl Cage {
    /// `None`, and a word about it, where groups cannot be made; the peak is held against the limit all the same.
    fn around(process: &Process) -> Option<Self> {
        let made = Self::make("/sys/fs/cgroup/memory", "memory.limit_in_bytes", process.pid)
            .or_else(|_| Self::make("/sys/fs/cgroup", "memory.max", process.pid));
        made.inspect_err(|why| eprintln!("no control group ({why:#}): the limit is only looked at")).ok()
    }

    fn make(root: &str, limit: &str, pid: u32) -> anyhow::Result<Self> {
        let cage = Self(PathBuf::from(root).join(format!("weir-bench-{pid}")));
        std::fs::create_dir(&cage.0).with_context(|| cage.0.display().to_string())?;
        let write = |file: &str, text: String| {
            let file = cage.0.join(file);
            std::fs::write(&file, text).with_context(|| file.display().to_string())
        };
        write(limit, LIMIT_BYTES.to_string())?;
        write("cgroup.procs", pid.to_string())?;
        Ok(cage)
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        // Goes once nobody is in it any more; whatever stays is empty.
        for _ in 0..50 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
