//! A lease object in storage, by conditional writes: the shell around [`Candidate`].
//!
//! One task owns the candidate and speaks with storage, one call at a time. A call without an answer in a third of the
//! lease's time counts as unclear: the candidate looks before it writes again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use weir_common::ids::LeaderEpoch;

use super::{
    Leadership, Term,
    lease::{Action, Candidate, Event, Lease, Settings},
};
use crate::{
    Exit,
    deadline::sleep_until,
    store::{Put, Storage, StoreError, Version, keys},
};

/// Requests that wait for the task.
const REQUESTS: usize = 16;

/// How long a leave may wait for storage.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);

/// Time before storage that did not answer is asked again whether it heeds conditions.
const VERIFY_RETRY: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub struct StorageLeadership {
    requests: mpsc::Sender<Event<Version>>,
    standing: watch::Receiver<Standing>,
    leader: watch::Receiver<Option<String>>,
    born: Instant,
    ttl: Duration,
    _stop: DropGuard,
}

/// What others see of the candidate.
#[derive(Clone, Debug, Default)]
struct Standing {
    held: Option<Held>,
    /// Leaderships of this process that have ended.
    lost: u64,
    reason: String,
    released: bool,
    /// It never will lead.
    refused: Option<String>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    epoch: LeaderEpoch,
    sent: Duration,
    until: Duration,
}

impl StorageLeadership {
    /// Begins to stand by for `job` as `settings.holder`.
    #[must_use]
    pub fn new(storage: Arc<dyn Storage>, job: &str, settings: Settings) -> Self {
        let (requests, received) = mpsc::channel(REQUESTS);
        let (standing, seen_standing) = watch::channel(Standing::default());
        let (leader, seen_leader) = watch::channel(None);
        let (born, ttl, stop) = (Instant::now(), settings.ttl, CancellationToken::new());
        let probe = keys::lease_probe(job, &settings.holder);
        let driver = Driver {
            key: keys::lease(job),
            io_timeout: ttl / 3,
            candidate: Candidate::new(settings),
            storage,
            standing,
            leader,
            born,
            trouble: false,
        };
        let stopped = stop.clone();
        tokio::spawn(async move { stopped.run_until_cancelled_owned(driver.run(probe, received)).await });
        Self { requests, standing: seen_standing, leader: seen_leader, born, ttl, _stop: stop.drop_guard() }
    }
}

#[async_trait]
impl Leadership for StorageLeadership {
    async fn lead(&self) -> Result<Arc<dyn Term>, Exit> {
        let mut standing = self.standing.clone();
        let now = || self.born.elapsed();
        let found = standing
            .wait_for(|standing| standing.refused.is_some() || standing.held.is_some_and(|held| now() < held.until));
        let (lost, held, refused) = match found.await {
            Ok(standing) => (standing.lost, standing.held, standing.refused.clone()),
            Err(_) => return Err(Exit::Failed(anyhow::anyhow!("the lease's task has ended"))),
        };
        match (held, refused) {
            (Some(Held { epoch, .. }), None) => Ok(Arc::new(StorageTerm {
                epoch,
                number: lost,
                standing,
                requests: self.requests.clone(),
                born: self.born,
                ttl: self.ttl,
            })),
            (_, refused) => Err(Exit::Configuration(refused.unwrap_or_default())),
        }
    }

    fn stands_by(&self) -> bool {
        true
    }

    fn leader(&self) -> watch::Receiver<Option<String>> {
        self.leader.clone()
    }

    async fn release(&self) {
        let mut standing = self.standing.clone();
        let released = async {
            if self.requests.send(Event::Release).await.is_ok() {
                let _ = standing.wait_for(|standing| standing.released).await;
            }
        };
        if tokio::time::timeout(RELEASE_TIMEOUT, released).await.is_err() {
            tracing::warn!("the lease could not be released in time: a standby waits until its time is over");
        }
    }
}

/// While it holds the lease.
#[derive(Debug)]
struct StorageTerm {
    epoch: LeaderEpoch,
    /// It is this one as long as so many have ended before it.
    number: u64,
    standing: watch::Receiver<Standing>,
    requests: mpsc::Sender<Event<Version>>,
    born: Instant,
    ttl: Duration,
}

impl StorageTerm {
    fn held(&self) -> Option<Held> {
        let standing = self.standing.borrow();
        standing.held.filter(|held| standing.lost == self.number && self.born.elapsed() < held.until)
    }
}

#[async_trait]
impl Term for StorageTerm {
    fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    fn leads(&self) -> bool {
        self.held().is_some()
    }

    async fn lost(&self) -> String {
        let mut standing = self.standing.clone();
        match standing.wait_for(|standing| standing.lost != self.number).await {
            Ok(standing) => standing.reason.clone(),
            Err(_) => "the lease's task has ended".to_owned(),
        }
    }

    async fn confirm(&self, at_least: LeaderEpoch) -> Result<(), String> {
        let asked = self.born.elapsed();
        let mut standing = self.standing.clone();
        let confirmed = async {
            self.requests
                .send(Event::Confirm { at_least })
                .await
                .map_err(|_| "the lease's task has ended".to_owned())?;
            let done = |standing: &Standing| {
                standing.lost != self.number
                    || standing.held.is_some_and(|held| held.sent >= asked && held.epoch >= at_least)
            };
            let standing = standing.wait_for(done).await.map_err(|_| "the lease's task has ended".to_owned())?;
            if standing.lost == self.number { Ok(()) } else { Err(standing.reason.clone()) }
        };
        let timeout = tokio::time::timeout(self.ttl, confirmed).await;
        timeout.unwrap_or_else(|_| Err(format!("storage did not confirm the lease within {:?}", self.ttl)))
    }
}

/// The task.
struct Driver {
    key: String,
    io_timeout: Duration,
    candidate: Candidate<Version>,
    storage: Arc<dyn Storage>,
    standing: watch::Sender<Standing>,
    leader: watch::Sender<Option<String>>,
    born: Instant,
    /// Storage did not answer, and that was said.
    trouble: bool,
}

impl Driver {
    async fn run(mut self, probe: String, mut requests: mpsc::Receiver<Event<Version>>) {
        if let Err(refused) = self.verify(&probe).await {
            self.standing.send_modify(|standing| standing.refused = Some(refused));
            return;
        }
        let (answers, mut answered) = mpsc::channel(1);
        let mut event = Event::Deadline;
        loop {
            let now = self.born.elapsed();
            for action in self.candidate.handle(event, now) {
                self.perform(action, &answers);
            }
            let observed = self.candidate.observed().map(|lease| lease.address.clone());
            self.leader.send_if_modified(|leader| std::mem::replace(leader, observed.clone()) != observed);
            let deadline = self.candidate.next_deadline().map(|deadline| self.born + deadline);
            event = tokio::select! {
                Some(answer) = answered.recv() => self.heard(answer),
                Some(request) = requests.recv() => request,
                () = sleep_until(deadline) => Event::Deadline,
                else => return,
            };
        }
    }

    fn perform(&self, action: Action<Version>, answers: &mpsc::Sender<Event<Version>>) {
        match action {
            Action::Read => {
                let (storage, key) = (Arc::clone(&self.storage), self.key.clone());
                self.ask(answers, async move { read(&*storage, &key).await }, Event::ReadFailed);
            }
            Action::Write { lease, over } => {
                let (storage, key) = (Arc::clone(&self.storage), self.key.clone());
                self.ask(answers, async move { write(&*storage, &key, &lease, over).await }, Event::WriteUnclear);
            }
            Action::Held { epoch, sent, until } => {
                self.standing.send_modify(|standing| standing.held = Some(Held { epoch, sent, until }));
            }
            Action::Lost { reason } => self.standing.send_modify(|standing| {
                standing.held = None;
                standing.lost += 1;
                standing.reason = reason;
            }),
            Action::Released => self.standing.send_modify(|standing| {
                standing.held = None;
                standing.released = true;
            }),
        }
    }

    /// Calls storage, for a bounded time.
    fn ask(
        &self,
        answers: &mpsc::Sender<Event<Version>>,
        call: impl Future<Output = Event<Version>> + Send + 'static,
        unanswered: fn(String) -> Event<Version>,
    ) {
        let (answers, timeout) = (answers.clone(), self.io_timeout);
        tokio::spawn(async move {
            let answer = tokio::time::timeout(timeout, call).await;
            let _ = answers.send(answer.unwrap_or_else(|_| unanswered(format!("no answer within {timeout:?}")))).await;
        });
    }

    /// Says once when storage does not answer, and once when it does again.
    fn heard(&mut self, answer: Event<Version>) -> Event<Version> {
        match &answer {
            Event::ReadFailed(what) | Event::WriteUnclear(what) if !self.trouble => {
                self.trouble = true;
                tracing::warn!(lease = self.storage.location(&self.key), "the lease cannot be kept: {what}");
            }
            Event::Read(_) | Event::Written(_) if self.trouble => {
                self.trouble = false;
                tracing::info!(lease = self.storage.location(&self.key), "storage answers again");
            }
            _ => {}
        }
        answer
    }

    /// Whether storage heeds conditions: one that does not would let two lead.
    async fn verify(&mut self, probe: &str) -> Result<(), String> {
        loop {
            match tokio::time::timeout(self.io_timeout * 3, heeds_conditions(&*self.storage, probe)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(StoreError::Unreachable(what))) => drop(self.heard(Event::ReadFailed(what))),
                Ok(Err(error)) => return Err(error.to_string()),
                Err(_) => drop(self.heard(Event::ReadFailed("no answer".to_owned()))),
            }
            tokio::time::sleep(VERIFY_RETRY).await;
        }
    }
}

async fn read(storage: &dyn Storage, key: &str) -> Event<Version> {
    match storage.get(key).await {
        Ok((content, version)) => match serde_json::from_slice::<Lease>(&content) {
            Ok(lease) => Event::Read(Some((lease, version))),
            Err(error) => {
                let location = storage.location(key);
                Event::ReadFailed(format!("{location} is no lease ({error}): delete it if nobody leads"))
            }
        },
        Err(StoreError::NotFound(_)) => Event::Read(None),
        Err(error) => Event::ReadFailed(error.to_string()),
    }
}

async fn write(storage: &dyn Storage, key: &str, lease: &Lease, over: Option<Version>) -> Event<Version> {
    let content = serde_json::to_vec(lease).expect("strings and numbers have a JSON form");
    match storage.put(key, Bytes::from(content), over.map_or(Put::New, Put::Over)).await {
        Ok(version) => Event::Written(version),
        Err(StoreError::Exists(_) | StoreError::Changed(_)) => Event::ConditionFailed,
        Err(error) => Event::WriteUnclear(error.to_string()),
    }
}

/// Tries both conditions on an object of its own.
async fn heeds_conditions(storage: &dyn Storage, key: &str) -> Result<(), StoreError> {
    let content = Bytes::from_static(b"a jobmanager tries whether conditions are heeded; delete this object");
    match storage.put(key, content.clone(), Put::New).await {
        Ok(_) | Err(StoreError::Exists(_)) => {}
        Err(error) => return Err(error),
    }
    let other = Version { e_tag: Some("\"00000000000000000000000000000000\"".to_owned()), version: None };
    for (condition, put) in [("If-None-Match: *", Put::New), ("If-Match", Put::Over(other))] {
        match storage.put(key, content.clone(), put).await {
            Err(StoreError::Exists(_) | StoreError::Changed(_) | StoreError::NotFound(_)) => {}
            Err(error) => return Err(error),
            Ok(_) => {
                let _ = storage.delete(key).await;
                return Err(StoreError::Configuration(format!(
                    "storage at {} does not heed `{condition}`, so that two jobmanagers could lead: use storage with \
                     conditional writes, or high_availability.type: none and one jobmanager",
                    storage.address()
                )));
            }
        }
    }
    storage.delete(key).await
}

#[cfg(test)]
#[path = "storage_tests.rs"]
mod tests;
