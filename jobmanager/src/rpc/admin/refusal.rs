//! Answers that are not what was asked for.

use tonic::{Code, Status};

use crate::{coordinator::action::Reply, runtime::Gone, store::StoreError};

pub(super) fn gone(gone: Gone) -> Status {
    Status::unavailable(gone.to_string())
}

pub(super) fn storage(error: &StoreError) -> Status {
    let code = match error {
        StoreError::NotFound(_) => Code::NotFound,
        StoreError::Denied(_) => Code::PermissionDenied,
        StoreError::Damaged(_) | StoreError::Configuration(_) | StoreError::Superseded(_) => Code::FailedPrecondition,
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
        Reply::Rejected { reason } => Status::failed_precondition(reason),
        Reply::Failed { reason } => Status::aborted(reason),
        Reply::Savepoint { .. } | Reply::Restored { .. } => Status::internal("the runtime answered another question"),
    }
}
