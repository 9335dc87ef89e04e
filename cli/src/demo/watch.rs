//! What the jobmanager says, asked again and again, also while it is down.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio_util::sync::{CancellationToken, DropGuard};
use weir_proto::v1;

use super::verify::JobCounters;
use crate::{
    admin::{self, Client},
    exit::Outcome,
};

/// Time between two questions.
const INTERVAL: Duration = Duration::from_millis(500);

/// Time for one answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The newest answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Job {
    /// `None`: the jobmanager does not answer.
    pub(crate) status: Option<v1::GetStatusResponse>,
    pub(crate) taskmanagers: Vec<v1::TaskManagerInfo>,
    pub(crate) splits: Vec<v1::SplitInfo>,
}

impl Job {
    /// The job's counters, if it answers.
    pub(crate) fn counters(&self) -> Option<JobCounters> {
        let counters = self.status.as_ref()?.counters.as_ref()?;
        Some(JobCounters {
            consumed: counters.consumed,
            enriched: counters.enriched,
            passed_through: counters.passed_through,
            errors: counters.errors,
            dropped: counters.dropped,
        })
    }
}

/// Asks until dropped.
pub(crate) struct Watch {
    job: Arc<Mutex<Job>>,
    _stop: DropGuard,
}

impl Watch {
    pub(crate) fn start(address: String) -> Self {
        let (job, stop) = (Arc::new(Mutex::new(Job::default())), CancellationToken::new());
        let (shared, stopped) = (Arc::clone(&job), stop.clone());
        tokio::spawn(stopped.run_until_cancelled_owned(async move {
            loop {
                let _ = follow(&address, &shared).await;
                *shared.lock().unwrap_or_else(PoisonError::into_inner) = Job::default();
                tokio::time::sleep(INTERVAL).await;
            }
        }));
        Self { job, _stop: stop.drop_guard() }
    }

    /// The newest answers.
    pub(crate) fn job(&self) -> Job {
        self.job.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Returns when the jobmanager stops answering.
async fn follow(address: &str, shared: &Mutex<Job>) -> Outcome<()> {
    let mut client = admin::connect(address).await?;
    while let Ok(Ok(job)) = tokio::time::timeout(TIMEOUT, ask(&mut client)).await {
        *shared.lock().unwrap_or_else(PoisonError::into_inner) = job;
        tokio::time::sleep(INTERVAL).await;
    }
    Ok(())
}

async fn ask(client: &mut Client) -> Result<Job, tonic::Status> {
    let status = client.get_status(v1::GetStatusRequest {}).await?.into_inner();
    let taskmanagers = client.list_task_managers(v1::ListTaskManagersRequest {}).await?.into_inner().taskmanagers;
    let splits = client.list_splits(v1::ListSplitsRequest {}).await?.into_inner().splits;
    Ok(Job { status: Some(status), taskmanagers, splits })
}
