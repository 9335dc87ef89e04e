//! The grant of a slot, by our own monotonic clock.
//!
//! Two questions are answered here. *May we still work?* Until the grant's time is over, counted from when the heartbeat
//! was sent that the newest answer belongs to. *Is the slot still ours?* Asked after every `init_transactions` that the
//! sink does by itself: the jobmanager may have fenced the slot and given its splits away a moment before, and our own
//! init would have lifted that fence. An answer to a heartbeat sent after the init, with our grant in it, proves that
//! nobody else owns the splits now; and whoever fences us later fences the new epoch too.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use weir_common::ids::GrantId;

/// One grant.
#[derive(Debug)]
pub(crate) struct Lease {
    grant: GrantId,
    state: Mutex<State>,
    changed: Condvar,
    heartbeat_wanted: Notify,
}

#[derive(Debug)]
struct State {
    valid_until: Instant,
    confirmed_at: Option<Instant>,
    ended: bool,
}

impl Lease {
    pub(crate) fn new(grant: GrantId, ttl: Duration, now: Instant) -> Self {
        let state = State { valid_until: now + ttl, confirmed_at: None, ended: false };
        Self { grant, state: Mutex::new(state), changed: Condvar::new(), heartbeat_wanted: Notify::new() }
    }

    pub(crate) fn grant(&self) -> GrantId {
        self.grant
    }

    /// The jobmanager answered the heartbeat sent at `sent`.
    pub(crate) fn renew(&self, sent: Instant, ttl: Duration) {
        let mut state = self.lock();
        state.valid_until = state.valid_until.max(sent + ttl);
        state.confirmed_at = state.confirmed_at.max(Some(sent));
        self.changed.notify_all();
    }

    /// The slot is no longer ours; whoever waits is told.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_valid(&self, now: Instant) -> bool {
        let state = self.lock();
        !state.ended && now < state.valid_until
    }

    /// Waits until the jobmanager has confirmed the grant after `since`; `false` when the grant ends before. Blocks.
    pub(crate) fn confirmed_since(&self, since: Instant) -> bool {
        self.heartbeat_wanted.notify_one();
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if state.ended || now >= state.valid_until {
                return false;
            }
            if state.confirmed_at.is_some_and(|sent| sent >= since) {
                return true;
            }
            let wait = (state.valid_until - now).min(Duration::from_secs(1));
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until somebody needs a fresh confirmation. Cancel safe.
    pub(crate) async fn heartbeat_wanted(&self) {
        self.heartbeat_wanted.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;

    const TTL: Duration = Duration::from_secs(60);

    #[test]
    fn the_time_counts_from_when_the_heartbeat_was_sent() {
        let start = Instant::now();
        let lease = Lease::new(GrantId(1), TTL, start);
        lease.renew(start + Duration::from_secs(10), TTL);
        assert!(lease.is_valid(start + Duration::from_secs(69)));
        assert!(!lease.is_valid(start + Duration::from_secs(70)));
    }

    #[test]
    fn an_older_heartbeat_confirms_nothing() {
        let start = Instant::now();
        let lease = Arc::new(Lease::new(GrantId(1), TTL, start));
        lease.renew(start, TTL);
        let waiting = thread::spawn({
            let lease = Arc::clone(&lease);
            move || lease.confirmed_since(start + Duration::from_millis(1))
        });
        lease.renew(start + Duration::from_millis(2), TTL);
        assert!(waiting.join().expect("no panic"));
    }

    #[test]
    fn an_ended_grant_wakes_who_waits() {
        let start = Instant::now();
        let lease = Arc::new(Lease::new(GrantId(1), TTL, start));
        let waiting = thread::spawn({
            let lease = Arc::clone(&lease);
            move || lease.confirmed_since(start)
        });
        lease.end();
        assert!(!waiting.join().expect("no panic"));
    }
}
