//! How far a split has come: [`Progress`] as a value, [`tracker`] to make it, [`entry`] to carry it through Kafka.

pub mod entry;
pub mod tracker;
mod vlq;

use serde::{Deserialize, Serialize};

/// A half-open range of source offsets, `[start, end)`. In JSON a pair: `[105, 120]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(i64, i64)", into = "(i64, i64)")]
pub struct OffsetRange {
    /// First offset inside.
    pub start: i64,
    /// First offset beyond.
    pub end: i64,
}

impl From<(i64, i64)> for OffsetRange {
    fn from((start, end): (i64, i64)) -> Self {
        Self { start, end }
    }
}

impl From<OffsetRange> for (i64, i64) {
    fn from(range: OffsetRange) -> Self {
        (range.start, range.end)
    }
}

/// Cursor and finished-ahead map of one split.
///
/// Offsets are those of the source partition. Records of other splits lie between a split's own and count as neither
/// finished nor unfinished: a range may run across them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Lowest offset whose work is not finished; everything below is.
    pub cursor: i64,
    /// Finished offsets above the cursor: ascending, disjoint, never touching the cursor.
    pub finished_ahead: Vec<OffsetRange>,
}

impl Progress {
    /// Nothing finished at or above `cursor`.
    #[must_use]
    pub fn at(cursor: i64) -> Self {
        Self { cursor, finished_ahead: Vec::new() }
    }

    /// Whether the work of a record of this split at `offset` is finished.
    #[must_use]
    pub fn is_finished(&self, offset: i64) -> bool {
        if offset < self.cursor {
            return true;
        }
        let after = self.finished_ahead.partition_point(|range| range.start <= offset);
        after > 0 && offset < self.finished_ahead[after - 1].end
    }

    /// Whether the ranges are ascending, disjoint, not empty and above the cursor. What comes from outside is checked.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        let mut floor = self.cursor;
        self.cursor >= 0
            && self.finished_ahead.iter().all(|range| {
                let fits = range.start > floor && range.start < range.end;
                floor = range.end;
                fits
            })
    }

    /// Whether everything finished here is finished in `other` too.
    #[must_use]
    pub fn is_covered_by(&self, other: &Self) -> bool {
        // Below our cursor: `other` must have got as far, but for what it holds finished ahead.
        let below = OffsetRange { start: other.cursor.min(self.cursor), end: self.cursor };
        std::iter::once(below)
            .chain(self.finished_ahead.iter().copied())
            .all(|range| range.start >= range.end || other.covers(range))
    }

    fn covers(&self, range: OffsetRange) -> bool {
        let start = range.start.max(self.cursor);
        start >= range.end || self.finished_ahead.iter().any(|ahead| ahead.start <= start && range.end <= ahead.end)
    }
}
