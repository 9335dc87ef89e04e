//! Revisions of one wiki are asked for together, and a bad one harms only itself.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;
use weir_common::counters::OutcomeKind;
use weir_taskmanager::enrich::Enricher as _;

use crate::{
    stub::{Asked, Stub, every_revision},
    support::*,
};

#[tokio::test]
async fn a_batch_is_continued_and_a_bad_revision_harms_only_itself() {
    let stub = Stub::start(&["api/90-batch-continue.json"], None, Duration::ZERO).await;
    let mut config = config(stub.url());
    config.batch_linger = Duration::from_millis(200);
    config.not_found.max_attempts = 1;
    let enricher = enricher(&config);
    let rev_ids = [500_000_001, 500_000_002, 500_000_003, 599_999_999];
    let outcomes = join_all(rev_ids.map(|id| enrich(&enricher, edit_of("en.wikipedia.org", id)))).await;
    for (outcome, body) in outcomes.iter().zip(["A\n", "B\n", "C\n"]) {
        assert_eq!(output(outcome)["revision"]["content_slots"]["main"]["content_body"], body);
    }
    assert_eq!(error_event(&outcomes[3])["error_type"], "BadRevision");
    assert_eq!(stub.unmatched(), []);
    assert_eq!(stub.asked().len(), 2);
}

#[tokio::test]
async fn too_many_values_split_the_batch() {
    let stub = Stub::start(&["api/91-toomanyvalues.json"], Some(every_revision), Duration::ZERO).await;
    let mut config = config(stub.url());
    config.batch_linger = Duration::from_millis(500);
    config.batch_revisions = 500;
    let enricher = enricher(&config);
    let outcomes = join_all((1..=51).map(|id| enrich(&enricher, edit_of("en.wikipedia.org", id)))).await;
    assert!(outcomes.iter().all(|outcome| outcome.kind == OutcomeKind::Enriched));
    assert_eq!(revids(&stub.asked()).len(), 3);
    assert_eq!(enricher.metrics().retries(), 0);
}

#[tokio::test]
async fn batches_respect_count_and_declared_size_and_concurrency() {
    let stub = Stub::start(&[], Some(every_revision), Duration::from_millis(5)).await;
    let mut config = config(stub.url());
    config.batch_revisions = 10;
    config.max_concurrent_requests = 3;
    let enricher = enricher(&config);
    let hosts = ["en.wikipedia.org", "de.wikipedia.org"];
    let events = (1..=200).map(|id| edit_of(hosts[id as usize % 2], id));
    let outcomes = join_all(events.map(|event| enrich(&enricher, event))).await;
    for (outcome, id) in outcomes.iter().zip(1..) {
        let body = &output(outcome)["revision"]["content_slots"]["main"]["content_body"];
        assert_eq!(body, &format!("text of {id}"));
    }
    assert!(stub.in_flight_max() <= 3);
    assert!(revids(&stub.asked()).iter().all(|ids| ids.split('|').count() <= 10));
    enricher.limit_requests(1);
    stub.forget_in_flight();
    let before = stub.asked().len();
    join_all((1..=40).map(|id| enrich(&enricher, edit_of("en.wikipedia.org", id)))).await;
    assert!(stub.asked().len() > before + 3);
    assert_eq!(stub.in_flight_max(), 1, "as the jobmanager divides");
    config.batch_bytes.0 = 6;
    let enricher = self::enricher(&config);
    let before = stub.asked().len();
    join_all((1..=30).map(|id| enrich(&enricher, edit_of("en.wikipedia.org", id)))).await;
    assert!(revids(&stub.asked()[before..]).iter().all(|ids| ids.split('|').count() <= 3), "3 × 2 bytes");
}

#[tokio::test]
async fn two_events_of_one_revision_share_its_answer() {
    let stub = Stub::start(&[], Some(every_revision), Duration::ZERO).await;
    let mut config = config(stub.url());
    config.batch_linger = Duration::from_millis(200);
    let enricher = enricher(&config);
    let outcomes = join_all([5, 5].map(|id| enrich(&enricher, edit_of("en.wikipedia.org", id)))).await;
    assert!(outcomes.iter().all(|outcome| outcome.kind == OutcomeKind::Enriched));
    assert_eq!(revids(&stub.asked()), ["5"]);
}

#[tokio::test]
async fn a_lone_event_waits_for_the_linger_and_a_full_batch_for_nothing() {
    let stub = Stub::start(&[], Some(every_revision), Duration::ZERO).await;
    let mut config = config(stub.url());
    config.batch_linger = Duration::from_secs(600);
    let patient = enricher(&config);
    let full = join_all((1..=50).map(|id| enrich(&patient, edit_of("en.wikipedia.org", id))));
    let outcomes = tokio::time::timeout(Duration::from_secs(60), full).await.expect("a full batch does not linger");
    assert!(outcomes.iter().all(|outcome| outcome.kind == OutcomeKind::Enriched));
    assert_eq!(revids(&stub.asked()).len(), 1);

    config.batch_linger = Duration::from_millis(300);
    let enricher = enricher(&config);
    let started = Instant::now();
    enrich(&enricher, edit_of("en.wikipedia.org", 1)).await;
    let took = started.elapsed();
    assert!((300..1300).contains(&took.as_millis()), "a lone event took {took:?}");
}

#[tokio::test]
async fn cold_wikis_do_not_wait_behind_a_hot_one() {
    let stub = Stub::start(&[], Some(every_revision), Duration::from_millis(50)).await;
    let mut config = config(stub.url());
    config.max_concurrent_requests = 1;
    let enricher = enricher(&config);
    let enricher = &enricher;
    let hot = join_all((1..=1000).map(|id| enrich(enricher, edit_of("hot.wikipedia.org", id))));
    let cold = async {
        while stub.asked().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let events = ["a", "b", "c"].map(|name| edit_of(&format!("{name}.wikipedia.org"), 1));
        join_all(events.map(|event| enrich(enricher, event))).await
    };
    let (hot, cold) = tokio::join!(hot, cold);
    assert!(hot.iter().chain(&cold).all(|outcome| outcome.kind == OutcomeKind::Enriched));
    let asked = stub.asked();
    assert_eq!(asked.len(), 20 + 3, "20 full batches and 3 lone events, one request at a time");
    // One is on its way, one passes while the three linger, and one takes its turn among them.
    let last = asked.iter().rposition(|(host, ..)| host != "hot.wikipedia.org").expect("asked");
    assert!(last < 9, "20 batches of a hot wiki wait, and a cold wiki has the turn after {last} requests");
}

#[tokio::test]
async fn redirects_are_looked_up_together_by_page_ids() {
    let stub = Stub::start(&[], Some(redirects), Duration::ZERO).await;
    let mut config = config(stub.url());
    config.batch_linger = Duration::from_millis(500);
    let enricher = enricher(&config);
    let event = |id: i64| {
        let mut event: serde_json::Value = serde_json::from_str(&edit_of("en.wikipedia.org", id)).expect("JSON");
        event["page"]["is_redirect"] = true.into();
        event.to_string()
    };
    let outcomes = join_all((1..=50).map(|id| enrich(&enricher, event(id)))).await;
    for (outcome, id) in outcomes.iter().zip(1..) {
        let link = &output(outcome)["page"]["redirect_page_link"];
        assert_eq!(link["page_title"], format!("Target_{id}"));
        assert_eq!((&link["page_id"], &link["is_redirect"]), (&json!(1000 + id), &json!(id % 2 == 0)));
    }
    let asked = stub.asked();
    assert_eq!(asked.len(), 3, "one request for the content, one for the links, one for targets that are redirects");
    assert_eq!(asked[2].2["titles"].split('|').count(), 25);
}

/// Pages `Page <id>` that redirect to `Target <id>`, page 1000 + id; those with even ids redirect to `End`.
fn redirects((_, _, params): &Asked) -> (u16, Vec<(&'static str, String)>, String) {
    let ids = |name: &str| {
        let ids = params.get(name).into_iter().flat_map(|ids| ids.split('|'));
        ids.map(|id| id.trim_start_matches("Target ").parse::<i64>().expect("a number")).collect::<Vec<_>>()
    };
    let revision = |id: &i64| {
        let slot = json!({"contentmodel": "wikitext", "contentformat": "text/x-wiki", "content": "x"});
        json!({"pageid": id, "ns": 0, "title": format!("Page {id}"), "revisions": [{"revid": id, "slots": {"main": slot}}]})
    };
    let is_redirect = |id: &i64| id % 2 == 0;
    let hops = |id: &i64| {
        let target = format!("Target {id}");
        let mut hops = vec![json!({"from": format!("Page {id}"), "to": target})];
        hops.extend(Some(json!({"from": target, "to": "End"})).filter(|_| is_redirect(id)));
        hops
    };
    let target = |id: &i64| {
        let mut page = json!({"pageid": 1000 + id, "ns": 0, "title": format!("Target {id}")});
        if is_redirect(id) {
            page["redirect"] = true.into();
        }
        page
    };
    let redirects: Vec<_> = ids("pageids").iter().flat_map(hops).collect();
    let targets = ids("pageids").into_iter().filter(|id| !is_redirect(id)).chain(ids("titles"));
    let pages: Vec<_> = ids("revids").iter().map(revision).chain(targets.map(|id| target(&id))).collect();
    (200, Vec::new(), json!({"batchcomplete": true, "query": {"redirects": redirects, "pages": pages}}).to_string())
}
