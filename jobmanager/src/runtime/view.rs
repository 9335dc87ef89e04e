//! How things stand, at one moment: what status, lists and metrics are made from.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use weir_common::{
    counters::SplitCounters,
    ids::{CheckpointId, LeaderEpoch},
    split::TopicPartition,
};
use weir_proto::v1;

use super::{Hello, Runtime};
use crate::coordinator::view::{CheckpointStatus, CheckpointView, Moves, SplitView, TaskmanagerView, TransactionView};

/// The job at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// The job's name.
    pub job_name: String,
    /// `EXACTLY_ONCE` or `AT_LEAST_ONCE`.
    pub delivery_guarantee: String,
    /// See [`crate::coordinator::Coordinator::job_state`].
    pub state: &'static str,
    /// Why it is in that state, where that is not plain; may be empty.
    pub state_reason: String,
    /// Readable reasons for anything that is not as it should be.
    pub degraded: Vec<String>,
    /// Of this leadership.
    pub leader_epoch: LeaderEpoch,
    /// When this leadership began.
    pub started: Timestamp,
    /// All that are registered.
    pub taskmanagers: Vec<TaskmanagerRow>,
    /// All of the job.
    pub splits: Vec<SplitRow>,
    /// Every slot of this leadership.
    pub transactions: Vec<TransactionView>,
    /// The newest first.
    pub checkpoints: Vec<CheckpointRow>,
    /// Flink's `numberOfCompletedCheckpoints`.
    pub completed_checkpoints: u64,
    /// Flink's `numberOfFailedCheckpoints`.
    pub failed_checkpoints: u64,
    /// Taskmanagers that were lost.
    pub lost_taskmanagers: u64,
    /// Flink's `numRestarts`.
    pub restarts: u64,
    /// Sums of all splits.
    pub counters: SplitCounters,
    /// How splits have moved.
    pub moves: Moves,
    /// Records from min(cursor) to the log's end, over all partitions; `None` while an end is not known.
    pub lag: Option<i64>,
    /// Where snapshots are.
    pub storage: String,
    /// Where error events go.
    pub error_topic: String,
}

/// A taskmanager.
#[derive(Clone, Debug)]
pub struct TaskmanagerRow {
    /// The coordinator's view.
    pub taskmanager: TaskmanagerView,
    /// What it said about itself; `None` while its stream is broken.
    pub hello: Option<Hello>,
    /// With its last heartbeat.
    pub stats: v1::TaskManagerStats,
    /// When it registered.
    pub registered: Timestamp,
    /// Its configuration is not the jobmanager's.
    pub config_differs: bool,
}

/// A split.
#[derive(Clone, Debug)]
pub struct SplitRow {
    /// The coordinator's view.
    pub split: SplitView,
    /// Its key range, `[start, end)`.
    pub key_range: (u64, u64),
    /// From cursor to the partition's end, if that is known.
    pub lag: Option<i64>,
    /// Where its progress is kept; -1 where that is no place in Kafka.
    pub progress_partition: i32,
}

/// A checkpoint or savepoint of this leadership.
#[derive(Clone, Debug)]
pub struct CheckpointRow {
    /// The coordinator's view.
    pub checkpoint: CheckpointView,
    /// When it was triggered.
    pub triggered: Timestamp,
}

impl View {
    /// The newest that is stored.
    #[must_use]
    pub fn last_completed(&self) -> Option<&CheckpointRow> {
        self.checkpoints.iter().find(|row| matches!(row.checkpoint.status, CheckpointStatus::Completed { .. }))
    }

    /// The one of that number.
    #[must_use]
    pub fn checkpoint(&self, id: CheckpointId) -> Option<&CheckpointRow> {
        self.checkpoints.iter().find(|row| row.checkpoint.id == id)
    }

    /// The source's partitions.
    #[must_use]
    pub fn partitions(&self) -> usize {
        self.splits.iter().map(|row| row.split.id.topic_partition()).collect::<BTreeSet<_>>().len()
    }

    /// Splits that a taskmanager works on.
    #[must_use]
    pub fn splits_assigned(&self) -> usize {
        self.splits.iter().filter(|row| row.split.taskmanager.is_some()).count()
    }
}

impl Runtime {
    pub(super) fn view(&self) -> View {
        let splits = self.split_rows();
        let mut counters = SplitCounters::default();
        splits.iter().for_each(|row| counters += row.split.committed.counters);
        View {
            job_name: self.job.job_name.clone(),
            delivery_guarantee: self.job.delivery_guarantee.clone(),
            state: self.coordinator.job_state(),
            state_reason: self.coordinator.state_reason().unwrap_or_default(),
            degraded: self.degraded(&splits),
            leader_epoch: self.shared.leader_epoch,
            started: self.born_at,
            taskmanagers: self.coordinator.taskmanagers().map(|view| self.taskmanager_row(view)).collect(),
            splits,
            transactions: self.coordinator.transactions().collect(),
            checkpoints: self.coordinator.checkpoints().map(|checkpoint| self.checkpoint_row(checkpoint)).collect(),
            completed_checkpoints: self.coordinator.number_of_completed_checkpoints(),
            failed_checkpoints: self.coordinator.number_of_failed_checkpoints(),
            restarts: self.coordinator.number_of_restarts(),
            lost_taskmanagers: self.coordinator.number_of_lost_taskmanagers(),
            counters,
            moves: self.coordinator.moves(),
            lag: self.lag(),
            storage: self.shared.snapshots.address().to_owned(),
            error_topic: self.job.error_sink.as_ref().map(|sink| sink.topic.clone()).unwrap_or_default(),
        }
    }

    fn taskmanager_row(&self, view: TaskmanagerView) -> TaskmanagerRow {
        let peer = self.peers.get(&view.id);
        TaskmanagerRow {
            registered: self.at(view.registered),
            config_differs: peer.is_some_and(|peer| peer.hello.config_digest != self.shared.config_digest),
            hello: peer.map(|peer| peer.hello.clone()),
            stats: peer.map(|peer| peer.stats.clone()).unwrap_or_default(),
            taskmanager: view,
        }
    }

    fn split_rows(&self) -> Vec<SplitRow> {
        let index = self.shared.index();
        let splits_per_partition = self.shared.config.job.splits_per_partition;
        let row = |split: SplitView| {
            let end = self.log_ends.get(&split.id.topic_partition());
            SplitRow {
                key_range: splits_per_partition.range(split.id.index),
                lag: end.map(|end| (end - split.committed.progress.cursor).max(0)),
                progress_partition: index.get(&split.id).unwrap_or(-1),
                split,
            }
        };
        self.coordinator.splits().map(row).collect()
    }

    fn checkpoint_row(&self, checkpoint: CheckpointView) -> CheckpointRow {
        CheckpointRow { triggered: self.at(checkpoint.triggered), checkpoint }
    }

    fn at(&self, since_birth: std::time::Duration) -> Timestamp {
        let since_birth = SignedDuration::try_from(since_birth).unwrap_or(SignedDuration::MAX);
        self.born_at.checked_add(since_birth).unwrap_or(Timestamp::MAX)
    }

    fn lag(&self) -> Option<i64> {
        let lag = |(partition, cursor): (TopicPartition, i64)| Some((self.log_ends.get(&partition)? - cursor).max(0));
        self.coordinator.cursors().into_iter().map(lag).sum()
    }

    fn degraded(&self, splits: &[SplitRow]) -> Vec<String> {
        let mut reasons = self.findings.clone();
        for (part, (since, what)) in &self.troubles {
            reasons.push(format!("{part}, since {since:.0}: {what}"));
        }
        let mut idle: BTreeMap<&str, usize> = BTreeMap::new();
        for row in splits.iter().filter(|row| row.split.taskmanager.is_none()) {
            *idle.entry(row.split.state).or_default() += 1;
        }
        if matches!(self.coordinator.job_state(), "RUNNING" | "RESTARTING") && !idle.is_empty() {
            let states: Vec<String> = idle.iter().map(|(state, count)| format!("{count} {state}")).collect();
            let missing = if self.peers.is_empty() { "no taskmanager is registered; " } else { "" };
            reasons.push(format!("{missing}splits that nobody works on: {}", states.join(", ")));
        }
        let mut failed: BTreeMap<String, usize> = BTreeMap::new();
        for failure in splits.iter().filter_map(|row| row.split.failure.as_ref()) {
            *failed.entry(failure.to_string()).or_default() += 1;
        }
        reasons.extend(failed.iter().map(|(failure, count)| format!("{count} splits cannot be read: {failure}")));
        if let Some(row) = splits.iter().find(|row| !row.split.committed.counters.conserved()) {
            let (split, counters) = (&row.split.id, row.split.committed.counters);
            reasons.push(format!("split {split} is not conserved, please report this: {counters:?}"));
        }
        let failed = |checkpoint: &CheckpointView| matches!(checkpoint.status, CheckpointStatus::Failed { .. });
        let ended = self.coordinator.checkpoints().filter(|each| each.status != CheckpointStatus::InProgress);
        let failures = ended.take_while(failed).count();
        if failures > self.shared.config.checkpoint.tolerable_failed_checkpoints as usize {
            reasons.push(format!("the last {failures} checkpoints failed; `weir checkpoints` says why"));
        }
        for (id, peer) in &self.peers {
            if peer.hello.config_digest != self.shared.config_digest {
                reasons.push(format!("taskmanager {id} runs with another configuration than the jobmanager"));
            }
        }
        reasons
    }
}
