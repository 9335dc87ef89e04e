//! The grant of a slot, by our own monotonic clock.
//!
//! Two questions are answered here. *May we still work?* Until the grant's time is over, counted from when the heartbeat
//! was sent that the newest answer belongs to. *Is the slot still ours?* Asked after every `init_transactions` that the
//! sink does by itself: the jobmanager may have fenced the slot and given its splits away a moment before, and our own
//! init would have lifted that fence. An answer to a heartbeat sent after the init, with our grant in it, proves that
//! nobody else owns the splits now; and whoever fences us later fences the new epoch too.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use weir_common::ids::GrantId;

use crate::clock::Clock;

/// One grant.
#[derive(Debug)]
pub struct Lease {
    grant: GrantId,
    state: Mutex<State>,
    /// For the one who waits in [`Lease::confirmed_since`].
    changed: Notify,
    heartbeat_wanted: Notify,
}

#[derive(Debug)]
struct State {
    valid_until: Instant,
    confirmed_at: Option<Instant>,
    ended: bool,
}

impl Lease {
    /// A grant that lasts for `ttl` from `now` on.
    #[must_use]
    pub fn new(grant: GrantId, ttl: Duration, now: Instant) -> Self {
        let state = State { valid_until: now + ttl, confirmed_at: None, ended: false };
        Self { grant, state: Mutex::new(state), changed: Notify::new(), heartbeat_wanted: Notify::new() }
    }

    /// Which one.
    #[must_use]
    pub fn grant(&self) -> GrantId {
        self.grant
    }

    /// The jobmanager answered the heartbeat sent at `sent`.
    pub fn renew(&self, sent: Instant, ttl: Duration) {
        let mut state = self.lock();
        state.valid_until = state.valid_until.max(sent + ttl);
        state.confirmed_at = state.confirmed_at.max(Some(sent));
        self.changed.notify_one();
    }

    /// The slot is no longer ours; whoever waits is told.
    pub fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_one();
    }

    /// Whether we may still work.
    #[must_use]
    pub fn is_valid(&self, now: Instant) -> bool {
        let state = self.lock();
        !state.ended && now < state.valid_until
    }

    /// Waits until the jobmanager has confirmed the grant after `since`; `false` when the grant ends before. For one
    /// caller at a time.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn confirmed_since(&self, clock: &impl Clock, since: Instant) -> bool {
        self.heartbeat_wanted.notify_one();
        loop {
            let (valid_until, confirmed_at) = {
                let state = self.lock();
                (if state.ended { None } else { Some(state.valid_until) }, state.confirmed_at)
            };
            let Some(valid_until) = valid_until.filter(|until| clock.now() < *until) else { return false };
            if confirmed_at.is_some_and(|sent| sent >= since) {
                return true;
            }
            tokio::select! {
                biased;
                () = self.changed.notified() => {}
                () = clock.sleep_until(valid_until) => {}
            }
        }
    }

    /// Waits until somebody needs a fresh confirmation. Cancel safe.
    pub async fn heartbeat_wanted(&self) {
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
    use crate::clock::{SystemClock, block_on};

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
            move || block_on(lease.confirmed_since(&SystemClock, start + Duration::from_millis(1)))
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
            move || block_on(lease.confirmed_since(&SystemClock, start))
        });
        lease.end();
        assert!(!waiting.join().expect("no panic"));
    }
}
