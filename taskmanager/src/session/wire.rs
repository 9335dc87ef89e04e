//! Between the protocol's generated types and ours. Generated types stop here.

use std::time::Duration;

use weir_common::{
    counters::SplitCounters,
    failure::SplitFailure,
    ids::{CheckpointId, GrantId, LeaderEpoch, SlotId},
    progress::{OffsetRange, Progress},
    split::SplitId,
};
use weir_proto::v1::{
    self, job_manager_message::Kind as JobmanagerKind, task_manager_message::Kind as TaskmanagerKind,
};

use super::state::{FromJobmanager, Held, ToJobmanager};
use crate::{
    job::{JobSpec, JobSpecError},
    sink::report::{Assignment, SplitReport},
};

/// A message of the jobmanager, read.
pub(super) struct Heard {
    pub(super) epoch: LeaderEpoch,
    pub(super) what: Said,
}

/// What it says: what the shell needs of Registered and of a standby's refusal, or a message for the state machine.
pub(super) enum Said {
    Registered {
        heartbeat: Duration,
        job: Box<JobSpec>,
    },
    /// It does not lead, so its epoch says nothing.
    StandsBy {
        leader: String,
        retry: Duration,
    },
    Message(FromJobmanager),
}

/// A message that makes no sense.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error(transparent)]
    Job(#[from] JobSpecError),
    #[error("the jobmanager's message has no `{0}`")]
    Missing(&'static str),
    #[error("the jobmanager's progress of split {0} is not well formed")]
    Progress(SplitId),
}

pub(super) fn read(message: v1::JobManagerMessage) -> Result<Heard, WireError> {
    let epoch = LeaderEpoch(message.leader_epoch);
    let message = match message.kind {
        None => FromJobmanager::Unknown,
        Some(JobmanagerKind::Registered(registered)) => {
            let job = registered.job.ok_or(WireError::Missing("job"))?;
            let heartbeat = Duration::from_millis(registered.heartbeat_interval_ms.max(10));
            return Ok(Heard { epoch, what: Said::Registered { heartbeat, job: Box::new(job.try_into()?) } });
        }
        Some(JobmanagerKind::Refused(refused)) if refused.reason == "STANDBY" => {
            let (leader, retry) = (refused.leader_address, Duration::from_millis(refused.retry_after_ms));
            return Ok(Heard { epoch, what: Said::StandsBy { leader, retry } });
        }
        Some(JobmanagerKind::Refused(refused)) => {
            FromJobmanager::Refused { message: refused.message, retry_ms: refused.retry_after_ms }
        }
        Some(JobmanagerKind::HeartbeatAck(ack)) => FromJobmanager::HeartbeatAck {
            grant: GrantId(ack.grant_id),
            ttl_ms: ack.grant_ttl_ms,
            requests_max: (ack.requests_max > 0).then_some(ack.requests_max),
        },
        Some(JobmanagerKind::Grant(grant)) => FromJobmanager::Grant {
            slot: SlotId(grant.slot),
            grant: GrantId(grant.grant_id),
            ttl_ms: grant.grant_ttl_ms,
        },
        Some(JobmanagerKind::Assign(assign)) => {
            FromJobmanager::Assign { splits: assign.splits.into_iter().map(assignment).collect::<Result<_, _>>()? }
        }
        Some(JobmanagerKind::Revoke(revoke)) => {
            FromJobmanager::Revoke { splits: revoke.splits.into_iter().map(split_id).collect() }
        }
        Some(JobmanagerKind::Barrier(barrier)) => {
            FromJobmanager::Barrier { checkpoint: CheckpointId(barrier.checkpoint_id) }
        }
        Some(JobmanagerKind::Drain(drain)) => FromJobmanager::Drain { leave: drain.leave },
    };
    Ok(Heard { epoch, what: Said::Message(message) })
}

pub(super) fn write(message: ToJobmanager) -> v1::TaskManagerMessage {
    let kind = match message {
        ToJobmanager::SlotReady { slot, grant } => {
            TaskmanagerKind::SlotReady(v1::SlotReady { slot: slot.0, grant_id: grant.0 })
        }
        ToJobmanager::Report { checkpoint, slot, splits } => TaskmanagerKind::Report(v1::Report {
            checkpoint_id: checkpoint.map_or(0, |checkpoint| checkpoint.0),
            slot: slot.0,
            splits: reports(splits),
        }),
        ToJobmanager::Released { splits } => TaskmanagerKind::Released(v1::Released { splits: reports(splits) }),
        ToJobmanager::Draining => TaskmanagerKind::Draining(v1::Draining {}),
        ToJobmanager::SlotLost { slot, grant, reason } => {
            TaskmanagerKind::SlotLost(v1::SlotLost { slot: slot.0, grant_id: grant.0, reason })
        }
        ToJobmanager::SplitFailed { splits, failure: SplitFailure { kind, message } } => {
            let splits = splits.iter().map(to_split_id).collect();
            TaskmanagerKind::SplitFailed(v1::SplitFailed { splits, kind: kind.name().to_owned(), message })
        }
    };
    v1::TaskManagerMessage { kind: Some(kind) }
}

/// `job`: the one that the splits were assigned in.
pub(super) fn held(held: &Held, job: Option<&JobSpec>) -> v1::HeldSlot {
    let splits = reports(held.splits.values().cloned().collect());
    let splits_per_partition = job.map_or(0, |job| job.splits_per_partition.get());
    v1::HeldSlot { slot: held.slot.0, grant_id: held.grant.0, splits, splits_per_partition }
}

fn assignment(assignment: v1::SplitAssignment) -> Result<Assignment, WireError> {
    let split = split_id(assignment.split.ok_or(WireError::Missing("split"))?);
    let progress = assignment.progress.ok_or(WireError::Missing("progress"))?;
    let range = |range: v1::OffsetRange| OffsetRange { start: range.start, end: range.end };
    let finished_ahead = progress.finished_ahead.into_iter().map(range).collect();
    let progress = Progress { cursor: progress.cursor, finished_ahead };
    if !progress.is_well_formed() {
        return Err(WireError::Progress(split));
    }
    let counters = assignment.counters.unwrap_or_default();
    let counters = SplitCounters {
        consumed: counters.consumed,
        enriched: counters.enriched,
        passed_through: counters.passed_through,
        errors: counters.errors,
        dropped: counters.dropped,
    };
    let report = SplitReport { split, progress, counters, progress_partition: assignment.progress_partition };
    Ok(Assignment { report, limit: assignment.limit })
}

fn reports(reports: Vec<SplitReport>) -> Vec<v1::SplitReport> {
    let report = |SplitReport { split, progress, counters, progress_partition }| v1::SplitReport {
        split: Some(to_split_id(&split)),
        progress: Some(to_progress(progress)),
        counters: Some(to_counters(counters)),
        progress_partition,
    };
    reports.into_iter().map(report).collect()
}

fn split_id(split: v1::SplitId) -> SplitId {
    SplitId { topic: split.topic.into(), partition: split.partition, index: split.index }
}

pub(super) fn to_split_id(split: &SplitId) -> v1::SplitId {
    v1::SplitId { topic: split.topic.to_string(), partition: split.partition, index: split.index }
}

fn to_progress(progress: Progress) -> v1::Progress {
    let range = |range: OffsetRange| v1::OffsetRange { start: range.start, end: range.end };
    v1::Progress { cursor: progress.cursor, finished_ahead: progress.finished_ahead.into_iter().map(range).collect() }
}

pub(super) fn to_counters(counters: SplitCounters) -> v1::SplitCounters {
    v1::SplitCounters {
        consumed: counters.consumed,
        enriched: counters.enriched,
        passed_through: counters.passed_through,
        errors: counters.errors,
        dropped: counters.dropped,
    }
}
