//! Taskmanagers come and go while the job runs: 1 -> 8 -> 2.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;
use tokio_util::sync::CancellationToken;

use super::environment::{Environment, stub_events};
use crate::harness::{
    job::{Job, no_overrides},
    moves,
};

const EVENTS: usize = 9000;
const PER_SECOND: u32 = 300;
const MOST: usize = 8;
const LEFT: usize = 2;

const LEAVES: Duration = Duration::from_secs(40);

pub(super) async fn up_and_down(environment: Arc<Environment>) -> anyhow::Result<()> {
    // Hot pages: 150 of them share 9,000 events, so order is at stake in every move.
    let stub = environment.stub("rescale", "20 ms", "0.01", 2000).await?;
    let mut spec = environment.spec("rescale", &stub.api).await?;
    // A move shows when its new owner commits: short transactions let the gap be seen.
    spec.environment.push(("WEIR__TRANSACTION__INTERVAL", "200 ms"));
    let mut job = Job::prepare(&environment.workspace, spec).await?;
    let inputs = stub_events(&job, &stub, 20, EVENTS);
    job.start_jobmanager()?;
    job.start_taskmanager()?;
    job.running(1).await?;
    let stop = CancellationToken::new();
    let watching = tokio::spawn(moves::watch(job.admin.clone(), stop.clone()));
    let feeding = job.feed(&inputs, PER_SECOND);
    job.consumed(600, Duration::from_secs(60)).await?;
    for _ in 1..MOST {
        job.start_taskmanager()?;
    }
    job.running(MOST as u32).await?;
    job.consumed(3500, Duration::from_secs(60)).await?;
    // At once, as a replica count does; those who leave do so inside their grace period.
    let leaving = job.taskmanagers.split_off(LEFT);
    let ended = leaving.into_iter().map(|mut process| async move {
        let status = process.terminate(LEAVES).await?;
        ensure!(status.success(), "{} left with {status}:\n{}", process.name, process.tail(10));
        Ok(())
    });
    futures::future::try_join_all(ended).await?;
    job.running(LEFT as u32).await?;
    stop.cancel();
    let moves = watching.await??;
    feeding.await??;
    job.all_done(EVENTS as u64, Duration::from_secs(120)).await?;
    job.say(&format!("{moves} (in it up to 200 ms of transaction.interval)"));
    ensure!(moves.gaps.len() >= 12, "only {} moves of splits were seen", moves.gaps.len());
    let lost = job.admin.status().await?.restarts;
    ensure!(lost == 0, "{lost} taskmanagers were lost although all left by SIGTERM");
    job.shut_down().await?;
    job.verdict(&stub.truth, &no_overrides).await?;
    Ok(())
}
