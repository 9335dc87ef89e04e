//! The JSON of `--output json`. Names are stable and documented in `docs/cli.md`; times are RFC 3339, `null` for never.

use serde_json::{Value, json};
use weir_proto::v1;

use crate::output::time;

pub(super) fn status(status: &v1::GetStatusResponse) -> Value {
    json!({
        "job_name": status.job_name,
        "state": status.state,
        "state_reason": (!status.state_reason.is_empty()).then_some(&status.state_reason),
        "degraded": status.degraded,
        "delivery_guarantee": status.delivery_guarantee,
        "leader": (!status.leader.is_empty()).then_some(&status.leader),
        "leader_epoch": status.leader_epoch,
        "started": time(status.started_unix_ms),
        "version": status.version,
        "taskmanagers": status.taskmanagers,
        "partitions": status.partitions,
        "splits": status.splits,
        "splits_assigned": status.splits_assigned,
        "counters": counters(status.counters.as_ref()),
        "lag": status.lag,
        "last_checkpoint": status.last_checkpoint.as_ref().map(checkpoint),
        "completed_checkpoints": status.number_of_completed_checkpoints,
        "failed_checkpoints": status.number_of_failed_checkpoints,
        "storage": status.storage,
        "restarts": status.restarts,
        "pruned_fields": status.pruned_fields,
        "pruned_field_names": status.pruned_field_names,
    })
}

pub(super) fn taskmanager(tm: &v1::TaskManagerInfo) -> Value {
    json!({
        "taskmanager_id": tm.taskmanager_id,
        "host": tm.host,
        "pid": tm.pid,
        "version": tm.version,
        "state": tm.state,
        "slot": tm.slot,
        "splits": tm.splits,
        "registered": time(tm.registered_unix_ms),
        "heartbeat_age_ms": tm.heartbeat_age_ms,
        "rss_bytes": tm.rss_bytes,
        "budget_bytes": tm.budget_bytes,
        "budget_used_bytes": tm.budget_used_bytes,
        "in_flight": tm.in_flight,
        "totals": counters(tm.totals.as_ref()),
        "api_requests": tm.api_requests,
        "api_retries": tm.api_retries,
        "transactions_committed": tm.transactions_committed,
        "transactions_aborted": tm.transactions_aborted,
        "recycles": tm.recycles,
        "last_cut_us": tm.last_cut_us,
        "pruned_fields": tm.pruned_fields,
        "pruned_field_names": tm.pruned_field_names,
        "config_differs": tm.config_differs,
    })
}

pub(super) fn split(split: &v1::SplitInfo) -> Value {
    let id = split.split.clone().unwrap_or_default();
    let progress = split.progress.clone().unwrap_or_default();
    let ahead: Vec<_> = progress.finished_ahead.iter().map(|range| json!([range.start, range.end])).collect();
    json!({
        "topic": id.topic,
        "partition": id.partition,
        "index": id.index,
        "key_range": [split.key_range_start, split.key_range_end],
        "state": split.state,
        "taskmanager_id": split.taskmanager_id,
        "cursor": progress.cursor,
        "finished_ahead": ahead,
        "lag": (split.lag >= 0).then_some(split.lag),
        "counters": counters(split.counters.as_ref()),
        "progress_partition": split.progress_partition,
        "failure_kind": (!split.failure_kind.is_empty()).then_some(&split.failure_kind),
        "failure": (!split.failure.is_empty()).then_some(&split.failure),
    })
}

pub(super) fn checkpoint(checkpoint: &v1::CheckpointInfo) -> Value {
    json!({
        "checkpoint_id": checkpoint.checkpoint_id,
        "leader_epoch": checkpoint.leader_epoch,
        "kind": checkpoint.kind,
        "status": checkpoint.status,
        "trigger": checkpoint.trigger,
        "triggered": time(checkpoint.triggered_unix_ms),
        "duration_us": checkpoint.duration_us,
        "size_bytes": checkpoint.size_bytes,
        "location": checkpoint.location,
        "failure": (!checkpoint.failure.is_empty()).then_some(&checkpoint.failure),
        "savepoint_kind": (!checkpoint.savepoint_kind.is_empty()).then_some(&checkpoint.savepoint_kind),
    })
}

pub(super) fn restore(answer: &v1::RestoreResponse) -> Value {
    let splits = answer.splits.iter().map(|replay| {
        let id = replay.split.clone().unwrap_or_default();
        json!({
            "topic": id.topic,
            "partition": id.partition,
            "index": id.index,
            "from_cursor": replay.from_cursor,
            "to_cursor": replay.to_cursor,
            "replayed_records": replay.replayed_records,
        })
    });
    json!({
        "savepoint": answer.savepoint.as_ref().map(checkpoint),
        "replayed_records": answer.replayed_records,
        "splits": splits.collect::<Vec<_>>(),
        "partitions": answer.partitions.iter().map(partition_reset).collect::<Vec<_>>(),
    })
}

pub(super) fn partition_reset(each: &v1::PartitionReset) -> Value {
    json!({
        "topic": each.topic,
        "partition": each.partition,
        "replayed_at_most": each.replayed_at_most,
        "skipped_at_most": each.skipped_at_most,
    })
}

pub(super) fn offset(at: &v1::PartitionOffset) -> Value {
    json!({ "topic": at.topic, "partition": at.partition, "offset": at.offset })
}

pub(super) fn counters(counters: Option<&v1::SplitCounters>) -> Value {
    let counters = counters.copied().unwrap_or_default();
    json!({
        "consumed": counters.consumed,
        "enriched": counters.enriched,
        "passed_through": counters.passed_through,
        "errors": counters.errors,
        "dropped": counters.dropped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(document: &Value) -> Vec<&str> {
        document.as_object().expect("an object").keys().map(String::as_str).collect()
    }

    /// Programs rely on these: a name that goes is a breaking change.
    #[test]
    fn field_names_are_stable() {
        assert_eq!(
            keys(&split(&v1::SplitInfo::default())),
            [
                "counters",
                "cursor",
                "failure",
                "failure_kind",
                "finished_ahead",
                "index",
                "key_range",
                "lag",
                "partition",
                "progress_partition",
                "state",
                "taskmanager_id",
                "topic"
            ]
        );
        assert_eq!(
            keys(&checkpoint(&v1::CheckpointInfo::default())),
            [
                "checkpoint_id",
                "duration_us",
                "failure",
                "kind",
                "leader_epoch",
                "location",
                "savepoint_kind",
                "size_bytes",
                "status",
                "trigger",
                "triggered"
            ]
        );
        assert_eq!(keys(&status(&v1::GetStatusResponse::default())).len(), 22);
        assert_eq!(keys(&taskmanager(&v1::TaskManagerInfo::default())).len(), 23);
    }

    #[test]
    fn unknown_lag_and_empty_failure_are_null() {
        assert_eq!(split(&v1::SplitInfo { lag: -1, ..Default::default() })["lag"], Value::Null);
        assert_eq!(checkpoint(&v1::CheckpointInfo::default())["failure"], Value::Null);
        assert_eq!(checkpoint(&v1::CheckpointInfo::default())["triggered"], Value::Null);
    }
}
