//! Things of one wiki that are waiting are asked for together; a lone one waits no longer than the linger.
//!
//! A batch leaves when it is full, or when its linger is over and a request may start: so batches grow while the API is
//! busy, and stay small while it is not. Under all of it lies one [`Gate`]: requests in flight of the taskmanager. While the
//! endpoint is down, what tries it asks for nothing that a record wants: else a few records that it can never answer would
//! keep it down for ever.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::oneshot, time::sleep};

use super::{
    domain::Domain,
    gate::{Gate, Permit},
    limiter::Ending,
};
use crate::enrich::{
    fault::Fault,
    routes::{Effect, Kind},
};

/// Something that can be asked for, several at a time.
#[async_trait]
pub(crate) trait Lookup: Send + Sync + 'static {
    /// The question.
    type Ask: Clone + Send + Sync;
    /// The answer.
    type Answer: Send;

    /// Asks for nothing, to learn whether the endpoint is up: what a record wants may be what it cannot answer.
    async fn probe(&self, domain: &Domain) -> Result<(), Fault>;

    /// One result for each ask, in their order. A bad one harms only itself.
    async fn look_up(&self, domain: &Domain, asks: &[Self::Ask]) -> Vec<Result<Self::Answer, Fault>>;
}

/// When a batch is full.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Asks.
    pub(crate) count: usize,
    /// Declared bytes of content.
    pub(crate) bytes: u64,
    /// Time that an ask waits for company.
    pub(crate) linger: Duration,
}

/// Collects asks by wiki. Cheap to clone.
pub(crate) struct Batcher<L: Lookup>(Arc<Inner<L>>);

struct Inner<L: Lookup> {
    lookup: L,
    limits: Limits,
    gate: Arc<Gate>,
    queues: Mutex<HashMap<Domain, Queue<Waiting<L>>>>,
}

struct Waiting<L: Lookup> {
    ask: L::Ask,
    reply: oneshot::Sender<Result<L::Answer, Fault>>,
}

impl<L: Lookup> Clone for Batcher<L> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<L: Lookup> Batcher<L> {
    /// A batcher whose requests each go through `gate`.
    pub(crate) fn new(lookup: L, limits: Limits, gate: Arc<Gate>) -> Self {
        Self(Arc::new(Inner { lookup, limits, gate, queues: Mutex::default() }))
    }

    /// Asks, together with others. `alone`: apart from others, since it failed among them before.
    ///
    /// # Cancel safety
    /// Dropping the future withdraws an ask that has not been sent; otherwise the answer is thrown away.
    pub(crate) async fn ask(&self, domain: &Domain, ask: L::Ask, bytes: u64, alone: bool) -> Result<L::Answer, Fault> {
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting { ask, reply };
        if alone {
            self.spawn_batch(domain.clone(), vec![waiting]);
        } else {
            self.enqueue(domain, waiting, bytes);
        }
        answer
            .await
            .unwrap_or_else(|_| Err(Fault::new(Kind::Interrupted, format!("{domain}: the request was cut off"))))
    }

    fn enqueue(&self, domain: &Domain, waiting: Waiting<L>, bytes: u64) {
        let mut queues = self.queues();
        let queue = queues.entry(domain.clone()).or_default();
        let full = queue.push(waiting, bytes, self.0.limits);
        if !queue.lingers && queue.items.is_empty() {
            // Domains come from the input: an empty queue must not stay for each of them.
            queues.remove(domain);
        } else if !queue.lingers {
            queue.lingers = true;
            tokio::spawn(self.clone().linger(domain.clone()));
        }
        drop(queues);
        for batch in full {
            self.spawn_batch(domain.clone(), batch);
        }
    }

    async fn linger(self, domain: Domain) {
        sleep(self.0.limits.linger).await;
        let permit = self.0.gate.enter(&domain).await;
        // Taken only now: what came while the API was busy goes along.
        let waiting = self.queues().remove(&domain).map(|queue| queue.items).unwrap_or_default();
        self.run(&domain, waiting, permit).await;
    }

    fn spawn_batch(&self, domain: Domain, batch: Vec<Waiting<L>>) {
        let this = self.clone();
        tokio::spawn(async move {
            let permit = this.0.gate.enter(&domain).await;
            this.run(&domain, batch, permit).await;
        });
    }

    async fn run(&self, domain: &Domain, mut batch: Vec<Waiting<L>>, permit: Permit) {
        batch.retain(|waiting| !waiting.reply.is_closed());
        if batch.is_empty() {
            return;
        }
        let Some(permit) = self.probed(domain, &mut batch, permit).await else { return };
        let (asks, replies): (Vec<_>, Vec<_>) = batch.into_iter().map(|waiting| (waiting.ask, waiting.reply)).unzip();
        let answers = self.0.lookup.look_up(domain, &asks).await;
        permit.end(ending(&answers));
        for (reply, answer) in replies.into_iter().zip(answers) {
            // Nobody waits any more: the record was abandoned.
            let _ = reply.send(answer);
        }
    }

    /// While the endpoint is down, asks it for nothing first. `None`: it is down, and all of the batch knows.
    async fn probed(&self, domain: &Domain, batch: &mut Vec<Waiting<L>>, permit: Permit) -> Option<Permit> {
        if !permit.probes() {
            return Some(permit);
        }
        let answer = [self.0.lookup.probe(domain).await];
        let ending = ending(&answer);
        permit.end(ending);
        match answer {
            [Err(fault)] if ending != Ending::Answered => {
                for waiting in batch.drain(..) {
                    // Nobody waits any more: the record was abandoned.
                    let _ = waiting.reply.send(Err(fault.clone()));
                }
                None
            }
            [_] => Some(self.0.gate.enter(domain).await),
        }
    }

    fn queues(&self) -> MutexGuard<'_, HashMap<Domain, Queue<Waiting<L>>>> {
        self.0.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the API takes from anybody.
const COUNT_FOR_ANYBODY: usize = 50;

/// How many to ask for together, after `count` were refused together.
pub(super) fn after_refusal(fault: &Fault, count: usize) -> usize {
    match fault.kind {
        Kind::TooManyValues if count > COUNT_FOR_ANYBODY => COUNT_FOR_ANYBODY,
        _ => count.div_ceil(2),
    }
}

/// What the answers say about the endpoint. A request that failed as a whole has a fault for each ask.
fn ending<T>(answers: &[Result<T, Fault>]) -> Ending {
    let faults = || answers.iter().filter_map(|answer| answer.as_ref().err());
    if let Some(fault) = faults().find(|fault| fault.effect() == Effect::Overloaded) {
        return Ending::Overloaded { retry_after: fault.retry_after };
    }
    let unanswered = answers.iter().all(|answer| answer.as_ref().is_err_and(Fault::is_of_the_endpoint));
    if unanswered { Ending::Failed } else { Ending::Answered }
}

/// Asks of one wiki that wait. Pure.
struct Queue<T> {
    items: Vec<T>,
    bytes: u64,
    lingers: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { items: Vec::new(), bytes: 0, lingers: false }
    }
}

impl<T> Queue<T> {
    /// Adds an item; returns the batches that are full by it, at most two.
    fn push(&mut self, item: T, bytes: u64, limits: Limits) -> Vec<Vec<T>> {
        let mut full = Vec::new();
        if !self.items.is_empty() && self.bytes.saturating_add(bytes) > limits.bytes {
            full.push(self.take());
        }
        self.items.push(item);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.items.len() >= limits.count.max(1) || self.bytes >= limits.bytes {
            full.push(self.take());
        }
        full
    }

    fn take(&mut self) -> Vec<T> {
        self.bytes = 0;
        std::mem::take(&mut self.items)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refused_batches_end() {
        let refused = |kind, count| after_refusal(&Fault::new(kind, ""), count);
        assert_eq!([500, 51, 50, 3, 2].map(|count| refused(Kind::TooManyValues, count)), [50, 50, 25, 2, 1]);
        assert_eq!([500, 3, 2].map(|count| refused(Kind::AnswerTooLarge, count)), [250, 2, 1]);
    }

    #[test]
    fn what_answers_say_about_the_endpoint() {
        let fault = |kind| Err(Fault::new(kind, ""));
        let timeout = || fault(Kind::Timeout);
        let slow_down = || Err(Fault { retry_after: Some(Duration::from_secs(7)), ..Fault::new(Kind::MaxLag, "") });
        let overloaded = Ending::Overloaded { retry_after: Some(Duration::from_secs(7)) };
        let table: [(Vec<Result<(), Fault>>, Ending); 6] = [
            (vec![Ok(()), Ok(())], Ending::Answered),
            (vec![timeout(), timeout()], Ending::Failed),
            (vec![Ok(()), timeout()], Ending::Answered),
            (vec![fault(Kind::BadRevision)], Ending::Answered),
            (vec![fault(Kind::OtherApiError)], Ending::Answered),
            (vec![Ok(()), slow_down()], overloaded),
        ];
        for (answers, wanted) in table {
            assert_eq!(ending(&answers), wanted, "{answers:?}");
        }
    }

    proptest! {
        #[test]
        fn batches_keep_both_limits_and_lose_nothing(
            sizes in prop::collection::vec(0u64..30, 0..60), count in 1usize..6, bytes in 1u64..40,
        ) {
            let limits = Limits { count, bytes, linger: Duration::ZERO };
            let mut queue = Queue::default();
            let mut batches = Vec::new();
            for (index, size) in sizes.iter().enumerate() {
                batches.extend(queue.push((index, *size), *size, limits));
            }
            batches.push(queue.take());
            for batch in &batches {
                prop_assert!(batch.len() <= count);
                prop_assert!(batch.len() <= 1 || batch.iter().map(|(_, size)| size).sum::<u64>() <= bytes);
            }
            let order: Vec<usize> = batches.iter().flatten().map(|(index, _)| *index).collect();
            prop_assert_eq!(order, (0..sizes.len()).collect::<Vec<_>>());
        }
    }
}
