//! What keys there are, taken from the types themselves.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::Config;

/// Keys without a default, each with what to write.
pub(super) const REQUIRED: [(&str, &str); 13] = [
    ("stream_manager.job_name", "write for example `job_name: mw-content-history-reconcile-enrich`"),
    ("stream_manager.stream_config_uri", "write the address of EventStreamConfig's API, or `file:///…`"),
    ("stream_manager.schema_uris", "write for example `schema_uris: [file:///srv/event-schemas/primary/jsonschema]`"),
    ("stream_manager.source.stream", "write `stream: name:schema-version`"),
    ("stream_manager.source.connector", "write `connector: kafka`"),
    ("stream_manager.source.options.bootstrap_servers", "write `bootstrap_servers: host:port`"),
    ("stream_manager.source.options.consumer_group", "write the group that the lag is mirrored to"),
    ("stream_manager.sink.stream", "write `stream: name:schema-version`"),
    ("stream_manager.sink.connector", "write `connector: kafka`"),
    ("stream_manager.sink.options.bootstrap_servers", "write `bootstrap_servers: host:port`"),
    ("stream_manager.error_sink.stream", "write `stream: name:schema-version`"),
    ("stream_manager.error_sink.connector", "write `connector: kafka`"),
    ("stream_manager.error_sink.options.bootstrap_servers", "write `bootstrap_servers: host:port`"),
];

/// A configuration with every key set: objects are sections, empty objects are maps with keys of the user's choice.
pub(super) static TEMPLATE: LazyLock<Value> = LazyLock::new(|| {
    let sink = json!({
        "stream": "s:1.0.0",
        "connector": "kafka",
        "options": {"bootstrap_servers": "h:1", "kafka_topic_prefix": "p"},
    });
    let complete = json!({
        "stream_manager": {
            "job_name": "job",
            "stream_config_uri": "file:///s",
            "schema_uris": ["file:///s"],
            "source": {
                "stream": "s:1.0.0",
                "connector": "kafka",
                "options": {"bootstrap_servers": "h:1", "topics": [], "consumer_group": "g"},
            },
            "sink": sink.clone(),
            "error_sink": sink,
        },
        "enrich": {"job": "page_content_change", "ssl_ca_bundle_path": "/p"},
        "savepoint": {"interval": "1 h"},
        "storage": {"s3": {"endpoint": "http://h", "access_key_id": "a", "secret_access_key": "s"}},
        "jobmanager": {"advertised_address": "h:1"},
        "taskmanager": {"memory_budget": "1 MiB"},
    });
    let config: Config = serde_json::from_value(complete).expect("the template has what is required, held by a test");
    serde_json::to_value(config).expect("a configuration has only string keys and finite numbers")
});

/// Whether a section takes keys of the user's choice.
pub(super) fn is_free(section: &Value) -> bool {
    section.as_object().is_some_and(serde_json::Map::is_empty)
}

/// All keys, dotted.
pub(super) fn all_keys() -> Vec<String> {
    let mut keys = Vec::new();
    collect(&TEMPLATE, "", &mut keys);
    keys
}

fn collect(section: &Value, prefix: &str, keys: &mut Vec<String>) {
    for (name, child) in section.as_object().into_iter().flatten() {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        collect(child, &key, keys);
        keys.push(key);
    }
}

/// The template's value at a dotted key without user-chosen parts.
pub(super) fn at(key: &str) -> Option<&'static Value> {
    key.split('.').try_fold(&*TEMPLATE, |section, name| section.get(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nulls(section: &Value) -> bool {
        match section {
            Value::Object(object) => object.values().any(nulls),
            other => other.is_null(),
        }
    }

    #[test]
    fn every_key_has_a_value_so_that_its_type_is_known() {
        assert!(!nulls(&TEMPLATE), "{:#}", *TEMPLATE);
    }

    #[test]
    fn the_required_keys_are_exactly_those_without_a_default() {
        for key in all_keys().iter().filter(|key| at(key).is_some_and(|value| !value.is_object())) {
            let mut tree = TEMPLATE.clone();
            let (section, name) = key.rsplit_once('.').expect("every leaf is in a section");
            let pointer = format!("/{}", section.replace('.', "/"));
            let object = tree.pointer_mut(&pointer).and_then(Value::as_object_mut).expect("a section");
            object.remove(name);
            let required = REQUIRED.iter().any(|(required, _)| required == key);
            assert_eq!(serde_json::from_value::<Config>(tree).is_err(), required, "{key}");
        }
    }
}
