//! What operators do to a running job: suspend, resume, reset, and decide where offsets are gone.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::{
    environment::{Environment, stub_events},
    failures::feed,
};
use crate::harness::{
    job::Job,
    kafka::{self, Input, produce},
    until,
};

async fn state(job: &Job, wanted: &str) -> anyhow::Result<()> {
    let status = job.admin.status().await?;
    ensure!(status.state == wanted, "{} ({}) instead of {wanted}", status.state, status.state_reason);
    Ok(())
}

pub(super) async fn suspend_and_reset(environment: Arc<Environment>) -> anyhow::Result<()> {
    const EVENTS: usize = 1500;
    let stub = environment.stub("suspend", "10 ms", "0", 2000).await?;
    let mut job = environment.job("suspend", &stub.api).await?;
    let inputs = stub_events(&job, &stub, 21, EVENTS);
    job.start().await?;
    let feeding = feed(&job, &inputs);
    job.consumed(300, Duration::from_secs(60)).await?;
    let suspended = job.weir(&["suspend", "--output", "json"], 0).await?;
    ensure!(suspended.contains("/checkpoints/"), "no checkpoint: {suspended}");
    state(&job, "SUSPENDED").await?;
    let rests_at = job.admin.status().await?.counters.unwrap_or_default().consumed;

    // The next jobmanager finds it so, and the taskmanagers stay.
    job.jobmanager.take().context("it runs")?.kill().await?;
    job.start_jobmanager()?;
    until("both taskmanagers to be back", Duration::from_secs(60), async || {
        Ok((job.admin.status().await?.taskmanagers == 2).then_some(()))
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    state(&job, "SUSPENDED").await?;
    let counted = job.admin.status().await?.counters.unwrap_or_default().consumed;
    ensure!(counted == rests_at, "a suspended job went on from {rests_at} to {counted}");
    job.weir(&["resume"], 0).await?;
    job.running(2).await?;
    feeding.await??;
    job.all_done(EVENTS as u64, Duration::from_secs(90)).await?;

    job.weir(&["reset", "--to", "earliest"], 3).await?;
    let moved = job.weir(&["reset", "--to", "earliest", "--allow-replay", "--output", "json"], 0).await?;
    job.say(&format!("reset: {}", moved.split_whitespace().collect::<Vec<_>>().join(" ")));
    until("everything to be done again", Duration::from_secs(90), async || {
        let status = job.admin.status().await?;
        let consumed = status.counters.unwrap_or_default().consumed;
        ensure!(consumed <= 2 * EVENTS as u64, "counted {consumed}, more than twice {EVENTS}");
        Ok((consumed == 2 * EVENTS as u64 && status.state == "RUNNING").then_some(()))
    })
    .await?;
    let moved: Value = serde_json::from_str(&moved)?;
    let at_most: u64 = moved["partitions"]
        .as_array()
        .context("no partitions in the reset's JSON")?
        .iter()
        .filter_map(|partition| partition["replayed_at_most"].as_u64())
        .sum();
    ensure!(at_most == EVENTS as u64, "{at_most} records were to be done again at most, not {EVENTS}");
    job.shut_down().await?;
    job.judge_repeats(&stub.truth, &inputs).await
}

pub(super) async fn offsets_gone(environment: Arc<Environment>) -> anyhow::Result<()> {
    let stub = environment.stub("offsets-gone", "5 ms", "0", 2000).await?;
    let mut job = environment.job("offsets-gone", &stub.api).await?;
    let inputs = stub_events(&job, &stub, 22, 1000);
    let (first, rest) = inputs.split_at(600);
    job.start().await?;
    produce(&job.spec.source, first, 0).await?;
    job.all_done(first.len() as u64, Duration::from_secs(60)).await?;
    job.weir(&["suspend"], 0).await?;
    produce(&job.spec.source, rest, 0).await?;
    let [hurt, sound] = job.source_topics();
    let of = |inputs: &[Input], topic: &str| inputs.iter().filter(|input| input.topic == topic).count();
    let (all, new) = (of(&inputs, &hurt), of(rest, &hurt));
    ensure!(new > 50, "only {new} new records of {hurt}");
    // The first half of what is new is gone before it was read.
    let (gone, left) = (new / 2, new - new / 2);
    kafka::delete_records(&job.spec.source, &hurt, (all - left) as i64).await?;
    job.weir(&["resume"], 0).await?;

    until("the splits to fail by kind", Duration::from_secs(60), async || {
        let splits = job.admin.splits().await?;
        let topic = |split: &weir_proto::v1::SplitInfo| split.split.clone().unwrap_or_default().topic;
        let failed = splits.iter().filter(|split| topic(split) == hurt && split.state == "FAILED").count();
        let others = splits.iter().filter(|split| topic(split) == sound && split.lag == 0).count();
        Ok((failed == 12 && others == 12).then_some(()))
    })
    .await?;
    let listed = job.weir(&["splits", "--output", "json"], 0).await?;
    ensure!(listed.contains("OFFSET_OUT_OF_RANGE"), "no kind: {listed:.500}");
    let status = job.admin.status().await?;
    ensure!(status.degraded.iter().any(|why| why.contains("OFFSET_OUT_OF_RANGE")), "{:?}", status.degraded);
    state(&job, "RUNNING").await?;

    let refused = job.weir(&["reset", "--to", "earliest", "--topic", &hurt], 3).await;
    refused.context("passing over records needs leave")?;
    job.weir(&["reset", "--to", "earliest", "--topic", &hurt, "--allow-skip"], 0).await?;
    job.all_done((inputs.len() - gone) as u64, Duration::from_secs(90)).await?;
    job.say(&format!("{gone} records were gone; 12 splits failed by kind, 12 went on; a reset healed it"));
    job.shut_down().await
}
