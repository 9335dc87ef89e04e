//! The shell around the coordinator.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use jiff::Timestamp;
use weir_common::{
    config::{RestartStrategy, Savepoint},
    ids::{CheckpointId, GrantId, LeaderEpoch, SlotId, TaskmanagerId},
};
use weir_jobmanager::{
    coordinator::{
        Coordinator, Settings,
        action::{Action, SavepointKind, SnapshotKind},
        event::{Event, SplitState, SplitStates},
    },
    start::Plan,
    store::{
        StoreError,
        keys::SnapshotId,
        snapshot::{Content, Snapshot},
    },
};
use weir_taskmanager::engine::{Assignment, FromJobmanager, SplitReport, ToJobmanager};

use super::{
    JOB,
    record::{Grant, Recorder, Then},
    startup::states,
};
use crate::{
    broker::TransactionalId,
    client::Client,
    network::{Down, StreamId, Up},
    taskmanager::state,
    time::{Micros, Pid},
    variants::Variant,
    world::World,
};

/// `heartbeat.timeout`
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(4);

/// `heartbeat.grant`
const GRANT_TTL_MS: u64 = 15_000;

/// What a leadership consists of, once it has begun.
pub(crate) struct Leadership {
    pub(super) term: u64,
    pub(super) epoch: LeaderEpoch,
    pub(super) coordinator: Coordinator,
    pub(super) recorder: Recorder,
    born: Duration,
    splits: SplitStates,
    peers: BTreeMap<TaskmanagerId, StreamId>,
    deadline: Option<Micros>,
    /// The mistake of reading before fencing.
    early: Option<SplitStates>,
}

impl Leadership {
    pub(super) fn new(term: u64, epoch: LeaderEpoch, plan: Plan, born: Duration, exactly_once: bool) -> Self {
        let recorder = Recorder::new(plan.orphaned_slots.clone());
        let mut restart_strategy = RestartStrategy::default();
        restart_strategy.exponential_delay.max_backoff = Duration::from_secs(2);
        let coordinator = Coordinator::new(Settings {
            leader_epoch: epoch,
            first_checkpoint: plan.first_checkpoint,
            exactly_once,
            orphaned_slots: plan.orphaned_slots,
            checkpoint_interval: Duration::from_secs(4),
            checkpoint_min_pause: Duration::from_millis(500),
            checkpoint_timeout: Duration::from_secs(8),
            heartbeat_timeout: HEARTBEAT_TIMEOUT,
            retry_delay: Duration::from_millis(300),
            mirror_interval: Duration::from_secs(3600),
            restart_strategy,
            suspended: plan.suspended,
            savepoints: Savepoint { cut_timeout: Duration::from_secs(6), ..Savepoint::default() },
        });
        let (splits, peers) = (plan.splits, BTreeMap::new());
        Self { term, epoch, coordinator, recorder, born, splits, peers, deadline: None, early: None }
    }

    pub(super) fn streams(&self) -> Vec<StreamId> {
        self.peers.values().copied().collect()
    }

    fn at(&self, stream: StreamId) -> Option<TaskmanagerId> {
        self.peers.iter().find(|(_, known)| **known == stream).map(|(taskmanager, _)| taskmanager.clone())
    }
}

impl World {
    pub(super) fn with_leadership<T>(&self, pid: Pid, change: impl FnOnce(&mut Leadership) -> T) -> Option<T> {
        let shared = self.jobmanager(pid)?;
        let mut jobmanager = shared.borrow_mut();
        jobmanager.leadership.as_mut().map(change)
    }

    pub(super) fn lead(self: &Rc<Self>, pid: Pid, mut leadership: Leadership) {
        let splits = std::mem::take(&mut leadership.splits);
        if let Some(jobmanager) = self.jobmanager(pid) {
            jobmanager.borrow_mut().leadership = Some(leadership);
        }
        self.tell_coordinator(pid, Event::SplitsDiscovered { splits });
    }

    pub(super) fn tell_coordinator(self: &Rc<Self>, pid: Pid, event: Event) {
        if !matches!(event, Event::Heartbeat { .. } | Event::DeadlineReached) {
            self.note(|| format!("jm-{pid}: {event:?}"));
        }
        let now = self.time.local(pid);
        let Some(actions) = self.with_leadership(pid, |leadership| {
            leadership.coordinator.handle(now.saturating_sub(leadership.born), event)
        }) else {
            return;
        };
        for action in actions {
            self.perform_action(pid, action);
        }
        self.schedule_deadline(pid);
    }

    fn schedule_deadline(self: &Rc<Self>, pid: Pid) {
        let now = self.time.now();
        let due = self.with_leadership(pid, |leadership| {
            let next = leadership.coordinator.next_deadline()? + leadership.born;
            let due = self.time.global(pid, next).max(now + 1);
            let sooner = leadership.deadline.is_none_or(|known| due < known || known <= now);
            if sooner {
                leadership.deadline = Some(due);
            }
            sooner.then_some((due, leadership.term))
        });
        let Some((due, term)) = due.flatten() else { return };
        self.time.after(due - now, Some(pid), move |world| {
            let wanted = world.with_leadership(pid, |leadership| leadership.deadline == Some(due)).unwrap_or(false);
            if wanted && world.is_term(pid, term) {
                world.with_leadership(pid, |leadership| leadership.deadline = None);
                world.tell_coordinator(pid, Event::DeadlineReached);
            }
        });
    }

    /// An operator's wish, to whoever leads.
    pub(crate) fn ask(self: &Rc<Self>, event: Event) -> Option<()> {
        let jobmanagers: Vec<Pid> = self.jobmanagers.borrow().keys().copied().collect();
        let leader = jobmanagers.into_iter().find(|pid| self.with_leadership(*pid, |_| ()).is_some())?;
        self.time.after(0, Some(leader), move |world| {
            if world.may_act(leader) {
                world.tell_coordinator(leader, event);
            }
        });
        Some(())
    }

    /// Something that was begun in a leadership has ended.
    fn done(self: &Rc<Self>, pid: Pid, term: u64, event: Event) {
        if self.is_term(pid, term) {
            self.tell_coordinator(pid, event);
        }
    }

    pub(crate) fn hear_up(self: &Rc<Self>, pid: Pid, stream: StreamId, message: Up) {
        let leads = self.may_act(pid) && self.with_leadership(pid, |_| ()).is_some();
        if !leads {
            return self.hang_up_from_jobmanager(stream);
        }
        if let Up::Register { taskmanager, held } = message {
            let epoch = self.with_leadership(pid, |leadership| {
                leadership.peers.insert(taskmanager.clone(), stream);
                leadership.epoch
            });
            self.send_down(stream, epoch.map(Down::Registered));
            return self.tell_coordinator(pid, Event::Registered { taskmanager, held });
        }
        let Some(taskmanager) = self.with_leadership(pid, |leadership| leadership.at(stream)).flatten() else { return };
        let event = match message {
            Up::Heartbeat => return self.heartbeat_heard(pid, stream, taskmanager),
            Up::Register { .. } => return,
            Up::Said(said) => match said {
                ToJobmanager::SlotReady { grant, .. } => Event::SlotReady { taskmanager, grant },
                ToJobmanager::Report { checkpoint, splits, .. } => {
                    Event::Reported { taskmanager, checkpoint, splits: splits.iter().map(state).collect() }
                }
                ToJobmanager::Released { splits } => {
                    Event::Released { taskmanager, splits: splits.iter().map(state).collect() }
                }
                ToJobmanager::Draining => Event::Draining { taskmanager },
                ToJobmanager::SlotLost { grant, .. } => Event::SlotLost { taskmanager, grant },
                ToJobmanager::SplitFailed { splits, failure } => Event::SplitsFailed { taskmanager, splits, failure },
            },
        };
        self.tell_coordinator(pid, event);
    }

    fn heartbeat_heard(self: &Rc<Self>, pid: Pid, stream: StreamId, taskmanager: TaskmanagerId) {
        self.tell_coordinator(pid, Event::Heartbeat { taskmanager: taskmanager.clone() });
        let grant = self.with_leadership(pid, |leadership| {
            let grant = leadership.coordinator.grant(&taskmanager).map_or(GrantId(0), |(_, grant)| grant);
            (leadership.epoch, grant)
        });
        let Some((epoch, grant)) = grant else { return };
        let ack = FromJobmanager::HeartbeatAck { grant, ttl_ms: GRANT_TTL_MS, requests_max: None };
        self.send_down(stream, Some(Down::Said(epoch, ack)));
    }

    pub(crate) fn stream_ended_up(self: &Rc<Self>, pid: Pid, stream: StreamId) {
        if !self.may_act(pid) {
            return;
        }
        let ended = self.with_leadership(pid, |leadership| {
            let taskmanager = leadership.at(stream)?;
            leadership.peers.remove(&taskmanager);
            Some(taskmanager)
        });
        if let Some(taskmanager) = ended.flatten() {
            self.tell_coordinator(pid, Event::Disconnected { taskmanager });
        }
    }

    fn send_to(self: &Rc<Self>, pid: Pid, to: &TaskmanagerId, message: FromJobmanager) {
        let peer = self.with_leadership(pid, |leadership| Some((leadership.epoch, *leadership.peers.get(to)?)));
        if let Some((epoch, stream)) = peer.flatten() {
            self.send_down(stream, Some(Down::Said(epoch, message)));
        }
    }

    /// If it still stands.
    pub(super) fn send_grant(self: &Rc<Self>, pid: Pid, (taskmanager, slot, grant): Grant) {
        let stands =
            self.with_leadership(pid, |leadership| leadership.coordinator.grant(&taskmanager) == Some((slot, grant)));
        if stands == Some(true) {
            self.send_to(pid, &taskmanager, FromJobmanager::Grant { slot, grant, ttl_ms: GRANT_TTL_MS });
        }
    }

    fn perform_action(self: &Rc<Self>, pid: Pid, action: Action) {
        match action {
            Action::SendGrant { taskmanager, slot, grant } => {
                self.record_then(pid, Then::Grant((taskmanager, slot, grant)));
            }
            Action::SendAssign { taskmanager, splits, limits } => {
                let report = |(split, SplitState { progress, counters })| {
                    let (progress_partition, limit) = (self.input.place(&split), limits.get(&split.topic_partition()));
                    let limit = limit.copied();
                    Assignment { report: SplitReport { split, progress, counters, progress_partition }, limit }
                };
                let splits = splits.into_iter().map(report).collect();
                self.send_to(pid, &taskmanager, FromJobmanager::Assign { splits });
            }
            Action::SendRevoke { taskmanager, splits } => {
                self.send_to(pid, &taskmanager, FromJobmanager::Revoke { splits: splits.clone() });
                if self.variant == Variant::ReassignBeforeReleased {
                    let known =
                        self.with_leadership(pid, |leadership| leadership.coordinator.states()).unwrap_or_default();
                    let splits = known.into_iter().filter(|(id, _)| splits.contains(id)).collect();
                    self.time.after(0, Some(pid), move |world| {
                        world.tell_coordinator(pid, Event::Released { taskmanager, splits });
                    });
                }
            }
            Action::SendBarrier { taskmanager, checkpoint } => {
                self.send_to(pid, &taskmanager, FromJobmanager::Barrier { checkpoint });
            }
            Action::SendDrain { taskmanager, leave } => {
                self.send_to(pid, &taskmanager, FromJobmanager::Drain { leave });
            }
            Action::Disconnect { taskmanager, reason } => {
                self.send_to(pid, &taskmanager, FromJobmanager::Refused { message: reason, retry_ms: 1000 });
                let peer = self.with_leadership(pid, |leadership| leadership.peers.remove(&taskmanager)).flatten();
                if let Some(stream) = peer {
                    self.hang_up_from_jobmanager(stream);
                }
            }
            Action::FenceSlot { slot } => self.fence(pid, slot),
            Action::ReadProgress { splits } => self.read(pid, splits),
            Action::StoreSnapshot { checkpoint, kind, splits } => self.store(pid, checkpoint, kind, splits),
            Action::MirrorLag { .. } | Action::Reply { .. } => {}
            Action::ListSavepoints | Action::DeleteSavepoints { .. } => {}
            Action::WriteProgress { .. }
            | Action::RenewProgress { .. }
            | Action::RecordRest { .. }
            | Action::Finish => {
                self.violate(format!("nobody asked for {action:?}"));
            }
        }
    }

    fn term(&self, pid: Pid) -> u64 {
        self.with_leadership(pid, |leadership| leadership.term).unwrap_or(u64::MAX)
    }

    fn fence(self: &Rc<Self>, pid: Pid, slot: SlotId) {
        let (world, term) = (Rc::clone(self), self.term(pid));
        if !self.exactly_once {
            return self.time.after(0, Some(pid), move |world| world.done(pid, term, Event::SlotFenced { slot }));
        }
        self.time.spawn(pid, async move {
            let client = Client::new(&world, pid, TransactionalId::Slot(slot));
            if world.variant == Variant::ReadBeforeInit {
                let places = world.input.splits().map(|split| world.input.place(&split)).collect();
                if let Ok(read) = client.read(places).await {
                    world.with_leadership(pid, |leadership| leadership.early = Some(states(read)));
                }
            }
            let fenced = if world.variant == Variant::NoInitAtTakeover { Ok(()) } else { client.init().await };
            match fenced {
                Ok(()) if world.is_term(pid, term) => world.record_then(pid, Then::Fenced(slot)),
                Ok(()) => {}
                Err(_) => world.done(pid, term, Event::FenceFailed { slot }),
            }
        });
    }

    fn read(self: &Rc<Self>, pid: Pid, splits: Vec<weir_common::split::SplitId>) {
        let (world, term) = (Rc::clone(self), self.term(pid));
        if let Some(early) = self.with_leadership(pid, |leadership| leadership.early.take()).flatten() {
            let splits = early.into_iter().filter(|(split, _)| splits.contains(split)).collect();
            return self.time.after(0, Some(pid), move |world| world.done(pid, term, Event::ProgressRead { splits }));
        }
        self.time.spawn(pid, async move {
            let client = Client::new(&world, pid, TransactionalId::Jobmanager);
            let places = splits.iter().map(|split| world.input.place(split)).collect();
            let event = match client.read(places).await {
                Ok(read) => Event::ProgressRead { splits: states(read) },
                Err(_) => Event::ProgressReadFailed { splits },
            };
            world.done(pid, term, event);
        });
    }

    fn store(self: &Rc<Self>, pid: Pid, checkpoint: CheckpointId, kind: SnapshotKind, splits: SplitStates) {
        let checker = self.checker.borrow();
        let checked =
            if self.exactly_once { checker.snapshot(&splits) } else { checker.snapshot_of_delivered(&splits) };
        drop(checker);
        self.check(checked);
        if let SnapshotKind::Savepoint { kind: SavepointKind::OffsetCut, .. } = kind {
            self.count("offset cut stored");
            self.check(is_plain(&splits));
        }
        let Some(shared) = self.jobmanager(pid) else { return };
        let snapshots = shared.borrow().snapshots.clone();
        let Some((term, epoch, slots)) = self.with_leadership(pid, |leadership| {
            (
                leadership.term,
                leadership.epoch,
                leadership.coordinator.slots_in_use().map(|(slot, _)| slot).collect::<Vec<_>>(),
            )
        }) else {
            return;
        };
        let world = Rc::clone(self);
        self.time.spawn(pid, async move {
            let snapshot = Snapshot::new(&Content {
                job: JOB,
                id: SnapshotId { epoch, checkpoint },
                kind: &kind,
                time: Timestamp::from_microsecond(world.time.now() as i64).unwrap_or_default(),
                config_digest: "",
                splits_per_partition: world.input.splits_per_partition,
                slots,
                splits: &splits,
            });
            let event = match snapshots.store(snapshot).await {
                Ok((location, size_bytes)) => Event::SnapshotStored { checkpoint, location, size_bytes },
                Err(StoreError::Superseded(_)) => {
                    let crash = Rc::clone(&world);
                    return world.time.after(0, Some(pid), move |_| crash.crash_jobmanager(pid));
                }
                Err(error) => Event::SnapshotFailed { checkpoint, reason: error.to_string() },
            };
            world.done(pid, term, event);
            if world.time.chance(250) {
                // What is left is deleted next time.
                let _ = snapshots.retire().await;
            }
        });
    }
}

/// Each partition is one plain offset.
fn is_plain(splits: &SplitStates) -> Result<(), String> {
    let mut cuts = BTreeMap::new();
    for (id, SplitState { progress, .. }) in splits {
        let cut = *cuts.entry(id.topic_partition()).or_insert(progress.cursor);
        if cut != progress.cursor || !progress.finished_ahead.is_empty() {
            return Err(format!("an offset cut at {cut} has {id} at {progress:?}"));
        }
    }
    Ok(())
}
