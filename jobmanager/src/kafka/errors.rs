//! The error topic, for operators: the newest events that a filter takes, and one by its offset.
//!
//! The newest are found from the end backwards, in blocks that grow; a topic of millions is not read for them.

use std::{
    collections::VecDeque,
    ops::{ControlFlow, Range},
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::Consumer as _,
    message::{BorrowedMessage, Headers as _, Message as _},
};
use weir_common::{
    kafka::{self as settings, headers},
    split::TopicPartition,
};

use super::{
    Kafka, KafkaProblem, REQUEST_TIMEOUT, problem,
    range::{End, RangeReader},
};
use crate::errors::{self, ErrorEvent, Filter, Found, FoundInPartition, Position, Stored};

/// For one list over all partitions. The CLI waits for longer.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);

/// Offsets of the first block from the end, and of the largest.
const BLOCK_MIN: i64 = 500;
const BLOCK_MAX: i64 = 16_000;

impl Kafka {
    /// The newest error events that the filter takes, at most `limit`.
    ///
    /// # Errors
    /// The error sink's cluster does not answer, or the topic is gone.
    pub async fn list_errors(&self, topic: String, filter: Filter, limit: usize) -> Result<Found, KafkaProblem> {
        self.blocking(move |shared| {
            let log = ErrorLog::open(&settings::error_consumer(&shared.config), topic)?;
            let deadline = Instant::now() + LIST_TIMEOUT;
            let ranges = log.ranges(&filter)?;
            let mut found = Vec::new();
            for (index, (partition, range)) in ranges.iter().enumerate() {
                // Each partition gets its share of the time that is left.
                let left = deadline.saturating_duration_since(Instant::now());
                let share = left / u32::try_from(ranges.len() - index).unwrap_or(1);
                found.push(log.newest(*partition, range.clone(), &filter, limit, Instant::now() + share)?);
            }
            Ok(Found::newest(found, limit))
        })
        .await
    }

    /// The error event at an offset, with its text. `None`: no record is there.
    ///
    /// # Errors
    /// The error sink's cluster does not answer, or the topic is gone.
    pub async fn error_at(
        &self,
        topic: String,
        (partition, offset): Position,
    ) -> Result<Option<(ErrorEvent, Vec<u8>)>, KafkaProblem> {
        self.blocking(move |shared| {
            let log = ErrorLog::open(&settings::error_consumer(&shared.config), topic)?;
            if !(0..log.partitions()?).contains(&partition) {
                return Ok(None);
            }
            let (low, high) = log.ends(partition)?;
            if !(low..high).contains(&offset) {
                return Ok(None);
            }
            let mut found = None;
            log.read(partition, offset..offset + 1, Some(Instant::now() + LIST_TIMEOUT), |error, message| {
                found = Some((error, message.payload().unwrap_or_default().to_vec()));
                ControlFlow::Break(())
            })?;
            Ok(found)
        })
        .await
    }
}

/// A reader of the error topic.
pub(super) struct ErrorLog {
    reader: RangeReader,
    topic: String,
}

impl ErrorLog {
    pub(super) fn open(config: &rdkafka::ClientConfig, topic: String) -> Result<Self, KafkaProblem> {
        Ok(Self { reader: RangeReader::new(config, "errors", "error_sink")?, topic })
    }

    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    fn partition(&self, partition: i32) -> TopicPartition {
        TopicPartition { topic: self.topic.as_str().into(), partition }
    }

    fn partitions(&self) -> Result<i32, KafkaProblem> {
        let count = self.reader.partitions(&self.topic)?;
        count.ok_or_else(|| {
            let (topic, address) = (&self.topic, self.reader.address());
            KafkaProblem::Failed(format!("the error topic `{topic}` does not exist at {address} any more"))
        })
    }

    fn ends(&self, partition: i32) -> Result<(i64, i64), KafkaProblem> {
        self.reader.ends(&self.partition(partition))
    }

    /// The offsets of each partition between the filter's times, up to what is committed now.
    pub(super) fn ranges(&self, filter: &Filter) -> Result<Vec<(i32, Range<i64>)>, KafkaProblem> {
        let count = self.partitions()?;
        let from = filter.from_ms.map(|time| self.since(count, time)).transpose()?;
        let to = filter.to_ms.map(|time| self.since(count, time)).transpose()?;
        let mut ranges = Vec::new();
        for partition in 0..count {
            let (low, high) = self.ends(partition)?;
            let of = |offsets: &Option<Vec<Option<i64>>>, default: i64| match offsets {
                None => default,
                // Where nothing is as new, all that is there is older.
                Some(offsets) => offsets.get(partition as usize).copied().flatten().unwrap_or(high),
            };
            let (begin, end) = (of(&from, low).max(low), of(&to, high).min(high));
            ranges.push((partition, begin..end.max(begin)));
        }
        Ok(ranges)
    }

    /// For each partition the first offset whose record is not older.
    fn since(&self, count: i32, time_ms: i64) -> Result<Vec<Option<i64>>, KafkaProblem> {
        let what = || format!("asking {} for offsets of `{}` by time", self.reader.address(), self.topic);
        let mut asked = TopicPartitionList::new();
        for partition in 0..count {
            // The protocol's field for the offset carries the time here.
            asked
                .add_partition_offset(&self.topic, partition, Offset::Offset(time_ms))
                .map_err(|error| problem(&what(), &error))?;
        }
        let answer = self.reader.consumer.offsets_for_times(asked, REQUEST_TIMEOUT);
        let answer = answer.map_err(|error| problem(&what(), &error))?;
        let offset = |partition| {
            let Some(element) = answer.find_partition(&self.topic, partition) else { return Ok(None) };
            element.error().map_err(|error| problem(&what(), &error))?;
            Ok(element.offset().to_raw().filter(|offset| *offset >= 0))
        };
        (0..count).map(offset).collect()
    }

    /// Gives the events of a range in their order to `take`.
    pub(super) fn read(
        &self,
        partition: i32,
        range: Range<i64>,
        deadline: Option<Instant>,
        mut take: impl FnMut(ErrorEvent, &BorrowedMessage<'_>) -> ControlFlow<()>,
    ) -> Result<End, KafkaProblem> {
        self.reader.read(&self.partition(partition), range, deadline, |message| take(read(message), message))
    }

    fn newest(
        &self,
        partition: i32,
        range: Range<i64>,
        filter: &Filter,
        limit: usize,
        deadline: Instant,
    ) -> Result<FoundInPartition, KafkaProblem> {
        let mut found = FoundInPartition::default();
        let (mut end, mut block) = (range.end, BLOCK_MIN);
        // Of the records that were looked at; nothing newer is asked for.
        let mut oldest_ms = filter.to_ms.unwrap_or_else(|| jiff::Timestamp::now().as_millisecond());
        while end > range.start {
            let begin = (end - block).max(range.start);
            // The newest of the block: what comes first may be pushed out by what comes later.
            let mut newest = VecDeque::new();
            let room = limit - found.errors.len();
            let mut block_oldest_ms = i64::MAX;
            let ended = self.read(partition, begin..end, Some(deadline), |error, _| {
                block_oldest_ms = block_oldest_ms.min(error.timestamp_ms);
                if filter.takes(&error) {
                    if newest.len() == room {
                        newest.pop_front();
                        found.more = true;
                    }
                    newest.push_back(error);
                }
                ControlFlow::Continue(())
            })?;
            if ended == End::Left {
                // A part of a block has a hole behind it, so it does not count.
                found.searched_back_to_ms = Some(oldest_ms);
                return Ok(found);
            }
            oldest_ms = oldest_ms.min(block_oldest_ms);
            found.errors.extend(newest);
            if found.errors.len() == limit {
                found.more |= begin > range.start;
                return Ok(found);
            }
            (end, block) = (begin, (block * 2).min(BLOCK_MAX));
        }
        Ok(found)
    }
}

fn read(message: &BorrowedMessage<'_>) -> ErrorEvent {
    let header = |name: &str| {
        let headers = message.headers()?;
        headers.iter().find(|header| header.key == name)?.value
    };
    errors::read(&Stored {
        position: (message.partition(), message.offset()),
        timestamp_ms: message.timestamp().to_millis().unwrap_or_default(),
        value: message.payload().unwrap_or_default(),
        source: [headers::SOURCE_TOPIC, headers::SOURCE_PARTITION, headers::SOURCE_OFFSET].map(header),
    })
}
