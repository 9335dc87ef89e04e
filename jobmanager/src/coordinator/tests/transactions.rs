//! The slots as operators see them, and fencing one by hand.

use super::*;
use crate::coordinator::tests::rest::fixed;

const REQUEST: RequestId = RequestId(1);

fn abort(slot: u32) -> Event {
    Event::AbortRequested { request: REQUEST, slot: SlotId(slot) }
}

fn slots(scene: &Scene) -> Vec<(u32, &'static str, Option<String>, usize)> {
    let row = |view: crate::coordinator::view::TransactionView| {
        (view.slot.0, view.state, view.taskmanager.map(|id| id.0), view.splits)
    };
    scene.coordinator.transactions().map(row).collect()
}

fn aborted(slot: u32, holder: Option<&str>) -> Action {
    let reply = Reply::TransactionAborted { slot: SlotId(slot), holder: holder.map(tm) };
    Action::Reply { request: REQUEST, reply }
}

#[test]
fn an_aborted_slot_is_fenced_before_its_splits_are_read_and_the_others_go_on() {
    // No failure is allowed: an operator's abort is none.
    let mut scene = Scene::new(fixed(0), 1, 4);
    scene.join("a");
    let actions = scene.join("b");
    scene.settle(actions);
    let before = scene.coordinator.grant(&tm("a")).expect("a slot");
    let actions = scene.event(abort(0));
    assert!(actions.contains(&Action::FenceSlot { slot: SlotId(0) }), "{actions:?}");
    assert!(!actions.iter().any(|action| matches!(action, Action::ReadProgress { .. } | Action::Reply { .. })));
    let after = scene.coordinator.grant(&tm("a")).expect("another slot at once");
    assert_eq!((after.0, scene.count("b")), (SlotId(2), 2));
    assert_ne!(after.1, before.1);
    assert_eq!(slots(&scene)[0], (0, "FENCING", None, 2));
    // What the fenced one still says does not count.
    scene.event(Event::Reported { taskmanager: tm("a"), checkpoint: None, splits: states(9, [split(0, 0)]) });
    scene.event(Event::SlotLost { taskmanager: tm("a"), grant: before.1 });
    assert_eq!(
        (scene.coordinator.states()[&split(0, 0)].clone(), scene.coordinator.grant(&tm("a"))),
        (state(0), Some(after))
    );
    let actions = scene.event(Event::SlotFenced { slot: SlotId(0) });
    assert!(matches!(actions[0], Action::ReadProgress { .. }), "{actions:?}");
    assert!(actions.contains(&aborted(0, Some("a"))), "{actions:?}");
    scene.settle(actions);
    let ready = scene.event(Event::SlotReady { taskmanager: tm("a"), grant: after.1 });
    scene.settle(ready);
    assert_eq!((scene.count("a"), scene.count("b")), (2, 2));
    assert_eq!((scene.coordinator.job_state(), scene.coordinator.number_of_restarts()), ("RUNNING", 0));
}

#[test]
fn a_fence_that_fails_is_tried_again_and_answered_once() {
    let mut scene = Scene::new(settings(), 1, 2);
    scene.join("a");
    scene.event(abort(0));
    assert_eq!(scene.event(Event::FenceFailed { slot: SlotId(0) }), []);
    let again = scene.event(abort(0));
    assert!(matches!(&again[..], [Action::Reply { reply: Reply::Rejected { .. }, .. }]), "one waits: {again:?}");
    let actions = scene.after(Duration::from_secs(1), Event::DeadlineReached);
    assert_eq!(actions, [Action::FenceSlot { slot: SlotId(0) }]);
    assert!(scene.event(Event::SlotFenced { slot: SlotId(0) }).contains(&aborted(0, Some("a"))));
    assert_eq!(scene.event(Event::SlotFenced { slot: SlotId(0) }), [], "once");
}

#[test]
fn free_and_fencing_slots_are_fenced_and_unknown_ones_refused() {
    let mut scene = Scene::new(settings(), 1, 2);
    scene.join("a");
    let actions = scene.event(Event::Draining { taskmanager: tm("a") });
    scene.settle(actions);
    assert_eq!(slots(&scene), [(0, "FREE", None, 0)]);
    assert_eq!(scene.event(abort(0)), [Action::FenceSlot { slot: SlotId(0) }]);
    assert_eq!(scene.event(Event::SlotFenced { slot: SlotId(0) }), [aborted(0, None)]);
    let unknown = scene.event(abort(7));
    assert!(matches!(&unknown[..], [Action::Reply { reply: Reply::Rejected { .. }, .. }]), "{unknown:?}");
    let mut scene = Scene::new(settings(), 1, 2);
    scene.join("a");
    scene.after(TIMEOUT, Event::DeadlineReached);
    assert_eq!(slots(&scene), [(0, "FENCING", None, 2)]);
    assert_eq!(scene.event(abort(0)), [], "the fence on its way is enough");
    assert!(scene.event(Event::SlotFenced { slot: SlotId(0) }).contains(&aborted(0, None)));
}

#[test]
fn splits_of_an_orphan_that_is_aborted_are_not_read_before_it_is_fenced() {
    let mut scene = Scene::new(Settings { orphaned_slots: [(SlotId(0), None)].into(), ..settings() }, 1, 2);
    assert_eq!(slots(&scene), [(0, "ORPHANED", None, 0)]);
    assert_eq!(scene.event(abort(0)), [Action::FenceSlot { slot: SlotId(0) }], "no stable read yet");
    let late = scene.event(Event::Registered {
        taskmanager: tm("old"),
        held: Some(HeldSlot { slot: SlotId(0), grant: GrantId(1), splits: states(5, [split(0, 0)]) }),
    });
    assert!(matches!(late[..], [Action::SendGrant { slot: SlotId(1), .. }]), "it may not claim it: {late:?}");
    let actions = scene.event(Event::SlotFenced { slot: SlotId(0) });
    assert!(actions.iter().any(|action| matches!(action, Action::ReadProgress { splits } if splits.len() == 2)));
}

#[test]
fn at_least_once_has_no_transaction_to_abort() {
    let mut scene = Scene::new(Settings { exactly_once: false, ..settings() }, 1, 2);
    scene.join("a");
    let actions = scene.event(abort(0));
    assert!(matches!(&actions[..], [Action::Reply { reply: Reply::Rejected { .. }, .. }]), "{actions:?}");
    assert_eq!(scene.count("a"), 2);
}

#[test]
fn the_last_commit_is_the_last_report_of_something_new() {
    let mut scene = Scene::new(settings(), 1, 2);
    scene.join("a");
    let age = |scene: &Scene| scene.coordinator.transactions().next().expect("a slot").committed_for;
    let report =
        |cursor| Event::Reported { taskmanager: tm("a"), checkpoint: None, splits: states(cursor, [split(0, 0)]) };
    scene.after(Duration::from_secs(1), report(0));
    assert_eq!(age(&scene), None, "nothing new");
    scene.after(Duration::from_secs(1), report(4));
    scene.after(Duration::from_secs(3), report(4));
    assert_eq!(age(&scene), Some(Duration::from_secs(3)));
}
