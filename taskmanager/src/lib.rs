//! Weir's taskmanager: reads its splits, enriches over HTTP, writes back in transactions.
//!
//! ```text
//! jobmanager <-> session -- assign, revoke, barrier --> sink (thread: producer, transactions, progress)
//!                   \-- splits --> source (a thread a partition) --> pipeline (enrichment) --^
//! ```

pub mod budget;
mod clock;
pub mod engine;
pub mod enrich;
mod host;
pub mod job;
mod metrics;
mod pipeline;
pub mod record;
mod session;
mod sink;
mod source;

use std::{process::ExitCode, sync::Arc};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use weir_common::config::Config;

use crate::{budget::Budget, enrich::Enricher, job::EnricherFactory, metrics::Metrics, session::Taskmanager};

/// How a taskmanager ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// After SIGTERM, or because the job has ended: everything was committed and released.
    Drained,
    /// `taskmanager.drain_timeout` was over first; what was not committed is done again by others.
    DrainTimedOut,
    /// The jobmanager does not want this taskmanager, and never will.
    Refused(String),
}

impl Exit {
    /// 0, 1 and 3.
    #[must_use]
    pub fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Drained => 0,
            Self::DrainTimedOut => 1,
            Self::Refused(_) => 3,
        })
    }
}

/// Runs the job that the jobmanager hands out, with the enricher of this build, until `shutdown` has drained it.
///
/// # Errors
/// `taskmanager.metrics_bind` cannot be bound.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<Exit> {
    let factory: EnricherFactory = Arc::new(|config, job| {
        Box::pin(async move {
            let enricher = enrich::enricher_for(&config, &job.message).await?;
            Ok(Arc::new(enricher) as Arc<dyn Enricher>)
        })
    });
    run_with(config, factory, shutdown).await
}

/// [`run`] with another enricher.
///
/// # Errors
/// As there.
pub async fn run_with(config: Config, factory: EnricherFactory, shutdown: CancellationToken) -> anyhow::Result<Exit> {
    let metrics = Metrics::new();
    let bind = &config.taskmanager.metrics_bind;
    let listener = TcpListener::bind(bind).await.with_context(|| format!("`taskmanager.metrics_bind: {bind}`"))?;
    info!(address = %listener.local_addr()?, "metrics and health");
    let served = CancellationToken::new();
    let _stop_serving = served.clone().drop_guard();
    tokio::spawn({
        let metrics = metrics.clone();
        async move {
            if let Err(error) = metrics::serve(listener, metrics, served).await {
                warn!(%error, "metrics are not served any more");
            }
        }
    });
    let bytes = config.taskmanager.memory_budget.unwrap_or_else(budget::default_budget);
    let budget = Budget::new(bytes, config.taskmanager.max_in_flight);
    info!(budget = %bytes, max_in_flight = config.taskmanager.max_in_flight, "memory");
    Ok(Taskmanager::new(Arc::new(config), factory, metrics, budget).run(shutdown).await)
}
