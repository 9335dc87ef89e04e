//! What operators call.

mod errors;
mod info;
mod offsets;
mod operations;
mod refusal;
mod replay;
mod savepoints;
mod transactions;

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use weir_proto::v1::{self, admin_service_server::AdminService};

use self::{
    info::{checkpoint_info, split_info, status, stored_info, taskmanager_info},
    refusal::{gone, storage},
};
use super::{Services, convert};
use crate::runtime::{Handle, view::View};

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

    /// The running job; a standby refers to who leads.
    fn runtime(&self) -> Result<Handle, Status> {
        let (runtime, _) = self.services.roles.leading().map_err(|error| refusal::standby(&error))?;
        Ok(runtime)
    }

    async fn view(&self) -> Result<View, Status> {
        self.runtime()?.view().await.map_err(gone)
    }
}

#[tonic::async_trait]
impl AdminService for Service {
    type ReplayErrorsStream = ReceiverStream<Result<v1::ReplayErrorsResponse, Status>>;

    async fn get_status(&self, _: Request<v1::GetStatusRequest>) -> Result<Response<v1::GetStatusResponse>, Status> {
        Ok(Response::new(status(&self.view().await?, self.services.roles.leader())))
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
        let v1::TriggerSavepointRequest { label, offset_cut } = request.into_inner();
        let (savepoint, offsets) = self.savepoint(label, false, offset_cut).await?;
        Ok(Response::new(v1::TriggerSavepointResponse { savepoint: Some(savepoint), offsets }))
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
        Ok(Response::new(self.show(&request.into_inner().savepoint).await?))
    }

    async fn dispose_savepoint(
        &self,
        request: Request<v1::DisposeSavepointRequest>,
    ) -> Result<Response<v1::DisposeSavepointResponse>, Status> {
        Ok(Response::new(self.dispose(&request.into_inner().savepoint).await?))
    }

    async fn stop_with_savepoint(
        &self,
        request: Request<v1::StopWithSavepointRequest>,
    ) -> Result<Response<v1::StopWithSavepointResponse>, Status> {
        let v1::StopWithSavepointRequest { label, offset_cut } = request.into_inner();
        let (savepoint, offsets) = self.savepoint(label, true, offset_cut).await?;
        Ok(Response::new(v1::StopWithSavepointResponse { savepoint: Some(savepoint), offsets }))
    }

    async fn export_savepoint(
        &self,
        request: Request<v1::ExportSavepointRequest>,
    ) -> Result<Response<v1::ExportSavepointResponse>, Status> {
        Ok(Response::new(self.export(request.into_inner()).await?))
    }

    async fn import_savepoint(
        &self,
        request: Request<v1::ImportSavepointRequest>,
    ) -> Result<Response<v1::ImportSavepointResponse>, Status> {
        Ok(Response::new(self.import(request.into_inner()).await?))
    }

    async fn restore(&self, request: Request<v1::RestoreRequest>) -> Result<Response<v1::RestoreResponse>, Status> {
        Ok(Response::new(self.go_back(request.into_inner()).await?))
    }

    async fn suspend(&self, request: Request<v1::SuspendRequest>) -> Result<Response<v1::SuspendResponse>, Status> {
        Ok(Response::new(self.rest(request.into_inner().offset_cut).await?))
    }

    async fn resume(&self, _: Request<v1::ResumeRequest>) -> Result<Response<v1::ResumeResponse>, Status> {
        Ok(Response::new(self.go_on().await?))
    }

    async fn reset(&self, request: Request<v1::ResetRequest>) -> Result<Response<v1::ResetResponse>, Status> {
        Ok(Response::new(self.move_splits(request.into_inner()).await?))
    }

    async fn list_transactions(
        &self,
        _: Request<v1::ListTransactionsRequest>,
    ) -> Result<Response<v1::ListTransactionsResponse>, Status> {
        Ok(Response::new(self.transactions().await?))
    }

    async fn abort_transaction(
        &self,
        request: Request<v1::AbortTransactionRequest>,
    ) -> Result<Response<v1::AbortTransactionResponse>, Status> {
        Ok(Response::new(self.abort(&request.into_inner().transaction).await?))
    }

    async fn list_errors(
        &self,
        request: Request<v1::ListErrorsRequest>,
    ) -> Result<Response<v1::ListErrorsResponse>, Status> {
        Ok(Response::new(self.errors(request.into_inner()).await?))
    }

    async fn get_error(&self, request: Request<v1::GetErrorRequest>) -> Result<Response<v1::GetErrorResponse>, Status> {
        Ok(Response::new(self.error(request.into_inner()).await?))
    }

    async fn replay_errors(
        &self,
        request: Request<v1::ReplayErrorsRequest>,
    ) -> Result<Response<Self::ReplayErrorsStream>, Status> {
        Ok(Response::new(self.replay(request.into_inner()).await?))
    }
}
