//! `job.starting_offsets`: a word or a time.

use serde::{Deserialize, Serialize};

/// Where a job starts that has neither progress nor snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum StartingOffsets {
    /// The oldest record that is there.
    #[default]
    Earliest,
    /// What comes from now on.
    Latest,
    /// What `consumer_group` has committed on the source cluster (where another consumer stopped), else earliest.
    Committed,
    /// The first record that is not older: `2026-11-25T12:00:00Z`.
    Timestamp(jiff::Timestamp),
}

impl TryFrom<String> for StartingOffsets {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            "committed" => Ok(Self::Committed),
            _ => text.parse().map(Self::Timestamp).map_err(|_| {
                format!("`{text}` is none of `earliest`, `latest`, `committed`, nor a time like `2026-11-25T12:00:00Z`")
            }),
        }
    }
}

impl From<StartingOffsets> for String {
    fn from(offsets: StartingOffsets) -> Self {
        match offsets {
            StartingOffsets::Earliest => "earliest".to_owned(),
            StartingOffsets::Latest => "latest".to_owned(),
            StartingOffsets::Committed => "committed".to_owned(),
            StartingOffsets::Timestamp(time) => time.to_string(),
        }
    }
}
