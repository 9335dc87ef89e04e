//! Any bytes have exactly one outcome; no input makes a request leave the endpoint.

use std::{
    collections::BTreeMap,
    env,
    time::{Duration, Instant},
};

use futures::future::join_all;
use jsonschema::Validator;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;
use weir_common::counters::OutcomeKind;
use weir_taskmanager::{
    enrich::{Enricher, ReconcileEnricher},
    record::Outcome,
};

use crate::{
    mutate::{fields, mutated},
    stub::{Stub, every_revision},
    support::*,
};

#[tokio::test]
async fn hostile_domains_are_refused_before_any_request() {
    let stub = Stub::start(&[], Some(every_revision), Duration::ZERO).await;
    let enricher = enricher(&config(stub.url()));
    let template = format!("http://{{domain}}.localhost:{}/w/api.php", stub.address.port());
    let by_template = self::enricher(&config(template));
    let (label, labels) = ("a".repeat(64), "a.".repeat(130) + "b");
    for domain in [
        "a.b/../x",
        "a.b:80",
        "a.b\r\nX-Evil: 1",
        "a.b\nX",
        "user@a.b",
        "user:pass@a.b",
        "a b",
        "[::1]",
        "",
        ".",
        "a..b",
        "a.b.",
        "a.b?x",
        "a.b#x",
        "a.b;x",
        "a.b\\@c.d",
        "a%2eb",
        "%00",
        "a\0b",
        "a\tb",
        "http://a.b",
        "//a.b",
        "пример.рф",
        "ａ.ｂ",
        "a。b",
        "-a.b",
        "a-.b",
        "a_b.c",
        "*.b",
        "{domain}",
        "\u{feff}a.b",
        &label,
        &labels,
    ] {
        for enricher in [&enricher, &by_template] {
            let event = error_event(&enrich(enricher, edit_of(domain, 9)).await);
            assert_eq!(event["error_type"], "InvalidInput", "{domain:?}");
        }
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

/// One outcome each; what is produced conforms, and an error event has its input.
struct Judge {
    sink: Validator,
    error: Validator,
}

impl Judge {
    fn new() -> Self {
        Self { sink: validator(&schemas().sink), error: validator(&schemas().error) }
    }

    fn check(&self, input: &[u8], outcome: &Outcome) {
        let shown = || input.escape_ascii().to_string();
        let Some(output) = &outcome.output else {
            assert_eq!(outcome.kind, OutcomeKind::Dropped, "{}", shown());
            let event: Value = serde_json::from_slice(input).expect("a canary is JSON");
            assert_eq!(event["meta"]["domain"], "canary");
            return;
        };
        let event: Value = serde_json::from_slice(&output.value).expect("JSON");
        let judge = if outcome.kind == OutcomeKind::Error { &self.error } else { &self.sink };
        judge.validate(&event).unwrap_or_else(|error| panic!("{error}: {}", shown()));
        if outcome.kind == OutcomeKind::Error {
            assert_eq!(event["raw_event"], *String::from_utf8_lossy(input), "{}", shown());
            assert!(event["message"].as_str().is_some_and(|message| !message.is_empty()), "{}", shown());
        }
    }
}

async fn check_all(enricher: &ReconcileEnricher, judge: &Judge, inputs: &[Vec<u8>]) -> BTreeMap<&'static str, usize> {
    let mut seen = BTreeMap::new();
    for some in inputs.chunks(200) {
        let outcomes = join_all(some.iter().map(|bytes| async {
            let record = record(bytes.clone());
            assert!(enricher.reservation(&record) > 0);
            enricher.page(&record);
            enricher.enrich(&record).await
        }));
        for (input, outcome) in some.iter().zip(outcomes.await) {
            judge.check(input, &outcome);
            let what = match outcome.kind {
                OutcomeKind::Enriched => "enriched",
                OutcomeKind::PassedThrough => "passed_through",
                OutcomeKind::Dropped => "dropped",
                OutcomeKind::Error => outcome.error_type.expect("an error has a type"),
            };
            *seen.entry(what).or_default() += 1;
        }
    }
    seen
}

fn corpus() -> Vec<Vec<u8>> {
    let files = ["events/input.jsonl", "events/input_newer_schema.jsonl", "events/input_invalid.txt"];
    files.iter().flat_map(|file| lines(file)).map(String::into_bytes).collect()
}

/// `WEIR_FUZZ_SECONDS` makes it longer, `WEIR_FUZZ_SEED` another.
#[tokio::test]
async fn any_bytes_have_exactly_one_outcome() {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (seed, seconds) = (number("WEIR_FUZZ_SEED").unwrap_or(1), number("WEIR_FUZZ_SECONDS").unwrap_or(0));
    let stub = Stub::start(&[], Some(every_revision), Duration::ZERO).await;
    let (enricher, judge, corpus) = (enricher(&config(stub.url())), Judge::new(), corpus());
    let mut rng = StdRng::seed_from_u64(seed);
    let begun = Instant::now();
    let mut seen = BTreeMap::new();
    loop {
        let foreign = (0..20).map(|_| (0..rng.random_range(0..200)).map(|_| rng.random()).collect::<Vec<u8>>());
        let mut inputs: Vec<Vec<u8>> = foreign.collect();
        inputs.extend((0..600).map(|_| mutated(&mut rng, &corpus)));
        for (what, count) in check_all(&enricher, &judge, &inputs).await {
            *seen.entry(what).or_default() += count;
        }
        if begun.elapsed() >= Duration::from_secs(seconds) {
            break;
        }
    }
    eprintln!("{} inputs of seed {seed}: {seen:?}", seen.values().sum::<usize>());
    for what in ["enriched", "passed_through", "dropped", "MalformedInput", "InvalidInput"] {
        assert!(seen.contains_key(what), "{what} was not reached: {seen:?}");
    }
    assert_eq!(stub.unmatched(), []);
}

/// Each field of good events in turn of each other type.
#[tokio::test]
async fn every_field_of_every_type_has_an_outcome() {
    let stub = Stub::start(&[], Some(every_revision), Duration::ZERO).await;
    let (enricher, judge) = (enricher(&config(stub.url())), Judge::new());
    let values = [
        "null",
        "true",
        "false",
        "0",
        "-0",
        "-1",
        "7",
        "1.5",
        "1e400",
        "9007199254740993",
        "18446744073709551616",
        r#""""#,
        r#""x""#,
        r#""\ud800""#,
        r#""\u0000""#,
        "[]",
        r#"["x",[7]]"#,
        "{}",
        r#"{"x":{"y":null}}"#,
    ];
    let mut inputs = Vec::new();
    for line in [2, 4, 7, 8]
        .map(|line| lines("events/input.jsonl")[line].clone())
        .iter()
        .chain(&lines("events/input_newer_schema.jsonl")[..1])
    {
        for field in fields(line.as_bytes()) {
            let left_out = line[..field.name.start].to_owned() + r#""_":0"# + &line[field.value.end..];
            inputs.push(left_out.into_bytes());
            for value in values {
                inputs.push([&line[..field.value.start], value, &line[field.value.end..]].concat().into_bytes());
            }
        }
    }
    let seen = check_all(&enricher, &judge, &inputs).await;
    eprintln!("{} inputs: {seen:?}", inputs.len());
    assert!(inputs.len() > 3000 && seen["InvalidInput"] > 500 && seen["enriched"] > 100, "{seen:?}");
}

#[tokio::test]
async fn a_field_that_comes_twice_is_refused_before_any_request() {
    let stub = Stub::start(&[], Some(every_revision), Duration::ZERO).await;
    let (enricher, line) = (enricher(&config(stub.url())), edit_of("en.wikipedia.org", 9));
    for field in fields(line.as_bytes()) {
        let copy = format!(",{}:{}", &line[field.name.clone()], &line[field.value.clone()]);
        let twice = line[..field.value.end].to_owned() + &copy + &line[field.value.end..];
        let event = error_event(&enrich(&enricher, twice).await);
        assert_eq!(event["error_type"], "MalformedInput");
        assert!(event["message"].as_str().expect("text").contains("occurs twice"), "{event}");
    }
    assert_eq!(stub.asked(), []);
}

#[tokio::test]
async fn a_million_values_cost_no_more_than_their_bytes() {
    let stub = Stub::start(&[], Some(every_revision), Duration::ZERO).await;
    let enricher = enricher(&config(stub.url()));
    let line = edit_of("en.wikipedia.org", 9);
    let names: String = (0..150_000).map(|number| format!(r#""{number:x}":1,"#)).collect();
    let begun = Instant::now();
    for large in [
        line.replacen('{', &format!("{{{names}"), 1),
        line.replacen(r#""meta":{"#, &format!(r#""meta":{{{names}"#), 1),
        line.replacen(r#""meta":{"#, &format!(r#""meta":{{"x":[{}0],"#, "{},".repeat(500_000)), 1),
    ] {
        let event = error_event(&enrich(&enricher, large).await);
        assert!(event["message"].as_str().expect("text").contains("more than 10000 values"), "{}", event["message"]);
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}
