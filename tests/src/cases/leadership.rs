//! Two jobmanagers, one of which leads.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use weir_proto::v1::GetStatusResponse;

use super::environment::{Environment, Stub, stub_events};
use crate::{
    checker::read,
    harness::{
        job::{Job, no_overrides},
        process::Process,
        standby::{Standby, ready},
        until,
        workspace::signal,
    },
};

const EVENTS: usize = 5000;
const PER_SECOND: u32 = 250;

/// The shortest that is allowed.
const LEASE: &str = "high_availability:\n  type: storage\n  lease_ttl: 3 s\n";

/// From the last sign of the old leader: the lease's time, one look at it, and the start of a leadership.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(12);

pub(super) async fn leader_killed(environment: Arc<Environment>) -> anyhow::Result<()> {
    let (mut job, stub) = with_standby(&environment, "leader-killed").await?;
    let inputs = stub_events(&job, &stub, 31, EVENTS);
    start_both(&mut job).await?;
    let feeding = job.feed(&inputs, PER_SECOND);
    job.consumed(EVENTS as u64 / 5, Duration::from_secs(60)).await?;
    let before = job.admin.status().await?;
    ensure!(before.leader == job.address, "{} leads, not the one that was there first", before.leader);
    refers_to_the_leader(&job).await?;
    let owners = owners(&job).await?;

    job.jobmanager.take().context("it runs")?.kill().await?;
    let after = followed(&mut job, before.leader_epoch).await?;
    ensure!(after.leader == standby(&job)?.address, "{} leads", after.leader);
    job.running(2).await?;
    adopted(&job, &owners).await?;

    // A clean leave does not wait for the lease's time.
    job.start_jobmanager()?;
    until("the former leader to stand by", Duration::from_secs(30), async || {
        Ok((ready(&job.http[0]).await? == "STANDBY").then_some(()))
    })
    .await?;
    let second = standby_mut(&mut job)?.process.take().context("it runs")?;
    let left = Instant::now();
    leaves(second).await?;
    let again = until("the first to lead again", FOLLOWS_WITHIN, async || {
        Ok(job.admin.status().await.ok().filter(|status| status.leader_epoch > after.leader_epoch))
    })
    .await?;
    job.say(&format!("epoch {} {:.1} s after SIGTERM of the leader", again.leader_epoch, left.elapsed().as_secs_f64()));
    job.running(2).await?;
    adopted(&job, &owners).await?;
    finish(&mut job, &stub, feeding).await
}

pub(super) async fn leader_stopped(environment: Arc<Environment>) -> anyhow::Result<()> {
    let (mut job, stub) = with_standby(&environment, "leader-stopped").await?;
    let inputs = stub_events(&job, &stub, 32, EVENTS);
    start_both(&mut job).await?;
    let feeding = job.feed(&inputs, PER_SECOND);
    job.consumed(EVENTS as u64 / 5, Duration::from_secs(60)).await?;
    let before = job.admin.status().await?;
    let owners = owners(&job).await?;

    let stopped = job.jobmanager.as_ref().context("it runs")?.pid;
    signal(stopped, "STOP");
    followed(&mut job, before.leader_epoch).await?;
    signal(stopped, "CONT");
    until("the stopped leader to stand by", Duration::from_secs(30), async || {
        Ok(ready(&job.http[0]).await.ok().filter(|said| said == "STANDBY"))
    })
    .await?;
    job.running(2).await?;
    adopted(&job, &owners).await?;
    finish(&mut job, &stub, feeding).await
}

async fn with_standby(environment: &Environment, name: &'static str) -> anyhow::Result<(Job, Stub)> {
    let stub = environment.stub(name, "20 ms", "0.02", 2000).await?;
    let mut spec = environment.spec(name, &stub.api).await?;
    spec.standby = true;
    spec.more += LEASE;
    spec.environment.push(("WEIR__TRANSACTION__INTERVAL", "500 ms"));
    Ok((Job::prepare(&environment.workspace, spec).await?, stub))
}

/// The second jobmanager comes when the first leads.
async fn start_both(job: &mut Job) -> anyhow::Result<()> {
    job.start().await?;
    job.start_standby()?;
    until("the second jobmanager to stand by", Duration::from_secs(30), async || {
        Ok(standby(job)?.ready().await.ok().filter(|said| said == "STANDBY"))
    })
    .await?;
    Ok(())
}

fn standby(job: &Job) -> anyhow::Result<&Standby> {
    job.standby.as_ref().context("a job with two jobmanagers")
}

fn standby_mut(job: &mut Job) -> anyhow::Result<&mut Standby> {
    job.standby.as_mut().context("a job with two jobmanagers")
}

/// An operator who asks the standby is answered by the leader.
async fn refers_to_the_leader(job: &Job) -> anyhow::Result<()> {
    let asked = job.weir_at(&standby(job)?.address, &["status", "--output", "json"], 0).await?;
    ensure!(asked.contains(&job.address), "the standby referred to nobody: {asked}");
    Ok(())
}

/// Id and registration of each taskmanager by its process, with its number of splits.
async fn owners(job: &Job) -> anyhow::Result<Vec<(u32, String, u32)>> {
    let mut all: Vec<_> =
        job.admin.taskmanagers().await?.into_iter().map(|each| (each.pid, each.taskmanager_id, each.splits)).collect();
    all.sort();
    Ok(all)
}

/// The same taskmanagers hold as many splits as before, nothing was lost or restarted.
async fn adopted(job: &Job, owners: &[(u32, String, u32)]) -> anyhow::Result<()> {
    let now = self::owners(job).await?;
    ensure!(now == owners, "taskmanagers were not adopted: {owners:?} before, {now:?} after");
    let restarts = job.admin.status().await?.restarts;
    ensure!(restarts == 0, "{restarts} restarts in the new leadership");
    Ok(())
}

/// Waits for a leader with a higher epoch, and watches the output meanwhile.
async fn followed(job: &mut Job, epoch: u64) -> anyhow::Result<GetStatusResponse> {
    let gone = Instant::now();
    let (bootstrap, topic) = (job.spec.sink.clone(), job.sink_topic());
    let watching = tokio::task::spawn_blocking(move || longest_silence(&bootstrap, &topic, FOLLOWS_WITHIN));
    let status = until("another jobmanager to lead", FOLLOWS_WITHIN, async || {
        job.taskmanagers.iter_mut().try_for_each(Process::must_live)?;
        Ok(job.admin.status().await.ok().filter(|status| status.leader_epoch > epoch))
    })
    .await?;
    let took = gone.elapsed();
    let silence = watching.await??;
    job.say(&format!(
        "epoch {} answers {:.1} s after the leader was gone; the output's longest silence was {:.1} s",
        status.leader_epoch,
        took.as_secs_f64(),
        silence.as_secs_f64()
    ));
    ensure!(silence < Duration::from_secs(3), "the output stood still for {silence:?} while nobody led");
    Ok(status)
}

/// How long nothing new was to be read, in so much time.
fn longest_silence(bootstrap: &str, topic: &str, watched: Duration) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let (mut last, mut longest) = ((read::span(bootstrap, topic)?, Instant::now()), Duration::ZERO);
    while begun.elapsed() < watched {
        std::thread::sleep(Duration::from_millis(100));
        let span = read::span(bootstrap, topic)?;
        longest = longest.max(last.1.elapsed());
        if span > last.0 {
            last = (span, Instant::now());
        }
    }
    Ok(longest)
}

async fn leaves(mut jobmanager: Process) -> anyhow::Result<()> {
    let status = jobmanager.terminate(Duration::from_secs(20)).await?;
    ensure!(status.success(), "{} left with {status}:\n{}", jobmanager.name, jobmanager.tail(15));
    Ok(())
}

async fn finish(
    job: &mut Job,
    stub: &Stub,
    feeding: tokio::task::JoinHandle<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    feeding.await??;
    job.all_done(EVENTS as u64, Duration::from_secs(120)).await?;
    job.shut_down().await?;
    job.verdict(&stub.truth, &no_overrides).await?;
    Ok(())
}
