//! Coming to rest: every split is released, then the job ends with a savepoint, goes to other offsets, or rests until it is
//! resumed.

use std::collections::BTreeMap;

use weir_common::{ids::CheckpointId, split::SplitId};

use super::{
    Coordinator,
    action::{Action, Replay, Reply, SavepointKind, SnapshotKind},
    cut::Cut,
    event::{AfterCut, Allowed, RequestId, SplitStates},
    splits::Owner,
};

/// Where the job stands as a whole.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    Running,
    /// Splits are being released, for a purpose.
    Releasing(Purpose),
    /// At work below an offset cut.
    Cutting(Cut),
    /// At rest; the last savepoint is being stored.
    Stopping {
        request: RequestId,
        checkpoint: CheckpointId,
    },
    /// At rest; other progress is being written, and what is answered after that.
    Restoring {
        request: RequestId,
        splits: SplitStates,
        reply: Reply,
    },
    /// At rest; its progress is being written once more.
    Renewing {
        splits: SplitStates,
    },
    /// At rest; a checkpoint of it is being stored.
    Suspending {
        request: RequestId,
        checkpoint: CheckpointId,
    },
    /// At rest; whether it stays so is being written, and what is answered after that.
    Recording {
        request: RequestId,
        rest: Option<Rest>,
        reply: Reply,
    },
    Finished,
}

/// Why a job rests until it is resumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// An operator wants it so; a next jobmanager finds it so.
    Suspended,
    /// The restart strategy gave up. A next jobmanager tries again.
    Failed { reason: String },
}

/// What the rest is for.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    Stop { request: RequestId, label: String },
    Restore { request: RequestId, splits: SplitStates, allow_replay: bool },
    Reset { request: RequestId, splits: BTreeMap<SplitId, i64>, allowed: Allowed },
    Rest { rest: Rest, request: Option<RequestId> },
    Cut(Cut),
}

impl Coordinator {
    /// Nothing is asked of the job, and it does not rest.
    pub(super) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running) && self.rest.is_none()
    }

    /// Splits and slots are handed out.
    pub(super) fn is_at_work(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Cutting(_)) && self.rest.is_none()
    }

    pub(super) fn suspend_requested(&mut self, request: RequestId) {
        if self.rest == Some(Rest::Suspended) {
            return self.reply(request, Reply::Rejected { reason: "the job is suspended already".to_owned() });
        }
        if !matches!(self.phase, Phase::Running) {
            return self.busy(request);
        }
        self.come_to_rest(Purpose::Rest { rest: Rest::Suspended, request: Some(request) });
    }

    pub(super) fn resume_requested(&mut self, request: RequestId) {
        if !matches!(self.phase, Phase::Running) {
            return self.busy(request);
        }
        if self.rest.is_none() {
            let reason = "the job is neither suspended nor has it failed; `weir status` says how it is".to_owned();
            return self.reply(request, Reply::Rejected { reason });
        }
        self.record_rest(request, None, Reply::Resumed);
    }

    fn record_rest(&mut self, request: RequestId, rest: Option<Rest>, reply: Reply) {
        self.actions.push(Action::RecordRest { suspended: rest == Some(Rest::Suspended) });
        self.phase = Phase::Recording { request, rest, reply };
    }

    pub(super) fn rest_recorded(&mut self) {
        let Phase::Recording { request, rest, reply } = std::mem::replace(&mut self.phase, Phase::Running) else {
            return;
        };
        self.rest = rest;
        if self.rest.is_none() {
            self.restarts.begin_anew();
            self.splits.values_mut().for_each(|split| split.wait_until = self.now);
            self.taskmanagers.values_mut().for_each(|taskmanager| taskmanager.wait_until = self.now);
        }
        self.reply(request, reply);
    }

    /// The checkpoint of a job that comes to rest: it rests whether that is stored or not.
    pub(super) fn rest_stored(&mut self, ended: CheckpointId, snapshot: Result<String, String>) {
        let Phase::Suspending { request, checkpoint } = self.phase else { return };
        if checkpoint == ended {
            self.record_rest(request, Some(Rest::Suspended), Reply::Suspended { snapshot });
        }
    }

    pub(super) fn stop_requested(&mut self, request: RequestId, label: String) {
        if !matches!(self.phase, Phase::Running) {
            return self.busy(request);
        }
        self.come_to_rest(Purpose::Stop { request, label });
    }

    pub(super) fn restore_requested(&mut self, request: RequestId, splits: SplitStates, allow_replay: bool) {
        if !matches!(self.phase, Phase::Running) {
            return self.busy(request);
        }
        let replayed = self.replayed(&splits);
        if !replayed.is_empty() && !allow_replay {
            return self.reply(request, Reply::ReplayRefused { replayed });
        }
        self.come_to_rest(Purpose::Restore { request, splits, allow_replay });
    }

    pub(super) fn busy(&mut self, request: RequestId) {
        let reason = format!("the job is {} already; try again when that is done", self.job_state());
        self.reply(request, Reply::Rejected { reason });
    }

    pub(super) fn come_to_rest(&mut self, purpose: Purpose) {
        if let Phase::Cutting(cut) = &self.phase {
            let reason = "the job comes to rest before the cut is there; `weir status` says why".to_owned();
            self.reply(cut.request, Reply::Failed { reason });
        }
        let goes_on = matches!(&purpose, Purpose::Cut(cut) if cut.then == AfterCut::GoOn);
        self.phase = Phase::Releasing(purpose);
        if !goes_on {
            self.reject_waiting_savepoints();
        }
    }

    /// Asks for what is still held; once nothing is, does what the rest was for.
    pub(super) fn suspend_further(&mut self) {
        if !matches!(self.phase, Phase::Releasing(_)) {
            return;
        }
        let everyone: Vec<_> = self.taskmanagers.keys().cloned().collect();
        for taskmanager in everyone {
            self.revoke_all(&taskmanager);
        }
        let at_rest = self.splits.values().all(|split| split.owner == Owner::Nobody);
        if !at_rest || !self.checkpoints.idle() {
            return;
        }
        let Phase::Releasing(purpose) = std::mem::replace(&mut self.phase, Phase::Running) else { return };
        match purpose {
            Purpose::Stop { request, label } => {
                let kind = SnapshotKind::Savepoint { label, kind: SavepointKind::Operator };
                let checkpoint = self.snapshot_at_rest(kind);
                self.phase = Phase::Stopping { request, checkpoint };
            }
            Purpose::Restore { request, splits, allow_replay } => self.rewind(request, splits, allow_replay),
            Purpose::Cut(cut) => self.cut_at_rest(cut),
            Purpose::Reset { request, splits, allowed } => self.reset(request, splits, allowed),
            Purpose::Rest { rest: Rest::Suspended, request: Some(request) } => {
                let checkpoint = self.snapshot_at_rest(SnapshotKind::Checkpoint);
                self.phase = Phase::Suspending { request, checkpoint };
            }
            Purpose::Rest { rest, .. } => self.rest = Some(rest),
        }
    }

    /// Looks again, for the job had gone on while it came to rest.
    fn rewind(&mut self, request: RequestId, mut splits: SplitStates, allow_replay: bool) {
        splits.retain(|id, _| self.splits.contains_key(id));
        let replayed = self.replayed(&splits);
        if !replayed.is_empty() && !allow_replay {
            return self.reply(request, Reply::ReplayRefused { replayed });
        }
        self.write_at_rest(request, splits, Reply::Restored { replayed });
    }

    /// Moves splits of a job at rest.
    pub(super) fn write_at_rest(&mut self, request: RequestId, splits: SplitStates, reply: Reply) {
        if self.settings.exactly_once {
            self.actions.push(Action::WriteProgress { splits: splits.clone() });
        }
        self.phase = Phase::Restoring { request, splits, reply };
        if !self.settings.exactly_once {
            self.progress_written();
        }
    }

    /// Who owns a split commits its progress anew each day. While a job rests nobody does, and a broker forgets offsets that
    /// are older than `offsets.retention.minutes`.
    pub(super) fn renew(&mut self) {
        let at_rest = self.rest.is_some() && matches!(self.phase, Phase::Running);
        if !at_rest || !self.settings.exactly_once || self.splits.values().any(|split| split.owner != Owner::Nobody) {
            return;
        }
        let splits: SplitStates = self.splits.iter().map(|(id, split)| (id.clone(), split.state.clone())).collect();
        self.actions.push(Action::RenewProgress { splits: splits.clone() });
        self.phase = Phase::Renewing { splits };
    }

    /// Splits that a rewind would take behind what is finished, with the records that would be done again.
    fn replayed(&self, splits: &SplitStates) -> BTreeMap<SplitId, Replay> {
        let mut replayed = BTreeMap::new();
        for (id, target) in splits {
            let Some(split) = self.splits.get(id) else { continue };
            if !split.state.progress.is_covered_by(&target.progress) {
                let records = split.state.counters.consumed.saturating_sub(target.counters.consumed);
                let (from_cursor, to_cursor) = (split.state.progress.cursor, target.progress.cursor);
                replayed.insert(id.clone(), Replay { from_cursor, to_cursor, records });
            }
        }
        // Splits whose cursor ran over records of others have nothing to repeat.
        replayed.retain(|_, replay| replay.records > 0);
        replayed
    }

    pub(super) fn progress_written(&mut self) {
        if let Phase::Renewing { .. } = self.phase {
            self.phase = Phase::Running;
        }
        let Phase::Restoring { request, splits, reply } = std::mem::replace(&mut self.phase, Phase::Running) else {
            return;
        };
        for (id, state) in splits {
            if let Some(split) = self.splits.get_mut(&id) {
                // Where an operator sends it, it is tried anew.
                (split.state, split.failure) = (state, None);
            }
        }
        // Where the snapshot is the truth, a restart must not undo the rewind.
        self.checkpoints.hurry(self.now);
        self.reply(request, reply);
    }

    /// Some of it may be written: what stands in Kafka decides.
    pub(super) fn progress_write_failed(&mut self, reason: &str) {
        if let Phase::Renewing { splits } = &mut self.phase {
            // Each write is read back: what was written is what is there, or nothing was.
            let splits = std::mem::take(splits);
            self.phase = Phase::Running;
            return self.free(splits.into_keys().collect());
        }
        let Phase::Restoring { request, splits, .. } = std::mem::replace(&mut self.phase, Phase::Running) else {
            return;
        };
        self.free(splits.into_keys().collect());
        let reason = format!("the new progress could not be written: {reason}; check `weir splits`, then try again");
        self.reply(request, Reply::Failed { reason });
    }

    pub(super) fn stop_stored(&mut self, stored: CheckpointId, location: &str) {
        let Phase::Stopping { request, checkpoint } = self.phase else { return };
        if checkpoint != stored {
            return;
        }
        self.phase = Phase::Finished;
        self.dismiss_drained();
        self.reply(request, Reply::Savepoint { checkpoint, location: location.to_owned() });
        self.actions.push(Action::Finish);
    }

    pub(super) fn stop_failed(&mut self, failed: CheckpointId, reason: &str) {
        let Phase::Stopping { request, checkpoint } = self.phase else { return };
        if checkpoint != failed {
            return;
        }
        self.phase = Phase::Running;
        let reason = format!("{reason}; the job goes on");
        self.reply(request, Reply::Failed { reason });
    }
}
