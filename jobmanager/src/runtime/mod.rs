//! Drives the coordinator: one task owns it, takes commands in, performs what comes out.
//!
//! The loop never waits for anything but its commands and deadlines. What takes time is spawned and comes back as a
//! command; what goes to a taskmanager goes into a bounded queue, and one that does not empty its queue is disconnected.

mod actions;
pub mod backend;
mod background;
mod handle;
mod offsets;
mod record;
mod streams;
mod topics;
pub mod view;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use weir_common::{
    config::Config,
    ids::{CheckpointId, LeaderEpoch, TaskmanagerId},
    split::{SplitId, TopicPartition},
    streams::ResolvedStreams,
};
use weir_proto::v1;

pub use self::handle::{
    AdminRequest, ConnectionId, Gone, Handle, Hello, ImportFrom, Message, OUTGOING_CAPACITY, Outgoing, ResetTo,
};
use self::{
    backend::Backend,
    record::{Recorder, Then},
    topics::Topics,
    view::View,
};
use crate::{
    Exit,
    coordinator::{
        Coordinator, Settings,
        action::Reply,
        event::{AfterCut, Allowed, Event, Grants, RequestId, SplitStates},
    },
    deadline::sleep_until,
    kafka::ProgressIndex,
    leadership::Term,
    start::{Plan, topics::TopicIds},
    store::{Snapshots, keys::SnapshotId},
};

/// Commands that wait for the loop. A command is handled in microseconds; senders wait when it is full.
const COMMAND_CAPACITY: usize = 1024;

/// Time before a failed fence, read or write is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Time between two mirrors of the lag.
const MIRROR_INTERVAL: Duration = Duration::from_secs(5);

/// What a runtime is made from.
#[derive(Debug)]
pub struct Parts {
    /// The effective configuration.
    pub config: Arc<Config>,
    /// SHA-256 of it; taskmanagers tell theirs.
    pub config_digest: String,
    /// What is told to taskmanagers.
    pub job: v1::JobSpec,
    /// What it was resolved from.
    pub streams: ResolvedStreams,
    /// Kafka.
    pub backend: Arc<dyn Backend>,
    /// Storage.
    pub snapshots: Snapshots,
    /// Where each split's progress is kept.
    pub index: ProgressIndex,
    /// How the job starts.
    pub plan: Plan,
    /// The newest snapshot before this leadership.
    pub newest_snapshot: Option<SnapshotId>,
    /// Why storage was not asked at the start.
    pub storage_trouble: Option<String>,
    /// The leadership that it runs in.
    pub term: Arc<dyn Term>,
}

/// What the loop and its spawned tasks share.
#[derive(Debug)]
struct Shared {
    config: Arc<Config>,
    exactly_once: bool,
    backend: Arc<dyn Backend>,
    snapshots: Snapshots,
    config_digest: String,
    leader_epoch: LeaderEpoch,
    term: Arc<dyn Term>,
    index: Mutex<ProgressIndex>,
    commands: mpsc::Sender<Command>,
    tasks: TaskTracker,
    /// Partitions are to be looked for now.
    discovery: Notify,
}

impl Shared {
    /// Whether it is the topic of inputs that an operator sent through again.
    fn is_replay(&self, topic: &str) -> bool {
        weir_common::kafka::is_replay_topic(&self.config.stream_manager.job_name, topic)
    }

    fn index(&self) -> MutexGuard<'_, ProgressIndex> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the splits' progress is kept; nowhere, at-least-once.
    fn places<'a>(&self, splits: impl IntoIterator<Item = &'a SplitId>) -> BTreeMap<SplitId, i32> {
        let index = self.index();
        splits.into_iter().filter_map(|split| Some((split.clone(), index.get(split)?))).collect()
    }

    /// Runs something slow whose result the loop wants.
    fn spawn(self: &Arc<Self>, task: impl Future<Output = Command> + Send + 'static) {
        let commands = self.commands.clone();
        self.tasks.spawn(async move {
            let command = task.await;
            // The loop is gone only when everything is being left.
            let _ = commands.send(command).await;
        });
    }
}

/// What the loop takes in.
#[derive(Debug)]
enum Command {
    /// A taskmanager registered.
    Attach { taskmanager: TaskmanagerId, connection: ConnectionId, attach: Box<handle::Attach> },
    /// What it said since.
    Message { taskmanager: TaskmanagerId, connection: ConnectionId, message: handle::Message },
    /// Its stream ended.
    Detach { taskmanager: TaskmanagerId, connection: ConnectionId },
    /// An operator wants something that takes time.
    Admin { request: AdminRequest, reply: oneshot::Sender<Reply> },
    /// Somebody wants to see how far the sink is stable.
    SinkEnds { reply: oneshot::Sender<Result<Vec<backend::SinkEnd>, String>> },
    /// Somebody wants offsets committed to a group of theirs.
    CommitGroup { group: String, offsets: BTreeMap<TopicPartition, i64>, reply: oneshot::Sender<Result<(), String>> },
    /// Somebody wants to see.
    Query { reply: oneshot::Sender<View> },
    /// Something spawned has ended.
    Done { event: Event, trouble: Trouble },
    /// The job record is written, or not.
    Recorded { result: Result<Grants, String> },
    /// A failed record is to be written again.
    RecordAgain,
    /// The record is written again, and the progress of a job that rests, so that Kafka does not forget them.
    RenewRecord,
    /// Log end offsets were read.
    LogEnds { ends: BTreeMap<TopicPartition, i64> },
    /// New partitions were prepared.
    Discovered { splits: SplitStates },
    /// New partitions are to be looked for now.
    LookForPartitions,
    /// The source's topics are to be looked at.
    LookAtTopics,
    /// Their ids were read, or not.
    TopicsSeen { ids: Result<TopicIds, String> },
    /// Where a reset leads is known, or why not.
    ResetFound { request: RequestId, offsets: Result<BTreeMap<SplitId, i64>, String>, allowed: Allowed },
    /// Offsets for a savepoint are there and in the log, or what is wrong with them.
    ImportFound { request: RequestId, label: String, offsets: Result<BTreeMap<TopicPartition, i64>, String> },
    /// Something is wrong, or is right again.
    Noted { trouble: Trouble },
    /// The jobmanager cannot go on.
    Fatal { exit: Exit },
}

/// One part's trouble: `None` is none.
#[derive(Clone, Debug)]
struct Trouble {
    part: &'static str,
    what: Option<String>,
}

impl Trouble {
    fn of<T, E: std::fmt::Display>(part: &'static str, result: &Result<T, E>) -> Self {
        Self { part, what: result.as_ref().err().map(ToString::to_string) }
    }

    fn none(part: &'static str) -> Self {
        Self { part, what: None }
    }
}

/// A taskmanager's open stream.
#[derive(Debug)]
struct Peer {
    connection: ConnectionId,
    hello: Hello,
    outgoing: Outgoing,
    stats: v1::TaskManagerStats,
}

/// The loop's state.
#[derive(Debug)]
pub struct Runtime {
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    coordinator: Coordinator,
    born: Instant,
    born_at: Timestamp,
    job: v1::JobSpec,
    streams: ResolvedStreams,
    peers: BTreeMap<TaskmanagerId, Peer>,
    recorder: Recorder,
    replies: BTreeMap<RequestId, oneshot::Sender<Reply>>,
    requests: u64,
    log_ends: BTreeMap<TopicPartition, i64>,
    newest_snapshot: Option<SnapshotId>,
    troubles: BTreeMap<&'static str, (Timestamp, String)>,
    findings: Vec<String>,
    topics: Topics,
    end: Option<Result<(), Exit>>,
}

impl Runtime {
    /// A runtime that has not begun, and the handle to it.
    #[must_use]
    pub fn new(parts: Parts) -> (Self, Handle) {
        let Parts {
            config,
            config_digest,
            job,
            streams,
            backend,
            snapshots,
            index,
            plan,
            newest_snapshot,
            storage_trouble,
            term,
        } = parts;
        let (sender, commands) = mpsc::channel(COMMAND_CAPACITY);
        let exactly_once = job.delivery_guarantee == crate::job::EXACTLY_ONCE;
        let settings = settings(&config, &plan, exactly_once);
        let splits_per_partition = config.job.splits_per_partition;
        let shared = Arc::new(Shared {
            config_digest,
            config,
            exactly_once,
            backend,
            snapshots,
            leader_epoch: plan.leader_epoch,
            term,
            index: Mutex::new(index),
            commands: sender,
            tasks: TaskTracker::new(),
            discovery: Notify::new(),
        });
        let loud = |finding: &&crate::start::Finding| finding.severity == crate::start::Severity::Warning;
        let mut runtime = Self {
            shared,
            commands,
            recorder: Recorder::new(
                plan.leader_epoch,
                splits_per_partition,
                plan.orphaned_slots.clone(),
                plan.rewound,
                plan.suspended,
                plan.topics.clone(),
            ),
            coordinator: Coordinator::new(settings),
            born: Instant::now(),
            born_at: Timestamp::now(),
            job,
            streams,
            peers: BTreeMap::new(),
            replies: BTreeMap::new(),
            requests: 0,
            log_ends: BTreeMap::new(),
            newest_snapshot,
            troubles: BTreeMap::new(),
            topics: Topics::new(plan.topics),
            findings: plan.findings.iter().filter(loud).map(|finding| finding.text.clone()).collect(),
            end: None,
        };
        runtime.note(Trouble { part: "storage", what: storage_trouble });
        runtime.apply(Event::SplitsDiscovered { splits: plan.splits });
        for (topic, message) in plan.recreated {
            runtime.apply(Event::TopicRecreated { topic, message });
        }
        let handle = runtime.handle();
        (runtime, handle)
    }

    /// Runs until the job ends (`Ok`), `shutdown` (`Ok`), or it cannot go on. Tasks that are still running are left to
    /// their own time-outs.
    ///
    /// # Errors
    /// Why it cannot go on.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), Exit> {
        let stop_background = CancellationToken::new();
        let _stop_background = stop_background.clone().drop_guard();
        background::start(&self.shared, self.streams.clone(), self.handle(), &stop_background);
        self.look_at_topics();
        loop {
            if let Some(end) = self.end.take() {
                return self.leave(end).await;
            }
            let deadline = self.coordinator.next_deadline().map(|deadline| self.born + deadline);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                command = self.commands.recv() => match command {
                    Some(command) => self.take(command),
                    None => return Ok(()),
                },
                () = sleep_until(deadline) => self.apply(Event::DeadlineReached),
            }
        }
    }

    /// The job has ended: the record forgets its slots, which nobody holds any more.
    async fn leave(mut self, end: Result<(), Exit>) -> Result<(), Exit> {
        if end.is_ok() && self.shared.exactly_once {
            self.recorder.rest(false);
            let written = self.shared.backend.write_record(self.recorder.record(Grants::new())).await;
            if let Err(error) = written {
                tracing::warn!(%error, "the job record still names slots; the next start will fence them");
            }
        }
        if end.is_ok() {
            // Whoever goes on from the group's offsets finds the end, not what it was some seconds before.
            if let Err(error) = self.shared.backend.mirror(self.coordinator.cursors()).await {
                tracing::warn!(%error, "the last offsets are not in the consumer group");
            }
        }
        end
    }

    fn handle(&self) -> Handle {
        Handle::new(self.shared.commands.clone(), Arc::clone(&self.shared.backend))
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Attach { taskmanager, connection, attach } => self.attach(taskmanager, connection, *attach),
            Command::Message { taskmanager, connection, message } => {
                if self.peers.get(&taskmanager).is_some_and(|peer| peer.connection == connection) {
                    self.message(taskmanager, message);
                }
            }
            Command::Detach { taskmanager, connection } => {
                if self.peers.get(&taskmanager).is_some_and(|peer| peer.connection == connection) {
                    self.peers.remove(&taskmanager);
                    tracing::info!(%taskmanager, "taskmanager's stream ended");
                    self.apply(Event::Disconnected { taskmanager });
                }
            }
            Command::Admin { request, reply } => self.admin(request, reply),
            Command::SinkEnds { reply } => self.find_sink_ends(reply),
            Command::CommitGroup { group, offsets, reply } => self.commit_group(group, offsets, reply),
            Command::Query { reply } => {
                let _ = reply.send(self.view());
            }
            Command::Done { event, trouble } => {
                self.note(trouble);
                self.stored(&event);
                match event {
                    Event::ProgressWritten => self.progress_written(true),
                    Event::ProgressWriteFailed { .. } => self.progress_written(false),
                    _ => {}
                }
                match event {
                    Event::SlotFenced { slot } => self.slot_fenced(slot),
                    event => self.apply(event),
                }
            }
            Command::Recorded { result } => self.recorded(result),
            Command::RecordAgain => self.record(),
            Command::RenewRecord => {
                self.recorder.renew();
                self.record_then(Then::Renewed);
                self.apply(Event::RenewalDue);
            }
            Command::LookForPartitions => self.shared.discovery.notify_one(),
            Command::LookAtTopics => self.look_at_topics(),
            Command::TopicsSeen { ids } => self.topics_seen(ids),
            Command::LogEnds { ends } => self.log_ends.extend(ends),
            Command::Discovered { splits } => {
                self.note(Trouble::none("discovery"));
                self.apply(Event::SplitsDiscovered { splits });
            }
            Command::ResetFound { request, offsets, allowed } => match offsets {
                Ok(splits) => self.apply(Event::ResetRequested { request, splits, allowed }),
                Err(reason) => self.reply(request, Reply::Rejected { reason }),
            },
            Command::ImportFound { request, label, offsets } => match offsets {
                Ok(offsets) => self.apply(Event::ImportRequested { request, label, offsets }),
                Err(reason) => self.reply(request, Reply::Rejected { reason }),
            },
            Command::Noted { trouble } => self.note(trouble),
            Command::Fatal { exit } => self.end = Some(Err(exit)),
        }
    }

    /// Tells the coordinator, and does what it says.
    fn apply(&mut self, event: Event) {
        for action in self.coordinator.handle(self.born.elapsed(), event) {
            self.perform(action);
        }
    }

    fn admin(&mut self, request: AdminRequest, reply: oneshot::Sender<Reply>) {
        self.requests += 1;
        let id = RequestId(self.requests);
        self.replies.insert(id, reply);
        self.apply(match request {
            AdminRequest::Savepoint { label, stop, offset_cut: true } => {
                let then = if stop { AfterCut::Stop } else { AfterCut::GoOn };
                Event::OffsetCutRequested { request: id, label, then }
            }
            AdminRequest::Savepoint { label, stop, offset_cut: false } => {
                Event::SavepointRequested { request: id, label, stop }
            }
            AdminRequest::Restore { splits, allow_replay } => {
                Event::RestoreRequested { request: id, splits, allow_replay }
            }
            AdminRequest::Import { label, from } => return self.find_import(id, label, from),
            AdminRequest::Suspend { offset_cut: false } => Event::SuspendRequested { request: id },
            AdminRequest::Suspend { offset_cut: true } => {
                Event::OffsetCutRequested { request: id, label: String::new(), then: AfterCut::Suspend }
            }
            AdminRequest::Resume => Event::ResumeRequested { request: id },
            AdminRequest::AbortTransaction { slot } => Event::AbortRequested { request: id, slot },
            AdminRequest::Reset { to, topic, partitions, allowed } => {
                return self.find_reset(id, to, topic.as_deref(), &partitions, allowed);
            }
        });
    }

    fn stored(&mut self, event: &Event) {
        if let Event::SnapshotStored { checkpoint, .. } = event {
            self.newest_snapshot = Some(self.snapshot_id(*checkpoint));
        }
    }

    fn snapshot_id(&self, checkpoint: CheckpointId) -> SnapshotId {
        SnapshotId { epoch: self.shared.leader_epoch, checkpoint }
    }

    /// Remembers since when something is wrong; says so once, and once when it is right again.
    fn note(&mut self, trouble: Trouble) {
        match (trouble.what, self.troubles.get_mut(trouble.part)) {
            (Some(what), Some((_, known))) => *known = what,
            (Some(what), None) => {
                tracing::warn!(part = trouble.part, "degraded: {what}");
                self.troubles.insert(trouble.part, (Timestamp::now(), what));
            }
            (None, Some(_)) => {
                self.troubles.remove(trouble.part);
                tracing::info!(part = trouble.part, "works again");
            }
            (None, None) => {}
        }
    }
}

fn settings(config: &Config, plan: &Plan, exactly_once: bool) -> Settings {
    Settings {
        leader_epoch: plan.leader_epoch,
        first_checkpoint: plan.first_checkpoint,
        exactly_once,
        orphaned_slots: plan.orphaned_slots.clone(),
        checkpoint_interval: config.checkpoint.interval,
        checkpoint_min_pause: config.checkpoint.min_pause,
        checkpoint_timeout: config.checkpoint.timeout,
        heartbeat_timeout: config.heartbeat.timeout,
        retry_delay: RETRY_DELAY,
        mirror_interval: MIRROR_INTERVAL,
        savepoints: config.savepoint.clone(),
        restart_strategy: config.restart_strategy.clone(),
        suspended: plan.suspended,
    }
}
