//! Splits: key ranges of topic-partitions, the unit of assignment.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Name of a source topic. Cheap to clone: it is part of every split id.
pub type TopicName = Arc<str>;

/// A topic-partition of the source cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TopicPartition {
    /// Source topic.
    pub topic: TopicName,
    /// Partition number.
    pub partition: i32,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// A key range of one topic-partition. `index` counts the ranges; how many there are is fixed for the job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SplitId {
    /// Source topic.
    pub topic: TopicName,
    /// Partition number.
    pub partition: i32,
    /// `0 <= index < splits_per_partition`.
    pub index: u32,
}

impl SplitId {
    /// The topic-partition that this split is a range of.
    #[must_use]
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition { topic: Arc::clone(&self.topic), partition: self.partition }
    }
}

impl fmt::Display for SplitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}/{}", self.topic, self.partition, self.index)
    }
}

/// How many key ranges every partition of a job has: at least 1, at most [`SplitsPerPartition::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct SplitsPerPartition(u32);

impl TryFrom<u32> for SplitsPerPartition {
    type Error = String;

    fn try_from(count: u32) -> Result<Self, String> {
        Self::new(count).ok_or_else(|| format!("{count} splits per partition: at least 1, at most {}", Self::MAX))
    }
}

impl From<SplitsPerPartition> for u32 {
    fn from(count: SplitsPerPartition) -> Self {
        count.0
    }
}

impl SplitsPerPartition {
    /// More would only cost progress entries: a key range is a unit of assignment, not of concurrency.
    pub const MAX: u32 = 1024;

    /// Up to twelve taskmanagers share one partition.
    pub const DEFAULT: Self = Self(12);

    /// `None` outside of `1..=MAX`.
    #[must_use]
    pub fn new(count: u32) -> Option<Self> {
        (1..=Self::MAX).contains(&count).then_some(Self(count))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// Index of the key range that a hash falls into.
    #[must_use]
    pub fn index_of(self, hash: KeyHash) -> u32 {
        // Multiply-shift instead of modulo: ranges stay contiguous, so that a range can be named by its bounds.
        ((u64::from(hash.0) * u64::from(self.0)) >> 32) as u32
    }

    /// Bounds of a key range in hash space, `[start, end)`; the last one ends at 2^32.
    #[must_use]
    pub fn range(self, index: u32) -> (u64, u64) {
        let bound = |i: u64| (i << 32).div_ceil(u64::from(self.0));
        (bound(u64::from(index)), bound(u64::from(index) + 1))
    }
}

/// Where a record's key falls in hash space. Fixed for ever: progress in Kafka and in snapshots depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash(pub u32);

impl KeyHash {
    /// Upper half of XXH3-64 of the bytes.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        Self((xxh3_64(key) >> 32) as u32)
    }

    /// For a message without key: hash of the page that it is about, so that its events stay in order.
    #[must_use]
    pub fn of_page(wiki_id: &str, page_id: i64) -> Self {
        Self::of(format!("{wiki_id}\0{page_id}").as_bytes())
    }

    /// For a message with neither key nor page: its partition, so that it has exactly one split.
    #[must_use]
    pub fn of_partition(partition: i32) -> Self {
        Self::of(&partition.to_be_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_hash_space_without_gap_or_overlap() {
        for count in [1, 2, 3, 7, 12, 60, 1024] {
            let splits = SplitsPerPartition::new(count).expect("legal count");
            let mut expected_start = 0;
            for index in 0..count {
                let (start, end) = splits.range(index);
                assert_eq!(start, expected_start);
                assert_eq!(splits.index_of(KeyHash(start as u32)), index);
                assert_eq!(splits.index_of(KeyHash((end - 1) as u32)), index);
                expected_start = end;
            }
            assert_eq!(expected_start, 1 << 32);
        }
    }

    #[test]
    fn the_hash_never_changes() {
        assert_eq!(KeyHash::of(br#"{"wiki_id":"enwiki","page_id":1}"#), KeyHash(2_604_356_904));
    }

    #[test]
    fn counts_outside_of_the_bounds_are_refused() {
        assert_eq!(SplitsPerPartition::new(0), None);
        assert_eq!(SplitsPerPartition::new(1025), None);
    }
}
