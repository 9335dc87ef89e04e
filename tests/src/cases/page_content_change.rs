//! The second job on the same runtime: `page_content_change`, by its production file, between two Kafka clusters.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;

use super::environment::{Environment, stub_events};
use crate::{
    checker::read,
    events::Maker,
    harness::{
        job::{Job, no_overrides},
        kafka::Input,
    },
};

/// `suppress` is a `delete` that hides everything.
const KINDS: [&str; 7] = ["create", "edit", "move", "delete", "undelete", "visibility_change", "suppress"];

/// Pages, each with one change; every twentieth is a redirect.
const PAGES: i64 = 210;

pub(super) async fn exactly_once(environment: Arc<Environment>) -> anyhow::Result<()> {
    let stub = environment.stub("page-content-change", "5 ms", "0.02", 2000).await?;
    let mut spec = environment.spec("mw-page-content-change-enrich", &stub.api).await?;
    (spec.source, spec.page_content_change) = (environment.second_kafka().await?, true);
    let mut job = Job::prepare(&environment.workspace, spec).await?;
    let mut maker = Maker::new(41, job.source_topics());
    let changes = (1..=PAGES).zip(KINDS.iter().cycle()).map(|(page, kind)| maker.change(&stub.truth, page, kind));
    let mut inputs: Vec<Input> = changes.collect();
    inputs.extend(stub_events(&job, &stub, 42, 600).iter().cloned());
    let inputs = Arc::new(inputs);
    job.start().await?;
    let feeding = job.feed(&inputs, 150);
    job.consumed(200, Duration::from_secs(60)).await?;
    // What it had open on the sink's cluster is aborted, with the progress on the source's records that was in it.
    job.taskmanagers.remove(0).kill().await?;
    job.start_taskmanager()?;
    feeding.await??;
    job.all_done(inputs.len() as u64, Duration::from_secs(90)).await?;
    job.lag_is_mirrored().await?;
    let splits = job.admin.splits().await?;
    ensure!(splits.iter().all(|split| split.lag == 0), "lag is told of the source's cluster: {splits:?}");

    // Offsets are the source cluster's, progress the sink's: operators need not know.
    job.weir(&["savepoint", "trigger", "--offset-cut", "--label", "cut"], 0).await?;
    job.weir(&["savepoint", "export", "cut", "--group", "follower"], 0).await?;
    let (source, [topic, _]) = (job.spec.source.clone(), job.source_topics());
    let committed = move || read::committed_of_group(&source, "follower", &topic);
    let (committed, end) = tokio::task::spawn_blocking(committed).await??;
    ensure!(committed == end && end == inputs.len() as i64, "{committed} of {end} exported, {} inputs", inputs.len());
    job.weir_refuses(&["reset", "--to", "earliest"]).await?;
    job.weir(&["reset", "--to", "latest"], 0).await?;
    job.shut_down().await?;
    job.verdict(&stub.truth, &no_overrides).await?;
    Ok(())
}
