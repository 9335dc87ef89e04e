//! What one message to a topic may have, when that is less than it was when the job started.
//!
//! The enricher knows the limits of the job's start and makes error events of what is over them. A limit that is lowered
//! later shows when the broker refuses something; then the limits are read again, so that the next ones are found before
//! they are produced: each refused batch costs its transaction.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, ResourceSpecifier},
};
use tracing::{info, warn};
use weir_common::kafka::LoggingContext;

use crate::{enrich::FRAMING_BYTES, record::OutputRecord};

/// Kafka's name of the limit; a topic that does not set it tells the broker's `message.max.bytes`.
const MAX_MESSAGE_BYTES: &str = "max.message.bytes";

/// Of one question; the sink waits for it, once for each refusal.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(5);

/// A limit that refuses something is believed for so long.
const BELIEVED: Duration = Duration::from_secs(60);

/// Limits by topic, as far as they are known.
#[derive(Debug, Default)]
pub(super) struct Limits {
    topics: BTreeMap<String, u64>,
    read_at: Option<Instant>,
}

impl Limits {
    /// The topic's limit in bytes, if it was read.
    pub(super) fn of(&self, topic: &str) -> Option<u64> {
        self.topics.get(topic).copied()
    }

    /// The least one.
    pub(super) fn least(&self) -> Option<u64> {
        self.topics.values().copied().min()
    }

    /// Why the topic would not take this record; `None` if it would, as far as is known.
    pub(super) fn refusal(&self, topic: &str, output: &OutputRecord) -> Option<String> {
        let limit = self.of(topic)?;
        let bytes = output.value.len() + output.key.as_ref().map_or(0, bytes::Bytes::len);
        (bytes.saturating_add(FRAMING_BYTES) as u64 > limit).then(|| {
            format!(
                "it has {bytes} bytes (key and value), one message to {topic} may have {limit} ({MAX_MESSAGE_BYTES})"
            )
        })
    }

    /// Whether they should be read again before something is refused for them.
    pub(super) fn are_old(&self, now: Instant) -> bool {
        self.read_at.is_some_and(|at| now - at > BELIEVED)
    }

    /// Asks the brokers; what they do not tell stays as it was known.
    pub(super) async fn read(&mut self, client: &ClientConfig, topic: &str, now: Instant) {
        self.read_at = Some(now);
        match describe(client, topic).await {
            Ok(limit) if self.of(topic) == Some(limit) => {}
            Ok(limit) => {
                info!(topic, bytes = limit, "{MAX_MESSAGE_BYTES} was read again");
                self.topics.insert(topic.to_owned(), limit);
            }
            Err(why) => warn!(topic, why, "{MAX_MESSAGE_BYTES} cannot be read; refused records are found one by one"),
        }
    }
}

async fn describe(client: &ClientConfig, topic: &str) -> Result<u64, String> {
    let admin: AdminClient<LoggingContext> =
        client.create_with_context(LoggingContext::new("admin")).map_err(|error| error.to_string())?;
    let options = AdminOptions::new().request_timeout(Some(DESCRIBE_TIMEOUT));
    let resource = ResourceSpecifier::Topic(topic);
    let described = admin.describe_configs([&resource], &options).await;
    // Dropping a client may take its time: nobody waits for it.
    std::thread::spawn(move || drop(admin));
    let topics = described.map_err(|error| error.to_string())?;
    let topic = topics.into_iter().next().ok_or("no answer")?.map_err(|code| code.to_string())?;
    let entry = topic.get(MAX_MESSAGE_BYTES).and_then(|entry| entry.value.as_ref()?.parse().ok());
    entry.ok_or_else(|| "the topic does not tell".to_owned())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::record::Destination;

    fn output(bytes: usize) -> OutputRecord {
        let key = Some(Bytes::from_static(b"0123456789"));
        OutputRecord { destination: Destination::Sink, key, value: Bytes::from(vec![b'x'; bytes]), timestamp_ms: 0 }
    }

    #[test]
    fn a_record_over_a_known_limit_is_refused_with_both_sizes() {
        let limits = Limits { topics: BTreeMap::from([("out".to_owned(), 2000)]), read_at: None };
        assert_eq!(limits.refusal("out", &output(2000 - FRAMING_BYTES - 10)), None);
        let refusal = limits.refusal("out", &output(2000 - FRAMING_BYTES - 9)).expect("a byte too much");
        assert!(refusal.contains("1489 bytes") && refusal.contains("2000"), "{refusal}");
        assert_eq!(limits.refusal("other", &output(1_000_000)), None, "what is not known refuses nothing");
    }

    #[test]
    fn a_limit_is_believed_for_a_while() {
        let now = Instant::now();
        assert!(!Limits::default().are_old(now), "nothing is known, nothing is refused");
        let limits = Limits { topics: BTreeMap::new(), read_at: Some(now) };
        assert!(!limits.are_old(now + BELIEVED));
        assert!(limits.are_old(now + BELIEVED + Duration::from_millis(1)));
    }

    #[test]
    fn batches_keep_the_least_limit() {
        assert_eq!(Limits::default().least(), None);
        let limits =
            Limits { topics: BTreeMap::from([("out".to_owned(), 2000), ("err".to_owned(), 900)]), read_at: None };
        assert_eq!(limits.least(), Some(900));
    }
}
