//! A taskmanager's stream: who it is, whether it may come, and then its messages in their order.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use weir_common::{
    failure::{FailureKind, SplitFailure},
    ids::{CheckpointId, GrantId, LeaderEpoch, TaskmanagerId},
};
use weir_proto::v1::{
    self, job_manager_message, task_manager_message::Kind, task_manager_service_server::TaskManagerService,
};

use super::{Services, convert};
use crate::{
    role::{NotLeading, Roles},
    runtime::{ConnectionId, Handle, Hello, Message, OUTGOING_CAPACITY},
};

/// A peer that opens a stream and says nothing.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest id, host or version that a taskmanager may have.
const MAX_NAME_CHARS: usize = 200;

/// A peer of another protocol version comes back after it: the jobmanager may be upgraded next.
const RETRY_OTHER_PROTOCOL_MS: u64 = 10_000;

/// A taskmanager that was referred by a standby comes back after it, if it finds no leader.
const RETRY_LEADER_MS: u64 = 500;

/// Never: only another configuration helps.
const NEVER: u64 = 0;

type Outgoing = mpsc::Sender<Result<v1::JobManagerMessage, Status>>;

/// `weir.v1.TaskManagerService`.
#[derive(Debug)]
pub(super) struct Service {
    job_name: String,
    splits_per_partition: u32,
    roles: Roles,
    connections: Arc<AtomicU64>,
}

impl Service {
    pub(super) fn new(services: &Services) -> Self {
        Self {
            job_name: services.config.stream_manager.job_name.clone(),
            splits_per_partition: services.config.job.splits_per_partition.get(),
            roles: services.roles.clone(),
            connections: Arc::default(),
        }
    }
}

#[tonic::async_trait]
impl TaskManagerService for Service {
    type AttachStream = ReceiverStream<Result<v1::JobManagerMessage, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::TaskManagerMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (outgoing, messages) = mpsc::channel(OUTGOING_CAPACITY);
        let connection = ConnectionId(self.connections.fetch_add(1, Ordering::Relaxed));
        let stream = Stream {
            job_name: self.job_name.clone(),
            splits_per_partition: self.splits_per_partition,
            roles: self.roles.clone(),
            connection,
            incoming: request.into_inner(),
            unknown: 0,
        };
        tokio::spawn(stream.serve(outgoing));
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

/// One taskmanager's stream.
struct Stream {
    job_name: String,
    splits_per_partition: u32,
    roles: Roles,
    connection: ConnectionId,
    incoming: Streaming<v1::TaskManagerMessage>,
    unknown: u64,
}

/// Why a stream ends before its taskmanager is registered.
#[derive(Debug)]
enum Refusal {
    /// Said politely.
    Politely(v1::Refused),
    /// Not even a taskmanager.
    Status(Status),
}

impl Stream {
    async fn serve(mut self, outgoing: Outgoing) {
        let register = match self.register().await {
            Ok(register) => register,
            Err(refusal) => return refuse(&self.roles, refusal, &outgoing).await,
        };
        let runtime = match self.roles.leading() {
            Ok((runtime, _)) => runtime,
            Err(not_leading) => return refuse(&self.roles, standby(not_leading), &outgoing).await,
        };
        let taskmanager = TaskmanagerId(register.taskmanager_id.clone());
        if let Err(status) = self.attach(&runtime, register, &taskmanager, outgoing.clone()).await {
            let _ = outgoing.send(Err(status)).await;
            return;
        }
        // The runtime holds a sender as long as the stream is to stay: when it drops its own, this one sees it closed.
        let weak = outgoing.downgrade();
        drop(outgoing);
        if let Err(status) = self.forward(&runtime, &taskmanager).await
            && let Some(outgoing) = weak.upgrade()
        {
            tracing::warn!(%taskmanager, %status, "closing taskmanager's stream");
            let _ = outgoing.send(Err(status)).await;
        }
        runtime.detach(taskmanager, self.connection).await;
    }

    async fn register(&mut self) -> Result<v1::Register, Refusal> {
        let first = tokio::time::timeout(REGISTER_TIMEOUT, self.incoming.message()).await;
        let message = first
            .map_err(|_| Refusal::Status(Status::deadline_exceeded("no Register within 10 s")))?
            .map_err(Refusal::Status)?;
        match message.and_then(|message| message.kind) {
            Some(Kind::Register(register)) => self.check(register),
            _ => Err(Refusal::Status(Status::invalid_argument("the first message must be Register"))),
        }
    }

    fn check(&self, register: v1::Register) -> Result<v1::Register, Refusal> {
        if let Some(message) = protocol_mismatch(register.protocol_version, register.protocol_version_min) {
            return Err(politely("PROTOCOL", message, RETRY_OTHER_PROTOCOL_MS));
        }
        if register.job_name != self.job_name {
            let message = format!(
                "this jobmanager runs job `{}`, the taskmanager is configured for `{}`: correct jobmanager.address or \
                 stream_manager.job_name",
                self.job_name,
                register.job_name.escape_default()
            );
            return Err(politely("JOB", message, NEVER));
        }
        let names = [&register.taskmanager_id, &register.host, &register.version, &register.config_digest];
        if register.taskmanager_id.is_empty() || names.iter().any(|name| name.len() > MAX_NAME_CHARS) {
            return Err(Refusal::Status(Status::invalid_argument("an empty taskmanager_id, or a name over 200 bytes")));
        }
        Ok(register)
    }

    async fn attach(
        &self,
        runtime: &Handle,
        register: v1::Register,
        id: &TaskmanagerId,
        outgoing: Outgoing,
    ) -> Result<(), Status> {
        let held = register
            .held
            .filter(|held| fits(held, self.splits_per_partition))
            .map(convert::held)
            .transpose()
            .map_err(Status::invalid_argument)?;
        let hello = Hello {
            host: register.host,
            pid: register.pid,
            version: register.version,
            config_digest: register.config_digest,
        };
        let attached = runtime.attach(id.clone(), self.connection, hello, held, outgoing).await;
        attached.map_err(|gone| Status::unavailable(gone.to_string()))
    }

    /// Forwards messages until the stream ends.
    async fn forward(&mut self, runtime: &Handle, taskmanager: &TaskmanagerId) -> Result<(), Status> {
        loop {
            let message = match self.incoming.message().await {
                Ok(Some(message)) => message,
                // The peer's end or the network's: both are the stream's end and nothing to answer.
                Ok(None) | Err(_) => return Ok(()),
            };
            let Some(kind) = message.kind else {
                self.unknown += 1;
                tracing::warn!(%taskmanager, count = self.unknown, "ignored a message of a kind that is newer than this build");
                continue;
            };
            let message = checked(kind).map_err(Status::invalid_argument)?;
            let forwarded = runtime.message(taskmanager, self.connection, message).await;
            forwarded.map_err(|gone| Status::unavailable(gone.to_string()))?;
        }
    }
}

/// What is held of another number of splits is of the job as it was: nobody can take it over, and a new grant ends it.
fn fits(held: &v1::HeldSlot, splits_per_partition: u32) -> bool {
    let fits = [0, splits_per_partition].contains(&held.splits_per_partition);
    if !fits {
        let (held, job) = (held.splits_per_partition, splits_per_partition);
        tracing::info!(held, job, "a taskmanager comes back with splits of a former job.splits_per_partition");
    }
    fits
}

fn checked(kind: Kind) -> Result<Message, String> {
    Ok(match kind {
        Kind::Register(_) => return Err("Register twice on one stream".to_owned()),
        Kind::Heartbeat(heartbeat) => Message::Heartbeat(Box::new(heartbeat.stats.unwrap_or_default())),
        Kind::SlotReady(ready) => Message::SlotReady(GrantId(ready.grant_id)),
        Kind::Report(report) => {
            let checkpoint = (report.checkpoint_id != 0).then_some(CheckpointId(report.checkpoint_id));
            Message::Report(checkpoint, convert::states(report.splits)?)
        }
        Kind::Released(released) => Message::Released(convert::states(released.splits)?),
        Kind::Draining(_) => Message::Draining,
        Kind::SlotLost(lost) => Message::SlotLost(GrantId(lost.grant_id), lost.reason),
        Kind::SplitFailed(failed) => {
            let failure = SplitFailure { kind: FailureKind::of_name(&failed.kind), message: failed.message };
            Message::SplitFailed(failed.splits.into_iter().map(convert::split_from_proto).collect(), failure)
        }
    })
}

/// Two peers understand each other when each speaks a version that the other still can.
fn protocol_mismatch(version: u32, oldest: u32) -> Option<String> {
    let (ours, our_oldest) = (weir_proto::PROTOCOL_VERSION, weir_proto::PROTOCOL_VERSION_MIN);
    if oldest <= ours && version >= our_oldest {
        return None;
    }
    let older = if oldest > ours { "jobmanager" } else { "taskmanager" };
    Some(format!(
        "the taskmanager speaks protocol versions {oldest} to {version}, this jobmanager {our_oldest} to {ours}: upgrade \
         the {older}"
    ))
}

fn politely(reason: &str, message: String, retry_after_ms: u64) -> Refusal {
    tracing::warn!(reason, message, "taskmanager refused");
    Refusal::Politely(v1::Refused { reason: reason.to_owned(), message, retry_after_ms, leader_address: String::new() })
}

/// Not worth a line each: taskmanagers that look for the leader come often.
fn standby(not_leading: NotLeading) -> Refusal {
    tracing::debug!(%not_leading, "taskmanager referred");
    Refusal::Politely(v1::Refused {
        reason: "STANDBY".to_owned(),
        message: not_leading.to_string(),
        retry_after_ms: RETRY_LEADER_MS,
        leader_address: not_leading.leader.unwrap_or_default(),
    })
}

async fn refuse(roles: &Roles, refusal: Refusal, outgoing: &Outgoing) {
    // A standby has no epoch: nobody obeys it, but looks elsewhere.
    let epoch = roles.leading().map_or(LeaderEpoch(0), |(_, epoch)| epoch);
    let _ = outgoing.send(refusal_message(epoch, refusal)).await;
}

fn refusal_message(epoch: LeaderEpoch, refusal: Refusal) -> Result<v1::JobManagerMessage, Status> {
    match refusal {
        Refusal::Politely(refused) => {
            Ok(v1::JobManagerMessage { leader_epoch: epoch.0, kind: Some(job_manager_message::Kind::Refused(refused)) })
        }
        Refusal::Status(status) => Err(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_of_another_number_of_splits_is_not_taken_over() {
        let held = |splits_per_partition| v1::HeldSlot { splits_per_partition, ..v1::HeldSlot::default() };
        // 0: an older taskmanager, which does not say.
        for (splits, taken) in [(12, true), (0, true), (5, false)] {
            assert_eq!(fits(&held(splits), 12), taken, "{splits}");
        }
    }

    #[test]
    fn versions_that_overlap_understand_each_other() {
        let ours = weir_proto::PROTOCOL_VERSION;
        for (version, oldest, understood) in
            [(ours, ours, true), (ours + 5, ours, true), (ours + 1, ours + 1, false), (0, 0, false)]
        {
            assert_eq!(protocol_mismatch(version, oldest).is_none(), understood, "{version} {oldest}");
        }
    }
}
