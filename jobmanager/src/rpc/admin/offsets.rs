//! Savepoints as plain Kafka offsets.

use std::collections::BTreeMap;

use tonic::Status;
use weir_common::split::TopicPartition;
use weir_proto::v1::{self, import_savepoint_request::From};

use super::{
    Service,
    info::stored_info,
    operations::moved,
    refusal::{gone, refused, storage},
};
use crate::{
    coordinator::{action::Reply, event::Allowed},
    runtime::{AdminRequest, ImportFrom, ResetTo, view::View},
    store::{Info, keys},
};

impl Service {
    /// Of an offset cut that was just stored. The caller has its savepoint in any case.
    pub(super) async fn stored_offsets(&self, location: &str) -> Vec<v1::PartitionOffset> {
        let offsets = async {
            let info = self.find_savepoint(location).await?;
            self.offsets_of(&info).await
        };
        match offsets.await {
            Ok(offsets) => to_proto(&offsets),
            Err(error) => {
                tracing::warn!(location, %error, "the savepoint is stored, and cannot be read back now");
                Vec::new()
            }
        }
    }

    /// Of the source's topics: the replay topic is the job's own.
    pub(super) async fn offsets_of(&self, info: &Info) -> Result<BTreeMap<TopicPartition, i64>, Status> {
        let snapshot = self.services.snapshots.read(info).await.map_err(|error| storage(&error))?;
        let offsets = snapshot.offsets().map(|offsets| self.of_source(offsets));
        offsets.map_err(|uneven| {
            Status::failed_precondition(format!(
                "{} is no offset cut: the key ranges of its partitions have come differently far ({uneven}), which plain \
                 offsets cannot tell; take one by `weir savepoint trigger --offset-cut`, or `weir stop --with-savepoint \
                 --offset-cut`",
                info.location
            ))
        })
    }

    pub(super) fn of_source(&self, mut offsets: BTreeMap<TopicPartition, i64>) -> BTreeMap<TopicPartition, i64> {
        let replay = self.replay_topic();
        offsets.retain(|partition, _| *partition.topic != *replay);
        offsets
    }

    pub(super) fn replay_topic(&self) -> String {
        weir_common::kafka::replay_topic(&self.services.config.stream_manager.job_name)
    }

    pub(super) async fn export(
        &self,
        request: v1::ExportSavepointRequest,
    ) -> Result<v1::ExportSavepointResponse, Status> {
        let v1::ExportSavepointRequest { savepoint, group } = request;
        let info = self.find_savepoint(&savepoint).await?;
        let offsets = self.offsets_of(&info).await?;
        if !group.is_empty() {
            tracing::info!(location = info.location, group, "export to a consumer group requested");
            let committed = self.runtime()?.commit_group(group, offsets.clone()).await.map_err(gone)?;
            committed.map_err(Status::failed_precondition)?;
        }
        let manager = &self.services.config.stream_manager;
        Ok(v1::ExportSavepointResponse {
            savepoint: Some(stored_info(&info)),
            job_name: manager.job_name.clone(),
            bootstrap_servers: manager.source.options.bootstrap_servers.clone(),
            offsets: to_proto(&offsets),
        })
    }

    pub(super) async fn import(
        &self,
        request: v1::ImportSavepointRequest,
    ) -> Result<v1::ImportSavepointResponse, Status> {
        let v1::ImportSavepointRequest { label, from } = request;
        keys::check_label(&label).map_err(Status::invalid_argument)?;
        let from = match from {
            Some(From::Offsets(offsets)) => ImportFrom::Offsets(from_proto(offsets).map_err(Status::invalid_argument)?),
            Some(From::Group(group)) if !group.is_empty() => ImportFrom::Group(group),
            Some(From::Group(_)) | None => {
                return Err(Status::invalid_argument("say from where: offsets, or a consumer group"));
            }
        };
        tracing::info!(label, "import of a savepoint requested");
        let cursors = cursors(&self.view().await?);
        let reply = self.runtime()?.admin(AdminRequest::Import { label, from }).await.map_err(gone)?;
        let Reply::Savepoint { checkpoint, location } = reply else { return Err(refused(reply)) };
        let info = self.find_savepoint(&location).await?;
        let partitions = self.offsets_of(&info).await?.into_iter().map(|(partition, offset)| v1::PartitionImport {
            cursor: cursors.get(&partition).copied().unwrap_or(offset),
            topic: partition.topic.to_string(),
            partition: partition.partition,
            offset,
        });
        let partitions = partitions.collect();
        Ok(v1::ImportSavepointResponse { savepoint: Some(self.stored(checkpoint, location).await?), partitions })
    }

    /// Goes to where a savepoint's offsets are. Counters go on counting, as in a reset: how much of what lies below was this
    /// job's own work is not known.
    pub(super) async fn go_to_offsets(
        &self,
        info: &Info,
        offsets: BTreeMap<TopicPartition, i64>,
        allow_replay: bool,
    ) -> Result<v1::RestoreResponse, Status> {
        let allowed = Allowed { replay: allow_replay, skip: true };
        let to = ResetTo::Offsets(offsets);
        let request = AdminRequest::Reset { to, topic: None, partitions: Vec::new(), allowed };
        match self.runtime()?.admin(request).await.map_err(gone)? {
            Reply::Reset(consequences) => Ok(v1::RestoreResponse {
                savepoint: Some(stored_info(info)),
                replayed_records: consequences.replayed.values().sum(),
                splits: Vec::new(),
                partitions: moved(&consequences).partitions,
            }),
            other => Err(refused(other)),
        }
    }
}

/// The lowest of each partition.
pub(super) fn cursors(view: &View) -> BTreeMap<TopicPartition, i64> {
    let mut cursors = BTreeMap::new();
    for row in &view.splits {
        let cursor = row.split.committed.progress.cursor;
        let lowest = cursors.entry(row.split.id.topic_partition()).or_insert(cursor);
        *lowest = cursor.min(*lowest);
    }
    cursors
}

/// # Errors
/// A partition is named twice.
pub(super) fn from_proto(offsets: v1::ResetOffsets) -> Result<BTreeMap<TopicPartition, i64>, String> {
    let mut found = BTreeMap::new();
    for v1::PartitionOffset { topic, partition, offset } in offsets.offsets {
        let partition = TopicPartition { topic: topic.into(), partition };
        if found.insert(partition.clone(), offset).is_some() {
            return Err(format!("{partition} is named twice"));
        }
    }
    Ok(found)
}

pub(super) fn to_proto(offsets: &BTreeMap<TopicPartition, i64>) -> Vec<v1::PartitionOffset> {
    let offset = |(partition, offset): (&TopicPartition, &i64)| v1::PartitionOffset {
        topic: partition.topic.to_string(),
        partition: partition.partition,
        offset: *offset,
    };
    offsets.iter().map(offset).collect()
}
