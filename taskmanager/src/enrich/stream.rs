//! A stream that the enricher writes to.

use weir_proto::v1;

/// A stream that is written: what the stream configuration and the brokers say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputStream {
    /// Name in the stream configuration; becomes `meta.stream`.
    pub stream: String,
    /// Kafka topic.
    pub topic: String,
    /// `$schema` of every event, for example `/mediawiki/page/change/1.2.0`.
    pub schema_uri: String,
    /// Key field and its dotted path in the event, in the stream configuration's order. Empty: no key.
    pub message_key_fields: Vec<(String, String)>,
    /// The least of producer's, topic's and broker's limits, in bytes; 0 when unknown.
    pub max_message_bytes: u64,
}

impl From<v1::OutputStream> for OutputStream {
    fn from(stream: v1::OutputStream) -> Self {
        Self {
            stream: stream.stream,
            topic: stream.topic,
            schema_uri: stream.schema_uri,
            message_key_fields: stream.message_key_fields.into_iter().map(|field| (field.name, field.path)).collect(),
            max_message_bytes: stream.max_message_bytes,
        }
    }
}

impl From<weir_common::streams::OutputStream> for OutputStream {
    fn from(stream: weir_common::streams::OutputStream) -> Self {
        Self {
            stream: stream.stream,
            topic: stream.topic,
            schema_uri: stream.schema_uri,
            message_key_fields: stream.message_key_fields.into_iter().map(|field| (field.name, field.path)).collect(),
            max_message_bytes: 0,
        }
    }
}

impl OutputStream {
    /// The stream with the producer's limit in place of a larger or an unknown one.
    #[must_use]
    pub fn limited_to(mut self, producer_bytes: u64) -> Self {
        self.max_message_bytes = match (self.max_message_bytes, producer_bytes) {
            (0, limit) | (limit, 0) => limit,
            (topic, producer) => topic.min(producer),
        };
        self
    }
}
