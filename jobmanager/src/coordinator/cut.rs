//! The offset cut: a savepoint in which every partition is one plain offset.
//!
//! ```text
//! come to rest        every split is released, its stable progress read
//! where to cut        of each partition: the highest offset that any of its key ranges has finished or read past
//! hand out again      with that offset as limit, those splits that have not come to it
//! all are there       the snapshot is stored, the limits are lifted: splits that have one are taken back and handed out
//!                     without (or the job comes to rest once more, and ends with it)
//! ```
//!
//! Nothing above the cut is read meanwhile, so the time for it is bounded; when it is over, the limits are lifted and
//! nothing else has happened. Limits are kept in memory alone: the next leader knows of none, and taskmanagers drop
//! those of a former one.

use std::{collections::BTreeMap, time::Duration};

use weir_common::{
    ids::TaskmanagerId,
    progress::Progress,
    split::{SplitId, TopicPartition},
};

use super::{
    Coordinator,
    action::{Reply, SavepointKind, SnapshotKind},
    event::{AfterCut, RequestId},
    plain_offsets::{end, spreads},
    splits::{Owner, Split},
    suspension::{Phase, Purpose},
};

/// So many splits are named in one message; the others are counted.
const MAX_NAMED: usize = 3;

/// An offset cut on its way.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    pub(super) request: RequestId,
    label: String,
    pub(super) then: AfterCut,
    requested: Duration,
    /// It is given up then.
    pub(super) deadline: Duration,
    /// Where each partition is cut; those that came later have been read by nobody.
    limits: BTreeMap<TopicPartition, i64>,
}

impl Coordinator {
    pub(super) fn offset_cut_requested(&mut self, request: RequestId, label: String, then: AfterCut) {
        if !matches!(self.phase, Phase::Running) {
            return self.busy(request);
        }
        let unreadable = self.splits.iter().find(|(_, split)| split.needs_decision());
        let rejected = match unreadable {
            _ if self.splits.is_empty() => Some("the job has no splits yet; try again when it runs".to_owned()),
            _ if self.rest.is_some() => Some(
                "the job rests, so that nothing below a cut would be finished; `weir resume` it first, or take a plain \
                 savepoint"
                    .to_owned(),
            ),
            Some((id, split)) => Some(unreadable_reason(id, split)),
            None => None,
        };
        if let Some(reason) = rejected {
            return self.reply(request, Reply::Rejected { reason });
        }
        let (requested, deadline) = (self.now, self.now + self.settings.savepoints.cut_timeout);
        let limits = BTreeMap::new();
        self.come_to_rest(Purpose::Cut(Cut { request, label, then, requested, deadline, limits }));
    }

    /// At rest: decides where to cut, or that nothing is left to do.
    pub(super) fn cut_at_rest(&mut self, mut cut: Cut) {
        let spreads = spreads(self.splits.iter().map(|(id, split)| (id, &split.state)));
        cut.limits = spreads.into_iter().map(|(partition, spread)| (partition, spread.highest)).collect();
        if !self.is_cut(&cut) {
            tracing::info!(partitions = cut.limits.len(), "offset cut: finishing what is below it");
            self.phase = Phase::Cutting(cut);
            return;
        }
        let (request, kind) = (cut.request, cut.kind());
        match cut.then {
            AfterCut::GoOn => self.snapshot_as_it_stands(kind, request),
            AfterCut::Stop => self.phase = Phase::Stopping { request, checkpoint: self.snapshot_at_rest(kind) },
            AfterCut::Suspend => self.phase = Phase::Suspending { request, checkpoint: self.snapshot_at_rest(kind) },
        }
    }

    /// Looks whether every split has come to its limit.
    pub(super) fn cut_further(&mut self) {
        let Phase::Cutting(cut) = &self.phase else { return };
        if let Some(reason) = self.cut_is_impossible(cut) {
            return self.give_up_cut(&reason);
        }
        if !self.is_cut(cut) {
            return;
        }
        let Phase::Cutting(cut) = std::mem::replace(&mut self.phase, Phase::Running) else { return };
        tracing::info!(took = ?self.now.saturating_sub(cut.requested), "offset cut: every split has come to it");
        match cut.then {
            // All that is committed is the cut: that is the snapshot, and the job goes on while it is being stored.
            AfterCut::GoOn => self.snapshot_as_it_stands(cut.kind(), cut.request),
            // Everything is given back before the savepoint: what stands in Kafka then is looked at once more.
            AfterCut::Stop | AfterCut::Suspend => self.come_to_rest(Purpose::Cut(cut)),
        }
    }

    fn is_cut(&self, cut: &Cut) -> bool {
        self.splits.iter().all(|(id, split)| cut.is_reached(id, split))
    }

    fn cut_is_impossible(&self, cut: &Cut) -> Option<String> {
        let reason = |(id, split): (&SplitId, &Split)| {
            let limit = cut.limit(id)?;
            let end = end(&split.state.progress);
            if end > limit {
                return Some(format!(
                    "split {id} has gone on to offset {end}, past its cut at {limit}: its taskmanager is of an older version; \
                     upgrade it"
                ));
            }
            let stands_still = split.needs_decision() && !cut.is_reached(id, split);
            stands_still.then(|| unreadable_reason(id, split))
        };
        self.splits.iter().find_map(reason)
    }

    pub(super) fn time_out_cut(&mut self) {
        if self.cut().is_some_and(|cut| cut.deadline <= self.now) {
            let timeout = self.settings.savepoints.cut_timeout;
            let waiting = self.waits_for().unwrap_or_else(|| "the checkpoint before it".to_owned());
            self.give_up_cut(&format!(
                "no offset cut within savepoint.cut_timeout ({timeout:?}): {waiting}; try again later, or with more time"
            ));
        }
    }

    /// The limits go with the cut: whatever has one is taken back and handed out without.
    pub(super) fn give_up_cut(&mut self, reason: &str) {
        let Some(request) = self.cut().map(|cut| cut.request) else { return };
        tracing::warn!(reason, "offset cut given up; the job goes on");
        self.phase = Phase::Running;
        self.reply(request, Reply::Failed { reason: format!("{reason}; the job goes on") });
    }

    /// The cut that is on its way.
    pub(super) fn cut(&self) -> Option<&Cut> {
        match &self.phase {
            Phase::Releasing(Purpose::Cut(cut)) | Phase::Cutting(cut) => Some(cut),
            _ => None,
        }
    }

    /// What a cut still waits for, in words.
    pub(super) fn waits_for(&self) -> Option<String> {
        let reasons: Vec<String> = match &self.phase {
            Phase::Cutting(cut) => {
                let hangs = |(id, split): (&SplitId, &Split)| {
                    let limit = cut.limit(id).filter(|_| !cut.is_reached(id, split))?;
                    Some(format!("split {id} is at offset {}, its cut at {limit}", split.state.progress.cursor))
                };
                self.splits.iter().filter_map(hangs).collect()
            }
            Phase::Releasing(Purpose::Cut(_)) => {
                let held = self.splits().filter(|split| split.state != "UNASSIGNED");
                held.map(|split| format!("split {} is {}", split.id, split.state)).collect()
            }
            _ => Vec::new(),
        };
        if reasons.is_empty() {
            return None;
        }
        let named = reasons[..reasons.len().min(MAX_NAMED)].join("; ");
        match reasons.len().saturating_sub(MAX_NAMED) {
            0 => Some(named),
            more => Some(format!("{named}; and {more} more splits")),
        }
    }

    /// Where a split must stop now.
    pub(super) fn limit_of(&self, split: &SplitId) -> Option<i64> {
        match &self.phase {
            Phase::Cutting(cut) => cut.limit(split),
            _ => None,
        }
    }

    /// While a cut is made, those that have come to it stay where they are, and so do new partitions.
    pub(super) fn is_left_alone(&self, id: &SplitId, split: &Split) -> bool {
        matches!(&self.phase, Phase::Cutting(cut) if cut.is_reached(id, split))
    }

    /// Splits whose owner was told to stop at an offset where they need not stop, or need to stop elsewhere.
    pub(super) fn take_back_limited(&mut self) {
        let mut stale: BTreeMap<TaskmanagerId, Vec<SplitId>> = BTreeMap::new();
        for (id, split) in &self.splits {
            if let Owner::Taskmanager(owner) = &split.owner
                && split.limit != self.limit_of(id)
                && self.listens(owner)
            {
                stale.entry(owner.clone()).or_default().push(id.clone());
            }
        }
        for (owner, splits) in stale {
            self.revoke(&owner, splits);
        }
    }
}

impl Cut {
    fn kind(&self) -> SnapshotKind {
        SnapshotKind::Savepoint { label: self.label.clone(), kind: SavepointKind::OffsetCut }
    }

    fn limit(&self, split: &SplitId) -> Option<i64> {
        self.limits.get(&split.topic_partition()).copied()
    }

    fn is_reached(&self, id: &SplitId, split: &Split) -> bool {
        self.limit(id).is_none_or(|limit| split.state.progress == Progress::at(limit))
    }
}

fn unreadable_reason(id: &SplitId, split: &Split) -> String {
    let failure = split.failure.as_ref().map(ToString::to_string).unwrap_or_default();
    format!("split {id} cannot be read, so that it never comes to a cut: {failure}")
}
