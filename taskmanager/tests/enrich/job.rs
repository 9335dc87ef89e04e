//! From a configuration alone: streams from a stream configuration, schemas from a repository, both in files.

use std::{collections::BTreeMap, env, fs, path::PathBuf, process, time::Duration};

use serde_json::{json, value::RawValue};
use weir_common::{config::Config, counters::OutcomeKind};
use weir_proto::v1;
use weir_taskmanager::enrich::{Enricher, Recipe, ReconcileEnricher, enrich_one, enricher_for};

use crate::{stub::Stub, support::*};

fn job_config(endpoint: &str, stream_config: &str) -> Config {
    let stream = |name: &str, limit: &str| {
        json!({"stream": name, "connector": "kafka", "options": {
            "bootstrap_servers": "127.0.0.1:1", "kafka_topic_prefix": "eqiad.", "properties": {"max.request.size": limit}}})
    };
    let schemas = concat!("file://", env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/schemas/jsonschema");
    let config = json!({
        "stream_manager": {
            "job_name": JOB, "stream_config_uri": stream_config, "schema_uris": [schemas],
            "source": {"stream": "mediawiki.content_history_reconcile.v1:1.2.0", "connector": "kafka",
                "options": {"bootstrap_servers": "127.0.0.1:1", "consumer_group": "g"}},
            "sink": stream(&format!("{SINK_STREAM}:1.2.0"), "10485760"),
            "error_sink": stream("mw_content_history_reconcile_enrich.error:2.1.0", "10485760"),
        },
        "enrich": {"mediawiki_api_endpoint_template": endpoint, "user_agent": "weir-test"},
    });
    serde_json::from_value(config).expect("a configuration")
}

struct TemporaryFile(PathBuf);

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn one_event_is_enriched_by_configuration() {
    let stub = Stub::start(&["api/01-enwiki-plain.json", "api/20-hewiki-oversized.json"], None, Duration::ZERO).await;
    // Taken as text: the order of `message_key_fields` is the key's.
    let part = |text: &str, field: &str| {
        let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(text).expect("JSON");
        fields[field].get().to_owned()
    };
    let answer = part(&part(&fixture("streamconfigs/reconcile.json"), "response"), "body");
    let file = TemporaryFile(env::temp_dir().join(format!("weir-streams-{}.json", process::id())));
    fs::write(&file.0, answer).expect("written");
    let config = job_config(&stub.url(), &format!("file://{}", file.0.display()));
    let inputs = lines("events/input.jsonl");
    let outcome = enrich_one(&config, inputs[0].as_bytes()).await.expect("resolved");
    assert_eq!(outcome.kind, OutcomeKind::Enriched);
    let key = outcome.output.as_ref().and_then(|output| output.key.clone()).expect("a key");
    assert_eq!(key, r#"{"wiki_id":"enwiki","page_id":1204511}"#);
    let outcome = enrich_one(&config, inputs[19].as_bytes()).await.expect("resolved");
    assert_eq!(error_event(&outcome)["error_type"], "Oversized");
}

#[tokio::test]
async fn the_jobmanagers_job_makes_an_enricher() {
    let stub = Stub::start(&["api/01-enwiki-plain.json"], None, Duration::ZERO).await;
    let config = job_config(&stub.url(), "file:///nowhere");
    let stream = |stream: &str, schema_uri: &str| {
        let (stream, schema_uri) = (stream.to_owned(), schema_uri.to_owned());
        Some(v1::OutputStream { topic: format!("eqiad.{stream}"), stream, schema_uri, ..v1::OutputStream::default() })
    };
    let mut job = v1::JobSpec {
        job_name: JOB.to_owned(),
        sink: stream(SINK_STREAM, "/mediawiki/page/change/1.2.0"),
        error_sink: stream("e", "/error/2.1.0"),
        ..v1::JobSpec::default()
    };
    let enricher = enricher_for(&config, &job).await.expect("an enricher");
    let outcome = enricher.enrich(&record(lines("events/input.jsonl")[0].clone())).await;
    assert_eq!(outcome.kind, OutcomeKind::Enriched);
    job.error_sink = stream("e", "/mediawiki/page/change/1.2.0");
    let refused = enricher_for(&config, &job).await.err().expect("error events do not fit");
    assert!(format!("{refused:#}").contains("use /error/2.1.0"), "{refused:#}");
    job.sink = stream(SINK_STREAM, "/no/such/1.0.0");
    assert!(enricher_for(&config, &job).await.is_err());
}

/// The same event of a redirect page: one job looks where it leads now, the other keeps what the event says, which here is
/// nothing; both fetch the content.
#[tokio::test]
async fn jobs_differ_by_their_recipe_alone() {
    let stub = Stub::start(&["api/05-enwiki-redirect-fragment.json"], None, Duration::ZERO).await;
    let redirect = lines("events/input.jsonl");
    let is_redirect = |line: &&String| line.contains(r#""is_redirect":true"#) && line.contains(r#""enwiki""#);
    let event = redirect.iter().find(is_redirect).expect("a redirect of enwiki");
    for (source, links) in [("mediawiki.content_history_reconcile.v1", true), ("mediawiki.page_change.v1", false)] {
        let mut config = job_config(&stub.url(), "file:///nowhere");
        config.stream_manager.source.stream.name = source.to_owned();
        let schemas = schemas();
        let enricher =
            ReconcileEnricher::new(&config.enrich, JOB, sink(), error_sink(), &schemas).expect("an enricher");
        let outcome = enrich(&enricher.following(Recipe::of(&config)), event.clone()).await;
        assert_eq!(outcome.kind, OutcomeKind::Enriched, "{source}");
        let output = output(&outcome);
        assert!(output["revision"]["content_slots"]["main"]["content_body"].is_string(), "{source}: {output}");
        assert_eq!(output["page"].get("redirect_page_link").is_some(), links, "{source}: {output}");
    }
}
