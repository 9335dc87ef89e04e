//! What happens by itself beside the loop: discovery of partitions, how far they reach, the stream configuration.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use weir_common::{
    progress::Progress,
    split::{SplitId, TopicPartition},
    streams::ResolvedStreams,
};

use super::{Command, Handle, Shared, Trouble, streams};
use crate::{
    coordinator::event::{SplitState, SplitStates},
    kafka::KafkaProblem,
};

/// Time between two writes of the job record, of the seven days that Kafka keeps it.
const RECORD_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// Time between two looks at the partitions' ends. Taskmanagers tell theirs with each heartbeat.
const LOG_END_INTERVAL: Duration = Duration::from_secs(5);

pub(super) fn start(shared: &Arc<Shared>, streams: ResolvedStreams, handle: Handle, stop: &CancellationToken) {
    let until_stopped = |task| {
        let stop = stop.clone();
        async move {
            let _: Option<()> = stop.run_until_cancelled(task).await;
        }
    };
    let (discoverer, looker, refresher) = (Arc::clone(shared), Arc::clone(shared), Arc::clone(shared));
    let (discovery, look_out, refreshed) = (handle.clone(), handle.clone(), handle.clone());
    let tasks: [std::pin::Pin<Box<dyn Future<Output = ()> + Send>>; 4] = [
        Box::pin(async move { streams::refresh(&refresher, &refreshed, streams).await }),
        Box::pin(async move { discover(&discoverer, &discovery).await }),
        Box::pin(async move { look(&looker, &look_out).await }),
        Box::pin(async move { renew_record(&handle).await }),
    ];
    for task in tasks {
        shared.tasks.spawn(until_stopped(task));
    }
}

async fn known_partitions(handle: &Handle) -> Option<BTreeSet<TopicPartition>> {
    let view = handle.view().await.ok()?;
    Some(view.splits.iter().map(|row| row.split.id.topic_partition()).collect())
}

async fn look(shared: &Shared, handle: &Handle) {
    loop {
        let Some(partitions) = known_partitions(handle).await else { return };
        let ends = shared.backend.log_ends(partitions.into_iter().collect()).await;
        if handle.send(Command::LogEnds { ends }).await.is_err() {
            return;
        }
        tokio::time::sleep(LOG_END_INTERVAL).await;
    }
}

async fn renew_record(handle: &Handle) {
    loop {
        tokio::time::sleep(RECORD_INTERVAL).await;
        if handle.send(Command::RenewRecord).await.is_err() {
            return;
        }
    }
}

async fn discover(shared: &Shared, handle: &Handle) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(shared.config.partition.discovery.interval) => {}
            () = shared.discovery.notified() => {}
        }
        if handle.send(Command::LookAtTopics).await.is_err() {
            return;
        }
        let Some(known) = known_partitions(handle).await else { return };
        let command = match prepare_new_splits(shared, known).await {
            Ok(splits) if splits.is_empty() => Command::Noted { trouble: Trouble::none("discovery") },
            Ok(splits) => {
                tracing::info!(splits = splits.len(), "new partitions discovered");
                Command::Discovered { splits }
            }
            Err(error) => Command::Noted { trouble: Trouble { part: "discovery", what: Some(error.to_string()) } },
        };
        if handle.send(command).await.is_err() {
            return;
        }
    }
}

/// New partitions start at their oldest record: what came before they were discovered belongs to the job.
async fn prepare_new_splits(shared: &Shared, known: BTreeSet<TopicPartition>) -> Result<SplitStates, KafkaProblem> {
    let partitions = shared.backend.new_partitions(known).await?;
    let mut splits = SplitStates::new();
    for (partition, start) in partitions {
        for index in 0..shared.config.job.splits_per_partition.get() {
            let id = SplitId { topic: partition.topic.clone(), partition: partition.partition, index };
            let progress = Progress::at(start);
            splits.insert(id, SplitState { progress, ..SplitState::default() });
        }
    }
    if shared.exactly_once && !splits.is_empty() {
        let places: BTreeMap<SplitId, i32> = {
            let mut index = shared.index();
            splits.keys().map(|split| (split.clone(), index.assign(split))).collect()
        };
        let needed = shared.index().partitions_needed();
        shared.backend.ensure_progress_partitions(needed).await?;
        shared.backend.write_progress(splits.clone(), places).await?;
    }
    Ok(splits)
}
