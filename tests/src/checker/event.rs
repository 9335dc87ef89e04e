//! What must become of an input.

use std::collections::BTreeMap;

use super::{
    Record, json,
    schema::Schemas,
    truth::{Answer, Link, Slot, Truth},
};

/// What must become of an input.
#[derive(Clone, Debug, PartialEq)]
pub enum Expected {
    /// An output with these bodies by slot, and the redirect's target if the page is one. Fields at `pruned` (dotted
    /// paths) may be missing in the output.
    Enriched {
        /// By slot role.
        slots: BTreeMap<String, Slot>,
        /// Target of a redirect page.
        redirect: Option<Link>,
        /// Fields that the sink's schema does not know.
        pruned: Vec<String>,
    },
    /// An output without any body: the content is hidden from the public.
    WithoutBody,
    /// An output, nothing but `meta` and `$schema` changed.
    PassedThrough,
    /// An error event.
    Error,
    /// Nothing.
    Dropped,
}

impl Expected {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Enriched { .. } => "an output with content",
            Self::WithoutBody => "an output without content",
            Self::PassedThrough => "an output as it came",
            Self::Error => "an error event",
            Self::Dropped => "nothing",
        }
    }
}

/// The general rule, for events that the sink's own schema describes.
#[must_use]
pub fn expected(input: &Record, truth: &dyn Truth, schemas: &Schemas) -> Expected {
    let Some(text) = input.text() else { return Expected::Error };
    let domain = json::text_at(text, &["meta", "domain"]);
    if domain.as_deref() == Some("canary") {
        return Expected::Dropped;
    }
    if schemas.page_change.why_invalid(text).is_some() {
        return Expected::Error;
    }
    if json::text_at(text, &["page_change_kind"]).as_deref() == Some("delete") {
        return Expected::PassedThrough;
    }
    let (Some(domain), Some(revision)) = (domain, json::number_at(text, &["revision", "rev_id"])) else {
        return Expected::Error;
    };
    let redirect = json::raw_at(text, &["page", "is_redirect"]).as_deref() == Some("true");
    match truth.revision(&domain, revision) {
        Answer::Slots(slots) => Expected::Enriched {
            slots,
            redirect: json::number_at(text, &["page", "page_id"])
                .filter(|_| redirect)
                .and_then(|page| truth.redirect(&domain, page)),
            pruned: Vec::new(),
        },
        Answer::Hidden => Expected::WithoutBody,
        Answer::Missing => Expected::Error,
    }
}

/// An error event's own words, for people.
pub(super) fn error_summary(text: &str) -> String {
    let field = |name| json::text_at(text, &[name]).unwrap_or_default();
    let message: String = field("message").chars().take(200).collect();
    format!("{}: {message}", field("error_type"))
}
