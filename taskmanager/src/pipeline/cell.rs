//! What reader, enrichment and sink of one split share.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicI64, Ordering},
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
}

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
        }
    }

    /// Takes a record in; `false` when it was taken in before, is finished, or the split is closed.
    pub fn admit(&self, key: KeyHash, offset: i64) -> bool {
        let mut state = self.lock();
        let admitted = !self.is_closed() && state.tracker.admit(offset);
        if admitted {
            state.gate.admit(key, offset);
        }
        admitted
    }

    /// The partition was read up to `next` (exclusive).
    pub fn advance(&self, next: i64) {
        self.lock().tracker.advance(next);
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
