//! Periodic savepoints, and savepoints made from plain offsets.

use super::*;
use crate::coordinator::{action::SavepointKind, event::StoredSavepoint};

const HOUR: Duration = Duration::from_secs(3600);

fn hourly() -> Settings {
    let savepoints = Savepoint { interval: Some(HOUR), retention: HOUR * 24, ..Savepoint::default() };
    Settings {
        savepoints,
        checkpoint_interval: HOUR * 1000,
        heartbeat_timeout: HOUR * 1000,
        mirror_interval: HOUR * 1000,
        ..settings()
    }
}

fn listed(rows: &[(SavepointKind, u32)]) -> Event {
    let savepoint = |(kind, hours): &(SavepointKind, u32)| StoredSavepoint {
        key: format!("{}-{hours}", kind.name()),
        kind: *kind,
        age: HOUR * *hours,
    };
    Event::SavepointsListed { savepoints: rows.iter().map(savepoint).collect() }
}

fn kind_of(actions: &[Action]) -> Option<(CheckpointId, SavepointKind)> {
    actions.iter().find_map(|action| match action {
        Action::StoreSnapshot { checkpoint, kind: SnapshotKind::Savepoint { kind, .. }, .. } => {
            Some((*checkpoint, *kind))
        }
        _ => None,
    })
}

#[test]
fn one_is_taken_when_the_newest_is_old_enough_and_a_failure_is_counted_and_made_good() {
    let mut scene = Scene { coordinator: Coordinator::new(hourly()), now: Duration::ZERO };
    let actions = scene.event(Event::SplitsDiscovered { splits: states(0, [split(0, 0)]) });
    assert_eq!(actions, [Action::ListSavepoints], "first of all it looks what is there");
    assert_eq!(scene.event(listed(&[(SavepointKind::Operator, 2)])).len(), 1, "none of its own: one is due");
    let failed = Event::SnapshotFailed { checkpoint: CheckpointId(1), reason: "away".to_owned() };
    assert_eq!(scene.event(failed), []);
    assert_eq!((scene.coordinator.job_state(), scene.coordinator.number_of_failed_checkpoints()), ("RUNNING", 1));
    assert_eq!(scene.coordinator.next_deadline(), Some(Duration::from_secs(30)), "it looks again soon");
    let actions = scene.after(Duration::from_secs(30), Event::DeadlineReached);
    assert_eq!(actions, [Action::ListSavepoints]);
    // Storage has it all the same: its answer was lost.
    assert_eq!(scene.event(listed(&[(SavepointKind::Periodic, 0)])), [], "not a second one for the same time");
    let actions = scene.after(HOUR, Event::DeadlineReached);
    assert_eq!(kind_of(&actions), Some((CheckpointId(2), SavepointKind::Periodic)), "{actions:?}");
}

#[test]
fn a_job_that_rests_misses_times_and_takes_one_when_it_is_resumed() {
    let mut scene =
        Scene { coordinator: Coordinator::new(Settings { suspended: true, ..hourly() }), now: Duration::ZERO };
    scene.event(Event::SplitsDiscovered { splits: states(0, [split(0, 0)]) });
    assert_eq!(scene.event(listed(&[])), []);
    for _ in 0..5 {
        let actions = scene.after(HOUR, Event::DeadlineReached);
        assert_eq!(actions, [Action::ListSavepoints]);
        assert_eq!(scene.event(listed(&[])), []);
    }
    let actions = scene.event(Event::ResumeRequested { request: RequestId(1) });
    assert_eq!(actions, [Action::RecordRest { suspended: false }]);
    let actions = scene.event(Event::RestRecorded);
    assert_eq!(kind_of(&actions), Some((CheckpointId(1), SavepointKind::Periodic)), "{actions:?}");
    let stored = Event::SnapshotStored { checkpoint: CheckpointId(1), location: String::new(), size_bytes: 1 };
    assert_eq!(scene.event(stored), [Action::ListSavepoints]);
    assert_eq!(scene.event(listed(&[(SavepointKind::Periodic, 0)])), [], "one, not five");
}

#[test]
fn only_periodic_ones_are_deleted_and_only_by_age() {
    let mut scene = Scene { coordinator: Coordinator::new(hourly()), now: Duration::ZERO };
    use SavepointKind::{Imported, OffsetCut, Operator, Periodic};
    let there = [(Operator, 99), (OffsetCut, 99), (Imported, 99), (Periodic, 0), (Periodic, 25), (Periodic, 24)];
    let deleted = Action::DeleteSavepoints { keys: vec!["PERIODIC-25".to_owned()] };
    assert_eq!(scene.event(listed(&there)), [deleted, Action::ListSavepoints]);
}

#[test]
fn an_imported_savepoint_says_what_the_file_says_and_needs_every_partition() {
    let mut scene = Scene::new(settings(), 2, 2);
    scene.join("a");
    let partition = |partition| split(partition, 0).topic_partition();
    let import = |offsets| Event::ImportRequested { request: RequestId(1), label: "x".to_owned(), offsets };
    let actions = scene.event(import([(partition(0), 7)].into()));
    assert!(
        matches!(&actions[..], [Action::Reply { reply: Reply::Rejected { reason }, .. }] if reason.contains("topic-1"))
    );
    let actions = scene.event(import([(partition(0), 7), (partition(1), 9)].into()));
    let [Action::StoreSnapshot { kind, splits, .. }] = &actions[..] else { panic!("no barrier: {actions:?}") };
    let expected = SnapshotKind::Savepoint { label: "x".to_owned(), kind: SavepointKind::Imported };
    assert_eq!(*kind, expected);
    let cursors: Vec<i64> = splits.values().map(|state| state.progress.cursor).collect();
    assert_eq!(cursors, [7, 7, 9, 9]);
    assert_eq!(
        scene.coordinator.states(),
        states(0, (0..2).flat_map(|at| [split(at, 0), split(at, 1)])),
        "nothing moved"
    );
}
