//! Suspend, resume, reset.

use std::collections::BTreeSet;

use jiff::Timestamp;
use tonic::Status;
use weir_common::split::TopicPartition;
use weir_proto::v1::{self, reset_request::To};

use super::{
    Service,
    offsets::{cursors, from_proto, to_proto},
    refusal::{gone, refused},
};
use crate::{
    coordinator::{
        action::{Consequences, Reply},
        event::Allowed,
    },
    runtime::{AdminRequest, ResetTo},
};

impl Service {
    pub(super) async fn rest(&self, offset_cut: bool) -> Result<v1::SuspendResponse, Status> {
        tracing::info!(offset_cut, "suspend requested");
        let mut response = v1::SuspendResponse::default();
        match self.runtime()?.admin(AdminRequest::Suspend { offset_cut }).await.map_err(gone)? {
            Reply::Suspended { snapshot: Ok(location) } => response.location = location,
            Reply::Suspended { snapshot: Err(reason) } => {
                response.warning = format!("no checkpoint was stored: {reason}");
            }
            other => return Err(refused(other)),
        }
        if offset_cut {
            // The job rests: where its cursors are, it stays.
            response.offsets = to_proto(&self.of_source(cursors(&self.view().await?)));
        }
        Ok(response)
    }

    pub(super) async fn go_on(&self) -> Result<v1::ResumeResponse, Status> {
        tracing::info!("resume requested");
        match self.runtime()?.admin(AdminRequest::Resume).await.map_err(gone)? {
            Reply::Resumed => Ok(v1::ResumeResponse {}),
            other => Err(refused(other)),
        }
    }

    pub(super) async fn move_splits(&self, request: v1::ResetRequest) -> Result<v1::ResetResponse, Status> {
        let v1::ResetRequest { to, topic, partitions, allow_replay, allow_skip } = request;
        let to = to.ok_or_else(|| Status::invalid_argument("say where to: earliest, latest, a time, or offsets"))?;
        let to = target(to).map_err(Status::invalid_argument)?;
        tracing::info!(?to, topic, ?partitions, allow_replay, allow_skip, "reset requested");
        let allowed = Allowed { replay: allow_replay, skip: allow_skip };
        let topic = (!topic.is_empty()).then_some(topic);
        let request = AdminRequest::Reset { to, topic, partitions, allowed };
        match self.runtime()?.admin(request).await.map_err(gone)? {
            Reply::Reset(consequences) => Ok(moved(&consequences)),
            other => Err(refused(other)),
        }
    }
}

fn target(to: To) -> Result<ResetTo, String> {
    Ok(match to {
        To::Earliest(true) => ResetTo::Earliest,
        To::Latest(true) => ResetTo::Latest,
        To::Earliest(false) | To::Latest(false) => return Err("`false` says nothing of where to".to_owned()),
        To::TimestampMs(ms) => {
            ResetTo::Timestamp(Timestamp::from_millisecond(ms).map_err(|error| format!("{ms} is no time: {error}"))?)
        }
        To::Offsets(offsets) => ResetTo::Offsets(from_proto(offsets)?),
    })
}

pub(super) fn moved(consequences: &Consequences) -> v1::ResetResponse {
    let Consequences { splits, replayed, skipped } = consequences;
    let partitions: BTreeSet<&TopicPartition> = replayed.keys().chain(skipped.keys()).collect();
    let partition = |partition: &TopicPartition| v1::PartitionReset {
        topic: partition.topic.to_string(),
        partition: partition.partition,
        replayed_at_most: replayed.get(partition).copied().unwrap_or_default(),
        skipped_at_most: skipped.get(partition).copied().unwrap_or_default(),
    };
    v1::ResetResponse {
        splits: u32::try_from(*splits).unwrap_or(u32::MAX),
        partitions: partitions.into_iter().map(partition).collect(),
    }
}
