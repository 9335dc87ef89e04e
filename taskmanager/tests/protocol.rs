//! A taskmanager against a jobmanager that does as the test says, with librdkafka's mock cluster in between.

mod support;

use support::*;
use tokio::time::timeout;
use weir_proto::v1;
use weir_taskmanager::Exit;

#[tokio::test(flavor = "multi_thread")]
async fn records_flow_from_register_to_drain() {
    let mut world = World::on_mock().await;
    world.produce(0, 500);
    let mut peer = world.ready_peer().await;
    let mut seen = Seen::new();
    peer.say(assign(&world.job, 0..SPLITS, &seen)).await;
    peer.hear_reports(&mut seen, |seen| all_at(seen, &[0, 1, 2, 3], 500)).await;
    let consumed: u64 = seen.values().map(|(_, counters)| counters.consumed).sum();
    assert_eq!(consumed, 500, "every record counts once");

    peer.say(Say::Barrier(v1::Barrier { checkpoint_id: 8 })).await;
    let Hear::Report(report) = peer.hear().await else { panic!("a barrier is answered") };
    assert_eq!((report.checkpoint_id, report.splits.len()), (8, SPLITS as usize));

    world.shutdown.cancel();
    assert_eq!(peer.hear().await, Hear::Draining(v1::Draining {}));
    peer.say(revoke(&world.job, 0..SPLITS)).await;
    let Hear::Released(released) = peer.hear().await else { panic!("a revocation is answered") };
    assert_eq!(released.splits.len(), SPLITS as usize);
    peer.say(Say::Drain(v1::Drain { leave: true })).await;
    let exit = timeout(PATIENCE, &mut world.taskmanager).await.expect("it leaves").expect("no panic");
    assert_eq!(exit.expect("no failure"), Exit::Drained);
    expect_each_once_in_order(&world.outputs(), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn splits_come_and_go_and_work_goes_on_without_a_jobmanager() {
    let mut world = World::on_mock().await;
    world.produce(0, 300);
    let mut peer = world.ready_peer().await;
    let mut seen = Seen::new();
    peer.say(assign(&world.job, 0..SPLITS, &seen)).await;
    peer.hear_reports(&mut seen, |seen| all_at(seen, &[0, 1, 2, 3], 300)).await;

    peer.say(revoke(&world.job, [1, 2])).await;
    let Hear::Released(released) = peer.hear().await else { panic!("a revocation is answered") };
    note(&mut seen, released.splits);
    world.produce(300, 300);
    peer.hear_reports(&mut seen, |seen| all_at(seen, &[0, 3], 600)).await;
    assert!(all_at(&seen, &[1, 2], 300), "nobody works on what was revoked");

    // No jobmanager for a while: what is held goes on, and is said at the next Register.
    drop(peer);
    world.produce(600, 100);
    let mut peer = world.peer().await;
    let held = peer.hear_register().await.held.expect("the slot is still held");
    assert_eq!((held.slot, held.grant_id, held.splits.len()), (0, 1, 2));
    note(&mut seen, held.splits);
    peer.say(Say::Registered(world.job.registered())).await;
    // What comes back stands below the reader, which goes back for it.
    peer.say(assign(&world.job, [1, 2], &seen)).await;
    peer.hear_reports(&mut seen, |seen| all_at(seen, &[0, 1, 2, 3], 700)).await;
    expect_each_once_in_order(&world.outputs(), 700);

    // A jobmanager that was replaced is not obeyed.
    peer.epoch = 2;
    peer.say(Say::Drain(v1::Drain { leave: true })).await;
    peer.epoch = 3;
    peer.say(Say::Barrier(v1::Barrier { checkpoint_id: 9 })).await;
    let Hear::Report(report) = peer.hear().await else { panic!("a barrier is answered") };
    assert_eq!(report.checkpoint_id, 9);

    // A new grant replaces the slot: nothing is held any more.
    peer.grant(0, 2, 60_000).await;
    assert_eq!(peer.hear().await, Hear::SlotReady(v1::SlotReady { slot: 0, grant_id: 2 }));
    peer.say(Say::Barrier(v1::Barrier { checkpoint_id: 10 })).await;
    let Hear::Report(report) = peer.hear().await else { panic!("a barrier is answered") };
    assert!(report.splits.is_empty());
    world.taskmanager.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_come_to_and_kept_and_ends_with_the_leader_that_set_it() {
    let mut world = World::on_mock().await;
    world.produce(0, 300);
    let mut peer = world.ready_peer().await;
    let mut seen = Seen::new();
    // Splits 0 and 1 have their limit in the middle of the log, 2 and 3 come later and find the reader there.
    peer.say(assign_up_to(&world.job, [0, 1], &seen, Some(200))).await;
    peer.hear_reports(&mut seen, |seen| all_at(seen, &[0, 1], 200)).await;
    peer.say(assign_up_to(&world.job, [2, 3], &seen, Some(200))).await;
    peer.hear_reports(&mut seen, |seen| all_at(seen, &[0, 1, 2, 3], 200)).await;
    expect_each_once_in_order(&world.outputs(), 200);

    // Given back and handed out without a limit, a split goes on; the others stay where they are.
    peer.say(revoke(&world.job, [0])).await;
    let Hear::Released(released) = peer.hear().await else { panic!("a revocation is answered") };
    note(&mut seen, released.splits);
    peer.say(assign(&world.job, [0], &seen)).await;
    peer.hear_reports(&mut seen, |seen| all_at(seen, &[0], 300)).await;
    assert!(all_at(&seen, &[1, 2, 3], 200), "{seen:?}");

    // A later leader speaks: the reader has read past the limit, and goes back for what was left out.
    peer.epoch = 4;
    peer.say(Say::Barrier(v1::Barrier { checkpoint_id: 9 })).await;
    peer.hear_reports(&mut seen, |seen| all_at(seen, &[0, 1, 2, 3], 300)).await;
    expect_each_once_in_order(&world.outputs(), 300);
    world.taskmanager.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_for_good_ends_the_process_with_its_reason() {
    let mut world = World::on_mock().await;
    let mut peer = world.peer().await;
    peer.hear_register().await;
    let refused = v1::Refused {
        reason: "JOB".to_owned(),
        message: "another job".to_owned(),
        retry_after_ms: 0,
        ..v1::Refused::default()
    };
    peer.say(Say::Refused(refused)).await;
    let exit = timeout(PATIENCE, &mut world.taskmanager).await.expect("it leaves").expect("no panic");
    assert_eq!(exit.expect("no failure"), Exit::Refused("another job".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_grant_drops_the_slot_and_says_so() {
    let mut world = World::on_mock().await;
    let mut peer = world.peer().await;
    peer.hear_register().await;
    peer.say(Say::Registered(world.job.registered())).await;
    peer.grant(5, 1, 1000).await;
    // Heartbeats are not answered here.
    let lost = loop {
        let message = timeout(PATIENCE, peer.hear.message()).await.expect("in time").expect("whole").expect("open");
        if let Some(Hear::SlotLost(lost)) = message.kind {
            break lost;
        }
    };
    assert_eq!((lost.slot, lost.grant_id), (5, 1));
    world.taskmanager.abort();
}
