//! The gRPC server: taskmanagers' streams, the admin service, health and reflection.

mod admin;
pub(crate) mod convert;
mod taskmanager;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Server, server::Router};
use weir_common::config::Config;
use weir_proto::v1::{admin_service_server::AdminServiceServer, task_manager_service_server::TaskManagerServiceServer};

use crate::{role::Roles, store::Snapshots};

/// Reports of thousands of splits with long maps; tonic's own limit is 4 MiB.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// A peer that vanished without a word is noticed by it.
const KEEPALIVE: std::time::Duration = std::time::Duration::from_secs(10);

/// What the services need.
#[derive(Clone, Debug)]
pub struct Services {
    /// The effective configuration.
    pub config: Arc<Config>,
    /// Whether this jobmanager leads, and what it leads.
    pub roles: Roles,
    /// Storage, for lists and for reading savepoints.
    pub snapshots: Snapshots,
}

/// Serves until `shutdown`, then lets calls end that are under way.
///
/// # Errors
/// The listener broke.
pub async fn serve(services: Services, listener: TcpListener, shutdown: CancellationToken) -> anyhow::Result<()> {
    let router = router(services).await?;
    let incoming = TcpListenerStream::new(listener);
    router.serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned()).await?;
    Ok(())
}

async fn router(services: Services) -> anyhow::Result<Router> {
    let taskmanagers = TaskManagerServiceServer::new(taskmanager::Service::new(&services))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let admin = AdminServiceServer::new(admin::Service::new(services)).max_encoding_message_size(MAX_MESSAGE_BYTES);
    let (health_reporter, health) = tonic_health::server::health_reporter();
    health_reporter.set_serving::<TaskManagerServiceServer<taskmanager::Service>>().await;
    health_reporter.set_serving::<AdminServiceServer<admin::Service>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(weir_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    Ok(Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_service(health)
        .add_service(reflection)
        .add_service(taskmanagers)
        .add_service(admin))
}
