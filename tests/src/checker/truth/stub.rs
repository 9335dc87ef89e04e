//! What `weir stub-wiki` holds, written a second time from the rules at the head of `cli/src/wiki/content.rs`.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use super::{Answer, Link, Slot, Truth};

/// The stub wiki with this size of content.
pub struct StubWiki {
    bytes: usize,
    corpus: String,
}

const WORDS: [&str; 24] = [
    "weir",
    "river",
    "\"quoted\"",
    "tab\there",
    "back\\slash",
    "Œuvre",
    "Gelöschte",
    "语言",
    "Привет",
    "עברית",
    "🌊",
    "[[link|text]]",
    "{{Infobox",
    "}}",
    "== Heading ==\n",
    "<ref name=\"a\">",
    "</ref>",
    "&nbsp;",
    "—",
    "the",
    "of",
    "and",
    "water\n\n",
    "''italic''",
];

impl StubWiki {
    /// `bytes`: the stub's `--content-bytes`.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let mut corpus = String::new();
        let mut state: u64 = 0x5eed;
        while corpus.len() < 131_072 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            corpus += WORDS[usize::try_from((state >> 33) % 24).expect("below 24")];
            corpus += " ";
        }
        Self { bytes, corpus }
    }

    fn text(&self, domain: &str, rev_id: i64) -> String {
        let mut text = format!("'''Revision {rev_id}''' of {domain}\n\n");
        text.truncate(self.bytes);
        let hash = xxh3_64(format!("{domain}/{rev_id}").as_bytes()) >> 32;
        let mut from = usize::try_from(hash).expect("32 bits") % self.corpus.len();
        while !self.corpus.is_char_boundary(from) {
            from += 1;
        }
        while text.len() < self.bytes {
            let mut to = (from + self.bytes - text.len()).min(self.corpus.len());
            while !self.corpus.is_char_boundary(to) {
                to -= 1;
            }
            if to > from {
                text += &self.corpus[from..to];
            } else {
                text.push('.');
            }
            from = 0;
        }
        text
    }
}

fn redirect(domain: &str, page: i64) -> Option<Link> {
    if domain == "www.wikidata.org" || page % 20 != 7 {
        return None;
    }
    let next = page + 1;
    let (page_title, page_id, interwiki_prefix) = match page / 20 % 3 {
        0 => (format!("Page_{next}"), Some(next), None),
        1 => (format!("Gelöschte_Seite_{next}"), None, None),
        _ => (format!("mw:Page_{next}"), None, Some("mw".to_owned())),
    };
    // On Commons it depends on how the stub names its pages.
    let namespace_id = (interwiki_prefix.is_none() && domain != "commons.wikimedia.org").then_some(0);
    Some(Link { page_title, namespace_id, page_id, interwiki_prefix })
}

impl Truth for StubWiki {
    fn revision(&self, domain: &str, rev_id: i64) -> Answer {
        match rev_id % 1000 {
            999 | 997 => return Answer::Missing,
            998 => return Answer::Hidden,
            _ => {}
        }
        let page = (rev_id / 1000).max(1);
        let slot = |body: String, model: &str, format: &str| Slot {
            body,
            model: model.to_owned(),
            format: Some(format.to_owned()),
        };
        let entity = |kind: &str, id: String| {
            let label = serde_json::Value::from(self.text(domain, rev_id));
            format!(r#"{{"id":"{id}","labels":{{"en":{{"language":"en","value":{label}}}}},"type":"{kind}"}}"#)
        };
        if domain == "www.wikidata.org" {
            let body = entity("item", format!("Q{page}"));
            return Answer::Slots(BTreeMap::from([(
                "main".to_owned(),
                slot(body, "wikibase-item", "application/json"),
            )]));
        }
        let body = match redirect(domain, page) {
            Some(target) => format!("#REDIRECT [[{}]]\n", target.page_title.replace('_', " ")),
            None => self.text(domain, rev_id),
        };
        let mut slots = BTreeMap::from([("main".to_owned(), slot(body, "wikitext", "text/x-wiki"))]);
        if domain == "commons.wikimedia.org" {
            let body = entity("mediainfo", format!("M{page}"));
            slots.insert("mediainfo".to_owned(), slot(body, "wikibase-mediainfo", "application/json"));
        }
        Answer::Slots(slots)
    }

    fn redirect(&self, domain: &str, page_id: i64) -> Option<Link> {
        redirect(domain, page_id)
    }
}
