//! A start with another number of splits per partition than the job had.
//!
//! What the key ranges of one number have finished cannot be told in another, but for one case: all of a partition have come to
//! the same offset, and nothing above it is finished. Then every new key range goes on there. That is what an offset cut leaves
//! behind; whoever stands at one by chance may change the number as well.
//!
//! Counters are kept by key range, and the new ranges are others: the first of a partition carries on what all of them had
//! counted, so that each partition's sums stay right.

use std::collections::{BTreeMap, BTreeSet};

use weir_common::{
    progress::Progress,
    split::{SplitId, SplitsPerPartition, TopicPartition},
};

use super::{Facts, Finding, Severity, SnapshotFacts};
use crate::coordinator::{
    event::{SplitState, SplitStates},
    plain_offsets::plain_offsets,
};

/// Progress that was made with another number of splits than is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Former {
    /// That number.
    pub splits_per_partition: SplitsPerPartition,
    /// Its splits.
    pub progress: SplitStates,
}

/// The job's shape was changed where progress does not survive it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "job.splits_per_partition is {configured}, but the job {found_in} was made with {found}, and {why}: set it back to {found} and \
     start, end the job by `weir stop --with-savepoint --offset-cut`, and start with {configured} then; or start a new job under \
     another stream_manager.job_name"
)]
pub struct ShapeChanged {
    configured: u32,
    found: u32,
    found_in: String,
    why: String,
}

/// Facts as they are in the configured number of splits.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) facts: Facts,
    /// The number changes with this start; what it was.
    pub(super) was: Option<SplitsPerPartition>,
}

/// Tells the facts in the configured number of splits.
///
/// # Errors
/// They cannot be told in it.
pub(super) fn in_configured_shape(facts: &Facts) -> Result<Told, ShapeChanged> {
    let mut told = Told { facts: facts.clone(), was: None };
    if let Some(former) = told.facts.former.take().filter(|_| facts.exactly_once) {
        told.facts.progress = former_progress(facts, &former)?;
        told.was = Some(former.splits_per_partition);
    }
    let Some(snapshot) = facts.snapshot.as_ref().filter(|s| s.splits_per_partition != facts.splits_per_partition)
    else {
        return Ok(told);
    };
    if !facts.exactly_once {
        told.was = Some(snapshot.splits_per_partition);
    }
    let splits = snapshot_splits(&told.facts, snapshot)?;
    told.facts.snapshot = Some(SnapshotFacts { splits, ..snapshot.clone() });
    Ok(told)
}

/// For log and status.
pub(super) fn finding(was: SplitsPerPartition, is: SplitsPerPartition) -> Finding {
    let (was, is) = (was.get(), is.get());
    let text = format!(
        "job.splits_per_partition was {was} and is {is} from this start on, which goes on from one offset in each partition"
    );
    Finding { severity: Severity::Info, text }
}

fn former_progress(facts: &Facts, former: &Former) -> Result<SplitStates, ShapeChanged> {
    let found = former.splits_per_partition;
    let changed = |why: String| changed(facts, found, "record in Kafka", why);
    let mut counts: BTreeMap<TopicPartition, u32> = BTreeMap::new();
    for id in former.progress.keys() {
        *counts.entry(id.topic_partition()).or_default() += 1;
    }
    if let Some((partition, _)) = counts.iter().find(|(_, count)| **count != found.get()) {
        return Err(changed(format!("a part of its progress of {partition} is missing")));
    }
    // A snapshot that says more than Kafka is a matter for a start without a change.
    let ahead = facts.snapshot.as_ref().filter(|snapshot| snapshot.splits_per_partition == found).filter(|snapshot| {
        let finished = |(id, copy): (&SplitId, &SplitState)| {
            former.progress.get(id).is_some_and(|state| copy.progress.is_covered_by(&state.progress))
        };
        let on_purpose =
            facts.record.as_ref().and_then(|record| record.rewound).is_some_and(|upto| snapshot.id <= upto);
        !on_purpose && !snapshot.splits.iter().all(finished)
    });
    if let Some(snapshot) = ahead {
        return Err(changed(format!("snapshot {} is ahead of its progress in Kafka", snapshot.id)));
    }
    let offsets = plain_offsets(&former.progress).map_err(|uneven| changed(differently_far(&uneven)))?;
    Ok(spread(&former.progress, &offsets, facts.splits_per_partition))
}

/// Nothing of it where it cannot be told and progress is there in any case: it was compared before the change, or is older.
fn snapshot_splits(told: &Facts, snapshot: &SnapshotFacts) -> Result<SplitStates, ShapeChanged> {
    match plain_offsets(&snapshot.splits) {
        Ok(offsets) => Ok(spread(&snapshot.splits, &offsets, told.splits_per_partition)),
        Err(uneven) => {
            let partitions: BTreeSet<TopicPartition> = snapshot.splits.keys().map(SplitId::topic_partition).collect();
            let read = partitions.iter().filter(|partition| told.partitions.contains_key(*partition));
            let mut needed = read.flat_map(|partition| splits_of(partition, told.splits_per_partition));
            if told.exactly_once && needed.all(|id| told.progress.contains_key(&id)) {
                return Ok(SplitStates::new());
            }
            let found_in = format!("snapshot {}", snapshot.id);
            Err(changed(told, snapshot.splits_per_partition, &found_in, differently_far(&uneven)))
        }
    }
}

fn spread(former: &SplitStates, offsets: &BTreeMap<TopicPartition, i64>, count: SplitsPerPartition) -> SplitStates {
    let mut states = SplitStates::new();
    for (partition, offset) in offsets {
        for id in splits_of(partition, count) {
            states.insert(id, SplitState { progress: Progress::at(*offset), ..SplitState::default() });
        }
    }
    for (id, state) in former {
        if let Some(first) = states.get_mut(&SplitId { index: 0, ..id.clone() }) {
            first.counters += state.counters;
        }
    }
    states
}

fn splits_of(partition: &TopicPartition, count: SplitsPerPartition) -> impl Iterator<Item = SplitId> {
    let TopicPartition { topic, partition } = partition.clone();
    (0..count.get()).map(move |index| SplitId { topic: topic.clone(), partition, index })
}

fn differently_far(uneven: &crate::coordinator::plain_offsets::Uneven) -> String {
    format!("the key ranges of its partitions have come differently far ({uneven})")
}

fn changed(facts: &Facts, found: SplitsPerPartition, found_in: &str, why: String) -> ShapeChanged {
    let (configured, found) = (facts.splits_per_partition.get(), found.get());
    ShapeChanged { configured, found, found_in: found_in.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use weir_common::{
        counters::SplitCounters,
        ids::{CheckpointId, LeaderEpoch, SlotId},
        progress::OffsetRange,
    };

    use super::*;
    use crate::{
        start::{self, JobRecord, Plan, plan, tests::facts},
        store::keys::SnapshotId,
    };

    const EXACTLY: bool = true;
    const AT_LEAST: bool = false;

    fn count(splits: u32) -> SplitsPerPartition {
        SplitsPerPartition::new(splits).expect("legal")
    }

    fn split(index: u32) -> SplitId {
        SplitId { topic: "t".into(), partition: 0, index }
    }

    /// Two splits of a partition, the first with one record more.
    fn two(cursors: [i64; 2]) -> SplitStates {
        let state = |index: u32| {
            let enriched = 10 + u64::from(index == 0);
            let counters = SplitCounters { consumed: enriched, enriched, ..SplitCounters::default() };
            (split(index), SplitState { progress: Progress::at(cursors[index as usize]), counters })
        };
        (0..2).map(state).collect()
    }

    /// A job that had two splits per partition and is configured with so many.
    fn changed_to(splits: u32, progress: Option<[i64; 2]>, snapshot: Option<[i64; 2]>) -> Facts {
        let mut facts = facts(progress.map(|_| 0), snapshot.map(|_| 0));
        facts.splits_per_partition = count(splits);
        facts.progress = SplitStates::new();
        facts.former = progress.map(|cursors| Former { splits_per_partition: count(2), progress: two(cursors) });
        if let (Some(stored), Some(cursors)) = (&mut facts.snapshot, snapshot) {
            stored.splits = two(cursors);
        }
        facts
    }

    fn cursors(plan: &Plan) -> Vec<(i64, u64)> {
        plan.splits.values().map(|state| (state.progress.cursor, state.counters.consumed)).collect()
    }

    #[test]
    fn at_a_cut_every_new_key_range_goes_on_there_and_sums_stay() {
        for snapshot in [None, Some([40, 40]), Some([30, 20])] {
            let plan = plan(&changed_to(3, Some([40, 40]), snapshot)).expect("a cut");
            assert_eq!(cursors(&plan), [(40, 21), (40, 0), (40, 0)], "{snapshot:?}");
            assert_eq!(plan.to_write.len(), 3, "{snapshot:?}");
            assert_eq!((plan.orphaned_slots.len(), plan.fence_first.len()), (0, 2), "whoever lives has the old ranges");
            let loud = plan.findings.iter().any(|finding| finding.severity == Severity::Warning);
            assert!(
                !loud && plan.findings.iter().any(|finding| finding.text.contains("was 2 and is 3")),
                "{:?}",
                plan.findings
            );
        }
    }

    #[test]
    fn between_cuts_another_number_is_refused_with_the_way_to_one() {
        let mut behind = changed_to(3, Some([40, 40]), Some([40, 50]));
        let mut partly = changed_to(3, Some([40, 40]), None);
        partly.former.as_mut().expect("former").progress.remove(&split(1));
        let mut ahead = changed_to(3, Some([40, 40]), None);
        let map = vec![OffsetRange { start: 44, end: 46 }];
        ahead.former.as_mut().expect("former").progress.get_mut(&split(0)).expect("there").progress.finished_ahead =
            map;
        for (facts, why) in [
            (changed_to(3, Some([40, 41]), None), "differently far (t-0 from 40 to 41)"),
            (ahead, "differently far (t-0 from 40 to 46)"),
            (behind.clone(), "snapshot 0000000003-0000000030 is ahead"),
            (partly, "a part of its progress of t-0 is missing"),
        ] {
            let error = plan(&facts).expect_err(why).to_string();
            assert!(error.contains(why), "{error}");
            assert!(
                error.contains("is 3, but") && error.contains("back to 2") && error.contains("--offset-cut"),
                "{error}"
            );
        }
        // An operator had rewound the progress: the snapshot is ahead on purpose.
        let upto = SnapshotId { epoch: LeaderEpoch(3), checkpoint: CheckpointId(30) };
        behind.record = behind.record.map(|record| JobRecord { rewound: Some(upto), ..record });
        assert_eq!(cursors(&plan(&behind).expect("a cut"))[0], (40, 21));
    }

    #[test]
    fn at_least_once_changes_by_its_snapshot_and_adopts_nobody() {
        let mut facts = changed_to(3, None, Some([40, 40]));
        facts.exactly_once = AT_LEAST;
        let good = plan(&facts).expect("a cut");
        assert_eq!(
            (cursors(&good), good.orphaned_slots.len(), good.to_write.len()),
            (vec![(40, 21), (40, 0), (40, 0)], 0, 0)
        );
        facts.snapshot = changed_to(3, None, Some([40, 41])).snapshot;
        let error = plan(&facts).expect_err("between cuts").to_string();
        assert!(error.contains("snapshot 0000000003-0000000030 was made with 2"), "{error}");
    }

    /// After the change, before the first snapshot of the new number: the newest is still of the old one.
    #[test]
    fn a_snapshot_of_the_former_number_is_compared_where_it_can_be_and_never_needed_otherwise() {
        let after = |progress: &[i64], snapshot: [i64; 2]| {
            let mut facts = changed_to(3, None, Some(snapshot));
            facts.exactly_once = EXACTLY;
            let record = start::tests::facts(Some(0), None).record.expect("there");
            facts.record =
                Some(JobRecord { splits_per_partition: count(3), slots: [(SlotId(4), None)].into(), ..record });
            let state = |(index, cursor): (u32, &i64)| {
                (split(index), SplitState { progress: Progress::at(*cursor), ..SplitState::default() })
            };
            facts.progress = (0..).zip(progress).map(state).collect();
            facts
        };
        // Moved on since: normal, and whoever works is adopted.
        for snapshot in [[40, 40], [40, 41]] {
            let plan = plan(&after(&[47, 44, 45], snapshot)).expect("nothing changes");
            assert_eq!(cursors(&plan).iter().map(|(cursor, _)| *cursor).collect::<Vec<_>>(), [47, 44, 45]);
            assert_eq!((plan.orphaned_slots, plan.to_write.len()), ([(SlotId(4), None)].into(), 0), "{snapshot:?}");
        }
        // An entry is gone: the cut says where it goes on; what is no cut cannot, and the configured start would be wrong.
        let told = plan(&after(&[47, 44], [40, 40])).expect("the cut says it");
        assert_eq!((told.splits[&split(2)].progress.cursor, told.to_write.as_slice()), (40, &[split(2)][..]));
        assert!(plan(&after(&[47, 44], [40, 41])).is_err());
    }
}
