//! EventStreamConfig's answer, so that a job needs no other server than this one.

/// The configuration of the streams named (`a|b|c`): any name is a stream. Names that end in `.error` carry error
/// events, all others page changes, keyed by wiki and page.
#[must_use]
pub fn configuration(names: &str) -> String {
    let streams: Vec<String> = names.split('|').filter(|name| !name.is_empty()).map(stream).collect();
    format!(r#"{{"streams":{{{}}}}}"#, streams.join(","))
}

/// Text, not a JSON value: the order of `message_key_fields` is the order of the key's fields.
fn stream(name: &str) -> String {
    let (title, more) = if name.ends_with(".error") {
        ("error", "")
    } else {
        let more = r#""message_key_fields":{"wiki_id":"wiki_id","page_id":"page.page_id"},
            "destination_event_service":"eventgate-analytics","#;
        ("mediawiki/page/change", more)
    };
    let quoted = |text: String| serde_json::Value::String(text).to_string();
    format!(
        r#"{name}:{{"stream":{name},"schema_title":"{title}","topic_prefixes":["eqiad.","codfw."],
            "topics":[{eqiad},{codfw}],{more}"canary_events_enabled":{canaries}}}"#,
        name = quoted(name.to_owned()),
        eqiad = quoted(format!("eqiad.{name}")),
        codfw = quoted(format!("codfw.{name}")),
        canaries = name.contains("_enriched."),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_jobs_streams_are_configured_as_the_fixture_says() {
        let fixture: Value = serde_json::from_str(include_str!("../../../tests/fixtures/streamconfigs/reconcile.json"))
            .expect("the fixture is JSON");
        let names = fixture["request"]["params"]["streams"].as_str().expect("names");
        let answer = configuration(names);
        assert_eq!(serde_json::from_str::<Value>(&answer).expect("JSON"), fixture["response"]["body"]);
        assert!(
            answer.contains(r#"{"wiki_id":"wiki_id","page_id":"page.page_id"}"#),
            "the fields' order decides the key"
        );
    }

    #[test]
    fn any_name_is_quoted() {
        assert!(serde_json::from_str::<Value>(&configuration("a\"b|c\\d")).is_ok());
    }
}
