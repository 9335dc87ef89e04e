//! Weir's jobmanager: the coordinator, and the shell that performs its actions.

pub mod coordinator;
mod deadline;
pub mod errors;
mod exit;
pub mod http;
pub mod job;
pub mod kafka;
pub mod leadership;
pub mod metrics;
pub mod role;
pub mod rpc;
pub mod runtime;
pub mod start;
mod startup;
pub mod store;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;
use weir_common::config::Config;

pub use self::exit::Exit;
use self::{
    leadership::{Leadership, Term},
    role::{Role, Roles},
    rpc::Services,
    runtime::{Parts, Runtime},
    startup::Environment,
};

/// Time before a leadership that could not begin tries again.
const PREPARE_RETRY: Duration = Duration::from_secs(1);

/// Time for answers that are under way when the jobmanager leaves.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs a jobmanager until the job ends by an operator's word (`Ok`), or until `shutdown` (`Ok` too: the job goes on
/// without it, a successor adopts what runs). One that stands by waits for its turn, and for the next one when it has
/// lost it.
///
/// # Errors
/// Why it could not start or go on; [`Exit::code`] is the process's exit code.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Exit> {
    let config = Arc::new(config);
    let Some(environment) = shutdown.run_until_cancelled(Environment::look(&config)).await else {
        return Ok(());
    };
    let environment = environment?;
    let leadership = environment.leadership(&config)?;
    let listeners = Listeners::bind(&config).await?;
    let role = watch::Sender::new(Role::Standby);
    let services = Services {
        config: Arc::clone(&config),
        roles: Roles::new(role.subscribe(), leadership.leader(), leadership.stands_by()),
        snapshots: environment.snapshots.clone(),
    };
    let stop_serving = CancellationToken::new();
    let mut servers = tokio::spawn(listeners.serve(services, stop_serving.clone()));
    let jobmanager = Jobmanager { config, environment, leadership, role, shutdown };
    let end = tokio::select! {
        end = jobmanager.lead_again_and_again() => end,
        served = &mut servers => return Err(served.map_err(anyhow::Error::from).and_then(|served| served).map_or_else(
            Exit::Failed,
            |()| Exit::Failed(anyhow::anyhow!("the servers ended by themselves")),
        )),
    };
    stop_serving.cancel();
    if tokio::time::timeout(LEAVE_TIMEOUT, servers).await.is_err() {
        tracing::info!("left with connections still open");
    }
    // What this one held must not keep a successor waiting.
    jobmanager.leadership.release().await;
    end
}

/// What a process keeps over its leaderships.
struct Jobmanager {
    config: Arc<Config>,
    environment: Environment,
    leadership: Box<dyn Leadership>,
    role: watch::Sender<Role>,
    shutdown: CancellationToken,
}

/// How a leadership ended.
enum Ended {
    /// The process leaves.
    Left(Result<(), Exit>),
    /// Another one may lead.
    Lost(String),
}

impl Jobmanager {
    async fn lead_again_and_again(&self) -> Result<(), Exit> {
        loop {
            if self.leadership.stands_by() {
                tracing::info!("standing by");
            }
            let Some(term) = self.shutdown.run_until_cancelled(self.leadership.lead()).await else { return Ok(()) };
            let ended = self.lead(term?).await;
            self.role.send_replace(Role::Standby);
            match ended {
                Ended::Left(end) => return end,
                Ended::Lost(reason) if self.leadership.stands_by() => {
                    tracing::warn!(reason, "leads no more; what it had begun counts for nothing from now on");
                }
                Ended::Lost(reason) => return Err(Exit::Refused(reason)),
            }
        }
    }

    /// One leadership. Dropping the job closes its taskmanagers' streams: they look for who leads and go on meanwhile.
    async fn lead(&self, term: Arc<dyn Term>) -> Ended {
        tokio::select! {
            reason = term.lost() => Ended::Lost(reason),
            end = self.run_job(Arc::clone(&term)) => match end {
                // A leadership that ended on the way makes its own last step fail.
                Err(_) if !term.leads() && self.leadership.stands_by() => Ended::Lost(term.lost().await),
                end => Ended::Left(end),
            },
        }
    }

    /// A jobmanager that stood by has been started well: what does not answer now is waited for, as long as it leads. The
    /// first one of a job that has no standby tells at once.
    async fn prepare(&self, term: Arc<dyn Term>) -> Result<Parts, Exit> {
        loop {
            match startup::prepare(&self.config, &self.environment, Arc::clone(&term)).await {
                Err(exit @ (Exit::Unreachable(_) | Exit::Failed(_))) if self.leadership.stands_by() && term.leads() => {
                    tracing::warn!("leading, but the job cannot be taken up yet: {exit}");
                    tokio::time::sleep(PREPARE_RETRY).await;
                }
                result => return result,
            }
        }
    }

    async fn run_job(&self, term: Arc<dyn Term>) -> Result<(), Exit> {
        let Some(parts) = self.shutdown.run_until_cancelled(self.prepare(term)).await else { return Ok(()) };
        let parts = parts?;
        let epoch = parts.plan.leader_epoch;
        let (runtime, handle) = Runtime::new(parts);
        self.role.send_replace(Role::Leading { runtime: handle, epoch });
        runtime.run(self.shutdown.clone()).await
    }
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
        let roles = services.roles.clone();
        tokio::try_join!(
            rpc::serve(services, self.rpc, shutdown.clone()),
            http::serve(roles.clone(), self.http, shutdown.clone()),
            http::serve_metrics(roles, self.metrics, shutdown),
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
