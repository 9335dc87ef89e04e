//! Savepoints that travel.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tonic::Code;
use weir_common::{config::Savepoint, split::TopicPartition};
use weir_proto::v1::{self, import_savepoint_request::From};

use super::harness::{Jobmanager, locked, until};

fn offset(partition: i32, offset: i64) -> v1::PartitionOffset {
    v1::PartitionOffset { topic: "t".to_owned(), partition, offset }
}

fn trigger(label: &str, offset_cut: bool) -> v1::TriggerSavepointRequest {
    v1::TriggerSavepointRequest { label: label.to_owned(), offset_cut }
}

fn export(savepoint: &str, group: &str) -> v1::ExportSavepointRequest {
    v1::ExportSavepointRequest { savepoint: savepoint.to_owned(), group: group.to_owned() }
}

#[tokio::test]
async fn an_offset_cut_is_exported_as_plain_offsets_and_others_are_refused() {
    let jobmanager = Jobmanager::start(2, 2).await;
    let taskmanager = jobmanager.taskmanager("a").await;
    until("all splits", || taskmanager.splits().len() == 4).await;
    taskmanager.work_on(7, |split| split.partition == 0 && split.index == 1);
    let mut admin = jobmanager.admin().await;
    let plain = admin.trigger_savepoint(trigger("plain", false)).await.expect("stored").into_inner();
    assert_eq!((plain.savepoint.expect("its info").savepoint_kind.as_str(), plain.offsets.len()), ("OPERATOR", 0));
    let refused = admin.export_savepoint(export("plain", "")).await.expect_err("no cut");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("t-0 from 10 to 17") && refused.message().contains("--offset-cut"), "{refused}");

    let cut = admin.trigger_savepoint(trigger("cut", true)).await.expect("stored").into_inner();
    assert_eq!(cut.offsets, [offset(0, 17), offset(1, 10)]);
    let info = cut.savepoint.expect("its info");
    assert_eq!((info.kind.as_str(), info.savepoint_kind.as_str()), ("SAVEPOINT", "OFFSET_CUT"));
    until("the splits again", || taskmanager.splits().len() == 4).await;
    taskmanager.work(5);
    let exported = admin.export_savepoint(export("cut", "")).await.expect("a cut").into_inner();
    assert_eq!((exported.offsets, exported.job_name.as_str()), (cut.offsets.clone(), "job"));
    assert!(locked(&jobmanager.kafka.groups).is_empty(), "nobody asked for a group");

    admin.export_savepoint(export("cut", "flink")).await.expect("committed");
    let committed = locked(&jobmanager.kafka.groups).get("flink").cloned().expect("committed");
    let partition = |partition| TopicPartition { topic: "t".into(), partition };
    assert_eq!(committed, [(partition(0), 17), (partition(1), 10)].into());
    let own = admin.export_savepoint(export("cut", "group")).await.expect_err("the mirror's group");
    assert!(own.code() == Code::FailedPrecondition && own.message().contains("mirrors its lag"), "{own}");
    let listed = admin.list_savepoints(v1::ListSavepointsRequest {}).await.expect("listed").into_inner().savepoints;
    let kinds: Vec<&str> = listed.iter().map(|each| each.savepoint_kind.as_str()).collect();
    assert_eq!(kinds, ["OFFSET_CUT", "OPERATOR"]);
}

#[tokio::test]
async fn stopping_with_an_offset_cut_leaves_the_cut_in_kafka_and_says_it() {
    let mut jobmanager = Jobmanager::start(1, 2).await;
    let taskmanager = jobmanager.taskmanager("a").await;
    until("both splits", || taskmanager.splits().len() == 2).await;
    taskmanager.work_on(7, |split| split.index == 1);
    let mut admin = jobmanager.admin().await;
    let request = v1::StopWithSavepointRequest { label: String::new(), offset_cut: true };
    let stopped = admin.stop_with_savepoint(request).await.expect("stopped").into_inner();
    assert_eq!(stopped.offsets, [offset(0, 17)]);
    (&mut jobmanager.end).await.expect("no panic").expect("the job ended");
    assert!(locked(&jobmanager.kafka.progress).values().all(|state| state.progress.cursor == 17));
    let mirrored = locked(&jobmanager.kafka.mirrored).clone();
    assert_eq!(mirrored.into_values().collect::<Vec<_>>(), [17], "whoever goes on from the group finds the cut");
}

#[tokio::test]
async fn a_job_suspended_with_an_offset_cut_says_where_it_rests() {
    let jobmanager = Jobmanager::start(1, 2).await;
    let taskmanager = jobmanager.taskmanager("a").await;
    until("both splits", || taskmanager.splits().len() == 2).await;
    taskmanager.work_on(7, |split| split.index == 1);
    let mut admin = jobmanager.admin().await;
    let rests = admin.suspend(v1::SuspendRequest { offset_cut: true }).await.expect("suspended").into_inner();
    assert_eq!(rests.offsets, [offset(0, 17)]);
    assert!(rests.location.contains("/savepoints/offset-cut/"), "{rests:?}");
    assert!(locked(&jobmanager.kafka.record).clone().expect("written").suspended);
    // Somebody else goes on from there, and comes back further on.
    admin.import_savepoint(import("back", from(&[offset(0, 500)]))).await.expect("imported");
    let restore = v1::RestoreRequest { savepoint: "back".to_owned(), allow_replay: false };
    let restored = admin.restore(restore).await.expect("moved").into_inner();
    assert_eq!((restored.replayed_records, restored.partitions[0].skipped_at_most), (0, 483));
    assert_eq!(taskmanager.splits().len(), 0, "it still rests");
    admin.resume(v1::ResumeRequest {}).await.expect("resumed");
    until("the splits again", || taskmanager.splits().len() == 2).await;
    assert!(locked(&jobmanager.kafka.progress).values().all(|state| state.progress.cursor == 500));
}

fn import(label: &str, from: From) -> v1::ImportSavepointRequest {
    v1::ImportSavepointRequest { label: label.to_owned(), from: Some(from) }
}

fn from(offsets: &[v1::PartitionOffset]) -> From {
    From::Offsets(v1::ResetOffsets { offsets: offsets.to_vec() })
}

#[tokio::test]
async fn plain_offsets_become_a_savepoint_that_a_restore_goes_to_with_its_guard() {
    let jobmanager = Jobmanager::start(2, 2).await;
    let taskmanager = jobmanager.taskmanager("a").await;
    until("all splits", || taskmanager.splits().len() == 4).await;
    taskmanager.work(20);
    let mut admin = jobmanager.admin().await;
    admin.trigger_savepoint(trigger("here", false)).await.expect("stored");
    let request = import("back", from(&[offset(0, 25), offset(1, 40)]));
    let imported = admin.import_savepoint(request).await.expect("imported").into_inner();
    let info = imported.savepoint.expect("its info");
    assert_eq!((info.kind.as_str(), info.savepoint_kind.as_str()), ("SAVEPOINT", "IMPORTED"));
    let rows: Vec<_> = imported.partitions.iter().map(|each| (each.partition, each.offset, each.cursor)).collect();
    assert_eq!(rows, [(0, 25, 30), (1, 40, 30)]);
    let exported = admin.export_savepoint(export("back", "")).await.expect("plain").into_inner();
    assert_eq!(exported.offsets, [offset(0, 25), offset(1, 40)]);

    let restore = |allow_replay| v1::RestoreRequest { savepoint: "back".to_owned(), allow_replay };
    let refused = admin.restore(restore(false)).await.expect_err("output beyond it exists");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("5 of t-0") && refused.message().contains("--allow-replay"), "{refused}");
    let restored = admin.restore(restore(true)).await.expect("moved").into_inner();
    assert_eq!((restored.replayed_records, restored.partitions.len()), (5, 2));
    until("all splits again", || taskmanager.splits().len() == 4).await;
    let progress = locked(&jobmanager.kafka.progress);
    let states: Vec<_> = progress.values().map(|state| (state.progress.cursor, state.counters.consumed)).collect();
    assert_eq!(states, [(25, 20), (25, 20), (40, 20), (40, 20)], "counters go on counting");
}

#[tokio::test]
async fn offsets_that_are_not_the_job_s_are_refused_by_name_and_a_group_is_as_good_as_a_file() {
    let jobmanager = Jobmanager::start(2, 2).await;
    let mut admin = jobmanager.admin().await;
    for (offsets, reason) in [
        (vec![offset(0, 25)], "no offset is given for t-1"),
        (vec![offset(0, 25), offset(1, 1), offset(7, 1)], "does not read t-7"),
        (vec![offset(0, 25), offset(1, 4000)], "offset 4000 of t-1 is not in the log"),
        (vec![offset(0, 25), offset(0, 26)], "t-0 is named twice"),
        (vec![], "no offset is given for t-0, t-1"),
    ] {
        let refused = admin.import_savepoint(import("", from(&offsets))).await.expect_err(reason);
        assert!(refused.message().contains(reason), "{refused}");
    }
    let partition = |partition| TopicPartition { topic: "t".into(), partition };
    let half = [(partition(0), 25)].into();
    locked(&jobmanager.kafka.groups).insert("flink".to_owned(), half);
    let group = || From::Group("flink".to_owned());
    let refused = admin.import_savepoint(import("", group())).await.expect_err("a partition is missing");
    assert!(refused.message().contains("consumer group flink: no offset is given for t-1"), "{refused}");
    locked(&jobmanager.kafka.groups).insert("flink".to_owned(), [(partition(0), 25), (partition(1), 12)].into());
    let imported = admin.import_savepoint(import("", group())).await.expect("imported").into_inner();
    assert_eq!(imported.partitions.iter().map(|each| each.offset).collect::<Vec<_>>(), [25, 12]);
}

#[tokio::test]
async fn periodic_savepoints_come_by_themselves_and_go_by_age_and_an_operator_s_stays() {
    let (interval, retention) = (Some(Duration::from_millis(100)), Duration::from_millis(300));
    let savepoint = Savepoint { interval, retention, ..Savepoint::default() };
    let jobmanager = Jobmanager::start_with(1, 2, |config| config.savepoint = savepoint).await;
    let mut admin = jobmanager.admin().await;
    admin.trigger_savepoint(trigger("mine", false)).await.expect("stored");
    let mut seen = BTreeSet::new();
    let mut listed = Vec::new();
    let started = Instant::now();
    // So many, and on a busy machine so late, that the first one must have gone.
    while seen.len() < 8 || listed.iter().any(|each: &v1::CheckpointInfo| Some(&each.checkpoint_id) == seen.first()) {
        assert!(started.elapsed() < Duration::from_secs(20), "only {seen:?} came, or none has gone of {listed:?}");
        listed = admin.list_savepoints(v1::ListSavepointsRequest {}).await.expect("listed").into_inner().savepoints;
        seen.extend(listed.iter().filter(|each| each.savepoint_kind == "PERIODIC").map(|each| each.checkpoint_id));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(listed.iter().any(|each| each.savepoint_kind == "OPERATOR"), "{listed:?}");
    let status = admin.get_status(v1::GetStatusRequest {}).await.expect("status").into_inner();
    assert_eq!((status.state.as_str(), status.number_of_failed_checkpoints), ("RUNNING", 0));
}
