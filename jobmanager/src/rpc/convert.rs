//! Between the protocol's types and ours. What comes in is checked here.

use std::{collections::BTreeMap, time::Duration};

use weir_common::{
    counters::SplitCounters,
    ids::{GrantId, SlotId},
    progress::{OffsetRange, Progress},
    split::{SplitId, TopicPartition},
};
use weir_proto::v1;

use crate::coordinator::event::{HeldSlot, SplitState, SplitStates};

/// Milliseconds, for the wire.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn split_to_proto(split: &SplitId) -> v1::SplitId {
    v1::SplitId { topic: split.topic.to_string(), partition: split.partition, index: split.index }
}

pub(crate) fn split_from_proto(split: v1::SplitId) -> SplitId {
    SplitId { topic: split.topic.into(), partition: split.partition, index: split.index }
}

pub(crate) fn progress_to_proto(progress: &Progress) -> v1::Progress {
    let range = |range: &OffsetRange| v1::OffsetRange { start: range.start, end: range.end };
    v1::Progress { cursor: progress.cursor, finished_ahead: progress.finished_ahead.iter().map(range).collect() }
}

pub(crate) fn counters_to_proto(counters: SplitCounters) -> v1::SplitCounters {
    let SplitCounters { consumed, enriched, passed_through, errors, dropped } = counters;
    v1::SplitCounters { consumed, enriched, passed_through, errors, dropped }
}

/// The message that hands splits over. `places`: their partitions of the progress topic, where they have one. `limits`:
/// where those of a partition are to stop.
pub(crate) fn assign(
    splits: SplitStates,
    places: &BTreeMap<SplitId, i32>,
    limits: &BTreeMap<TopicPartition, i64>,
) -> v1::Assign {
    let assignment = |(split, state): (SplitId, SplitState)| v1::SplitAssignment {
        limit: limits.get(&split.topic_partition()).copied(),
        split: Some(split_to_proto(&split)),
        progress_partition: places.get(&split).copied().unwrap_or(-1),
        progress: Some(progress_to_proto(&state.progress)),
        counters: Some(counters_to_proto(state.counters)),
    };
    v1::Assign { splits: splits.into_iter().map(assignment).collect() }
}

/// What a taskmanager reports of its splits.
///
/// # Errors
/// What cannot be, for the taskmanager's log.
pub(crate) fn states(reports: Vec<v1::SplitReport>) -> Result<SplitStates, String> {
    reports.into_iter().map(state).collect()
}

fn state(report: v1::SplitReport) -> Result<(SplitId, SplitState), String> {
    let split = report.split.ok_or("a report without a split")?;
    let id = split_from_proto(split);
    let progress = report.progress.ok_or_else(|| format!("split {id} without progress"))?;
    let range = |range: v1::OffsetRange| OffsetRange { start: range.start, end: range.end };
    let finished_ahead = progress.finished_ahead.into_iter().map(range).collect();
    let progress = Progress { cursor: progress.cursor, finished_ahead };
    if !progress.is_well_formed() {
        return Err(format!("split {id} with impossible progress, cursor {}", progress.cursor));
    }
    let v1::SplitCounters { consumed, enriched, passed_through, errors, dropped } = report.counters.unwrap_or_default();
    let counters = SplitCounters { consumed, enriched, passed_through, errors, dropped };
    if !counters.conserved() {
        return Err(format!("split {id} with counters that do not add up: {counters:?}"));
    }
    Ok((id, SplitState { progress, counters }))
}

/// What a taskmanager still holds.
///
/// # Errors
/// As [`states`].
pub(crate) fn held(held: v1::HeldSlot) -> Result<HeldSlot, String> {
    Ok(HeldSlot { slot: SlotId(held.slot), grant: GrantId(held.grant_id), splits: states(held.splits)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(cursor: i64, ranges: &[(i64, i64)], enriched: u64, consumed: u64) -> v1::SplitReport {
        let ranges = ranges.iter().map(|(start, end)| v1::OffsetRange { start: *start, end: *end }).collect();
        v1::SplitReport {
            split: Some(v1::SplitId { topic: "t".to_owned(), partition: 0, index: 1 }),
            progress: Some(v1::Progress { cursor, finished_ahead: ranges }),
            counters: Some(v1::SplitCounters { consumed, enriched, ..Default::default() }),
            progress_partition: 2,
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(states(vec![report(5, &[(7, 9), (11, 12)], 3, 3)]).is_ok());
        for bad in [
            report(-1, &[], 0, 0),
            report(5, &[(5, 9)], 0, 0),
            report(5, &[(9, 8)], 0, 0),
            report(5, &[(8, 10), (9, 12)], 0, 0),
            report(5, &[], 3, 4),
            v1::SplitReport::default(),
            v1::SplitReport { split: Some(v1::SplitId::default()), ..Default::default() },
        ] {
            assert!(states(vec![bad.clone()]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_goes_out_comes_back() {
        let states_in = states(vec![report(5, &[(7, 9)], 3, 3)]).expect("well formed");
        let places = states_in.keys().map(|split| (split.clone(), 2)).collect();
        let limits = [(TopicPartition { topic: "t".into(), partition: 0 }, 70)].into();
        let assign = assign(states_in.clone(), &places, &limits);
        assert_eq!(assign.splits[0].limit, Some(70));
        let back = assign.splits.into_iter().map(|split| v1::SplitReport {
            split: split.split,
            progress: split.progress,
            counters: split.counters,
            progress_partition: split.progress_partition,
        });
        assert_eq!(states(back.collect()), Ok(states_in));
    }
}
