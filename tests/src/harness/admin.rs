//! The admin service, asked directly.

use std::time::Duration;

use tonic::{
    Response, Status,
    transport::{Channel, Endpoint},
};
use weir_proto::v1::{
    CheckpointInfo, GetStatusRequest, GetStatusResponse, ListCheckpointsRequest, ListSplitsRequest,
    ListTaskManagersRequest, SplitInfo, TaskManagerInfo, admin_service_client::AdminServiceClient,
};

/// A client that connects when it is asked for something. Of several jobmanagers the one that leads answers.
#[derive(Clone)]
pub struct Admin(Vec<AdminServiceClient<Channel>>);

impl Admin {
    /// For the jobmanagers at these addresses, `host:port`.
    ///
    /// # Errors
    /// Not an address.
    pub fn new(addresses: &[&str]) -> anyhow::Result<Self> {
        let client = |address: &&str| -> anyhow::Result<_> {
            let endpoint = Endpoint::from_shared(format!("http://{address}"))?
                .connect_timeout(Duration::from_secs(2))
                .timeout(Duration::from_secs(5));
            Ok(AdminServiceClient::new(endpoint.connect_lazy()))
        };
        Ok(Self(addresses.iter().map(client).collect::<anyhow::Result<_>>()?))
    }

    async fn ask<T>(
        &self,
        call: impl AsyncFn(&mut AdminServiceClient<Channel>) -> Result<Response<T>, Status>,
    ) -> anyhow::Result<T> {
        let mut refused = Status::unavailable("no address");
        for client in &self.0 {
            match call(&mut client.clone()).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => refused = status,
            }
        }
        Err(refused.into())
    }

    /// `GetStatus`.
    ///
    /// # Errors
    /// No answer.
    pub async fn status(&self) -> anyhow::Result<GetStatusResponse> {
        self.ask(async |client| client.get_status(GetStatusRequest {}).await).await
    }

    /// `ListTaskManagers`.
    ///
    /// # Errors
    /// No answer.
    pub async fn taskmanagers(&self) -> anyhow::Result<Vec<TaskManagerInfo>> {
        Ok(self.ask(async |client| client.list_task_managers(ListTaskManagersRequest {}).await).await?.taskmanagers)
    }

    /// `ListSplits`.
    ///
    /// # Errors
    /// No answer.
    pub async fn splits(&self) -> anyhow::Result<Vec<SplitInfo>> {
        Ok(self.ask(async |client| client.list_splits(ListSplitsRequest {}).await).await?.splits)
    }

    /// `ListCheckpoints`, the newest.
    ///
    /// # Errors
    /// No answer.
    pub async fn checkpoints(&self) -> anyhow::Result<Vec<CheckpointInfo>> {
        let request = ListCheckpointsRequest { limit: 100 };
        Ok(self.ask(async |client| client.list_checkpoints(request).await).await?.checkpoints)
    }
}
