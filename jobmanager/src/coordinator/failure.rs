//! Splits that cannot be read: taken back, then tried again as the restart strategy says, or left alone until an operator
//! has decided where they go on.

use std::collections::BTreeMap;

use weir_common::{
    failure::{FailureKind, SplitFailure},
    ids::TaskmanagerId,
    split::SplitId,
};

use super::{Coordinator, splits::Owner};

impl Coordinator {
    /// What others own, or nobody, is not theirs to complain of.
    pub(super) fn splits_failed(&mut self, from: &TaskmanagerId, splits: Vec<SplitId>, failure: SplitFailure) {
        self.heard(from);
        let owned =
            |id: &SplitId| self.splits.get(id).is_some_and(|split| split.owner == Owner::Taskmanager(from.clone()));
        let failed: Vec<SplitId> = splits.into_iter().filter(owned).collect();
        let Some(first) = failed.first() else { return };
        let wait_until = if failure.kind.needs_decision() {
            self.now
        } else {
            self.failure(&format!("split {first} cannot be read: {failure}"))
        };
        self.take_back(failed, &failure, wait_until);
    }

    /// Nothing of the topic may be read on, whoever has it.
    pub(super) fn topic_recreated(&mut self, topic: &str, message: &str) {
        let failure = SplitFailure { kind: FailureKind::TopicRecreated, message: message.to_owned() };
        let known = |split: &super::Split| split.failure.as_ref().is_some_and(|known| known.kind == failure.kind);
        let of_topic = self.splits.iter().filter(|(id, split)| *id.topic == *topic && !known(split));
        let splits: Vec<SplitId> = of_topic.map(|(id, _)| id.clone()).collect();
        self.take_back(splits, &failure, self.now);
    }

    fn take_back(&mut self, splits: Vec<SplitId>, failure: &SplitFailure, wait_until: std::time::Duration) {
        let mut owned: BTreeMap<TaskmanagerId, Vec<SplitId>> = BTreeMap::new();
        for id in splits {
            let Some(split) = self.splits.get_mut(&id) else { continue };
            (split.failure, split.wait_until) = (Some(failure.clone()), wait_until);
            if let Owner::Taskmanager(taskmanager) = &split.owner {
                owned.entry(taskmanager.clone()).or_default().push(id);
            }
        }
        for (taskmanager, splits) in owned {
            if self.listens(&taskmanager) {
                self.revoke(&taskmanager, splits);
            }
        }
    }
}
