//! Weir's jobmanager: the coordinator, and the shell that performs its actions.

pub mod coordinator;
mod exit;
pub mod http;
pub mod job;
pub mod kafka;
pub mod leadership;
pub mod metrics;
pub mod rpc;
pub mod runtime;
pub mod start;
mod startup;
pub mod store;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use weir_common::config::Config;

pub use self::exit::Exit;
use self::{
    rpc::Services,
    runtime::{Handle, Runtime},
    startup::Prepared,
};

/// Time for answers that are under way when the jobmanager leaves.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs a jobmanager until the job ends by an operator's word (`Ok`), or until `shutdown` (`Ok` too: the job goes on
/// without it, a successor adopts what runs).
///
/// # Errors
/// Why it could not start or go on; [`Exit::code`] is the process's exit code.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Exit> {
    let digest = config.digest();
    let config = Arc::new(config);
    let Some(prepared) = shutdown.run_until_cancelled(startup::prepare(&config, digest)).await else {
        return Ok(());
    };
    let Prepared { parts, lock } = prepared?;
    let listeners = Listeners::bind(&config).await?;
    let (snapshots, leader_epoch) = (parts.snapshots.clone(), parts.plan.leader_epoch);
    let (runtime, handle) = Runtime::new(parts);
    let services = Services { config: Arc::clone(&config), leader_epoch, runtime: handle, snapshots };
    let stop_serving = CancellationToken::new();
    let mut servers = tokio::spawn(listeners.serve(services, stop_serving.clone()));
    let end = tokio::select! {
        end = runtime.run(shutdown) => end,
        () = lock.lost() => Err(Exit::Refused(
            "another jobmanager has taken the job's lock while this one was cut off from Kafka: it leads now".to_owned(),
        )),
        served = &mut servers => return Err(served.map_err(anyhow::Error::from).and_then(|served| served).map_or_else(
            Exit::Failed,
            |()| Exit::Failed(anyhow::anyhow!("the servers ended by themselves")),
        )),
    };
    stop_serving.cancel();
    if tokio::time::timeout(LEAVE_TIMEOUT, servers).await.is_err() {
        tracing::info!("left with connections still open");
    }
    // The former leader's session must not keep a successor waiting.
    let _ = tokio::task::spawn_blocking(move || drop(lock)).await;
    end
}

/// All ports, bound before any is served.
struct Listeners {
    rpc: TcpListener,
    http: TcpListener,
    metrics: TcpListener,
}

impl Listeners {
    async fn bind(config: &Config) -> Result<Self, Exit> {
        let jobmanager = &config.jobmanager;
        Ok(Self {
            rpc: bind("jobmanager.bind", &jobmanager.bind).await?,
            http: bind("jobmanager.http_bind", &jobmanager.http_bind).await?,
            metrics: bind("jobmanager.metrics_bind", &jobmanager.metrics_bind).await?,
        })
    }

    async fn serve(self, services: Services, shutdown: CancellationToken) -> anyhow::Result<()> {
        let runtime: Handle = services.runtime.clone();
        tokio::try_join!(
            rpc::serve(services, self.rpc, shutdown.clone()),
            http::serve(runtime.clone(), self.http, shutdown.clone()),
            http::serve_metrics(runtime, self.metrics, shutdown),
        )?;
        Ok(())
    }
}

async fn bind(key: &str, address: &str) -> Result<TcpListener, Exit> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Exit::Configuration(format!("{key} `{address}` cannot be bound: {error}; choose another address or port"))
    })?;
    let address = listener.local_addr().context("a bound listener has an address")?;
    tracing::info!(key, %address, "listening");
    Ok(listener)
}
