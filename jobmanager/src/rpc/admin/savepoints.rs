//! Savepoints: taken, shown, disposed of, gone back to.

use tonic::Status;
use weir_common::ids::CheckpointId;
use weir_proto::v1;

use super::{
    Service,
    info::{checkpoint_info, kind_name, split_replay, stored_info},
    refusal::{gone, refused, storage},
};
use crate::{
    coordinator::action::Reply,
    runtime::AdminRequest,
    store::{Info, Kind, keys, snapshot::StoredKind},
};

impl Service {
    /// Triggers a savepoint and waits until it is stored. Of an offset cut also its offsets.
    pub(super) async fn savepoint(
        &self,
        label: String,
        stop: bool,
        offset_cut: bool,
    ) -> Result<(v1::CheckpointInfo, Vec<v1::PartitionOffset>), Status> {
        keys::check_label(&label).map_err(Status::invalid_argument)?;
        tracing::info!(label, stop, offset_cut, "savepoint requested");
        let request = AdminRequest::Savepoint { label, stop, offset_cut };
        let reply = self.runtime()?.admin(request).await.map_err(gone)?;
        let Reply::Savepoint { checkpoint, location } = reply else { return Err(refused(reply)) };
        let offsets = if offset_cut { self.stored_offsets(&location).await } else { Vec::new() };
        Ok((self.stored(checkpoint, location).await?, offsets))
    }

    pub(super) async fn stored(
        &self,
        checkpoint: CheckpointId,
        location: String,
    ) -> Result<v1::CheckpointInfo, Status> {
        // After a stop the runtime may be gone, and the savepoint is there all the same.
        if let Ok(view) = self.view().await
            && let Some(row) = view.checkpoint(checkpoint)
        {
            return Ok(checkpoint_info(&view, row));
        }
        let stored = self.services.snapshots.find(&location).await.ok();
        Ok(stored.as_ref().map_or_else(
            || v1::CheckpointInfo {
                checkpoint_id: checkpoint.0,
                kind: kind_name(StoredKind::Savepoint).to_owned(),
                status: "COMPLETED".to_owned(),
                location,
                ..v1::CheckpointInfo::default()
            },
            stored_info,
        ))
    }

    pub(super) async fn find_savepoint(&self, name: &str) -> Result<Info, Status> {
        self.services.snapshots.find(name).await.map_err(|error| storage(&error))
    }

    pub(super) async fn show(&self, name: &str) -> Result<v1::GetSavepointResponse, Status> {
        let info = self.find_savepoint(name).await?;
        let content = self.services.snapshots.content(&info).await.map_err(|error| storage(&error))?;
        let json = String::from_utf8_lossy(&content).into_owned();
        Ok(v1::GetSavepointResponse { savepoint: Some(stored_info(&info)), json })
    }

    pub(super) async fn dispose(&self, name: &str) -> Result<v1::DisposeSavepointResponse, Status> {
        let info = self.find_savepoint(name).await?;
        if info.kind == Kind::Checkpoint {
            return Err(Status::failed_precondition(format!(
                "{} is a checkpoint: those go by themselves, checkpoint.retained are kept",
                info.location
            )));
        }
        self.services.snapshots.dispose(&info).await.map_err(|error| storage(&error))?;
        tracing::info!(location = info.location, "savepoint disposed of");
        Ok(v1::DisposeSavepointResponse { location: info.location })
    }

    pub(super) async fn go_back(&self, request: v1::RestoreRequest) -> Result<v1::RestoreResponse, Status> {
        let v1::RestoreRequest { savepoint, allow_replay } = request;
        let info = self.find_savepoint(&savepoint).await?;
        let snapshot = self.services.snapshots.read(&info).await.map_err(|error| storage(&error))?;
        let configured = self.services.config.job.splits_per_partition;
        tracing::info!(location = info.location, allow_replay, "restore requested");
        if snapshot.splits_per_partition != configured || !snapshot.is_copy() {
            let offsets = snapshot.offsets().map_err(|uneven| {
                Status::failed_precondition(format!(
                    "{} was made with {} splits per partition, the job has {}: only an offset cut can be told in another number \
                     of splits, and its key ranges have come differently far ({uneven}); restore an offset cut, or one that \
                     was made with {2}",
                    info.location,
                    snapshot.splits_per_partition.get(),
                    configured.get()
                ))
            })?;
            return self.go_to_offsets(&info, offsets, allow_replay).await;
        }
        let request = AdminRequest::Restore { splits: snapshot.states(), allow_replay };
        match self.runtime()?.admin(request).await.map_err(gone)? {
            Reply::Restored { replayed } => {
                let splits: Vec<v1::SplitReplay> =
                    replayed.iter().map(|(id, replay)| split_replay(id, *replay)).collect();
                Ok(v1::RestoreResponse {
                    savepoint: Some(stored_info(&info)),
                    replayed_records: splits.iter().map(|split| split.replayed_records).sum(),
                    splits,
                    partitions: Vec::new(),
                })
            }
            other => Err(refused(other)),
        }
    }
}
