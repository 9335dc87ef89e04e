//! What operators do to a running job: suspend, resume, reset, and decide where offsets are gone.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use serde_json::Value;
use weir_proto::v1::SplitInfo;

use super::{
    environment::{Environment, stub_events},
    failures::feed,
};
use crate::harness::{
    job::Job,
    kafka::{self, Input, produce},
    until,
};

/// Waits until all splits of one topic have failed with this kind and the others are done.
async fn fails_by_kind(job: &Job, hurt: &str, kind: &str) -> anyhow::Result<()> {
    until(&format!("the splits of {hurt} to fail with {kind}"), Duration::from_secs(60), async || {
        let splits = job.admin.splits().await?;
        let topic = |split: &SplitInfo| split.split.clone().unwrap_or_default().topic;
        let failed = |split: &SplitInfo| split.state == "FAILED" && split.failure_kind == kind;
        let hurt_and_failed = splits.iter().filter(|split| topic(split) == hurt && failed(split)).count();
        let sound_and_done = splits.iter().filter(|split| topic(split) != hurt && split.lag == 0).count();
        Ok((hurt_and_failed == 12 && sound_and_done == 12).then_some(()))
    })
    .await?;
    let status = job.admin.status().await?;
    ensure!(status.degraded.iter().any(|why| why.contains(kind)), "{:?}", status.degraded);
    state(job, "RUNNING").await
}

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
    let [hurt, _] = job.source_topics();
    let of = |inputs: &[Input], topic: &str| inputs.iter().filter(|input| input.topic == topic).count();
    let (all, new) = (of(&inputs, &hurt), of(rest, &hurt));
    ensure!(new > 50, "only {new} new records of {hurt}");
    // The first half of what is new is gone before it was read.
    let (gone, left) = (new / 2, new - new / 2);
    kafka::delete_records(&job.spec.source, &hurt, (all - left) as i64).await?;
    job.weir(&["resume"], 0).await?;

    fails_by_kind(&job, &hurt, "OFFSET_OUT_OF_RANGE").await?;

    let refused = job.weir(&["reset", "--to", "earliest", "--topic", &hurt], 3).await;
    refused.context("passing over records needs leave")?;
    job.weir(&["reset", "--to", "earliest", "--topic", &hurt, "--allow-skip"], 0).await?;
    job.all_done((inputs.len() - gone) as u64, Duration::from_secs(90)).await?;
    job.say(&format!("{gone} records were gone; 12 splits failed by kind, 12 went on; a reset healed it"));
    job.shut_down().await
}

/// The new topic is longer than the old one was, so that no offset is out of range.
pub(super) async fn topic_recreated(environment: Arc<Environment>) -> anyhow::Result<()> {
    let stub = environment.stub("topic-recreated", "5 ms", "0", 2000).await?;
    let mut spec = environment.spec("topic-recreated", &stub.api).await?;
    spec.environment.push(("WEIR__PARTITION__DISCOVERY__INTERVAL", "1 s"));
    let mut job = Job::prepare(&environment.workspace, spec).await?;
    let inputs = stub_events(&job, &stub, 23, 400);
    job.start().await?;
    produce(&job.spec.source, &inputs, 0).await?;
    job.all_done(inputs.len() as u64, Duration::from_secs(60)).await?;
    // While it rests, so that nobody notices that the topic was gone for a moment; then at a start as well.
    let [hurt, _] = job.source_topics();
    job.weir(&["suspend"], 0).await?;
    kafka::recreate_topic(&job.spec.source, &hurt).await?;
    let others = stub_events(&job, &stub, 24, 1200);
    let others: Vec<Input> = others.iter().filter(|input| input.topic == hurt).cloned().collect();
    let before = inputs.iter().filter(|input| input.topic == hurt).count();
    ensure!(others.len() > 2 * before, "the new topic must be longer than the old one: {before}, {}", others.len());
    produce(&job.spec.source, &others, 0).await?;
    job.weir(&["resume"], 0).await?;
    fails_by_kind(&job, &hurt, "TOPIC_RECREATED").await?;
    let consumed = job.admin.status().await?.counters.unwrap_or_default().consumed;
    ensure!(consumed == inputs.len() as u64, "{consumed} inputs finished: some of the new topic were read");
    job.jobmanager.take().context("it runs")?.kill().await?;
    job.start_jobmanager()?;
    fails_by_kind(&job, &hurt, "TOPIC_RECREATED").await?;

    job.weir(&["reset", "--to", "earliest", "--topic", &hurt, "--allow-replay"], 0).await?;
    job.all_done((inputs.len() + others.len()) as u64, Duration::from_secs(60)).await?;
    job.jobmanager.take().context("it runs")?.kill().await?;
    job.start_jobmanager()?;
    job.running(2).await?;
    job.say(&format!("{} records of the new topic were read from its beginning, after a reset", others.len()));
    job.shut_down().await
}
