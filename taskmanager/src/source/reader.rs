//! The reader of one topic-partition.
//!
//! Back-pressure is not polling: `pause()` makes dropping the consumer hang, while librdkafka's own queue bounds stop its
//! fetching by themselves.

use std::{
    collections::BTreeMap,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::FutureExt as _;
use rdkafka::{
    ClientContext, Message as _, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode as Code},
    message::BorrowedMessage,
};
use tracing::{debug, error, info, warn};
use weir_common::{
    failure::{FailureKind, SplitFailure},
    kafka::LoggingContext,
    split::TopicPartition,
};

use super::{Shared, Wanted};
use crate::{pipeline::cell::SplitCell, record::SourceRecord};

/// How long a poll waits: also how soon a change of splits is seen.
const POLL: Duration = Duration::from_millis(50);

/// How often splits without records of their own are told how far the partition was read.
const ADVANCE_INTERVAL: Duration = Duration::from_millis(200);

/// Wait after an error that passes by itself.
const ERROR_PAUSE: Duration = Duration::from_secs(1);

/// A broker that starts may not know its topics yet: only after this a topic counts as gone.
const GONE_AFTER: Duration = Duration::from_secs(60);

/// Why a partition cannot be read on. Never reset by ourselves: an operator decides what to do about lost records.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(
        "offset {position} of {partition} is not in the log any more (or not yet): records were deleted before they were \
         read, or the topic was created anew; decide where to go on: `weir reset --to earliest --topic …`, or restore a \
         savepoint"
    )]
    OffsetOutOfRange { partition: TopicPartition, position: i64 },
    #[error("{partition} does not exist any more ({source}); create the topic again or change `stream_manager.source`")]
    Gone { partition: TopicPartition, source: KafkaError },
    #[error("{partition} cannot be read: {source}")]
    Fatal { partition: TopicPartition, source: KafkaError },
}

impl ReadError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::OffsetOutOfRange { .. } => FailureKind::OffsetOutOfRange,
            Self::Gone { .. } => FailureKind::TopicGone,
            Self::Fatal { .. } => FailureKind::ReadFailed,
        }
    }
}

/// Starts the thread. It drops its consumer itself; nobody waits for it.
pub(super) fn spawn(shared: Shared, partition: TopicPartition, wanted: Arc<Wanted>) -> anyhow::Result<()> {
    let mut client = shared.clients.reading(&partition.topic).clone();
    client.set("enable.partition.eof", "true");
    let consumer: BaseConsumer<ReaderContext> =
        client.create_with_context(ReaderContext(LoggingContext::new("source")))?;
    let name = format!("weir-read-{}", partition.partition);
    thread::Builder::new().name(name).spawn(move || {
        let mut reader = Reader {
            shared,
            partition,
            wanted,
            consumer,
            splits: BTreeMap::new(),
            position: None,
            limit: i64::MAX,
            parked: false,
            advanced: Instant::now(),
            unreported: 0,
            missing_since: None,
            version: None,
        };
        if let Err(error) = reader.run() {
            error!(partition = %reader.partition, %error, "reading stopped, the partition's splits stand still");
            reader.shared.metrics.reader_failed(&reader.partition);
            // Whoever assigns the partition anew gets a new reader.
            reader.wanted.stop.cancel();
            reader
                .shared
                .tell_failure(&reader.partition, SplitFailure { kind: error.kind(), message: error.to_string() });
        }
        debug!(partition = %reader.partition, "reader ended");
    })?;
    Ok(())
}

/// The end of a partition is reported like an error, and is none.
struct ReaderContext(LoggingContext);

impl ClientContext for ReaderContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() != Some(Code::PartitionEOF) {
            self.0.error(error, reason);
        }
    }
}

impl ConsumerContext for ReaderContext {}

struct Reader {
    shared: Shared,
    partition: TopicPartition,
    wanted: Arc<Wanted>,
    consumer: BaseConsumer<ReaderContext>,
    splits: BTreeMap<u32, Arc<SplitCell>>,
    /// The next offset to come; `None` before the first assignment.
    position: Option<i64>,
    /// Above it no split takes anything in.
    limit: i64,
    /// All that may be taken in was read: it stands at the splits' limit, and nothing is asked of the consumer, which has
    /// delivered more already.
    parked: bool,
    advanced: Instant,
    unreported: u64,
    /// Since when the topic is said not to exist.
    missing_since: Option<Instant>,
    /// Of `wanted`, as last seen.
    version: Option<u64>,
}

impl Reader {
    fn run(&mut self) -> Result<(), ReadError> {
        while !self.wanted.stop.is_cancelled() {
            self.follow_splits()?;
            if self.parked {
                thread::sleep(POLL);
                self.advance();
                continue;
            }
            // The message borrows the consumer, what it says is taken over before anything else happens.
            let polled = self.consumer.poll(POLL).map(|polled| polled.map(|message| self.copy(&message)));
            match polled {
                Some(Ok(record)) if record.offset >= self.limit => self.park(),
                Some(Ok(record)) => self.take(record),
                Some(Err(KafkaError::PartitionEOF(_))) => self.at_end(),
                Some(Err(error)) => self.judge(error)?,
                None => {}
            }
            if self.advanced.elapsed() >= ADVANCE_INTERVAL {
                self.advance();
            }
        }
        Ok(())
    }

    /// Takes over which splits are wanted; goes back when one of them stands below the reader. What others have read
    /// already is then read again and dropped by their trackers.
    fn follow_splits(&mut self) -> Result<(), ReadError> {
        let version = self.wanted.version();
        if self.version == Some(version) {
            return Ok(());
        }
        self.version = Some(version);
        let wanted = self.wanted.splits();
        let is_new =
            |cell: &&Arc<SplitCell>| !self.splits.get(&cell.id.index).is_some_and(|have| Arc::ptr_eq(have, cell));
        let lowest = wanted.values().filter(is_new).map(|cell| cell.cursor()).min();
        // Before the new ones are adopted: they must not be told of offsets that were read without them.
        if lowest.is_some() {
            self.advance();
        }
        self.splits = wanted;
        let lifted = self.splits.values().filter_map(|cell| cell.lift_limit()).min();
        self.limit = self.splits.values().map(|cell| cell.limit()).max().unwrap_or(i64::MAX);
        let Some(lowest) = lowest.into_iter().chain(lifted).min() else { return Ok(()) };
        match self.position {
            Some(position) if lowest >= position && !(self.parked && self.limit > position) => {
                debug!(partition = %self.partition, position, "split added ahead of the reader");
                Ok(())
            }
            position => self.assign(position.map_or(lowest, |position| lowest.min(position))),
        }
    }

    /// A record at or above the limit came: all below it was read, and that one will be read again when there is no limit.
    fn park(&mut self) {
        let limit = self.limit;
        info!(partition = %self.partition, limit, "read up to the limit");
        (self.position, self.parked) = (Some(limit), true);
        self.advance();
    }

    fn assign(&mut self, offset: i64) -> Result<(), ReadError> {
        info!(partition = %self.partition, offset, from = self.position, splits = self.splits.len(), "reading");
        let fatal = |source| ReadError::Fatal { partition: self.partition.clone(), source };
        let mut assignment = TopicPartitionList::with_capacity(1);
        let TopicPartition { topic, partition } = &self.partition;
        assignment.add_partition_offset(topic, *partition, Offset::Offset(offset)).map_err(fatal)?;
        self.consumer.assign(&assignment).map_err(fatal)?;
        (self.position, self.parked) = (Some(offset), false);
        Ok(())
    }

    fn copy(&self, message: &BorrowedMessage<'_>) -> SourceRecord {
        SourceRecord {
            topic: Arc::clone(&self.partition.topic),
            partition: self.partition.partition,
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key().map(Bytes::copy_from_slice),
            value: message.payload().map(Bytes::copy_from_slice),
        }
    }

    fn take(&mut self, record: SourceRecord) {
        self.missing_since = None;
        self.unreported += 1;
        let next = record.offset + 1;
        let key = self.shared.pipeline.key_of(&record);
        let index = self.shared.splits_per_partition.index_of(key);
        if let Some(cell) = self.splits.get(&index).filter(|cell| cell.reaches(record.offset)).map(Arc::clone) {
            let Some(admission) = self.wait_for_room(&cell, &record) else {
                // The split went while we waited. The others go on behind this record. When all went, their last cut may
                // be still to come, and it must not cover a record that was not taken in.
                if !self.wanted.stop.is_cancelled() {
                    self.position = Some(next);
                }
                return;
            };
            if cell.admit(key, record.offset) {
                self.shared.pipeline.start(cell, key, record, admission);
            }
        }
        self.position = Some(next);
    }

    fn wait_for_room(&self, cell: &SplitCell, record: &SourceRecord) -> Option<crate::budget::Admission> {
        if cell.is_closed() || self.wanted.stop.is_cancelled() {
            return None;
        }
        // Where there is room, the usual case, nothing waits and the runtime is not asked.
        if let Some(admission) = self.shared.pipeline.admit(record).now_or_never() {
            return Some(admission);
        }
        self.shared.runtime.block_on(async {
            tokio::select! {
                biased;
                () = cell.closed() => None,
                () = self.wanted.stop.cancelled() => None,
                admission = self.shared.pipeline.admit(record) => Some(admission),
            }
        })
    }

    /// The end of the log, transaction markers and aborted records included, which no message stands for.
    fn at_end(&mut self) {
        self.missing_since = None;
        if let Some(position) = self.consumer_position() {
            self.position = self.position.max(Some(position));
        }
        self.advance();
        if let Some(position) = self.position {
            self.splits.values().for_each(|cell| cell.set_log_end(position));
        }
    }

    /// Where the consumer stands: behind everything that was polled and whatever invisible came before the end.
    fn consumer_position(&self) -> Option<i64> {
        let positions = self.consumer.position().ok()?;
        let element = positions.find_partition(&self.partition.topic, self.partition.partition)?;
        element.offset().to_raw().filter(|offset| *offset >= 0)
    }

    fn advance(&mut self) {
        if let Some(position) = self.position {
            self.splits.values().for_each(|cell| cell.advance(position));
        }
        self.advanced = Instant::now();
        self.shared.metrics.read(&self.partition, std::mem::take(&mut self.unreported));
    }

    fn judge(&mut self, source: KafkaError) -> Result<(), ReadError> {
        let partition = self.partition.clone();
        let is_missing = |code| {
            matches!(
                code,
                Code::UnknownPartition | Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownTopicId
            )
        };
        let missing = source.rdkafka_error_code().is_some_and(is_missing);
        let missing_for = missing.then(|| self.missing_since.get_or_insert_with(Instant::now).elapsed());
        match source.rdkafka_error_code() {
            Some(Code::OffsetOutOfRange | Code::AutoOffsetReset) => {
                Err(ReadError::OffsetOutOfRange { partition, position: self.position.unwrap_or(-1) })
            }
            _ if missing_for.is_some_and(|since| since > GONE_AFTER) => Err(ReadError::Gone { partition, source }),
            _ if matches!(source, KafkaError::MessageConsumptionFatal(_)) => {
                Err(ReadError::Fatal { partition, source })
            }
            _ => {
                warn!(%partition, error = %source, "reading is disturbed, the client goes on by itself");
                thread::sleep(ERROR_PAUSE);
                Ok(())
            }
        }
    }
}
