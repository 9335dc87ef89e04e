//! Every line of the fixtures takes its route.

use std::time::Duration;

use serde_json::Value;
use weir_common::{config::UnknownFields, counters::OutcomeKind};
use weir_taskmanager::record::{Destination, Outcome};

use crate::{
    stub::{Stub, every_revision, repeat},
    support::*,
};

async fn stub_of_all_cases() -> Stub {
    let cases = cases();
    let files: Vec<&str> = cases.iter().filter_map(|case| case["api_file"].as_str()).collect();
    Stub::start(&files, None, Duration::ZERO).await
}

#[tokio::test]
async fn every_line_takes_the_route_of_its_case() {
    let stub = stub_of_all_cases().await;
    let enricher = enricher(&config(stub.url()));
    let validators = (validator(&schemas().sink), validator(&schemas().error));
    for (case, line) in cases().iter().zip(lines("events/input.jsonl")) {
        let outcome = enrich(&enricher, line.clone()).await;
        let name = case["name"].as_str().expect("a name");
        match case["expect"].as_str().expect("a route") {
            "enriched" => check_enriched(case, &line, &outcome, true),
            "enriched_without_body" => check_enriched(case, &line, &outcome, false),
            "passthrough" => assert_eq!(outcome.kind, OutcomeKind::PassedThrough, "{name}"),
            "drop" => assert!(outcome.kind == OutcomeKind::Dropped && outcome.output.is_none(), "{name}"),
            "error" => assert_eq!(error_event(&outcome)["raw_event"], line, "{name}"),
            other => panic!("{other} is no route"),
        }
        let Some(record) = &outcome.output else { continue };
        let judge = if record.destination == Destination::Sink { &validators.0 } else { &validators.1 };
        judge.validate(&output(&outcome)).unwrap_or_else(|error| panic!("{name}: {error}"));
        if record.destination == Destination::Sink {
            let key = format!(r#"{{"wiki_id":{},"page_id":{}}}"#, case["key"]["wiki_id"], case["key"]["page_id"]);
            assert_eq!(record.key.as_deref(), Some(key.as_bytes()), "{name}");
            assert_eq!(record.timestamp_ms, 1_773_713_465_000, "{name}");
        }
    }
    assert_eq!(stub.unmatched(), []);
    assert_eq!(enricher.metrics().retries(), 2 + 3 + 3 + 2, "lines 14, 15, 17 and 18");
    assert_eq!(enricher.metrics().requests() as usize, stub.asked().len());
}

/// What the API gave is there, and nothing else has changed.
fn check_enriched(case: &Value, line: &str, outcome: &Outcome, with_body: bool) {
    let name = case["name"].as_str().expect("a name");
    assert_eq!(outcome.kind, OutcomeKind::Enriched, "{name}: {:?}", outcome.output);
    let (input, mut output) = (serde_json::from_str::<Value>(line).expect("JSON"), output(outcome));
    let api: Value = serde_json::from_str(&fixture(case["api_file"].as_str().expect("a file"))).expect("JSON");
    let answers = api["calls"][0]["responses"].as_array().expect("responses");
    let answer = repeat(answers.last().expect("an answer")["body"].clone());
    let slots = answer["query"]["pages"][0]["revisions"][0]["slots"].as_object().expect("slots").clone();
    for (role, slot) in slots.iter().filter(|_| with_body) {
        let enriched = output["revision"]["content_slots"][role].take();
        assert_eq!(enriched["content_body"], slot["content"], "{name} {role}");
        assert_eq!(enriched["content_format"], slot["contentformat"], "{name} {role}");
        assert_eq!(enriched["content_model"], slot["contentmodel"], "{name} {role}");
        let mut rest = enriched.clone();
        let listed = &input["revision"]["content_slots"][role];
        rest.as_object_mut().expect("a slot").retain(|field, _| listed.get(field).is_some());
        assert_eq!(rest, input["revision"]["content_slots"][role], "{name} {role}");
        output["revision"]["content_slots"][role] = rest;
    }
    assert!(with_body || !output.to_string().contains("content_body"), "{name}");
    assert_ne!(output["meta"]["id"], input["meta"]["id"], "{name}");
    assert_ne!(output["meta"]["dt"], input["meta"]["dt"], "{name}");
    assert_eq!(output["meta"]["stream"], SINK_STREAM, "{name}");
    for field in ["id", "dt", "stream"] {
        output["meta"][field] = input["meta"][field].clone();
    }
    output["page"].as_object_mut().expect("a page").remove("redirect_page_link");
    assert_eq!(output, input, "{name}");
}

#[tokio::test]
async fn redirect_links_are_first_hops() {
    let stub = stub_of_all_cases().await;
    let enricher = enricher(&config(stub.url()));
    for (line, wanted) in [
        (5, r#"{"is_redirect":false,"namespace_id":0,"page_id":15924,"page_title":"Julius_Caesar"}"#),
        (6, r#"{"namespace_id":0,"page_title":"Gelöschte_Seite"}"#),
        (7, r#"{"interwiki_prefix":"mw","namespace_id":0,"page_title":"mw:User:Example"}"#),
    ] {
        let outcome = enrich(&enricher, lines("events/input.jsonl")[line - 1].clone()).await;
        assert_eq!(output(&outcome)["page"]["redirect_page_link"].to_string(), wanted);
    }
}

#[tokio::test]
async fn outputs_are_those_of_the_samples() {
    let stub = stub_of_all_cases().await;
    let enricher = enricher(&config(stub.url()));
    let inputs = lines("events/input.jsonl");
    let compare = async |input: &str, sample: &str, varying: &[&str]| {
        let mut sample: Value = serde_json::from_str(sample).expect("JSON");
        let mut output = output(&enrich(&enricher, input.to_owned()).await);
        for pointer in varying {
            for event in [&mut sample, &mut output] {
                *event.pointer_mut(pointer).expect("there") = Value::Null;
            }
        }
        assert_eq!(output, sample);
    };
    for (line, sample) in [1, 3, 5, 9].into_iter().zip(lines("events/expected_enriched_sample.jsonl")) {
        compare(&inputs[line - 1], &sample, &["/meta/id", "/meta/dt"]).await;
    }
    let varying = ["/meta/id", "/meta/dt", "/dt", "/message"];
    for (input, sample) in [&inputs[14], "not json at all"].into_iter().zip(lines("events/expected_error_sample.jsonl"))
    {
        compare(input, &sample, &varying).await;
    }
}

#[tokio::test]
async fn broken_messages_become_error_events_at_once() {
    let stub = stub_of_all_cases().await;
    let enricher = enricher(&config(stub.url()));
    let judge = validator(&schemas().error);
    for line in lines("events/input_invalid.txt") {
        let event = error_event(&enrich(&enricher, line.clone()).await);
        judge.validate(&event).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(event["raw_event"], line);
        assert_eq!(event["emitter_id"], JOB);
    }
    assert_eq!(stub.asked(), []);
}

#[tokio::test]
async fn fields_of_newer_schemas_are_pruned_refused_or_kept() {
    let stub = Stub::start(&[], Some(every_revision), Duration::ZERO).await;
    let judge = validator(&schemas().sink);
    for mode in [UnknownFields::Prune, UnknownFields::Error, UnknownFields::Keep] {
        let mut config = config(stub.url());
        config.unknown_fields = mode;
        let enricher = enricher(&config);
        for line in lines("events/input_newer_schema.jsonl") {
            let outcome = enrich(&enricher, line.clone()).await;
            match mode {
                UnknownFields::Prune => judge.validate(&output(&outcome)).unwrap_or_else(|error| panic!("{error}")),
                UnknownFields::Error => assert_eq!(error_event(&outcome)["error_type"], "UnknownFields"),
                UnknownFields::Keep => {
                    let input: Value = serde_json::from_str(&line).expect("JSON");
                    for kept in ["/page/wikibase_item_id", "/revision/editor/user_central_id", "/revision/revert"] {
                        assert_eq!(output(&outcome).pointer(kept), input.pointer(kept));
                    }
                }
            }
            if mode != UnknownFields::Error {
                assert_eq!(outcome.kind, OutcomeKind::Enriched);
            }
        }
        let names = enricher.metrics().pruned_field_names();
        let counted = if mode == UnknownFields::Prune { 7 + 2 + 2 } else { 0 };
        assert_eq!(enricher.metrics().pruned_fields(), counted, "{names:?}");
        assert_eq!(names.contains(&"page.redirect_page_link.namespace_id".to_owned()), mode == UnknownFields::Prune);
    }
}
