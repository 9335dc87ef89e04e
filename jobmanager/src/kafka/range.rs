//! Reads a range of one partition, records of committed transactions alone.

use std::{
    ops::{ControlFlow, Range},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    config::{ClientConfig, RDKafkaLogLevel},
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Message as _},
};
use weir_common::{kafka::LoggingContext, split::TopicPartition};

use super::{KafkaProblem, off_thread::OffThread, problem, refused, source::watermarks, topics::partition_count};

/// How long a poll waits.
const POLL: Duration = Duration::from_millis(100);

/// A partition that does not answer for so long has no leader.
const SILENCE: Duration = Duration::from_secs(20);

/// The end of a partition is reported like an error, and is none.
pub(super) struct RangeContext(LoggingContext);

impl ClientContext for RangeContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            self.0.error(error, reason);
        }
    }
}

impl ConsumerContext for RangeContext {}

/// Reads ranges, one after the other.
pub(super) struct RangeReader {
    pub(super) consumer: OffThread<BaseConsumer<RangeContext>>,
    address: String,
}

/// How the reading of a range ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Its end, or the partition's.
    Reached,
    /// The reader of its records had enough, or the deadline came.
    Left,
}

impl RangeReader {
    /// `section`: whose properties these are, for messages.
    pub(super) fn new(config: &ClientConfig, name: &str, section: &str) -> Result<Self, KafkaProblem> {
        let mut config = config.clone();
        config
            .set("enable.partition.eof", "true")
            // Ranges are short, and most of what is fetched beyond one is fetched in vain.
            .set("queued.min.messages", "1000")
            .set("queued.max.messages.kbytes", "8192");
        let address = config.get("bootstrap.servers").unwrap_or_default().to_owned();
        let consumer = config
            .create_with_context(RangeContext(LoggingContext::new(name)))
            .map_err(|error| refused(section, &error))?;
        Ok(Self { consumer: OffThread::new(consumer), address })
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// How many partitions a topic has; `None` where there is none.
    pub(super) fn partitions(&self, topic: &str) -> Result<Option<i32>, KafkaProblem> {
        partition_count(&*self.consumer, topic, &self.address)
    }

    /// The oldest offset of a partition, and the first that is not committed.
    pub(super) fn ends(&self, partition: &TopicPartition) -> Result<(i64, i64), KafkaProblem> {
        watermarks(&*self.consumer, partition, &self.address)
    }

    /// Gives the records of the range in their order to `take`, until that breaks or the deadline is over.
    pub(super) fn read(
        &self,
        partition: &TopicPartition,
        range: Range<i64>,
        deadline: Option<Instant>,
        mut take: impl FnMut(&BorrowedMessage<'_>) -> ControlFlow<()>,
    ) -> Result<End, KafkaProblem> {
        let what = || format!("reading {partition} at {} from offset {}", self.address, range.start);
        if range.is_empty() {
            return Ok(End::Reached);
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(range.start))
            .and_then(|()| self.consumer.assign(&list))
            .map_err(|error| problem(&what(), &error))?;
        let mut heard = Instant::now();
        loop {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(End::Left);
            }
            match self.consumer.poll(POLL) {
                Some(Ok(message)) if message.offset() >= range.end => return Ok(End::Reached),
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let last = message.offset() + 1 >= range.end;
                    if take(&message).is_break() {
                        return Ok(End::Left);
                    }
                    if last {
                        return Ok(End::Reached);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(End::Reached),
                // Passes by itself, or SILENCE is over.
                Some(Err(error)) if !is_final(&error) && heard.elapsed() < SILENCE => {
                    tracing::debug!(%partition, %error, "reading is disturbed");
                }
                Some(Err(error)) => return Err(problem(&what(), &error)),
                None if heard.elapsed() >= SILENCE => {
                    return Err(KafkaProblem::Unreachable(format!("{}: no answer within {SILENCE:?}", what())));
                }
                None => {}
            }
        }
    }
}

fn is_final(error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageConsumptionFatal(_))
        || matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::OffsetOutOfRange
                    | RDKafkaErrorCode::AutoOffsetReset
                    | RDKafkaErrorCode::UnknownTopicOrPartition
                    | RDKafkaErrorCode::UnknownTopic
                    | RDKafkaErrorCode::UnknownPartition
                    | RDKafkaErrorCode::TopicAuthorizationFailed
                    | RDKafkaErrorCode::GroupAuthorizationFailed
            )
        )
}
