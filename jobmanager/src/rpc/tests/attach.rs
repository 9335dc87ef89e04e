//! Taskmanagers' streams.

use std::sync::atomic::Ordering;

use weir_common::ids::{GrantId, SlotId};
use weir_proto::v1::{
    self, job_manager_message::Kind as FromJobmanager, task_manager_message::Kind as FromTaskmanager,
};

use super::harness::{JOB, Jobmanager, LEADER, locked, register, until};
use crate::{coordinator::event::Grants, role::Role};

#[tokio::test]
async fn registering_yields_the_job_and_then_a_slot_that_was_recorded_before() {
    let jobmanager = Jobmanager::start(1, 2).await;
    let mut stream = jobmanager.dial().await;
    stream.say(FromTaskmanager::Register(register("a"))).await;
    let Some(FromJobmanager::Registered(registered)) = stream.next().await else { panic!("no Registered") };
    let job = registered.job.expect("the job");
    assert_eq!((job.job_name.as_str(), job.progress_topic.as_str()), (JOB, "job.progress"));
    let Some(FromJobmanager::Grant(grant)) = stream.next().await else { panic!("no Grant") };
    assert_eq!((grant.slot, grant.transactional_id.as_str()), (0, "job-0"));
    assert_eq!(grant.grant_id >> 32, 7, "grants carry the leader epoch");
    let record = locked(&jobmanager.kafka.record).clone().expect("recorded before it was granted");
    assert_eq!(record.slots, [(SlotId(0), Some(GrantId(grant.grant_id)))].into());
    stream.say(FromTaskmanager::SlotReady(v1::SlotReady { slot: 0, grant_id: grant.grant_id })).await;
    let Some(FromJobmanager::Assign(assign)) = stream.next().await else { panic!("no Assign") };
    assert_eq!(assign.splits.len(), 2);
    stream.say(FromTaskmanager::Heartbeat(v1::Heartbeat::default())).await;
    let Some(FromJobmanager::HeartbeatAck(ack)) = stream.next().await else { panic!("no HeartbeatAck") };
    assert_eq!((ack.grant_id, ack.grant_ttl_ms), (grant.grant_id, 300_000));
    assert_eq!(ack.requests_max, 256, "all that the job may have in flight");
}

#[tokio::test]
async fn requests_of_the_job_are_divided_among_those_that_have_a_slot() {
    let jobmanager = Jobmanager::start(1, 2).await;
    let (mut first, mut second) = (jobmanager.dial().await, jobmanager.dial().await);
    for (stream, name) in [(&mut first, "a"), (&mut second, "b")] {
        stream.say(FromTaskmanager::Register(register(name))).await;
        stream.next().await;
        let Some(FromJobmanager::Grant(_)) = stream.next().await else { panic!("no Grant") };
    }
    for stream in [&mut first, &mut second] {
        stream.say(FromTaskmanager::Heartbeat(v1::Heartbeat::default())).await;
        let Some(FromJobmanager::HeartbeatAck(ack)) = stream.next().await else { panic!("no HeartbeatAck") };
        assert_eq!(ack.requests_max, 128);
    }
}

#[tokio::test]
async fn a_slot_that_was_fenced_leaves_the_record_before_its_splits_are_handed_on() {
    let jobmanager = Jobmanager::start(1, 2).await;
    let mut loser = jobmanager.dial().await;
    loser.say(FromTaskmanager::Register(register("loser"))).await;
    loser.next().await;
    let Some(FromJobmanager::Grant(grant)) = loser.next().await else { panic!("no Grant") };
    loser.say(FromTaskmanager::SlotReady(v1::SlotReady { slot: 0, grant_id: grant.grant_id })).await;
    let Some(FromJobmanager::Assign(_)) = loser.next().await else { panic!("no Assign") };
    let lost = v1::SlotLost { slot: 0, grant_id: grant.grant_id, reason: "fenced".to_owned() };
    loser.say(FromTaskmanager::SlotLost(lost)).await;
    let Some(FromJobmanager::Grant(_)) = loser.next().await else { panic!("no Grant again") };
    let history = locked(&jobmanager.kafka.history).clone();
    let fence = history.iter().position(Option::is_none).expect("fenced");
    assert_eq!(history[fence + 1], Some(Grants::new()), "{history:?}");
}

#[tokio::test]
async fn who_does_not_belong_here_is_refused_with_a_reason() {
    let jobmanager = Jobmanager::start(1, 2).await;
    let newer = v1::Register { protocol_version: 99, protocol_version_min: 98, ..register("a") };
    let other_job = v1::Register { job_name: "other".to_owned(), ..register("a") };
    for (register, reason, part, retries) in
        [(newer, "PROTOCOL", "98 to 99", true), (other_job, "JOB", "`other`", false)]
    {
        let mut stream = jobmanager.dial().await;
        stream.say(FromTaskmanager::Register(register)).await;
        let Some(FromJobmanager::Refused(refused)) = stream.next().await else { panic!("not refused: {reason}") };
        assert_eq!((refused.reason.as_str(), refused.retry_after_ms > 0), (reason, retries));
        assert!(refused.message.contains(part), "{}", refused.message);
        assert_eq!(stream.next().await, None, "the stream ends");
    }
}

#[tokio::test]
async fn nonsense_ends_its_own_stream_alone() {
    let jobmanager = Jobmanager::start(1, 2).await;
    let good = jobmanager.taskmanager("good").await;
    until("both splits", || good.splits().len() == 2).await;
    let mut silent = jobmanager.dial().await;
    silent.say(FromTaskmanager::Draining(v1::Draining {})).await;
    assert_eq!(silent.next().await, None, "not a Register first");
    let mut liar = jobmanager.dial().await;
    liar.say(FromTaskmanager::Register(register("liar"))).await;
    let report =
        v1::SplitReport { progress: Some(v1::Progress { cursor: -5, ..Default::default() }), ..Default::default() };
    liar.say(FromTaskmanager::Report(v1::Report { splits: vec![report], ..Default::default() })).await;
    while liar.next().await.is_some() {}
    assert!(!good.task.is_finished() && !jobmanager.end.is_finished());
}

#[tokio::test]
async fn a_message_of_a_newer_kind_is_ignored() {
    let jobmanager = Jobmanager::start(1, 2).await;
    let mut stream = jobmanager.dial().await;
    stream.say(FromTaskmanager::Register(register("a"))).await;
    stream.outgoing.send(v1::TaskManagerMessage { kind: None }).await.expect("it listens");
    stream.say(FromTaskmanager::Heartbeat(v1::Heartbeat::default())).await;
    loop {
        match stream.next().await {
            Some(FromJobmanager::HeartbeatAck(_)) => break,
            Some(_) => {}
            None => panic!("the stream ended"),
        }
    }
}

#[tokio::test]
async fn two_taskmanagers_share_one_partition() {
    let jobmanager = Jobmanager::start(1, 12).await;
    let first = jobmanager.taskmanager("a").await;
    until("all splits at the first", || first.splits().len() == 12).await;
    let second = jobmanager.taskmanager("b").await;
    until("half of them at each", || first.splits().len() == 6 && second.splits().len() == 6).await;
    assert!(first.splits().iter().all(|split| !second.splits().contains(split)));
}

#[tokio::test]
async fn two_partitions_are_balanced_in_halves() {
    let jobmanager = Jobmanager::start(2, 2).await;
    let (first, second) = (jobmanager.taskmanager("a").await, jobmanager.taskmanager("b").await);
    until("two halves at each", || first.splits().len() == 2 && second.splits().len() == 2).await;
}

#[tokio::test]
async fn a_draining_taskmanager_gives_its_splits_and_leaves() {
    let jobmanager = Jobmanager::start(1, 4).await;
    let stays = jobmanager.taskmanager("stays").await;
    let mut leaves = jobmanager.dial().await;
    leaves.say(FromTaskmanager::Register(register("leaves"))).await;
    leaves.say(FromTaskmanager::Draining(v1::Draining {})).await;
    loop {
        match leaves.next().await {
            Some(FromJobmanager::Drain(drain)) => break assert!(drain.leave),
            Some(_) => {}
            None => panic!("the stream ended before Drain"),
        }
    }
    until("everything at the other", || stays.splits().len() == 4).await;
}

#[tokio::test]
async fn a_standby_refers_to_the_leader_and_claims_no_epoch() {
    let jobmanager = Jobmanager::start(1, 2).await;
    jobmanager.role.send_replace(Role::Standby);
    let mut stream = jobmanager.dial().await;
    stream.say(FromTaskmanager::Register(register("a"))).await;
    let message = stream.message().await.expect("an answer");
    let Some(FromJobmanager::Refused(refused)) = message.kind else { panic!("not refused") };
    assert_eq!(
        (message.leader_epoch, refused.reason.as_str(), refused.leader_address.as_str()),
        (0, "STANDBY", LEADER)
    );
    assert!(refused.retry_after_ms > 0, "0 would end the taskmanager");
    assert_eq!(stream.message().await, None, "the stream ends");
}

#[tokio::test]
async fn a_jobmanager_that_may_not_lead_any_more_says_nothing() {
    let jobmanager = Jobmanager::start(1, 2).await;
    let mut stream = jobmanager.dial().await;
    stream.say(FromTaskmanager::Register(register("a"))).await;
    assert!(matches!(stream.next().await, Some(FromJobmanager::Registered(_))));
    let Some(FromJobmanager::Grant(_)) = stream.next().await else { panic!("no Grant") };
    jobmanager.term.in_doubt.store(true, Ordering::Relaxed);
    stream.say(FromTaskmanager::Heartbeat(v1::Heartbeat::default())).await;
    assert_eq!(stream.next().await, None, "no acknowledgement, and the stream ends");
}
