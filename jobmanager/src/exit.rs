//! Why a jobmanager leaves, by what its operator can do about it.

use crate::store::StoreError;

/// Why a jobmanager leaves. The texts say what happened, to what, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Exit {
    /// Something broke while it ran.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
    /// The configuration does not fit what is there; starting again changes nothing.
    #[error("{0}")]
    Configuration(String),
    /// Another jobmanager of the same job lives.
    #[error("{0}")]
    Refused(String),
    /// Something that is needed does not answer; starting again may help.
    #[error("{0}")]
    Unreachable(String),
}

impl Exit {
    /// The process's exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Configuration(_) => 2,
            Self::Refused(_) => 3,
            Self::Unreachable(_) => 4,
        }
    }
}

impl From<StoreError> for Exit {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Superseded(text) => Self::Refused(text),
            StoreError::Unreachable(text) | StoreError::Changed(text) => Self::Unreachable(text),
            StoreError::Denied(text)
            | StoreError::NotFound(text)
            | StoreError::Exists(text)
            | StoreError::Damaged(text)
            | StoreError::NewerFormat(text)
            | StoreError::Configuration(text) => Self::Configuration(text),
        }
    }
}
