//! Reads whole topics, committed records only.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::{BorrowedMessage, Headers},
};

use super::Record;

const TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) fn consumer(bootstrap: &str, isolation: &str) -> anyhow::Result<BaseConsumer> {
    configured(bootstrap, isolation, "weir-checker")
}

fn configured(bootstrap: &str, isolation: &str, group: &str) -> anyhow::Result<BaseConsumer> {
    Ok(ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("isolation.level", isolation)
        .set("enable.partition.eof", "true")
        .set("fetch.message.max.bytes", "20000000")
        .set("receive.message.max.bytes", "200000000")
        .set_log_level(RDKafkaLogLevel::Critical)
        .create()?)
}

pub(crate) fn partitions(consumer: &BaseConsumer, topic: &str) -> anyhow::Result<Vec<i32>> {
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).with_context(|| format!("metadata of {topic}"))?;
    let found = metadata.topics().first().map(|t| t.partitions().iter().map(|p| p.id()).collect::<Vec<_>>());
    found.filter(|ids| !ids.is_empty()).with_context(|| format!("topic {topic} does not exist"))
}

/// Every committed record of a topic, partitions one after the other. A transaction that is still open is an error: a
/// consumer would wait for it, and nobody is there to end it.
///
/// # Errors
/// The broker does not answer, the topic does not exist, a transaction is open.
pub fn topic(bootstrap: &str, topic: &str) -> anyhow::Result<Vec<Record>> {
    let mut records = Vec::new();
    each(bootstrap, topic, |message| {
        records.push(own(message));
        Ok(())
    })?;
    Ok(records)
}

/// The same one by one, for topics larger than memory.
///
/// # Errors
/// As [`topic`]; the first of `take`.
pub fn each(
    bootstrap: &str,
    topic: &str,
    mut take: impl FnMut(&BorrowedMessage<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let consumer = consumer(bootstrap, "read_committed")?;
    let uncommitted = self::consumer(bootstrap, "read_uncommitted")?;
    for partition in partitions(&consumer, topic)? {
        // The end that a client is told depends on its isolation level: last stable offset, or the log's end.
        let (low, stable) = consumer.fetch_watermarks(topic, partition, TIMEOUT)?;
        let (_, end) = uncommitted.fetch_watermarks(topic, partition, TIMEOUT)?;
        // Records are as old as their events: a topic with a retention time would lose them before they are checked.
        ensure!(low == 0, "{topic}-{partition}: Kafka has deleted everything before offset {low}");
        ensure!(stable == end, "{topic}-{partition}: a transaction is open at offset {stable}, the log ends at {end}");
        if low < end {
            read_on(&consumer, topic, partition, Offset::Beginning, &mut take)?;
        }
    }
    Ok(())
}

fn read_on(
    consumer: &BaseConsumer,
    topic: &str,
    partition: i32,
    from: Offset,
    take: &mut impl FnMut(&BorrowedMessage<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, from)?;
    consumer.assign(&list)?;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        ensure!(Instant::now() < deadline, "{topic}-{partition}: not read to its end in time");
        match consumer.poll(Duration::from_millis(500)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(ended))) if ended == partition => return Ok(()),
            Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(why)) => bail!("{topic}-{partition}: {why}"),
            Some(Ok(message)) => take(&message)?,
        }
    }
}

/// Everything in a topic, what was aborted too. To tell, of a lost output, whether it was ever written.
///
/// # Errors
/// The broker does not answer, or the topic does not exist.
pub fn topic_with_aborted(bootstrap: &str, topic: &str) -> anyhow::Result<Vec<Record>> {
    let consumer = consumer(bootstrap, "read_uncommitted")?;
    let mut records = Vec::new();
    for partition in partitions(&consumer, topic)? {
        read_on(&consumer, topic, partition, Offset::Beginning, &mut |message| {
            records.push(own(message));
            Ok(())
        })?;
    }
    Ok(records)
}

/// The ends of a topic's partitions, asked for again and again on one connection.
pub struct Ends {
    consumer: BaseConsumer,
    topic: String,
    partitions: Vec<i32>,
}

impl Ends {
    /// Of this topic.
    ///
    /// # Errors
    /// The broker does not answer, or the topic does not exist.
    pub fn of(bootstrap: &str, topic: &str) -> anyhow::Result<Self> {
        let consumer = consumer(bootstrap, "read_uncommitted")?;
        let partitions = partitions(&consumer, topic)?;
        Ok(Self { consumer, topic: topic.to_owned(), partitions })
    }

    /// Their sum: what was ever written, uncommitted and control records included.
    ///
    /// # Errors
    /// The broker does not answer.
    pub fn sum(&self) -> anyhow::Result<u64> {
        let end = |partition: &i32| Ok(self.consumer.fetch_watermarks(&self.topic, *partition, TIMEOUT)?.1 as u64);
        self.partitions.iter().map(end).sum()
    }
}

/// How many offsets a topic's partitions span up to the last stable one, control records included. Cheap, for progress.
///
/// # Errors
/// The broker does not answer, or the topic does not exist.
pub fn span(bootstrap: &str, topic: &str) -> anyhow::Result<i64> {
    let consumer = consumer(bootstrap, "read_committed")?;
    let mut sum = 0;
    for partition in partitions(&consumer, topic)? {
        let (low, high) = consumer.fetch_watermarks(topic, partition, TIMEOUT)?;
        sum += high - low;
    }
    Ok(sum)
}

/// What a consumer group has committed of a topic, and where the topic ends; summed over its partitions.
///
/// # Errors
/// The broker does not answer, or the topic does not exist.
pub fn committed_of_group(bootstrap: &str, group: &str, topic: &str) -> anyhow::Result<(i64, i64)> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).set("group.id", group).create()?;
    let (mut list, mut end) = (TopicPartitionList::new(), 0);
    for partition in partitions(&consumer, topic)? {
        list.add_partition(topic, partition);
        end += consumer.fetch_watermarks(topic, partition, TIMEOUT)?.1;
    }
    let committed = consumer.committed_offsets(list, TIMEOUT)?;
    let offsets = committed.elements().into_iter().filter_map(|element| element.offset().to_raw());
    Ok((offsets.filter(|offset| *offset > 0).sum(), end))
}

/// What a consumer of this group sees that starts where the group is, up to the end.
///
/// # Errors
/// The broker does not answer, or the group has committed nothing.
pub fn from_group(bootstrap: &str, group: &str, topic: &str) -> anyhow::Result<Vec<Record>> {
    let consumer = configured(bootstrap, "read_committed", group)?;
    let mut asked = TopicPartitionList::new();
    for partition in partitions(&consumer, topic)? {
        asked.add_partition(topic, partition);
    }
    let mut records = Vec::new();
    for element in consumer.committed_offsets(asked, TIMEOUT)?.elements() {
        let offset = element.offset();
        ensure!(matches!(offset, Offset::Offset(_)), "group {group} has nothing committed of {topic}: {offset:?}");
        read_on(&consumer, topic, element.partition(), offset, &mut |message| {
            records.push(own(message));
            Ok(())
        })?;
    }
    Ok(records)
}

pub(crate) fn own(message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers.iter().map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec())).collect()
    });
    Record {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
    }
}
