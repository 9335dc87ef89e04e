//! The load of a comparison: which pages there are, how large, how slow their API is. Pure and by a seed, so that the API's
//! process and the one that writes the events agree without talking.

use std::f64::consts::TAU;

use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde::{Deserialize, Serialize};
use serde_json::json;
use weir_tests::{events::WIKIS, harness::kafka::Input};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Pages of each wiki; events of one page follow each other at this distance or less.
const PAGES: u64 = 2000;

/// Revisions of a page are numbered from its id times this on.
const REVISIONS: u64 = 10_000_000;

/// Different texts that revisions share. Many enough that compression finds no two alike within its window.
const TEXTS: u64 = 256;

/// A log-normal distribution, or, with `sigma` 0, the median always.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Distribution {
    pub(crate) median: f64,
    pub(crate) sigma: f64,
    pub(crate) max: f64,
}

impl Distribution {
    /// Always this.
    pub(crate) const fn fixed(value: f64) -> Self {
        Self { median: value, sigma: 0.0, max: value }
    }

    /// The value that belongs to a random number.
    pub(crate) fn draw(&self, random: u64) -> f64 {
        // Box and Muller: two uniform numbers make a normal one. The first is never 0.
        let (low, high) = ((random as u32) as f64, (random >> 32) as f64);
        let uniform = |half: f64| (half + 0.5) / f64::from(u32::MAX);
        let normal = (-2.0 * uniform(low).min(1.0).ln()).sqrt() * (TAU * uniform(high)).cos();
        (self.median * (self.sigma * normal).exp()).min(self.max)
    }
}

/// What the API holds and how it answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) seed: u64,
    /// Bytes of a revision's content.
    pub(crate) content_bytes: Distribution,
    /// Of an answer, in milliseconds.
    pub(crate) latency_ms: Distribution,
}

impl Load {
    /// Which text a revision has.
    pub(crate) fn text_of(&self, rev_id: u64) -> usize {
        (self.hash(rev_id) % TEXTS) as usize
    }

    /// The size in bytes of each text.
    pub(crate) fn text_bytes(&self) -> Vec<usize> {
        (0..TEXTS).map(|text| self.content_bytes.draw(self.hash(u64::MAX - text)) as usize).collect()
    }

    /// Each text as a JSON string, as MediaWiki's API writes it.
    pub(crate) fn texts(&self) -> Vec<Bytes> {
        let texts = self.text_bytes().into_iter().zip(0u64..);
        texts.map(|(bytes, text)| Bytes::from(json!(wikitext(self.seed ^ text, bytes)).to_string())).collect()
    }

    /// How long the API takes for its answer to a request.
    pub(crate) fn latency_ms(&self, request: u64) -> f64 {
        self.latency_ms.draw(self.hash(request.rotate_left(32)))
    }

    fn hash(&self, number: u64) -> u64 {
        xxh3_64_with_seed(&number.to_le_bytes(), self.seed)
    }

    /// Events about so many revisions, each another one, for a topic of a stream.
    pub(crate) fn events(&self, topic: &str, count: usize) -> Vec<Input> {
        let sizes = self.text_bytes();
        let stream = topic.trim_start_matches("eqiad.");
        let event = |number: u64| {
            let random = self.hash(number);
            let (wiki_id, domain) = WIKIS[(random % WIKIS.len() as u64) as usize];
            let page_id = 1 + (random >> 8) % PAGES;
            let rev_id = page_id * REVISIONS + number;
            let size = sizes[self.text_of(rev_id)];
            let key = format!(r#"{{"wiki_id":"{wiki_id}","page_id":{page_id}}}"#);
            let value = reconcile_event(stream, (wiki_id, domain), page_id, rev_id, size);
            Input { topic: topic.to_owned(), key: Some(key.into_bytes()), value: Some(value.into_bytes()) }
        };
        (0..count as u64).map(event).collect()
    }
}

/// The page that a revision belongs to.
pub(crate) fn page_of(rev_id: u64) -> u64 {
    rev_id / REVISIONS
}

/// An event as MediaWiki sends it for an edit: every field that such an event has.
fn reconcile_event(stream: &str, (wiki_id, domain): (&str, &str), page_id: u64, rev_id: u64, size: usize) -> String {
    let parent = rev_id - 1;
    let dt = "2026-03-17T02:11:05Z";
    let user = r#"{"user_text":"Exämpler","groups":["*","user","autoconfirmed"],"is_bot":false,"is_system":false,"is_temp":false,"user_id":1001,"registration_dt":"2015-08-01T10:00:00Z","edit_count":5012}"#;
    let meta = format!(
        r#"{{"stream":"{stream}","domain":"{domain}","uri":"https://{domain}/wiki/Page_{page_id}","id":"8b1f8a5e-7a1c-4f63-9a51-{rev_id:012x}","request_id":"request-{rev_id}","dt":"2026-03-17T02:11:09.123Z"}}"#
    );
    let page = format!(r#"{{"page_id":{page_id},"page_title":"Page_{page_id}","namespace_id":0,"is_redirect":false}}"#);
    let slot = format!(
        r#"{{"slot_role":"main","content_model":"wikitext","content_sha1":"0mr52apjzfy3bx291pfmzx9lyqzei5q","content_size":{size},"origin_rev_id":{rev_id}}}"#
    );
    let revision = format!(
        r#"{{"rev_id":{rev_id},"rev_parent_id":{parent},"rev_dt":"{dt}","is_minor_edit":false,"rev_sha1":"0mr52apjzfy3bx291pfmzx9lyqzei5q","rev_size":{size},"comment":"/* History */ a reference","editor":{user},"is_content_visible":true,"is_editor_visible":true,"is_comment_visible":true,"content_slots":{{"main":{slot}}}}}"#
    );
    format!(
        r#"{{"$schema":"/mediawiki/page/change/1.2.0","meta":{meta},"dt":"{dt}","changelog_kind":"update","page_change_kind":"edit","wiki_id":"{wiki_id}","page":{page},"performer":{user},"comment":"/* History */ a reference","revision":{revision}}}"#
    )
}

/// Text of exactly this many bytes with what wikitext has: markup, line ends, quotes, several scripts.
fn wikitext(seed: u64, bytes: usize) -> String {
    const SYLLABLES: [&str; 16] =
        ["an", "be", "con", "der", "es", "for", "ge", "in", "lo", "ment", "or", "pro", "re", "ti", "un", "ver"];
    const MARKS: [&str; 8] = ["\n== ", " ==\n", "[[", "]]", "'''", "<ref name=\"a\">", "</ref>", " Œuvre 语言 "];
    let mut rng = StdRng::seed_from_u64(seed);
    let mut text = String::with_capacity(bytes + 32);
    while text.len() < bytes {
        let syllables = rng.random_range(1..5);
        (0..syllables).for_each(|_| text.push_str(SYLLABLES.choose(&mut rng).expect("not empty")));
        text.push_str(if rng.random_ratio(1, 12) { MARKS.choose(&mut rng).expect("not empty") } else { " " });
    }
    let end = (0..=bytes).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.truncate(end);
    text.extend(std::iter::repeat_n('.', bytes - end));
    text
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const LOAD: Load = Load {
        seed: 7,
        content_bytes: Distribution { median: 4000.0, sigma: 1.5, max: 2_097_152.0 },
        latency_ms: Distribution { median: 50.0, sigma: 0.5, max: 1000.0 },
    };

    #[test]
    fn an_event_declares_the_bytes_that_the_api_answers_with() {
        let texts = LOAD.texts();
        for input in LOAD.events("eqiad.a.b", 300) {
            let event: Value = serde_json::from_slice(&input.value.expect("a value")).expect("JSON");
            let rev_id = event["revision"]["rev_id"].as_u64().expect("an id");
            let text: String = serde_json::from_slice(&texts[LOAD.text_of(rev_id)]).expect("a JSON string");
            assert_eq!(event["revision"]["content_slots"]["main"]["content_size"], text.len());
            assert_eq!(event["page"]["page_id"], page_of(rev_id));
        }
    }

    #[test]
    fn draws_are_distributed_as_named_and_come_again() {
        let median = |mut drawn: Vec<f64>| {
            drawn.sort_by(f64::total_cmp);
            drawn[drawn.len() / 2]
        };
        let latencies = || (0..20_000).map(|request| LOAD.latency_ms(request)).collect::<Vec<_>>();
        assert!((45.0..55.0).contains(&median(latencies())), "{}", median(latencies()));
        assert!(latencies().iter().all(|ms| (0.0..=1000.0).contains(ms)));
        assert!(latencies().iter().any(|ms| *ms > 200.0), "three deviations come in 20,000");
        assert_eq!(latencies(), latencies());
        assert_eq!(Distribution::fixed(10_000.0).draw(12_345), 10_000.0);
    }
}
