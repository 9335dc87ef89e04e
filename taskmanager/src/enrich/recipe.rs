//! What sets one job apart from another. The enrichment is the same: content of the revision's slots, fetched, checked and
//! edited in by the same code, on the same runtime.

use weir_common::config::{Config, EnrichJob};

/// A job's difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// `page_change_kind`s whose events go out as they came: there is no content to ask for.
    pub passed_through: &'static [&'static str],
    /// Whether redirect pages get their target as it is now, by a request of its own. Else what the event says stays.
    pub redirect_target: bool,
}

impl Recipe {
    /// `mw-content-history-reconcile-enrich`: the producer compares databases and knows of no redirect targets.
    pub const CONTENT_HISTORY_RECONCILE: Self = Self { passed_through: &["delete"], redirect_target: true };

    /// `mw-page-content-change-enrich`: MediaWiki's own events name a redirect's target as it was with that change, which a
    /// later look would make wrong.
    pub const PAGE_CONTENT_CHANGE: Self = Self { passed_through: &["delete"], redirect_target: false };

    /// The configured job's.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        match config.enrich_job() {
            EnrichJob::ContentHistoryReconcile => Self::CONTENT_HISTORY_RECONCILE,
            EnrichJob::PageContentChange => Self::PAGE_CONTENT_CHANGE,
        }
    }
}
