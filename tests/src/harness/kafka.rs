//! Topics and input.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    config::RDKafkaLogLevel,
    producer::{FutureProducer, FutureRecord},
};
use tokio_util::sync::CancellationToken;

/// A record to put into the source.
#[derive(Clone, Debug)]
pub struct Input {
    /// Source topic.
    pub topic: String,
    /// Message key.
    pub key: Option<Vec<u8>>,
    /// Message value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
}

/// Replication.
const BROKER_DEFAULT: TopicReplication<'static> = TopicReplication::Fixed(-1);

fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set_log_level(RDKafkaLogLevel::Critical);
    config
}

/// Makes topics.
///
/// # Errors
/// The broker refuses.
pub async fn create_topics(bootstrap: &str, topics: &[(&str, i32)]) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = config(bootstrap).create()?;
    let topics: Vec<NewTopic<'_>> =
        topics.iter().map(|(name, partitions)| NewTopic::new(name, *partitions, BROKER_DEFAULT)).collect();
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
    for result in admin.create_topics(&topics, &options).await? {
        if let Err((topic, why)) = result {
            bail!("cannot create topic {topic}: {why}");
        }
    }
    Ok(())
}

/// Deletes topics, and with them what they hold.
///
/// # Errors
/// The broker refuses.
pub async fn delete_topics(bootstrap: &str, topics: &[&str]) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = config(bootstrap).create()?;
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
    for result in admin.delete_topics(topics, &options).await? {
        result.map_err(|(topic, code)| anyhow::anyhow!("topic {topic} is not deleted: {code}"))?;
    }
    Ok(())
}

/// Deletes a topic and makes it anew, with one partition and nothing in it.
///
/// # Errors
/// The broker refuses.
pub async fn recreate_topic(bootstrap: &str, topic: &str) -> anyhow::Result<()> {
    delete_topics(bootstrap, &[topic]).await?;
    // Deleted for the controller is not yet deleted for every broker.
    super::until(&format!("topic {topic} to be made anew"), Duration::from_secs(30), async || {
        Ok(create_topics(bootstrap, &[(topic, 1)]).await.ok())
    })
    .await
}

/// Sets a topic's `max.message.bytes`; its other settings become the broker's.
///
/// # Errors
/// The broker refuses.
pub async fn set_topic_limit(bootstrap: &str, topic: &str, bytes: u32) -> anyhow::Result<()> {
    set(bootstrap, ResourceSpecifier::Topic(topic), "max.message.bytes", bytes).await
}

/// Sets `message.max.bytes` of broker 1: the limit of topics that set none of their own.
///
/// # Errors
/// The broker refuses.
pub async fn set_broker_limit(bootstrap: &str, bytes: u32) -> anyhow::Result<()> {
    set(bootstrap, ResourceSpecifier::Broker(1), "message.max.bytes", bytes).await
}

async fn set(bootstrap: &str, of: ResourceSpecifier<'_>, name: &str, value: u32) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = config(bootstrap).create()?;
    let value = value.to_string();
    for result in admin.alter_configs(&[AlterConfig::new(of).set(name, &value)], &AdminOptions::new()).await? {
        result.map_err(|(_, why)| anyhow::anyhow!("{name} cannot be set: {why}"))?;
    }
    Ok(())
}

/// Deletes a topic's records of partition 0 below an offset.
///
/// # Errors
/// The broker refuses.
pub async fn delete_records(bootstrap: &str, topic: &str, before: i64) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = config(bootstrap).create()?;
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(topic, 0, Offset::Offset(before))?;
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
    let deleted = admin.delete_records(&offsets, &options).await?;
    for partition in deleted.elements() {
        partition.error()?;
    }
    Ok(())
}

/// Writes records in order, at most `per_second` of them in a second; 0 = as fast as they go.
///
/// # Errors
/// One could not be written.
pub async fn produce(bootstrap: &str, inputs: &[Input], per_second: u32) -> anyhow::Result<()> {
    produce_until(bootstrap, inputs, per_second, &CancellationToken::new()).await.map(drop)
}

/// The same until it is told to stop; how many it wrote.
///
/// # Errors
/// As there.
pub async fn produce_until(
    bootstrap: &str,
    inputs: &[Input],
    per_second: u32,
    stop: &CancellationToken,
) -> anyhow::Result<usize> {
    let producer: FutureProducer = config(bootstrap)
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .set("message.max.bytes", "10000000")
        .set("compression.type", "lz4")
        .create()?;
    let started = tokio::time::Instant::now();
    let mut pending = Vec::new();
    let mut written = 0;
    for (at, input) in inputs.iter().enumerate() {
        if stop.is_cancelled() {
            break;
        }
        written += 1;
        if per_second > 0 {
            tokio::time::sleep_until(started + Duration::from_secs_f64(at as f64 / f64::from(per_second))).await;
        }
        let mut record = FutureRecord::<[u8], [u8]>::to(&input.topic);
        record.key = input.key.as_deref();
        record.payload = input.value.as_deref();
        loop {
            match producer.send_result(record) {
                Ok(delivery) => break pending.push(delivery),
                // The queue is full: let it drain.
                Err((_, back)) => {
                    record = back;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        if pending.len() >= 20_000 {
            acknowledged(&mut pending).await?;
        }
    }
    acknowledged(&mut pending).await?;
    Ok(written)
}

async fn acknowledged(pending: &mut Vec<rdkafka::producer::DeliveryFuture>) -> anyhow::Result<()> {
    for delivery in pending.drain(..) {
        let delivered =
            tokio::time::timeout(Duration::from_secs(60), delivery).await.context("no acknowledgement")??;
        ensure!(delivered.is_ok(), "an input was not written: {delivered:?}");
    }
    Ok(())
}
