//! What operators ask for.

use tonic::Code;
use weir_proto::v1;

use super::harness::{Jobmanager, LEADER, locked, until};
use crate::role::Role;

#[tokio::test]
async fn status_and_lists_show_the_job() {
    let jobmanager = Jobmanager::start(1, 4).await;
    let mut admin = jobmanager.admin().await;
    let alone = admin.get_status(v1::GetStatusRequest {}).await.expect("status").into_inner();
    assert!(alone.degraded.iter().any(|reason| reason.contains("no taskmanager")), "{:?}", alone.degraded);
    let taskmanager = jobmanager.taskmanager("a").await;
    until("all splits", || taskmanager.splits().len() == 4).await;
    let status = admin.get_status(v1::GetStatusRequest {}).await.expect("status").into_inner();
    assert_eq!((status.state.as_str(), status.splits_assigned, status.leader_epoch), ("RUNNING", 4, 7));
    assert_eq!(status.degraded, Vec::<String>::new());
    let listed = admin.list_task_managers(v1::ListTaskManagersRequest {}).await.expect("list").into_inner();
    let [only] = listed.taskmanagers.as_slice() else { panic!("{listed:?}") };
    assert_eq!((only.state.as_str(), only.slot, only.splits), ("READY", Some(0), 4));
    let splits = admin.list_splits(v1::ListSplitsRequest {}).await.expect("list").into_inner().splits;
    let places: Vec<i32> = splits.iter().map(|split| split.progress_partition).collect();
    assert_eq!(places, [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_savepoint_is_stored_listed_shown_and_disposed_of() {
    let jobmanager = Jobmanager::start(1, 4).await;
    let taskmanager = jobmanager.taskmanager("a").await;
    until("all splits", || taskmanager.splits().len() == 4).await;
    taskmanager.work(5);
    let mut admin = jobmanager.admin().await;
    let request = v1::TriggerSavepointRequest { label: "before-1.2".to_owned(), offset_cut: false };
    let answer = admin.trigger_savepoint(request).await.expect("stored").into_inner();
    let savepoint = answer.savepoint.expect("its info");
    assert_eq!(
        (savepoint.checkpoint_id, savepoint.kind.as_str(), savepoint.status.as_str()),
        (3, "SAVEPOINT", "COMPLETED")
    );
    let listed = admin.list_savepoints(v1::ListSavepointsRequest {}).await.expect("listed").into_inner().savepoints;
    assert_eq!(listed.iter().map(|each| &each.location).collect::<Vec<_>>(), [&savepoint.location]);
    let by_label = v1::GetSavepointRequest { savepoint: "before-1.2".to_owned() };
    let json = admin.get_savepoint(by_label).await.expect("shown").into_inner().json;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["counters"]["consumed"], &json["splits"][0]["cursor"]), (&20.into(), &15.into()));
    let dispose = v1::DisposeSavepointRequest { savepoint: savepoint.location.clone() };
    admin.dispose_savepoint(dispose.clone()).await.expect("disposed of");
    let gone = admin.dispose_savepoint(dispose).await.expect_err("gone");
    assert_eq!(gone.code(), Code::NotFound);
    let bad = v1::TriggerSavepointRequest { label: "a/b".to_owned(), offset_cut: false };
    assert_eq!(admin.trigger_savepoint(bad).await.expect_err("refused").code(), Code::InvalidArgument);
}

#[tokio::test]
async fn going_back_is_refused_with_the_number_of_repeats_unless_allowed() {
    let jobmanager = Jobmanager::start(1, 2).await;
    let taskmanager = jobmanager.taskmanager("a").await;
    until("both splits", || taskmanager.splits().len() == 2).await;
    let mut admin = jobmanager.admin().await;
    let label = "here".to_owned();
    admin
        .trigger_savepoint(v1::TriggerSavepointRequest { label: label.clone(), offset_cut: false })
        .await
        .expect("stored");
    taskmanager.work(5);
    admin
        .trigger_savepoint(v1::TriggerSavepointRequest { label: "later".to_owned(), offset_cut: false })
        .await
        .expect("stored");
    let back = |allow_replay| v1::RestoreRequest { savepoint: label.clone(), allow_replay };
    let refused = admin.restore(back(false)).await.expect_err("refused");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("10 records of 2 splits"), "{}", refused.message());
    let restored = admin.restore(back(true)).await.expect("restored").into_inner();
    assert_eq!((restored.replayed_records, restored.splits.len()), (10, 2));
    let record = locked(&jobmanager.kafka.record).clone().expect("written");
    assert!(record.rewound.is_some(), "a start must not take the snapshots that are ahead now");
    until("the splits again", || taskmanager.splits().len() == 2).await;
    let cursors: Vec<i64> =
        locked(&taskmanager.held).values().filter_map(|report| Some(report.progress.as_ref()?.cursor)).collect();
    assert_eq!(cursors, [10, 10]);
}

#[tokio::test]
async fn stopping_with_a_savepoint_ends_the_job_and_leaves_no_slots() {
    let mut jobmanager = Jobmanager::start(1, 2).await;
    let taskmanager = jobmanager.taskmanager("a").await;
    until("both splits", || taskmanager.splits().len() == 2).await;
    taskmanager.work(5);
    let mut admin = jobmanager.admin().await;
    let request = v1::StopWithSavepointRequest::default();
    let savepoint =
        admin.stop_with_savepoint(request).await.expect("stopped").into_inner().savepoint.expect("its info");
    assert!(savepoint.location.contains("/savepoints/"), "{savepoint:?}");
    assert!(taskmanager.task.await.expect("it obeyed"), "told to leave");
    (&mut jobmanager.end).await.expect("no panic").expect("the job ended");
    let record = locked(&jobmanager.kafka.record).clone().expect("written");
    assert!(record.slots.is_empty());
    assert!(locked(&jobmanager.kafka.progress).values().all(|state| state.progress.cursor == 15));
}

#[tokio::test]
async fn a_suspended_job_says_so_is_recorded_and_goes_on_when_resumed() {
    let jobmanager = Jobmanager::start(1, 2).await;
    let taskmanager = jobmanager.taskmanager("a").await;
    until("both splits", || taskmanager.splits().len() == 2).await;
    let mut admin = jobmanager.admin().await;
    let early = admin.resume(v1::ResumeRequest {}).await.expect_err("it runs");
    assert_eq!(early.code(), Code::FailedPrecondition);
    let suspended = admin.suspend(v1::SuspendRequest::default()).await.expect("suspended").into_inner();
    assert!(suspended.location.contains("/checkpoints/"), "{suspended:?}");
    assert!(locked(&jobmanager.kafka.record).clone().expect("written").suspended);
    assert_eq!(taskmanager.splits().len(), 0);
    let status = admin.get_status(v1::GetStatusRequest {}).await.expect("status").into_inner();
    assert_eq!((status.state.as_str(), status.taskmanagers), ("SUSPENDED", 1));
    assert!(status.state_reason.contains("weir resume"), "{}", status.state_reason);
    admin.resume(v1::ResumeRequest {}).await.expect("resumed");
    until("the splits again", || taskmanager.splits().len() == 2).await;
    assert!(!locked(&jobmanager.kafka.record).clone().expect("written").suspended);
}

#[tokio::test]
async fn a_reset_is_refused_with_what_would_come_of_it_unless_allowed() {
    let jobmanager = Jobmanager::start(2, 2).await;
    let taskmanager = jobmanager.taskmanager("a").await;
    until("all splits", || taskmanager.splits().len() == 4).await;
    taskmanager.work(5);
    let mut admin = jobmanager.admin().await;
    admin.trigger_savepoint(v1::TriggerSavepointRequest::default()).await.expect("stored");
    let to = |to, partitions: &[i32], allow_replay, allow_skip| v1::ResetRequest {
        to: Some(to),
        topic: "t".to_owned(),
        partitions: partitions.to_vec(),
        allow_replay,
        allow_skip,
    };
    use v1::reset_request::To;
    let refused = admin.reset(to(To::Earliest(true), &[1], false, true)).await.expect_err("refused");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("15 of t-1") && refused.message().contains("--allow-replay"), "{refused}");
    let refused = admin.reset(to(To::Latest(true), &[1], true, false)).await.expect_err("refused");
    assert!(refused.message().contains("985 of t-1") && refused.message().contains("--allow-skip"), "{refused}");
    let refused = admin.reset(to(To::Earliest(true), &[7], true, true)).await.expect_err("refused");
    assert!(refused.message().contains("no split"), "{refused}");
    let moved = admin.reset(to(To::Earliest(true), &[1], true, false)).await.expect("moved").into_inner();
    assert_eq!((moved.splits, moved.partitions.len(), moved.partitions[0].replayed_at_most), (2, 1, 15));
    until("all splits again", || taskmanager.splits().len() == 4).await;
    let progress = locked(&jobmanager.kafka.progress);
    let cursors: Vec<i64> = progress.values().map(|state| state.progress.cursor).collect();
    assert_eq!(cursors, [15, 15, 0, 0], "the other partition stays");
}

#[tokio::test]
async fn transactions_are_listed_and_one_of_ours_is_aborted() {
    let jobmanager = Jobmanager::start(1, 2).await;
    let taskmanager = jobmanager.taskmanager("a").await;
    until("both splits", || taskmanager.splits().len() == 2).await;
    let mut admin = jobmanager.admin().await;
    let listed = admin.list_transactions(v1::ListTransactionsRequest {}).await.expect("listed").into_inner();
    let [only] = listed.transactions.as_slice() else { panic!("{listed:?}") };
    assert_eq!((only.transactional_id.as_str(), only.state.as_str(), only.splits), ("job-0", "LEASED", 2));
    assert_eq!((only.taskmanager_id.as_str(), only.last_commit_age_ms), ("a", None));
    assert_eq!((listed.sink_ends[0].last_stable_offset, listed.sink_ends[0].high_watermark), (7, 9));
    let abort = |transaction: &str| v1::AbortTransactionRequest { transaction: transaction.to_owned() };
    for foreign in ["other-0", "job-5", "job"] {
        let refused = admin.abort_transaction(abort(foreign)).await.expect_err("not ours");
        assert_eq!(refused.code(), Code::FailedPrecondition, "{foreign}: {refused}");
    }
    assert_eq!(locked(&jobmanager.kafka.fenced).len(), 0, "nothing was touched");
    let aborted = admin.abort_transaction(abort("job-0")).await.expect("aborted").into_inner();
    assert_eq!((aborted.slot, aborted.taskmanager_id.as_str()), (0, "a"));
    assert_eq!(*locked(&jobmanager.kafka.fenced), [weir_common::ids::SlotId(0)]);
}

#[tokio::test]
async fn a_standby_names_the_leader_in_text_and_metadata() {
    let jobmanager = Jobmanager::start(1, 2).await;
    let mut admin = jobmanager.admin().await;
    let status = admin.get_status(v1::GetStatusRequest {}).await.expect("it leads").into_inner();
    assert_eq!(status.leader, LEADER);
    jobmanager.role.send_replace(Role::Standby);
    let referred = admin.suspend(v1::SuspendRequest::default()).await.expect_err("it does not lead");
    assert_eq!(referred.code(), Code::Unavailable);
    assert!(referred.message().contains("leader:6123 leads"), "{referred}");
    let leader = referred.metadata().get(weir_proto::LEADER_ADDRESS_KEY).expect("named");
    assert_eq!(leader, LEADER);
}
