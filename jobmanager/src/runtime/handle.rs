//! What others hold of the runtime: hides the channel.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use weir_common::{
    failure::SplitFailure,
    ids::{CheckpointId, GrantId, SlotId, TaskmanagerId},
    split::{SplitId, TopicPartition},
};
use weir_proto::v1;

use super::{
    Command,
    backend::{Backend, SinkEnd},
    view::View,
};
use crate::coordinator::{
    action::Reply,
    event::{Allowed, HeldSlot, SplitStates},
};

/// Messages that wait for a taskmanager's stream. One that does not take so many is as good as gone.
pub const OUTGOING_CAPACITY: usize = 256;

/// Queue to a taskmanager's stream.
pub type Outgoing = mpsc::Sender<Result<v1::JobManagerMessage, tonic::Status>>;

/// Names one stream of a taskmanager: what an older one still says is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionId(pub u64);

/// What a taskmanager says about itself.
#[derive(Clone, Debug)]
pub struct Hello {
    /// Its host.
    pub host: String,
    /// Its process.
    pub pid: u32,
    /// Its Weir version.
    pub version: String,
    /// SHA-256 of its effective configuration.
    pub config_digest: String,
}

/// A taskmanager that registers.
#[derive(Debug)]
pub(super) struct Attach {
    pub(super) hello: Hello,
    pub(super) held: Option<HeldSlot>,
    pub(super) outgoing: Outgoing,
}

/// What a registered taskmanager says, checked.
#[derive(Clone, Debug)]
pub enum Message {
    /// It lives.
    Heartbeat(Box<v1::TaskManagerStats>),
    /// Its producer is initialised.
    SlotReady(GrantId),
    /// What is committed.
    Report(Option<CheckpointId>, SplitStates),
    /// What it gave back.
    Released(SplitStates),
    /// SIGTERM.
    Draining,
    /// Slot and splits are gone.
    SlotLost(GrantId, String),
    /// Splits that it cannot read.
    SplitFailed(Vec<SplitId>, SplitFailure),
}

/// What an operator wants that takes time.
#[derive(Clone, Debug)]
pub enum AdminRequest {
    /// A savepoint; with `stop`, the end of the job.
    Savepoint {
        /// A name for it, may be empty.
        label: String,
        /// End the job with it.
        stop: bool,
        /// As one plain offset a partition.
        offset_cut: bool,
    },
    /// A savepoint from plain offsets.
    Import {
        /// A name for it, may be empty.
        label: String,
        /// Where they are.
        from: ImportFrom,
    },
    /// Back to a savepoint.
    Restore {
        /// The savepoint's splits.
        splits: SplitStates,
        /// Although output beyond it exists.
        allow_replay: bool,
    },
    /// Rest until resumed.
    Suspend {
        /// At one plain offset a partition.
        offset_cut: bool,
    },
    /// Go on.
    Resume,
    /// To other offsets.
    Reset {
        /// Where to.
        to: ResetTo,
        /// Only this topic.
        topic: Option<String>,
        /// Only these partitions; empty: all.
        partitions: Vec<i32>,
        /// What may come of it.
        allowed: Allowed,
    },
    /// Fence a slot.
    AbortTransaction {
        /// Which.
        slot: SlotId,
    },
}

/// Where a reset leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResetTo {
    /// The oldest record that is there.
    Earliest,
    /// What comes from now on.
    Latest,
    /// The first record that is not older.
    Timestamp(Timestamp),
    /// These partitions to these offsets.
    Offsets(BTreeMap<TopicPartition, i64>),
}

/// Where offsets for a savepoint are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportFrom {
    /// Here.
    Offsets(BTreeMap<TopicPartition, i64>),
    /// This consumer group of the source cluster has committed them.
    Group(String),
}

/// The runtime has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the jobmanager is leaving")]
pub struct Gone;

/// Talks to the runtime. Cheap to clone. All calls wait while the runtime's queue is full.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    backend: Arc<dyn Backend>,
}

impl Handle {
    pub(super) fn new(commands: mpsc::Sender<Command>, backend: Arc<dyn Backend>) -> Self {
        Self { commands, backend }
    }

    /// Kafka, for what an operator asks and the running job has no part in.
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    pub(super) async fn send(&self, command: Command) -> Result<(), Gone> {
        self.commands.send(command).await.map_err(|_| Gone)
    }

    /// A taskmanager's stream is open. What the runtime has to say goes to `outgoing`; its end is the stream's.
    ///
    /// # Errors
    /// The runtime has ended.
    pub async fn attach(
        &self,
        taskmanager: TaskmanagerId,
        connection: ConnectionId,
        hello: Hello,
        held: Option<HeldSlot>,
        outgoing: Outgoing,
    ) -> Result<(), Gone> {
        let attach = Box::new(Attach { hello, held, outgoing });
        self.send(Command::Attach { taskmanager, connection, attach }).await
    }

    /// A registered taskmanager said something.
    ///
    /// # Errors
    /// The runtime has ended.
    pub async fn message(
        &self,
        taskmanager: &TaskmanagerId,
        connection: ConnectionId,
        message: Message,
    ) -> Result<(), Gone> {
        self.send(Command::Message { taskmanager: taskmanager.clone(), connection, message }).await
    }

    /// The stream ended.
    pub async fn detach(&self, taskmanager: TaskmanagerId, connection: ConnectionId) {
        let _ = self.send(Command::Detach { taskmanager, connection }).await;
    }

    /// Asks for what takes time. Dropping the future does not take it back.
    ///
    /// # Errors
    /// The runtime has ended.
    pub async fn admin(&self, request: AdminRequest) -> Result<Reply, Gone> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Admin { request, reply }).await?;
        answer.await.map_err(|_| Gone)
    }

    /// How far each partition that the sink writes to is stable, or why that is not known.
    ///
    /// # Errors
    /// The runtime has ended.
    pub async fn sink_ends(&self) -> Result<Result<Vec<SinkEnd>, String>, Gone> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::SinkEnds { reply }).await?;
        answer.await.map_err(|_| Gone)
    }

    /// Commits offsets to a consumer group on the source cluster, or says why not.
    ///
    /// # Errors
    /// The runtime has ended.
    pub async fn commit_group(
        &self,
        group: String,
        offsets: BTreeMap<TopicPartition, i64>,
    ) -> Result<Result<(), String>, Gone> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::CommitGroup { group, offsets, reply }).await?;
        answer.await.map_err(|_| Gone)
    }

    /// Looks for new partitions now, not only when the interval is over.
    ///
    /// # Errors
    /// The runtime has ended.
    pub async fn look_for_partitions(&self) -> Result<(), Gone> {
        self.send(Command::LookForPartitions).await
    }

    /// How things stand.
    ///
    /// # Errors
    /// The runtime has ended.
    pub async fn view(&self) -> Result<View, Gone> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Query { reply }).await?;
        answer.await.map_err(|_| Gone)
    }
}

/// Lag of each split as a taskmanager's reader saw it.
pub(super) fn log_ends(stats: &v1::TaskManagerStats) -> impl Iterator<Item = (SplitId, i64)> {
    stats.lags.iter().filter_map(|lag| {
        let split = lag.split.as_ref()?;
        let id = SplitId { topic: split.topic.as_str().into(), partition: split.partition, index: split.index };
        Some((id, lag.log_end_offset))
    })
}
