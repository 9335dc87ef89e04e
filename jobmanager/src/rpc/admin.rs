//! What operators call.

use tonic::{Code, Request, Response, Status};
use weir_common::ids::CheckpointId;
use weir_proto::v1::{self, admin_service_server::AdminService};

use super::{Services, convert};
use crate::{
    coordinator::{
        action::{Replay, Reply, SnapshotKind},
        view::CheckpointStatus,
    },
    runtime::{
        AdminRequest, Gone,
        view::{CheckpointRow, SplitRow, TaskmanagerRow, View},
    },
    store::{Info, Kind, StoreError, keys, snapshot::StoredKind},
};

/// Checkpoints that are listed where no limit is asked for.
const DEFAULT_LIMIT: usize = 20;

/// `weir.v1.AdminService`.
#[derive(Debug)]
pub(super) struct Service {
    services: Services,
}

impl Service {
    pub(super) fn new(services: Services) -> Self {
        Self { services }
    }

    async fn view(&self) -> Result<View, Status> {
        self.services.runtime.view().await.map_err(gone)
    }

    /// Triggers a savepoint and waits until it is stored.
    async fn savepoint(&self, label: String, stop: bool) -> Result<v1::CheckpointInfo, Status> {
        keys::check_label(&label).map_err(Status::invalid_argument)?;
        tracing::info!(label, stop, "savepoint requested");
        let reply = self.services.runtime.admin(AdminRequest::Savepoint { label, stop }).await.map_err(gone)?;
        match reply {
            Reply::Savepoint { checkpoint, location } => self.stored(checkpoint, location).await,
            other => Err(refused(other)),
        }
    }

    async fn stored(&self, checkpoint: CheckpointId, location: String) -> Result<v1::CheckpointInfo, Status> {
        // After a stop the runtime may be gone, and the savepoint is there all the same.
        if let Ok(view) = self.services.runtime.view().await
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

    async fn find_savepoint(&self, name: &str) -> Result<Info, Status> {
        self.services.snapshots.find(name).await.map_err(|error| storage(&error))
    }
}

#[tonic::async_trait]
impl AdminService for Service {
    async fn get_status(&self, _: Request<v1::GetStatusRequest>) -> Result<Response<v1::GetStatusResponse>, Status> {
        Ok(Response::new(status(&self.view().await?)))
    }

    async fn list_task_managers(
        &self,
        _: Request<v1::ListTaskManagersRequest>,
    ) -> Result<Response<v1::ListTaskManagersResponse>, Status> {
        let taskmanagers = self.view().await?.taskmanagers.into_iter().map(taskmanager_info).collect();
        Ok(Response::new(v1::ListTaskManagersResponse { taskmanagers }))
    }

    async fn list_splits(&self, _: Request<v1::ListSplitsRequest>) -> Result<Response<v1::ListSplitsResponse>, Status> {
        let splits = self.view().await?.splits.into_iter().map(split_info).collect();
        Ok(Response::new(v1::ListSplitsResponse { splits }))
    }

    async fn list_checkpoints(
        &self,
        request: Request<v1::ListCheckpointsRequest>,
    ) -> Result<Response<v1::ListCheckpointsResponse>, Status> {
        let limit = match request.into_inner().limit {
            0 => DEFAULT_LIMIT,
            limit => limit as usize,
        };
        let view = self.view().await?;
        let checkpoints = view.checkpoints.iter().take(limit).map(|row| checkpoint_info(&view, row)).collect();
        Ok(Response::new(v1::ListCheckpointsResponse { checkpoints }))
    }

    async fn trigger_savepoint(
        &self,
        request: Request<v1::TriggerSavepointRequest>,
    ) -> Result<Response<v1::TriggerSavepointResponse>, Status> {
        let savepoint = Some(self.savepoint(request.into_inner().label, false).await?);
        Ok(Response::new(v1::TriggerSavepointResponse { savepoint }))
    }

    async fn list_savepoints(
        &self,
        _: Request<v1::ListSavepointsRequest>,
    ) -> Result<Response<v1::ListSavepointsResponse>, Status> {
        let savepoints = self.services.snapshots.savepoints().await.map_err(|error| storage(&error))?;
        Ok(Response::new(v1::ListSavepointsResponse { savepoints: savepoints.iter().map(stored_info).collect() }))
    }

    async fn get_savepoint(
        &self,
        request: Request<v1::GetSavepointRequest>,
    ) -> Result<Response<v1::GetSavepointResponse>, Status> {
        let info = self.find_savepoint(&request.into_inner().savepoint).await?;
        let content = self.services.snapshots.content(&info).await.map_err(|error| storage(&error))?;
        let json = String::from_utf8_lossy(&content).into_owned();
        Ok(Response::new(v1::GetSavepointResponse { savepoint: Some(stored_info(&info)), json }))
    }

    async fn dispose_savepoint(
        &self,
        request: Request<v1::DisposeSavepointRequest>,
    ) -> Result<Response<v1::DisposeSavepointResponse>, Status> {
        let info = self.find_savepoint(&request.into_inner().savepoint).await?;
        if info.kind == Kind::Checkpoint {
            return Err(Status::failed_precondition(format!(
                "{} is a checkpoint: those go by themselves, checkpoint.retained are kept",
                info.location
            )));
        }
        self.services.snapshots.dispose(&info).await.map_err(|error| storage(&error))?;
        tracing::info!(location = info.location, "savepoint disposed of");
        Ok(Response::new(v1::DisposeSavepointResponse { location: info.location }))
    }

    async fn stop_with_savepoint(
        &self,
        request: Request<v1::StopWithSavepointRequest>,
    ) -> Result<Response<v1::StopWithSavepointResponse>, Status> {
        let savepoint = Some(self.savepoint(request.into_inner().label, true).await?);
        Ok(Response::new(v1::StopWithSavepointResponse { savepoint }))
    }

    async fn restore(&self, request: Request<v1::RestoreRequest>) -> Result<Response<v1::RestoreResponse>, Status> {
        let v1::RestoreRequest { savepoint, allow_replay } = request.into_inner();
        let info = self.find_savepoint(&savepoint).await?;
        let snapshot = self.services.snapshots.read(&info).await.map_err(|error| storage(&error))?;
        let configured = self.services.config.job.splits_per_partition;
        if snapshot.splits_per_partition != configured {
            return Err(Status::failed_precondition(format!(
                "{} was made with {} splits per partition, the job has {}",
                info.location,
                snapshot.splits_per_partition.get(),
                configured.get()
            )));
        }
        tracing::info!(location = info.location, allow_replay, "restore requested");
        let request = AdminRequest::Restore { splits: snapshot.states(), allow_replay };
        match self.services.runtime.admin(request).await.map_err(gone)? {
            Reply::Restored { replayed } => {
                let splits: Vec<v1::SplitReplay> =
                    replayed.iter().map(|(id, replay)| split_replay(id, *replay)).collect();
                Ok(Response::new(v1::RestoreResponse {
                    savepoint: Some(stored_info(&info)),
                    replayed_records: splits.iter().map(|split| split.replayed_records).sum(),
                    splits,
                }))
            }
            other => Err(refused(other)),
        }
    }
}

fn gone(gone: Gone) -> Status {
    Status::unavailable(gone.to_string())
}

fn storage(error: &StoreError) -> Status {
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
fn refused(reply: Reply) -> Status {
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

fn kind_name(kind: StoredKind) -> &'static str {
    match kind {
        StoredKind::Checkpoint => "CHECKPOINT",
        StoredKind::Savepoint => "SAVEPOINT",
    }
}

fn split_replay(id: &weir_common::split::SplitId, replay: Replay) -> v1::SplitReplay {
    v1::SplitReplay {
        split: Some(convert::split_to_proto(id)),
        from_cursor: replay.from_cursor,
        to_cursor: replay.to_cursor,
        replayed_records: replay.records,
    }
}

fn status(view: &View) -> v1::GetStatusResponse {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
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
        restarts: view.lost_taskmanagers,
    }
}

fn taskmanager_info(row: TaskmanagerRow) -> v1::TaskManagerInfo {
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
        config_differs,
    }
}

fn split_info(row: SplitRow) -> v1::SplitInfo {
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
    }
}

fn checkpoint_info(view: &View, row: &CheckpointRow) -> v1::CheckpointInfo {
    let checkpoint = &row.checkpoint;
    let (kind, trigger) = match &checkpoint.kind {
        SnapshotKind::Checkpoint => (StoredKind::Checkpoint, "periodic".to_owned()),
        SnapshotKind::Savepoint { label } if label.is_empty() => (StoredKind::Savepoint, "operator".to_owned()),
        SnapshotKind::Savepoint { label } => (StoredKind::Savepoint, format!("operator: {label}")),
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
    }
}

/// A snapshot of which only storage knows; its time is when it was written.
fn stored_info(info: &Info) -> v1::CheckpointInfo {
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
    }
}
