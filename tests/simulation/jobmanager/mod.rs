//! A jobmanager: the real candidate for the lease, start rules, coordinator and snapshots, in a shell that does what the
//! process's shell does.

mod leading;
mod lease;
mod record;
mod startup;

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use weir_common::ids::LeaderEpoch;
use weir_jobmanager::{
    leadership::lease::{Candidate, Settings},
    store::Snapshots,
};

use self::leading::Leadership;
use crate::{
    broker::TransactionalId,
    client::Client,
    time::{Keeper, Micros, Pid, SECOND},
    world::World,
};

/// `high_availability.lease_ttl`
const LEASE_TTL: Duration = Duration::from_secs(6);

pub(crate) const JOB: &str = "job";

/// Checkpoints that stay.
const RETAINED: usize = 3;

pub(crate) struct Jobmanager {
    candidate: Candidate<u64>,
    /// When the candidate is told that time has passed.
    deadline: Option<Micros>,
    /// Counts leaderships, whether they got as far as to begin or not.
    term: u64,
    in_term: bool,
    /// Wait for a write of the lease that was sent after a time.
    confirmations: Vec<Confirmation>,
    leadership: Option<Leadership>,
    /// Of this term.
    writer: Rc<Client>,
    /// What the term has begun ends with it.
    term_over: CancellationToken,
    snapshots: Snapshots,
    /// Its wall clock is so much ahead of true time, or behind it.
    wall: i64,
}

struct Confirmation {
    at_least: LeaderEpoch,
    since: Duration,
    keeper: Keeper<Option<LeaderEpoch>>,
}

impl World {
    pub(crate) fn start_jobmanager(self: &Rc<Self>) {
        let rate = self.time.between(980_000, 1_020_000);
        let pid = self.time.start_process(rate);
        let address = format!("jm-{pid}");
        let candidate = Candidate::new(Settings { holder: address.clone(), address, ttl: LEASE_TTL });
        let jobmanager = Jobmanager {
            candidate,
            deadline: None,
            term: 0,
            in_term: false,
            confirmations: Vec::new(),
            leadership: None,
            writer: Rc::new(Client::new(self, pid, TransactionalId::Jobmanager)),
            term_over: CancellationToken::new(),
            snapshots: Snapshots::new(Arc::new(self.bucket.clone()), JOB, RETAINED),
            wall: self.time.between(0, 40 * SECOND) as i64 - 20 * SECOND as i64,
        };
        self.note(|| format!("jm-{pid}: starts"));
        self.jobmanagers.borrow_mut().insert(pid, Rc::new(RefCell::new(jobmanager)));
        self.lease_deadline(pid, 0);
    }

    pub(crate) fn jobmanager(&self, pid: Pid) -> Option<Rc<RefCell<Jobmanager>>> {
        self.jobmanagers.borrow().get(&pid).cloned()
    }

    /// The process is gone; another one comes after a while.
    pub(crate) fn crash_jobmanager(self: &Rc<Self>, pid: Pid) {
        if self.jobmanagers.borrow_mut().remove(&pid).is_none() {
            return;
        }
        self.note(|| format!("jm-{pid}: is gone"));
        self.time.kill(pid);
        self.break_streams_of(pid);
        let wait = self.time.between(SECOND / 5, 4 * SECOND);
        self.time.after(wait, None, World::start_jobmanager);
    }

    /// Whether it may act now: asked before anything is done.
    fn may_act(self: &Rc<Self>, pid: Pid) -> bool {
        let Some(shared) = self.jobmanager(pid) else { return false };
        if self.variant.ignores_lease() {
            return true;
        }
        let leads = shared.borrow().leads(self.time.local(pid));
        if !leads {
            self.tell_candidate(pid, weir_jobmanager::leadership::lease::Event::Deadline);
        }
        leads
    }

    /// Something that a next leadership of this process must not meet: its writes would come after the next one's.
    fn spawn_in_term(&self, pid: Pid, future: impl Future<Output = ()> + 'static) {
        let Some(shared) = self.jobmanager(pid) else { return };
        let over = shared.borrow().term_over.clone();
        self.time.spawn(pid, async move {
            over.run_until_cancelled(future).await;
        });
    }

    /// Whether this is still the leadership that something was begun in.
    fn is_term(self: &Rc<Self>, pid: Pid, term: u64) -> bool {
        self.may_act(pid) && self.jobmanager(pid).is_some_and(|jobmanager| jobmanager.borrow().term == term)
    }
}

impl Jobmanager {
    fn leads(&self, now: Duration) -> bool {
        self.candidate.leads(now)
    }
}
