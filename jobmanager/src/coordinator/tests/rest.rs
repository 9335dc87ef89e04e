//! Failures and restarts, suspend and resume, reset.

use weir_common::config::{FixedDelay, RestartKind, RestartStrategy};

use super::*;
use crate::coordinator::event::Allowed;

const REQUEST: RequestId = RequestId(1);

pub(super) fn fixed(attempts: u32) -> Settings {
    let fixed_delay = FixedDelay { attempts, delay: Duration::from_secs(3) };
    let restart_strategy = RestartStrategy { kind: RestartKind::FixedDelay, fixed_delay, ..Default::default() };
    Settings { restart_strategy, ..settings() }
}

fn both() -> [SplitId; 2] {
    [split(0, 0), split(0, 1)]
}

/// "a" with both splits loses its slot; what follows at once.
fn lose_slot(scene: &mut Scene) -> Vec<Action> {
    let (_, grant) = scene.coordinator.grant(&tm("a")).expect("a slot");
    let actions = scene.event(Event::SlotLost { taskmanager: tm("a"), grant });
    scene.settle(actions)
}

#[test]
fn what_failed_waits_for_its_restart_and_everyone_else_goes_on() {
    let mut scene = Scene::new(fixed(5), 1, 4);
    scene.join("a");
    let actions = scene.join("b");
    scene.settle(actions);
    let rest = lose_slot(&mut scene);
    assert_eq!(rest, [], "no slot and no splits for now");
    assert_eq!((scene.count("a"), scene.count("b")), (0, 2), "the other keeps its own");
    assert_eq!(scene.coordinator.job_state(), "RESTARTING");
    assert!(scene.coordinator.state_reason().is_some_and(|reason| reason.contains("taskmanager a lost its slot")));
    assert_eq!(scene.coordinator.next_deadline(), Some(scene.now + Duration::from_secs(3)));
    let actions = scene.after(Duration::from_secs(3), Event::DeadlineReached);
    assert!(actions.iter().any(|action| matches!(action, Action::SendGrant { .. })), "{actions:?}");
    assert!(actions.iter().any(|action| matches!(action, Action::SendAssign { splits, .. } if splits.len() == 2)));
    assert_eq!((scene.coordinator.job_state(), scene.coordinator.number_of_restarts()), ("RUNNING", 1));
}

#[test]
fn a_strategy_that_is_exhausted_fails_the_job_until_it_is_resumed() {
    let mut scene = Scene::new(fixed(0), 1, 2);
    scene.join("a");
    scene.join("b");
    lose_slot(&mut scene);
    assert_eq!(scene.coordinator.job_state(), "FAILED");
    let reason = scene.coordinator.state_reason().expect("a reason");
    assert!(reason.contains("restart_strategy.fixed_delay.attempts allows 0"), "{reason}");
    assert_eq!(scene.owners().values().flatten().count(), 0, "nobody works");
    let beat = Event::Heartbeat { taskmanager: tm("b") };
    assert_eq!(scene.after(Duration::from_secs(9), beat), [], "no checkpoint, no assignment");
    let actions = scene.event(Event::ResumeRequested { request: REQUEST });
    let rest = scene.settle(actions);
    assert!(rest.contains(&Action::Reply { request: REQUEST, reply: Reply::Resumed }), "{rest:?}");
    assert_eq!((scene.coordinator.job_state(), scene.count("b")), ("RUNNING", 2));
}

#[test]
fn who_leaves_as_announced_is_no_failure() {
    let mut scene = Scene::new(fixed(0), 1, 2);
    scene.join("a");
    let actions = scene.event(Event::Draining { taskmanager: tm("a") });
    scene.settle(actions);
    scene.event(Event::Disconnected { taskmanager: tm("a") });
    scene.after(TIMEOUT, Event::DeadlineReached);
    assert_eq!((scene.coordinator.job_state(), scene.coordinator.number_of_restarts()), ("RUNNING", 0));
}

#[test]
fn suspend_releases_stores_records_and_rests_while_taskmanagers_stay() {
    let mut scene = Scene::new(settings(), 1, 2);
    scene.join("a");
    let actions = scene.event(Event::SuspendRequested { request: REQUEST });
    assert!(matches!(actions[..], [Action::SendRevoke { .. }]), "{actions:?}");
    assert_eq!(scene.coordinator.job_state(), "SUSPENDING");
    let rest = scene.settle(actions);
    let reply = Reply::Suspended { snapshot: Ok("snapshot 1".to_owned()) };
    assert_eq!(rest, [Action::Reply { request: REQUEST, reply }]);
    assert_eq!(scene.coordinator.job_state(), "SUSPENDED");
    assert_eq!(scene.coordinator.slots_in_use().count(), 1, "its slot stays its own");
    scene.event(Event::Registered { taskmanager: tm("b"), held: None });
    assert_eq!(scene.owners().values().flatten().count(), 0);
    let again = scene.event(Event::SuspendRequested { request: REQUEST });
    assert!(matches!(&again[..], [Action::Reply { reply: Reply::Rejected { .. }, .. }]), "{again:?}");
    // A savepoint of a job at rest needs nobody's report.
    let asked = Event::SavepointRequested { request: REQUEST, label: String::new(), stop: false };
    assert!(matches!(scene.event(asked)[..], [Action::StoreSnapshot { .. }]));
    scene.event(Event::SnapshotFailed { checkpoint: CheckpointId(2), reason: "away".to_owned() });
    let actions = scene.event(Event::ResumeRequested { request: REQUEST });
    assert_eq!(actions, [Action::RecordRest { suspended: false }]);
    scene.settle(actions);
    assert_eq!((scene.coordinator.job_state(), scene.count("a")), ("RUNNING", 2));
}

#[test]
fn storage_that_is_away_does_not_keep_a_job_from_being_suspended() {
    let mut scene = Scene::new(settings(), 1, 2);
    let actions = scene.event(Event::SuspendRequested { request: REQUEST });
    assert!(matches!(actions[..], [Action::StoreSnapshot { .. }]), "{actions:?}");
    let failed = Event::SnapshotFailed { checkpoint: CheckpointId(1), reason: "away".to_owned() };
    assert_eq!(scene.event(failed), [Action::RecordRest { suspended: true }]);
    let reply = Reply::Suspended { snapshot: Err("away".to_owned()) };
    assert_eq!(scene.event(Event::RestRecorded), [Action::Reply { request: REQUEST, reply }]);
}

#[test]
fn a_job_that_was_suspended_is_found_suspended() {
    let mut scene = Scene::new(Settings { suspended: true, ..settings() }, 1, 2);
    let actions = scene.event(Event::Registered { taskmanager: tm("a"), held: None });
    assert_eq!((actions, scene.coordinator.job_state()), (vec![], "SUSPENDED"));
    let actions = scene.event(Event::ResumeRequested { request: REQUEST });
    let rest = scene.settle(actions);
    assert!(rest.iter().any(|action| matches!(action, Action::SendGrant { .. })), "{rest:?}");
}

#[test]
fn a_job_that_is_found_suspended_leaves_its_group_to_whoever_goes_on_in_its_place() {
    let second = Duration::from_secs(1);
    let mut scene = Scene::new(Settings { suspended: true, mirror_interval: second, ..settings() }, 1, 2);
    assert_eq!(scene.after(second, Event::DeadlineReached), []);
    let actions = scene.event(Event::ResumeRequested { request: REQUEST });
    scene.settle(actions);
    let actions = scene.after(second, Event::DeadlineReached);
    assert!(matches!(actions[..], [Action::MirrorLag { .. }]), "{actions:?}");
}

#[test]
fn a_lost_taskmanager_of_a_suspended_job_is_fenced_and_no_failure() {
    let mut scene = Scene::new(fixed(0), 1, 2);
    scene.join("a");
    let actions = scene.event(Event::SuspendRequested { request: REQUEST });
    scene.settle(actions);
    let actions = scene.after(TIMEOUT, Event::DeadlineReached);
    assert!(actions.contains(&Action::FenceSlot { slot: SlotId(0) }), "{actions:?}");
    scene.settle(actions);
    assert_eq!((scene.coordinator.job_state(), scene.coordinator.number_of_restarts()), ("SUSPENDED", 0));
}

#[test]
fn a_suspended_job_can_be_restored_reset_and_stopped_and_stays_suspended_until_then() {
    let mut scene = Scene::new(Settings { suspended: true, ..settings() }, 1, 2);
    let actions =
        scene.event(Event::RestoreRequested { request: REQUEST, splits: states(4, both()), allow_replay: false });
    scene.settle(actions);
    assert_eq!((scene.coordinator.job_state(), scene.coordinator.states()), ("SUSPENDED", states(4, both())));
    let allowed = Allowed { replay: true, skip: false };
    let splits = both().map(|split| (split, 1)).into();
    let actions = scene.event(Event::ResetRequested { request: REQUEST, splits, allowed });
    let rest = scene.settle(actions);
    let [Action::Reply { reply: Reply::Reset(consequences), .. }] = &rest[..] else { panic!("{rest:?}") };
    assert_eq!(consequences.replayed.values().copied().collect::<Vec<_>>(), [3]);
    let moved = &scene.coordinator.states()[&split(0, 0)];
    assert_eq!((moved.progress.cursor, moved.counters.consumed), (1, 4), "counters go on counting");
    let actions = scene.event(Event::SavepointRequested { request: REQUEST, label: String::new(), stop: true });
    assert!(scene.settle(actions).contains(&Action::Finish));
}

#[test]
fn a_reset_says_what_would_come_of_it_and_moves_only_what_is_meant() {
    let mut scene = Scene::new(settings(), 1, 2);
    scene.join("a");
    scene.event(Event::Reported { taskmanager: tm("a"), checkpoint: None, splits: states(50, both()) });
    let reset = |offset, replay, skip| Event::ResetRequested {
        request: REQUEST,
        splits: [(split(0, 1), offset)].into(),
        allowed: Allowed { replay, skip },
    };
    for (offset, replay, skip, replayed, skipped) in [(20, false, true, 30, 0), (80, true, false, 0, 30)] {
        let actions = scene.event(reset(offset, replay, skip));
        let [Action::Reply { reply: Reply::ResetRefused(consequences), .. }] = &actions[..] else {
            panic!("{actions:?}")
        };
        let sum = |map: &BTreeMap<_, u64>| map.values().sum::<u64>();
        assert_eq!((sum(&consequences.replayed), sum(&consequences.skipped)), (replayed, skipped));
    }
    let actions = scene.event(reset(20, true, false));
    scene.settle(actions);
    let cursors: Vec<i64> = scene.coordinator.states().values().map(|state| state.progress.cursor).collect();
    assert_eq!((cursors, scene.count("a")), (vec![50, 20], 2));
}

#[test]
fn progress_of_a_job_that_rests_is_committed_again_and_nothing_is_handed_out_meanwhile() {
    let mut scene = Scene::new(settings(), 1, 2);
    scene.join("a");
    assert_eq!(scene.event(Event::RenewalDue), [], "who works commits by itself");
    let actions = scene.event(Event::SuspendRequested { request: REQUEST });
    scene.settle(actions);
    let before = scene.coordinator.states();
    let renewed = scene.event(Event::RenewalDue);
    assert_eq!(renewed, [Action::RenewProgress { splits: before.clone() }]);
    let rejected = scene.event(Event::ResumeRequested { request: REQUEST });
    assert!(matches!(&rejected[..], [Action::Reply { reply: Reply::Rejected { .. }, .. }]), "{rejected:?}");
    assert_eq!(scene.event(Event::ProgressWritten), []);
    let actions = scene.event(Event::ResumeRequested { request: REQUEST });
    scene.settle(actions);
    assert_eq!((scene.coordinator.job_state(), scene.count("a"), scene.coordinator.states()), ("RUNNING", 2, before));
}
