//! Who leads, decided over a lease object that is written under conditions: a synchronous state machine without IO, clock
//! or randomness. Events in, actions out.
//!
//! The rules, which are those of Kubernetes' client-go:
//! - A candidate takes an object over only when it has not changed for its whole `ttl`, measured by the candidate's own
//!   clock from when it first *saw* that version. No two clocks are compared.
//! - A leader writes the object every third of the `ttl`. It leads no longer than nine tenths of the `ttl` from when it
//!   *sent* the last write that is known to have happened: the tenth is for clocks that run at different speeds.
//! - A write without an answer counts as not done, but may have been: the object is read before it is written again, and
//!   if that write is found in it, it counts from when it was sent.
//! - A write whose condition fails means that somebody else has written, unless the object then shows this candidate's
//!   own write (a store's client repeats a request whose answer was lost).
//!
//! Two candidates can never both lead by their own clocks. What a paused leader sends before it looks at its clock again
//! is not kept off by this, but by epochs and by the fence at the broker.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use weir_common::ids::LeaderEpoch;

/// A standby looks at least so often, so that it need not be waited for after a release.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The lease object, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Who holds it: one incarnation of one process, never used again. Empty: released, anybody may take it at once.
    pub holder: String,
    /// Where taskmanagers and operators reach the holder, `host:port`.
    pub address: String,
    /// Of the holder's leadership. Grows with every take-over, also over releases.
    pub epoch: LeaderEpoch,
    /// Grows with every write, so that every write changes the object.
    pub renewal: u64,
    /// For how long the holder may lead after a write.
    pub ttl_ms: u64,
}

impl Lease {
    fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_ms)
    }

    fn is_free(&self) -> bool {
        self.holder.is_empty()
    }
}

/// What a candidate is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// See [`Lease::holder`]; not empty.
    pub holder: String,
    /// See [`Lease::address`].
    pub address: String,
    /// `high_availability.lease_ttl`
    pub ttl: Duration,
}

/// Something that happened. Every [`Action::Read`] and [`Action::Write`] is answered exactly once, in bounded time; there
/// is never more than one of them on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<V> {
    /// [`Candidate::next_deadline`] has come; at the start, the first event.
    Deadline,
    /// The object was read: `None` is no object, `Some` with the name of its state.
    Read(Option<(Lease, V)>),
    /// The object could not be read.
    ReadFailed(String),
    /// The object was written; `V` names its new state.
    Written(V),
    /// The condition failed: the object was not in the state that was given, or was there already.
    ConditionFailed,
    /// No answer, or none that says whether it was written.
    WriteUnclear(String),
    /// The leadership needs at least this epoch, and a write that is sent from now on: [`Action::Held`] with a later
    /// `sent` says that it was done.
    Confirm {
        /// 0 where any will do.
        at_least: LeaderEpoch,
    },
    /// Lead no more, and leave the lease free. The leader has stopped everything before.
    Release,
}

/// What the shell must do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<V> {
    /// Read the object.
    Read,
    /// Write the object: over exactly this state of it, or only where there is none.
    Write {
        /// The content.
        lease: Lease,
        /// The condition.
        over: Option<V>,
    },
    /// This candidate leads. Comes with each write that is known to have happened.
    Held {
        /// As the object says it.
        epoch: LeaderEpoch,
        /// When that write was sent.
        sent: Duration,
        /// The leadership ends then by itself, unless another one comes.
        until: Duration,
    },
    /// This candidate leads no more, and is a standby from now on.
    Lost {
        /// What happened.
        reason: String,
    },
    /// The lease is free, or is as good as: nothing follows.
    Released,
}

/// The object as a candidate knows it.
#[derive(Clone, Debug)]
struct Seen<V> {
    /// `None`: no object.
    object: Option<(Lease, V)>,
    /// First seen in this state.
    since: Duration,
    /// No object has ever been seen, so that there is nobody to wait for.
    untouched: bool,
}

/// What is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    Read,
    Write,
    Release,
}

/// The last write of this leadership, or for one.
#[derive(Clone, Debug)]
struct Attempt {
    lease: Lease,
    sent: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Standby,
    /// Until then, by its own clock.
    Leading {
        until: Duration,
    },
    Released,
}

/// One candidate for one lease. `V` names states of the object (an ETag).
#[derive(Clone, Debug)]
pub struct Candidate<V> {
    settings: Settings,
    role: Role,
    seen: Option<Seen<V>>,
    pending: Option<Pending>,
    attempt: Option<Attempt>,
    /// Numbers are used once, whatever became of a write.
    renewals: u64,
    /// The object is read before it is written again.
    in_doubt: bool,
    /// The next read of a standby, the next write of a leader.
    next: Duration,
    /// Another write is wanted as soon as nothing is on its way.
    again: bool,
    at_least: LeaderEpoch,
    releasing: bool,
}

impl<V: Clone + PartialEq> Candidate<V> {
    /// A standby that knows nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            role: Role::Standby,
            seen: None,
            pending: None,
            attempt: None,
            renewals: 0,
            in_doubt: true,
            next: Duration::ZERO,
            again: false,
            at_least: LeaderEpoch(0),
            releasing: false,
        }
    }

    /// Whether it leads, by its own clock.
    #[must_use]
    pub fn leads(&self, now: Duration) -> bool {
        matches!(self.role, Role::Leading { until } if now < until)
    }

    /// Who holds the lease, as far as is known: it may have ended since.
    #[must_use]
    pub fn observed(&self) -> Option<&Lease> {
        self.seen_lease().filter(|lease| !lease.is_free())
    }

    /// When [`Event::Deadline`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let next = self.pending.is_none().then_some(self.next);
        match self.role {
            Role::Released => None,
            Role::Leading { until } => Some(next.map_or(until, |next| next.min(until))),
            Role::Standby => next,
        }
    }

    /// Applies one event. `now` never goes back.
    pub fn handle(&mut self, event: Event<V>, now: Duration) -> Vec<Action<V>> {
        let mut actions = Vec::new();
        if let Role::Leading { until } = self.role
            && now >= until
        {
            let ttl = self.settings.ttl;
            self.lose(
                format!("the lease was not renewed within {ttl:?}: storage did not answer in time"),
                &mut actions,
            );
        }
        match event {
            Event::Deadline => {}
            Event::Confirm { at_least } => self.confirm(at_least, now),
            Event::Release => {
                self.releasing = true;
                self.next = now;
            }
            answer => self.answered(answer, now, &mut actions),
        }
        self.proceed(now, &mut actions);
        actions
    }

    fn answered(&mut self, answer: Event<V>, now: Duration, actions: &mut Vec<Action<V>>) {
        let pending = self.pending.take();
        // Whether it is free or not is for others to find out, at the latest when its time is over.
        if pending == Some(Pending::Release) || (self.releasing && matches!(answer, Event::ReadFailed(_))) {
            return self.released(actions);
        }
        match answer {
            Event::Read(object) => self.read(object, now, actions),
            Event::Written(version) => self.written(version, now, actions),
            Event::ConditionFailed => {
                self.in_doubt = true;
                self.next = now;
            }
            Event::WriteUnclear(_) => {
                self.in_doubt = true;
                self.next = now + self.retry_interval();
            }
            _ => self.next = now + self.retry_interval(),
        }
        if self.releasing {
            self.next = now;
        }
    }

    /// What is to be done now, if nothing is on its way.
    fn proceed(&mut self, now: Duration, actions: &mut Vec<Action<V>>) {
        if self.pending.is_some() || self.role == Role::Released || now < self.next {
            return;
        }
        match self.role {
            Role::Leading { .. } if !self.in_doubt && self.releasing => self.give_up(actions),
            Role::Leading { .. } if !self.in_doubt => self.renew(now, actions),
            Role::Standby if self.releasing => self.released(actions),
            Role::Standby if !self.in_doubt && self.may_take(now) => self.take(now, actions),
            _ => {
                self.pending = Some(Pending::Read);
                actions.push(Action::Read);
            }
        }
    }

    fn confirm(&mut self, at_least: LeaderEpoch, now: Duration) {
        if matches!(self.role, Role::Leading { .. }) {
            self.at_least = self.at_least.max(at_least);
            self.again = true;
            self.next = now;
        }
    }

    fn read(&mut self, object: Option<(Lease, V)>, now: Duration, actions: &mut Vec<Action<V>>) {
        let doubted = std::mem::replace(&mut self.in_doubt, false);
        let ours = object.as_ref().is_some_and(|(lease, _)| lease.holder == self.settings.holder);
        if matches!(self.role, Role::Leading { .. }) && !ours {
            let reason = match &object {
                None => "the lease object is gone".to_owned(),
                Some((lease, _)) if lease.is_free() => format!("epoch {} has begun and ended since", lease.epoch),
                Some((lease, _)) => format!("{} leads with epoch {}", lease.address, lease.epoch),
            };
            self.lose(reason, actions);
        }
        self.see(object, now);
        let landed = |attempt: &&Attempt| Some(&attempt.lease) == self.seen_lease() && now < attempt.sent + self.hold();
        if let Some(attempt) = self.attempt.as_ref().filter(landed) {
            let sent = attempt.sent;
            return self.held(sent, now, actions);
        }
        // After a doubt there is a pause, so that a store that contradicts itself is not asked without one.
        self.next = match self.role {
            Role::Leading { .. } => now + self.retry_interval(),
            _ if self.may_take(now) => now + if doubted { self.retry_interval() } else { Duration::ZERO },
            _ => now + self.poll_interval(),
        };
    }

    fn written(&mut self, version: V, now: Duration, actions: &mut Vec<Action<V>>) {
        // Of a leadership that has ended meanwhile: what became of the object is to be seen.
        let Some(Attempt { lease, sent }) = self.attempt.clone() else {
            self.in_doubt = true;
            self.next = now;
            return;
        };
        self.seen = Some(Seen { object: Some((lease, version)), since: now, untouched: false });
        if now < sent + self.hold() {
            self.held(sent, now, actions);
        } else {
            // Too late to lead by it: it is taken anew, under its own condition.
            self.next = now;
        }
    }

    /// A write that was sent then is known to have happened, and the object is known as it is.
    fn held(&mut self, sent: Duration, now: Duration, actions: &mut Vec<Action<V>>) {
        let until = sent + self.hold();
        let epoch = self.seen_lease().map(|lease| lease.epoch).unwrap_or_default();
        self.role = Role::Leading { until };
        self.next = if self.again || epoch < self.at_least { now } else { sent + self.settings.ttl / 3 };
        actions.push(Action::Held { epoch, sent, until });
    }

    fn lose(&mut self, reason: String, actions: &mut Vec<Action<V>>) {
        self.role = Role::Standby;
        self.again = false;
        self.at_least = LeaderEpoch(0);
        // What it wrote last is not counted any more: a next leadership has a next epoch.
        self.attempt = None;
        self.in_doubt = true;
        self.next = Duration::ZERO;
        actions.push(Action::Lost { reason });
    }

    fn see(&mut self, object: Option<(Lease, V)>, now: Duration) {
        let version = object.as_ref().map(|(_, version)| version);
        match &self.seen {
            Some(seen) if seen.object.as_ref().map(|(_, version)| version) == version => {}
            known => {
                let untouched = known.is_none() && object.is_none();
                self.seen = Some(Seen { object, since: now, untouched });
            }
        }
    }

    fn may_take(&self, now: Duration) -> bool {
        let Some(seen) = &self.seen else { return false };
        let (ttl, free) = match &seen.object {
            // Deleted, who had it may still lead by it.
            None => (self.settings.ttl, seen.untouched),
            Some((lease, _)) => (lease.ttl(), lease.is_free() || lease.holder == self.settings.holder),
        };
        free || now.saturating_sub(seen.since) >= ttl
    }

    fn take(&mut self, now: Duration, actions: &mut Vec<Action<V>>) {
        let epoch = self.seen_lease().map(|lease| lease.epoch).unwrap_or_default().next();
        self.write(epoch, now, actions);
    }

    fn renew(&mut self, now: Duration, actions: &mut Vec<Action<V>>) {
        let epoch = self.seen_lease().map(|lease| lease.epoch).unwrap_or_default().max(self.at_least);
        self.again = false;
        self.write(epoch, now, actions);
    }

    fn write(&mut self, epoch: LeaderEpoch, now: Duration, actions: &mut Vec<Action<V>>) {
        let Settings { holder, address, .. } = self.settings.clone();
        let lease = self.next_lease(holder, address, epoch);
        self.attempt = Some(Attempt { lease: lease.clone(), sent: now });
        self.pending = Some(Pending::Write);
        actions.push(Action::Write { lease, over: self.seen_version() });
    }

    fn give_up(&mut self, actions: &mut Vec<Action<V>>) {
        let epoch = self.seen_lease().map(|lease| lease.epoch).unwrap_or_default();
        let lease = self.next_lease(String::new(), String::new(), epoch);
        self.role = Role::Standby;
        self.pending = Some(Pending::Release);
        actions.push(Action::Write { lease, over: self.seen_version() });
    }

    fn next_lease(&mut self, holder: String, address: String, epoch: LeaderEpoch) -> Lease {
        self.renewals = self.seen_lease().map_or(0, |lease| lease.renewal).max(self.renewals) + 1;
        let ttl_ms = u64::try_from(self.settings.ttl.as_millis()).unwrap_or(u64::MAX);
        Lease { holder, address, epoch, renewal: self.renewals, ttl_ms }
    }

    fn released(&mut self, actions: &mut Vec<Action<V>>) {
        self.role = Role::Released;
        actions.push(Action::Released);
    }

    fn seen_lease(&self) -> Option<&Lease> {
        Some(&self.seen.as_ref()?.object.as_ref()?.0)
    }

    fn seen_version(&self) -> Option<V> {
        Some(self.seen.as_ref()?.object.as_ref()?.1.clone())
    }

    /// How long a leader leads after it has sent a write.
    fn hold(&self) -> Duration {
        self.settings.ttl - self.settings.ttl / 10
    }

    fn poll_interval(&self) -> Duration {
        self.retry_interval().min(MAX_POLL_INTERVAL)
    }

    fn retry_interval(&self) -> Duration {
        self.settings.ttl / 10
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
