//! Answers that are not what was asked for.

use std::collections::BTreeMap;

use tonic::{Code, Status};
use weir_common::split::TopicPartition;

use crate::{
    coordinator::action::{Consequences, Reply},
    role::NotLeading,
    runtime::Gone,
    store::StoreError,
};

pub(super) fn gone(gone: Gone) -> Status {
    Status::unavailable(gone.to_string())
}

/// Names who leads in the metadata as well, so that a client follows without reading the text.
pub(super) fn standby(error: &NotLeading) -> Status {
    let mut status = Status::unavailable(error.to_string());
    if let Some(leader) = error.leader.as_ref().and_then(|leader| leader.parse().ok()) {
        status.metadata_mut().insert(weir_proto::LEADER_ADDRESS_KEY, leader);
    }
    status
}

pub(super) fn storage(error: &StoreError) -> Status {
    let code = match error {
        StoreError::NotFound(_) => Code::NotFound,
        StoreError::Denied(_) => Code::PermissionDenied,
        StoreError::Damaged(_)
        | StoreError::NewerFormat(_)
        | StoreError::Configuration(_)
        | StoreError::Superseded(_) => Code::FailedPrecondition,
        StoreError::Exists(_) | StoreError::Changed(_) => Code::Aborted,
        StoreError::Unreachable(_) => Code::Unavailable,
    };
    Status::new(code, error.to_string())
}

/// Replies that are not what was asked for.
pub(super) fn refused(reply: Reply) -> Status {
    match reply {
        Reply::ReplayRefused { replayed } => {
            let records: u64 = replayed.values().map(|replay| replay.records).sum();
            let splits = replayed.len();
            Status::failed_precondition(format!(
                "output beyond the savepoint exists: {records} records of {splits} splits would be done again; repeat with \
                 --allow-replay if that is wanted"
            ))
        }
        Reply::ResetRefused(Consequences { replayed, skipped, .. }) => {
            let list = |partitions: &BTreeMap<TopicPartition, u64>| {
                let each = partitions.iter().map(|(partition, records)| format!("{records} of {partition}"));
                each.collect::<Vec<_>>().join(", ")
            };
            let mut reasons = Vec::new();
            if !replayed.is_empty() {
                reasons
                    .push(format!("up to {} finished records would be done again (--allow-replay)", list(&replayed)));
            }
            if !skipped.is_empty() {
                reasons.push(format!("up to {} records would be passed over unread (--allow-skip)", list(&skipped)));
            }
            Status::failed_precondition(format!("{}; repeat with that if it is wanted", reasons.join("; ")))
        }
        Reply::Rejected { reason } => Status::failed_precondition(reason),
        Reply::Failed { reason } => Status::aborted(reason),
        Reply::Savepoint { .. }
        | Reply::Restored { .. }
        | Reply::Suspended { .. }
        | Reply::Resumed
        | Reply::Reset(_)
        | Reply::TransactionAborted { .. } => Status::internal("the runtime answered another question"),
    }
}
