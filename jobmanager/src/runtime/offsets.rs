//! Plain Kafka offsets: where a reset leads, what a savepoint is made from, what other consumers are to go on from.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::oneshot;
use weir_common::split::{SplitId, TopicPartition};

use super::{Command, ImportFrom, ResetTo, Runtime, backend::Backend};
use crate::coordinator::{
    event::{Allowed, RequestId, SplitStates},
    plain_offsets::{mismatch, plain_offsets},
};

impl Runtime {
    /// Asks Kafka where a reset leads, then tells the coordinator.
    pub(super) fn find_reset(
        &self,
        request: RequestId,
        to: ResetTo,
        topic: Option<&str>,
        partitions: &[i32],
        allowed: Allowed,
    ) {
        let mut splits: Vec<SplitId> = self.coordinator.splits().map(|split| split.id).collect();
        // What an operator sent through again is meant only where it is named: the source's offsets say nothing of it.
        let named = |split: &SplitId| match (topic, &to) {
            (Some(topic), _) => *split.topic == *topic,
            (None, ResetTo::Offsets(_)) => true,
            (None, _) => !self.shared.is_replay(&split.topic),
        };
        splits.retain(named);
        splits.retain(|split| partitions.is_empty() || partitions.contains(&split.partition));
        let meant: BTreeSet<TopicPartition> = splits.iter().map(SplitId::topic_partition).collect();
        let backend = Arc::clone(&self.shared.backend);
        self.shared.spawn(async move {
            let found = backend.reset_offsets(meant.into_iter().collect(), to).await;
            let of = |offsets: BTreeMap<TopicPartition, i64>| {
                let moved = |split: SplitId| Some((split.clone(), *offsets.get(&split.topic_partition())?));
                splits.into_iter().filter_map(moved).collect()
            };
            Command::ResetFound { request, offsets: found.map(of).map_err(|error| error.to_string()), allowed }
        });
    }

    /// Looks whether offsets for a savepoint are of the job's partitions and in the log, then tells the coordinator.
    pub(super) fn find_import(&self, request: RequestId, label: String, from: ImportFrom) {
        let partitions: BTreeSet<TopicPartition> = self
            .coordinator
            .splits()
            .map(|split| split.id.topic_partition())
            .filter(|partition| !self.shared.is_replay(&partition.topic))
            .collect();
        let replay = self.replay_offsets();
        let backend = Arc::clone(&self.shared.backend);
        self.shared.spawn(async move {
            let offsets = match replay {
                Err(reason) => Err(reason),
                Ok(replay) => {
                    find(&*backend, partitions, from).await.map(|offsets| replay.into_iter().chain(offsets).collect())
                }
            };
            Command::ImportFound { request, label, offsets }
        });
    }

    /// Where the replay topic stands, which other consumers know nothing of: offsets that come from them leave it there.
    fn replay_offsets(&self) -> Result<BTreeMap<TopicPartition, i64>, String> {
        let states = self.coordinator.splits().filter(|split| self.shared.is_replay(&split.id.topic));
        let states: SplitStates = states.map(|split| (split.id, split.committed)).collect();
        plain_offsets(&states).map_err(|uneven| {
            format!(
                "a replay of errors is under way ({uneven}): try again when `weir splits` shows no lag of that topic"
            )
        })
    }

    /// Commits offsets for another consumer. Not to the job's own group: the mirror of the lag would soon overwrite them.
    pub(super) fn commit_group(
        &self,
        group: String,
        offsets: BTreeMap<TopicPartition, i64>,
        reply: oneshot::Sender<Result<(), String>>,
    ) {
        if group == self.shared.config.stream_manager.source.options.consumer_group {
            let reason = format!(
                "group {group} is the job's own, to which it mirrors its lag: name another one, or end the job by `weir stop \
                 --with-savepoint --offset-cut`, which leaves exactly the cut there"
            );
            let _ = reply.send(Err(reason));
            return;
        }
        let backend = Arc::clone(&self.shared.backend);
        self.shared.tasks.spawn(async move {
            let committed = backend.commit_group(group, offsets).await;
            // Whoever asked may have left.
            let _ = reply.send(committed.map_err(|error| error.to_string()));
        });
    }
}

async fn find(
    backend: &dyn Backend,
    partitions: BTreeSet<TopicPartition>,
    from: ImportFrom,
) -> Result<BTreeMap<TopicPartition, i64>, String> {
    let all: Vec<TopicPartition> = partitions.iter().cloned().collect();
    let (offsets, whose) = match from {
        ImportFrom::Offsets(offsets) => (offsets, String::new()),
        ImportFrom::Group(group) => {
            let whose = format!("consumer group {group}: ");
            (backend.group_offsets(group, all.clone()).await.map_err(|error| error.to_string())?, whose)
        }
    };
    if let Some(wrong) = mismatch(&offsets, &partitions) {
        return Err(format!("{whose}{wrong}"));
    }
    backend.reset_offsets(all, ResetTo::Offsets(offsets)).await.map_err(|error| format!("{whose}{error}"))
}
