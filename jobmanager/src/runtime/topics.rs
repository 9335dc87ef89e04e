//! Whether the source's topics are still those that the progress belongs to.
//!
//! They are looked at with each discovery, and before anything is assigned of a topic that was gone for a while. What is
//! found is told to the coordinator once; an operator who moves all of its splits accepts the topic as it is now.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use weir_common::{failure::FailureKind, ids::TaskmanagerId, split::TopicName};

use super::{Command, Runtime, Trouble, record::Then};
use crate::{
    coordinator::{
        action::Action,
        event::{Event, SplitStates},
    },
    start::topics::{KnownTopics, TopicIds},
};

/// See the module.
#[derive(Debug)]
pub(super) struct Topics {
    /// Those that the progress belongs to.
    known: KnownTopics,
    /// As they were last seen.
    seen: TopicIds,
    /// Other topics than known, as the coordinator was told.
    told: TopicIds,
    /// Accepted as seen when their new progress is written.
    accepting: Vec<TopicName>,
    /// Were gone: who knows what comes back under the name.
    gone: BTreeSet<TopicName>,
    /// What waits for the next look, in order.
    held_back: BTreeMap<TaskmanagerId, Vec<Action>>,
}

impl Topics {
    pub(super) fn new(known: KnownTopics) -> Self {
        let (seen, told) = (TopicIds::new(), TopicIds::new());
        Self { known, seen, told, accepting: Vec::new(), gone: BTreeSet::new(), held_back: BTreeMap::new() }
    }
}

impl Runtime {
    /// Asks for the topics' ids.
    pub(super) fn look_at_topics(&self) {
        if !self.shared.exactly_once {
            // Nothing is recorded that they could be held against.
            return;
        }
        let backend = Arc::clone(&self.shared.backend);
        self.shared.spawn(async move {
            let ids = backend.topic_ids().await.map_err(|error| error.to_string());
            Command::TopicsSeen { ids }
        });
    }

    pub(super) fn topics_seen(&mut self, ids: Result<TopicIds, String>) {
        self.note(Trouble::of("source topics", &ids));
        // Without an answer nothing is read of them either.
        let seen = ids.unwrap_or_default();
        let recreated = self.topics.known.compare(&seen);
        self.recorder.know(self.topics.known.clone());
        self.topics.gone.retain(|topic| !seen.contains_key(topic));
        self.topics.seen.extend(seen);
        for action in std::mem::take(&mut self.topics.held_back).into_values().flatten() {
            self.perform_now(action);
        }
        for (topic, message) in recreated {
            let id = self.topics.seen.get(&topic).cloned().unwrap_or_default();
            if self.topics.told.insert(topic.clone(), id.clone()) != Some(id) {
                tracing::error!(%topic, message, "nothing of this topic is read any more");
                self.apply(Event::TopicRecreated { topic, message });
            }
        }
    }

    /// Splits of the topic cannot be read since it is not there.
    pub(super) fn topic_gone(&mut self, topics: impl IntoIterator<Item = TopicName>) {
        self.topics.gone.extend(topics);
        self.look_at_topics();
    }

    /// Performs an action; an assignment waits until it is known which topic it is about, and whatever else goes to that
    /// taskmanager waits behind it.
    pub(super) fn perform(&mut self, action: Action) {
        let Some(taskmanager) = action.addressee().cloned() else { return self.perform_now(action) };
        let of_gone = |splits: &SplitStates| splits.keys().any(|split| self.topics.gone.contains(&split.topic));
        let waits = matches!(&action, Action::SendAssign { splits, .. } if self.shared.exactly_once && of_gone(splits));
        if !waits && !self.topics.held_back.contains_key(&taskmanager) {
            return self.perform_now(action);
        }
        let first = self.topics.held_back.is_empty();
        self.topics.held_back.entry(taskmanager).or_default().push(action);
        if first {
            self.look_at_topics();
        }
    }

    /// An operator moves these splits. A topic none of whose other splits waits for the same is accepted with that.
    pub(super) fn moved(&mut self, splits: &SplitStates) {
        let waits = |topic: &TopicName| {
            self.coordinator.splits().any(|split| {
                let recreated =
                    |failure: &weir_common::failure::SplitFailure| failure.kind == FailureKind::TopicRecreated;
                split.id.topic == *topic
                    && split.failure.as_ref().is_some_and(recreated)
                    && !splits.contains_key(&split.id)
            })
        };
        let accepted: Vec<TopicName> = self.topics.told.keys().filter(|topic| !waits(topic)).cloned().collect();
        self.topics.accepting = accepted;
    }

    /// The progress of moved splits is written, or is not. It comes first: a jobmanager that dies between the two finds the
    /// topic another one still, and asks once more.
    pub(super) fn progress_written(&mut self, written: bool) {
        let accepted = std::mem::take(&mut self.topics.accepting);
        if !written || accepted.is_empty() {
            return;
        }
        for topic in accepted {
            self.topics.known.accept(&topic, &self.topics.seen);
            self.topics.told.remove(&topic);
        }
        self.recorder.know(self.topics.known.clone());
        self.record_then(Then::Renewed);
    }
}
