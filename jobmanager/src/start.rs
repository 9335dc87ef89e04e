//! Where a job goes on: the start rules, as a decision over facts already read.
//!
//! Exactly-once: the truth is the progress in Kafka, committed with the output; the snapshot is a copy.
//!
//! | progress in Kafka | newest snapshot | a split goes on from |
//! |---|---|---|
//! | there | behind, or none | progress; normal |
//! | behind the snapshot | there | snapshot, loudly, unless an operator had rewound the progress since |
//! | missing | there | snapshot, loudly |
//! | missing | none | the configured start |
//!
//! At-least-once: the newest snapshot, else the configured start.
//!
//! What snapshots mean that cannot be used is in [`storage`], what another number of splits means in [`reshape`].

pub mod reshape;
pub mod storage;
pub mod topics;

use std::collections::{BTreeMap, BTreeSet};

use weir_common::{
    ids::{CheckpointId, LeaderEpoch, SlotId},
    split::{SplitId, SplitsPerPartition, TopicName, TopicPartition},
};

use self::reshape::Told;
pub use self::reshape::{Former, ShapeChanged};
use self::topics::{KnownTopics, TopicIds};
use crate::{
    coordinator::event::{Grants, SplitState, SplitStates},
    store::keys::SnapshotId,
};

/// The job record: what the last jobmanager wrote about the job as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRecord {
    /// The last leader's.
    pub leader_epoch: LeaderEpoch,
    /// What the progress was made with; see [`reshape`].
    pub splits_per_partition: SplitsPerPartition,
    /// Slots whose holders may still live. One that was fenced leaves the record before its splits are handed on.
    pub slots: Grants,
    /// An operator rewound progress; snapshots up to this one are ahead of it on purpose.
    pub rewound: Option<SnapshotId>,
    /// An operator suspended the job.
    pub suspended: bool,
    /// The source topics that the progress belongs to.
    pub topics: KnownTopics,
}

/// The newest snapshot, as far as a start needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFacts {
    /// Which.
    pub id: SnapshotId,
    /// What its splits are parts of.
    pub splits_per_partition: SplitsPerPartition,
    /// Slots that were leased then.
    pub slots: BTreeSet<SlotId>,
    /// Its splits.
    pub splits: SplitStates,
}

/// What was read before the decision.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Whether Kafka keeps the progress.
    pub exactly_once: bool,
    /// As configured.
    pub splits_per_partition: SplitsPerPartition,
    /// The source's partitions, each with the offset of the configured start.
    pub partitions: BTreeMap<TopicPartition, i64>,
    /// The source's topics, as far as their ids are known.
    pub topics: TopicIds,
    /// Exactly-once, and not the job's first start.
    pub record: Option<JobRecord>,
    /// Progress in Kafka, of all splits that ever were, made with the configured number of splits.
    pub progress: SplitStates,
    /// In place of it, where the job had another number.
    pub former: Option<Former>,
    /// The newest snapshot; `None` as well when storage does not answer.
    pub snapshot: Option<SnapshotFacts>,
}

/// How loud a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// As it should be.
    Info,
    /// The operator should know; status shows it.
    Warning,
}

/// One thing that was found, for log and status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How loud.
    pub severity: Severity,
    /// What.
    pub text: String,
}

/// How the job starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Of this leadership.
    pub leader_epoch: LeaderEpoch,
    /// Above all earlier ones.
    pub first_checkpoint: CheckpointId,
    /// Slots whose holders may be adopted.
    pub orphaned_slots: Grants,
    /// Every split with what it goes on from.
    pub splits: SplitStates,
    /// Exactly-once: splits that have no entry in Kafka yet, or a wrong one.
    pub to_write: Vec<SplitId>,
    /// Slots that must be fenced before anything is written over progress that somebody may still commit. After that the
    /// progress must be read and the start decided anew: it may have moved until the fence.
    pub fence_first: Vec<SlotId>,
    /// Carried over, see [`JobRecord::rewound`].
    pub rewound: Option<SnapshotId>,
    /// Carried over, see [`JobRecord::suspended`].
    pub suspended: bool,
    /// See [`JobRecord::topics`].
    pub topics: KnownTopics,
    /// Topics that were made anew since, with what to tell the operator: nothing of them is read before an operator has said
    /// where to go on.
    pub recreated: BTreeMap<TopicName, String>,
    /// For log and status.
    pub findings: Vec<Finding>,
}

/// Decides.
///
/// # Errors
/// `splits_per_partition` is not what it was, and progress cannot be told in it.
pub fn plan(facts: &Facts) -> Result<Plan, ShapeChanged> {
    let Told { facts, was } = &reshape::in_configured_shape(facts)?;
    let mut sorted = Sorted::default();
    let mut splits = SplitStates::new();
    for (partition, start) in &facts.partitions {
        for index in 0..facts.splits_per_partition.get() {
            let id = SplitId { topic: partition.topic.clone(), partition: partition.partition, index };
            let state = choose(facts, &id, *start, &mut sorted);
            splits.insert(id, state);
        }
    }
    let recorded: Grants = match (&facts.record, &facts.snapshot) {
        (Some(record), _) => record.slots.clone(),
        // Exactly-once its record was reset with the progress: whoever still works must be fenced all the same.
        (None, Some(snapshot)) => snapshot.slots.iter().map(|slot| (*slot, None)).collect(),
        (None, None) => Grants::new(),
    };
    // Whoever still works on a split whose entry is gone keeps committing to the old place, and this start may choose another.
    // At-least-once keeps nothing in Kafka that could be overwritten.
    let overwrites = facts.exactly_once && (was.is_some() || !(sorted.behind.is_empty() && sorted.missing.is_empty()));
    let epochs = [facts.record.as_ref().map(|record| record.leader_epoch), facts.snapshot.as_ref().map(|s| s.id.epoch)];
    let last_checkpoint = facts.snapshot.as_ref().map_or(CheckpointId(0), |snapshot| snapshot.id.checkpoint);
    let mut topics = facts.record.as_ref().map(|record| record.topics.clone()).unwrap_or_default();
    let recreated = topics.compare(&facts.topics);
    let mut findings = sorted.findings(facts);
    findings.extend(was.map(|was| reshape::finding(was, facts.splits_per_partition)));
    findings.extend(recreated.values().map(|text| Finding { severity: Severity::Warning, text: text.clone() }));
    let mut to_write = Vec::new();
    if facts.exactly_once {
        let wrong = [&sorted.behind, &sorted.missing, &sorted.fresh].into_iter().flatten();
        to_write = if was.is_some() { splits.keys().cloned().collect() } else { wrong.cloned().collect() };
        to_write.sort();
    }
    Ok(Plan {
        leader_epoch: epochs.into_iter().flatten().max().unwrap_or_default().next(),
        first_checkpoint: last_checkpoint.next(),
        // Who is fenced cannot be adopted.
        fence_first: if overwrites { recorded.keys().copied().collect() } else { Vec::new() },
        orphaned_slots: if overwrites || was.is_some() { Grants::new() } else { recorded },
        splits,
        to_write,
        rewound: facts.record.as_ref().and_then(|record| record.rewound),
        suspended: facts.record.as_ref().is_some_and(|record| record.suspended),
        topics,
        recreated,
        findings,
    })
}

/// Splits by what was decided about them.
#[derive(Debug, Default)]
struct Sorted {
    /// Progress, as it should be.
    progress: Vec<SplitId>,
    /// Of those: the snapshot is ahead, since an operator had rewound them.
    rewound: Vec<SplitId>,
    /// Snapshot, for progress is behind it.
    behind: Vec<SplitId>,
    /// Snapshot, for there is no progress.
    missing: Vec<SplitId>,
    /// Configured start.
    fresh: Vec<SplitId>,
}

fn choose(facts: &Facts, id: &SplitId, start: i64, sorted: &mut Sorted) -> SplitState {
    let progress = facts.progress.get(id).filter(|_| facts.exactly_once);
    let snapshot = facts.snapshot.as_ref().and_then(|snapshot| Some((snapshot.id, snapshot.splits.get(id)?)));
    let (list, state) = match (progress, snapshot) {
        (Some(progress), Some((_, copy))) if copy.progress.is_covered_by(&progress.progress) => {
            (&mut sorted.progress, progress.clone())
        }
        (Some(progress), Some((made, copy))) => {
            let on_purpose = facts.record.as_ref().and_then(|record| record.rewound).is_some_and(|upto| made <= upto);
            if on_purpose { (&mut sorted.rewound, progress.clone()) } else { (&mut sorted.behind, copy.clone()) }
        }
        (Some(progress), None) => (&mut sorted.progress, progress.clone()),
        (None, Some((_, copy))) => (&mut sorted.missing, copy.clone()),
        (None, None) => {
            let progress = weir_common::progress::Progress::at(start);
            (&mut sorted.fresh, SplitState { progress, ..SplitState::default() })
        }
    };
    list.push(id.clone());
    state
}

impl Sorted {
    fn findings(&self, facts: &Facts) -> Vec<Finding> {
        let snapshot = facts.snapshot.as_ref().map_or_else(String::new, |snapshot| snapshot.id.to_string());
        let mut findings = Vec::new();
        let mut add = |severity, splits: &[SplitId], text: &str| {
            if !splits.is_empty() {
                findings.push(Finding { severity, text: format!("{}: {text}", name(splits)) });
            }
        };
        add(Severity::Info, &self.progress, "goes on from the progress in Kafka");
        add(Severity::Info, &self.rewound, "goes on from the progress in Kafka, which an operator had rewound");
        let behind = format!(
            "progress in Kafka is behind snapshot {snapshot}: it was reset from outside, or the cluster lost data; goes on \
             from the snapshot, fencing all slots first"
        );
        add(Severity::Warning, &self.behind, &behind);
        if facts.exactly_once {
            let missing = format!(
                "no readable progress in Kafka (deleted, expired, reset from outside, or another cluster); goes on from snapshot \
                 {snapshot}, whatever was committed after it comes twice"
            );
            add(Severity::Warning, &self.missing, &missing);
        } else {
            add(Severity::Info, &self.missing, &format!("goes on from snapshot {snapshot}"));
        }
        let first_start = facts.record.is_none() && facts.snapshot.is_none();
        let fresh =
            if first_start { "first start, from the configured offset" } else { "new, from its configured offset" };
        add(Severity::Info, &self.fresh, fresh);
        findings
    }
}

/// `12 splits of eqiad.stream-0, …`
fn name(splits: &[SplitId]) -> String {
    const MAX_NAMED: usize = 4;
    let partitions: BTreeSet<TopicPartition> = splits.iter().map(SplitId::topic_partition).collect();
    let named: Vec<String> = partitions.iter().take(MAX_NAMED).map(ToString::to_string).collect();
    let more = partitions.len().saturating_sub(MAX_NAMED);
    let more = if more > 0 { format!(" and {more} more partitions") } else { String::new() };
    let count = splits.len();
    let unit = if count == 1 { "split" } else { "splits" };
    format!("{count} {unit} of {}{more}", named.join(", "))
}

#[cfg(test)]
pub(crate) mod tests {
    use weir_common::{ids::GrantId, progress::Progress};

    use super::*;

    const TWO: u32 = 2;

    fn count(splits: u32) -> SplitsPerPartition {
        SplitsPerPartition::new(splits).expect("legal")
    }

    fn split(index: u32) -> SplitId {
        SplitId { topic: "t".into(), partition: 0, index }
    }

    fn at(cursor: i64) -> SplitState {
        SplitState { progress: Progress::at(cursor), ..SplitState::default() }
    }

    fn both(cursor: i64) -> SplitStates {
        [(split(0), at(cursor)), (split(1), at(cursor))].into()
    }

    fn id(epoch: u64, checkpoint: u64) -> SnapshotId {
        SnapshotId { epoch: LeaderEpoch(epoch), checkpoint: CheckpointId(checkpoint) }
    }

    pub(crate) fn facts(progress: Option<i64>, snapshot: Option<i64>) -> Facts {
        let record = JobRecord {
            leader_epoch: LeaderEpoch(4),
            splits_per_partition: count(TWO),
            slots: [(SlotId(0), Some(GrantId(5))), (SlotId(1), None)].into(),
            rewound: None,
            suspended: false,
            topics: KnownTopics::default(),
        };
        let stored = |cursor| SnapshotFacts {
            id: id(3, 30),
            splits_per_partition: count(TWO),
            slots: [SlotId(7)].into(),
            splits: both(cursor),
        };
        Facts {
            exactly_once: true,
            splits_per_partition: count(TWO),
            topics: TopicIds::new(),
            partitions: [(TopicPartition { topic: "t".into(), partition: 0 }, 5)].into(),
            record: progress.map(|_| record),
            progress: progress.map(both).unwrap_or_default(),
            former: None,
            snapshot: snapshot.map(stored),
        }
    }

    #[test]
    fn the_table_of_the_start_rules() {
        struct Case {
            progress: Option<i64>,
            snapshot: Option<i64>,
            goes_on_from: i64,
            writes: bool,
            loud: bool,
        }
        let case =
            |progress, snapshot, goes_on_from, writes, loud| Case { progress, snapshot, goes_on_from, writes, loud };
        let cases = [
            case(Some(20), Some(10), 20, false, false),
            case(Some(20), Some(20), 20, false, false),
            case(Some(20), None, 20, false, false),
            case(Some(10), Some(20), 20, true, true),
            case(None, Some(20), 20, true, true),
            case(None, None, 5, true, false),
        ];
        for Case { progress, snapshot, goes_on_from, writes, loud } in cases {
            let plan = plan(&facts(progress, snapshot)).expect("same shape");
            let name = format!("{progress:?} {snapshot:?}");
            assert_eq!(plan.splits, both(goes_on_from), "{name}");
            assert_eq!(plan.to_write.len(), if writes { 2 } else { 0 }, "{name}");
            let warned = plan.findings.iter().any(|finding| finding.severity == Severity::Warning);
            assert_eq!(warned, loud, "{name}: {:?}", plan.findings);
            assert_eq!(plan.findings.len(), 1, "{name}");
        }
    }

    #[test]
    fn epoch_and_checkpoints_grow_over_everything_known() {
        let both_known = plan(&facts(Some(1), Some(1))).expect("same shape");
        assert_eq!((both_known.leader_epoch, both_known.first_checkpoint), (LeaderEpoch(5), CheckpointId(31)));
        let snapshot_only = plan(&facts(None, Some(1))).expect("same shape");
        assert_eq!((snapshot_only.leader_epoch, snapshot_only.first_checkpoint), (LeaderEpoch(4), CheckpointId(31)));
        let nothing = plan(&facts(None, None)).expect("same shape");
        assert_eq!((nothing.leader_epoch, nothing.first_checkpoint), (LeaderEpoch(1), CheckpointId(1)));
    }

    #[test]
    fn recorded_slots_are_adopted_but_fenced_where_progress_is_overwritten() {
        let normal = plan(&facts(Some(20), Some(10))).expect("same shape");
        assert_eq!((normal.orphaned_slots.len(), normal.fence_first.len()), (2, 0));
        let behind = plan(&facts(Some(10), Some(20))).expect("same shape");
        assert_eq!((behind.orphaned_slots.len(), behind.fence_first.len()), (0, 2));
        // The whole group was reset, while taskmanagers may work on: only the snapshot still knows of them.
        let reset = plan(&facts(None, Some(20))).expect("same shape");
        assert_eq!((reset.orphaned_slots.len(), reset.fence_first), (0, vec![SlotId(7)]));
    }

    #[test]
    fn a_split_whose_entry_alone_is_gone_goes_on_from_the_snapshot_after_a_fence() {
        let mut facts = facts(Some(20), Some(10));
        facts.progress.remove(&split(1));
        let plan = plan(&facts).expect("same shape");
        assert_eq!((plan.splits[&split(0)].clone(), plan.splits[&split(1)].clone()), (at(20), at(10)));
        assert_eq!((plan.to_write, plan.fence_first.len(), plan.orphaned_slots.len()), (vec![split(1)], 2, 0));
        let loud: Vec<_> = plan.findings.iter().filter(|finding| finding.severity == Severity::Warning).collect();
        assert!(loud.len() == 1 && loud[0].text.starts_with("1 split of t-0: no readable progress"), "{loud:?}");
    }

    #[test]
    fn progress_that_an_operator_rewound_stays_rewound_until_a_newer_snapshot() {
        let mut facts = facts(Some(10), Some(20));
        for (upto, goes_on_from) in [(id(3, 30), 10), (id(3, 29), 20), (id(2, 99), 20)] {
            facts.record = facts.record.map(|record| JobRecord { rewound: Some(upto), ..record });
            assert_eq!(plan(&facts).expect("same shape").splits, both(goes_on_from), "{upto}");
        }
    }

    #[test]
    fn at_least_once_goes_on_from_the_snapshot_and_adopts_its_slots() {
        let mut facts = facts(None, Some(20));
        facts.exactly_once = false;
        facts.progress = both(99);
        let plan = plan(&facts).expect("same shape");
        assert_eq!((plan.splits, plan.to_write, plan.orphaned_slots), (both(20), vec![], [(SlotId(7), None)].into()));
        assert!(plan.findings.iter().all(|finding| finding.severity == Severity::Info));
    }

    #[test]
    fn new_partitions_start_as_configured_beside_old_ones() {
        let mut facts = facts(Some(20), Some(10));
        facts.partitions.insert(TopicPartition { topic: "t".into(), partition: 1 }, 0);
        let plan = plan(&facts).expect("same shape");
        let new = SplitId { partition: 1, ..split(0) };
        assert_eq!((plan.splits[&new].clone(), plan.splits[&split(0)].clone()), (at(0), at(20)));
        assert_eq!(plan.to_write, [new, SplitId { partition: 1, ..split(1) }]);
    }
}
