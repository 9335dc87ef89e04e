//! What a taskmanager does about what it hears: a synchronous state machine without IO or clock.

use std::collections::BTreeMap;

use weir_common::{
    failure::SplitFailure,
    ids::{CheckpointId, GrantId, LeaderEpoch, SlotId},
    split::{SplitId, TopicPartition},
};

use crate::sink::report::{Assignment, SinkEvent, SinkEventKind, SplitReport};

/// What the jobmanager says, in our types.
#[expect(missing_docs, reason = "the types of the fields say what they are")]
#[derive(Clone, Debug, PartialEq)]
pub enum FromJobmanager {
    /// The job is known now. `job_changed`: it is another one than the enricher was made for.
    Registered { job_changed: bool },
    /// Politely refused; `retry_ms` 0: for good.
    Refused { message: String, retry_ms: u64 },
    /// The grant was renewed; the shell knows when the heartbeat was sent. `requests_max`: what this taskmanager may have
    /// in flight of the job's requests, if that is said.
    HeartbeatAck { grant: GrantId, ttl_ms: u64, requests_max: Option<u32> },
    /// A slot is leased.
    Grant { slot: SlotId, grant: GrantId, ttl_ms: u64 },
    /// Splits with what is committed of them.
    Assign { splits: Vec<Assignment> },
    /// Splits that go.
    Revoke { splits: Vec<SplitId> },
    /// Commit now.
    Barrier { checkpoint: CheckpointId },
    /// Everything is released.
    Drain { leave: bool },
    /// A message of a newer jobmanager.
    Unknown,
}

/// Something that happened.
#[expect(missing_docs, reason = "the types of the fields say what they are")]
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The stream is open; Register was sent with [`Session::held`].
    Connected,
    /// The stream broke.
    Disconnected,
    /// The jobmanager spoke.
    Message { epoch: LeaderEpoch, message: FromJobmanager },
    /// The enricher of the job is made.
    EnricherReady,
    /// The sink spoke.
    Sink(SinkEvent),
    /// A partition cannot be read on.
    ReadFailed { partition: TopicPartition, failure: SplitFailure },
    /// SIGTERM or SIGINT.
    Shutdown,
}

/// What we say.
#[expect(missing_docs, reason = "the types of the fields say what they are")]
#[derive(Clone, Debug, PartialEq)]
pub enum ToJobmanager {
    /// The producer is initialised: splits may come.
    SlotReady {
        slot: SlotId,
        grant: GrantId,
    },
    /// What is committed; `checkpoint`: in answer to that barrier.
    Report {
        checkpoint: Option<CheckpointId>,
        slot: SlotId,
        splits: Vec<SplitReport>,
    },
    /// Committed and dropped.
    Released {
        splits: Vec<SplitReport>,
    },
    /// We want to leave: take the splits back.
    Draining,
    /// The slot is gone with all its splits: fence it, grant anew.
    SlotLost {
        slot: SlotId,
        grant: GrantId,
        reason: String,
    },
    SplitFailed {
        splits: Vec<SplitId>,
        failure: SplitFailure,
    },
}

/// What the shell must do, in order.
#[expect(missing_docs, reason = "the types of the fields say what they are")]
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Say this on the stream.
    Send(ToJobmanager),
    /// Make the job's enricher, then [`Input::EnricherReady`].
    BuildEnricher,
    /// A grant's time runs from now on.
    Lease { grant: GrantId, ttl_ms: u64 },
    /// Make sink and readers of the slot.
    StartSlot { slot: SlotId },
    /// The grant was renewed.
    Renew { ttl_ms: u64 },
    /// At most so many requests to the API at once.
    LimitRequests(u32),
    /// Hand splits to sink and readers.
    Assign(Vec<Assignment>),
    /// Read on what was assigned with a limit.
    LiftLimits,
    /// Stop reading, commit, release.
    Revoke(Vec<SplitId>),
    /// Commit and report.
    Barrier(CheckpointId),
    /// Read nothing more.
    StopReading,
    /// Drop producer, readers and splits without a commit.
    DropSlot,
    /// Close the stream and dial again after this.
    Redial { after_ms: u64 },
    /// Leave the process.
    Exit(Leave),
    /// Only to be counted and logged.
    Ignored(&'static str),
}

/// How the process ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leave {
    /// As asked.
    Drained,
    /// The jobmanager does not want us.
    Refused(String),
}

/// The slot as it is held now.
#[expect(missing_docs, reason = "the types of the fields say what they are")]
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    pub slot: SlotId,
    pub grant: GrantId,
    pub splits: BTreeMap<SplitId, SplitReport>,
    /// Those that cannot be read, until they are revoked.
    failed: BTreeMap<SplitId, SplitFailure>,
    /// Some were assigned with a limit by the leader that speaks now.
    limited: bool,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Waits for the enricher.
    Granted,
    /// The producer is being initialised.
    Starting,
    /// Splits may come.
    Ready,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Session {
    highest_epoch: LeaderEpoch,
    /// Register is on its way; what is sent now comes behind it.
    connected: bool,
    registered: bool,
    enricher_ready: bool,
    held: Option<Held>,
    draining: bool,
}

impl Session {
    /// What goes into Register: a slot whose producer is initialised, with what is committed.
    #[must_use]
    pub fn held(&self) -> Option<&Held> {
        self.held.as_ref().filter(|held| held.phase == Phase::Ready)
    }

    /// The newest grant, for heartbeats.
    #[must_use]
    pub fn grant(&self) -> Option<GrantId> {
        self.held.as_ref().map(|held| held.grant)
    }

    /// Whether the jobmanager has us on its list.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.registered
    }

    /// Applies one input; the effects are done in order.
    pub fn handle(&mut self, input: Input) -> Vec<Effect> {
        match input {
            Input::Connected => {
                self.connected = true;
                if self.draining { vec![Effect::Send(ToJobmanager::Draining)] } else { Vec::new() }
            }
            Input::Disconnected => self.disconnected(),
            Input::Message { epoch, .. } if epoch < self.highest_epoch => {
                vec![Effect::Ignored("a message of a former jobmanager")]
            }
            Input::Message { epoch, message } => {
                // A limit is the former leader's: nobody is left who would lift it.
                let limited = self.held.as_mut().filter(|_| epoch > self.highest_epoch);
                let lift = limited.is_some_and(|held| std::mem::take(&mut held.limited));
                self.highest_epoch = epoch;
                let mut effects = if lift { vec![Effect::LiftLimits] } else { Vec::new() };
                effects.extend(self.message(message));
                effects
            }
            Input::EnricherReady => {
                self.enricher_ready = true;
                self.start_if_possible()
            }
            Input::Sink(event) => self.sink(event),
            Input::ReadFailed { partition, failure } => self.read_failed(&partition, failure),
            Input::Shutdown => self.shutdown(),
        }
    }

    fn message(&mut self, message: FromJobmanager) -> Vec<Effect> {
        match message {
            FromJobmanager::Registered { job_changed } => self.registered(job_changed),
            FromJobmanager::Refused { message, retry_ms: 0 } => vec![Effect::Exit(Leave::Refused(message))],
            FromJobmanager::Refused { retry_ms, .. } => vec![Effect::Redial { after_ms: retry_ms }],
            FromJobmanager::HeartbeatAck { grant, ttl_ms, requests_max } if self.grant() == Some(grant) => {
                let limit = requests_max.map(Effect::LimitRequests);
                [Effect::Renew { ttl_ms }].into_iter().chain(limit).collect()
            }
            FromJobmanager::HeartbeatAck { .. } => Vec::new(),
            FromJobmanager::Grant { slot, grant, ttl_ms } => self.granted(slot, grant, ttl_ms),
            FromJobmanager::Assign { splits } => self.assign(splits),
            FromJobmanager::Revoke { splits } => self.revoke(splits),
            FromJobmanager::Barrier { checkpoint } => match &self.held {
                Some(Held { phase: Phase::Ready, .. }) => vec![Effect::Barrier(checkpoint)],
                // Nothing is held, so nothing is to be committed.
                held => {
                    let slot = held.as_ref().map_or(SlotId::default(), |held| held.slot);
                    let report = ToJobmanager::Report { checkpoint: Some(checkpoint), slot, splits: Vec::new() };
                    vec![Effect::Send(report)]
                }
            },
            FromJobmanager::Drain { leave: true } => vec![Effect::Exit(Leave::Drained)],
            FromJobmanager::Drain { leave: false } => Vec::new(),
            FromJobmanager::Unknown => vec![Effect::Ignored("a message that this build does not know")],
        }
    }

    fn registered(&mut self, job_changed: bool) -> Vec<Effect> {
        self.registered = true;
        let mut effects = Vec::new();
        if job_changed {
            self.enricher_ready = false;
            effects.extend(self.lose("the job has changed"));
            effects.push(Effect::BuildEnricher);
        }
        effects.extend(self.tell_failures());
        effects
    }

    fn granted(&mut self, slot: SlotId, grant: GrantId, ttl_ms: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        match &self.held {
            Some(held) if held.grant == grant && held.phase == Phase::Ready => {
                return vec![Effect::Send(ToJobmanager::SlotReady { slot, grant })];
            }
            Some(held) if held.grant == grant => return Vec::new(),
            // A new grant means that the slot was fenced before: what we held is gone.
            Some(_) => effects.push(Effect::DropSlot),
            None => {}
        }
        let (splits, failed) = (BTreeMap::new(), BTreeMap::new());
        self.held = Some(Held { slot, grant, splits, failed, limited: false, phase: Phase::Granted });
        effects.push(Effect::Lease { grant, ttl_ms });
        effects.extend(self.start_if_possible());
        effects
    }

    fn start_if_possible(&mut self) -> Vec<Effect> {
        match &mut self.held {
            Some(held) if held.phase == Phase::Granted && self.enricher_ready => {
                held.phase = Phase::Starting;
                vec![Effect::StartSlot { slot: held.slot }]
            }
            _ => Vec::new(),
        }
    }

    fn assign(&mut self, splits: Vec<Assignment>) -> Vec<Effect> {
        let Some(held) = self.held.as_mut().filter(|held| held.phase == Phase::Ready) else {
            return vec![Effect::Ignored("splits for a slot that is not ready")];
        };
        let new: Vec<Assignment> =
            splits.into_iter().filter(|each| !held.splits.contains_key(&each.report.split)).collect();
        held.splits.extend(new.iter().map(|each| (each.report.split.clone(), each.report.clone())));
        held.limited |= new.iter().any(|each| each.limit.is_some());
        if new.is_empty() { Vec::new() } else { vec![Effect::Assign(new)] }
    }

    fn revoke(&mut self, splits: Vec<SplitId>) -> Vec<Effect> {
        let Some(held) = self.held.as_mut().filter(|held| held.phase == Phase::Ready) else {
            return vec![Effect::Ignored("a revocation for a slot that is not ready")];
        };
        let ours: Vec<SplitId> = splits.into_iter().filter(|split| held.splits.contains_key(split)).collect();
        if ours.is_empty() { Vec::new() } else { vec![Effect::Revoke(ours)] }
    }

    fn sink(&mut self, event: SinkEvent) -> Vec<Effect> {
        let Some(held) = self.held.as_mut().filter(|held| held.grant == event.grant) else { return Vec::new() };
        let (slot, grant) = (held.slot, held.grant);
        match event.kind {
            SinkEventKind::Ready => {
                held.phase = Phase::Ready;
                self.send(ToJobmanager::SlotReady { slot, grant })
            }
            SinkEventKind::Reported { checkpoint, splits } => {
                for report in &splits {
                    if let Some(known) = held.splits.get_mut(&report.split) {
                        known.clone_from(report);
                    }
                }
                self.send(ToJobmanager::Report { checkpoint, slot, splits })
            }
            SinkEventKind::Released { splits } => {
                for report in &splits {
                    held.splits.remove(&report.split);
                    held.failed.remove(&report.split);
                }
                self.send(ToJobmanager::Released { splits })
            }
            SinkEventKind::Lost { reason } => self.lose(&reason),
        }
    }

    fn read_failed(&mut self, partition: &TopicPartition, failure: SplitFailure) -> Vec<Effect> {
        let Some(held) = &mut self.held else { return Vec::new() };
        let of_partition = held.splits.keys().filter(|split| split.topic_partition() == *partition);
        let splits: Vec<SplitId> = of_partition.cloned().collect();
        held.failed.extend(splits.iter().map(|split| (split.clone(), failure.clone())));
        if splits.is_empty() { Vec::new() } else { self.send(ToJobmanager::SplitFailed { splits, failure }) }
    }

    /// What an earlier stream may not have carried over.
    fn tell_failures(&self) -> Vec<Effect> {
        let failed = self.held.iter().flat_map(|held| &held.failed);
        let tell = |(split, failure): (&SplitId, &SplitFailure)| {
            Effect::Send(ToJobmanager::SplitFailed { splits: vec![split.clone()], failure: failure.clone() })
        };
        failed.map(tell).collect()
    }

    fn lose(&mut self, reason: &str) -> Vec<Effect> {
        let Some(held) = self.held.take() else { return Vec::new() };
        let Held { slot, grant, .. } = held;
        let mut effects = vec![Effect::DropSlot];
        effects.extend(self.send(ToJobmanager::SlotLost { slot, grant, reason: reason.to_owned() }));
        effects
    }

    fn disconnected(&mut self) -> Vec<Effect> {
        self.connected = false;
        self.registered = false;
        if let Some(held) = &self.held
            && held.phase != Phase::Ready
        {
            // Nobody has heard that it is ours: another grant comes with the next stream.
            self.held = None;
            return vec![Effect::DropSlot];
        }
        if self.draining && self.held.is_none() { vec![Effect::Exit(Leave::Drained)] } else { Vec::new() }
    }

    fn shutdown(&mut self) -> Vec<Effect> {
        if std::mem::replace(&mut self.draining, true) {
            return Vec::new();
        }
        if !self.registered && self.held.is_none() {
            return vec![Effect::Exit(Leave::Drained)];
        }
        let mut effects = vec![Effect::StopReading];
        effects.extend(self.send(ToJobmanager::Draining));
        effects
    }

    /// Without a stream there is nobody to tell: Register says what is held when it is back.
    fn send(&self, message: ToJobmanager) -> Vec<Effect> {
        if self.connected { vec![Effect::Send(message)] } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use weir_common::{counters::SplitCounters, failure::FailureKind, progress::Progress};

    use super::*;

    const SLOT: SlotId = SlotId(3);
    const GRANT: GrantId = GrantId(7);
    const EPOCH: LeaderEpoch = LeaderEpoch(5);

    fn hears(session: &mut Session, message: FromJobmanager) -> Vec<Effect> {
        session.handle(Input::Message { epoch: EPOCH, message })
    }

    fn sink(session: &mut Session, kind: SinkEventKind) -> Vec<Effect> {
        session.handle(Input::Sink(SinkEvent { grant: GRANT, kind }))
    }

    fn report(index: u32, cursor: i64) -> SplitReport {
        let split = SplitId { topic: "t".into(), partition: 0, index };
        SplitReport { split, progress: Progress::at(cursor), counters: SplitCounters::default(), progress_partition: 1 }
    }

    fn assigned(index: u32, cursor: i64) -> Assignment {
        Assignment { report: report(index, cursor), limit: None }
    }

    fn granted() -> FromJobmanager {
        FromJobmanager::Grant { slot: SLOT, grant: GRANT, ttl_ms: 1000 }
    }

    fn connected() -> Session {
        let mut session = Session::default();
        assert_eq!(session.handle(Input::Connected), []);
        session
    }

    /// Registered, with a ready slot and splits 0 and 1 at 10.
    fn working() -> Session {
        let mut session = connected();
        hears(&mut session, FromJobmanager::Registered { job_changed: true });
        session.handle(Input::EnricherReady);
        hears(&mut session, granted());
        sink(&mut session, SinkEventKind::Ready);
        hears(&mut session, FromJobmanager::Assign { splits: vec![assigned(0, 10), assigned(1, 10)] });
        session
    }

    #[test]
    fn a_slot_starts_when_grant_and_enricher_are_there_in_either_order() {
        let lease = Effect::Lease { grant: GRANT, ttl_ms: 1000 };
        let start = Effect::StartSlot { slot: SLOT };
        let mut session = Session::default();
        assert_eq!(hears(&mut session, FromJobmanager::Registered { job_changed: true }), [Effect::BuildEnricher]);
        assert_eq!(hears(&mut session, granted()), std::slice::from_ref(&lease));
        assert_eq!(session.handle(Input::EnricherReady), std::slice::from_ref(&start));

        let mut session = connected();
        hears(&mut session, FromJobmanager::Registered { job_changed: true });
        assert_eq!(session.handle(Input::EnricherReady), []);
        assert_eq!(hears(&mut session, granted()), [lease, start]);
        let ready = ToJobmanager::SlotReady { slot: SLOT, grant: GRANT };
        assert_eq!(sink(&mut session, SinkEventKind::Ready), [Effect::Send(ready)]);
    }

    #[test]
    fn splits_that_cannot_be_read_are_told_at_once_and_again_until_they_are_revoked() {
        let mut session = working();
        let failure = SplitFailure { kind: FailureKind::OffsetOutOfRange, message: "gone".to_owned() };
        let failed = || Input::ReadFailed {
            partition: TopicPartition { topic: "t".into(), partition: 0 },
            failure: failure.clone(),
        };
        let both = vec![report(0, 0).split, report(1, 0).split];
        let tell = |splits: &[SplitId]| {
            Effect::Send(ToJobmanager::SplitFailed { splits: splits.to_vec(), failure: failure.clone() })
        };
        assert_eq!(session.handle(failed()), [tell(&both)]);
        session.handle(Input::Disconnected);
        session.handle(Input::Connected);
        let again = hears(&mut session, FromJobmanager::Registered { job_changed: false });
        assert_eq!(again, [tell(&both[..1]), tell(&both[1..])]);
        sink(&mut session, SinkEventKind::Released { splits: vec![report(0, 10)] });
        let left = hears(&mut session, FromJobmanager::Registered { job_changed: false });
        assert_eq!(left, [tell(&both[1..])]);
    }

    #[test]
    fn a_former_jobmanager_is_not_obeyed() {
        let mut session = working();
        let old = Input::Message { epoch: LeaderEpoch(4), message: FromJobmanager::Drain { leave: true } };
        assert_eq!(session.handle(old), [Effect::Ignored("a message of a former jobmanager")]);
        let revoke = FromJobmanager::Revoke { splits: vec![report(0, 0).split] };
        let new = Input::Message { epoch: LeaderEpoch(6), message: revoke.clone() };
        assert_eq!(session.handle(new), [Effect::Revoke(vec![report(0, 0).split])]);
        assert_eq!(hears(&mut session, revoke), [Effect::Ignored("a message of a former jobmanager")]);
    }

    #[test]
    fn a_limit_ends_with_the_leader_that_set_it() {
        let mut session = working();
        let limited = Assignment { report: report(2, 5), limit: Some(9) };
        hears(&mut session, FromJobmanager::Assign { splits: vec![limited] });
        let ack = FromJobmanager::HeartbeatAck { grant: GrantId(0), ttl_ms: 9, requests_max: None };
        assert_eq!(hears(&mut session, ack.clone()), [], "the same leader");
        let later = |epoch| Input::Message { epoch: LeaderEpoch(epoch), message: ack.clone() };
        assert_eq!(session.handle(later(6)), [Effect::LiftLimits]);
        assert_eq!(session.handle(later(7)), [], "once");
    }

    #[test]
    fn only_the_current_grant_is_renewed() {
        let mut session = working();
        let ack = |grant| FromJobmanager::HeartbeatAck { grant, ttl_ms: 9, requests_max: Some(3) };
        assert_eq!(hears(&mut session, ack(GRANT)), [Effect::Renew { ttl_ms: 9 }, Effect::LimitRequests(3)]);
        assert_eq!(hears(&mut session, ack(GrantId(6))), []);
        assert_eq!(hears(&mut session, ack(GrantId(0))), []);
    }

    #[test]
    fn without_a_stream_work_goes_on_and_register_says_what_is_committed() {
        let mut session = working();
        assert_eq!(session.handle(Input::Disconnected), []);
        let reported = SinkEventKind::Reported { checkpoint: None, splits: vec![report(1, 20)] };
        assert_eq!(sink(&mut session, reported), []);
        assert_eq!(sink(&mut session, SinkEventKind::Released { splits: vec![report(0, 12)] }), []);
        let held = session.held().expect("still held");
        assert_eq!(held.splits.values().collect::<Vec<_>>(), [&report(1, 20)]);
        assert_eq!(hears(&mut session, FromJobmanager::Registered { job_changed: false }), []);
    }

    #[test]
    fn a_slot_that_was_not_ready_is_given_up_with_the_stream() {
        let mut session = connected();
        hears(&mut session, FromJobmanager::Registered { job_changed: true });
        hears(&mut session, granted());
        assert_eq!(session.handle(Input::Disconnected), [Effect::DropSlot]);
        assert_eq!(session.held(), None);
    }

    #[test]
    fn a_lost_slot_is_dropped_and_told() {
        let mut session = working();
        let lost = ToJobmanager::SlotLost { slot: SLOT, grant: GRANT, reason: "fenced".to_owned() };
        let effects = sink(&mut session, SinkEventKind::Lost { reason: "fenced".to_owned() });
        assert_eq!(effects, [Effect::DropSlot, Effect::Send(lost)]);
        assert_eq!(sink(&mut session, SinkEventKind::Ready), [], "it speaks of a grant that is over");
        let again = FromJobmanager::Grant { slot: SLOT, grant: GrantId(8), ttl_ms: 1 };
        assert_eq!(hears(&mut session, again).last(), Some(&Effect::StartSlot { slot: SLOT }));
    }

    #[test]
    fn a_new_grant_replaces_what_was_held() {
        let mut session = working();
        let again = FromJobmanager::Grant { slot: SLOT, grant: GrantId(8), ttl_ms: 1 };
        assert_eq!(hears(&mut session, again)[0], Effect::DropSlot);
        assert!(session.held().is_none());
    }

    #[test]
    fn assign_and_revoke_name_each_split_once() {
        let mut session = working();
        let assign = FromJobmanager::Assign { splits: vec![assigned(1, 10), assigned(2, 5)] };
        assert_eq!(hears(&mut session, assign), [Effect::Assign(vec![assigned(2, 5)])]);
        let revoke = FromJobmanager::Revoke { splits: vec![report(2, 0).split, report(9, 0).split] };
        assert_eq!(hears(&mut session, revoke), [Effect::Revoke(vec![report(2, 0).split])]);
    }

    #[test]
    fn a_barrier_is_answered_even_without_a_slot() {
        let mut session = connected();
        hears(&mut session, FromJobmanager::Registered { job_changed: false });
        let effects = hears(&mut session, FromJobmanager::Barrier { checkpoint: CheckpointId(4) });
        let report = ToJobmanager::Report { checkpoint: Some(CheckpointId(4)), slot: SlotId(0), splits: Vec::new() };
        assert_eq!(effects, [Effect::Send(report)]);
        assert_eq!(
            hears(&mut working(), FromJobmanager::Barrier { checkpoint: CheckpointId(4) }),
            [Effect::Barrier(CheckpointId(4))]
        );
    }

    #[test]
    fn sigterm_drains_by_way_of_the_jobmanager() {
        let mut session = working();
        let effects = session.handle(Input::Shutdown);
        assert_eq!(effects, [Effect::StopReading, Effect::Send(ToJobmanager::Draining)]);
        assert_eq!(session.handle(Input::Shutdown), []);
        let leave = FromJobmanager::Drain { leave: true };
        assert_eq!(hears(&mut session, leave), [Effect::Exit(Leave::Drained)]);
        assert_eq!(Session::default().handle(Input::Shutdown), [Effect::Exit(Leave::Drained)], "nobody to ask");
    }

    #[test]
    fn sigterm_without_a_stream_is_told_when_it_is_back() {
        let mut session = working();
        session.handle(Input::Disconnected);
        assert_eq!(session.handle(Input::Shutdown), [Effect::StopReading]);
        assert_eq!(session.handle(Input::Connected), [Effect::Send(ToJobmanager::Draining)]);
    }

    #[test]
    fn a_refusal_is_final_only_without_a_time_to_come_back() {
        let refused = |retry_ms| FromJobmanager::Refused { message: "no".to_owned(), retry_ms };
        assert_eq!(hears(&mut Session::default(), refused(50)), [Effect::Redial { after_ms: 50 }]);
        let exit = Effect::Exit(Leave::Refused("no".to_owned()));
        assert_eq!(hears(&mut Session::default(), refused(0)), [exit]);
    }
}
