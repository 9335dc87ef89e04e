//! The coordinator: a synchronous state machine without IO, clock or randomness. Events in, actions out.
//!
//! It owns the assignment of splits, the leases of slots, barriers, savepoints and the way back to one. The shell around
//! it ([`crate::runtime`]) performs the actions and brings their results back as events. Time is what the shell says it
//! is: a duration since the coordinator's birth, never going back.
//!
//! What keeps two owners apart (exactly-once): a split changes hands only
//! - after its owner's `Released`, which follows its last commit, or after its owner's slot was fenced, **and**
//! - after its progress was read back from Kafka, stable, later than that.

pub mod action;
mod assignment;
mod checkpoint;
mod cut;
pub mod event;
mod failure;
mod invariants;
mod periodic;
pub mod plain_offsets;
mod reset;
mod restarts;
mod share;
mod splits;
mod suspension;
mod taskmanagers;
#[cfg(test)]
mod tests;
mod transactions;
pub mod view;

use std::{collections::BTreeMap, time::Duration};

use weir_common::{
    config::{RestartStrategy, Savepoint as SavepointSettings},
    ids::{CheckpointId, GrantId, LeaderEpoch, SlotId, TaskmanagerId},
    split::SplitId,
};

use self::{
    action::Action,
    checkpoint::Checkpoints,
    event::{Event, Grants},
    periodic::Periodic,
    restarts::Restarts,
    splits::{Moves, Split},
    suspension::{Phase, Rest},
    taskmanagers::{Slot, Taskmanager},
    transactions::Abort,
};

/// What a leadership starts with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Of this leadership; grants carry it, so that none is ever given twice.
    pub leader_epoch: LeaderEpoch,
    /// Number of the first snapshot; above all earlier ones.
    pub first_checkpoint: CheckpointId,
    /// Slots are fenced and progress is read back from Kafka; without it both are left out.
    pub exactly_once: bool,
    /// Slots that an earlier leadership had leased. Whoever holds one by that grant may claim it until `heartbeat_timeout` is
    /// over.
    pub orphaned_slots: Grants,
    /// `checkpoint.interval`
    pub checkpoint_interval: Duration,
    /// `checkpoint.min_pause`
    pub checkpoint_min_pause: Duration,
    /// `checkpoint.timeout`
    pub checkpoint_timeout: Duration,
    /// `heartbeat.timeout`
    pub heartbeat_timeout: Duration,
    /// Time before a failed fence, read or write is tried again.
    pub retry_delay: Duration,
    /// Time between two mirrors of the lag.
    pub mirror_interval: Duration,
    /// Section `savepoint`.
    pub savepoints: SavepointSettings,
    /// What follows a failure.
    pub restart_strategy: RestartStrategy,
    /// An operator had suspended the job before this leadership.
    pub suspended: bool,
}

/// Something that failed and is tried again later.
#[derive(Clone, Debug)]
enum Retry {
    Fence(SlotId),
    Read(Vec<SplitId>),
}

/// The state machine. See the module's text.
#[derive(Debug)]
pub struct Coordinator {
    settings: Settings,
    now: Duration,
    taskmanagers: BTreeMap<TaskmanagerId, Taskmanager>,
    slots: BTreeMap<SlotId, Slot>,
    /// The newest grant of each slot.
    newest_grants: BTreeMap<SlotId, GrantId>,
    splits: BTreeMap<SplitId, Split>,
    moves: Moves,
    grants: u64,
    /// While it lasts, orphaned slots may be claimed and no split is handed out whose owner is not known.
    adoption_ends: Option<Duration>,
    checkpoints: Checkpoints,
    periodic: Periodic,
    phase: Phase,
    /// The job rests until it is resumed.
    rest: Option<Rest>,
    restarts: Restarts,
    /// Operators who wait for a fence.
    aborts: BTreeMap<SlotId, Abort>,
    retries: Vec<(Duration, Retry)>,
    next_mirror: Duration,
    mirrored: BTreeMap<weir_common::split::TopicPartition, i64>,
    lost: u64,
    actions: Vec<Action>,
}

impl Coordinator {
    /// A new leadership, at time zero.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let slots: BTreeMap<_, _> = settings.orphaned_slots.keys().map(|slot| (*slot, Slot::Orphaned)).collect();
        let known = settings.orphaned_slots.iter().filter_map(|(slot, grant)| Some((*slot, (*grant)?)));
        Self {
            now: Duration::ZERO,
            taskmanagers: BTreeMap::new(),
            adoption_ends: (!slots.is_empty()).then_some(settings.heartbeat_timeout),
            newest_grants: known.collect(),
            slots,
            splits: BTreeMap::new(),
            moves: Moves::default(),
            grants: 0,
            checkpoints: Checkpoints::new(settings.first_checkpoint, settings.checkpoint_interval),
            periodic: Periodic::new(settings.savepoints.interval, settings.savepoints.retention),
            phase: Phase::Running,
            rest: settings.suspended.then_some(Rest::Suspended),
            restarts: Restarts::new(settings.restart_strategy.clone()),
            aborts: BTreeMap::new(),
            retries: Vec::new(),
            next_mirror: settings.mirror_interval,
            mirrored: BTreeMap::new(),
            lost: 0,
            actions: Vec::new(),
            settings,
        }
    }

    /// Takes one event in; the actions are to be performed in their order. `now` counts from the coordinator's birth.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Action> {
        self.now = self.now.max(now);
        if !matches!(self.phase, Phase::Finished) {
            self.take(event);
            self.meet_deadlines();
            self.move_on();
        }
        debug_assert_eq!(self.violation(), None);
        std::mem::take(&mut self.actions)
    }

    /// When [`Event::DeadlineReached`] is to be sent if nothing else happens before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        if matches!(self.phase, Phase::Finished) {
            return None;
        }
        let heartbeats =
            self.taskmanagers.values().map(|taskmanager| taskmanager.heard + self.settings.heartbeat_timeout);
        let retries = self.retries.iter().map(|(due, _)| *due);
        let checkpoint = self.checkpoints.next_deadline(&self.settings, self.may_trigger());
        let restart = self.next_restart();
        heartbeats
            .chain(retries)
            .chain(restart)
            .chain(self.adoption_ends)
            .chain(checkpoint)
            .chain(self.periodic.next_deadline(self.may_trigger() && self.checkpoints.idle()))
            .chain(self.cut().map(|cut| cut.deadline))
            .chain([self.next_mirror])
            .min()
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Registered { taskmanager, held } => self.register(taskmanager, held),
            Event::Disconnected { taskmanager } => self.disconnected(&taskmanager),
            Event::Heartbeat { taskmanager } => self.heard(&taskmanager),
            Event::SlotReady { taskmanager, grant } => self.slot_ready(&taskmanager, grant),
            Event::Reported { taskmanager, checkpoint, splits } => self.reported(&taskmanager, checkpoint, splits),
            Event::Released { taskmanager, splits } => self.released(&taskmanager, splits),
            Event::Draining { taskmanager } => self.draining(&taskmanager),
            Event::SlotLost { taskmanager, grant } => self.slot_lost(&taskmanager, grant),
            Event::SlotFenced { slot } => self.slot_fenced(slot),
            Event::FenceFailed { slot } => self.retry_later(Retry::Fence(slot)),
            Event::ProgressRead { splits } => self.progress_read(splits),
            Event::ProgressReadFailed { splits } => self.retry_later(Retry::Read(splits)),
            Event::SplitsDiscovered { splits } => self.discovered(splits),
            Event::SnapshotStored { checkpoint, location, size_bytes } => {
                self.snapshot_stored(checkpoint, location, size_bytes);
            }
            Event::SnapshotFailed { checkpoint, reason } => self.checkpoint_failed(checkpoint, &reason),
            Event::SavepointRequested { request, label, stop } => self.savepoint_requested(request, label, stop),
            Event::OffsetCutRequested { request, label, then } => self.offset_cut_requested(request, label, then),
            Event::ImportRequested { request, label, offsets } => self.import_requested(request, label, &offsets),
            Event::SavepointsListed { savepoints } => self.savepoints_listed(&savepoints),
            Event::SavepointsUnknown => self.savepoints_unknown(),
            Event::RestoreRequested { request, splits, allow_replay } => {
                self.restore_requested(request, splits, allow_replay);
            }
            Event::SplitsFailed { taskmanager, splits, failure } => self.splits_failed(&taskmanager, splits, failure),
            Event::TopicRecreated { topic, message } => self.topic_recreated(&topic, &message),
            Event::SuspendRequested { request } => self.suspend_requested(request),
            Event::ResumeRequested { request } => self.resume_requested(request),
            Event::RestRecorded => self.rest_recorded(),
            Event::ResetRequested { request, splits, allowed } => self.reset_requested(request, splits, allowed),
            Event::RenewalDue => self.renew(),
            Event::ProgressWritten => self.progress_written(),
            Event::ProgressWriteFailed { reason } => self.progress_write_failed(&reason),
            Event::AbortRequested { request, slot } => self.abort_requested(request, slot),
            Event::DeadlineReached => {}
        }
    }

    fn meet_deadlines(&mut self) {
        self.lose_silent_taskmanagers();
        if self.adoption_ends.is_some_and(|end| end <= self.now || !self.has_orphans()) {
            self.end_adoption();
        }
        let (due, later) = std::mem::take(&mut self.retries).into_iter().partition(|(due, _)| *due <= self.now);
        self.retries = later;
        let due: Vec<(Duration, Retry)> = due;
        for (_, retry) in due {
            match retry {
                Retry::Fence(slot) => self.actions.push(Action::FenceSlot { slot }),
                Retry::Read(splits) => self.read_progress(splits),
            }
        }
        self.time_out_checkpoint();
        self.time_out_cut();
        self.look_for_savepoints();
        self.mirror_lag();
    }

    /// What follows from the state as it is now, whatever the event was.
    fn move_on(&mut self) {
        self.cut_further();
        self.suspend_further();
        self.lease_slots();
        self.rebalance();
        self.dismiss_drained();
        self.trigger_checkpoint();
        self.complete_barrier();
    }

    fn retry_later(&mut self, retry: Retry) {
        self.retries.push((self.now + self.settings.retry_delay, retry));
    }

    fn mirror_lag(&mut self) {
        if self.now < self.next_mirror {
            return;
        }
        self.next_mirror = self.now + self.settings.mirror_interval;
        let cursors = self.cursors();
        // While a job is found suspended, its group may be used by whoever goes on in its place.
        let found_suspended = self.rest == Some(Rest::Suspended) && self.mirrored.is_empty();
        if cursors != self.mirrored && !found_suspended {
            self.mirrored.clone_from(&cursors);
            self.actions.push(Action::MirrorLag { cursors });
        }
    }
}
