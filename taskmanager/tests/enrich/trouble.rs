//! Faults of the API: what is retried is retried within its bounds, what is not ends at once.

use std::time::Duration;

use crate::{
    stub::{Asked, Rule, Stub},
    support::*,
};

async fn error_type_and_requests(
    stub: Stub,
    event: String,
    change: fn(&mut weir_common::config::Enrich),
) -> (String, usize) {
    let mut config = config(stub.url());
    change(&mut config);
    let event = error_event(&enrich(&enricher(&config), event).await);
    validator(&schemas().error).validate(&event).unwrap_or_else(|error| panic!("{error}"));
    (event["error_type"].as_str().expect("text").to_owned(), stub.asked().len())
}

#[tokio::test]
async fn faults_end_at_once_or_after_the_attempts() {
    for (file, host, rev_id, error_type, requests) in [
        ("api/92-unknown-host.json", "nosuch.wikipedia.org", 1, "UnexpectedStatus", 1),
        ("api/93-readapidenied.json", "private.wikimedia.org", 1, "ReadApiDenied", 1),
        ("api/94-ratelimited.json", "en.wikipedia.org", 1, "RateLimited", 5),
        ("api/96-slot-missing.json", "en.wikipedia.org", 1_041_877_210, "SlotMissing", 1),
        ("api/97-slotsmissing.json", "en.wikipedia.org", 1_041_877_210, "SlotsMissing", 1),
        ("api/98-badcontentformat.json", "en.wikipedia.org", 1_041_877_210, "BadContentFormat", 1),
    ] {
        let stub = Stub::start(&[file], None, Duration::ZERO).await;
        let seen = error_type_and_requests(stub, edit_of(host, rev_id), |_| ()).await;
        assert_eq!(seen, (error_type.to_owned(), requests), "{file}");
    }
}

#[tokio::test]
async fn answers_that_are_none() {
    let html: Rule = |_| (200, Vec::new(), "<html>".to_owned());
    let moved: Rule = |_| (302, vec![("location", "/w/api.php?elsewhere".to_owned())], String::new());
    let silent: Rule = |_| (200, Vec::new(), r#"{"batchcomplete":true,"query":{}}"#.to_owned());
    for (rule, error_type, requests) in
        [(html, "UnreadableAnswer", 5), (moved, "UnexpectedStatus", 1), (silent, "UnreadableAnswer", 5)]
    {
        let stub = Stub::start(&[], Some(rule), Duration::ZERO).await;
        let seen = error_type_and_requests(stub, edit_of("en.wikipedia.org", 9), |_| ()).await;
        assert_eq!(seen, (error_type.to_owned(), requests));
    }
}

#[tokio::test]
async fn a_revision_that_no_answer_can_hold_is_given_up() {
    fn stuck((_, _, _): &Asked) -> (u16, Vec<(&'static str, String)>, String) {
        let body =
            r#"{"continue":{"rvcontinue":"9","continue":"||"},"query":{"pages":[{"pageid":1,"ns":0,"title":"A"}]}}"#;
        (200, Vec::new(), body.to_owned())
    }
    let stub = Stub::start(&[], Some(stuck), Duration::ZERO).await;
    let seen = error_type_and_requests(stub, edit_of("en.wikipedia.org", 9), |_| ()).await;
    assert_eq!(seen, ("ContentTooLarge".to_owned(), 1));
    let flood: Rule = |_| (200, Vec::new(), " ".repeat(33 * 1024 * 1024));
    let stub = Stub::start(&[], Some(flood), Duration::ZERO).await;
    let seen = error_type_and_requests(stub, edit_of("en.wikipedia.org", 9), |_| ()).await;
    assert_eq!(seen, ("ContentTooLarge".to_owned(), 1));
}

#[tokio::test]
async fn slow_and_absent_endpoints_are_retried() {
    let stub = Stub::start(&[], None, Duration::from_secs(30)).await;
    let hasty = |config: &mut weir_common::config::Enrich| config.request_timeout = Duration::from_millis(50);
    let seen = error_type_and_requests(stub, edit_of("en.wikipedia.org", 9), hasty).await;
    assert_eq!(seen, ("Timeout".to_owned(), 5));
    let absent = enricher(&config("http://127.0.0.1:1/w/api.php".to_owned()));
    let event = error_event(&enrich(&absent, edit_of("en.wikipedia.org", 9)).await);
    assert_eq!(event["error_type"], "ConnectionFailed");
    assert!(event["message"].as_str().expect("text").contains("given up after 5 attempts"));
}

#[tokio::test]
async fn old_events_are_asked_for_only_once_more() {
    let stub = Stub::start(&["api/15-nlwiki-badrevid-permanent.json"], None, Duration::ZERO).await;
    let old = |config: &mut weir_common::config::Enrich| config.not_found.max_age = Duration::from_secs(1);
    let seen = error_type_and_requests(stub, lines("events/input.jsonl")[14].clone(), old).await;
    assert_eq!(seen, ("BadRevision".to_owned(), 2));
}
