//! Processes that are killed in the middle.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use super::environment::{Environment, Stub, stub_events};
use crate::{
    checker::{Verdict, read},
    events::Maker,
    harness::{
        job::{Job, no_overrides},
        kafka::Input,
        until,
    },
};

const EVENTS: usize = 5000;
/// So that the middle lasts some seconds.
const PER_SECOND: u32 = 350;

/// Feeds in the background, until it is awaited.
pub(super) fn feed(job: &Job, inputs: &Arc<Vec<Input>>) -> tokio::task::JoinHandle<anyhow::Result<()>> {
    job.feed(inputs, PER_SECOND)
}

pub(super) async fn taskmanager_killed(environment: Arc<Environment>) -> anyhow::Result<()> {
    let wikis = environment.wikis().await?;
    let _turn = environment.mediawiki_turn.lock().await;
    let mut job = environment.job_on_mediawiki("taskmanager-killed", &[]).await?;
    let inputs = Arc::new(Maker::new(3, job.source_topics()).from_mediawiki(&wikis.truth, EVENTS));
    job.start().await?;
    let feeding = feed(&job, &inputs);
    job.consumed(EVENTS as u64 / 4, Duration::from_secs(120)).await?;

    let survivor = job.info(job.taskmanagers[1].pid).await?;
    let mut victim = job.taskmanagers.remove(0);
    victim.kill().await?;
    let (took_over, longest_gap) = watch_take_over(&mut job, survivor.pid).await?;
    job.say(&format!(
        "splits taken over {:.1} s after the kill; the survivor's longest pause was {:.1} s",
        took_over.as_secs_f64(),
        longest_gap.as_secs_f64()
    ));
    ensure!(longest_gap < Duration::from_secs(3), "the surviving taskmanager stood still for {longest_gap:?}");
    let after = job.info(survivor.pid).await?;
    ensure!(after.taskmanager_id == survivor.taskmanager_id, "the survivor is not the same: {after:?}");
    ensure!(after.registered_unix_ms == survivor.registered_unix_ms, "the survivor registered anew: {after:?}");

    feeding.await??;
    job.all_done(EVENTS as u64, Duration::from_secs(180)).await?;
    job.shut_down().await?;
    job.verdict(&wikis.truth, &no_overrides).await?;
    Ok(())
}

/// Waits until the survivor has every split; how long that took, and the longest time that it finished nothing.
async fn watch_take_over(job: &mut Job, survivor: u32) -> anyhow::Result<(Duration, Duration)> {
    let killed = Instant::now();
    let mut moved = (job.info(survivor).await?.totals.unwrap_or_default().consumed, Instant::now());
    let mut longest = Duration::ZERO;
    let mut took_over = None;
    until("the survivor to take over", Duration::from_secs(60), async || {
        job.taskmanagers[0].must_live()?;
        let (info, status) = (job.info(survivor).await?, job.admin.status().await?);
        let consumed = info.totals.unwrap_or_default().consumed;
        if consumed > moved.0 {
            moved = (consumed, Instant::now());
        }
        longest = longest.max(moved.1.elapsed());
        if took_over.is_none() && info.splits == status.splits && status.splits_assigned == status.splits {
            took_over = Some(killed.elapsed());
        }
        // A little longer, to see it go on.
        Ok(took_over.filter(|since| killed.elapsed() > *since + Duration::from_secs(2)))
    })
    .await
    .map(|took_over| (took_over, longest))
}

pub(super) async fn jobmanager_killed(environment: Arc<Environment>) -> anyhow::Result<()> {
    let stub = environment.stub("jobmanager-killed", "20 ms", "0.02", 2000).await?;
    let mut job = environment.job("jobmanager-killed", &stub.api).await?;
    let inputs = stub_events(&job, &stub, 4, EVENTS);
    job.start().await?;
    let feeding = feed(&job, &inputs);
    job.consumed(EVENTS as u64 / 5, Duration::from_secs(60)).await?;
    let before = job.admin.status().await?;
    let pids: Vec<u32> = job.taskmanagers.iter().map(|process| process.pid).collect();

    job.jobmanager.take().context("it runs")?.kill().await?;
    goes_on_without_jobmanager(&mut job).await?;
    job.start_jobmanager()?;
    job.running(2).await?;
    let after = job.admin.status().await?;
    ensure!(
        after.leader_epoch > before.leader_epoch,
        "leader epoch {} after {}",
        after.leader_epoch,
        before.leader_epoch
    );
    for pid in pids {
        job.info(pid).await.context("a taskmanager was not adopted")?;
    }
    feeding.await??;
    job.all_done(EVENTS as u64, Duration::from_secs(120)).await?;
    job.shut_down().await?;
    job.verdict(&stub.truth, &no_overrides).await?;
    Ok(())
}

/// Output must keep coming while there is no jobmanager: looked at each second, for five.
async fn goes_on_without_jobmanager(job: &mut Job) -> anyhow::Result<()> {
    let span = |job: &Job| {
        let (bootstrap, topic) = (job.spec.sink.clone(), job.sink_topic());
        tokio::task::spawn_blocking(move || read::span(&bootstrap, &topic))
    };
    let mut before = span(job).await??;
    let mut written = Vec::new();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        job.taskmanagers.iter_mut().try_for_each(crate::harness::process::Process::must_live)?;
        let now = span(job).await??;
        written.push(now - before);
        before = now;
    }
    job.say(&format!("output without a jobmanager, each 1.5 s: {written:?}"));
    ensure!(written.iter().all(|count| *count > 0), "output stopped without a jobmanager: {written:?}");
    Ok(())
}

/// Kills every process, starts anew, and lets the checker judge when all is done.
async fn kill_all_and_finish(
    job: &mut Job,
    stub: &Stub,
    feeding: tokio::task::JoinHandle<anyhow::Result<()>>,
) -> anyhow::Result<Verdict> {
    for mut process in job.taskmanagers.drain(..).chain(job.jobmanager.take()) {
        process.kill().await?;
    }
    job.start().await?;
    feeding.await??;
    job.all_done(EVENTS as u64, Duration::from_secs(120)).await?;
    job.shut_down().await?;
    job.verdict(&stub.truth, &no_overrides).await
}

pub(super) async fn everything_killed(environment: Arc<Environment>) -> anyhow::Result<()> {
    let stub = environment.stub("everything-killed", "20 ms", "0.02", 2000).await?;
    let mut job = environment.job("everything-killed", &stub.api).await?;
    let inputs = stub_events(&job, &stub, 5, EVENTS);
    job.start().await?;
    let feeding = feed(&job, &inputs);
    job.consumed(EVENTS as u64 / 4, Duration::from_secs(60)).await?;
    kill_all_and_finish(&mut job, &stub, feeding).await?;
    Ok(())
}

pub(super) async fn at_least_once(environment: Arc<Environment>) -> anyhow::Result<()> {
    let stub = environment.stub("at-least-once", "20 ms", "0.02", 2000).await?;
    let mut spec = environment.spec("at-least-once", &stub.api).await?;
    spec.exactly_once = false;
    let mut job = Job::prepare(&environment.workspace, spec).await?;
    let inputs = stub_events(&job, &stub, 6, EVENTS);
    job.start().await?;
    let feeding = feed(&job, &inputs);
    job.consumed(EVENTS as u64 / 5, Duration::from_secs(60)).await?;
    // First one taskmanager, which is replaced; then all.
    job.taskmanagers.remove(0).kill().await?;
    job.start_taskmanager()?;
    job.consumed(EVENTS as u64 / 2, Duration::from_secs(60)).await?;
    let verdict = kill_all_and_finish(&mut job, &stub, feeding).await?;
    job.say(&format!("{} repeats after two kills", verdict.repeats));
    Ok(())
}
