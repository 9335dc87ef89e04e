//! The shell around the candidate.

use std::{rc::Rc, time::Duration};

use weir_common::ids::LeaderEpoch;
use weir_jobmanager::leadership::lease::{Action, Event, Lease};

use super::Confirmation;
use crate::{
    time::{Micros, Pid, promise},
    variants::Variant,
    world::World,
};

impl World {
    pub(super) fn lease_deadline(self: &Rc<Self>, pid: Pid, wait: Micros) {
        let at = self.time.now() + wait;
        if let Some(jobmanager) = self.jobmanager(pid) {
            jobmanager.borrow_mut().deadline = Some(at);
        }
        self.time.after(wait, Some(pid), move |world| {
            let due = world.jobmanager(pid).is_some_and(|jobmanager| jobmanager.borrow().deadline == Some(at));
            if due {
                world.tell_candidate(pid, Event::Deadline);
            }
        });
    }

    pub(super) fn tell_candidate(self: &Rc<Self>, pid: Pid, event: Event<u64>) {
        let Some(shared) = self.jobmanager(pid) else { return };
        let now = self.time.local(pid);
        let actions = shared.borrow_mut().candidate.handle(event, now);
        for action in actions {
            self.do_for_candidate(pid, action);
        }
        self.look_at_leaders();
        let Some(next) = shared.borrow().candidate.next_deadline() else { return };
        let due = self.time.global(pid, next).max(self.time.now() + 1);
        if shared.borrow().deadline != Some(due) {
            self.lease_deadline(pid, due - self.time.now());
        }
    }

    fn do_for_candidate(self: &Rc<Self>, pid: Pid, action: Action<u64>) {
        match action {
            Action::Read => self.read_lease(move |world, read| {
                let event = match read {
                    Some(object) => Event::Read(world.seen_by(pid, object)),
                    None => Event::ReadFailed("the store does not answer".to_owned()),
                };
                world.time.after(0, Some(pid), move |world| world.tell_candidate(pid, event));
            }),
            Action::Write { lease, over } => {
                self.wall_clock_of(pid, &lease);
                self.write_lease(lease, over, move |world, written| {
                    let event = match written {
                        Ok(version) => Event::Written(version),
                        Err(true) => Event::ConditionFailed,
                        Err(false) => Event::WriteUnclear("the store does not answer".to_owned()),
                    };
                    world.time.after(0, Some(pid), move |world| world.tell_candidate(pid, event));
                });
            }
            Action::Held { epoch, sent, .. } => self.held(pid, epoch, sent),
            Action::Lost { reason } => {
                self.note(|| format!("jm-{pid}: leads no more: {reason}"));
                if !self.variant.ignores_lease() {
                    self.end_term(pid);
                }
            }
            Action::Released => {}
        }
    }

    fn held(self: &Rc<Self>, pid: Pid, epoch: LeaderEpoch, sent: Duration) {
        let Some(shared) = self.jobmanager(pid) else { return };
        let mut jobmanager = shared.borrow_mut();
        let confirmed = |each: &mut Confirmation| sent >= each.since && epoch >= each.at_least;
        let confirmed: Vec<Confirmation> = jobmanager.confirmations.extract_if(.., confirmed).collect();
        let begins = !std::mem::replace(&mut jobmanager.in_term, true);
        drop(jobmanager);
        confirmed.into_iter().for_each(|each| each.keeper.keep(Some(epoch)));
        if begins {
            self.begin_term(pid);
        }
    }

    /// Waits for a write of the lease that is sent from now on; `None`: the leadership is over.
    pub(super) async fn confirm(self: &Rc<Self>, pid: Pid, at_least: LeaderEpoch) -> Option<LeaderEpoch> {
        let confirmed = {
            let shared = self.jobmanager(pid)?;
            let mut jobmanager = shared.borrow_mut();
            let since = self.time.local(pid);
            if !jobmanager.candidate.leads(since) {
                return None;
            }
            let (keeper, confirmed) = promise();
            jobmanager.confirmations.push(Confirmation { at_least, since, keeper });
            confirmed
        };
        self.tell_candidate(pid, Event::Confirm { at_least });
        confirmed.await
    }

    pub(super) fn end_term(self: &Rc<Self>, pid: Pid) {
        let Some(shared) = self.jobmanager(pid) else { return };
        let mut jobmanager = shared.borrow_mut();
        jobmanager.term += 1;
        jobmanager.in_term = false;
        jobmanager.term_over.cancel();
        let waiting = std::mem::take(&mut jobmanager.confirmations);
        let leadership = jobmanager.leadership.take();
        drop(jobmanager);
        waiting.into_iter().for_each(|each| each.keeper.keep(None));
        if let Some(leadership) = leadership {
            leadership.streams().into_iter().for_each(|stream| self.hang_up_from_jobmanager(stream));
        }
    }

    /// The mistake of a lease that ends by the wall clock: the writer's says until when, the reader's whether it is over.
    fn seen_by(&self, pid: Pid, object: Option<(Lease, u64)>) -> Option<(Lease, u64)> {
        let (mut lease, version) = object?;
        if self.variant == Variant::WallClockLease
            && let (Some(until), Some(wall)) = (self.wall_lease.get(), self.wall(pid))
            && wall > until
        {
            lease.holder = String::new();
        }
        Some((lease, version))
    }

    fn wall_clock_of(&self, pid: Pid, lease: &Lease) {
        if let Some(wall) = self.wall(pid) {
            self.wall_lease.set(Some(wall + lease.ttl_ms as i64 * 1000));
        }
    }

    fn wall(&self, pid: Pid) -> Option<i64> {
        Some(self.time.now() as i64 + self.jobmanager(pid)?.borrow().wall)
    }

    /// Two never lead at once, each by its own clock.
    fn look_at_leaders(&self) {
        let leads = |(pid, jobmanager): (&Pid, &Rc<std::cell::RefCell<super::Jobmanager>>)| {
            jobmanager.borrow().leads(self.time.local(*pid)).then_some(*pid)
        };
        let leaders: Vec<Pid> = self.jobmanagers.borrow().iter().filter_map(leads).collect();
        if leaders.len() > 1 {
            self.violate(format!("jobmanagers {leaders:?} lead at once"));
        }
    }
}
