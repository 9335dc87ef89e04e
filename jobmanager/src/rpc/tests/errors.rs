//! What operators ask about error events.

use serde_json::json;
use tonic::Code;
use weir_proto::v1;

use super::harness::{JOB, Jobmanager, locked, until};

fn event(error_type: &str, wiki: &str) -> Vec<u8> {
    let raw = json!({"wiki_id": wiki, "page": {"page_id": 5}});
    json!({"error_type": error_type, "message": "m", "raw_event": raw.to_string()}).to_string().into_bytes()
}

#[tokio::test]
async fn errors_are_listed_by_filter_and_shown_as_they_are() {
    let jobmanager = Jobmanager::start(1, 1).await;
    let events = [event("Timeout", "enwiki"), event("TextMissing", "dewiki"), event("Timeout", "dewiki")];
    *locked(&jobmanager.kafka.errors) = (1..).map(|offset| (0, offset)).zip(events.clone()).collect();
    let mut admin = jobmanager.admin().await;
    let mut list = async |filter, limit| {
        let request = v1::ListErrorsRequest { filter: Some(filter), limit };
        let list = admin.list_errors(request).await.expect("listed").into_inner();
        (list.errors.iter().map(|error| error.offset).collect::<Vec<_>>(), list.more)
    };
    let all = v1::ErrorFilter::default();
    assert_eq!(list(all.clone(), 0).await, (vec![3, 2, 1], false));
    assert_eq!(list(all.clone(), 2).await, (vec![3, 2], true));
    let timeouts = v1::ErrorFilter { error_types: vec!["Timeout".to_owned()], ..all.clone() };
    assert_eq!(list(timeouts, 0).await.0, [3, 1]);
    assert_eq!(list(v1::ErrorFilter { from_unix_ms: 2, to_unix_ms: 3, ..all.clone() }, 0).await.0, [2]);
    assert_eq!(list(v1::ErrorFilter { wikis: vec!["dewiki".to_owned()], ..all }, 0).await.0, [3, 2]);

    let found = admin.get_error(v1::GetErrorRequest { partition: 0, offset: 2 }).await.expect("shown").into_inner();
    assert_eq!(found.event, events[1]);
    let info = found.error.expect("described");
    assert_eq!((info.wiki_id.as_str(), info.page_id, info.raw_event.as_str()), ("dewiki", Some(5), "WHOLE"));
    assert_eq!(info.source.map(|source| (source.topic, source.offset)), Some(("t".to_owned(), 3)));
    let gone = admin.get_error(v1::GetErrorRequest { partition: 0, offset: 9 }).await.expect_err("nothing is there");
    assert_eq!(gone.code(), Code::NotFound);
}

#[tokio::test]
async fn a_replay_ends_when_the_job_has_finished_the_replay_topic() {
    let jobmanager = Jobmanager::start(1, 2).await;
    let taskmanager = jobmanager.taskmanager("a").await;
    until("both splits", || taskmanager.splits().len() == 2).await;
    *locked(&jobmanager.kafka.errors) = (1..=4).map(|offset| ((0, offset), event("Timeout", "enwiki"))).collect();
    let mut admin = jobmanager.admin().await;
    let dry = v1::ReplayErrorsRequest { dry_run: true, ..Default::default() };
    let mut steps = admin.replay_errors(dry).await.expect("counts").into_inner();
    let mut last = v1::ReplayErrorsResponse::default();
    while let Some(step) = steps.message().await.expect("goes on") {
        last = step;
    }
    assert_eq!((last.phase.as_str(), last.chosen, last.written), ("DONE", 4, 0));

    let positions = [1, 2, 3].map(|offset| v1::ErrorPosition { partition: 0, offset }).into();
    let request = v1::ReplayErrorsRequest { positions, ..Default::default() };
    let mut steps = admin.replay_errors(request).await.expect("begins").into_inner();
    // The topic is discovered at once, not only when the interval of an hour is over; its splits are handed out.
    let replay = weir_common::kafka::replay_topic(JOB);
    until("the replay topic's splits", || taskmanager.splits().len() == 4).await;
    let mut waited = false;
    while let Some(step) = steps.message().await.expect("goes on") {
        if step.phase == "ENRICHING" && !std::mem::replace(&mut waited, true) {
            assert_eq!(step.remaining, 3);
            taskmanager.work_on(3, |split| *split.topic == *replay);
            let cut = v1::TriggerSavepointRequest::default();
            admin.trigger_savepoint(cut).await.expect("what is finished is reported");
        }
        last = step;
    }
    assert!(waited, "it waits for the job");
    let outcome = last.outcome.expect("told");
    assert_eq!(
        (last.phase.as_str(), last.written, outcome.enriched),
        ("DONE", 3, 6),
        "two key ranges went on by three"
    );
    // Nobody else hears of the job's own topic: no lag tool, no reset that does not name it.
    let reset =
        v1::ResetRequest { to: Some(v1::reset_request::To::Earliest(true)), allow_replay: true, ..Default::default() };
    assert_eq!(admin.reset(reset).await.expect("moved").into_inner().splits, 2);
}
