//! What the wikis hold, known without asking their API.

pub mod fixtures;
pub mod mediawiki;
pub mod stub;

use std::collections::BTreeMap;

/// What a wiki holds.
pub trait Truth: Send + Sync {
    /// The content of a revision.
    fn revision(&self, domain: &str, rev_id: i64) -> Answer;

    /// Where a page redirects to, first hop; `None` for a page that does not redirect.
    fn redirect(&self, domain: &str, page_id: i64) -> Option<Link>;
}

/// The content of a revision.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// By slot role.
    Slots(BTreeMap<String, Slot>),
    /// The revision exists, its text is hidden.
    Hidden,
    /// There is no such revision, or its text is lost.
    Missing,
}

/// One slot.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// Every byte.
    pub body: String,
    /// `wikitext`, `json`, …
    pub model: String,
    /// `text/x-wiki`, …; `None` where the source does not say.
    pub format: Option<String>,
}

/// The target of a redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// With namespace prefix, underscores for spaces.
    pub page_title: String,
    /// Namespace number; `None` where the source does not say.
    pub namespace_id: Option<i64>,
    /// `None` when the target does not exist.
    pub page_id: Option<i64>,
    /// For targets on another site.
    pub interwiki_prefix: Option<String>,
}
