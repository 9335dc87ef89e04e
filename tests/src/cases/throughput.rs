//! Whole jobs without trouble.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;

use super::environment::{Environment, stub_events};
use crate::{
    events::Maker,
    harness::{
        job::{Job, no_overrides},
        kafka::produce,
    },
};

const EVENTS: usize = 5000;

pub(super) async fn two_taskmanagers(environment: Arc<Environment>) -> anyhow::Result<()> {
    let wikis = environment.wikis().await?;
    let _turn = environment.mediawiki_turn.lock().await;
    let mut job = environment.job_on_mediawiki("two-taskmanagers", &[]).await?;
    let inputs = Maker::new(1, job.source_topics()).from_mediawiki(&wikis.truth, EVENTS);
    job.start().await?;
    produce(&job.spec.source, &inputs, 0).await?;
    job.all_done(EVENTS as u64, Duration::from_secs(300)).await?;
    let mut shares = Vec::new();
    for info in job.admin.taskmanagers().await? {
        shares.push(info.totals.unwrap_or_default().consumed);
    }
    job.say(&format!("shares {shares:?}"));
    job.lag_is_mirrored().await?;
    ensure!(
        shares.len() == 2 && shares.iter().all(|share| *share >= EVENTS as u64 * 3 / 10),
        "no fair share: {shares:?}"
    );
    job.shut_down().await?;
    job.verdict(&wikis.truth, &no_overrides).await?;
    Ok(())
}

pub(super) async fn two_clusters(environment: Arc<Environment>) -> anyhow::Result<()> {
    let stub = environment.stub("two-clusters", "10 ms", "0.02", 2000).await?;
    let mut spec = environment.spec("two-clusters", &stub.api).await?;
    spec.source = environment.second_kafka().await?;
    let mut job = Job::prepare(&environment.workspace, spec).await?;
    let inputs = stub_events(&job, &stub, 2, 2000);
    job.start().await?;
    produce(&job.spec.source, &inputs, 400).await?;
    job.all_done(inputs.len() as u64, Duration::from_secs(120)).await?;
    job.lag_is_mirrored().await?;
    job.is_observable().await?;
    job.shut_down().await?;
    job.verdict(&stub.truth, &no_overrides).await?;
    Ok(())
}
