//! What makes an event one of the sink: schema, `meta`, key, record timestamp.

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use uuid::Builder;

use super::{edit::Patch, fault::Fault, routes::Kind, stream::OutputStream};

/// What a record's headers and its batch add to key and value, rounded up: the broker's limit counts them too.
pub(crate) const FRAMING_BYTES: usize = 512;

/// ISO-8601 in UTC with milliseconds, as EventGate writes it.
#[must_use]
pub(crate) fn timestamp_text(time: Timestamp) -> String {
    format!("{time:.3}")
}

/// The fields that are the sink's. `request_id`, `domain`, `uri` and all else of `meta` stay.
pub(crate) fn stamp(patch: &mut Patch, sink: &OutputStream, now: Timestamp) {
    patch.set(&["$schema"], sink.schema_uri.as_str());
    patch.set(&["meta", "stream"], sink.stream.as_str());
    patch.set(&["meta", "id"], random_id());
    patch.set(&["meta", "dt"], timestamp_text(now));
}

/// A random UUID, of the thread's own generator: asking the system for each costs more than all else of it.
#[must_use]
pub(crate) fn random_id() -> String {
    Builder::from_random_bytes(rand::random()).into_uuid().to_string()
}

/// The message key: compact JSON of the stream's `message_key_fields`, in its order. Partitioners hash these bytes.
///
/// # Errors
/// `InvalidInput` if the event lacks a field of the key.
pub(crate) fn message_key(stream: &OutputStream, event: &Value) -> Result<Option<Bytes>, Fault> {
    if stream.message_key_fields.is_empty() {
        return Ok(None);
    }
    let mut key = String::from("{");
    for (index, (name, path)) in stream.message_key_fields.iter().enumerate() {
        let value = path
            .split('.')
            .try_fold(event, |value, field| value.get(field))
            .ok_or_else(|| Fault::new(Kind::InvalidInput, format!("{path} is missing: the message key needs it")))?;
        let comma = if index == 0 { "" } else { "," };
        key.push_str(&format!("{comma}{}:{value}", Value::from(name.as_str())));
    }
    key.push('}');
    Ok(Some(Bytes::from(key)))
}

/// Whether key and value fit into one message of the stream.
#[must_use]
pub(crate) fn fits(stream: &OutputStream, key: Option<&Bytes>, value: &[u8]) -> bool {
    let bytes = value.len() + key.map_or(0, Bytes::len) + FRAMING_BYTES;
    stream.max_message_bytes == 0 || bytes as u64 <= stream.max_message_bytes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_compact_and_in_the_streams_order() {
        let stream = OutputStream {
            stream: String::new(),
            topic: String::new(),
            schema_uri: String::new(),
            message_key_fields: vec![
                ("wiki_id".to_owned(), "wiki_id".to_owned()),
                ("page_id".to_owned(), "page.page_id".to_owned()),
            ],
            max_message_bytes: 600,
        };
        let event = json!({"page": {"page_id": 12}, "wiki_id": "en\"wiki"});
        let key = message_key(&stream, &event).expect("all there").expect("a key");
        assert_eq!(key, r#"{"wiki_id":"en\"wiki","page_id":12}"#);
        assert!(message_key(&stream, &json!({"wiki_id": "enwiki"})).is_err());
        assert!(fits(&stream, Some(&key), &[0; 50]) && !fits(&stream, Some(&key), &[0; 60]));
    }

    #[test]
    fn times_have_milliseconds() {
        assert_eq!(timestamp_text(Timestamp::UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
    }
}
