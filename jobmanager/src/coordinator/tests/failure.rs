//! Splits that cannot be read.

use weir_common::failure::{FailureKind, SplitFailure};

use super::{rest::fixed, *};

fn failed(kind: FailureKind, splits: Vec<SplitId>) -> Event {
    let failure = SplitFailure { kind, message: "what happened".to_owned() };
    Event::SplitsFailed { taskmanager: tm("a"), splits, failure }
}

fn states_of(scene: &Scene) -> Vec<&'static str> {
    scene.coordinator.splits().map(|split| split.state).collect()
}

#[test]
fn a_split_whose_offset_is_gone_is_released_and_stands_until_an_operator_moves_it() {
    let mut scene = Scene::new(fixed(0), 1, 2);
    scene.join("a");
    scene.event(Event::Reported { taskmanager: tm("a"), checkpoint: None, splits: states(5, [split(0, 1)]) });
    let actions = scene.event(failed(FailureKind::OffsetOutOfRange, vec![split(0, 1)]));
    let revoke = Action::SendRevoke { taskmanager: tm("a"), splits: vec![split(0, 1)] };
    assert_eq!(actions, [revoke], "with its last commit");
    assert_eq!(scene.settle(actions), []);
    assert_eq!(states_of(&scene), ["RUNNING", "FAILED"]);
    assert_eq!(scene.coordinator.job_state(), "RUNNING", "no restart helps, so it is no failure of the job");
    assert_eq!(scene.after(TIMEOUT / 2, Event::Heartbeat { taskmanager: tm("a") }), [], "never by itself");
    let allowed = crate::coordinator::event::Allowed { replay: false, skip: true };
    let reset = Event::ResetRequested { request: RequestId(1), splits: [(split(0, 1), 9)].into(), allowed };
    let actions = scene.event(reset);
    scene.settle(actions);
    assert_eq!(states_of(&scene), ["RUNNING", "RUNNING"]);
    assert_eq!(scene.coordinator.states()[&split(0, 1)].progress, Progress::at(9));
}

#[test]
fn a_topic_that_is_gone_is_tried_again_as_the_restart_strategy_says() {
    let mut scene = Scene::new(fixed(1), 1, 2);
    scene.join("a");
    let gone = || failed(FailureKind::TopicGone, vec![split(0, 0), split(0, 1)]);
    let actions = scene.event(gone());
    scene.settle(actions);
    assert_eq!((states_of(&scene), scene.coordinator.job_state()), (vec!["RESTARTING"; 2], "RESTARTING"));
    let actions = scene.after(Duration::from_secs(3), Event::Heartbeat { taskmanager: tm("a") });
    assert!(matches!(&actions[..], [Action::SendAssign { splits, .. }] if splits.len() == 2), "{actions:?}");
    assert!(scene.coordinator.splits().all(|split| split.failure.is_none()));
    let actions = scene.event(gone());
    scene.settle(actions);
    assert_eq!(scene.coordinator.job_state(), "FAILED");
    assert!(scene.coordinator.state_reason().is_some_and(|reason| reason.contains("TOPIC_GONE")));
}

#[test]
fn nothing_of_a_topic_that_was_made_anew_is_read_whoever_has_it() {
    let mut scene = Scene::new(settings(), 1, 2);
    let recreated = || Event::TopicRecreated { topic: "topic".into(), message: "another id".to_owned() };
    scene.event(recreated());
    assert_eq!(scene.join("a"), [], "nothing is handed out");
    assert_eq!(states_of(&scene), ["FAILED", "FAILED"]);
    let mut scene = Scene::new(settings(), 1, 2);
    scene.join("a");
    let actions = scene.event(recreated());
    assert!(matches!(&actions[..], [Action::SendRevoke { splits, .. }] if splits.len() == 2), "{actions:?}");
    scene.settle(actions);
    assert_eq!((states_of(&scene), scene.event(recreated())), (vec!["FAILED", "FAILED"], vec![]));
}

#[test]
fn what_is_not_theirs_cannot_be_complained_of() {
    let mut scene = Scene::new(settings(), 1, 2);
    scene.join("a");
    let failure = SplitFailure { kind: FailureKind::OffsetOutOfRange, message: String::new() };
    let stranger = Event::SplitsFailed { taskmanager: tm("z"), splits: vec![split(0, 0)], failure };
    assert_eq!(scene.event(stranger), []);
    assert_eq!(scene.event(failed(FailureKind::OffsetOutOfRange, vec![split(7, 0)])), []);
    assert_eq!(states_of(&scene), ["RUNNING", "RUNNING"]);
}
