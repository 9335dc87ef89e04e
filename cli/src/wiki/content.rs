//! What the stub wiki holds: a pure function of host, revision id and the size asked for, so that a checker can tell
//! what an output must contain without asking the wiki.
//!
//! The rules, by `n = rev_id % 1000`:
//!
//! | what | rule |
//! |---|---|
//! | page | `page_id = max(1, rev_id / 1000)`, title `Page <page_id>`: a page has a thousand revisions |
//! | unknown to the wiki (`badrevids`), for ever | `n == 999` |
//! | text hidden | `n == 998` |
//! | text lost (`textmissing`) | `n == 997` |
//! | unknown when first asked for, as by replica lag | `n == 996` |
//! | redirect page | `page_id % 20 == 7`; target by `page_id / 20 % 3`: a page, a missing page, another wiki |
//! | host `commons.wikimedia.org` | slots `main` and `mediainfo` |
//! | host `www.wikidata.org` | slot `main` is an item's JSON, never a redirect |
//! | host `nosuch.…` | no such wiki |

use std::{ops::Range, sync::LazyLock};

use ring::digest;
use serde_json::json;
use weir_common::split::KeyHash;

/// Revisions of one page.
pub const REVISIONS_PER_PAGE: u64 = 1000;

/// The stub wiki's holdings.
#[derive(Clone, Copy, Debug)]
pub struct Wiki {
    /// Bytes of a wikitext slot's content, exact; JSON slots are a little larger.
    pub content_bytes: usize,
}

/// How much of a revision the wiki gives away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// All of it.
    Stored,
    /// All of it, but only from the second time that it is asked for.
    Late,
    /// Metadata without text and hash.
    Hidden,
    /// Metadata, the text is lost.
    TextMissing,
    /// Nothing.
    Unknown,
}

/// A revision as the wiki stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// Its id.
    pub rev_id: u64,
    /// The page's id.
    pub page_id: u64,
    /// The page's title with spaces, as the API writes it.
    pub title: String,
    /// The revision before it, 0 for the first.
    pub parent_id: u64,
    /// How much the API gives away.
    pub availability: Availability,
    /// Content by slot, `main` first.
    pub slots: Vec<Slot>,
}

/// One slot's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// `main`, `mediainfo`.
    pub role: &'static str,
    /// `wikitext`, `wikibase-item`.
    pub model: &'static str,
    /// `text/x-wiki`, `application/json`.
    pub format: &'static str,
    /// The text.
    pub body: String,
}

impl Slot {
    /// SHA-1 of the content, as the API writes it (hex) …
    #[must_use]
    pub fn sha1_hex(&self) -> String {
        sha1(self.body.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// … and as events write it (base 36, 31 digits).
    #[must_use]
    pub fn sha1_base36(&self) -> String {
        base36(sha1(self.body.as_bytes()))
    }
}

impl Revision {
    /// Bytes of all slots.
    #[must_use]
    pub fn size(&self) -> usize {
        self.slots.iter().map(|slot| slot.body.len()).sum()
    }
}

/// Where a redirect page leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The target's title with spaces, without its interwiki prefix.
    pub title: String,
    /// The target's page id where the page exists.
    pub page_id: Option<u64>,
    /// Prefix of the other wiki.
    pub interwiki: Option<&'static str>,
}

impl Redirect {
    /// The target as the API's `redirects[].to` and wikitext write it.
    #[must_use]
    pub fn prefixed_title(&self) -> String {
        match self.interwiki {
            Some(prefix) => format!("{prefix}:{}", self.title),
            None => self.title.clone(),
        }
    }
}

/// Id of the page that a revision belongs to.
#[must_use]
pub fn page_of(rev_id: u64) -> u64 {
    (rev_id / REVISIONS_PER_PAGE).max(1)
}

/// Title of a page, with spaces.
#[must_use]
pub fn title_of(page_id: u64) -> String {
    format!("Page {page_id}")
}

/// Whether a wiki with this host name exists.
#[must_use]
pub fn host_exists(host: &str) -> bool {
    !host.starts_with("nosuch.")
}

/// Where a page leads, if it is a redirect.
#[must_use]
pub fn redirect_of(host: &str, page_id: u64) -> Option<Redirect> {
    if page_id % 20 != 7 || host == WIKIDATA {
        return None;
    }
    // The neighbour is never a redirect itself: one hop is all.
    let target = page_id + 1;
    Some(match page_id / 20 % 3 {
        0 => Redirect { title: title_of(target), page_id: Some(target), interwiki: None },
        1 => Redirect { title: format!("Gelöschte Seite {target}"), page_id: None, interwiki: None },
        _ => Redirect { title: title_of(target), page_id: None, interwiki: Some("mw") },
    })
}

/// How much of a revision the wiki gives away.
#[must_use]
pub fn availability_of(rev_id: u64) -> Availability {
    match rev_id % REVISIONS_PER_PAGE {
        999 => Availability::Unknown,
        998 => Availability::Hidden,
        997 => Availability::TextMissing,
        996 => Availability::Late,
        _ => Availability::Stored,
    }
}

impl Wiki {
    /// The revision with this id on the wiki with this host name.
    #[must_use]
    pub fn revision(&self, host: &str, rev_id: u64) -> Revision {
        let page_id = page_of(rev_id);
        let parent_id = if rev_id.is_multiple_of(REVISIONS_PER_PAGE) { 0 } else { rev_id - 1 };
        Revision {
            rev_id,
            page_id,
            title: title_of(page_id),
            parent_id,
            availability: availability_of(rev_id),
            slots: self.slots(host, page_id, rev_id),
        }
    }

    fn slots(&self, host: &str, page_id: u64, rev_id: u64) -> Vec<Slot> {
        if host == WIKIDATA {
            return vec![self.entity("main", "wikibase-item", "item", format!("Q{page_id}"), host, rev_id)];
        }
        let main = Slot {
            role: "main",
            model: "wikitext",
            format: "text/x-wiki",
            body: match redirect_of(host, page_id) {
                Some(target) => format!("#REDIRECT [[{}]]\n", target.prefixed_title()),
                None => text(host, rev_id, self.content_bytes),
            },
        };
        if host == COMMONS {
            let info = self.entity("mediainfo", "wikibase-mediainfo", "mediainfo", format!("M{page_id}"), host, rev_id);
            return vec![main, info];
        }
        vec![main]
    }

    fn entity(&self, role: &'static str, model: &'static str, kind: &str, id: String, host: &str, rev_id: u64) -> Slot {
        let label = text(host, rev_id, self.content_bytes);
        let body = json!({ "type": kind, "id": id, "labels": { "en": { "language": "en", "value": label } } });
        Slot { role, model, format: "application/json", body: body.to_string() }
    }
}

const WIKIDATA: &str = "www.wikidata.org";
const COMMONS: &str = "commons.wikimedia.org";

/// Exactly `bytes` bytes of wikitext: a heading that names the revision, then a piece of the corpus.
fn text(host: &str, rev_id: u64, bytes: usize) -> String {
    let mut text = format!("'''Revision {rev_id}''' of {host}\n\n");
    if text.len() >= bytes {
        text.truncate(bytes);
        return text;
    }
    let mut at = KeyHash::of(format!("{host}/{rev_id}").as_bytes()).0 as usize % CORPUS.len();
    while text.len() < bytes {
        let piece = piece_of(at, bytes - text.len());
        // Nothing fits when a multi-byte character stands where less room is left: dots fill it.
        if piece.is_empty() {
            text.push('.');
        } else {
            text.push_str(&CORPUS[piece]);
        }
        at = 0;
    }
    text
}

fn piece_of(at: usize, room: usize) -> Range<usize> {
    let start = CORPUS.ceil_char_boundary(at);
    start..CORPUS.floor_char_boundary((start + room).min(CORPUS.len())).max(start)
}

/// Words that need escaping in JSON, several bytes in UTF-8, or nothing; all in NFC, which MediaWiki would make of them.
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

static CORPUS: LazyLock<String> = LazyLock::new(|| {
    let mut corpus = String::with_capacity(1 << 17);
    let mut state = 0x5eed_u64;
    while corpus.len() < 1 << 17 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        corpus.push_str(WORDS[(state >> 33) as usize % WORDS.len()]);
        corpus.push(' ');
    }
    corpus
});

fn sha1(bytes: &[u8]) -> [u8; 20] {
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes);
    hash.as_ref().try_into().expect("SHA-1 has 20 bytes")
}

fn base36(mut number: [u8; 20]) -> String {
    let digit = |number: &mut [u8; 20]| {
        number.iter_mut().fold(0_u32, |carry, byte| {
            let value = carry * 256 + u32::from(*byte);
            *byte = (value / 36) as u8;
            value % 36
        })
    };
    let mut digits: Vec<char> =
        (0..31).map(|_| char::from_digit(digit(&mut number), 36).expect("less than 36")).collect();
    digits.reverse();
    digits.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIKI: Wiki = Wiki { content_bytes: 2000 };

    #[test]
    fn text_has_the_size_asked_for_and_never_changes() {
        for bytes in [0, 1, 10, 100, 2000, 300_000] {
            for rev_id in [1_000, 1_001, 77_123] {
                let wiki = Wiki { content_bytes: bytes };
                let revision = wiki.revision("en.wikipedia.org", rev_id);
                assert_eq!(revision.size(), bytes);
                assert_eq!(revision, wiki.revision("en.wikipedia.org", rev_id));
            }
        }
        let body = &WIKI.revision("en.wikipedia.org", 1_000).slots[0];
        assert_eq!(body.sha1_hex(), PINNED_SHA1);
        assert_ne!(body.body, WIKI.revision("de.wikipedia.org", 1_000).slots[0].body);
    }

    #[test]
    fn base_36_is_the_events_form_of_the_same_hash() {
        // Event and API answer of the fixtures' first case carry the same hash.
        let hex = "056930767253dbbbbdef505f03a5f09599785e6e";
        let bytes: Vec<u8> = (0..40).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hex")).collect();
        assert_eq!(base36(bytes.try_into().expect("20 bytes")), "0mr52apjzfy3bx291pfmzx9lyqzei5q");
    }

    #[test]
    fn wikis_differ_in_slots_and_redirects() {
        let roles = |host, rev_id| WIKI.revision(host, rev_id).slots.iter().map(|s| s.role).collect::<Vec<_>>();
        assert_eq!(roles("commons.wikimedia.org", 1_000), ["main", "mediainfo"]);
        assert_eq!(roles("www.wikidata.org", 7_000), ["main"]);
        assert_eq!(redirect_of("www.wikidata.org", 7), None);
        assert_eq!(redirect_of("en.wikipedia.org", 7).expect("redirect").page_id, Some(8));
        assert_eq!(redirect_of("en.wikipedia.org", 27).expect("redirect").page_id, None);
        assert_eq!(redirect_of("en.wikipedia.org", 47).expect("redirect").prefixed_title(), "mw:Page 48");
        assert!(WIKI.revision("en.wikipedia.org", 7_000).slots[0].body.starts_with("#REDIRECT [[Page 8]]"));
    }

    const PINNED_SHA1: &str = "d6aad95c4adff30e56eb8e780df3013fd9a89b6d";
}
