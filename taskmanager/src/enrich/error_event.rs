//! Error events of schema `/error/2.1.0`: what went wrong, with the input as it was.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;
use weir_common::raw_event::{REPLACED_NOTE, cut_note};

use super::{output::timestamp_text, stream::OutputStream};

/// Text taken from the input is hostile: bounded, so that the raw event has room.
const CONTEXT_CHARS_MAX: usize = 1000;
const MESSAGE_CHARS_MAX: usize = 2000;

#[derive(Serialize)]
struct ErrorEvent<'a> {
    #[serde(rename = "$schema")]
    schema: &'a str,
    meta: Meta<'a>,
    dt: &'a str,
    emitter_id: &'a str,
    error_type: &'a str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    errored_schema_uri: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errored_stream_name: Option<String>,
    raw_event: &'a str,
}

#[derive(Serialize)]
struct Meta<'a> {
    stream: &'a str,
    id: String,
    dt: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

/// Builds the event of at most `bytes_max` bytes (0: no limit). `input` is the event as far as it could be parsed.
///
/// A raw event that does not fit is cut, and bytes that are not UTF-8 are replaced; `message` says so.
#[must_use]
pub(crate) fn error_event(
    stream: &OutputStream,
    emitter_id: &str,
    (error_type, message): (&str, &str),
    raw: Option<&[u8]>,
    input: Option<&Value>,
    (now, bytes_max): (Timestamp, usize),
) -> Vec<u8> {
    let text = |pointer: &str| -> Option<String> {
        let text = input?.pointer(pointer)?.as_str().filter(|text| !text.is_empty())?;
        Some(text.chars().take(CONTEXT_CHARS_MAX).collect())
    };
    let dt = timestamp_text(now);
    let raw = raw.unwrap_or_default();
    let raw_text = String::from_utf8_lossy(raw);
    let mut event = ErrorEvent {
        schema: &stream.schema_uri,
        meta: Meta {
            stream: &stream.stream,
            id: Uuid::new_v4().to_string(),
            dt: &dt,
            domain: text("/meta/domain"),
            request_id: text("/meta/request_id"),
        },
        dt: &dt,
        emitter_id,
        error_type,
        message: message.chars().take(MESSAGE_CHARS_MAX).collect(),
        errored_schema_uri: text("/$schema"),
        errored_stream_name: text("/meta/stream"),
        raw_event: "",
    };
    if std::str::from_utf8(raw).is_err() {
        event.message.push_str(REPLACED_NOTE);
    }
    let full = raw_text.len();
    let note = cut_note(full);
    let taken = encode(&event).len() + note.len();
    let fitting = if bytes_max == 0 { full } else { fitting_prefix(&raw_text, bytes_max.saturating_sub(taken)) };
    if fitting < full {
        event.message.push_str(&note);
    }
    event.raw_event = &raw_text[..fitting];
    encode(&event)
}

fn encode(event: &ErrorEvent<'_>) -> Vec<u8> {
    serde_json::to_vec(event).expect("texts alone always have a JSON form")
}

/// Bytes of the longest prefix whose JSON form takes at most `budget` bytes.
fn fitting_prefix(text: &str, budget: usize) -> usize {
    let mut used = 0;
    for (at, char) in text.char_indices() {
        used += match char {
            '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
            '\0'..='\u{1f}' => 6,
            _ => char.len_utf8(),
        };
        if used > budget {
            return at;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> OutputStream {
        OutputStream {
            stream: "job.error".to_owned(),
            topic: "eqiad.job.error".to_owned(),
            schema_uri: "/error/2.1.0".to_owned(),
            message_key_fields: Vec::new(),
            max_message_bytes: 0,
        }
    }

    fn build(raw: &[u8], bytes_max: usize) -> (Value, usize) {
        let fault = ("MalformedInput", "input is not JSON");
        let bytes = error_event(&stream(), "job", fault, Some(raw), None, (Timestamp::UNIX_EPOCH, bytes_max));
        (serde_json::from_slice(&bytes).expect("JSON"), bytes.len())
    }

    #[test]
    fn large_inputs_are_cut_to_the_limit_and_the_message_says_so() {
        let raw = "\"é\u{1}\n".repeat(5000);
        let (event, length) = build(raw.as_bytes(), 4000);
        assert!((3900..=4000).contains(&length), "{length}");
        assert!(raw.starts_with(event["raw_event"].as_str().expect("text")));
        assert!(event["message"].as_str().expect("text").contains("the input has 25000 bytes"));
        assert_eq!(build(raw.as_bytes(), 0).0["raw_event"], raw);
    }

    #[test]
    fn foreign_bytes_are_shown_and_the_message_says_so() {
        let (event, _) = build(b"a\xffb", 1000);
        assert_eq!(event["raw_event"], "a\u{fffd}b");
        assert!(event["message"].as_str().expect("text").contains("not UTF-8"));
    }
}
