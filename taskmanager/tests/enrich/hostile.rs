//! Any bytes have exactly one outcome; no input makes a request leave the endpoint.

use std::{sync::Arc, time::Duration};

use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::Value;
use tokio::runtime::Runtime;
use weir_common::counters::OutcomeKind;
use weir_taskmanager::enrich::Enricher;

use crate::{
    stub::{Stub, every_revision},
    support::*,
};

#[tokio::test]
async fn hostile_domains_are_refused_before_any_request() {
    let stub = Stub::start(&[], Some(every_revision), Duration::ZERO).await;
    let enricher = enricher(&config(stub.url()));
    for domain in ["a.b/../x", "a.b:80", "a.b\r\nX-Evil: 1", "user@a.b", "a b", "[::1]", "", "a.b?x", "a.b#x"] {
        let event = error_event(&enrich(&enricher, edit_of(domain, 9)).await);
        assert_eq!(event["error_type"], "InvalidInput", "{domain:?}");
    }
    assert_eq!(stub.asked(), []);
}

#[tokio::test]
async fn tombstones_and_foreign_bytes_become_error_events() {
    let enricher = enricher(&config("http://127.0.0.1:1/".to_owned()));
    let mut tombstone = record("");
    tombstone.value = None;
    assert_eq!(error_event(&enricher.enrich(&tombstone).await)["raw_event"], "");
    assert!(enricher.reservation(&tombstone) > 0 && enricher.page(&tombstone).is_none());
    let event = error_event(&enrich(&enricher, &b"{\"a\":\"\xff\"}"[..]).await);
    assert!(event["message"].as_str().expect("text").contains("U+FFFD"));
}

#[tokio::test]
async fn oversized_inputs_leave_error_events_that_fit() {
    let enricher = enricher(&config("http://127.0.0.1:1/".to_owned()));
    let outcome = enrich(&enricher, "\u{1}".repeat(3_000_000)).await;
    error_event(&outcome);
    let length = outcome.output.expect("an output").value.len() as u64;
    assert!(length < PRODUCER_LIMIT && length > PRODUCER_LIMIT - 2000, "{length}");
}

#[tokio::test]
async fn numbers_and_fields_that_nobody_asked_to_change_stay() {
    let stub = Stub::start(&[], Some(every_revision), Duration::ZERO).await;
    let enricher = enricher(&config(stub.url()));
    let odd = r#""odd":{"n":123456789012345678901234567890,"t":1.50,"e":"é"}"#;
    let event = edit_of("en.wikipedia.org", 9).replacen(r#""meta":{"#, &format!(r#""meta":{{{odd},"#), 1);
    let outcome = enrich(&enricher, event).await;
    let text = String::from_utf8(outcome.output.expect("an output").value.to_vec()).expect("UTF-8");
    assert!(text.contains(odd), "{text}");
}

#[test]
fn any_bytes_have_exactly_one_outcome() {
    let runtime = Runtime::new().expect("a runtime");
    let stub = runtime.block_on(Stub::start(&[], Some(every_revision), Duration::ZERO));
    let enricher = Arc::new(enricher(&config(stub.url())));
    let judges = (validator(&schemas().sink), validator(&schemas().error));
    let lines = lines("events/input.jsonl");
    let broken = (0..lines.len(), any::<prop::sample::Index>(), any::<u8>(), 0..4usize).prop_map(
        move |(line, at, byte, how)| {
            let mut bytes = lines[line].clone().into_bytes();
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.truncate(at),
                2 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
            bytes
        },
    );
    let strategy = prop_oneof![prop::collection::vec(any::<u8>(), 0..200), broken];
    let mut runner = TestRunner::new(ProptestConfig { cases: 400, ..ProptestConfig::default() });
    let result = runner.run(&strategy, |bytes| {
        let record = record(bytes);
        enricher.reservation(&record);
        enricher.page(&record);
        let outcome = runtime.block_on(enricher.enrich(&record));
        let (valid, has_output) = match &outcome.output {
            None => (true, false),
            Some(output) => {
                let event: Value = serde_json::from_slice(&output.value).expect("JSON");
                let judge = if outcome.kind == OutcomeKind::Error { &judges.1 } else { &judges.0 };
                (judge.is_valid(&event), true)
            }
        };
        prop_assert!(valid);
        prop_assert_eq!(has_output, outcome.kind != OutcomeKind::Dropped);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
