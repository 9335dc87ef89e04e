//! Reads records of the error topic, whoever wrote them.

use std::{borrow::Cow, str};

use serde::Deserialize;
use weir_common::{raw_event::RawEvent, split::TopicPartition};

use super::{ErrorEvent, Stored};

#[derive(Default, Deserialize)]
#[serde(default)]
struct Event<'a> {
    #[serde(borrow)]
    error_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    message: Option<Cow<'a, str>>,
    #[serde(borrow)]
    emitter_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    raw_event: Option<Cow<'a, str>>,
    #[serde(borrow)]
    meta: Option<Meta<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Input<'a> {
    #[serde(borrow)]
    wiki_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    meta: Option<Meta<'a>>,
    page: Option<Page>,
    revision: Option<Revision>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Meta<'a> {
    #[serde(borrow)]
    domain: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Page {
    page_id: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Revision {
    rev_id: Option<i64>,
}

/// Reads a record. What is no error event is one that says so in its message.
#[must_use]
pub fn read(stored: &Stored<'_>) -> ErrorEvent {
    let owned = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned).unwrap_or_default();
    let event = serde_json::from_slice::<Event<'_>>(stored.value).unwrap_or_else(|error| Event {
        message: Some(Cow::Owned(format!("not an error event: {error}"))),
        ..Event::default()
    });
    let (message, raw_event) = (owned(event.message), owned(event.raw_event));
    // An input that is cut, or was broken in the first place, says nothing.
    let input = serde_json::from_str::<Input<'_>>(&raw_event).unwrap_or_default();
    let domain = event.meta.and_then(|meta| meta.domain).or_else(|| input.meta.and_then(|meta| meta.domain));
    ErrorEvent {
        position: stored.position,
        timestamp_ms: stored.timestamp_ms,
        error_type: owned(event.error_type),
        emitter_id: owned(event.emitter_id),
        domain: domain.map(Cow::into_owned),
        wiki_id: input.wiki_id.map(Cow::into_owned),
        page_id: input.page.and_then(|page| page.page_id),
        rev_id: input.revision.and_then(|revision| revision.rev_id),
        source: source(stored.source),
        raw: RawEvent::of_message(&message),
        message,
        raw_event,
    }
}

fn source([topic, partition, offset]: [Option<&[u8]>; 3]) -> Option<(TopicPartition, i64)> {
    let text = |value: Option<&'_ [u8]>| str::from_utf8(value?).ok().map(str::to_owned);
    let (topic, partition) = (text(topic)?.into(), text(partition)?.parse().ok()?);
    Some((TopicPartition { topic, partition }, text(offset)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_value(value: &[u8], source: [Option<&[u8]>; 3]) -> ErrorEvent {
        read(&Stored { position: (0, 7), timestamp_ms: 1, value, source })
    }

    #[test]
    fn what_the_input_was_is_read_from_it() {
        let raw =
            json!({"wiki_id": "enwiki", "page": {"page_id": 3}, "revision": {"rev_id": 5}, "meta": {"domain": "a"}});
        let value =
            json!({"error_type": "TextMissing", "message": "gone", "emitter_id": "job", "raw_event": raw.to_string()});
        let event = read_value(value.to_string().as_bytes(), [Some(b"in"), Some(b"2"), Some(b"41")]);
        assert_eq!((event.wiki_id.as_deref(), event.domain.as_deref()), (Some("enwiki"), Some("a")));
        assert_eq!((event.page_id, event.rev_id, event.raw), (Some(3), Some(5), RawEvent::Whole));
        assert_eq!(event.source, Some((TopicPartition { topic: "in".into(), partition: 2 }, 41)));
    }

    #[test]
    fn nothing_is_too_strange_to_be_listed() {
        for value in [&b"\xff"[..], b"", b"[]", b"{\"message\": 7}", b"{\"raw_event\": \"{\"}", b"null"] {
            let event = read_value(value, [Some(b"in"), Some(b"x"), None]);
            assert_eq!((event.position, event.source), ((0, 7), None));
        }
        assert!(read_value(b"\xff", [None; 3]).message.starts_with("not an error event"));
    }
}
