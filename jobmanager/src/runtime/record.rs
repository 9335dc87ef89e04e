//! The job record is written before a grant is sent, so that a next jobmanager knows every slot that may be in use. And a
//! slot that was fenced leaves it before its splits are handed on: a former holder who comes back to a next jobmanager
//! before the new ones would be adopted with splits that are theirs.
//!
//! One write at a time; what comes meanwhile waits for the next. What waits is done only after a write that knew of it.

use std::collections::BTreeSet;

use weir_common::{
    ids::{GrantId, LeaderEpoch, SlotId, TaskmanagerId},
    split::SplitsPerPartition,
};

use super::{Command, RETRY_DELAY, Runtime, Trouble};
use crate::{
    coordinator::event::{Event, Grants, SplitStates},
    start::{JobRecord, topics::KnownTopics},
    store::keys::SnapshotId,
};

/// What is done once the record is written.
#[derive(Clone, Debug)]
pub(super) enum Then {
    /// Send the grant, if it still stands.
    Grant { taskmanager: TaskmanagerId, slot: SlotId, grant: GrantId },
    /// Rewind progress.
    WriteProgress { splits: SplitStates },
    /// Tell the coordinator that it is known whether the job rests.
    RestRecorded,
    /// Tell the coordinator that a slot is fenced.
    Fenced { slot: SlotId },
    /// Nothing: Kafka forgets offsets that nobody has committed for seven days.
    Renewed,
}

/// What is recorded and what waits for it.
#[derive(Debug)]
pub(super) struct Recorder {
    leader_epoch: LeaderEpoch,
    splits_per_partition: SplitsPerPartition,
    rewound: Option<SnapshotId>,
    suspended: bool,
    topics: KnownTopics,
    recorded: Grants,
    /// Of which the coordinator does not know yet.
    fenced: BTreeSet<SlotId>,
    writing: bool,
    dirty: bool,
    /// For the write on the way.
    covered: Vec<Then>,
    /// For the next one.
    waiting: Vec<Then>,
}

impl Recorder {
    pub(super) fn new(
        leader_epoch: LeaderEpoch,
        splits_per_partition: SplitsPerPartition,
        recorded: Grants,
        rewound: Option<SnapshotId>,
        suspended: bool,
        topics: KnownTopics,
    ) -> Self {
        Self {
            leader_epoch,
            splits_per_partition,
            rewound,
            suspended,
            topics,
            recorded,
            fenced: BTreeSet::new(),
            writing: false,
            dirty: false,
            covered: Vec::new(),
            waiting: Vec::new(),
        }
    }

    pub(super) fn record(&self, slots: Grants) -> JobRecord {
        JobRecord {
            leader_epoch: self.leader_epoch,
            splits_per_partition: self.splits_per_partition,
            slots,
            rewound: self.rewound,
            suspended: self.suspended,
            topics: self.topics.clone(),
        }
    }

    /// The next write is made although nothing has changed.
    pub(super) fn renew(&mut self) {
        self.dirty = true;
    }

    /// Whether a next jobmanager finds the job suspended.
    pub(super) fn rest(&mut self, suspended: bool) {
        self.suspended = suspended;
        self.dirty = true;
    }

    /// The progress belongs to these topics.
    pub(super) fn know(&mut self, topics: KnownTopics) {
        if self.topics != topics {
            self.topics = topics;
            self.dirty = true;
        }
    }

    /// Snapshots up to this one are ahead of the progress on purpose.
    pub(super) fn rewind(&mut self, upto: SnapshotId) {
        self.rewound = Some(upto);
        self.dirty = true;
    }
}

impl Runtime {
    /// Does something that the record must know of first.
    pub(super) fn record_then(&mut self, then: Then) {
        self.recorder.waiting.push(then);
        self.record();
    }

    pub(super) fn slot_fenced(&mut self, slot: SlotId) {
        self.recorder.fenced.insert(slot);
        self.recorder.dirty = true;
        self.record_then(Then::Fenced { slot });
    }

    pub(super) fn record(&mut self) {
        if self.recorder.writing || self.recorder.waiting.is_empty() {
            return;
        }
        self.recorder.covered = std::mem::take(&mut self.recorder.waiting);
        let mut slots: Grants = self.coordinator.slots_in_use().collect();
        slots.retain(|slot, _| !self.recorder.fenced.contains(slot));
        let known = |(slot, grant)| self.recorder.recorded.get(slot) == Some(grant);
        if !self.shared.exactly_once || (!self.recorder.dirty && slots.iter().all(known)) {
            return self.recorded(Ok(self.recorder.recorded.clone()));
        }
        self.recorder.writing = true;
        self.recorder.dirty = false;
        let record = self.recorder.record(slots.clone());
        let backend = self.shared.backend.clone();
        self.shared.spawn(async move {
            let written = backend.write_record(record).await;
            Command::Recorded { result: written.map(|()| slots).map_err(|error| error.to_string()) }
        });
    }

    pub(super) fn recorded(&mut self, result: Result<Grants, String>) {
        self.recorder.writing = false;
        self.note(Trouble::of("job record", &result));
        let covered = std::mem::take(&mut self.recorder.covered);
        match result {
            Ok(slots) => {
                self.recorder.recorded = slots;
                covered.into_iter().for_each(|then| self.proceed(then));
                self.record();
            }
            Err(_) => {
                self.recorder.dirty = true;
                self.recorder.waiting.splice(0..0, covered);
                self.shared.spawn(async {
                    tokio::time::sleep(RETRY_DELAY).await;
                    Command::RecordAgain
                });
            }
        }
    }

    fn proceed(&mut self, then: Then) {
        match then {
            Then::Grant { taskmanager, slot, grant } => {
                if self.coordinator.grant(&taskmanager) == Some((slot, grant)) {
                    self.send_grant(&taskmanager, slot, grant);
                }
            }
            Then::Fenced { slot } => {
                self.recorder.fenced.remove(&slot);
                self.apply(Event::SlotFenced { slot });
            }
            Then::WriteProgress { splits } => self.write_progress(splits),
            Then::RestRecorded => self.apply(Event::RestRecorded),
            Then::Renewed => {}
        }
    }
}
