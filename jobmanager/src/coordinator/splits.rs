//! The life of a split: handed out, taken back, read anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use weir_common::{
    failure::SplitFailure,
    ids::{CheckpointId, SlotId, TaskmanagerId},
    split::{SplitId, TopicPartition},
};

use super::{
    Coordinator, Retry,
    action::Action,
    assignment,
    event::{SplitState, SplitStates},
    taskmanagers::Lease,
};

/// One split.
#[derive(Clone, Debug)]
pub(super) struct Split {
    /// The newest that is known to be durably committed.
    pub(super) state: SplitState,
    pub(super) owner: Owner,
    /// Since when it is on its way from one owner to the next.
    pub(super) moving_since: Option<Duration>,
    /// After a failure: not handed out before.
    pub(super) wait_until: Duration,
    /// It cannot be read.
    pub(super) failure: Option<SplitFailure>,
    /// Where its owner was told to stop.
    pub(super) limit: Option<i64>,
}

impl Split {
    /// It waits after a failure, or for an operator's decision.
    fn may_not_start(&self, now: Duration) -> bool {
        self.wait_until > now || self.needs_decision()
    }

    /// An operator must say where it goes on.
    pub(super) fn needs_decision(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.kind.needs_decision())
    }
}

/// How splits have moved from one taskmanager to another in this leadership.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// How many have.
    pub count: u64,
    /// From revocation or loss to the next owner's assignment, summed.
    pub total: Duration,
    /// The longest.
    pub longest: Duration,
}

impl Moves {
    fn add(&mut self, took: Duration) {
        self.count += 1;
        self.total += took;
        self.longest = took.max(self.longest);
    }
}

/// Who may work on a split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A taskmanager of an earlier leadership may hold it.
    Unknown,
    /// Free; its state is what stands in Kafka.
    Nobody,
    /// Assigned.
    Taskmanager(TaskmanagerId),
    /// Assigned, and asked to give it back.
    Releasing(TaskmanagerId),
    /// Its owner is gone; the owner's slot is being fenced.
    Fencing(SlotId),
    /// Free, and its stable progress is being read.
    Reading,
}

impl Owner {
    /// The taskmanager that may still work on it.
    pub(super) fn taskmanager(&self) -> Option<&TaskmanagerId> {
        match self {
            Self::Taskmanager(taskmanager) | Self::Releasing(taskmanager) => Some(taskmanager),
            Self::Unknown | Self::Nobody | Self::Fencing(_) | Self::Reading => None,
        }
    }
}

impl Coordinator {
    /// Min(cursor) of every partition.
    #[must_use]
    pub fn cursors(&self) -> BTreeMap<TopicPartition, i64> {
        let mut cursors = BTreeMap::new();
        for (id, split) in &self.splits {
            let cursor = split.state.progress.cursor;
            cursors
                .entry(id.topic_partition())
                .and_modify(|least: &mut i64| *least = cursor.min(*least))
                .or_insert(cursor);
        }
        cursors
    }

    /// Every split with the newest that is known to be durably committed.
    #[must_use]
    pub fn states(&self) -> SplitStates {
        self.splits.iter().map(|(id, split)| (id.clone(), split.state.clone())).collect()
    }

    pub(super) fn discovered(&mut self, splits: SplitStates) {
        let owner = if self.adoption_ends.is_some() { Owner::Unknown } else { Owner::Nobody };
        for (id, state) in splits {
            self.splits.entry(id).or_insert(Split {
                state,
                owner: owner.clone(),
                moving_since: None,
                wait_until: Duration::ZERO,
                failure: None,
                limit: None,
            });
        }
    }

    pub(super) fn reported(&mut self, from: &TaskmanagerId, checkpoint: Option<CheckpointId>, splits: SplitStates) {
        self.heard(from);
        self.note_commit(from, &splits);
        self.note_states(from, splits);
        if let Some(checkpoint) = checkpoint {
            self.checkpoints.reported(from, checkpoint);
        }
    }

    /// Takes over what an owner says is committed; what others own is not theirs to say.
    pub(super) fn note_states(&mut self, from: &TaskmanagerId, splits: SplitStates) {
        for (id, state) in splits {
            match self.splits.get_mut(&id) {
                Some(split) if split.owner.taskmanager() == Some(from) => split.state = state,
                _ => tracing::debug!(taskmanager = %from, split = %id, "report of a split it does not own: ignored"),
            }
        }
    }

    pub(super) fn released(&mut self, from: &TaskmanagerId, splits: SplitStates) {
        self.heard(from);
        let theirs = |coordinator: &Self, id: &SplitId| {
            coordinator.splits.get(id).is_some_and(|split| split.owner.taskmanager() == Some(from))
        };
        let released: Vec<SplitId> = splits.keys().filter(|id| theirs(self, id)).cloned().collect();
        self.note_states(from, splits);
        self.free(released);
    }

    /// Nobody works on these any more. Exactly-once: what stands in Kafka decides where they go on.
    pub(super) fn free(&mut self, splits: Vec<SplitId>) {
        let owner = if self.settings.exactly_once { Owner::Reading } else { Owner::Nobody };
        for id in &splits {
            if let Some(split) = self.splits.get_mut(id) {
                split.owner = owner.clone();
            }
        }
        if self.settings.exactly_once {
            self.read_progress(splits);
        }
    }

    pub(super) fn read_progress(&mut self, mut splits: Vec<SplitId>) {
        splits.retain(|id| self.splits.get(id).is_some_and(|split| split.owner == Owner::Reading));
        if !splits.is_empty() {
            self.actions.push(Action::ReadProgress { splits });
        }
    }

    pub(super) fn progress_read(&mut self, splits: SplitStates) {
        for (id, state) in splits {
            let Some(split) = self.splits.get_mut(&id).filter(|split| split.owner == Owner::Reading) else { continue };
            if !split.state.progress.is_covered_by(&state.progress) {
                tracing::warn!(
                    split = %id, known = split.state.progress.cursor, kafka = state.progress.cursor,
                    "committed progress in Kafka is behind what was reported: it was reset from outside, or the cluster \
                     lost data; going on from Kafka's, records may be repeated"
                );
            }
            (split.state, split.owner) = (state, Owner::Nobody);
        }
    }

    /// Hands out free splits, and takes back what others should have: one split at a time of each owner, so that a move
    /// costs the rest nothing; a draining owner gives all at once.
    pub(super) fn rebalance(&mut self) {
        self.revoke_from_draining();
        if !self.is_at_work() || self.adoption_ends.is_some() {
            return;
        }
        self.take_back_limited();
        let members: Vec<&TaskmanagerId> =
            self.taskmanagers.iter().filter(|(_, each)| each.takes_splits()).map(|(id, _)| id).collect();
        let current = self.splits.iter().filter_map(|(id, split)| Some((id, split.owner.taskmanager()?))).collect();
        let planned = assignment::plan(self.splits.keys(), &members, &current);
        let mut assigned: BTreeMap<TaskmanagerId, Vec<SplitId>> = BTreeMap::new();
        let mut revoked: BTreeMap<TaskmanagerId, SplitId> = BTreeMap::new();
        let busy: BTreeSet<&TaskmanagerId> = self.releasing().collect();
        for (id, target) in planned {
            match &self.splits[id].owner {
                Owner::Nobody if self.splits[id].may_not_start(self.now) => {}
                Owner::Nobody if self.is_left_alone(id, &self.splits[id]) => {}
                Owner::Nobody if self.taskmanagers[target].connected => {
                    assigned.entry(target.clone()).or_default().push(id.clone());
                }
                Owner::Taskmanager(owner) if owner != target && !busy.contains(owner) && self.listens(owner) => {
                    revoked.entry(owner.clone()).or_insert_with(|| id.clone());
                }
                _ => {}
            }
        }
        for (taskmanager, splits) in assigned {
            self.assign(&taskmanager, splits);
        }
        for (owner, split) in revoked {
            self.revoke(&owner, vec![split]);
        }
    }

    fn releasing(&self) -> impl Iterator<Item = &TaskmanagerId> {
        self.splits.values().filter_map(|split| match &split.owner {
            Owner::Releasing(taskmanager) => Some(taskmanager),
            _ => None,
        })
    }

    fn revoke_from_draining(&mut self) {
        let draining: Vec<TaskmanagerId> =
            self.taskmanagers.iter().filter(|(_, each)| each.draining).map(|(id, _)| id.clone()).collect();
        for taskmanager in draining {
            self.revoke_all(&taskmanager);
        }
    }

    pub(super) fn revoke_all(&mut self, taskmanager: &TaskmanagerId) {
        if !self.listens(taskmanager) {
            return;
        }
        let owned = Owner::Taskmanager(taskmanager.clone());
        let splits = self.splits.iter().filter(|(_, split)| split.owner == owned).map(|(id, _)| id.clone()).collect();
        self.revoke(taskmanager, splits);
    }

    pub(super) fn listens(&self, taskmanager: &TaskmanagerId) -> bool {
        self.taskmanagers.get(taskmanager).is_some_and(|each| each.connected)
    }

    fn assign(&mut self, to: &TaskmanagerId, splits: Vec<SplitId>) {
        let mut states = SplitStates::new();
        let mut limits = BTreeMap::new();
        for id in splits {
            let limit = self.limit_of(&id);
            limits.extend(limit.map(|limit| (id.topic_partition(), limit)));
            if let Some(split) = self.splits.get_mut(&id) {
                split.limit = limit;
                split.owner = Owner::Taskmanager(to.clone());
                split.failure = None;
                if let Some(since) = split.moving_since.take() {
                    self.moves.add(self.now.saturating_sub(since));
                }
                states.insert(id, split.state.clone());
            }
        }
        self.actions.push(Action::SendAssign { taskmanager: to.clone(), splits: states, limits });
    }

    pub(super) fn revoke(&mut self, from: &TaskmanagerId, splits: Vec<SplitId>) {
        if splits.is_empty() {
            return;
        }
        for id in &splits {
            if let Some(split) = self.splits.get_mut(id) {
                split.owner = Owner::Releasing(from.clone());
                split.moving_since = Some(self.now);
            }
        }
        self.actions.push(Action::SendRevoke { taskmanager: from.clone(), splits });
    }

    /// After a broken stream: what it says it holds, against what we believe. Messages on the way were lost.
    pub(super) fn settle(&mut self, taskmanager: &TaskmanagerId, held: SplitStates) {
        let (mut lost_assign, mut lost_revoke, mut lost_release) = (SplitStates::new(), Vec::new(), Vec::new());
        for (id, split) in &self.splits {
            match &split.owner {
                Owner::Taskmanager(owner) if owner == taskmanager && !held.contains_key(id) => {
                    lost_assign.insert(id.clone(), split.state.clone());
                }
                Owner::Releasing(owner) if owner == taskmanager => {
                    if held.contains_key(id) { &mut lost_revoke } else { &mut lost_release }.push(id.clone());
                }
                _ => {}
            }
        }
        self.note_states(taskmanager, held);
        self.free(lost_release);
        // The splits are not ours to assign where they stand in memory: an Assign that did arrive, was worked on and then
        // dropped would be behind. So they are read again, and assigned with the rest.
        self.free(lost_assign.into_keys().collect());
        self.revoke(taskmanager, lost_revoke);
    }

    /// Takes every split of a slot's former owner away from it; they wait until then.
    pub(super) fn strip(&mut self, taskmanager: &TaskmanagerId, owner: &Owner, wait_until: Duration) {
        for split in self.splits.values_mut() {
            if split.owner.taskmanager() == Some(taskmanager) {
                split.owner = owner.clone();
                split.moving_since = Some(self.now);
                split.wait_until = wait_until;
            }
        }
    }

    pub(super) fn owns_any(&self, taskmanager: &TaskmanagerId) -> bool {
        self.splits.values().any(|split| split.owner.taskmanager() == Some(taskmanager))
    }

    pub(super) fn splits_with(&self, owner: &Owner) -> Vec<SplitId> {
        self.splits.iter().filter(|(_, split)| split.owner == *owner).map(|(id, _)| id.clone()).collect()
    }

    /// A slot is fenced: the splits of whoever had it are free.
    pub(super) fn slot_fenced(&mut self, slot: SlotId) {
        if self.unfence(slot) {
            let splits = self.splits_with(&Owner::Fencing(slot));
            self.free(splits);
        }
        self.retries.retain(|(_, retry)| !matches!(retry, Retry::Fence(other) if *other == slot));
        self.abort_fenced(slot);
    }

    pub(super) fn slot_ready(&mut self, from: &TaskmanagerId, grant: weir_common::ids::GrantId) {
        self.heard(from);
        if let Some(taskmanager) = self.taskmanagers.get_mut(from)
            && let Lease::Granted(slot, granted) = taskmanager.lease
            && granted == grant
        {
            taskmanager.lease = Lease::Ready(slot, grant);
        }
    }
}
