//! How soon work goes on after a kill, and how long a split stands still when it moves.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use weir_tests::{
    cases::{Environment, Stub},
    checker::read,
    events::Maker,
    harness::{
        job::{Job, no_overrides},
        moves, until,
    },
};

use super::{LIMIT, job};

const PER_SECOND: u32 = 400;

fn feed(job: &Job, stub: &Stub, count: usize) -> JoinHandle<anyhow::Result<()>> {
    let inputs = Arc::new(Maker::new(2, job.source_topics()).from_stub(&stub.truth, 2000, count));
    job.feed(&inputs, PER_SECOND)
}

/// Feeds to the end, and lets the checker judge.
async fn finish(job: &mut Job, stub: &Stub, feeding: JoinHandle<anyhow::Result<()>>, count: u64) -> anyhow::Result<()> {
    feeding.await??;
    job.all_done(count, LIMIT).await?;
    job.shut_down().await?;
    job.verdict(&stub.truth, &no_overrides).await?;
    Ok(())
}

/// From the kill to the first and to the last of the victim's splits finishing something again.
pub(super) async fn taskmanager(environment: &Environment) -> anyhow::Result<String> {
    let (mut job, stub) = job(environment, "figures-taskmanager", "20 ms", |_| ()).await?;
    let feeding = feed(&job, &stub, 12_000);
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
    let (mut first, mut moved) = (None, None);
    let last = until("all splits of the victim to go on", Duration::from_secs(90), async || {
        let now = consumed(&job).await?;
        if before.keys().all(|split| now.get(split).is_some_and(|(owner, _)| *owner != id && !owner.is_empty())) {
            moved.get_or_insert(killed.elapsed());
        }
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
    finish(&mut job, &stub, feeding, 12_000).await?;
    Ok(format!(
        "kill -9 of one of two taskmanagers, heartbeat.timeout 10 s\n  all {} splits assigned anew after {:.1} s; output \
         resumes after {:.1} s (first split), {:.1} s (last)\n",
        before.len(),
        moved.unwrap_or(last).as_secs_f64(),
        first.unwrap_or(last).as_secs_f64(),
        last.as_secs_f64()
    ))
}

/// The data plane without a jobmanager, and when a started one takes commands.
pub(super) async fn jobmanager(environment: &Environment) -> anyhow::Result<String> {
    let (mut job, stub) = job(environment, "figures-jobmanager", "20 ms", |_| ()).await?;
    let feeding = feed(&job, &stub, 12_000);
    job.consumed(2000, LIMIT).await?;
    job.jobmanager.take().context("it runs")?.kill().await?;
    let killed = Instant::now();
    job.start_jobmanager()?;
    let watching = tokio::spawn(longest_silence(job.spec.sink.clone(), job.sink_topic(), Duration::from_secs(20)));
    until("admin commands to be answered", Duration::from_secs(60), async || Ok(job.admin.status().await.ok())).await?;
    let answered = killed.elapsed();
    job.weir(&["savepoint", "trigger", "--output", "json"], 0).await?;
    let savepoint = killed.elapsed();
    let silence = watching.await??;
    job.running(2).await?;
    finish(&mut job, &stub, feeding, 12_000).await?;
    Ok(format!(
        "kill -9 of the jobmanager, started again at once\n  longest time without new committed output: {:.1} s \
         (transaction.interval 1 s); status is answered after {:.1} s, a savepoint stored after {:.1} s\n",
        silence.as_secs_f64(),
        answered.as_secs_f64(),
        savepoint.as_secs_f64()
    ))
}

/// The longest time in which a reader of committed records sees nothing new.
async fn longest_silence(bootstrap: String, topic: String, watch: Duration) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let (mut longest, mut changed, mut before) = (Duration::ZERO, Instant::now(), -1);
    while started.elapsed() < watch {
        let (bootstrap, topic) = (bootstrap.clone(), topic.clone());
        let now = tokio::task::spawn_blocking(move || read::span(&bootstrap, &topic)).await??;
        if now != before {
            (before, changed) = (now, Instant::now());
        }
        longest = longest.max(changed.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(longest)
}

/// Splits that move because a third taskmanager comes, and because it leaves again.
pub(super) async fn moves(environment: &Environment) -> anyhow::Result<String> {
    let (mut job, stub) = job(environment, "figures-moves", "20 ms", |spec| {
        spec.environment.push(("WEIR__TRANSACTION__INTERVAL", "200 ms"));
    })
    .await?;
    let feeding = feed(&job, &stub, 16_000);
    job.consumed(1000, LIMIT).await?;
    let stop = CancellationToken::new();
    let watching = tokio::spawn(moves::watch(job.admin.clone(), stop.clone()));
    for _ in 0..3 {
        job.start_taskmanager()?;
        job.running(3).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut leaving = job.taskmanagers.pop().context("it was started")?;
        leaving.terminate(LIMIT).await?;
        job.running(2).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    stop.cancel();
    let moves = watching.await??;
    finish(&mut job, &stub, feeding, 16_000).await?;
    Ok(format!("a third taskmanager comes and leaves, three times, transaction.interval 200 ms\n  {moves}\n"))
}
