//! What an output and an error event must look like, given their input.

use std::collections::BTreeMap;

use super::{
    Job, Record, Rule, Verdict, at,
    event::Expected,
    json::{self, Difference},
    schema::Schemas,
    truth::{Link, Slot},
};

pub(super) struct Rules<'a> {
    pub(super) job: &'a Job,
    pub(super) schemas: &'a Schemas,
}

impl Rules<'_> {
    pub(super) fn output(&self, input: &Record, output: &Record, expected: &Expected, verdict: &mut Verdict) {
        let here = at(output);
        let (Some(before), Some(after)) = (input.text(), output.text()) else {
            return verdict.add(Rule::Identity, format!("{here}: output or its input is not text"));
        };
        if let Some(why) = self.schemas.page_change.why_invalid(after) {
            verdict.add(Rule::Schema, format!("{here}: {why}"));
        }
        self.meta(after, &self.job.sink_stream, &self.job.sink_schema, &here, verdict);
        key(before, output, &here, verdict);
        timestamp(after, output, &here, verdict);
        match json::differences(before, after) {
            Err(why) => verdict.add(Rule::Identity, format!("{here}: {why}")),
            Ok(found) => {
                for (path, difference) in found {
                    let path: Vec<&str> = path.iter().map(String::as_str).collect();
                    judge(&path, &difference, expected, &here, verdict);
                }
            }
        }
        if let Expected::Enriched { slots, redirect, .. } = expected {
            bodies(after, slots, &here, verdict);
            if let Some(link) = redirect {
                redirect_link(after, link, &here, verdict);
            }
        }
    }

    pub(super) fn error_event(&self, input: &Record, event: &Record, verdict: &mut Verdict) {
        let here = at(event);
        let Some(text) = event.text() else {
            return verdict.add(Rule::Schema, format!("{here}: not text"));
        };
        if let Some(why) = self.schemas.error.why_invalid(text) {
            verdict.add(Rule::Schema, format!("{here}: {why}"));
        }
        self.meta(text, &self.job.error_stream, "/error/2.1.0", &here, verdict);
        if event.key.is_some() {
            verdict.add(Rule::Key, format!("{here}: the error stream has no key fields, the event has a key"));
        }
        let raw = String::from_utf8_lossy(input.value.as_deref().unwrap_or_default()).into_owned();
        if json::text_at(text, &["raw_event"]).as_deref() != Some(raw.as_str()) {
            verdict.add(Rule::RawEvent, format!("{here}: raw_event is not the input of {}", at(input)));
        }
        // The stream that the event itself names, or the one that it was read from.
        let named = input.text().and_then(|text| json::text_at(text, &["meta", "stream"]));
        let stream = json::text_at(text, &["errored_stream_name"]);
        if stream.is_some() && stream != named && stream.as_ref() != Some(&self.job.source_stream) {
            verdict.add(Rule::RawEvent, format!("{here}: errored_stream_name is {stream:?}"));
        }
        if let Some(domain) = input.text().and_then(|text| json::text_at(text, &["meta", "domain"]))
            && json::text_at(text, &["meta", "domain"]).is_some_and(|found| found != domain)
        {
            verdict.add(Rule::Meta, format!("{here}: meta.domain is not the input's"));
        }
    }

    fn meta(&self, event: &str, stream: &str, schema: &str, here: &str, verdict: &mut Verdict) {
        let mut want = |path: &[&str], right: &dyn Fn(&str) -> bool| {
            let found = json::text_at(event, path);
            if !found.as_deref().is_some_and(right) {
                verdict.add(Rule::Meta, format!("{here}: {} is {found:?}", path.join(".")));
            }
        };
        want(&["meta", "stream"], &|found| found == stream);
        want(&["$schema"], &|found| found == schema);
        want(&["meta", "id"], &|found| uuid::Uuid::parse_str(found).is_ok());
        want(&["meta", "dt"], &|found| found.parse::<jiff::Timestamp>().is_ok());
    }
}

/// Is this difference between input and output one that was asked for?
fn judge(path: &[&str], difference: &Difference, expected: &Expected, here: &str, verdict: &mut Verdict) {
    let enriched = match expected {
        Expected::Enriched { slots, redirect, pruned } => Some((slots, redirect, pruned)),
        _ => None,
    };
    let dotted = path.join(".");
    let fine = match (path, difference) {
        // Their values have rules of their own.
        (["$schema"] | ["meta", "stream" | "id" | "dt"], Difference::Changed(_) | Difference::Added(_)) => true,
        (_, Difference::Removed) => enriched.is_some_and(|(_, _, pruned)| {
            pruned.iter().any(|prefix| dotted == *prefix || dotted.starts_with(&format!("{prefix}.")))
        }),
        (
            ["revision", "content_slots", role, "content_body" | "content_format" | "content_model"],
            Difference::Added(_) | Difference::Changed(_),
        ) => enriched.is_some_and(|(slots, ..)| slots.contains_key(*role)),
        (["revision", "content_slots", role], Difference::Added(_)) => {
            enriched.is_some_and(|(slots, ..)| slots.contains_key(*role))
        }
        // The target is the page's present one, whether or not the revision's text is hidden.
        (["page", "redirect_page_link", ..], Difference::Added(_) | Difference::Changed(_)) => {
            enriched.map_or(*expected == Expected::WithoutBody, |(_, redirect, _)| redirect.is_some())
        }
        _ => false,
    };
    if !fine {
        let value = match difference {
            Difference::Added(text) => format!("added: {}", shorten(text)),
            Difference::Changed(text) => format!("changed to {}", shorten(text)),
            Difference::Removed => "removed".to_owned(),
            Difference::Reordered => "fields reordered".to_owned(),
        };
        let rule = if dotted.ends_with("content_body") { Rule::Content } else { Rule::Identity };
        verdict.add(rule, format!("{here}: {dotted} {value}"));
    }
}

fn bodies(after: &str, slots: &BTreeMap<String, Slot>, here: &str, verdict: &mut Verdict) {
    for (role, slot) in slots {
        let field = |name: &str| json::text_at(after, &["revision", "content_slots", role, name]);
        match field("content_body") {
            None => verdict.add(Rule::Content, format!("{here}: slot {role} has no content_body")),
            Some(body) if body != slot.body => verdict.add(
                Rule::Content,
                format!(
                    "{here}: slot {role} has {} bytes, the wiki {}; first difference at byte {}",
                    body.len(),
                    slot.body.len(),
                    body.bytes().zip(slot.body.bytes()).take_while(|(a, b)| a == b).count()
                ),
            ),
            Some(_) => {}
        }
        if field("content_model").as_ref() != Some(&slot.model) {
            let found = field("content_model");
            verdict.add(Rule::Content, format!("{here}: slot {role} has model {found:?}, the wiki {}", slot.model));
        }
        if slot.format.is_some() && field("content_format") != slot.format {
            let found = field("content_format");
            verdict.add(Rule::Content, format!("{here}: slot {role} has format {found:?}, the wiki {:?}", slot.format));
        }
    }
}

fn redirect_link(after: &str, link: &Link, here: &str, verdict: &mut Verdict) {
    let path = |name| ["page", "redirect_page_link", name];
    let mut want = |name: &str, found: Option<String>, right: Option<String>| {
        if found != right {
            verdict.add(Rule::Content, format!("{here}: redirect_page_link.{name} is {found:?}, wanted {right:?}"));
        }
    };
    // Where the target is on another site its prefix may stand in the title too, as MediaWiki's own event builder has it.
    let wanted = &link.page_title;
    let prefixed = |title: &str| link.interwiki_prefix.as_ref().map(|prefix| format!("{prefix}:{title}"));
    let same = |found: &String| prefixed(found).as_ref() == Some(wanted) || prefixed(wanted).as_ref() == Some(found);
    let found = json::text_at(after, &path("page_title"));
    want("page_title", found.map(|found| if same(&found) { wanted.clone() } else { found }), Some(wanted.clone()));
    want("interwiki_prefix", json::text_at(after, &path("interwiki_prefix")), link.interwiki_prefix.clone());
    let number = |name| json::number_at(after, &path(name)).map(|number| number.to_string());
    want("page_id", number("page_id"), link.page_id.map(|number| number.to_string()));
    if let Some(namespace) = link.namespace_id {
        want("namespace_id", number("namespace_id"), Some(namespace.to_string()));
    }
}

/// The compact JSON of the streams' key fields, `{"wiki_id": wiki_id, "page_id": page.page_id}`.
fn key(input: &str, output: &Record, here: &str, verdict: &mut Verdict) {
    let (wiki, page) = (json::raw_at(input, &["wiki_id"]), json::raw_at(input, &["page", "page_id"]));
    let wanted = format!(r#"{{"wiki_id":{},"page_id":{}}}"#, wiki.unwrap_or_default(), page.unwrap_or_default());
    if output.key.as_deref() != Some(wanted.as_bytes()) {
        let found = output.key.as_deref().map(String::from_utf8_lossy);
        verdict.add(Rule::Key, format!("{here}: key {found:?}, wanted {wanted}"));
    }
}

fn timestamp(after: &str, output: &Record, here: &str, verdict: &mut Verdict) {
    let dt = json::text_at(after, &["dt"]).and_then(|dt| dt.parse::<jiff::Timestamp>().ok());
    if dt.map(jiff::Timestamp::as_millisecond) != Some(output.timestamp_ms) {
        verdict.add(Rule::Timestamp, format!("{here}: timestamp {} for dt {dt:?}", output.timestamp_ms));
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}
