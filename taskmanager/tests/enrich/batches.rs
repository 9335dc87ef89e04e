//! Revisions of one wiki are asked for together, and a bad one harms only itself.

use std::time::Duration;

use futures::future::join_all;
use weir_common::counters::OutcomeKind;

use crate::{
    stub::{Stub, every_revision},
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
