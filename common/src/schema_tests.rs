//! Repositories, and the transcribed schemas against the sample events.

use std::{fs, path::Path};

use serde_json::json;

use super::*;
use crate::config::load;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures");

fn repository(uris: &[String]) -> Repository {
    let file = format!("{FIXTURES}/config/reconcile.app.config.yaml");
    let mut config = load(&[file.into()], std::iter::empty()).expect("production's file").config;
    config.stream_manager.schema_uris = uris.to_vec();
    config.enrich.ssl_ca_bundle_path = None;
    Repository::new(&config).expect("a client")
}

fn events(name: &str) -> Vec<Value> {
    let text = fs::read_to_string(format!("{FIXTURES}/events/{name}")).expect(name);
    text.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).expect(name)).collect()
}

#[tokio::test]
async fn the_sample_events_are_valid() {
    let repository = repository(&[format!("file://{FIXTURES}/schemas/jsonschema")]);
    for (schema, samples, count) in [
        ("mediawiki/page/change/1.2.0", "input.jsonl", 20),
        ("/mediawiki/page/change/1.2.0", "expected_enriched_sample.jsonl", 1),
        ("error/2.1.0", "expected_error_sample.jsonl", 1),
    ] {
        let schema = repository.fetch(schema).await.expect(schema);
        let validator = jsonschema::validator_for(&schema).expect("a schema");
        let events = events(samples);
        assert!(events.len() >= count, "{samples}");
        for event in events {
            let errors: Vec<String> = validator.iter_errors(&event).map(|error| error.to_string()).collect();
            assert_eq!(errors, [] as [String; 0], "{samples}: {event}");
        }
    }
}

#[tokio::test]
async fn newer_events_are_not_valid_by_the_old_schema() {
    let repository = repository(&[format!("file://{FIXTURES}/schemas/jsonschema")]);
    let schema = repository.fetch("mediawiki/page/change/1.2.0").await.expect("there");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    for event in events("input_newer_schema.jsonl") {
        assert!(!validator.is_valid(&event), "{event}");
    }
    // 1.2.0 is 1.1.0 without the duty to name a performer.
    let mut old = repository.fetch("mediawiki/page/change/1.1.0").await.expect("there");
    let required = old["required"].as_array_mut().expect("a list");
    let all = required.len();
    required.retain(|name| name != "performer");
    assert_eq!(required.len() + 1, all);
    assert_eq!(old["required"], schema["required"]);
    assert_eq!(old["properties"], schema["properties"]);
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().expect("below the folder")).expect("a folder");
    fs::write(path, text).expect("a file");
}

#[tokio::test]
async fn references_are_followed_within_the_repositories_in_order() {
    let folder = std::env::temp_dir().join(format!("weir-schemas-{}", std::process::id()));
    write(
        &folder,
        "one/a/1.0.0.yaml",
        "properties:\n  x: {$ref: ../part/1.0.0#/definitions/x}\n  y: {$ref: /part/1.0.0}\n",
    );
    write(&folder, "one/ring/1.yaml", "properties: {x: {$ref: /ring/1}}");
    write(&folder, "one/bad/1.yaml", "properties: {x: {$ref: '/part/1.0.0#/nothing'}}");
    write(&folder, "one/text/1.yaml", "just text");
    write(
        &folder,
        "two/part/1.0.0.json",
        r##"{"$id": "/part/1.0.0", "type": "object", "properties": {"n": {"$ref": "#/definitions/n"}},
            "definitions": {"x": {"type": "string"}, "n": {"type": "integer"}}}"##,
    );
    let uri = |name| format!("file://{}/{name}", folder.display());
    let repository = repository(&[uri("one"), uri("two/")]);
    let schema = repository.fetch("a/1.0.0").await.expect("there");
    assert_eq!(schema["properties"]["x"], json!({"type": "string"}));
    assert_eq!(schema["properties"]["y"]["properties"]["n"], json!({"type": "integer"}));
    assert_eq!(schema["properties"]["y"].get("$id"), None);
    for (name, part) in [
        ("none/1", "file:///"),
        ("none/1", "/two/none/1.yaml"),
        ("ring/1", "in a ring"),
        ("bad/1", "names nothing"),
        ("text/1", "not an object"),
    ] {
        let error = repository.fetch(name).await.expect_err(name).to_string();
        assert!(error.contains(part), "{error}");
    }
    fs::remove_dir_all(folder).expect("made above");
}
