//! What reader, enrichment and sink of one split share.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicI64, Ordering},
};

use tokio_util::sync::CancellationToken;
use weir_common::{
    config::Order,
    progress::{Progress, tracker::Tracker},
    split::{KeyHash, SplitId},
};

use super::{Finished, order::OrderGate};
use crate::sink::inbox::Inbox;

/// One owned split. The reader admits and advances, the enrichment completes, the sink finishes: each a short step
/// under one lock, so that a cut never sees half of one.
#[derive(Debug)]
pub struct SplitCell {
    /// Which split.
    pub id: SplitId,
    state: Mutex<State>,
    closed: CancellationToken,
    /// Log end of the partition as last seen, -1 while unknown.
    log_end: AtomicI64,
    /// Nothing at or above it is taken in.
    limit: AtomicI64,
    /// The limit is to be lifted.
    lift: AtomicBool,
}

/// No offset is as high.
const UNLIMITED: i64 = i64::MAX;

#[derive(Debug)]
struct State {
    tracker: Tracker,
    gate: OrderGate<Finished>,
}

impl SplitCell {
    /// A split that goes on where `progress` stands.
    #[must_use]
    pub fn new(id: SplitId, progress: &Progress, order: Order) -> Self {
        Self {
            id,
            state: Mutex::new(State { tracker: Tracker::new(progress), gate: OrderGate::new(order) }),
            closed: CancellationToken::new(),
            log_end: AtomicI64::new(-1),
            limit: AtomicI64::new(UNLIMITED),
            lift: AtomicBool::new(false),
        }
    }

    /// The same, with nothing at or above `limit` to be taken in: the cursor comes to it and stays.
    #[must_use]
    pub fn up_to(self, limit: Option<i64>) -> Self {
        Self { limit: AtomicI64::new(limit.unwrap_or(UNLIMITED)), ..self }
    }

    /// Whether a record at `offset` may be taken in.
    #[must_use]
    pub fn reaches(&self, offset: i64) -> bool {
        offset < self.limit()
    }

    /// First offset that may not be taken in; above all offsets without a limit.
    #[must_use]
    pub fn limit(&self) -> i64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Wants the limit lifted. By the reader, which alone knows how far it has read past it: [`SplitCell::lift_limit`].
    pub fn ask_to_lift_limit(&self) {
        self.lift.store(true, Ordering::Release);
    }

    /// Lifts the limit where that was asked for: the first offset that was not taken in, where reading must go on. Called
    /// between two records.
    pub fn lift_limit(&self) -> Option<i64> {
        if !self.lift.swap(false, Ordering::Acquire) {
            return None;
        }
        self.limit.store(UNLIMITED, Ordering::Relaxed);
        Some(self.lock().tracker.next())
    }

    /// Takes a record in; `false` when it was taken in before, is finished or above the limit, or the split is closed.
    pub fn admit(&self, key: KeyHash, offset: i64) -> bool {
        let mut state = self.lock();
        let admitted = !self.is_closed() && self.reaches(offset) && state.tracker.admit(offset);
        if admitted {
            state.gate.admit(key, offset);
        }
        admitted
    }

    /// The partition was read up to `next` (exclusive).
    pub fn advance(&self, next: i64) {
        self.lock().tracker.advance(next.min(self.limit()));
    }

    /// Lowest offset whose work is not finished.
    #[must_use]
    pub fn cursor(&self) -> i64 {
        self.lock().tracker.cursor()
    }

    /// A record's work is done: what may leave goes to the sink. Under the lock, so that two completions of one key
    /// cannot overtake each other on the way.
    pub fn complete(&self, key: KeyHash, finished: Finished, inbox: &Inbox) {
        let mut state = self.lock();
        if self.is_closed() {
            return;
        }
        let mut released = Vec::new();
        state.gate.complete(key, finished.record.offset, finished, &mut released);
        inbox.push_results(released);
    }

    /// See [`Tracker::may_finish`].
    #[must_use]
    pub fn may_finish(&self, offset: i64) -> bool {
        self.lock().tracker.may_finish(offset)
    }

    /// See [`Tracker::finish`].
    pub fn finish(&self, offset: i64) {
        self.lock().tracker.finish(offset);
    }

    /// What the next commit covers.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.lock().tracker.progress()
    }

    /// Ends the split here: running work is dropped, later results too.
    pub fn close(&self) {
        self.closed.cancel();
        self.lock().gate.clear();
    }

    /// Whether [`SplitCell::close`] was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Waits for [`SplitCell::close`]. Cancel safe.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// The partition ends at `offset` (exclusive).
    pub fn set_log_end(&self, offset: i64) {
        self.log_end.fetch_max(offset, Ordering::Relaxed);
    }

    /// Log end of the partition, where known.
    #[must_use]
    pub fn log_end(&self) -> Option<i64> {
        Some(self.log_end.load(Ordering::Relaxed)).filter(|end| *end >= 0)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock is a defect in the tracker; its state is then still whole enough to close the split.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_common::progress::OffsetRange;

    use super::*;

    fn cell(progress: &Progress, limit: Option<i64>) -> SplitCell {
        let id = SplitId { topic: "t".into(), partition: 0, index: 0 };
        SplitCell::new(id, progress, Order::None).up_to(limit)
    }

    #[test]
    fn the_cursor_comes_to_the_limit_and_stays_and_goes_on_when_it_is_lifted() {
        let cell = cell(&Progress { cursor: 3, finished_ahead: vec![OffsetRange { start: 5, end: 7 }] }, Some(10));
        let admitted: Vec<i64> = (3..20).filter(|offset| cell.admit(KeyHash(0), *offset)).collect();
        assert_eq!(admitted, [3, 4, 7, 8, 9], "what was finished ahead is not taken in again");
        cell.advance(500);
        admitted.into_iter().for_each(|offset| cell.finish(offset));
        assert_eq!(cell.progress(), Progress::at(10));
        assert_eq!(cell.lift_limit(), None, "nobody asked");
        cell.ask_to_lift_limit();
        assert_eq!(cell.lift_limit(), Some(10), "reading goes on here, wherever the reader stands");
        assert!(cell.admit(KeyHash(0), 10));
    }

    proptest! {
        /// Whatever lies between, in whichever order it is finished: all below the limit is, and nothing else.
        #[test]
        fn below_the_limit_everything_and_above_it_nothing(
            offsets in prop::collection::btree_set(0..200i64, 0..80),
            limit in 0..220i64,
            seed in any::<u64>(),
        ) {
            let cell = cell(&Progress::at(0), Some(limit));
            let mut admitted: Vec<i64> = offsets.iter().copied().filter(|offset| cell.admit(KeyHash(0), *offset)).collect();
            prop_assert_eq!(&admitted, &offsets.iter().copied().filter(|offset| *offset < limit).collect::<Vec<_>>());
            cell.advance(300);
            admitted.sort_by_key(|offset| (*offset as u64 + 1).wrapping_mul(seed | 1) >> 9);
            for offset in admitted {
                cell.finish(offset);
                let progress = cell.progress();
                prop_assert!(progress.finished_ahead.last().map_or(progress.cursor, |range| range.end) <= limit);
            }
            prop_assert_eq!(cell.progress(), Progress::at(limit));
        }
    }
}
