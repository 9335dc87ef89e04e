//! The coordinator by tables: one scene each, with the actions that must follow.

mod cut;
mod failure;
mod periodic;
mod rest;
mod transactions;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use weir_common::{
    config::{ExponentialDelay, RestartStrategy, Savepoint},
    counters::{OutcomeKind, SplitCounters},
    ids::{CheckpointId, GrantId, LeaderEpoch, SlotId, TaskmanagerId},
    progress::Progress,
    split::SplitId,
};

use super::{
    Coordinator, Settings,
    action::{Action, Reply, SnapshotKind},
    event::{Event, Grants, HeldSlot, RequestId, SplitState, SplitStates},
    view::CheckpointStatus,
};

const TIMEOUT: Duration = Duration::from_secs(10);

struct Scene {
    coordinator: Coordinator,
    now: Duration,
}

fn settings() -> Settings {
    Settings {
        leader_epoch: LeaderEpoch(1),
        first_checkpoint: CheckpointId(1),
        exactly_once: true,
        orphaned_slots: Grants::new(),
        checkpoint_interval: Duration::from_secs(30),
        checkpoint_min_pause: Duration::from_secs(1),
        checkpoint_timeout: Duration::from_secs(60),
        heartbeat_timeout: TIMEOUT,
        retry_delay: Duration::from_secs(1),
        mirror_interval: Duration::from_secs(3600),
        savepoints: Savepoint::default(),
        restart_strategy: no_wait(),
        suspended: false,
    }
}

/// What fails is handed out again at once.
fn no_wait() -> RestartStrategy {
    let exponential_delay = ExponentialDelay { initial_backoff: Duration::ZERO, ..ExponentialDelay::default() };
    RestartStrategy { exponential_delay, ..RestartStrategy::default() }
}

fn tm(name: &str) -> TaskmanagerId {
    TaskmanagerId(name.to_owned())
}

fn split(partition: i32, index: u32) -> SplitId {
    SplitId { topic: Arc::from("topic"), partition, index }
}

fn state(cursor: i64) -> SplitState {
    let mut counters = SplitCounters::default();
    (0..cursor).for_each(|_| counters.count(OutcomeKind::Enriched));
    SplitState { progress: Progress::at(cursor), counters }
}

fn states(cursor: i64, splits: impl IntoIterator<Item = SplitId>) -> SplitStates {
    splits.into_iter().map(|id| (id, state(cursor))).collect()
}

impl Scene {
    fn new(settings: Settings, partitions: i32, per_partition: u32) -> Self {
        let mut scene = Self { coordinator: Coordinator::new(settings), now: Duration::ZERO };
        let all = (0..partitions).flat_map(|partition| (0..per_partition).map(move |index| split(partition, index)));
        scene.event(Event::SplitsDiscovered { splits: states(0, all) });
        scene
    }

    fn event(&mut self, event: Event) -> Vec<Action> {
        self.coordinator.handle(self.now, event)
    }

    fn after(&mut self, wait: Duration, event: Event) -> Vec<Action> {
        self.now += wait;
        self.event(event)
    }

    /// Registers and gets ready; the actions of becoming ready.
    fn join(&mut self, name: &str) -> Vec<Action> {
        let actions = self.event(Event::Registered { taskmanager: tm(name), held: None });
        let [Action::SendGrant { grant, .. }] = actions[..] else { panic!("{actions:?}") };
        self.event(Event::SlotReady { taskmanager: tm(name), grant })
    }

    /// Plays Kafka and obedient taskmanagers until nothing moves.
    fn settle(&mut self, mut actions: Vec<Action>) -> Vec<Action> {
        let mut rest = Vec::new();
        while !actions.is_empty() {
            for action in std::mem::take(&mut actions) {
                match action {
                    Action::ReadProgress { splits } => {
                        let known = self.coordinator.states();
                        let splits = splits.into_iter().map(|id| (id.clone(), known[&id].clone())).collect();
                        actions.extend(self.event(Event::ProgressRead { splits }));
                    }
                    Action::SendRevoke { taskmanager, splits } => {
                        let known = self.coordinator.states();
                        let splits = splits.into_iter().map(|id| (id.clone(), known[&id].clone())).collect();
                        actions.extend(self.event(Event::Released { taskmanager, splits }));
                    }
                    Action::FenceSlot { slot } => actions.extend(self.event(Event::SlotFenced { slot })),
                    Action::WriteProgress { .. } => actions.extend(self.event(Event::ProgressWritten)),
                    Action::RecordRest { .. } => actions.extend(self.event(Event::RestRecorded)),
                    Action::StoreSnapshot { checkpoint, .. } => {
                        let location = format!("snapshot {checkpoint}");
                        actions.extend(self.event(Event::SnapshotStored { checkpoint, location, size_bytes: 1 }));
                    }
                    other => rest.push(other),
                }
            }
        }
        rest
    }

    fn owners(&self) -> BTreeMap<SplitId, Option<String>> {
        self.coordinator.splits().map(|split| (split.id, split.taskmanager.map(|id| id.0))).collect()
    }

    fn count(&self, name: &str) -> usize {
        self.owners().values().filter(|owner| owner.as_deref() == Some(name)).count()
    }
}

#[test]
fn the_first_taskmanager_gets_everything_and_the_second_its_half() {
    let mut scene = Scene::new(settings(), 1, 4);
    let actions = scene.join("a");
    assert!(matches!(&actions[..], [Action::SendAssign { splits, .. }] if splits.len() == 4), "{actions:?}");
    let actions = scene.join("b");
    assert!(
        matches!(&actions[..], [Action::SendRevoke { splits, .. }] if splits.len() == 1),
        "one by one: {actions:?}"
    );
    scene.settle(actions);
    assert_eq!((scene.count("a"), scene.count("b")), (2, 2));
}

#[test]
fn four_halves_of_two_partitions_are_balanced() {
    let mut scene = Scene::new(settings(), 2, 2);
    let first = scene.join("a");
    scene.settle(first);
    let second = scene.join("b");
    scene.settle(second);
    let owners = scene.owners();
    for partition in 0..2 {
        assert_ne!(owners[&split(partition, 0)], owners[&split(partition, 1)]);
    }
}

#[test]
fn a_silent_taskmanager_is_fenced_then_read_then_replaced_and_the_other_keeps_its_own() {
    let mut scene = Scene::new(settings(), 1, 4);
    scene.join("a");
    let actions = scene.join("b");
    scene.settle(actions);
    let kept: Vec<_> = scene.owners().into_iter().filter(|(_, owner)| owner.as_deref() == Some("a")).collect();
    scene.event(Event::Disconnected { taskmanager: tm("b") });
    scene.after(TIMEOUT / 2, Event::Heartbeat { taskmanager: tm("a") });
    assert_eq!(scene.after(TIMEOUT / 2 - Duration::from_millis(1), Event::DeadlineReached), []);
    let actions = scene.after(Duration::from_millis(1), Event::DeadlineReached);
    assert_eq!(actions, [Action::FenceSlot { slot: SlotId(1) }]);
    let actions = scene.event(Event::SlotFenced { slot: SlotId(1) });
    assert!(matches!(&actions[..], [Action::ReadProgress { splits }] if splits.len() == 2), "{actions:?}");
    let Action::ReadProgress { splits } = &actions[0] else { unreachable!() };
    let read = states(7, splits.iter().cloned());
    let actions = scene.event(Event::ProgressRead { splits: read.clone() });
    assert_eq!(actions, [Action::SendAssign { taskmanager: tm("a"), splits: read, limits: BTreeMap::new() }]);
    assert!(kept.iter().all(|(id, _)| scene.owners()[id].as_deref() == Some("a")));
}

#[test]
fn a_failed_fence_is_tried_again_and_nothing_moves_before() {
    let mut scene = Scene::new(settings(), 1, 2);
    scene.join("a");
    scene.after(TIMEOUT, Event::DeadlineReached);
    assert_eq!(scene.event(Event::FenceFailed { slot: SlotId(0) }), []);
    assert_eq!(scene.coordinator.next_deadline(), Some(scene.now + Duration::from_secs(1)));
    let actions = scene.after(Duration::from_secs(1), Event::DeadlineReached);
    assert_eq!(actions, [Action::FenceSlot { slot: SlotId(0) }]);
}

#[test]
fn the_same_slot_is_never_in_two_hands() {
    let mut scene = Scene::new(settings(), 1, 2);
    scene.join("a");
    scene.after(TIMEOUT, Event::DeadlineReached);
    let actions = scene.event(Event::Registered { taskmanager: tm("b"), held: None });
    let grant = GrantId((1 << 32) + 2);
    assert_eq!(actions, [Action::SendGrant { taskmanager: tm("b"), slot: SlotId(1), grant }], "slot 0 is being fenced");
}

#[test]
fn a_broken_stream_costs_nothing_when_it_comes_back() {
    let mut scene = Scene::new(settings(), 1, 2);
    scene.join("a");
    scene.event(Event::Disconnected { taskmanager: tm("a") });
    let grant = GrantId((1 << 32) + 1);
    let splits = states(5, [split(0, 0), split(0, 1)]);
    let held = Some(HeldSlot { slot: SlotId(0), grant, splits: splits.clone() });
    let actions = scene.after(TIMEOUT / 2, Event::Registered { taskmanager: tm("a"), held });
    assert_eq!(actions, []);
    assert_eq!(scene.coordinator.states(), splits);
}

#[test]
fn an_assign_lost_with_the_stream_is_read_and_sent_again() {
    let mut scene = Scene::new(settings(), 1, 2);
    scene.join("a");
    let held = HeldSlot { slot: SlotId(0), grant: GrantId((1 << 32) + 1), splits: SplitStates::new() };
    let actions = scene.event(Event::Registered { taskmanager: tm("a"), held: Some(held) });
    assert!(matches!(&actions[..], [Action::ReadProgress { splits }] if splits.len() == 2), "{actions:?}");
    let rest = scene.settle(actions);
    assert!(matches!(&rest[..], [Action::SendAssign { splits, .. }] if splits.len() == 2), "{rest:?}");
}

#[test]
fn a_lost_slot_is_fenced_before_its_splits_go_on_under_a_new_one() {
    let mut scene = Scene::new(settings(), 1, 2);
    scene.join("a");
    let lost = Event::SlotLost { taskmanager: tm("a"), grant: GrantId((1 << 32) + 1) };
    let actions = scene.event(lost);
    let grant = GrantId((1 << 32) + 2);
    let again = Action::SendGrant { taskmanager: tm("a"), slot: SlotId(1), grant };
    assert_eq!(actions, [Action::FenceSlot { slot: SlotId(0) }, again]);
    scene.event(Event::SlotReady { taskmanager: tm("a"), grant });
    let actions = scene.event(Event::SlotFenced { slot: SlotId(0) });
    let rest = scene.settle(actions);
    assert!(matches!(&rest[..], [Action::SendAssign { splits, .. }] if splits.len() == 2), "{rest:?}");
}

#[test]
fn a_new_leader_adopts_who_comes_back_and_fences_who_does_not() {
    let orphaned_slots = [(SlotId(0), None), (SlotId(1), Some(GrantId((1 << 32) + 2)))].into();
    let mut scene = Scene::new(Settings { leader_epoch: LeaderEpoch(2), orphaned_slots, ..settings() }, 1, 4);
    let splits = states(9, [split(0, 0), split(0, 1)]);
    let held = HeldSlot { slot: SlotId(1), grant: GrantId((1 << 32) + 2), splits };
    assert_eq!(scene.event(Event::Registered { taskmanager: tm("b"), held: Some(held) }), [], "goes on undisturbed");
    scene.event(Event::Registered { taskmanager: tm("new"), held: None });
    scene.after(TIMEOUT / 2, Event::Heartbeat { taskmanager: tm("b") });
    let actions = scene.after(TIMEOUT / 2, Event::Heartbeat { taskmanager: tm("new") });
    assert_eq!(actions, [Action::FenceSlot { slot: SlotId(0) }]);
    let actions = scene.event(Event::SlotFenced { slot: SlotId(0) });
    assert_eq!(actions, [Action::ReadProgress { splits: vec![split(0, 2), split(0, 3)] }]);
}

#[test]
fn a_former_holder_is_not_adopted_in_place_of_the_one_who_has_the_slot_now() {
    let orphaned_slots = [(SlotId(0), Some(GrantId((1 << 32) + 2)))].into();
    let mut scene = Scene::new(Settings { leader_epoch: LeaderEpoch(2), orphaned_slots, ..settings() }, 1, 2);
    let held = |grant: u64, splits| Some(HeldSlot { slot: SlotId(0), grant: GrantId((1 << 32) + grant), splits });
    let former = held(1, states(3, [split(0, 0), split(0, 1)]));
    let actions = scene.event(Event::Registered { taskmanager: tm("former"), held: former });
    assert!(
        matches!(actions[..], [Action::SendGrant { slot: SlotId(1), .. }]),
        "its splits are lost to it: {actions:?}"
    );
    let actions = scene.event(Event::Registered { taskmanager: tm("now"), held: held(2, states(7, [split(0, 0)])) });
    assert!(!actions.iter().any(|action| matches!(action, Action::FenceSlot { .. })), "{actions:?}");
    assert_eq!(scene.coordinator.states()[&split(0, 0)], state(7));
}

#[test]
fn a_taskmanager_whose_slot_was_fenced_meanwhile_gets_another_one() {
    let mut scene = Scene::new(settings(), 1, 2);
    scene.join("a");
    let actions = scene.after(TIMEOUT, Event::DeadlineReached);
    scene.settle(actions);
    let held = HeldSlot { slot: SlotId(0), grant: GrantId((1 << 32) + 1), splits: states(3, [split(0, 0)]) };
    let actions = scene.event(Event::Registered { taskmanager: tm("a"), held: Some(held) });
    assert!(matches!(actions[..], [Action::SendGrant { grant: GrantId(grant), .. }] if grant == (1 << 32) + 2));
    assert_eq!(scene.coordinator.states()[&split(0, 0)], state(0), "what a fenced one says does not count");
}

#[test]
fn sigterm_takes_all_splits_at_once_then_lets_go() {
    let mut scene = Scene::new(settings(), 1, 4);
    scene.join("a");
    let actions = scene.join("b");
    scene.settle(actions);
    let actions = scene.event(Event::Draining { taskmanager: tm("b") });
    assert!(matches!(&actions[..], [Action::SendRevoke { splits, .. }] if splits.len() == 2), "{actions:?}");
    let rest = scene.settle(actions);
    assert!(rest.contains(&Action::SendDrain { taskmanager: tm("b"), leave: true }), "{rest:?}");
    assert_eq!(scene.count("a"), 4);
    scene.event(Event::Disconnected { taskmanager: tm("b") });
    assert_eq!(scene.coordinator.number_of_lost_taskmanagers(), 0);
}

#[test]
fn a_checkpoint_waits_for_reports_alone_and_holds_what_they_say() {
    let mut scene = Scene::new(settings(), 1, 2);
    scene.join("a");
    let beat = Event::Heartbeat { taskmanager: tm("a") };
    for _ in 0..5 {
        assert_eq!(scene.after(Duration::from_secs(5), beat.clone()), []);
    }
    let checkpoint = CheckpointId(1);
    assert_eq!(scene.after(Duration::from_secs(5), beat), [Action::SendBarrier { taskmanager: tm("a"), checkpoint }]);
    let splits = states(40, [split(0, 0), split(0, 1)]);
    let report = Event::Reported { taskmanager: tm("a"), checkpoint: Some(checkpoint), splits: splits.clone() };
    let kind = SnapshotKind::Checkpoint;
    assert_eq!(scene.event(report), [Action::StoreSnapshot { checkpoint, kind, splits }]);
    scene.event(Event::SnapshotFailed { checkpoint, reason: "unreachable".to_owned() });
    assert_eq!(scene.coordinator.number_of_failed_checkpoints(), 1);
    assert!(scene.coordinator.checkpoints().all(|view| matches!(view.status, CheckpointStatus::Failed { .. })));
}

#[test]
fn a_lost_taskmanager_does_not_hold_a_savepoint() {
    let mut scene = Scene::new(settings(), 1, 2);
    scene.join("a");
    scene.event(Event::Reported { taskmanager: tm("a"), checkpoint: None, splits: states(4, [split(0, 0)]) });
    let request = RequestId(1);
    let asked = Event::SavepointRequested { request, label: "x".to_owned(), stop: false };
    assert!(matches!(scene.event(asked)[..], [Action::SendBarrier { .. }]));
    let actions = scene.after(TIMEOUT, Event::DeadlineReached);
    let rest = scene.settle(actions);
    let location = "snapshot 1".to_owned();
    assert!(
        rest.contains(&Action::Reply { request, reply: Reply::Savepoint { checkpoint: CheckpointId(1), location } }),
        "{rest:?}"
    );
}

#[test]
fn stop_with_savepoint_releases_stores_lets_go_and_ends() {
    let mut scene = Scene::new(settings(), 1, 2);
    scene.join("a");
    let request = RequestId(1);
    let actions = scene.event(Event::SavepointRequested { request, label: String::new(), stop: true });
    assert!(matches!(actions[..], [Action::SendRevoke { .. }]), "{actions:?}");
    let rest = scene.settle(actions);
    let reply = Reply::Savepoint { checkpoint: CheckpointId(1), location: "snapshot 1".to_owned() };
    let drain = Action::SendDrain { taskmanager: tm("a"), leave: true };
    assert_eq!(rest, [drain, Action::Reply { request, reply }, Action::Finish]);
    assert_eq!(scene.coordinator.slots_in_use().count(), 0);
    assert_eq!(scene.coordinator.next_deadline(), None);
}

#[test]
fn a_stop_whose_savepoint_fails_leaves_the_job_running() {
    let mut scene = Scene::new(settings(), 1, 2);
    let request = RequestId(1);
    let actions = scene.event(Event::SavepointRequested { request, label: String::new(), stop: true });
    assert!(matches!(actions[..], [Action::StoreSnapshot { .. }]), "{actions:?}");
    let failed = Event::SnapshotFailed { checkpoint: CheckpointId(1), reason: "denied".to_owned() };
    let reason = "denied; the job goes on".to_owned();
    assert_eq!(scene.event(failed), [Action::Reply { request, reply: Reply::Failed { reason } }]);
    assert_eq!(scene.coordinator.job_state(), "RUNNING");
}

#[test]
fn a_restore_that_repeats_output_needs_leave() {
    let mut scene = Scene::new(settings(), 1, 2);
    scene.join("a");
    let both = || [split(0, 0), split(0, 1)];
    scene.event(Event::Reported { taskmanager: tm("a"), checkpoint: None, splits: states(50, both()) });
    let request = RequestId(1);
    let restore = |allow_replay| Event::RestoreRequested { request, splits: states(20, both()), allow_replay };
    let actions = scene.event(restore(false));
    let [Action::Reply { reply: Reply::ReplayRefused { replayed }, .. }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(replayed.values().map(|replay| replay.records).collect::<Vec<_>>(), [30, 30]);
    let actions = scene.event(restore(true));
    let rest = scene.settle(actions);
    assert!(
        rest.iter().any(|action| matches!(action, Action::Reply { reply: Reply::Restored { .. }, .. })),
        "{rest:?}"
    );
    assert_eq!(scene.coordinator.states(), states(20, both()));
}

#[test]
fn at_least_once_needs_no_kafka_for_a_move() {
    let mut scene = Scene::new(Settings { exactly_once: false, ..settings() }, 1, 2);
    scene.join("a");
    let actions = scene.join("b");
    let [Action::SendRevoke { splits, .. }] = &actions[..] else { panic!("{actions:?}") };
    let splits = states(6, splits.iter().cloned());
    let actions = scene.event(Event::Released { taskmanager: tm("a"), splits: splits.clone() });
    assert_eq!(actions, [Action::SendAssign { taskmanager: tm("b"), splits, limits: BTreeMap::new() }]);
}

#[test]
fn what_a_stranger_reports_changes_nothing() {
    let mut scene = Scene::new(settings(), 1, 2);
    scene.join("a");
    scene.event(Event::Reported { taskmanager: tm("z"), checkpoint: None, splits: states(99, [split(0, 0)]) });
    scene.event(Event::Released { taskmanager: tm("z"), splits: states(99, [split(0, 0)]) });
    assert_eq!(scene.coordinator.states()[&split(0, 0)], state(0));
    assert_eq!(scene.count("a"), 2);
}
