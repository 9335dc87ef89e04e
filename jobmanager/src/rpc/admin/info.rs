//! What operators are told, from views and from storage.

use std::collections::BTreeSet;

use weir_proto::v1;

use super::convert;
use crate::{
    coordinator::{
        action::{Replay, SavepointKind, SnapshotKind},
        view::CheckpointStatus,
    },
    runtime::view::{CheckpointRow, SplitRow, TaskmanagerRow, View},
    store::{Info, snapshot::StoredKind},
};

pub(super) fn kind_name(kind: StoredKind) -> &'static str {
    match kind {
        StoredKind::Checkpoint => "CHECKPOINT",
        StoredKind::Savepoint => "SAVEPOINT",
    }
}

fn savepoint_kind(kind: Option<SavepointKind>) -> String {
    kind.map_or_else(String::new, |kind| kind.name().to_owned())
}

pub(super) fn split_replay(id: &weir_common::split::SplitId, replay: Replay) -> v1::SplitReplay {
    v1::SplitReplay {
        split: Some(convert::split_to_proto(id)),
        from_cursor: replay.from_cursor,
        to_cursor: replay.to_cursor,
        replayed_records: replay.records,
    }
}

pub(super) fn status(view: &View, leader: Option<String>) -> v1::GetStatusResponse {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let stats = || view.taskmanagers.iter().map(|row| &row.stats);
    let names: BTreeSet<&String> = stats().flat_map(|stats| &stats.pruned_field_names).collect();
    v1::GetStatusResponse {
        job_name: view.job_name.clone(),
        state: view.state.to_owned(),
        degraded: view.degraded.clone(),
        delivery_guarantee: view.delivery_guarantee.clone(),
        leader_epoch: view.leader_epoch.0,
        started_unix_ms: view.started.as_millisecond(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        taskmanagers: count(view.taskmanagers.len()),
        splits: count(view.splits.len()),
        splits_assigned: count(view.splits_assigned()),
        partitions: count(view.partitions()),
        counters: Some(convert::counters_to_proto(view.counters)),
        lag: view.lag.unwrap_or(-1),
        last_checkpoint: view.last_completed().map(|row| checkpoint_info(view, row)),
        number_of_completed_checkpoints: view.completed_checkpoints,
        number_of_failed_checkpoints: view.failed_checkpoints,
        storage: view.storage.clone(),
        restarts: view.restarts,
        state_reason: view.state_reason.clone(),
        leader: leader.unwrap_or_default(),
        pruned_fields: stats().map(|stats| stats.pruned_fields).sum(),
        pruned_field_names: names.into_iter().cloned().collect(),
    }
}

pub(super) fn taskmanager_info(row: TaskmanagerRow) -> v1::TaskManagerInfo {
    let TaskmanagerRow { taskmanager, hello, stats, registered, config_differs } = row;
    v1::TaskManagerInfo {
        taskmanager_id: taskmanager.id.0,
        host: hello.as_ref().map(|hello| hello.host.clone()).unwrap_or_default(),
        pid: hello.as_ref().map(|hello| hello.pid).unwrap_or_default(),
        version: hello.map(|hello| hello.version).unwrap_or_default(),
        state: taskmanager.state.to_owned(),
        slot: taskmanager.slot.map(|slot| slot.0),
        splits: u32::try_from(taskmanager.splits).unwrap_or(u32::MAX),
        registered_unix_ms: registered.as_millisecond(),
        heartbeat_age_ms: convert::millis(taskmanager.silent_for),
        rss_bytes: stats.rss_bytes,
        budget_bytes: stats.budget_bytes,
        budget_used_bytes: stats.budget_used_bytes,
        in_flight: stats.in_flight,
        totals: stats.totals,
        api_requests: stats.api_requests,
        api_retries: stats.api_retries,
        transactions_committed: stats.transactions_committed,
        transactions_aborted: stats.transactions_aborted,
        recycles: stats.recycles,
        last_cut_us: stats.last_cut_us,
        pruned_fields: stats.pruned_fields,
        pruned_field_names: stats.pruned_field_names,
        config_differs,
    }
}

pub(super) fn split_info(row: SplitRow) -> v1::SplitInfo {
    let SplitRow { split, key_range, lag, progress_partition } = row;
    v1::SplitInfo {
        split: Some(convert::split_to_proto(&split.id)),
        key_range_start: key_range.0,
        key_range_end: key_range.1,
        state: split.state.to_owned(),
        taskmanager_id: split.taskmanager.map(|id| id.0).unwrap_or_default(),
        progress: Some(convert::progress_to_proto(&split.committed.progress)),
        counters: Some(convert::counters_to_proto(split.committed.counters)),
        lag: lag.unwrap_or(-1),
        progress_partition,
        failure_kind: split.failure.as_ref().map(|failure| failure.kind.name().to_owned()).unwrap_or_default(),
        failure: split.failure.map(|failure| failure.message).unwrap_or_default(),
    }
}

pub(super) fn checkpoint_info(view: &View, row: &CheckpointRow) -> v1::CheckpointInfo {
    let checkpoint = &row.checkpoint;
    let (kind, savepoint, trigger) = match &checkpoint.kind {
        SnapshotKind::Checkpoint => (StoredKind::Checkpoint, None, "periodic".to_owned()),
        SnapshotKind::Savepoint { kind, label } => {
            let trigger = if *kind == SavepointKind::Periodic { "periodic" } else { "operator" };
            let trigger = if label.is_empty() { trigger.to_owned() } else { format!("{trigger}: {label}") };
            (StoredKind::Savepoint, Some(*kind), trigger)
        }
    };
    let (status, location, size_bytes, failure) = match &checkpoint.status {
        CheckpointStatus::InProgress => ("IN_PROGRESS", String::new(), 0, String::new()),
        CheckpointStatus::Completed { location, size_bytes } => {
            ("COMPLETED", location.clone(), *size_bytes, String::new())
        }
        CheckpointStatus::Failed { reason } => ("FAILED", String::new(), 0, reason.clone()),
    };
    v1::CheckpointInfo {
        checkpoint_id: checkpoint.id.0,
        leader_epoch: view.leader_epoch.0,
        kind: kind_name(kind).to_owned(),
        status: status.to_owned(),
        triggered_unix_ms: row.triggered.as_millisecond(),
        duration_us: u64::try_from(checkpoint.duration.as_micros()).unwrap_or(u64::MAX),
        size_bytes,
        location,
        failure,
        trigger,
        savepoint_kind: savepoint_kind(savepoint),
    }
}

/// A snapshot of which only storage knows; its time is when it was written.
pub(super) fn stored_info(info: &Info) -> v1::CheckpointInfo {
    v1::CheckpointInfo {
        checkpoint_id: info.id.checkpoint.0,
        leader_epoch: info.id.epoch.0,
        kind: kind_name(info.kind).to_owned(),
        status: "COMPLETED".to_owned(),
        triggered_unix_ms: info.modified.as_millisecond(),
        duration_us: 0,
        size_bytes: info.size_bytes,
        location: info.location.clone(),
        failure: String::new(),
        trigger: info.label.clone(),
        savepoint_kind: savepoint_kind(info.savepoint),
    }
}
