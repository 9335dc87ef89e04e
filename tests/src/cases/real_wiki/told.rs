//! The events that are told to the job, and what must become of them.

use anyhow::Context;
use serde_json::{Value, json};

use super::{
    ARABIC, ODD, Wiki, event,
    kinds::{BIG, Kind, MOVED_REDIRECT, Then},
};
use crate::{
    checker::truth::mediawiki::{MediaWikis, Revision, prefixed},
    harness::kafka::Input,
};

/// One event.
pub(super) struct Told {
    pub(super) event: Value,
    /// What must become of it, where what the wikis hold does not say.
    pub(super) wanted: Option<Wanted>,
}

/// See [`Told`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    /// An error event of this type.
    Error(&'static str),
    /// An output that says nothing of a namespace below zero, neither of the page's nor of its redirect's target.
    NoNamespace,
}

impl Told {
    pub(super) fn input(&self, topic: &str) -> Input {
        let key = format!(r#"{{"wiki_id":{},"page_id":{}}}"#, self.event["wiki_id"], self.event["page"]["page_id"]);
        Input { topic: topic.to_owned(), key: Some(key.into_bytes()), value: Some(self.event.to_string().into_bytes()) }
    }
}

/// The newest revision of a page, deleted ones included.
///
/// # Errors
/// There is no such page.
pub(super) fn newest<'a>(truth: &'a MediaWikis, wiki: Wiki, title: &str) -> anyhow::Result<&'a Revision> {
    let key = title.replace(' ', "_");
    let of_page = |(domain, revision): &(&str, &Revision)| *domain == wiki.1 && full_title(revision) == key;
    truth
        .revisions()
        .into_iter()
        .rfind(of_page)
        .map(|(_, revision)| revision)
        .with_context(|| format!("no page {title}"))
}

fn full_title(revision: &Revision) -> String {
    prefixed(revision.page_namespace, &revision.page_title)
}

/// Events about all revisions of a page of these wikis.
pub(super) fn of_page(stream: &str, truth: &MediaWikis, wikis: [Wiki; 2], title: &str) -> Vec<Told> {
    let key = title.replace(' ', "_");
    let all =
        wikis.into_iter().flat_map(|wiki| of_wiki(truth, wiki)).filter(|(_, revision)| full_title(revision) == key);
    let event = |(number, (wiki, revision))| event::about(stream, wiki, revision, number);
    all.enumerate().map(event).map(|event| Told { event, wanted: None }).collect()
}

/// Events about every revision of the odd wikis, and about some that there are not.
///
/// # Errors
/// A page was not made.
pub(super) fn every_kind(stream: &str, truth: &MediaWikis, kinds: &[Kind]) -> anyhow::Result<Vec<Told>> {
    let mut told = Vec::new();
    for (wiki, revision) in of_wiki(truth, ODD).chain(of_wiki(truth, ARABIC)) {
        let title = full_title(revision);
        let kind = kinds.iter().find(|kind| wiki == ODD && kind.title.replace(' ', "_") == title);
        let is_newest = newest(truth, wiki, &title)?.rev_id == revision.rev_id;
        let wanted = match kind.filter(|_| is_newest).map(|kind| &kind.then) {
            Some(Then::Error(error_type)) => Some(Wanted::Error(error_type)),
            Some(Then::NoNamespace) => Some(Wanted::NoNamespace),
            _ if revision.archived == 1 => Some(Wanted::Error("BadRevision")),
            Some(Then::Stored | Then::Shown(_)) | None => None,
        };
        told.push(Told { event: event::about(stream, wiki, revision, told.len()), wanted });
        if revision.rev_deleted != 0 {
            // As it was told before it was hidden.
            let before = Revision { rev_deleted: 0, ..revision.clone() };
            told.push(Told { event: event::about(stream, wiki, &before, told.len()), wanted });
        }
    }
    told.extend(special(stream, truth)?);
    Ok(told)
}

/// Events of large pages that declare little: asked for together, they fill more than one answer.
///
/// # Errors
/// A page was not made.
pub(super) fn understated(stream: &str, truth: &MediaWikis) -> anyhow::Result<Vec<Told>> {
    let one = |number: usize| {
        let mut event = event::about(stream, ODD, newest(truth, ODD, &format!("Big {number}"))?, number);
        event["revision"]["content_slots"]["main"]["content_size"] = 10.into();
        Ok(Told { event, wanted: None })
    };
    (0..BIG).map(one).collect()
}

/// Events of redirects.
///
/// # Errors
/// A page was not made.
pub(super) fn redirects(stream: &str, truth: &MediaWikis, kinds: &[Kind]) -> anyhow::Result<Vec<Told>> {
    let mut told = Vec::new();
    for kind in kinds.iter().filter(|kind| kind.title.contains("Redirect") && matches!(kind.then, Then::Stored)) {
        let event = event::about(stream, ODD, newest(truth, ODD, &kind.title)?, told.len());
        told.push(Told { event, wanted: None });
    }
    Ok(told)
}

/// What no database says of itself.
fn special(stream: &str, truth: &MediaWikis) -> anyhow::Result<Vec<Told>> {
    let about = |title: &str| anyhow::Ok(event::about(stream, ODD, newest(truth, ODD, title)?, 0));
    let mut told = Vec::new();
    let mut tell = |wanted: Option<Wanted>, event: Value| told.push(Told { event, wanted });

    // A declared size that lies.
    let mut event = about("Empty")?;
    event["revision"]["content_slots"]["main"]["content_size"] = 9_007_199_254_740_991_i64.into();
    event["revision"]["content_slots"]["main"]["content_sha1"] = "wrong".into();
    tell(None, event);

    // Slots that the event and the wiki do not have in common.
    let mut event = about("Plain text")?;
    event["revision"]["content_slots"]["mediainfo"] = json!({"slot_role": "mediainfo", "content_size": 1});
    tell(Some(Wanted::Error("SlotMissing")), event);
    let mut event = about("Two slots")?;
    event["revision"]["content_slots"] = json!({});
    tell(None, event);

    // Before it was moved, the page had the title that its redirect has now.
    let mut event = about(MOVED_REDIRECT[1])?;
    event["page"]["page_title"] = MOVED_REDIRECT[0].replace(' ', "_").into();
    tell(None, event);
    let mut event = about("Plain text")?;
    event["page"]["is_redirect"] = true.into();
    tell(None, event);
    // As after a merge of histories: the revision is another page's by now.
    let mut event = about("Composed")?;
    event["page"]["page_id"] = newest(truth, ODD, "Empty")?.page_id.into();
    tell(None, event);

    // Revisions that never were.
    for rev_id in [900_000_999_i64, 9_007_199_254_740_991] {
        let mut event = about("Plain text")?;
        event["revision"]["rev_id"] = rev_id.into();
        tell(Some(Wanted::Error("BadRevision")), event);
    }
    let mut event = about("Plain text")?;
    event["page"]["namespace_id"] = (-1).into();
    tell(Some(Wanted::NoNamespace), event);
    let mut event = about("Plain text")?;
    event["revision"]["rev_id"] = 0.into();
    tell(Some(Wanted::Error("InvalidInput")), event);

    let mut event = about("Deleted")?;
    (event["page_change_kind"], event["changelog_kind"]) = ("delete".into(), "delete".into());
    tell(None, event);
    Ok(told)
}

fn of_wiki(truth: &MediaWikis, wiki: Wiki) -> impl Iterator<Item = (Wiki, &Revision)> {
    truth
        .revisions()
        .into_iter()
        .filter(move |(domain, _)| *domain == wiki.1)
        .map(move |(_, revision)| (wiki, revision))
}
