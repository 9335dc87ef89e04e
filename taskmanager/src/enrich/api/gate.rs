//! Where requests to one endpoint wait for their turn: the shell around [`Limiter`].
//!
//! Wikis take turns, however many requests each has waiting: a busy one does not starve the others.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    domain::Domain,
    limiter::{Ending, Limiter, Reason, Start},
};
use crate::enrich::metrics::Metrics;

/// See the module. Shared by all that ask one endpoint.
pub(crate) struct Gate {
    state: Mutex<State>,
    born: Instant,
    metrics: Metrics,
}

struct State {
    limiter: Limiter,
    waiting: Turns<oneshot::Sender<Permit>>,
    /// Somebody wakes up to look again.
    alarm: Option<Duration>,
}

/// Leave to send one request (or a few after each other). Given up without an ending, it counts as abandoned.
pub(crate) struct Permit {
    gate: Arc<Gate>,
    probes: bool,
    sent: Duration,
    ended: bool,
}

impl Gate {
    /// At most `max` requests at once.
    pub(crate) fn new(max: usize, metrics: Metrics) -> Arc<Self> {
        let limiter = Limiter::new(max);
        let state = Mutex::new(State { limiter, waiting: Turns::default(), alarm: None });
        let gate = Arc::new(Self { state, born: Instant::now(), metrics });
        gate.show(&gate.lock());
        gate
    }

    /// Waits for a turn of this wiki.
    ///
    /// # Cancel safety
    /// Cancel safe: a turn that nobody waits for any more goes to the next one.
    pub(crate) async fn enter(self: &Arc<Self>, domain: &Domain) -> Permit {
        let (sender, turn) = oneshot::channel();
        self.lock().waiting.push(domain, sender);
        self.admit();
        turn.await.expect("who waits is never forgotten: senders are kept until they are used")
    }

    /// At most `max` requests at once from now on.
    pub(crate) fn set_max(self: &Arc<Self>, max: usize) {
        self.lock().limiter.set_max(max);
        self.admit();
    }

    /// For how long the endpoint has been down, all outages together: time that nobody is to be blamed for.
    pub(crate) fn down_for(&self) -> Duration {
        self.lock().limiter.down_for(self.born.elapsed())
    }

    /// Whether the endpoint counts as down.
    pub(crate) fn is_down(&self) -> bool {
        self.lock().limiter.reason() == Reason::Down
    }

    /// Lets in who may start.
    fn admit(self: &Arc<Self>) {
        let mut admitted = Vec::new();
        let mut state = self.lock();
        loop {
            let now = self.born.elapsed();
            match state.limiter.may_start(now) {
                Start::Now => {
                    let Some(sender) = state.waiting.pop() else { break };
                    // Who waits no more is passed over.
                    if sender.is_closed() {
                        continue;
                    }
                    let probes = state.limiter.reason() == Reason::Down;
                    state.limiter.started();
                    admitted.push((sender, Permit { gate: Arc::clone(self), probes, sent: now, ended: false }));
                }
                Start::WhenOneEnds => break,
                Start::At(later) if state.waiting.is_empty() || state.alarm.is_some_and(|alarm| alarm <= later) => {
                    break;
                }
                Start::At(later) => {
                    state.alarm = Some(later);
                    let gate = Arc::clone(self);
                    tokio::spawn(async move { gate.look_again(later).await });
                    break;
                }
            }
        }
        self.show(&state);
        drop(state);
        for (sender, permit) in admitted {
            // Gone meanwhile: its permit comes back as it is dropped.
            let _ = sender.send(permit);
        }
    }

    async fn look_again(self: Arc<Self>, at: Duration) {
        tokio::time::sleep_until((self.born + at).into()).await;
        self.lock().alarm = None;
        self.admit();
    }

    fn end(self: &Arc<Self>, ending: Ending, sent: Duration) {
        {
            let mut state = self.lock();
            let before = state.limiter.reason();
            state.limiter.ended(ending, sent, self.born.elapsed());
            match (before == Reason::Down, state.limiter.reason() == Reason::Down) {
                (false, true) => {
                    tracing::warn!("the API counts as down: one request at a time tries it, everything else waits");
                }
                (true, false) => tracing::info!("the API answers again"),
                _ => {}
            }
        }
        self.admit();
    }

    fn show(&self, state: &State) {
        self.metrics.set_limit(state.limiter.limit(), state.limiter.reason(), state.waiting.len());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Whether it is to find out if the endpoint is up again.
    pub(crate) fn probes(&self) -> bool {
        self.probes
    }

    /// Says how it went.
    pub(crate) fn end(mut self, ending: Ending) {
        self.ended = true;
        self.gate.end(ending, self.sent);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.ended {
            self.gate.end(Ending::Abandoned, self.sent);
        }
    }
}

/// Who waits, by wiki; wikis take turns. Pure.
struct Turns<T> {
    of: HashMap<Domain, VecDeque<T>>,
    order: VecDeque<Domain>,
    len: usize,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { of: HashMap::new(), order: VecDeque::new(), len: 0 }
    }
}

impl<T> Turns<T> {
    fn push(&mut self, domain: &Domain, item: T) {
        let queue = self.of.entry(domain.clone()).or_default();
        if queue.is_empty() {
            self.order.push_back(domain.clone());
        }
        queue.push_back(item);
        self.len += 1;
    }

    /// The first of the wiki whose turn it is. A wiki without anybody is forgotten.
    fn pop(&mut self) -> Option<T> {
        let domain = self.order.pop_front()?;
        let queue = self.of.get_mut(&domain)?;
        let item = queue.pop_front();
        self.len -= usize::from(item.is_some());
        if queue.is_empty() {
            self.of.remove(&domain);
        } else {
            self.order.push_back(domain);
        }
        item
    }

    fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn domain(name: &str) -> Domain {
        name.parse().expect("a host name")
    }

    #[test]
    fn wikis_take_turns_however_many_wait_in_each() {
        let mut turns = Turns::default();
        for number in 0..5 {
            turns.push(&domain("hot.org"), number);
        }
        turns.push(&domain("cold.org"), 100);
        turns.push(&domain("cool.org"), 200);
        turns.push(&domain("cool.org"), 201);
        let order: Vec<i32> = std::iter::from_fn(|| turns.pop()).collect();
        assert_eq!(order, [0, 100, 200, 1, 201, 2, 3, 4]);
        assert!(turns.is_empty() && turns.of.is_empty() && turns.order.is_empty(), "nothing is kept for a wiki");
    }

    proptest! {
        #[test]
        fn who_waits_is_passed_by_each_other_wiki_once_at_most(steps in prop::collection::vec((0u8..6, any::<bool>()), 0..200)) {
            let mut turns = Turns::default();
            let mut waiting: HashMap<u8, usize> = HashMap::new();
            // How often others had their turn since this wiki had one, or began to wait.
            let mut passed: HashMap<(u8, u8), usize> = HashMap::new();
            for (wiki, enters) in steps {
                if enters {
                    turns.push(&domain(&format!("w{wiki}.org")), wiki);
                    *waiting.entry(wiki).or_default() += 1;
                    continue;
                }
                let Some(next) = turns.pop() else { continue };
                let left = waiting.get_mut(&next).expect("it waited");
                *left -= 1;
                passed.retain(|(of, _), _| *of != next);
                for (of, _) in waiting.iter().filter(|(of, left)| **of != next && **left > 0) {
                    let times = passed.entry((*of, next)).or_default();
                    *times += 1;
                    prop_assert!(*times <= 1, "w{next} had its turn {times} times while w{of} waited");
                }
            }
            prop_assert_eq!(turns.len(), waiting.values().sum::<usize>());
        }
    }

    #[tokio::test]
    async fn no_more_are_let_in_than_may_be_and_who_left_costs_nothing() {
        let gate = Gate::new(2, Metrics::default());
        let wiki = domain("a.org");
        let first = gate.enter(&wiki).await;
        let second = gate.enter(&wiki).await;
        let impatient = tokio::time::timeout(Duration::from_millis(50), gate.enter(&wiki)).await;
        assert!(impatient.is_err(), "two are in");
        let third = tokio::spawn({
            let (gate, wiki) = (Arc::clone(&gate), wiki.clone());
            async move { gate.enter(&wiki).await }
        });
        tokio::task::yield_now().await;
        first.end(Ending::Answered);
        let third = third.await.expect("let in");
        drop(second);
        drop(third);
        assert!(!gate.is_down());
        assert_eq!(gate.lock().waiting.len(), 0);
    }

    #[tokio::test]
    async fn who_waits_for_retry_after_is_woken() {
        let gate = Gate::new(2, Metrics::default());
        let wiki = domain("a.org");
        gate.enter(&wiki).await.end(Ending::Overloaded { retry_after: Some(Duration::from_millis(80)) });
        let entered = tokio::time::timeout(Duration::from_secs(60), gate.enter(&wiki)).await;
        entered.expect("it was woken").end(Ending::Answered);
    }
}
