//! Offset cuts: by scenes, and by seeds against obedient taskmanagers that come and go, and leaders that do.

use std::collections::VecDeque;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use weir_common::{
    failure::{FailureKind, SplitFailure},
    progress::{OffsetRange, tracker::Tracker},
    split::TopicPartition,
};

use super::*;
use crate::coordinator::{action::SavepointKind, event::AfterCut, plain_offsets::plain_offsets};

const REQUEST: RequestId = RequestId(1);

fn cut_requested(then: AfterCut) -> Event {
    Event::OffsetCutRequested { request: REQUEST, label: "x".to_owned(), then }
}

fn ahead(cursor: i64, start: i64, end: i64) -> SplitState {
    let finished_ahead = vec![OffsetRange { start, end }];
    SplitState { progress: Progress { cursor, finished_ahead }, ..state(cursor) }
}

fn reported(splits: SplitStates) -> Event {
    Event::Reported { taskmanager: tm("a"), checkpoint: None, splits }
}

fn limits(limit: i64) -> BTreeMap<TopicPartition, i64> {
    [(split(0, 0).topic_partition(), limit)].into()
}

/// "a" has three splits of one partition: at 4 with something finished up to 57, at 30, and at 40.
fn uneven() -> Scene {
    let mut scene = Scene::new(settings(), 1, 3);
    scene.join("a");
    let splits = [(split(0, 0), ahead(4, 50, 57)), (split(0, 1), state(30)), (split(0, 2), state(40))].into();
    scene.event(reported(splits));
    scene
}

/// The scene after the job has come to rest, and what it hands out.
fn cutting(scene: &mut Scene, then: AfterCut) -> Action {
    let actions = scene.event(cut_requested(then));
    assert!(matches!(&actions[..], [Action::SendRevoke { splits, .. }] if splits.len() == 3), "{actions:?}");
    assert_eq!(scene.coordinator.job_state(), "CUTTING");
    let mut rest = scene.settle(actions);
    assert_eq!(rest.len(), 1, "{rest:?}");
    rest.remove(0)
}

#[test]
fn all_that_is_below_the_highest_offset_is_finished_then_stored_then_the_job_goes_on_without_limits() {
    let mut scene = uneven();
    let Action::SendAssign { splits, limits: to, .. } = cutting(&mut scene, AfterCut::GoOn) else {
        panic!("nothing handed out")
    };
    assert_eq!((splits.len(), to), (3, limits(57)));
    assert_eq!(scene.event(reported(states(57, [split(0, 0), split(0, 2)]))), []);
    let reason = scene.coordinator.state_reason().expect("a reason");
    assert!(reason.contains("split topic-0/1 is at offset 30, its cut at 57"), "{reason}");
    let all = states(57, [split(0, 0), split(0, 1), split(0, 2)]);
    let actions = scene.event(reported(states(57, [split(0, 1)])));
    let [Action::SendRevoke { splits: back, .. }, Action::StoreSnapshot { checkpoint, kind, splits }] = &actions[..]
    else {
        panic!("{actions:?}")
    };
    let expected = SnapshotKind::Savepoint { label: "x".to_owned(), kind: SavepointKind::OffsetCut };
    assert_eq!((back.len(), kind, splits), (3, &expected, &all));
    let location = format!("snapshot {checkpoint}");
    let rest = scene.settle(actions);
    let handed_out = Action::SendAssign { taskmanager: tm("a"), splits: all, limits: BTreeMap::new() };
    assert!(rest.contains(&handed_out), "{rest:?}");
    let reply = Reply::Savepoint { checkpoint: CheckpointId(1), location };
    assert!(rest.contains(&Action::Reply { request: REQUEST, reply }), "{rest:?}");
    assert_eq!(scene.coordinator.job_state(), "RUNNING");
}

#[test]
fn a_job_that_stands_at_a_cut_is_cut_at_once() {
    let mut scene = Scene::new(settings(), 2, 2);
    scene.join("a");
    let actions = scene.event(cut_requested(AfterCut::GoOn));
    let rest = scene.settle(actions);
    assert!(
        rest.iter().any(|action| matches!(action, Action::Reply { reply: Reply::Savepoint { .. }, .. })),
        "{rest:?}"
    );
    assert!(
        rest.iter().any(|action| matches!(action, Action::SendAssign { splits, .. } if splits.len() == 4)),
        "{rest:?}"
    );
}

#[test]
fn a_job_that_ends_with_a_cut_gives_everything_back_first() {
    let mut scene = uneven();
    cutting(&mut scene, AfterCut::Stop);
    let actions = scene.event(reported(states(57, [split(0, 0), split(0, 1), split(0, 2)])));
    assert!(matches!(&actions[..], [Action::SendRevoke { splits, .. }] if splits.len() == 3), "{actions:?}");
    let rest = scene.settle(actions);
    let reply = Reply::Savepoint { checkpoint: CheckpointId(1), location: "snapshot 1".to_owned() };
    let drain = Action::SendDrain { taskmanager: tm("a"), leave: true };
    assert_eq!(rest, [drain, Action::Reply { request: REQUEST, reply }, Action::Finish]);
}

#[test]
fn a_job_that_is_suspended_with_a_cut_rests_there() {
    let mut scene = uneven();
    cutting(&mut scene, AfterCut::Suspend);
    let all = states(57, [split(0, 0), split(0, 1), split(0, 2)]);
    let actions = scene.event(reported(all.clone()));
    let rest = scene.settle(actions);
    let reply = Reply::Suspended { snapshot: Ok("snapshot 1".to_owned()) };
    assert_eq!(rest, [Action::Reply { request: REQUEST, reply }]);
    assert_eq!((scene.coordinator.job_state(), scene.coordinator.states()), ("SUSPENDED", all));
    let actions = scene.event(Event::ResumeRequested { request: REQUEST });
    let rest = scene.settle(actions);
    assert!(
        rest.iter().any(|action| matches!(action, Action::SendAssign { limits, .. } if limits.is_empty())),
        "{rest:?}"
    );
}

#[test]
fn a_record_that_hangs_ends_the_cut_in_time_with_its_split_and_offset_and_the_job_goes_on() {
    for then in [AfterCut::GoOn, AfterCut::Stop, AfterCut::Suspend] {
        let mut scene = uneven();
        cutting(&mut scene, then);
        scene.event(reported(states(57, [split(0, 1), split(0, 2)])));
        let beat = Event::Heartbeat { taskmanager: tm("a") };
        let mut actions = Vec::new();
        while actions.is_empty() {
            actions = scene.after(TIMEOUT / 2, beat.clone());
            assert!(scene.now <= Duration::from_secs(130), "it is bounded");
        }
        let [Action::Reply { reply: Reply::Failed { reason }, .. }, Action::SendRevoke { splits, .. }, ..] =
            &actions[..]
        else {
            panic!("{actions:?}")
        };
        assert!(
            reason.contains("savepoint.cut_timeout (120s): split topic-0/0 is at offset 4, its cut at 57"),
            "{reason}"
        );
        assert_eq!(splits.len(), 3, "the limits are lifted");
        let rest = scene.settle(actions);
        assert!(rest.iter().any(|action| matches!(action, Action::SendAssign { limits, .. } if limits.is_empty())));
        assert_eq!(scene.coordinator.job_state(), "RUNNING");
    }
}

#[test]
fn a_taskmanager_that_is_lost_during_a_cut_is_replaced_within_it() {
    let mut scene = uneven();
    let joined = scene.join("b");
    scene.settle(joined);
    let actions = scene.event(cut_requested(AfterCut::GoOn));
    scene.settle(actions);
    assert_eq!((scene.count("a") + scene.count("b"), scene.coordinator.job_state()), (3, "CUTTING"));
    let lost: Vec<_> = scene.owners().into_iter().filter(|(_, owner)| owner.as_deref() == Some("b")).collect();
    scene.after(TIMEOUT / 2, Event::Heartbeat { taskmanager: tm("a") });
    let actions = scene.after(TIMEOUT / 2, Event::Heartbeat { taskmanager: tm("a") });
    let rest = scene.settle(actions);
    let assigned = rest.iter().find_map(|action| match action {
        Action::SendAssign { splits, limits, .. } => Some((splits.len(), limits.clone())),
        _ => None,
    });
    assert_eq!(assigned, Some((lost.len(), limits(57))), "{rest:?}");
}

#[test]
fn what_makes_a_cut_impossible_is_said_at_once() {
    // Gone past the limit: a taskmanager that does not know of it.
    let mut scene = uneven();
    cutting(&mut scene, AfterCut::GoOn);
    let actions = scene.event(reported(states(60, [split(0, 1)])));
    let [Action::Reply { reply: Reply::Failed { reason }, .. }, ..] = &actions[..] else { panic!("{actions:?}") };
    assert!(reason.contains("split topic-0/1 has gone on to offset 60, past its cut at 57"), "{reason}");

    // Cannot be read any more, on the way and from the beginning.
    let mut scene = uneven();
    cutting(&mut scene, AfterCut::GoOn);
    let failure = SplitFailure { kind: FailureKind::OffsetOutOfRange, message: "gone".to_owned() };
    let failed = Event::SplitsFailed { taskmanager: tm("a"), splits: vec![split(0, 1)], failure };
    let actions = scene.event(failed);
    assert!(
        actions.iter().any(|action| matches!(action, Action::Reply { reply: Reply::Failed { reason }, .. }
            if reason.contains("split topic-0/1 cannot be read"))),
        "{actions:?}"
    );
    scene.settle(actions);
    let actions = scene.event(cut_requested(AfterCut::GoOn));
    assert!(
        matches!(&actions[..], [Action::Reply { reply: Reply::Rejected { reason }, .. }] if reason.contains("topic-0/1"))
    );

    // At rest nothing is finished.
    let mut scene = Scene::new(Settings { suspended: true, ..settings() }, 1, 2);
    let actions = scene.event(cut_requested(AfterCut::GoOn));
    assert!(
        matches!(&actions[..], [Action::Reply { reply: Reply::Rejected { reason }, .. }] if reason.contains("weir resume"))
    );
}

#[test]
fn one_thing_at_a_time() {
    let mut scene = uneven();
    let waiting = RequestId(2);
    let asked = |request| Event::SavepointRequested { request, label: String::new(), stop: false };
    // One that waits behind a checkpoint is still taken after the cut.
    scene.after(Duration::from_secs(5), Event::Heartbeat { taskmanager: tm("a") });
    cutting(&mut scene, AfterCut::GoOn);
    let actions = scene.event(asked(waiting));
    assert!(matches!(&actions[..], [Action::Reply { reply: Reply::Rejected { .. }, .. }]), "{actions:?}");
    let actions = scene.event(cut_requested(AfterCut::GoOn));
    assert!(
        matches!(&actions[..], [Action::Reply { reply: Reply::Rejected { reason }, .. }] if reason.contains("CUTTING")),
        "{actions:?}"
    );
    let actions = scene.event(Event::SuspendRequested { request: waiting });
    assert!(matches!(&actions[..], [Action::Reply { reply: Reply::Rejected { .. }, .. }]), "{actions:?}");
}

#[test]
fn a_restart_strategy_that_gives_up_ends_the_cut_with_an_answer() {
    let mut scene = Scene::new(super::rest::fixed(0), 1, 2);
    scene.join("a");
    scene.event(reported([(split(0, 0), state(9)), (split(0, 1), state(3))].into()));
    let actions = scene.event(cut_requested(AfterCut::GoOn));
    scene.settle(actions);
    let (_, grant) = scene.coordinator.grant(&tm("a")).expect("a slot");
    let actions = scene.event(Event::SlotLost { taskmanager: tm("a"), grant });
    let rest = scene.settle(actions);
    assert!(rest.iter().any(|action| matches!(action, Action::Reply { reply: Reply::Failed { .. }, .. })), "{rest:?}");
    assert_eq!(scene.coordinator.job_state(), "FAILED");
}

/// Where the logs end at last: they grow all the time while things go wrong, and are read to their end after that.
const LOG_END: i64 = 320;

/// A split in work, as a taskmanager has it.
struct Work {
    tracker: Tracker,
    limit: Option<i64>,
    pending: Vec<i64>,
    counters: SplitCounters,
}

/// What a taskmanager holds.
type Held = (Option<(SlotId, GrantId)>, BTreeMap<SplitId, Work>);

/// Kafka, and taskmanagers that commit whatever they finish. Streams never break here: taskmanagers and leaders do.
struct World {
    rng: StdRng,
    scene: Scene,
    epoch: u64,
    logs: BTreeMap<SplitId, Vec<i64>>,
    kafka: SplitStates,
    written: BTreeMap<(SplitId, i64), u32>,
    held: BTreeMap<TaskmanagerId, Held>,
    queue: VecDeque<Action>,
    /// How far the logs go by now.
    end: i64,
    names: u32,
    cuts: u32,
    answers: u32,
}

/// Some cuts do not come to their end in time.
fn hurried() -> Settings {
    Settings { savepoints: Savepoint { cut_timeout: Duration::from_secs(3), ..Savepoint::default() }, ..settings() }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let (partitions, per_partition) = (rng.random_range(1..3), rng.random_range(1..5));
        let mut logs: BTreeMap<SplitId, Vec<i64>> = BTreeMap::new();
        for partition in 0..partitions {
            (0..per_partition).for_each(|index| drop(logs.insert(split(partition, index), Vec::new())));
            // Sparse, as control records make a log.
            for offset in (0..LOG_END).filter(|offset| offset % 7 != 3) {
                logs.entry(split(partition, rng.random_range(0..per_partition))).or_default().push(offset);
            }
        }
        let kafka: SplitStates = logs.keys().map(|id| (id.clone(), state(0))).collect();
        let scene = Scene { coordinator: Coordinator::new(hurried()), now: Duration::ZERO };
        let mut world = Self {
            rng,
            scene,
            epoch: 1,
            logs,
            kafka,
            written: BTreeMap::new(),
            held: BTreeMap::new(),
            queue: VecDeque::new(),
            end: 0,
            names: 0,
            cuts: 0,
            answers: 0,
        };
        let splits = world.kafka.clone();
        world.tell(Event::SplitsDiscovered { splits });
        (0..2).for_each(|_| world.start_taskmanager());
        world
    }

    fn tell(&mut self, event: Event) {
        let actions = self.scene.event(event);
        self.queue.extend(actions);
    }

    fn start_taskmanager(&mut self) {
        self.names += 1;
        let id = tm(&format!("tm-{}", self.names));
        self.held.insert(id.clone(), (None, BTreeMap::new()));
        self.tell(Event::Registered { taskmanager: id, held: None });
    }

    fn perform(&mut self) {
        let Some(action) = self.queue.pop_front() else { return };
        match action {
            Action::SendGrant { taskmanager, slot, grant } => {
                let Some(held) = self.held.get_mut(&taskmanager) else { return };
                *held = (Some((slot, grant)), BTreeMap::new());
                self.tell(Event::SlotReady { taskmanager, grant });
            }
            Action::SendAssign { taskmanager, splits, limits } => {
                let Some((_, held)) = self.held.get_mut(&taskmanager) else { return };
                for (id, state) in splits {
                    let (limit, tracker) = (limits.get(&id.topic_partition()).copied(), Tracker::new(&state.progress));
                    held.entry(id).or_insert(Work { tracker, limit, pending: Vec::new(), counters: state.counters });
                }
            }
            Action::SendRevoke { taskmanager, splits } => {
                let Some((_, held)) = self.held.get_mut(&taskmanager) else { return };
                let ours: Vec<SplitId> = splits.into_iter().filter(|id| held.remove(id).is_some()).collect();
                let splits = ours.into_iter().map(|id| (id.clone(), self.kafka[&id].clone())).collect();
                self.tell(Event::Released { taskmanager, splits });
            }
            Action::SendBarrier { taskmanager, checkpoint } => {
                let Some((_, held)) = self.held.get(&taskmanager) else { return };
                let splits = held.keys().map(|id| (id.clone(), self.kafka[id].clone())).collect();
                self.tell(Event::Reported { taskmanager, checkpoint: Some(checkpoint), splits });
            }
            Action::FenceSlot { slot } => self.tell(Event::SlotFenced { slot }),
            Action::ReadProgress { splits } => {
                let splits = splits.into_iter().map(|id| (id.clone(), self.kafka[&id].clone())).collect();
                self.tell(Event::ProgressRead { splits });
            }
            Action::StoreSnapshot { checkpoint, kind, splits } => self.store(checkpoint, &kind, &splits),
            Action::Reply { reply, .. } => {
                self.answers += 1;
                assert!(
                    matches!(reply, Reply::Savepoint { .. } | Reply::Failed { .. } | Reply::Rejected { .. }),
                    "{reply:?}"
                );
            }
            Action::SendDrain { .. } | Action::MirrorLag { .. } | Action::Disconnect { .. } => {}
            other => panic!("nobody asked for {other:?}"),
        }
    }

    fn store(&mut self, checkpoint: CheckpointId, kind: &SnapshotKind, splits: &SplitStates) {
        if let SnapshotKind::Savepoint { kind: SavepointKind::OffsetCut, .. } = kind {
            self.cuts += 1;
            let offsets = plain_offsets(splits).expect("a cut is one offset a partition");
            for (id, log) in &self.logs {
                let cut = offsets[&id.topic_partition()];
                for offset in log.iter().filter(|offset| **offset < cut) {
                    assert!(self.written.contains_key(&(id.clone(), *offset)), "{id}@{offset} is missing below {cut}");
                }
            }
        }
        let location = String::new();
        self.tell(Event::SnapshotStored { checkpoint, location, size_bytes: 1 });
    }

    /// One taskmanager reads a little, finishes something and commits it.
    fn work(&mut self) {
        let ids: Vec<TaskmanagerId> = self.held.keys().cloned().collect();
        if ids.is_empty() {
            return;
        }
        let id = ids[self.rng.random_range(0..ids.len())].clone();
        let Some((_, held)) = self.held.get_mut(&id) else { return };
        let mut done = SplitStates::new();
        for (split, work) in held {
            let end = work.limit.map_or(self.end, |limit| limit.min(self.end));
            let unread = self.logs[split].iter().copied().filter(|offset| (work.tracker.next()..end).contains(offset));
            let unread: Vec<i64> = unread.take(3).collect();
            let all_read = unread.len() < 3;
            work.pending.extend(unread.into_iter().filter(|offset| work.tracker.admit(*offset)));
            if all_read {
                work.tracker.advance(end);
            }
            if !work.pending.is_empty() && self.rng.random_bool(0.7) {
                let offset = work.pending.swap_remove(self.rng.random_range(0..work.pending.len()));
                work.tracker.finish(offset);
                work.counters.count(OutcomeKind::Enriched);
                *self.written.entry((split.clone(), offset)).or_default() += 1;
            }
            let state = SplitState { progress: work.tracker.progress(), counters: work.counters };
            if self.kafka[split] != state {
                done.insert(split.clone(), state);
            }
        }
        self.kafka.extend(done.clone());
        self.tell(Event::Reported { taskmanager: id, checkpoint: None, splits: done });
    }

    fn fault(&mut self) {
        match self.rng.random_range(0..4) {
            0 if self.held.len() > 1 => drop(self.held.pop_first()),
            1 if self.held.len() < 4 => self.start_taskmanager(),
            2 => self.next_leader(),
            _ => {}
        }
    }

    /// Taskmanagers hear of a later leader, which knows of no limit: they have none any more.
    fn next_leader(&mut self) {
        let orphaned_slots = self.scene.coordinator.slots_in_use().collect();
        self.epoch += 1;
        let settings = Settings { leader_epoch: LeaderEpoch(self.epoch), orphaned_slots, ..hurried() };
        self.scene = Scene { coordinator: Coordinator::new(settings), now: Duration::ZERO };
        self.queue.clear();
        let splits = self.kafka.clone();
        self.tell(Event::SplitsDiscovered { splits });
        let mut registered = Vec::new();
        for (id, (lease, held)) in &mut self.held {
            held.values_mut().for_each(|work| work.limit = None);
            let splits = held.keys().map(|split| (split.clone(), self.kafka[split].clone())).collect();
            registered.push((id.clone(), lease.map(|(slot, grant)| HeldSlot { slot, grant, splits })));
        }
        for (taskmanager, held) in registered {
            self.tell(Event::Registered { taskmanager, held });
        }
    }

    fn run(&mut self) {
        for step in 0..20_000 {
            self.scene.now += Duration::from_millis(20);
            self.end = LOG_END.min(step / 10);
            match self.rng.random_range(0..100) {
                0..50 => self.perform(),
                50..97 => self.work(),
                97 if step < 3000 => self.tell(cut_requested(AfterCut::GoOn)),
                98 if step < 3000 => self.fault(),
                _ => {}
            }
            if step % 100 == 0 {
                let ids: Vec<TaskmanagerId> = self.held.keys().cloned().collect();
                ids.into_iter().for_each(|taskmanager| self.tell(Event::Heartbeat { taskmanager }));
            }
            self.tell(Event::DeadlineReached);
            assert_eq!(self.scene.coordinator.violation(), None);
            assert!(self.written.values().all(|count| *count == 1), "something was written twice");
            if step > 3000 && self.written.len() == self.logs.values().map(Vec::len).sum::<usize>() {
                return;
            }
        }
        panic!("{} records are written: a limit was left behind", self.written.len());
    }
}

#[test]
fn cuts_among_losses_and_new_leaders_are_exact_and_leave_no_limit_behind() {
    let (mut cuts, mut answers) = (0, 0);
    for seed in 0..60u64 {
        let mut world = World::new(seed);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
        assert!(result.is_ok(), "seed {seed}");
        cuts += world.cuts;
        answers += world.answers;
    }
    assert!(cuts > 100 && answers > cuts, "{cuts} cuts, {answers} answers");
}
