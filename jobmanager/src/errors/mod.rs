//! Error events as operators see them: read, chosen, and where their inputs are. Pure; [`kafka`](crate::kafka) reads the
//! topics.

mod event;
mod filter;
mod replay;

use weir_common::{raw_event::RawEvent, split::TopicPartition};

pub use self::{
    event::read,
    filter::Filter,
    replay::{Input, Origin, Replayed, Selection, Tally, TooMany, input, origin},
};

/// Where an error event is: partition of the error topic, and offset.
pub type Position = (i32, i64);

/// A record of the error topic, as far as it can be read. Any bytes.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// Where it is.
    pub position: Position,
    /// The record's, milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The event.
    pub value: &'a [u8],
    /// Values of the headers that say where its input was: topic, partition, offset.
    pub source: [Option<&'a [u8]>; 3],
}

/// An error event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorEvent {
    /// Where it is.
    pub position: Position,
    /// The record's, milliseconds since 1970.
    pub timestamp_ms: i64,
    /// What kind of failure; empty where it does not say.
    pub error_type: String,
    /// What went wrong.
    pub message: String,
    /// Who wrote it; empty where it does not say.
    pub emitter_id: String,
    /// `meta.domain`, the event's or its input's.
    pub domain: Option<String>,
    /// The input's.
    pub wiki_id: Option<String>,
    /// The input's `page.page_id`.
    pub page_id: Option<i64>,
    /// The input's `revision.rev_id`.
    pub rev_id: Option<i64>,
    /// Where the input was.
    pub source: Option<(TopicPartition, i64)>,
    /// The input, as much of it as `raw` says.
    pub raw_event: String,
    /// How much of it that is.
    pub raw: RawEvent,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Newest first.
    pub errors: Vec<ErrorEvent>,
    /// There are older ones that the filter takes.
    pub more: bool,
    /// Older events than this, milliseconds since 1970, were not looked at for want of time.
    pub searched_back_to_ms: Option<i64>,
}

/// What was found in one partition.
#[derive(Clone, Debug, Default)]
pub struct FoundInPartition {
    /// Any order.
    pub errors: Vec<ErrorEvent>,
    /// There are older ones.
    pub more: bool,
    /// As [`Found::searched_back_to_ms`].
    pub searched_back_to_ms: Option<i64>,
}

impl Found {
    /// The newest of all partitions. What is older than where one of them was left is left out: asking again for older
    /// events than that finds it.
    #[must_use]
    pub fn newest(partitions: Vec<FoundInPartition>, limit: usize) -> Self {
        let searched_back_to_ms = partitions.iter().filter_map(|each| each.searched_back_to_ms).max();
        let mut more = partitions.iter().any(|each| each.more);
        let mut errors: Vec<ErrorEvent> = partitions.into_iter().flat_map(|each| each.errors).collect();
        errors.retain(|error| searched_back_to_ms.is_none_or(|oldest| error.timestamp_ms >= oldest));
        errors.sort_by_key(|error| std::cmp::Reverse((error.timestamp_ms, error.position)));
        more |= errors.len() > limit;
        errors.truncate(limit);
        Self { errors, more, searched_back_to_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(partition: i32, timestamp_ms: i64) -> ErrorEvent {
        let stored = Stored { position: (partition, timestamp_ms), timestamp_ms, value: b"{}", source: [None; 3] };
        read(&stored)
    }

    fn partition(number: i32, times: &[i64]) -> FoundInPartition {
        FoundInPartition { errors: times.iter().map(|time| error(number, *time)).collect(), ..Default::default() }
    }

    #[test]
    fn the_newest_of_all_partitions_come_first() {
        let times = |found: &Found| found.errors.iter().map(|error| error.timestamp_ms).collect::<Vec<_>>();
        let found = Found::newest(vec![partition(0, &[1, 4, 5]), partition(1, &[2, 3])], 4);
        assert_eq!((times(&found), found.more, found.searched_back_to_ms), (vec![5, 4, 3, 2], true, None));
        let found = Found::newest(vec![partition(0, &[1, 4])], 4);
        assert_eq!((times(&found), found.more), (vec![4, 1], false));
    }

    #[test]
    fn nothing_is_listed_beyond_where_a_partition_was_left() {
        let left = FoundInPartition { searched_back_to_ms: Some(3), ..partition(1, &[3, 6]) };
        let found = Found::newest(vec![partition(0, &[1, 4]), left], 10);
        assert_eq!(found.errors.iter().map(|error| error.timestamp_ms).collect::<Vec<_>>(), [6, 4, 3]);
        assert_eq!(found.searched_back_to_ms, Some(3));
    }
}
