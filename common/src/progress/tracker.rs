//! Makes a split's [`Progress`] while its records are worked on.

use std::collections::{BTreeMap, BTreeSet};

use super::{OffsetRange, Progress, entry::MAX_MAP_CHARS, vlq};

/// What one more range can take at most: two numbers of 64 bits.
const MAX_RANGE_CHARS: usize = 26;

/// So few ranges fit whatever their numbers are.
const ALWAYS_FITTING_RANGES: usize = MAX_MAP_CHARS / MAX_RANGE_CHARS;

/// Follows one split: which of its offsets were taken in, which are finished.
///
/// *Finished* means: in the output that the next commit covers. The owner calls [`Tracker::finish`] when a result goes
/// to the producer, and [`Tracker::progress`] at the cut; both in one task, so a cut never sees half a step.
///
/// After an abort the tracker stays as it is: the kept results are produced again before the next commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracker {
    /// First offset that was not taken in yet. Everything below is finished, pending, or another split's.
    next: i64,
    pending: BTreeSet<i64>,
    /// start -> end. Ranges reach above `next` only where an earlier owner had finished ahead; those stay until they
    /// were read past, even when the cursor stands at their end, so that their records are not taken in again.
    ahead: BTreeMap<i64, i64>,
}

impl Tracker {
    /// Goes on where `progress` stands.
    #[must_use]
    pub fn new(progress: &Progress) -> Self {
        Self {
            next: progress.cursor,
            pending: BTreeSet::new(),
            ahead: progress.finished_ahead.iter().map(|range| (range.start, range.end)).collect(),
        }
    }

    /// Lowest offset whose work is not finished.
    #[must_use]
    pub fn cursor(&self) -> i64 {
        match self.pending.first() {
            Some(lowest) => *lowest,
            None => self.range_at(self.next).map_or(self.next, |range| range.end),
        }
    }

    /// First offset that was not taken in yet.
    #[must_use]
    pub fn next(&self) -> i64 {
        self.next
    }

    /// Records that were taken in and are not finished.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// A record of this split was read at `offset`. `false`: it is finished or pending already, drop it.
    pub fn admit(&mut self, offset: i64) -> bool {
        if offset < self.next {
            return false;
        }
        let unfinished = self.range_at(offset).is_none();
        if unfinished {
            self.pending.insert(offset);
        }
        self.advance(offset + 1);
        unfinished
    }

    /// The partition was read up to `next` (exclusive) without another record of this split.
    pub fn advance(&mut self, next: i64) {
        self.next = self.next.max(next);
        self.forget_passed();
    }

    /// Whether [`Tracker::finish`] may be called for `offset`: the map with it still fits into the metadata. The result
    /// is withheld otherwise; finishing the lowest pending offset always fits, and so does what joins two ranges.
    #[must_use]
    pub fn may_finish(&self, offset: i64) -> bool {
        self.pending.first() == Some(&offset)
            || self.ahead.len() < ALWAYS_FITTING_RANGES
            || self.map_chars() + self.growth(offset) <= MAX_MAP_CHARS
    }

    /// Characters that the map takes more with `offset` in it, at most.
    fn growth(&self, offset: i64) -> usize {
        let chars = |start: i64, end: i64| vlq::len(end.abs_diff(start));
        match self.neighbours(offset) {
            // One length in place of two and the gap between them: one digit more than the longest at most.
            (Some(_), Some(_)) => 0,
            (Some(before), None) => chars(before.start, offset + 1) - chars(before.start, before.end),
            // The gap in front of it gets shorter.
            (None, Some(after)) => chars(offset, after.end) - chars(after.start, after.end),
            (None, None) => MAX_RANGE_CHARS,
        }
    }

    /// The work of `offset` is done and its output goes into the open transaction.
    ///
    /// # Panics
    /// When `offset` is not pending: that would be an output without an input.
    pub fn finish(&mut self, offset: i64) {
        assert!(self.pending.remove(&offset), "offset {offset} was finished twice or never admitted");
        let (before, after) = self.neighbours(offset);
        let start = before.map_or(offset, |range| range.start);
        let end = after.map_or(offset + 1, |range| range.end);
        for range in [before, after].into_iter().flatten() {
            self.ahead.remove(&range.start);
        }
        self.ahead.insert(start, end);
        self.forget_passed();
    }

    /// The value to commit now.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let cursor = self.cursor();
        let ranges = self.ahead.range(cursor + 1..);
        let finished_ahead = ranges.map(|(start, end)| OffsetRange { start: *start, end: *end }).collect();
        Progress { cursor, finished_ahead }
    }

    fn range_at(&self, offset: i64) -> Option<OffsetRange> {
        let (start, end) = self.ahead.range(..=offset).next_back()?;
        (offset < *end).then_some(OffsetRange { start: *start, end: *end })
    }

    /// Ranges that `offset` joins: nothing of this split lies between them and it. Above `next` that is not known.
    fn neighbours(&self, offset: i64) -> (Option<OffsetRange>, Option<OffsetRange>) {
        let range = |(start, end): (&i64, &i64)| OffsetRange { start: *start, end: *end };
        let before = self.ahead.range(..offset).next_back().map(range);
        let after = self.ahead.range(offset..).next().map(range);
        (
            before.filter(|range| self.pending.range(range.end..offset).next().is_none()),
            after.filter(|range| {
                range.start <= self.next && self.pending.range(offset + 1..range.start).next().is_none()
            }),
        )
    }

    fn forget_passed(&mut self) {
        let passed = self.cursor().min(self.next);
        while let Some(first) = self.ahead.first_entry() {
            if *first.get() > passed {
                break;
            }
            first.remove();
        }
    }

    fn map_chars(&self) -> usize {
        let mut floor = self.cursor();
        let mut chars = 0;
        for (start, end) in self.ahead.range(floor + 1..) {
            chars += vlq::len(start.abs_diff(floor)) + vlq::len(end.abs_diff(*start));
            floor = *end;
        }
        chars
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        counters::SplitCounters,
        progress::entry::{MAX_METADATA_CHARS, ProgressEntry},
        split::{SplitId, SplitsPerPartition},
    };

    fn range(start: i64, end: i64) -> OffsetRange {
        OffsetRange { start, end }
    }

    #[test]
    fn the_cursor_waits_for_the_lowest_unfinished_record() {
        let mut tracker = Tracker::new(&Progress::at(100));
        for offset in [100, 103, 104, 110] {
            assert!(tracker.admit(offset));
        }
        tracker.finish(104);
        tracker.finish(103);
        assert_eq!(tracker.progress(), Progress { cursor: 100, finished_ahead: vec![range(103, 105)] });
        tracker.finish(100);
        assert_eq!(tracker.progress(), Progress::at(110));
        tracker.finish(110);
        tracker.advance(200);
        assert_eq!(tracker.progress(), Progress::at(200));
    }

    #[test]
    fn a_new_owner_skips_what_was_finished_ahead() {
        let stood = Progress { cursor: 10, finished_ahead: vec![range(12, 14), range(20, 21)] };
        let mut tracker = Tracker::new(&stood);
        assert!(tracker.admit(10));
        assert!(!tracker.admit(12));
        assert!(!tracker.admit(13));
        tracker.finish(10);
        assert_eq!(tracker.progress(), Progress { cursor: 14, finished_ahead: vec![range(20, 21)] });
        tracker.advance(20);
        assert_eq!(tracker.progress(), Progress::at(21));
        assert!(!tracker.admit(20), "the cursor stands beyond, but it must not be taken in again");
        assert!(tracker.admit(21));
    }

    #[test]
    fn unread_records_between_two_ranges_are_not_jumped() {
        let mut tracker = Tracker::new(&Progress { cursor: 5, finished_ahead: vec![range(9, 10)] });
        assert!(tracker.admit(5));
        assert!(tracker.admit(6));
        tracker.finish(6);
        assert_eq!(tracker.progress().finished_ahead, [range(6, 7), range(9, 10)]);
        assert!(tracker.admit(8));
    }

    /// Own offsets in order, with the order in which they finish and where the owner changes.
    fn histories() -> impl Strategy<Value = (Vec<i64>, Vec<usize>, Vec<bool>)> {
        prop::collection::btree_set(0..400i64, 1..120).prop_flat_map(|offsets| {
            let offsets: Vec<i64> = offsets.into_iter().collect();
            let order = Just((0..offsets.len()).collect::<Vec<_>>()).prop_shuffle();
            let handovers = prop::collection::vec(prop::bool::weighted(0.1), offsets.len());
            (Just(offsets), order, handovers)
        })
    }

    proptest! {
        #[test]
        fn progress_names_exactly_the_finished_records((offsets, order, handovers) in histories()) {
            let mut tracker = Tracker::new(&Progress::at(0));
            let mut finished = BTreeSet::new();
            for offset in &offsets {
                prop_assert!(tracker.admit(*offset));
            }
            for (index, handover) in order.into_iter().zip(handovers) {
                prop_assert!(tracker.may_finish(offsets[index]));
                tracker.finish(offsets[index]);
                finished.insert(offsets[index]);
                let progress = tracker.progress();
                prop_assert!(progress.is_well_formed(), "{:?}", progress);
                for offset in &offsets {
                    prop_assert_eq!(progress.is_finished(*offset), finished.contains(offset));
                }
                if handover {
                    let before = progress.clone();
                    tracker = Tracker::new(&progress);
                    for offset in &offsets {
                        let unfinished = *offset >= progress.cursor && !finished.contains(offset);
                        prop_assert_eq!(tracker.admit(*offset), unfinished);
                    }
                    prop_assert!(before.is_covered_by(&tracker.progress()));
                }
            }
            tracker.advance(1000);
            prop_assert_eq!(tracker.progress(), Progress::at(1000));
        }

        #[test]
        fn what_may_finish_fits_into_the_metadata(step in 2..2000i64, count in 500..4000usize) {
            let mut tracker = Tracker::new(&Progress::at(0));
            for index in 0..count as i64 {
                tracker.admit(index * step);
            }
            let mut withheld = 0;
            for index in (1..count as i64).step_by(2) {
                if tracker.may_finish(index * step) { tracker.finish(index * step) } else { withheld += 1 }
            }
            let entry = ProgressEntry {
                split: SplitId { topic: "t".repeat(249).into(), partition: i32::MAX, index: 1023 },
                splits_per_partition: SplitsPerPartition::new(1024).expect("legal"),
                slot: Some(crate::ids::SlotId(u32::MAX)),
                progress: tracker.progress(),
                counters: SplitCounters { consumed: u64::MAX, enriched: u64::MAX / 4, passed_through: u64::MAX / 4,
                    errors: u64::MAX / 4, dropped: u64::MAX / 4 },
            };
            let metadata = entry.metadata();
            prop_assert!(metadata.is_ascii() && metadata.len() <= MAX_METADATA_CHARS, "{} characters", metadata.len());
            prop_assert!(tracker.may_finish(0));
            prop_assert!(count < 3600 || withheld > 0);
        }

    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn a_full_map_still_takes_what_joins_its_ranges(step in 2..2000i64, seed in any::<u64>()) {
            let mut tracker = Tracker::new(&Progress::at(0));
            let count = 6000;
            for index in 0..count { tracker.admit(index * step); }
            let mut withheld: BTreeSet<i64> = BTreeSet::new();
            for index in (1..count).step_by(2) {
                if tracker.may_finish(index * step) { tracker.finish(index * step) } else { withheld.insert(index); }
            }
            prop_assert!(!withheld.is_empty());
            // The lowest one stays open. All others finish in some order, the withheld in theirs.
            let mut rest: Vec<i64> = (2..count).step_by(2).collect();
            rest.sort_by_key(|index| (*index as u64).wrapping_mul(seed | 1) >> 9);
            for index in rest {
                withheld.insert(index);
                while let Some(first) = withheld.first().copied().filter(|first| tracker.may_finish(first * step)) {
                    withheld.remove(&first);
                    tracker.finish(first * step);
                    prop_assert!(tracker.map_chars() <= MAX_MAP_CHARS);
                }
            }
            prop_assert_eq!(withheld.len(), 0);
            let progress = tracker.progress();
            prop_assert_eq!((progress.cursor, progress.finished_ahead.len()), (0, 1));
        }
    }

    proptest! {
        #[test]
        fn entries_come_back_as_they_went((offsets, order, _) in histories(), cursor in 0..i64::MAX / 2) {
            let mut tracker = Tracker::new(&Progress::at(cursor));
            for offset in &offsets { tracker.admit(cursor + *offset); }
            for index in order.iter().take(offsets.len() / 2) { tracker.finish(cursor + offsets[*index]); }
            let mut counters = SplitCounters::default();
            counters.count(crate::counters::OutcomeKind::Error);
            let entry = ProgressEntry {
                split: SplitId { topic: "eqiad.some-topic_x".into(), partition: 3, index: 5 },
                splits_per_partition: SplitsPerPartition::new(12).expect("legal"),
                slot: Some(crate::ids::SlotId(2)),
                progress: tracker.progress(),
                counters,
            };
            prop_assert_eq!(ProgressEntry::parse(entry.progress.cursor, &entry.metadata()), Ok(entry));
        }

        #[test]
        fn foreign_metadata_is_refused_without_panic(cursor in any::<i64>(), text in "[1|/a-z0-9-]{0,60}|\\PC*") {
            let _ = ProgressEntry::parse(cursor, &text);
        }
    }
}
