//! What people see.

use weir_proto::v1;

use crate::output::{bytes, facts, micros, number, table, time};

/// Of the names of pruned fields: the rest is in `--output json`.
const PRUNED_NAMES_CHARS: usize = 300;

pub(super) fn status(status: &v1::GetStatusResponse) -> String {
    let counters = status.counters.unwrap_or_default();
    let last = status.last_checkpoint.as_ref().map_or_else(
        || "none yet".to_owned(),
        |checkpoint| {
            format!(
                "{} {} {} in {} ({})",
                checkpoint.kind.to_lowercase(),
                checkpoint.checkpoint_id,
                checkpoint.status,
                micros(checkpoint.duration_us),
                time(checkpoint.triggered_unix_ms).unwrap_or_default(),
            )
        },
    );
    let mut lines = vec![
        ("Job", status.job_name.clone()),
        ("State", state(status)),
        ("Guarantee", status.delivery_guarantee.clone()),
        ("Leader", format!("{}, epoch {}", status.leader, status.leader_epoch)),
        ("Started", time(status.started_unix_ms).unwrap_or_default()),
        ("Version", status.version.clone()),
        ("Taskmanagers", status.taskmanagers.to_string()),
        (
            "Splits",
            format!("{} of {} assigned, {} partitions", status.splits_assigned, status.splits, status.partitions),
        ),
        ("Lag", number(status.lag)),
        ("Consumed", number(counters.consumed)),
        ("  enriched", number(counters.enriched)),
        ("  passed through", number(counters.passed_through)),
        ("  errors", number(counters.errors)),
        ("  dropped", number(counters.dropped)),
        ("Conserved", conserved(&counters).to_owned()),
        (
            "Checkpoints",
            format!(
                "{} completed, {} failed",
                status.number_of_completed_checkpoints, status.number_of_failed_checkpoints
            ),
        ),
        ("Last checkpoint", last),
        ("Storage", status.storage.clone()),
        ("Restarts", status.restarts.to_string()),
    ];
    if status.pruned_fields > 0 {
        let names = status.pruned_field_names.join(", ");
        let names: String = names.chars().take(PRUNED_NAMES_CHARS).collect();
        lines.push(("Pruned fields", format!("{}: {names}", status.pruned_fields)));
    }
    lines.extend(status.degraded.iter().map(|reason| ("DEGRADED", reason.clone())));
    facts(&lines)
}

fn state(status: &v1::GetStatusResponse) -> String {
    if status.state_reason.is_empty() {
        status.state.clone()
    } else {
        format!("{}: {}", status.state, status.state_reason)
    }
}

/// Whether everything that was consumed has come out somewhere.
fn conserved(counters: &v1::SplitCounters) -> &'static str {
    let v1::SplitCounters { consumed, enriched, passed_through, errors, dropped } = *counters;
    if consumed == enriched + passed_through + errors + dropped {
        "yes: consumed = enriched + passed through + errors + dropped"
    } else {
        "NO: consumed is not enriched + passed through + errors + dropped; please report this"
    }
}

pub(super) fn taskmanagers(taskmanagers: &[v1::TaskManagerInfo]) -> String {
    if taskmanagers.is_empty() {
        return "no taskmanager is registered".to_owned();
    }
    let mut table = table(&[
        ">SLOT",
        "STATE",
        "HOST",
        ">PID",
        ">SPLITS",
        ">IN FLIGHT",
        ">FINISHED",
        ">ERRORS",
        ">RSS",
        ">BUDGET",
        ">CUT",
        ">RECYCLES",
        ">HEARTBEAT",
        "ID",
    ]);
    for tm in taskmanagers {
        let totals = tm.totals.unwrap_or_default();
        table.add_row([
            tm.slot.map_or_else(|| "-".to_owned(), |slot| slot.to_string()),
            tm.state.clone(),
            tm.host.clone(),
            tm.pid.to_string(),
            tm.splits.to_string(),
            number(tm.in_flight),
            number(totals.consumed),
            number(totals.errors),
            bytes(tm.rss_bytes),
            format!("{} of {}", bytes(tm.budget_used_bytes), bytes(tm.budget_bytes)),
            micros(tm.last_cut_us),
            tm.recycles.to_string(),
            format!("{:.1} s", tm.heartbeat_age_ms as f64 / 1000.0),
            format!("{}{}", tm.taskmanager_id, if tm.config_differs { " (another configuration)" } else { "" }),
        ]);
    }
    table.trim_fmt()
}

pub(super) fn splits(splits: &[v1::SplitInfo]) -> String {
    if splits.is_empty() {
        return "no splits".to_owned();
    }
    let mut table = table(&["SPLIT", "STATE", ">CURSOR", ">AHEAD", ">LAG", ">FINISHED", ">ERRORS", "TASKMANAGER"]);
    for split in splits {
        let progress = split.progress.clone().unwrap_or_default();
        let counters = split.counters.unwrap_or_default();
        let ahead: i64 = progress.finished_ahead.iter().map(|range| range.end - range.start).sum();
        table.add_row([
            split_name(split.split.as_ref()),
            split.state.clone(),
            progress.cursor.to_string(),
            number(ahead),
            if split.lag < 0 { "?".to_owned() } else { number(split.lag) },
            number(counters.consumed),
            number(counters.errors),
            if split.taskmanager_id.is_empty() { "-".to_owned() } else { split.taskmanager_id.clone() },
        ]);
    }
    table.trim_fmt()
}

pub(super) fn checkpoints(checkpoints: &[v1::CheckpointInfo]) -> String {
    if checkpoints.is_empty() {
        return "none yet".to_owned();
    }
    let mut table = table(&[">ID", ">EPOCH", "KIND", "STATUS", "TRIGGERED", ">TOOK", ">SIZE", "LOCATION"]);
    for checkpoint in checkpoints {
        table.add_row([
            checkpoint.checkpoint_id.to_string(),
            checkpoint.leader_epoch.to_string(),
            match checkpoint.savepoint_kind.as_str() {
                "" | "OPERATOR" => checkpoint.kind.clone(),
                kind => format!("{} ({})", checkpoint.kind, kind.to_lowercase().replace('_', " ")),
            },
            checkpoint.status.clone(),
            time(checkpoint.triggered_unix_ms).unwrap_or_else(|| "-".to_owned()),
            // Unknown for what was read from storage.
            if checkpoint.duration_us == 0 { "-".to_owned() } else { micros(checkpoint.duration_us) },
            bytes(checkpoint.size_bytes),
            if checkpoint.failure.is_empty() { checkpoint.location.clone() } else { checkpoint.failure.clone() },
        ]);
    }
    table.trim_fmt()
}

pub(super) fn restore(answer: &v1::RestoreResponse) -> String {
    let location = answer.savepoint.as_ref().map(|savepoint| savepoint.location.clone()).unwrap_or_default();
    let at_most = if answer.partitions.is_empty() { "" } else { "at most " };
    let head = format!("restored {location}: {at_most}{} records are done again", number(answer.replayed_records));
    if !answer.partitions.is_empty() {
        return format!("{head}\n\n{}", resets(&answer.partitions));
    }
    if answer.splits.is_empty() {
        return head;
    }
    let mut table = table(&["SPLIT", ">FROM", ">TO", ">AGAIN"]);
    for replay in &answer.splits {
        table.add_row([
            split_name(replay.split.as_ref()),
            replay.from_cursor.to_string(),
            replay.to_cursor.to_string(),
            number(replay.replayed_records),
        ]);
    }
    format!("{head}\n\n{}", table.trim_fmt())
}

pub(super) fn resets(partitions: &[v1::PartitionReset]) -> String {
    let mut table = table(&["PARTITION", ">AGAIN AT MOST", ">PASSED OVER AT MOST"]);
    for each in partitions {
        let partition = format!("{}-{}", each.topic, each.partition);
        table.add_row([partition, number(each.replayed_at_most), number(each.skipped_at_most)]);
    }
    table.trim_fmt()
}

fn split_name(split: Option<&v1::SplitId>) -> String {
    split.map_or_else(|| "?".to_owned(), |id| format!("{}-{}/{}", id.topic, id.partition, id.index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_reasons_stand_out() {
        let split = |index, lag| v1::SplitInfo {
            split: Some(v1::SplitId { topic: "eqiad.a".to_owned(), partition: 0, index }),
            state: "RUNNING".to_owned(),
            lag,
            ..Default::default()
        };
        let text = splits(&[split(0, 12_345), split(1, -1)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].contains("SPLIT") && !lines[0].contains('>'), "{text}");
        assert!(lines[1].contains("eqiad.a-0/0") && lines[1].contains("12 345"), "{text}");
        assert!(lines[2].contains('?'), "{text}");

        let pruned_field_names = vec!["page.a".to_owned(), "revision.b".to_owned()];
        let pruned = v1::GetStatusResponse { pruned_fields: 7, pruned_field_names, ..Default::default() };
        assert!(status(&pruned).contains("7: page.a, revision.b"), "{}", status(&pruned));
        assert!(!status(&v1::GetStatusResponse::default()).contains("Pruned"));
        let degraded = v1::GetStatusResponse { degraded: vec!["storage unreachable".to_owned()], ..Default::default() };
        assert!(status(&degraded).contains("DEGRADED          storage unreachable"), "{}", status(&degraded));
    }
}
