//! What flows: samples into the source topics at a rate, outputs read back and told to the verifier.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use jiff::Timestamp;
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _},
    message::{BorrowedMessage, Headers as _},
    producer::{FutureProducer, FutureRecord},
};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use weir_taskmanager::record::headers;

use super::{
    events::Generator,
    layout::Names,
    verify::{Destination, Input, Output, Verifier},
};

/// Inputs without output at which production waits: far below what the mock cluster keeps of a partition (5 MB).
const BACKLOG_MAX: u64 = 1000;

/// Samples are sent in steps this long.
const STEP: Duration = Duration::from_millis(20);

/// A step that came late makes up for so much of the time lost.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);

const KAFKA_TIMEOUT: Duration = Duration::from_secs(20);

/// The verifier, shared by producer, reader and view.
pub(crate) type Shared = Arc<Mutex<Verifier>>;

/// Locks it; a panic elsewhere does not matter to counts.
pub(crate) fn lock(verifier: &Shared) -> MutexGuard<'_, Verifier> {
    verifier.lock().unwrap_or_else(PoisonError::into_inner)
}

fn client(bootstrap_servers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap_servers).set_log_level(RDKafkaLogLevel::Error);
    config
}

/// Produces `count` samples, `rate` a second, or until told to stop.
///
/// # Errors
/// Kafka refuses a sample.
pub(crate) async fn produce(
    bootstrap_servers: &str,
    names: &Names,
    mut generator: Generator,
    (count, rate): (u64, f64),
    verifier: &Shared,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let mut config = client(bootstrap_servers);
    config.set("enable.idempotence", "true").set("linger.ms", "5");
    let producer: FutureProducer = config.create().context("cannot create the demo's producer")?;
    let mut step = tokio::time::interval(STEP);
    step.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut sent, mut due, mut last) = (0, 0.0, Instant::now());
    while sent < count {
        tokio::select! {
            _ = step.tick() => {}
            () = stop.cancelled() => break,
        }
        let passed = std::mem::replace(&mut last, Instant::now()).elapsed();
        if lock(verifier).tally().missing >= BACKLOG_MAX {
            continue;
        }
        due += rate * passed.min(CATCH_UP_MAX).as_secs_f64();
        let batch = (due as u64).min(count - sent);
        due -= batch as f64;
        send(&producer, names, &mut generator, batch, verifier).await?;
        sent += batch;
    }
    Ok(())
}

/// Sends a batch and waits for its offsets: in order, since all of a partition's samples are in flight together.
async fn send(
    producer: &FutureProducer,
    names: &Names,
    generator: &mut Generator,
    batch: u64,
    verifier: &Shared,
) -> anyhow::Result<()> {
    let mut sending = Vec::new();
    for _ in 0..batch {
        let sample = generator.next(Timestamp::now());
        let topic = &names.sources[sample.topic];
        let mut record = FutureRecord::<String, Vec<u8>>::to(topic).payload(&sample.value);
        if let Some(key) = &sample.key {
            record = record.key(key);
        }
        let delivery = producer
            .send_result(record)
            .map_err(|(error, _)| error)
            .with_context(|| format!("cannot produce to {topic}"))?;
        sending.push((sample, delivery));
    }
    for (sample, delivery) in sending {
        let topic = &names.sources[sample.topic];
        let delivered = delivery.await.context("the producer has gone")?;
        let delivered = delivered.map_err(|(error, _)| error).with_context(|| format!("cannot produce to {topic}"))?;
        let position = (topic.clone(), delivered.partition, delivered.offset);
        let input = Input { key: sample.key, value: sample.value, expected: sample.expected };
        lock(verifier).produced(position, input);
    }
    Ok(())
}

/// Reads both output topics from their start, on a thread of its own, until dropped.
pub(crate) struct Reader {
    stop: Arc<AtomicBool>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Reader {
    /// # Errors
    /// The topics cannot be read.
    pub(crate) fn start(bootstrap_servers: &str, names: &Names, verifier: Shared) -> anyhow::Result<Self> {
        let consumer: BaseConsumer = client(bootstrap_servers)
            .set("group.id", format!("{}.verifier", names.job))
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "earliest")
            .create()
            .context("cannot create the demo's consumer")?;
        let mut assignment = TopicPartitionList::new();
        for topic in [&names.sink, &names.errors] {
            let metadata = consumer.fetch_metadata(Some(topic), KAFKA_TIMEOUT);
            let metadata = metadata.with_context(|| format!("cannot read the partitions of {topic}"))?;
            for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
                assignment.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
            }
        }
        consumer.assign(&assignment).context("cannot read the output topics")?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, sink) = (Arc::clone(&stop), names.sink.clone());
        std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                    let output = output(&message, &sink);
                    lock(&verifier).read(output);
                }
            }
        });
        Ok(Self { stop })
    }
}

fn output(message: &BorrowedMessage<'_>, sink: &str) -> Output {
    let header = |name: &str| -> Option<&str> {
        let header = message.headers()?.iter().find(|header| header.key == name)?;
        std::str::from_utf8(header.value?).ok()
    };
    let source = || {
        let topic = header(headers::SOURCE_TOPIC)?.to_owned();
        let partition = header(headers::SOURCE_PARTITION)?.parse().ok()?;
        Some((topic, partition, header(headers::SOURCE_OFFSET)?.parse().ok()?))
    };
    let destination = if message.topic() == sink {
        Destination::Sink { partition: message.partition() }
    } else {
        Destination::Errors
    };
    Output {
        destination,
        source: source(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().unwrap_or_default().to_vec(),
    }
}
