//! Sample events of `mediawiki.content_history_reconcile.v1`: several wikis, hot pages, and everything that is not
//! plain. What the stub wiki holds for them is known, so is what must become of each.

use std::collections::HashMap;

use jiff::{Span, Timestamp};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Map, Value, json};
use uuid::Builder;

use crate::wiki::content::{self, Availability, REVISIONS_PER_PAGE, Revision, Wiki};

/// The source stream.
pub(crate) const SOURCE_STREAM: &str = "mediawiki.content_history_reconcile.v1";

/// Wikis by id, host and namespace of their pages. Those at even places are of the first topic, the others of the second:
/// a page's events share a topic, as they share a key.
const WIKIS: [(&str, &str, i64); 8] = [
    ("enwiki", "en.wikipedia.org", 0),
    ("frwiki", "fr.wikipedia.org", 0),
    ("commonswiki", "commons.wikimedia.org", 6),
    ("wikidatawiki", "www.wikidata.org", 0),
    ("dewiki", "de.wikipedia.org", 0),
    ("jawiki", "ja.wikipedia.org", 0),
    ("ruwiki", "ru.wikipedia.org", 0),
    ("enwiktionary", "en.wiktionary.org", 0),
];

/// Pages of a wiki; the first few get a third of all events.
const PAGES: u64 = 1500;
const HOT_PAGES: u64 = 6;

/// Revision numbers of a page that are plain; the wiki treats those above in its own ways.
const PLAIN_REVISIONS: u64 = 990;

/// What must become of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Output with the content of every slot.
    Enriched,
    /// Output without content: it is hidden.
    WithoutBody,
    /// Output as it came, but for the sink's own fields.
    PassedThrough,
    /// An error event.
    Error,
    /// Nothing.
    Dropped,
}

/// One message to produce.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// Which of the source topics, 0 or 1.
    pub(crate) topic: usize,
    /// The message key.
    pub(crate) key: Option<String>,
    /// The message.
    pub(crate) value: Vec<u8>,
    /// What must become of it.
    pub(crate) expected: Expected,
}

/// An endless, seeded sequence of samples.
pub(crate) struct Generator {
    rng: StdRng,
    wiki: Wiki,
    /// Next revision number of the pages that had one.
    revisions: HashMap<(usize, u64), u64>,
    generated: usize,
}

impl Generator {
    pub(crate) fn new(seed: u64, wiki: Wiki) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), wiki, revisions: HashMap::new(), generated: 0 }
    }

    /// The next sample, as of `now`.
    pub(crate) fn next(&mut self, now: Timestamp) -> Sample {
        self.generated += 1;
        match self.rng.random_range(0..1000) {
            0..10 => self.canary(now),
            10..25 => self.broken(now),
            25..75 => self.delete(now),
            75..85 => self.special(now, 999, Expected::Error),
            85..100 => self.special(now, 998, Expected::WithoutBody),
            100..105 => self.special(now, 997, Expected::Error),
            105..115 => self.special(now, 996, Expected::Enriched),
            115..165 => self.moved(now),
            165..215 => self.page_change(now, "create", "insert"),
            _ => self.page_change(now, "edit", "update"),
        }
    }

    fn page_change(&mut self, now: Timestamp, kind: &str, changelog: &str) -> Sample {
        let (wiki, rev_id) = self.pick();
        let event = self.event(now, wiki, rev_id, (kind, changelog));
        sample(wiki, &event, Expected::Enriched)
    }

    fn special(&mut self, now: Timestamp, number: u64, expected: Expected) -> Sample {
        let (wiki, rev_id) = self.pick();
        let rev_id = content::page_of(rev_id) * REVISIONS_PER_PAGE + number;
        let kind = if content::availability_of(rev_id) == Availability::Hidden { "visibility_change" } else { "edit" };
        let event = self.event(now, wiki, rev_id, (kind, "update"));
        sample(wiki, &event, expected)
    }

    fn moved(&mut self, now: Timestamp) -> Sample {
        let (wiki, rev_id) = self.pick();
        let mut event = self.event(now, wiki, rev_id, ("move", "update"));
        let old_title = format!("Former_{}", event["page"]["page_title"].as_str().unwrap_or_default());
        event["comment"] = json!("a better name");
        event["created_redirect_page"] = json!({
            "page_id": 1_000_000 + content::page_of(rev_id),
            "page_title": old_title, "namespace_id": 0, "is_redirect": true,
        });
        event["prior_state"] = json!({ "page": { "page_title": old_title } });
        sample(wiki, &event, Expected::Enriched)
    }

    fn delete(&mut self, now: Timestamp) -> Sample {
        let (wiki, rev_id) = self.pick();
        let mut event = self.event(now, wiki, rev_id, ("delete", "delete"));
        if let Some(revision) = event["revision"].as_object_mut() {
            revision.remove("content_slots");
        }
        sample(wiki, &event, Expected::PassedThrough)
    }

    fn canary(&mut self, now: Timestamp) -> Sample {
        let mut event = self.event(now, 0, 1000, ("edit", "update"));
        event["meta"]["domain"] = json!("canary");
        event["wiki_id"] = json!("example");
        Sample {
            topic: self.generated % 2,
            key: None,
            value: event.to_string().into_bytes(),
            expected: Expected::Dropped,
        }
    }

    /// Messages that are no events, or not quite.
    fn broken(&mut self, now: Timestamp) -> Sample {
        let (wiki, rev_id) = self.pick();
        let mut event = self.event(now, wiki, rev_id, ("edit", "update"));
        let value = match self.rng.random_range(0..7) {
            0 => b"not json at all".to_vec(),
            1 => event.to_string().as_bytes()[..200].to_vec(),
            2 => b"[]".to_vec(),
            3 => b"{\"bytes\":\"\xff\xfe\"}".to_vec(),
            4 => {
                event["revision"]["rev_id"] = json!("not a number");
                event.to_string().into_bytes()
            }
            5 => {
                event["meta"]["domain"] = json!("not a host");
                event.to_string().into_bytes()
            }
            _ => {
                event.as_object_mut().and_then(|event| event.remove("page_change_kind"));
                event.to_string().into_bytes()
            }
        };
        Sample { topic: wiki % 2, key: None, value, expected: Expected::Error }
    }

    /// A wiki and the next revision of one of its pages.
    fn pick(&mut self) -> (usize, u64) {
        let wiki = self.rng.random_range(0..WIKIS.len());
        let pages = if self.rng.random_range(0..3) == 0 { HOT_PAGES } else { PAGES };
        let page_id = 100 + self.rng.random_range(0..pages);
        let number = self.revisions.entry((wiki, page_id)).or_insert(0);
        let rev_id = page_id * REVISIONS_PER_PAGE + *number % PLAIN_REVISIONS;
        *number += 1;
        (wiki, rev_id)
    }

    fn event(&mut self, now: Timestamp, wiki: usize, rev_id: u64, (kind, changelog): (&str, &str)) -> Value {
        let (wiki_id, domain, namespace) = WIKIS[wiki];
        let revision = self.wiki.revision(domain, rev_id);
        let title = revision.title.replace(' ', "_");
        let mut id = || Builder::from_random_bytes(self.rng.random()).into_uuid().to_string();
        let dt = format!("{:.0}", now - Span::new().seconds(4));
        json!({
            "$schema": "/mediawiki/page/change/1.2.0",
            "meta": {
                "stream": SOURCE_STREAM,
                "domain": domain,
                "id": id(),
                "request_id": id(),
                "dt": format!("{now:.3}"),
                "uri": format!("https://{domain}/wiki/{title}"),
            },
            "dt": dt,
            "changelog_kind": changelog,
            "page_change_kind": kind,
            "wiki_id": wiki_id,
            "page": {
                "page_id": revision.page_id,
                "page_title": title,
                "namespace_id": namespace,
                "is_redirect": content::redirect_of(domain, revision.page_id).is_some(),
            },
            "revision": revision_json(&revision, &dt),
        })
    }
}

fn revision_json(revision: &Revision, dt: &str) -> Value {
    let visible = revision.availability != Availability::Hidden;
    let slots: Map<String, Value> = revision
        .slots
        .iter()
        .map(|slot| {
            let entry = json!({
                "slot_role": slot.role,
                "content_model": slot.model,
                "content_sha1": slot.sha1_base36(),
                "content_size": slot.body.len(),
                "origin_rev_id": revision.rev_id,
            });
            (slot.role.to_owned(), entry)
        })
        .collect();
    json!({
        "rev_id": revision.rev_id,
        "rev_dt": dt,
        "rev_parent_id": revision.parent_id,
        "is_minor_edit": revision.rev_id.is_multiple_of(5),
        "rev_size": revision.size(),
        "is_content_visible": visible,
        "is_editor_visible": true,
        "is_comment_visible": true,
        "comment": "a \"quoted\" comment – with ünïcode 🌊",
        "editor": {
            "user_text": "Exampler", "user_id": 1001, "groups": ["*", "user"],
            "is_bot": false, "is_system": false, "is_temp": false, "edit_count": 42,
            "registration_dt": "2010-05-01T00:00:00Z",
        },
        "content_slots": slots,
    })
}

fn sample(wiki: usize, event: &Value, expected: Expected) -> Sample {
    let key = format!(r#"{{"wiki_id":{},"page_id":{}}}"#, event["wiki_id"], event["page"]["page_id"]);
    Sample { topic: wiki % 2, key: Some(key), value: event.to_string().into_bytes(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(count: usize) -> Vec<Sample> {
        let mut generator = Generator::new(7, Wiki { content_bytes: 200 });
        (0..count).map(|_| generator.next(Timestamp::UNIX_EPOCH)).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_events() {
        let values = |count| samples(count).into_iter().map(|sample| sample.value).collect::<Vec<_>>();
        assert_eq!(values(50), values(50));
    }

    #[test]
    fn every_kind_of_outcome_occurs_and_most_are_plain() {
        let samples = samples(4000);
        let count = |expected| samples.iter().filter(|sample| sample.expected == expected).count();
        assert!(count(Expected::Enriched) > 3300);
        for rare in [Expected::WithoutBody, Expected::PassedThrough, Expected::Error, Expected::Dropped] {
            assert!(count(rare) > 10, "{rare:?}");
        }
        assert!(samples.iter().any(|sample| sample.topic == 0) && samples.iter().any(|sample| sample.topic == 1));
    }

    /// The pinned schema, without the identifiers that mean nothing to a validator.
    async fn schema() -> jsonschema::Validator {
        fn strip(schema: &mut Value) {
            match schema {
                Value::Object(fields) => {
                    fields.retain(|name, value| !(["$id", "$schema"].contains(&name.as_str()) && value.is_string()));
                    fields.values_mut().for_each(strip);
                }
                Value::Array(items) => items.iter_mut().for_each(strip),
                _ => {}
            }
        }
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
        let file = root.join("config/reconcile.app.config.yaml");
        let mut config = weir_common::config::load(&[file], std::iter::empty()).expect("accepted").config;
        config.stream_manager.schema_uris = vec![format!("file://{}/schemas/jsonschema", root.display())];
        config.enrich.ssl_ca_bundle_path = None;
        let repository = weir_common::schema::Repository::new(&config).expect("nothing to refuse");
        let mut schema = repository.fetch("mediawiki/page/change/1.2.0").await.expect("the fixture");
        strip(&mut schema);
        jsonschema::options().with_draft(jsonschema::Draft::Draft7).build(&schema).expect("a schema")
    }

    #[tokio::test]
    async fn events_are_valid_against_the_pinned_schema() {
        let schema = schema().await;
        for sample in samples(1000).iter().filter(|sample| sample.expected != Expected::Error || sample.key.is_some()) {
            let event: Value = serde_json::from_slice(&sample.value).expect("JSON");
            let complaints: Vec<_> = schema.iter_errors(&event).map(|error| error.to_string()).collect();
            assert_eq!(complaints, Vec::<String>::new(), "{event}");
        }
    }

    #[test]
    fn keys_are_those_of_the_stream_and_a_page_keeps_to_one_topic() {
        let mut topics: HashMap<String, usize> = HashMap::new();
        for sample in samples(2000) {
            let Some(key) = sample.key else { continue };
            let event: Value = serde_json::from_slice(&sample.value).expect("keyed samples are events");
            assert_eq!(key, format!(r#"{{"wiki_id":{},"page_id":{}}}"#, event["wiki_id"], event["page"]["page_id"]));
            assert_eq!(*topics.entry(key).or_insert(sample.topic), sample.topic);
        }
    }
}
