//! Why a record could not be enriched, and whether asking again may help.

use std::time::Duration;

/// What a fault says about asking again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultClass {
    /// Asking again gives the same: an error event at once.
    Permanent,
    /// The API does not know the revision: replica lag or deletion, which look alike.
    NotFound,
    /// The API asks for less load: 429, 503, maxlag, rate limit.
    Overloaded,
    /// May pass: time-outs, resets, 5xx, database errors, answers that are no JSON.
    Transient,
    /// Too many or too large revisions in one request; for a lone revision it is permanent.
    TooMuch,
}

/// One fault. Cloned to every record of a request that failed as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Whether asking again may help.
    pub(crate) class: FaultClass,
    /// Becomes the error event's `error_type`.
    pub(crate) error_type: &'static str,
    /// What happened, to what; becomes the error event's `message`.
    pub(crate) message: String,
    /// The API's `Retry-After`.
    pub(crate) retry_after: Option<Duration>,
}

impl Fault {
    /// A fault without `Retry-After`.
    pub(crate) fn new(class: FaultClass, error_type: &'static str, message: impl Into<String>) -> Self {
        Self { class, error_type, message: message.into(), retry_after: None }
    }

    /// The endpoint did not answer, or something in its place did: nothing that was asked for can be blamed.
    pub(crate) fn is_of_the_endpoint(&self) -> bool {
        match self.class {
            FaultClass::Overloaded => true,
            FaultClass::Transient => matches!(self.error_type, "Timeout" | "ConnectionFailed" | "ServerError"),
            FaultClass::Permanent | FaultClass::NotFound | FaultClass::TooMuch => false,
        }
    }

    /// An error event at once.
    pub(crate) fn permanent(error_type: &'static str, message: impl Into<String>) -> Self {
        Self::new(FaultClass::Permanent, error_type, message)
    }

    /// May pass.
    pub(crate) fn transient(error_type: &'static str, message: impl Into<String>) -> Self {
        Self::new(FaultClass::Transient, error_type, message)
    }
}
