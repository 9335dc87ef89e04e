//! Reads a reconcile event: any bytes in, what becomes of it out. Never panics; what cannot be read says why.

use std::{borrow::Cow, collections::HashMap};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::{api::Domain, fault::Fault, routes::Kind, strict};

/// Larger inputs are refused: parsed, they would take many times their size. Events without content are a few KB.
const INPUT_BYTES_MAX: usize = 2 * 1024 * 1024;

/// What becomes of an event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Treatment {
    /// `meta.domain` is `canary`: dropped.
    Canary,
    /// Of a kind for which there is no content to ask for, as a page's deletion.
    PassThrough,
    /// Content and perhaps redirect target are asked for.
    Enrich(Target),
}

/// What to ask the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The wiki.
    pub(crate) domain: Domain,
    /// For messages.
    pub(crate) wiki_id: String,
    /// The revision.
    pub(crate) rev_id: i64,
    /// The page by the event, which the API's answer never overwrites.
    pub(crate) page_id: i64,
    /// Prefixed DB key.
    pub(crate) page_title: String,
    /// Whether the redirect target is asked for.
    pub(crate) is_redirect: bool,
    /// False: no body, whatever the API shows.
    pub(crate) content_visible: bool,
    /// Roles of the slots that the event lists.
    pub(crate) roles: Vec<String>,
    /// Sum of the slots' declared sizes.
    pub(crate) content_bytes: u64,
}

/// Parses the event.
///
/// # Errors
/// `MalformedInput` and what is wrong.
pub(crate) fn parse(bytes: Option<&[u8]>) -> Result<Value, Fault> {
    let malformed = |message: String| Err(Fault::new(Kind::MalformedInput, message));
    let Some(bytes) = bytes else { return malformed("the record has no value (tombstone)".to_owned()) };
    if bytes.is_empty() {
        return malformed("the record is empty".to_owned());
    }
    if bytes.len() > INPUT_BYTES_MAX {
        return malformed(format!("the record has {} bytes, more than the {INPUT_BYTES_MAX} accepted", bytes.len()));
    }
    match strict::from_slice(bytes) {
        Ok(Value::Object(fields)) => Ok(Value::Object(fields)),
        Ok(_) => malformed("input is not a JSON object".to_owned()),
        Err(error) => malformed(format!("input is not JSON: {error}")),
    }
}

/// Whether the event is a canary, which nobody validates.
#[must_use]
pub(crate) fn is_canary(event: &Value) -> bool {
    event.pointer("/meta/domain").and_then(Value::as_str) == Some("canary")
}

/// Decides what becomes of a valid event. `passed_through`: kinds of changes for which nothing is fetched.
///
/// # Errors
/// `InvalidInput`, naming the field that is missing or wrong.
pub(crate) fn treatment(event: &Value, passed_through: &[&str]) -> Result<Treatment, Fault> {
    if is_canary(event) {
        return Ok(Treatment::Canary);
    }
    let kind = string(event, "/page_change_kind")?;
    string(event, "/changelog_kind")?;
    let target = |domain| -> Result<Target, Fault> {
        let slots = event.pointer("/revision/content_slots").and_then(Value::as_object);
        let sizes = slots.into_iter().flatten().filter_map(|(_, slot)| slot.get("content_size")?.as_u64());
        Ok(Target {
            domain,
            wiki_id: string(event, "/wiki_id")?.to_owned(),
            rev_id: integer(event, "/revision/rev_id", 1)?,
            page_id: integer(event, "/page/page_id", 0)?,
            page_title: string(event, "/page/page_title")?.to_owned(),
            is_redirect: event.pointer("/page/is_redirect") == Some(&Value::Bool(true)),
            content_visible: event.pointer("/revision/is_content_visible") != Some(&Value::Bool(false)),
            roles: slots.into_iter().flatten().map(|(role, _)| role.clone()).collect(),
            content_bytes: sizes.fold(0, u64::saturating_add),
        })
    };
    if passed_through.contains(&kind) {
        // Nothing is asked, but what names the page must be there: the key is made of it.
        string(event, "/wiki_id")?;
        integer(event, "/page/page_id", 0)?;
        return Ok(Treatment::PassThrough);
    }
    let domain = string(event, "/meta/domain")?;
    let domain = domain.parse::<Domain>().map_err(|reason| invalid(format!("meta.domain: {reason}")))?;
    Ok(Treatment::Enrich(target(domain)?))
}

/// The event's `dt`.
///
/// # Errors
/// `InvalidInput` if it is missing or no timestamp.
pub(crate) fn event_time(event: &Value) -> Result<Timestamp, Fault> {
    string(event, "/dt")?.parse().map_err(|error| invalid(format!("dt is not an ISO-8601 time: {error}")))
}

/// When the event was produced, `meta.dt`.
#[must_use]
pub(crate) fn produced_at(event: &Value) -> Option<Timestamp> {
    event.pointer("/meta/dt")?.as_str()?.parse().ok()
}

fn string<'a>(event: &'a Value, pointer: &str) -> Result<&'a str, Fault> {
    match event.pointer(pointer) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        Some(_) => Err(invalid(format!("{} is not a text", dotted(pointer)))),
        None => Err(invalid(format!("{} is missing", dotted(pointer)))),
    }
}

fn integer(event: &Value, pointer: &str, minimum: i64) -> Result<i64, Fault> {
    let number = event.pointer(pointer).ok_or_else(|| invalid(format!("{} is missing", dotted(pointer))))?;
    number
        .as_i64()
        .filter(|number| *number >= minimum)
        .ok_or_else(|| invalid(format!("{} is not a whole number of at least {minimum}", dotted(pointer))))
}

fn dotted(pointer: &str) -> String {
    pointer[1..].replace('/', ".")
}

fn invalid(message: String) -> Fault {
    Fault::new(Kind::InvalidInput, message)
}

/// What little of an event the runtime needs before the work starts. Everything else is skipped unread.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Sketch<'a> {
    #[serde(borrow, default)]
    wiki_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    page_change_kind: Option<Cow<'a, str>>,
    #[serde(default)]
    page: Option<PageSketch>,
    #[serde(borrow, default)]
    revision: Option<RevisionSketch<'a>>,
}

#[derive(Clone, Debug, Deserialize)]
struct PageSketch {
    #[serde(default)]
    page_id: Option<i64>,
}

#[derive(Clone, Debug, Deserialize)]
struct RevisionSketch<'a> {
    #[serde(borrow, default)]
    content_slots: Option<HashMap<Cow<'a, str>, SlotSketch>>,
}

#[derive(Clone, Debug, Deserialize)]
struct SlotSketch {
    #[serde(default)]
    content_size: Option<u64>,
}

impl<'a> Sketch<'a> {
    /// `None` if it cannot be read: such a record ends as an error event.
    #[must_use]
    pub(crate) fn read(bytes: Option<&'a [u8]>) -> Option<Self> {
        bytes.filter(|bytes| bytes.len() <= INPUT_BYTES_MAX).and_then(|bytes| serde_json::from_slice(bytes).ok())
    }

    /// Wiki and page.
    #[must_use]
    pub(crate) fn page(&self) -> Option<(String, i64)> {
        Some((self.wiki_id.as_deref()?.to_owned(), self.page.as_ref()?.page_id?))
    }

    /// Bytes of content that will be fetched, by what the event declares.
    #[must_use]
    pub(crate) fn content_bytes(&self) -> u64 {
        if self.page_change_kind.as_deref() == Some("delete") {
            return 0;
        }
        let slots = self.revision.iter().filter_map(|revision| revision.content_slots.as_ref()).flatten();
        slots.filter_map(|(_, slot)| slot.content_size).fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event() -> Value {
        json!({
            "meta": {"domain": "en.wikipedia.org"}, "changelog_kind": "update", "page_change_kind": "edit",
            "wiki_id": "enwiki", "page": {"page_id": 7, "page_title": "A_b"},
            "revision": {"rev_id": 9, "content_slots": {"main": {"content_size": 5}, "x": {}}},
        })
    }

    fn error_of(change: impl Fn(&mut Value)) -> String {
        let mut event = event();
        change(&mut event);
        treatment(&event, &["delete"]).expect_err("invalid").message
    }

    #[test]
    fn treatments() {
        let Ok(Treatment::Enrich(target)) = treatment(&event(), &["delete"]) else { panic!("an edit is enriched") };
        assert_eq!((target.rev_id, target.page_id, target.content_bytes), (9, 7, 5));
        assert!(target.content_visible && !target.is_redirect);
        let mut canary = event();
        canary["meta"]["domain"] = json!("canary");
        assert_eq!(treatment(&canary, &[]), Ok(Treatment::Canary));
        let mut delete = event();
        delete["page_change_kind"] = json!("delete");
        assert_eq!(treatment(&delete, &["delete"]), Ok(Treatment::PassThrough));
        assert!(matches!(treatment(&delete, &["edit"]), Ok(Treatment::Enrich(_))));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(error_of(|event| event["wiki_id"] = json!(5)), "wiki_id is not a text");
        assert_eq!(error_of(|event| event["page"] = json!({})), "page.page_id is missing");
        assert_eq!(error_of(|event| event["page"] = json!([])), "page.page_id is missing");
        let rev_id = "revision.rev_id is not a whole number of at least 1";
        assert_eq!(error_of(|event| event["revision"]["rev_id"] = json!(0)), rev_id);
        assert_eq!(error_of(|event| event["revision"]["rev_id"] = json!(1e300)), rev_id);
        assert!(error_of(|event| event["meta"]["domain"] = json!("a.b/c")).starts_with("meta.domain: "));
    }

    #[test]
    fn hostile_bytes_are_refused_with_a_reason() {
        let deep = "[".repeat(200_000);
        let large = vec![b' '; INPUT_BYTES_MAX + 1];
        for bytes in [&b""[..], b"null", b"[]", b"\xff\xfe", b"{\"a\":", deep.as_bytes(), &large] {
            assert_eq!(parse(Some(bytes)).expect_err("refused").kind, Kind::MalformedInput);
        }
        assert!(parse(None).is_err());
    }

    #[test]
    fn sketches_are_lenient_and_bounded() {
        let text = event().to_string();
        let sketch = Sketch::read(Some(text.as_bytes())).expect("readable");
        assert_eq!((sketch.page(), sketch.content_bytes()), (Some(("enwiki".to_owned(), 7)), 5));
        assert!(Sketch::read(Some(b"{\"page\":")).is_none());
        let huge =
            r#"{"revision":{"content_slots":{"a":{"content_size":18446744073709551615},"b":{"content_size":9}}}}"#;
        assert_eq!(Sketch::read(Some(huge.as_bytes())).map(|sketch| sketch.content_bytes()), Some(u64::MAX));
    }
}
