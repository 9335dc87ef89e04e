//! Time as the sink sees it: the process's own, or a simulation's.

use std::{
    cell::Cell,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

/// A monotonic clock that can be waited on.
pub trait Clock {
    /// Now.
    fn now(&self) -> Instant;

    /// Ends at `deadline`, or later.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn sleep_until(&self, deadline: Instant) -> impl Future<Output = ()>;

    /// Ends after `duration`, or later. Cancel safe.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> {
        self.sleep_until(self.now() + duration)
    }
}

/// The operating system's monotonic clock. Its sleeps end only inside [`block_on`].
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep_until(&self, deadline: Instant) -> impl Future<Output = ()> {
        Sleep(deadline)
    }
}

struct Sleep(Instant);

thread_local! {
    /// When the thread inside [`block_on`] must look again, whoever wakes it before.
    static LOOK_AGAIN: Cell<Option<Instant>> = const { Cell::new(None) };
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.0 {
            return Poll::Ready(());
        }
        LOOK_AGAIN.set(Some(LOOK_AGAIN.get().map_or(self.0, |known| known.min(self.0))));
        Poll::Pending
    }
}

/// Runs a future on this thread, which may be blocked by what is in it. Tokio's own `block_on` would do, but that its
/// timers panic when the runtime is shut down before the thread has ended.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        LOOK_AGAIN.set(None);
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        match LOOK_AGAIN.get() {
            Some(at) => thread::park_timeout(at.saturating_duration_since(Instant::now())),
            None => thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;

    #[test]
    fn the_earliest_of_several_sleeps_ends_the_wait() {
        let started = Instant::now();
        let slept = block_on(async {
            tokio::select! {
                biased;
                () = SystemClock.sleep(Duration::from_secs(60)) => "long",
                () = SystemClock.sleep(Duration::from_millis(5)) => "short",
            }
        });
        assert_eq!(slept, "short");
        assert!(started.elapsed() >= Duration::from_millis(5));
    }

    #[test]
    fn another_thread_wakes_it_without_a_timer() {
        let notify = Arc::new(Notify::new());
        let waker = thread::spawn({
            let notify = Arc::clone(&notify);
            move || notify.notify_one()
        });
        block_on(notify.notified());
        waker.join().expect("no panic");
    }
}
