//! What the API's answers mean. Pure. HTTP 200 proves nothing: every way in which content can be missing is looked for.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, value::RawValue};

use super::{client, domain::Domain};
use crate::enrich::fault::{Fault, FaultClass};

/// A revision as the API knows it. Page and title are only for finding the redirect: the event's are never replaced.
#[derive(Clone, Debug)]
pub(crate) struct Revision {
    /// The page that the revision belongs to now.
    pub(crate) page_id: i64,
    /// Its title, with spaces.
    pub(crate) page_title: String,
    /// All slots, by role.
    pub(crate) slots: BTreeMap<String, Slot>,
}

/// One slot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot {
    /// Content model.
    pub(crate) model: Option<String>,
    /// Content format; only comes with content.
    pub(crate) format: Option<String>,
    /// Bytes.
    pub(crate) size: Option<u64>,
    /// 40 hex digits.
    pub(crate) sha1: Option<String>,
    /// The body.
    pub(crate) content: Content,
}

/// Body of a slot.
#[derive(Clone, Debug, Default)]
pub(crate) enum Content {
    /// A JSON string as the API wrote it.
    Text(Box<RawValue>),
    /// Hidden or suppressed.
    #[default]
    Hidden,
}

/// Parameters that continue a query, to be sent back as they came.
pub(super) type Continuation = BTreeMap<String, String>;

/// One answer to a query for revisions.
#[derive(Debug, Default)]
pub(super) struct RevisionsAnswer {
    pub(crate) revisions: Vec<(i64, Result<Revision, Fault>)>,
    pub(crate) next: Option<Continuation>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    error: Option<ApiError<'a>>,
    #[serde(borrow)]
    query: Option<&'a RawValue>,
    #[serde(rename = "continue")]
    next: Option<BTreeMap<String, Value>>,
}

#[derive(Deserialize)]
struct ApiError<'a> {
    #[serde(borrow)]
    code: Cow<'a, str>,
    #[serde(borrow, default)]
    info: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Query<'a> {
    #[serde(borrow, default)]
    pages: Vec<Page<'a>>,
    #[serde(default)]
    badrevids: Option<BadRevisions>,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(default)]
    pageid: i64,
    #[serde(borrow, default)]
    title: Cow<'a, str>,
    #[serde(borrow, default)]
    revisions: Vec<RevisionPart<'a>>,
}

#[derive(Deserialize)]
struct RevisionPart<'a> {
    revid: i64,
    #[serde(default)]
    slotsmissing: bool,
    #[serde(default)]
    texthidden: bool,
    #[serde(borrow, default)]
    slots: BTreeMap<Cow<'a, str>, SlotPart<'a>>,
}

#[derive(Deserialize)]
struct SlotPart<'a> {
    size: Option<u64>,
    #[serde(borrow)]
    sha1: Option<Cow<'a, str>>,
    #[serde(borrow)]
    contentmodel: Option<Cow<'a, str>>,
    #[serde(borrow)]
    contentformat: Option<Cow<'a, str>>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(default)]
    missing: bool,
    #[serde(default)]
    texthidden: bool,
    #[serde(default)]
    textmissing: bool,
    #[serde(default)]
    badcontentformat: bool,
}

/// PHP writes an empty map as `[]`.
#[derive(Deserialize)]
#[serde(untagged)]
enum BadRevisions {
    ById(BTreeMap<String, IgnoredAny>),
    #[allow(dead_code, reason = "only its shape matters")]
    Empty([IgnoredAny; 0]),
}

/// Reads the part `query` of an answer.
///
/// # Errors
/// The API's own error, classified; `UnreadableAnswer` for anything that is not an answer of the API.
pub(super) fn read_query<'a, Q: Deserialize<'a>>(
    domain: &Domain,
    answer: &'a client::Answer,
) -> Result<(Q, Option<Continuation>), Fault> {
    let unreadable = |why: String| Fault::transient("UnreadableAnswer", format!("{domain}: {why}"));
    let envelope: Envelope<'_> = serde_json::from_slice(&answer.body)
        .map_err(|error| unreadable(format!("the answer is not the API's JSON: {error}")))?;
    if let Some(error) = envelope.error {
        return Err(api_fault(domain, &error, answer.retry_after));
    }
    let query = envelope.query.ok_or_else(|| unreadable("the answer has no `query`".to_owned()))?;
    let query = serde_json::from_str(query.get())
        .map_err(|error| unreadable(format!("the answer's `query` is not as documented: {error}")))?;
    let text = |value: Value| if let Value::String(text) = value { text } else { value.to_string() };
    let next = envelope.next.map(|next| next.into_iter().map(|(name, value)| (name, text(value))).collect());
    Ok((query, next))
}

/// Reads an answer to a query for revisions.
///
/// # Errors
/// As [`read_query`]. Faults of single revisions are in the answer.
pub(super) fn read_revisions(domain: &Domain, answer: &client::Answer) -> Result<RevisionsAnswer, Fault> {
    let (query, next) = read_query::<Query<'_>>(domain, answer)?;
    let mut revisions = Vec::new();
    if let Some(BadRevisions::ById(bad)) = query.badrevids {
        let not_found = |rev_id| {
            Fault::new(FaultClass::NotFound, "BadRevision", format!("{domain} rev_id {rev_id}: reported in badrevids"))
        };
        revisions.extend(bad.keys().filter_map(|id| id.parse().ok()).map(|rev_id| (rev_id, Err(not_found(rev_id)))));
    }
    for page in query.pages {
        for revision in page.revisions {
            let rev_id = revision.revid;
            let read = read_revision(page.pageid, &page.title, revision).map_err(|(error_type, what)| {
                Fault::permanent(error_type, format!("{domain} rev_id {rev_id}: {what}"))
            });
            revisions.push((rev_id, read));
        }
    }
    Ok(RevisionsAnswer { revisions, next })
}

type Missing = (&'static str, String);

fn read_revision(page_id: i64, title: &str, revision: RevisionPart<'_>) -> Result<Revision, Missing> {
    if revision.slotsmissing {
        return Err(("SlotsMissing", "the wiki has lost its slots (slotsmissing)".to_owned()));
    }
    let mut slots = BTreeMap::new();
    for (role, slot) in revision.slots {
        let read = read_slot(&role, slot, revision.texthidden)?;
        slots.insert(role.into_owned(), read);
    }
    if slots.is_empty() && !revision.texthidden {
        return Err(("NoContent", "the answer has no slots".to_owned()));
    }
    Ok(Revision { page_id, page_title: title.to_owned(), slots })
}

fn read_slot(role: &str, slot: SlotPart<'_>, revision_hidden: bool) -> Result<Slot, Missing> {
    let missing = |error_type, flag| Err((error_type, format!("slot {role}: {flag}")));
    let content = match slot.content {
        _ if slot.missing => return missing("SlotMissing", "missing"),
        _ if slot.textmissing => return missing("TextMissing", "textmissing"),
        _ if slot.badcontentformat => return missing("BadContentFormat", "badcontentformat"),
        Some(raw) if raw.get().starts_with('"') => Content::Text(
            compact(raw).ok_or_else(|| ("BadContent", format!("slot {role}: the content is no valid Unicode text")))?,
        ),
        None if slot.texthidden || revision_hidden => Content::Hidden,
        Some(_) | None => return missing("NoContent", "the answer has no content"),
    };
    let owned = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned);
    Ok(Slot {
        model: owned(slot.contentmodel),
        format: owned(slot.contentformat),
        size: slot.size,
        sha1: owned(slot.sha1),
        content,
    })
}

/// The string itself where it is as short as can be; rewritten where it has `\u` escapes, which could double its size or
/// hide halves of surrogate pairs that no consumer can read.
fn compact(raw: &RawValue) -> Option<Box<RawValue>> {
    if !raw.get().contains("\\u") && !raw.get().contains("\\/") {
        return Some(raw.to_owned());
    }
    let text: String = serde_json::from_str(raw.get()).ok()?;
    serde_json::value::to_raw_value(&text).ok()
}

fn api_fault(domain: &Domain, error: &ApiError<'_>, retry_after: Option<Duration>) -> Fault {
    let (class, error_type) = match error.code.as_ref() {
        "maxlag" => (FaultClass::Overloaded, "MaxLag"),
        "ratelimited" => (FaultClass::Overloaded, "RateLimited"),
        "readapidenied" | "permissiondenied" => (FaultClass::Permanent, "ReadApiDenied"),
        "toomanyvalues" => (FaultClass::TooMuch, "ApiError"),
        // `internal_api_error_<class>` with HTTP 200, `readonly`, and what is not known: it may pass, and it ends as an
        // error event if it does not.
        _ => (FaultClass::Transient, "ApiError"),
    };
    let info: String = error.info.chars().take(200).collect();
    let code: String = error.code.chars().take(100).collect();
    Fault { retry_after, ..Fault::new(class, error_type, format!("{domain}: {code}: {info}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<RevisionsAnswer, Fault> {
        let answer = client::Answer { body: body.as_bytes().to_vec(), retry_after: Some(Duration::from_secs(5)) };
        read_revisions(&"a.b".parse().expect("a name"), &answer)
    }

    fn read_one_slot(slot: &str) -> Result<Revision, Fault> {
        let body = format!(
            r#"{{"query":{{"pages":[{{"pageid":1,"title":"A","revisions":[{{"revid":9,"slots":{{"main":{slot}}}}}]}}]}}}}"#
        );
        read(&body).expect("an answer").revisions.remove(0).1
    }

    #[test]
    fn faults_of_slots() {
        for (slot, wanted) in [
            (r#"{"missing":true}"#, "SlotMissing"),
            (r#"{"textmissing":true}"#, "TextMissing"),
            (r#"{"badcontentformat":true}"#, "BadContentFormat"),
            (r#"{"contentmodel":"wikitext"}"#, "NoContent"),
            (r#"{"content":7}"#, "NoContent"),
            (r#"{"content":"\ud800"}"#, "BadContent"),
        ] {
            let fault = read_one_slot(slot).expect_err(slot);
            assert_eq!((fault.class, fault.error_type), (FaultClass::Permanent, wanted), "{slot}");
        }
        let hidden = read_one_slot(r#"{"contentmodel":"wikitext","texthidden":true}"#).expect("hidden is no fault");
        assert!(matches!(hidden.slots["main"].content, Content::Hidden));
    }

    #[test]
    fn content_is_copied_or_compacted() {
        for (content, wanted) in [(r#""a\n\"é""#, r#""a\n\"é""#), (r#""\u00e9\/\ud83c\udfbb""#, r#""é/🎻""#)] {
            let revision = read_one_slot(&format!(r#"{{"content":{content}}}"#)).expect("content");
            let Content::Text(text) = &revision.slots["main"].content else { panic!("not hidden") };
            assert_eq!(text.get(), wanted);
        }
    }

    #[test]
    fn answers_that_are_no_answers() {
        for body in ["", "<html>", "[]", "null", "{}", r#"{"query":{"pages":7}}"#] {
            let fault = read(body).expect_err(body);
            assert_eq!((fault.class, fault.error_type), (FaultClass::Transient, "UnreadableAnswer"), "{body}");
        }
    }

    #[test]
    fn errors_with_http_200() {
        for (code, class) in [
            ("maxlag", FaultClass::Overloaded),
            ("ratelimited", FaultClass::Overloaded),
            ("readapidenied", FaultClass::Permanent),
            ("toomanyvalues", FaultClass::TooMuch),
            ("internal_api_error_DBQueryError", FaultClass::Transient),
            ("brand-new", FaultClass::Transient),
        ] {
            let fault = read(&format!(r#"{{"error":{{"code":"{code}","info":"i"}}}}"#)).expect_err(code);
            assert_eq!((fault.class, fault.retry_after), (class, Some(Duration::from_secs(5))), "{code}");
        }
    }

    #[test]
    fn bad_revisions_and_continuation() {
        let answer = read(r#"{"continue":{"rvcontinue":5,"continue":"||"},"query":{"badrevids":{"7":{"missing":true}},"pages":[{"pageid":1,"title":"A"}]}}"#)
            .expect("an answer");
        assert_eq!(answer.revisions.len(), 1);
        assert_eq!(answer.revisions[0].1.as_ref().expect_err("unknown").class, FaultClass::NotFound);
        let next = answer.next.expect("continues");
        assert_eq!((next["rvcontinue"].as_str(), next["continue"].as_str()), ("5", "||"));
        assert!(read(r#"{"query":{"badrevids":[]}}"#).expect("an answer").revisions.is_empty());
    }
}
