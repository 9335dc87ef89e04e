//! What the API's answers mean. Pure. HTTP 200 proves nothing: every way in which content can be missing is looked for.

use std::{borrow::Cow, collections::BTreeMap, fmt, marker::PhantomData, time::Duration};

use serde::{
    Deserialize,
    de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor},
};
use serde_json::{Value, value::RawValue};

use super::{
    client::{self, Client},
    domain::Domain,
};
use crate::enrich::{fault::Fault, routes::Kind};

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
struct Envelope<'a, Q> {
    #[serde(borrow)]
    error: Option<ApiError<'a>>,
    query: Option<Q>,
    #[serde(default)]
    batchcomplete: bool,
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
    slots: Slots<'a>,
}

/// In the answer's order, so that a role that comes twice is seen.
#[derive(Default)]
struct Slots<'a>(Vec<(Cow<'a, str>, SlotPart<'a>)>);

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

impl<'de: 'a, 'a> Deserialize<'de> for Slots<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SlotsVisitor<'a>(PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for SlotsVisitor<'a> {
            type Value = Slots<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("slots by role")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut slots = Vec::new();
                while let Some((Role(role), slot)) = map.next_entry()? {
                    slots.push((role, slot));
                }
                Ok(Slots(slots))
            }

            /// PHP writes an empty map as `[]`.
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                match items.next_element::<IgnoredAny>()? {
                    None => Ok(Slots::default()),
                    Some(_) => Err(serde::de::Error::invalid_type(Unexpected::Seq, &self)),
                }
            }
        }
        deserializer.deserialize_any(SlotsVisitor(PhantomData))
    }
}

#[derive(Deserialize)]
struct Role<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads the part `query` of an answer.
///
/// # Errors
/// The API's own error, classified; `UnreadableAnswer` for anything that is not an answer of the API.
pub(super) fn read_query<'a, Q: Deserialize<'a>>(
    domain: &Domain,
    answer: &'a client::Answer,
) -> Result<(Q, Option<Continuation>), Fault> {
    let unreadable = |error: &serde_json::Error, what: &str| {
        let kind = if error.is_data() { Kind::OtherShape } else { Kind::NotJson };
        Fault::new(kind, format!("{domain}: {what}: {error}"))
    };
    let text = str::from_utf8(&answer.body)
        .map_err(|error| Fault::new(Kind::NotJson, format!("{domain}: the answer is not the API's JSON: {error}")))?;
    // In one pass, for it may be megabytes. Only an answer that cannot be read is looked at again: the API's own error counts,
    // whatever else there is.
    let envelope = serde_json::from_str::<Envelope<'_, Q>>(text).or_else(|why| {
        let envelope: Envelope<'_, IgnoredAny> =
            serde_json::from_str(text).map_err(|error| unreadable(&error, "the answer is not the API's JSON"))?;
        Err(match envelope.error {
            Some(error) => api_fault(domain, &error, answer.retry_after),
            None => unreadable(&why, "the answer's `query` is not as documented"),
        })
    })?;
    if let Some(error) = envelope.error {
        return Err(api_fault(domain, &error, answer.retry_after));
    }
    let query = match envelope.query {
        Some(query) => query,
        // So the API says that it has nothing: a redirect page whose target cannot be read is in none of its lists.
        None if envelope.batchcomplete => serde_json::from_str("{}")
            .map_err(|error| unreadable(&error, "the answer's `query` is not as documented"))?,
        None => return Err(Fault::new(Kind::OtherShape, format!("{domain}: the answer has no `query`"))),
    };
    let text = |value: Value| if let Value::String(text) = value { text } else { value.to_string() };
    let next = envelope.next.map(|next| next.into_iter().map(|(name, value)| (name, text(value))).collect());
    Ok((query, next))
}

/// Asks for nothing: whether the API answers at all.
///
/// # Errors
/// As [`read_query`].
pub(super) async fn probe(client: &Client, domain: &Domain) -> Result<(), Fault> {
    let answer = client.query(domain, &[]).await?;
    read_query::<IgnoredAny>(domain, &answer).map(drop)
}

/// Reads an answer to a query for revisions.
///
/// # Errors
/// As [`read_query`]. Faults of single revisions are in the answer.
pub(super) fn read_revisions(domain: &Domain, answer: &client::Answer) -> Result<RevisionsAnswer, Fault> {
    let (query, next) = read_query::<Query<'_>>(domain, answer)?;
    let mut revisions = Vec::new();
    if let Some(BadRevisions::ById(bad)) = query.badrevids {
        let not_found =
            |rev_id| Fault::new(Kind::BadRevision, format!("{domain} rev_id {rev_id}: reported in badrevids"));
        revisions.extend(bad.keys().filter_map(|id| id.parse().ok()).map(|rev_id| (rev_id, Err(not_found(rev_id)))));
    }
    for page in query.pages {
        for revision in page.revisions {
            let rev_id = revision.revid;
            let read = read_revision(page.pageid, &page.title, revision)
                .map_err(|(kind, what)| Fault::new(kind, format!("{domain} rev_id {rev_id}: {what}")));
            revisions.push((rev_id, read));
        }
    }
    Ok(RevisionsAnswer { revisions, next })
}

type Missing = (Kind, String);

fn read_revision(page_id: i64, title: &str, revision: RevisionPart<'_>) -> Result<Revision, Missing> {
    if revision.slotsmissing {
        return Err((Kind::SlotsMissing, "the wiki has lost its slots (slotsmissing)".to_owned()));
    }
    let mut slots = BTreeMap::new();
    for (role, slot) in revision.slots.0 {
        let read = read_slot(&role, slot, revision.texthidden)?;
        if slots.insert(role.to_string(), read).is_some() {
            return Err((Kind::Twice, format!("slot {role}: the answer has it twice")));
        }
    }
    if slots.is_empty() && !revision.texthidden {
        return Err((Kind::NoContent, "the answer has no slots".to_owned()));
    }
    Ok(Revision { page_id, page_title: title.to_owned(), slots })
}

fn read_slot(role: &str, slot: SlotPart<'_>, revision_hidden: bool) -> Result<Slot, Missing> {
    let missing = |kind, flag| Err((kind, format!("slot {role}: {flag}")));
    let content = match slot.content {
        _ if slot.missing => return missing(Kind::SlotMissing, "missing"),
        _ if slot.textmissing => return missing(Kind::TextMissing, "textmissing"),
        _ if slot.badcontentformat => return missing(Kind::BadContentFormat, "badcontentformat"),
        // MediaWiki answers so for a text that its operators have marked as lost.
        Some(raw) if raw.get() == "\"\"" && slot.size.is_some_and(|size| size > 0) => {
            return missing(Kind::TextMissing, "the text is empty, but has a size");
        }
        Some(raw) if raw.get().starts_with('"') => Content::Text(
            compact(raw)
                .ok_or_else(|| (Kind::BadContent, format!("slot {role}: the content is no valid Unicode text")))?,
        ),
        None if slot.texthidden || revision_hidden => Content::Hidden,
        Some(_) | None => return missing(Kind::NoContent, "the answer has no content"),
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
    let kind = match error.code.as_ref() {
        "maxlag" => Kind::MaxLag,
        "ratelimited" => Kind::ApiRateLimited,
        "readapidenied" | "permissiondenied" => Kind::ReadDenied,
        "toomanyvalues" => Kind::TooManyValues,
        "internal_api_error_MWUnknownContentModelException" => Kind::UnknownModel,
        "accessdenied" => Kind::PageDenied,
        // `internal_api_error_<class>` with HTTP 200, `readonly`, and what is not known: it may pass, and it ends as an
        // error event if it does not.
        _ => Kind::OtherApiError,
    };
    let info: String = error.info.chars().take(200).collect();
    let code: String = error.code.chars().take(100).collect();
    Fault { retry_after, ..Fault::new(kind, format!("{domain}: {code}: {info}")) }
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
