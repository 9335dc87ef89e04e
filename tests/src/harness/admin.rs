//! The admin service, asked directly.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use weir_proto::v1::{
    CheckpointInfo, GetStatusRequest, GetStatusResponse, ListCheckpointsRequest, ListSplitsRequest,
    ListTaskManagersRequest, SplitInfo, TaskManagerInfo, admin_service_client::AdminServiceClient,
};

/// A client that connects when it is asked for something.
#[derive(Clone)]
pub struct Admin(AdminServiceClient<Channel>);

impl Admin {
    /// For the jobmanager at `host:port`.
    ///
    /// # Errors
    /// Not an address.
    pub fn new(address: &str) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(Duration::from_secs(2))
            .timeout(Duration::from_secs(5));
        Ok(Self(AdminServiceClient::new(endpoint.connect_lazy())))
    }

    /// `GetStatus`.
    ///
    /// # Errors
    /// No answer.
    pub async fn status(&self) -> anyhow::Result<GetStatusResponse> {
        Ok(self.0.clone().get_status(GetStatusRequest {}).await?.into_inner())
    }

    /// `ListTaskManagers`.
    ///
    /// # Errors
    /// No answer.
    pub async fn taskmanagers(&self) -> anyhow::Result<Vec<TaskManagerInfo>> {
        Ok(self.0.clone().list_task_managers(ListTaskManagersRequest {}).await?.into_inner().taskmanagers)
    }

    /// `ListSplits`.
    ///
    /// # Errors
    /// No answer.
    pub async fn splits(&self) -> anyhow::Result<Vec<SplitInfo>> {
        Ok(self.0.clone().list_splits(ListSplitsRequest {}).await?.into_inner().splits)
    }

    /// `ListCheckpoints`, the newest.
    ///
    /// # Errors
    /// No answer.
    pub async fn checkpoints(&self) -> anyhow::Result<Vec<CheckpointInfo>> {
        Ok(self.0.clone().list_checkpoints(ListCheckpointsRequest { limit: 100 }).await?.into_inner().checkpoints)
    }
}
