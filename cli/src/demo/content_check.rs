//! What an output must contain, by its input and the wiki's rules.

use serde_json::{Map, Value};

use super::{events::Expected, verify::Input};
use crate::wiki::content::{self, Redirect, Wiki};

/// Complaints about an output event.
pub(super) fn output_event(wiki: &Wiki, output: &Value, input: &Input, stream: &str) -> Vec<String> {
    let Ok(source) = serde_json::from_slice::<Value>(&input.value) else {
        return vec!["an output of an input that is not JSON".to_owned()];
    };
    let mut complaints = Vec::new();
    if output["meta"]["stream"] != stream {
        complaints.push(format!("meta.stream is {}", output["meta"]["stream"]));
    }
    if output["meta"]["id"] == source["meta"]["id"] || !output["meta"]["id"].is_string() {
        complaints.push("meta.id is not new".to_owned());
    }
    if identity(output) != identity(&source) {
        complaints.push("fields that nobody asked to change are changed".to_owned());
    }
    match input.expected {
        Expected::Enriched => complaints.extend(bodies(wiki, output)),
        _ if has_body(output) => complaints.push("there is content that must not be there".to_owned()),
        _ => {}
    }
    complaints
}

/// Complaints about an error event.
pub(super) fn error_event(event: &Value, input: &[u8], stream: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if event["meta"]["stream"] != stream {
        complaints.push(format!("the error event's meta.stream is {}", event["meta"]["stream"]));
    }
    if event["raw_event"].as_str() != Some(&*String::from_utf8_lossy(input)) {
        complaints.push("the error event's raw_event is not the input".to_owned());
    }
    complaints
}

/// The event without what enrichment and sink may set.
fn identity(event: &Value) -> Value {
    let mut event = event.clone();
    remove(&mut event, "", &["$schema"]);
    remove(&mut event, "/meta", &["stream", "id", "dt"]);
    remove(&mut event, "/page", &["redirect_page_link"]);
    for (_, slot) in event.pointer_mut("/revision/content_slots").and_then(Value::as_object_mut).into_iter().flatten() {
        remove(slot, "", &["content_body", "content_format", "content_model"]);
    }
    event
}

fn remove(event: &mut Value, at: &str, names: &[&str]) {
    if let Some(fields) = event.pointer_mut(at).and_then(Value::as_object_mut) {
        fields.retain(|name, _| !names.contains(&name.as_str()));
    }
}

fn slots(event: &Value) -> Option<&Map<String, Value>> {
    event.pointer("/revision/content_slots")?.as_object()
}

fn has_body(event: &Value) -> bool {
    slots(event).is_some_and(|slots| slots.values().any(|slot| slot.get("content_body").is_some()))
}

fn bodies(wiki: &Wiki, output: &Value) -> Vec<String> {
    let host = output["meta"]["domain"].as_str().unwrap_or_default();
    let revision = wiki.revision(host, output["revision"]["rev_id"].as_u64().unwrap_or_default());
    let mut complaints = Vec::new();
    for slot in &revision.slots {
        let Some(got) = slots(output).and_then(|slots| slots.get(slot.role)) else {
            complaints.push(format!("slot {} is missing", slot.role));
            continue;
        };
        for (field, expected) in
            [("content_body", slot.body.as_str()), ("content_format", slot.format), ("content_model", slot.model)]
        {
            if got[field] != expected {
                complaints.push(format!("{field} of slot {} is not what the wiki holds", slot.role));
            }
        }
    }
    let expected = content::redirect_of(host, revision.page_id);
    complaints.extend(redirect(output.pointer("/page/redirect_page_link"), expected.as_ref()));
    complaints
}

fn redirect(link: Option<&Value>, expected: Option<&Redirect>) -> Option<String> {
    match (link, expected) {
        (None, None) => None,
        (None, Some(_)) => Some("redirect_page_link is missing".to_owned()),
        (Some(_), None) => Some("there is a redirect_page_link, but the page is no redirect".to_owned()),
        (Some(link), Some(expected)) => {
            let title = link["page_title"].as_str().unwrap_or_default();
            let right = title.ends_with(&expected.title.replace(' ', "_"))
                && link["page_id"].as_u64() == expected.page_id
                && link["interwiki_prefix"].as_str() == expected.interwiki;
            (!right).then(|| format!("redirect_page_link is {link}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::demo::events::Generator;

    const WIKI: Wiki = Wiki { content_bytes: 100 };

    /// What a taskmanager would make of an event that is enriched.
    fn enrich(input: &Input) -> Value {
        let mut event: Value = serde_json::from_slice(&input.value).expect("an event");
        let host = event["meta"]["domain"].as_str().expect("a host").to_owned();
        let revision = WIKI.revision(&host, event["revision"]["rev_id"].as_u64().expect("an id"));
        for slot in &revision.slots {
            let entry = &mut event["revision"]["content_slots"][slot.role];
            entry["content_body"] = json!(slot.body);
            entry["content_format"] = json!(slot.format);
        }
        if let Some(target) = content::redirect_of(&host, revision.page_id) {
            let mut link = json!({ "page_title": target.title.replace(' ', "_"), "namespace_id": 0 });
            if let Some(page_id) = target.page_id {
                link["page_id"] = json!(page_id);
            }
            if let Some(prefix) = target.interwiki {
                link["interwiki_prefix"] = json!(prefix);
            }
            event["page"]["redirect_page_link"] = link;
        }
        event["meta"]["stream"] = json!("sink.v1");
        event["meta"]["id"] = json!("new");
        event
    }

    fn inputs() -> impl Iterator<Item = Input> {
        let mut generator = Generator::new(3, WIKI);
        (0..500)
            .map(move |_| generator.next(Timestamp::UNIX_EPOCH))
            .filter(|sample| sample.expected == Expected::Enriched)
            .map(|sample| Input { key: sample.key, value: sample.value, expected: sample.expected })
    }

    #[test]
    fn right_outputs_pass() {
        for input in inputs() {
            assert_eq!(output_event(&WIKI, &enrich(&input), &input, "sink.v1"), Vec::<String>::new());
        }
    }

    #[test]
    fn a_changed_byte_anywhere_is_found() {
        let input = inputs().next().expect("one");
        let right = enrich(&input);
        let role = slots(&right).and_then(|slots| slots.keys().next()).expect("a slot").clone();
        for pointer in [
            format!("/revision/content_slots/{role}/content_body"),
            "/page/page_title".to_owned(),
            "/revision/comment".to_owned(),
            "/meta/request_id".to_owned(),
            "/meta/stream".to_owned(),
        ] {
            let mut wrong = right.clone();
            *wrong.pointer_mut(&pointer).expect("the field is there") = json!("other");
            assert_eq!(output_event(&WIKI, &wrong, &input, "sink.v1").len(), 1, "{pointer}");
        }
    }

    #[test]
    fn error_events_carry_the_input() {
        let event = json!({"meta": {"stream": "job.error"}, "raw_event": "a\u{fffd}"});
        assert!(error_event(&event, b"a\xff", "job.error").is_empty());
        assert_eq!(error_event(&event, b"b", "other").len(), 2);
    }
}
