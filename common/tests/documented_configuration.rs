//! `docs/configuration.md` names every key with its default.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weir_common::config::{Config, size::ByteSize};

const DOCUMENT: &str = include_str!("../../docs/configuration.md");

/// The least that makes a configuration; `?` stands where a value is required.
fn least() -> Config {
    let sink = json!({"stream": "?:?", "connector": "?", "options": {"bootstrap_servers": "?"}});
    let source =
        json!({"stream": "?:?", "connector": "?", "options": {"bootstrap_servers": "?", "consumer_group": "?"}});
    let stream_manager = json!({
        "job_name": "?", "stream_config_uri": "?", "schema_uris": ["?"],
        "source": source, "sink": sink, "error_sink": sink,
    });
    serde_json::from_value(json!({ "stream_manager": stream_manager })).expect("every other key has a default")
}

/// Every leaf with its default as the document writes it.
fn leaves(prefix: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    let default = match value {
        Value::Object(fields) if !fields.is_empty() => {
            let separator = if prefix.is_empty() { "" } else { "." };
            return fields.iter().for_each(|(key, value)| leaves(&format!("{prefix}{separator}{key}"), value, into));
        }
        Value::Null => "none".to_owned(),
        Value::String(text) if text.starts_with('?') => "required".to_owned(),
        Value::Array(_) => "required".to_owned(),
        Value::String(text) => match text.strip_suffix(" B").and_then(|bytes| bytes.parse().ok()) {
            Some(bytes) => format!("`{}`", ByteSize(bytes).to_string().replace(".0 ", " ")),
            None => format!("`{}`", text.replace(env!("CARGO_PKG_VERSION"), "<version>")),
        },
        other => format!("`{other}`"),
    };
    into.insert(prefix.to_owned(), default);
}

#[test]
fn every_key_is_documented_with_its_default() {
    let mut expected = BTreeMap::new();
    leaves("", &serde_json::to_value(least()).expect("a configuration serialises"), &mut expected);
    let documented: BTreeMap<String, String> = DOCUMENT
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .filter(|(key, _)| {
            key.contains('.') && key.split('.').next().is_some_and(|section| is_section(section, &expected))
        })
        .filter_map(|(key, rest)| Some((key.to_owned(), rest.split_once(" | ")?.0.to_owned())))
        .collect();
    assert_eq!(documented, expected);
}

/// Other tables of the document have other first words.
fn is_section(word: &str, expected: &BTreeMap<String, String>) -> bool {
    expected.keys().any(|key| key.split('.').next() == Some(word))
}
