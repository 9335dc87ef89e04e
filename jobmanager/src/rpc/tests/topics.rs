//! Source topics that are deleted and made anew.

use weir_common::failure::FailureKind;
use weir_proto::v1::{
    self, job_manager_message::Kind as FromJobmanager, reset_request::To, task_manager_message::Kind as FromTaskmanager,
};

use super::harness::{Jobmanager, Stream, locked, register, until, until_async};
use crate::start::topics::{KnownTopics, TopicIds};

fn id(id: &str) -> TopicIds {
    [("t".into(), id.to_owned())].into()
}

async fn states(jobmanager: &Jobmanager) -> Vec<String> {
    let list = jobmanager.admin().await.list_splits(v1::ListSplitsRequest {}).await.expect("a list").into_inner();
    list.splits.into_iter().map(|split| split.state).collect()
}

#[tokio::test]
async fn a_topic_made_anew_is_not_read_until_an_operator_says_where_to_go_on_and_that_is_kept() {
    let jobmanager = Jobmanager::start_discovering(2, 2, "200 ms").await;
    let taskmanager = jobmanager.taskmanager("a").await;
    until("all splits", || taskmanager.splits().len() == 4).await;
    let looks = *locked(&jobmanager.kafka.looks);
    until("another look", || *locked(&jobmanager.kafka.looks) > looks + 1).await;
    assert_eq!(taskmanager.splits().len(), 4, "it is what it was");

    *locked(&jobmanager.kafka.topics) = id("second");
    until("all splits to be taken back", || taskmanager.splits().is_empty()).await;
    until_async("all splits to have failed", async || states(&jobmanager).await == ["FAILED"; 4]).await;
    let status = jobmanager.admin().await.get_status(v1::GetStatusRequest {}).await.expect("status").into_inner();
    let told = status.degraded.iter().any(|each| each.contains("TOPIC_RECREATED") && each.contains("second now"));
    assert!(told, "{:?}", status.degraded);

    // One partition alone does not make it the topic of the progress.
    let to = |partitions: &[i32]| v1::ResetRequest {
        to: Some(To::Earliest(true)),
        topic: "t".to_owned(),
        partitions: partitions.to_vec(),
        allow_replay: true,
        allow_skip: true,
    };
    jobmanager.admin().await.reset(to(&[0])).await.expect("reset");
    until("its splits to be read again", || taskmanager.splits().len() == 2).await;
    let known = |jobmanager: &Jobmanager| locked(&jobmanager.kafka.record).clone().expect("recorded").topics;
    assert_eq!(known(&jobmanager), KnownTopics::of_field("t=first"));
    jobmanager.admin().await.reset(to(&[1])).await.expect("reset");
    until("all splits again", || taskmanager.splits().len() == 4).await;
    until("the new id to be recorded", || known(&jobmanager) == KnownTopics::of_field("t=second")).await;
}

async fn next_but_acks(stream: &mut Stream) -> FromJobmanager {
    loop {
        match stream.next().await.expect("the stream goes on") {
            FromJobmanager::HeartbeatAck(_) | FromJobmanager::Barrier(_) => {}
            other => return other,
        }
    }
}

#[tokio::test]
async fn what_comes_back_under_the_name_of_a_topic_that_was_gone_is_looked_at_before_it_is_read() {
    let jobmanager = Jobmanager::start_discovering(1, 1, "1 h").await;
    let mut stream = jobmanager.dial().await;
    stream.say(FromTaskmanager::Register(register("a"))).await;
    assert!(matches!(next_but_acks(&mut stream).await, FromJobmanager::Registered(_)));
    let FromJobmanager::Grant(grant) = next_but_acks(&mut stream).await else { panic!("no Grant") };
    stream.say(FromTaskmanager::SlotReady(v1::SlotReady { slot: grant.slot, grant_id: grant.grant_id })).await;
    let FromJobmanager::Assign(assign) = next_but_acks(&mut stream).await else { panic!("no Assign") };

    locked(&jobmanager.kafka.topics).clear();
    let splits = assign.splits.iter().filter_map(|each| each.split.clone()).collect::<Vec<_>>();
    let kind = FailureKind::TopicGone.name().to_owned();
    stream.say(FromTaskmanager::SplitFailed(v1::SplitFailed { splits, kind, message: "gone".to_owned() })).await;
    let FromJobmanager::Revoke(_) = next_but_acks(&mut stream).await else { panic!("no Revoke") };
    *locked(&jobmanager.kafka.topics) = id("second");
    let back = assign.splits.iter().map(|each| v1::SplitReport {
        split: each.split.clone(),
        progress: each.progress.clone(),
        counters: each.counters,
        progress_partition: each.progress_partition,
    });
    let released = FromTaskmanager::Released(v1::Released { splits: back.collect() });
    stream.say(released.clone()).await;
    let FromJobmanager::Assign(_) = next_but_acks(&mut stream).await else { panic!("no Assign") };
    let FromJobmanager::Revoke(_) = next_but_acks(&mut stream).await else { panic!("not taken back right behind it") };
    stream.say(released).await;
    until_async("the split to have failed", async || states(&jobmanager).await == ["FAILED"]).await;
}
