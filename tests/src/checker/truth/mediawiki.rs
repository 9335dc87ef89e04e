//! A MediaWiki's SQLite files, dumped without MediaWiki's code (`tests/env/mediawiki/truth.php`).

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, ensure};
use serde::{Deserialize, Deserializer, de::Error as _};

use super::{Answer, Link, Slot, Truth};

/// One revision, as dumped.
#[derive(Clone, Debug, Deserialize)]
pub struct Revision {
    /// Revision id.
    pub rev_id: i64,
    /// 0 for a page's first.
    pub rev_parent_id: i64,
    /// `YYYYMMDDhhmmss`.
    pub rev_timestamp: String,
    /// Bits; 1 = text hidden.
    pub rev_deleted: i64,
    /// Bytes of all slots.
    pub rev_len: i64,
    /// Base 36.
    pub rev_sha1: String,
    /// Page.
    pub page_id: i64,
    /// Without namespace prefix.
    pub page_title: String,
    /// Number.
    pub page_namespace: i64,
    /// 0 or 1: the page's newest revision is a redirect.
    pub page_is_redirect: i64,
    /// Newest revision; 0 for those of deleted pages.
    pub page_latest: i64,
    /// 0 or 1: the page is deleted.
    pub archived: i64,
    /// Who made it.
    pub actor_name: String,
    /// Their account, if they have one.
    pub actor_user: Option<i64>,
    /// What they said of it.
    pub comment_text: String,
    /// By role.
    pub slots: BTreeMap<String, StoredSlot>,
    /// The row of the page's redirect.
    pub redirect: Option<StoredRedirect>,
}

/// One slot, as dumped.
#[derive(Clone, Debug, Deserialize)]
pub struct StoredSlot {
    /// Content model.
    pub model_name: String,
    /// Revision that first had this content.
    pub slot_origin: i64,
    /// Bytes.
    pub content_size: i64,
    /// Base 36.
    pub content_sha1: String,
    /// Every byte; `None` where it is lost.
    #[serde(deserialize_with = "hexadecimal")]
    pub text: Option<Vec<u8>>,
}

fn hexadecimal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    let digits = Option::<String>::deserialize(deserializer)?;
    let byte = |pair: &[u8]| {
        let digit = |at: usize| pair.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        digit(0).zip(digit(1)).and_then(|(high, low)| u8::try_from(high * 16 + low).ok())
    };
    let bytes = digits.map(|digits| digits.as_bytes().chunks(2).map(byte).collect::<Option<_>>());
    bytes.map(|bytes| bytes.ok_or_else(|| D::Error::custom("not hexadecimal"))).transpose()
}

/// Where a page redirects to, as dumped.
#[derive(Clone, Debug, Deserialize)]
pub struct StoredRedirect {
    rd_namespace: i64,
    rd_title: String,
    rd_interwiki: Option<String>,
    page_id: Option<i64>,
}

/// English names of the namespaces that tests use.
#[must_use]
pub fn prefixed(namespace: i64, title: &str) -> String {
    let prefix = match namespace {
        -2 => "Media:",
        -1 => "Special:",
        1 => "Talk:",
        2 => "User:",
        3 => "User_talk:",
        4 => "Project:",
        6 => "File:",
        7 => "File_talk:",
        10 => "Template:",
        _ => "",
    };
    format!("{prefix}{title}")
}

/// Several wikis, by domain.
#[derive(Default)]
pub struct MediaWikis {
    revisions: HashMap<(String, i64), Revision>,
    redirects: HashMap<(String, i64), Link>,
    bodies: HashMap<(String, i64), Answer>,
}

impl MediaWikis {
    /// Adds one wiki's dump, JSON lines.
    ///
    /// # Errors
    /// A line that is not a revision.
    pub fn add(&mut self, domain: &str, dump: &str) -> anyhow::Result<()> {
        for line in dump.lines() {
            let revision: Revision =
                serde_json::from_str(line).with_context(|| format!("dump of {domain}: {:.100}", line))?;
            if let Some(target) = &revision.redirect {
                self.redirects.insert((domain.to_owned(), revision.page_id), link(target));
            }
            let answer = answer(&revision);
            self.bodies.insert((domain.to_owned(), revision.rev_id), answer);
            self.revisions.insert((domain.to_owned(), revision.rev_id), revision);
        }
        Ok(())
    }

    /// Says what the API shows of a revision's main slot, where that is not what the wiki holds.
    ///
    /// # Errors
    /// There is no such revision, or it is what the wiki holds.
    pub fn shows(&mut self, domain: &str, rev_id: i64, body: &str) -> anyhow::Result<()> {
        let key = (domain.to_owned(), rev_id);
        let revision = self.revisions.get(&key).with_context(|| format!("{domain} has no revision {rev_id}"))?;
        let main = revision.slots.get("main").context("no main slot")?;
        let text = main.text.as_deref().context("its text is lost")?;
        ensure!(text != body.as_bytes(), "{domain} rev_id {rev_id}: the API is said to show what the wiki holds");
        let slot = Slot { body: body.to_owned(), ..described(main) };
        self.bodies.insert(key, Answer::Slots(BTreeMap::from([("main".to_owned(), slot)])));
        Ok(())
    }

    /// Every revision, by domain and revision id.
    #[must_use]
    pub fn revisions(&self) -> Vec<(&str, &Revision)> {
        let mut all: Vec<_> =
            self.revisions.iter().map(|((domain, _), revision)| (domain.as_str(), revision)).collect();
        all.sort_by_key(|(domain, revision)| (*domain, revision.rev_id));
        all
    }
}

impl Truth for MediaWikis {
    fn revision(&self, domain: &str, rev_id: i64) -> Answer {
        self.bodies.get(&(domain.to_owned(), rev_id)).cloned().unwrap_or(Answer::Missing)
    }

    fn redirect(&self, domain: &str, page_id: i64) -> Option<Link> {
        self.redirects.get(&(domain.to_owned(), page_id)).cloned()
    }
}

fn answer(revision: &Revision) -> Answer {
    if revision.archived == 1 || revision.slots.is_empty() {
        return Answer::Missing;
    }
    if revision.rev_deleted & 1 == 1 {
        return Answer::Hidden;
    }
    let slots = revision.slots.iter().map(|(role, slot)| Some((role.clone(), content(slot)?)));
    slots.collect::<Option<_>>().map_or(Answer::Missing, Answer::Slots)
}

/// `None` where it is lost, or no text: then only [`MediaWikis::shows`] can tell.
fn content(slot: &StoredSlot) -> Option<Slot> {
    let body = String::from_utf8(slot.text.clone()?).ok()?;
    Some(Slot { body, ..described(slot) })
}

/// All but the body.
fn described(slot: &StoredSlot) -> Slot {
    let format = match slot.model_name.as_str() {
        "wikitext" => Some("text/x-wiki"),
        "json" => Some("application/json"),
        "javascript" => Some("text/javascript"),
        "css" => Some("text/css"),
        "text" => Some("text/plain"),
        _ => None,
    };
    Slot { body: String::new(), model: slot.model_name.clone(), format: format.map(str::to_owned) }
}

fn link(target: &StoredRedirect) -> Link {
    let interwiki = target.rd_interwiki.clone().filter(|prefix| !prefix.is_empty());
    Link {
        page_title: prefixed(target.rd_namespace, &target.rd_title),
        // Another site's namespaces are not known here.
        namespace_id: interwiki.is_none().then_some(target.rd_namespace),
        page_id: target.page_id,
        interwiki_prefix: interwiki,
    }
}
