//! Why a split cannot be read.

use std::fmt;

/// What kind of trouble; the names travel between the processes and are shown to operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The cursor is not in the log: records were deleted before they were read.
    OffsetOutOfRange,
    /// The topic or the partition does not exist any more.
    TopicGone,
    /// The topic was deleted and made anew: its offsets mean other records now.
    TopicRecreated,
    /// Anything else that the client does not get over by itself.
    ReadFailed,
}

impl FailureKind {
    const ALL: [Self; 4] = [Self::OffsetOutOfRange, Self::TopicGone, Self::TopicRecreated, Self::ReadFailed];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OffsetOutOfRange => "OFFSET_OUT_OF_RANGE",
            Self::TopicGone => "TOPIC_GONE",
            Self::TopicRecreated => "TOPIC_RECREATED",
            Self::ReadFailed => "READ_FAILED",
        }
    }

    /// By its name; an unknown one, of a newer peer, is [`FailureKind::ReadFailed`].
    #[must_use]
    pub fn of_name(name: &str) -> Self {
        Self::ALL.into_iter().find(|kind| kind.name() == name).unwrap_or(Self::ReadFailed)
    }

    /// Whether trying again cannot help: only an operator can say where to go on. Never reset by ourselves, for that would
    /// pass records over or repeat them without a word.
    #[must_use]
    pub fn needs_decision(self) -> bool {
        matches!(self, Self::OffsetOutOfRange | Self::TopicRecreated)
    }
}

/// A split that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitFailure {
    /// What kind.
    pub kind: FailureKind,
    /// What happened and what to do, for the operator.
    pub message: String,
}

impl fmt::Display for SplitFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_unknown_ones_may_be_tried_again() {
        for kind in FailureKind::ALL {
            assert_eq!(FailureKind::of_name(kind.name()), kind);
        }
        assert!(!FailureKind::of_name("SOMETHING_NEWER").needs_decision());
    }
}
