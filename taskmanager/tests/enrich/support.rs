//! Fixtures, schemas, records and an enricher with retries fast enough for tests.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use bytes::Bytes;
use jsonschema::Validator;
use serde_json::Value;
use weir_common::{
    config::{Enrich, NotFound, Retry, UnknownFields},
    counters::OutcomeKind,
};
use weir_taskmanager::{
    enrich::{Enricher, OutputStream, ReconcileEnricher, Schemas},
    record::{Destination, Outcome, SourceRecord},
};

pub(crate) const JOB: &str = "mw-content-history-reconcile-enrich";
pub(crate) const SINK_STREAM: &str = "mediawiki.content_history_reconcile_enriched.v1";
pub(crate) const PRODUCER_LIMIT: u64 = 10_485_760;

pub(crate) fn fixture(path: &str) -> String {
    let path = fixtures().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn fixtures() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures"))
}

pub(crate) fn lines(path: &str) -> Vec<String> {
    fixture(path).lines().map(str::to_owned).collect()
}

pub(crate) fn cases() -> Vec<Value> {
    serde_json::from_str(&fixture("cases.json")).expect("JSON")
}

pub(crate) fn schemas() -> Schemas {
    Schemas { sink: schema("mediawiki/page/change/1.2.0"), error: schema("error/2.1.0") }
}

fn schema(name: &str) -> Value {
    yaml(&fixture(&format!("schemas/jsonschema/{name}.yaml")))
}

/// Judges apart from the enricher's own validation.
pub(crate) fn validator(schema: &Value) -> Validator {
    let mut schema = schema.clone();
    drop_identifiers(&mut schema);
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft7)
        .should_validate_formats(true)
        .build(&schema)
        .expect("a schema")
}

fn drop_identifiers(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| !(matches!(name.as_str(), "$id" | "$schema") && value.is_string()));
            fields.values_mut().for_each(drop_identifiers);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_identifiers),
        _ => {}
    }
}

fn stream(name: &str, schema_uri: &str, key: &[(&str, &str)]) -> OutputStream {
    OutputStream {
        stream: name.to_owned(),
        topic: format!("eqiad.{name}"),
        schema_uri: schema_uri.to_owned(),
        message_key_fields: key.iter().map(|(name, path)| ((*name).to_owned(), (*path).to_owned())).collect(),
        max_message_bytes: PRODUCER_LIMIT,
    }
}

pub(crate) fn sink() -> OutputStream {
    let key = [("wiki_id", "wiki_id"), ("page_id", "page.page_id")];
    stream(SINK_STREAM, "/mediawiki/page/change/1.2.0", &key)
}

pub(crate) fn error_sink() -> OutputStream {
    stream("mw_content_history_reconcile_enrich.error", "/error/2.1.0", &[])
}

/// Retries as many as in production, none of them slow. The fixtures' events never grow old.
pub(crate) fn config(endpoint: String) -> Enrich {
    let tick = Duration::from_millis(2);
    Enrich {
        mediawiki_api_endpoint_template: endpoint,
        user_agent: "weir-test".to_owned(),
        request_timeout: Duration::from_secs(20),
        batch_linger: Duration::from_millis(1),
        retry: Retry { max_attempts: 5, initial_backoff: tick, max_backoff: tick, budget: Duration::from_secs(60) },
        not_found: NotFound { max_attempts: 4, delay: tick, max_age: Duration::from_secs(u64::from(u32::MAX)) },
        unknown_fields: UnknownFields::Prune,
        ..Enrich::default()
    }
}

pub(crate) fn enricher(config: &Enrich) -> ReconcileEnricher {
    ReconcileEnricher::new(config, JOB, sink(), error_sink(), &schemas()).expect("an enricher")
}

pub(crate) fn record(value: impl Into<Bytes>) -> SourceRecord {
    SourceRecord {
        topic: "eqiad.mediawiki.content_history_reconcile.v1".into(),
        partition: 0,
        offset: 7,
        timestamp_ms: Some(0),
        key: None,
        value: Some(value.into()),
    }
}

pub(crate) async fn enrich(enricher: &ReconcileEnricher, value: impl Into<Bytes>) -> Outcome {
    enricher.enrich(&record(value)).await
}

pub(crate) fn output(outcome: &Outcome) -> Value {
    serde_json::from_slice(&outcome.output.as_ref().expect("an output").value).expect("JSON")
}

/// The error event of an outcome that must be one.
pub(crate) fn error_event(outcome: &Outcome) -> Value {
    assert_eq!(outcome.kind, OutcomeKind::Error, "{:?}", outcome.output);
    let record = outcome.output.as_ref().expect("an output");
    assert_eq!(record.destination, Destination::ErrorSink);
    assert_eq!(record.key, None);
    let event = output(outcome);
    assert_eq!(event["error_type"].as_str(), outcome.error_type);
    event
}

/// An edit of a page without redirect, by host and revision.
pub(crate) fn edit_of(host: &str, rev_id: i64) -> String {
    let mut event: Value = serde_json::from_str(&lines("events/input.jsonl")[0]).expect("JSON");
    event["meta"]["domain"] = host.into();
    event["page"]["page_id"] = rev_id.into();
    event["revision"]["rev_id"] = rev_id.into();
    event["revision"]["content_slots"]["main"]["content_size"] = 2.into();
    event.to_string()
}

pub(crate) fn revids(asked: &[crate::stub::Asked]) -> Vec<String> {
    asked.iter().filter_map(|(_, _, params): &(_, _, BTreeMap<_, _>)| params.get("revids").cloned()).collect()
}

fn yaml(text: &str) -> Value {
    use saphyr::{LoadableYamlNode, Yaml};
    fn convert(node: &Yaml<'_>) -> Value {
        if let Some(map) = node.as_mapping() {
            let field =
                |(key, value): (&Yaml<'_>, &Yaml<'_>)| (key.as_str().expect("a text key").to_owned(), convert(value));
            return Value::Object(map.iter().map(field).collect());
        }
        if let Some(items) = node.as_sequence() {
            return items.iter().map(convert).collect();
        }
        let number = node.as_integer().map(Value::from);
        number.or(node.as_bool().map(Value::from)).or(node.as_str().map(Value::from)).unwrap_or(Value::Null)
    }
    convert(&Yaml::load_from_str(text).expect("YAML")[0])
}
