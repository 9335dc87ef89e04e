//! S3 that is not there.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;

use super::{
    environment::{Environment, storage_yaml, stub_events},
    failures::feed,
};
use crate::harness::{
    job::{Job, no_overrides},
    until,
};

/// How long S3 is away in the middle; the events last longer.
const AWAY: Duration = Duration::from_secs(60);
const EVENTS: usize = 30_000;

pub(super) async fn outage(environment: Arc<Environment>) -> anyhow::Result<()> {
    let stub = environment.stub("storage-outage", "20 ms", "0.02", 2000).await?;
    let rgw = environment.own_rgw("rgw-outage").await?;
    let mut spec = environment.spec("storage-outage", &stub.api).await?;
    spec.storage = storage_yaml(&rgw, &rgw.endpoint);
    let mut job = Job::prepare(&environment.workspace, spec).await?;
    let inputs = stub_events(&job, &stub, 7, EVENTS);

    rgw.kill()?;
    job.start().await?;
    let feeding = feed(&job, &inputs);
    degraded(&mut job, true).await?;
    job.consumed(500, Duration::from_secs(60)).await?;
    rgw.start()?;
    degraded(&mut job, false).await?;
    ensure!(job.admin.status().await?.number_of_completed_checkpoints > 0, "not degraded, yet without a checkpoint");

    rgw.kill()?;
    let before = job.admin.status().await?;
    degraded(&mut job, true).await?;
    tokio::time::sleep(AWAY).await;
    let during = job.admin.status().await?;
    let finished = during.counters.unwrap_or_default().consumed - before.counters.unwrap_or_default().consumed;
    job.say(&format!("without S3 for {AWAY:?}: {finished} inputs finished, degraded: {:?}", during.degraded));
    ensure!(finished > 1000 || during.lag == 0, "the job did not go on without S3: {finished} inputs finished");
    rgw.start()?;
    degraded(&mut job, false).await?;
    let resumed = job.admin.status().await?.number_of_completed_checkpoints;
    ensure!(resumed > during.number_of_completed_checkpoints, "no checkpoint since S3 is back: {resumed}");

    feeding.await??;
    job.all_done(inputs.len() as u64, Duration::from_secs(120)).await?;
    job.shut_down().await?;
    job.verdict(&stub.truth, &no_overrides).await?;
    Ok(())
}

async fn degraded(job: &mut Job, wanted: bool) -> anyhow::Result<()> {
    let what = if wanted { "status to say degraded" } else { "status to be whole again" };
    until(what, Duration::from_secs(60), async || {
        let status = job.admin.status().await?;
        ensure!(status.state == "RUNNING", "the job is {}", status.state);
        Ok((status.degraded.is_empty() != wanted).then_some(()))
    })
    .await
}
