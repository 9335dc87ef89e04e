//! Numbers and names that must not be mixed up, each its own type.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl $name {
            /// The next one.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }
    };
}

number! {
    /// Grows with every jobmanager leadership; commands with a lower one are refused.
    LeaderEpoch(u64)
}
number! {
    /// Number of a barrier and of the snapshot that it leads to; unique within a leader epoch, growing across them.
    CheckpointId(u64)
}
number! {
    /// A taskmanager's stable small number, leased by the jobmanager; it names the transactional id.
    SlotId(u32)
}
number! {
    /// One lease of one slot. Never reused within a leader epoch.
    GrantId(u64)
}

impl SlotId {
    /// `<job>-<slot>`: the id that fencing is about.
    #[must_use]
    pub fn transactional_id(self, job: &str) -> String {
        format!("{job}-{}", self.0)
    }
}

/// One process incarnation of a taskmanager: random, so that a restarted one is another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskmanagerId(pub String);

impl fmt::Display for TaskmanagerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
