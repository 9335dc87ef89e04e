//! Why a record could not be enriched, and whether asking again may help.

use std::time::Duration;

use super::routes::{Effect, Kind, Route};

/// One fault. Cloned to every record of a request that failed as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Its row in the table.
    pub(crate) kind: Kind,
    /// What happened, to what; becomes the error event's `message`.
    pub(crate) message: String,
    /// The API's `Retry-After`.
    pub(crate) retry_after: Option<Duration>,
}

impl Fault {
    /// A fault without `Retry-After`.
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None }
    }

    /// The error event's `error_type`.
    pub(crate) fn error_type(&self) -> &'static str {
        self.kind.row().error_type
    }

    /// What becomes of the record.
    pub(crate) fn route(&self) -> Route {
        self.kind.row().route
    }

    /// What it says about the endpoint.
    pub(crate) fn effect(&self) -> Effect {
        self.kind.row().effect
    }

    /// The endpoint did not answer, wants less, or something answered in its place: nothing that was asked for can be
    /// blamed.
    pub(crate) fn is_of_the_endpoint(&self) -> bool {
        matches!(self.effect(), Effect::Overloaded | Effect::Fails)
    }
}
