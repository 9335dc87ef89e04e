//! What flows through a taskmanager: a record of the source, and what became of it.

use bytes::Bytes;
pub use weir_common::kafka::headers;
use weir_common::{
    counters::OutcomeKind,
    split::{TopicName, TopicPartition},
};

/// A record as it was read. Any bytes.
#[derive(Clone, Debug)]
pub struct SourceRecord {
    /// Source topic.
    pub topic: TopicName,
    /// Partition number.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
    /// The record's timestamp, milliseconds since 1970, if it has one.
    pub timestamp_ms: Option<i64>,
    /// The message key.
    pub key: Option<Bytes>,
    /// The message value; `None` is a tombstone.
    pub value: Option<Bytes>,
}

impl SourceRecord {
    /// Where it was read.
    #[must_use]
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition { topic: self.topic.clone(), partition: self.partition }
    }
}

/// Which of the two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// `stream_manager.sink`
    Sink,
    /// `stream_manager.error_sink`
    ErrorSink,
}

/// A record to produce. The sink adds the source-position headers.
#[derive(Clone, Debug)]
pub struct OutputRecord {
    /// Which stream.
    pub destination: Destination,
    /// Compact JSON of the stream's `message_key_fields`, where it has them.
    pub key: Option<Bytes>,
    /// The event.
    pub value: Bytes,
    /// The event's `dt` in milliseconds since 1970.
    pub timestamp_ms: i64,
}

/// How a record ended. Exactly one for every record that was read.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What it counts as.
    pub kind: OutcomeKind,
    /// What is produced; `None` for what was dropped on purpose.
    pub output: Option<OutputRecord>,
    /// The error event's `error_type`, for the metrics.
    pub error_type: Option<&'static str>,
}
