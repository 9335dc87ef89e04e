//! The job's transactional ids: list them, abort what is open on one.

use tonic::Status;
use weir_common::ids::SlotId;
use weir_proto::v1;

use super::{
    Service, convert,
    refusal::{gone, refused},
};
use crate::{
    coordinator::{action::Reply, view::TransactionView},
    runtime::{AdminRequest, backend::SinkEnd},
};

impl Service {
    pub(super) async fn transactions(&self) -> Result<v1::ListTransactionsResponse, Status> {
        let view = self.view().await?;
        let (sink_ends, sink_ends_unknown) = match self.runtime()?.sink_ends().await.map_err(gone)? {
            Ok(ends) => (ends.iter().map(sink_end).collect(), String::new()),
            Err(reason) => (Vec::new(), reason),
        };
        let transactions = view.transactions.iter().map(|each| transaction(&view.job_name, each)).collect();
        Ok(v1::ListTransactionsResponse { transactions, sink_ends, sink_ends_unknown })
    }

    pub(super) async fn abort(&self, transaction: &str) -> Result<v1::AbortTransactionResponse, Status> {
        let job = &self.services.config.stream_manager.job_name;
        let slot = slot(job, transaction).map_err(Status::failed_precondition)?;
        tracing::info!(%slot, "abort of a transaction requested: its id is fenced");
        match self.runtime()?.admin(AdminRequest::AbortTransaction { slot }).await.map_err(gone)? {
            Reply::TransactionAborted { slot, holder } => Ok(v1::AbortTransactionResponse {
                transactional_id: slot.transactional_id(job),
                slot: slot.0,
                taskmanager_id: holder.map(|holder| holder.0).unwrap_or_default(),
            }),
            other => Err(refused(other)),
        }
    }
}

/// A slot by its number or its transactional id; ids of others are none of our business.
fn slot(job: &str, text: &str) -> Result<SlotId, String> {
    let number = text.strip_prefix(job).and_then(|rest| rest.strip_prefix('-')).unwrap_or(text);
    let slot = number.parse().ok().map(SlotId);
    // Only as it is written: `+1` and `01` parse, but are no id of ours.
    slot.filter(|slot| slot.to_string() == number).ok_or_else(|| {
        format!("`{text}` is not a transactional id of this job: they are `{job}-<slot>`, see `weir transactions list`")
    })
}

fn transaction(job: &str, view: &TransactionView) -> v1::TransactionInfo {
    v1::TransactionInfo {
        transactional_id: view.slot.transactional_id(job),
        slot: view.slot.0,
        state: view.state.to_owned(),
        taskmanager_id: view.taskmanager.as_ref().map(|id| id.0.clone()).unwrap_or_default(),
        grant_id: view.grant.map_or(0, |grant| grant.0),
        splits: u32::try_from(view.splits).unwrap_or(u32::MAX),
        last_commit_age_ms: view.committed_for.map(convert::millis),
    }
}

fn sink_end(end: &SinkEnd) -> v1::SinkEnd {
    v1::SinkEnd {
        topic: end.partition.topic.to_string(),
        partition: end.partition.partition,
        last_stable_offset: end.last_stable_offset,
        high_watermark: end.high_watermark,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_of_this_job_are_understood() {
        for (text, expected) in [("0", Some(0)), ("12", Some(12)), ("a-1-3", Some(3))] {
            assert_eq!(slot("a-1", text).ok(), expected.map(SlotId), "{text}");
        }
        for text in ["", "a-1", "a-1-", "a-1-x", "a-1-03", "a-1-+3", "b-3", "a-1-3-4", "-1", "+1", "01", "99999999999"]
        {
            assert!(slot("a-1", text).is_err_and(|reason| reason.contains("a-1-<slot>")), "{text}");
        }
    }
}
