//! The producer of a slot on Kafka.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer},
    util::Timeout,
};
use weir_common::{
    config::{Config, DeliveryGuarantee},
    ids::SlotId,
    kafka::{self, LoggingContext},
    progress::entry::ProgressEntry,
    split::SplitId,
};

use super::{
    doubt::{Doubt, DoubtingContext},
    limits::Limits,
    output::{Cause, Failure, KeptEntry, Output, Refusal, Undelivered},
};
use crate::{
    job::JobSpec,
    record::{Destination, OutputRecord, SourceRecord, headers},
};

/// `init_transactions` is resumable: tried again after this.
const INIT_TIMEOUT: Duration = Duration::from_secs(30);

/// One stable read; a pending transaction lets it time out.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
const READ_ATTEMPTS: usize = 6;

/// A full queue of the producer is waited for this long.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(60);

/// Metadata of one `send_offsets_to_transaction`: the broker refuses about 1 MB.
const OFFSETS_BYTES: usize = 512 * 1024;

/// librdkafka's name of the bytes in a batch.
const BATCH_SIZE: &str = "batch.size";

type Client = ThreadedProducer<SinkContext>;

/// See [`Output`].
pub struct KafkaOutput {
    job: Arc<JobSpec>,
    producer_config: ClientConfig,
    producer: Option<Client>,
    /// For error events on another cluster: acknowledged before the transaction commits.
    errors_elsewhere: Option<Client>,
    /// Exactly-once: reads progress and names its group.
    progress: Option<BaseConsumer<LoggingContext>>,
    /// Asks for the topics' limits: of the sink, of the error sink.
    admin: [ClientConfig; 2],
    limits: Limits,
    /// The broker has refused something for what it is.
    limits_stale: bool,
}

impl KafkaOutput {
    /// Settings only; nothing is connected before [`Output::open`].
    ///
    /// # Errors
    /// A client property is refused.
    pub fn new(config: &Config, job: Arc<JobSpec>, slot: SlotId) -> KafkaResult<Self> {
        let exactly_once = job.delivery_guarantee == DeliveryGuarantee::ExactlyOnce;
        let transactional_id = exactly_once.then(|| slot.transactional_id(&job.job_name));
        let errors_elsewhere = kafka::error_producer(config).map(|client| create(&client, "error-sink")).transpose()?;
        let progress = exactly_once
            .then(|| {
                kafka::progress_consumer(config)
                    .create_with_context::<_, BaseConsumer<_>>(LoggingContext::new("progress"))
            })
            .transpose()?;
        Ok(Self {
            producer_config: kafka::sink_producer(config, transactional_id.as_deref()),
            producer: None,
            errors_elsewhere,
            progress,
            admin: [kafka::sink_admin(config), kafka::error_producer(config).unwrap_or(kafka::sink_admin(config))],
            limits: Limits::default(),
            limits_stale: false,
            job,
        })
    }

    fn is_exactly_once(&self) -> bool {
        self.job.delivery_guarantee == DeliveryGuarantee::ExactlyOnce
    }

    /// Whether the broker has refused this producer for good in favour of another instance.
    fn fenced(&self) -> Option<String> {
        let (code, reason) = self.producer.as_ref()?.client().fatal_error()?;
        is_about_fencing(code).then_some(reason)
    }

    /// A step with the producer did not succeed.
    fn failure(&self, what: &str, error: KafkaError) -> Failure {
        match self.fenced() {
            Some(reason) => Failure::Fenced(format!("{what}: {reason}")),
            None => failure(what, error),
        }
    }

    fn producer(&self) -> Result<&Client, Failure> {
        self.producer.as_ref().ok_or_else(|| Failure::Doubt(Doubt::FailedCall("there is no producer".to_owned())))
    }

    /// After a refusal: the limits as they are now, and batches inside of them from the next producer on. A refused batch
    /// is not split, so one over the limit would fail records that are not.
    async fn refresh_limits(&mut self) {
        if std::mem::take(&mut self.limits_stale) {
            for (admin, topic) in self.admin.iter().zip([&self.job.sink_topic, &self.job.error_topic]) {
                self.limits.read(admin, topic, Instant::now()).await;
            }
        }
        let batch = self.producer_config.get(BATCH_SIZE).and_then(|bytes| bytes.parse().ok());
        if let (Some(limit), Some(batch)) = (self.limits.least(), batch)
            && limit < batch
        {
            self.producer_config.set(BATCH_SIZE, limit.to_string());
        }
    }

    /// Why the topic would not take this record, as far as is known.
    async fn refusal(&mut self, output: &OutputRecord) -> Option<String> {
        self.refresh_limits().await;
        let topic = self.topic(output.destination).to_owned();
        self.limits.refusal(&topic, output)?;
        if self.limits.are_old(Instant::now()) {
            // Somebody may have raised it again.
            self.limits_stale = true;
            self.refresh_limits().await;
        }
        self.limits.refusal(&topic, output)
    }

    fn topic(&self, destination: Destination) -> &str {
        match destination {
            Destination::Sink => &self.job.sink_topic,
            Destination::ErrorSink => &self.job.error_topic,
        }
    }

    fn client_for(&self, destination: Destination) -> Result<(&Client, &str), Failure> {
        match (destination, &self.errors_elsewhere) {
            (Destination::Sink, _) => Ok((self.producer()?, &self.job.sink_topic)),
            (Destination::ErrorSink, None) => Ok((self.producer()?, &self.job.error_topic)),
            (Destination::ErrorSink, Some(elsewhere)) => Ok((elsewhere, &self.job.error_topic)),
        }
    }
}

impl Output for KafkaOutput {
    async fn open(&mut self) -> Result<(), Failure> {
        discard(self.producer.take());
        self.refresh_limits().await;
        let producer =
            create(&self.producer_config, "sink").map_err(|error| failure("the producer cannot be made", error))?;
        if self.is_exactly_once() {
            producer.init_transactions(INIT_TIMEOUT).map_err(|error| failure("init_transactions failed", error))?;
        }
        self.producer = Some(producer);
        Ok(())
    }

    async fn begin(&mut self) -> Result<(), Failure> {
        if self.is_exactly_once() {
            self.producer()?.begin_transaction().map_err(|error| self.failure("begin_transaction failed", error))?;
        }
        Ok(())
    }

    async fn produce(&mut self, number: usize, record: &SourceRecord, output: &OutputRecord) -> Result<(), Refusal> {
        if let Some(reason) = self.refusal(output).await {
            return Err(Refusal::Record(reason));
        }
        let (client, topic) = self.client_for(output.destination).map_err(Refusal::Producer)?;
        let deliveries = &client.context().deliveries;
        let mut message = BaseRecord::with_opaque_to(topic, number)
            .payload(output.value.as_ref())
            .timestamp(output.timestamp_ms)
            .headers(source_position(record));
        message.key = output.key.as_deref();
        let deadline = Instant::now() + QUEUE_TIMEOUT;
        loop {
            deliveries.expect_one();
            let Err((error, refused)) = client.send::<[u8], [u8]>(message) else { return Ok(()) };
            deliveries.forget_one();
            message = refused;
            match error.rdkafka_error_code() {
                Some(Code::QueueFull) if Instant::now() < deadline => deliveries.wait_for_one(),
                Some(code) if is_about_content(code) => return Err(Refusal::Record(error.to_string())),
                _ => return Err(Refusal::Producer(self.failure("a record was refused by the producer", error))),
            }
        }
    }

    async fn settle(&mut self) -> Vec<Undelivered> {
        let clients = [self.producer.as_ref(), self.errors_elsewhere.as_ref()];
        let mut failed: Vec<_> =
            clients.into_iter().flatten().flat_map(|client| client.context().deliveries.settle()).collect();
        self.limits_stale |= failed.iter().any(|undelivered| undelivered.cause == Cause::Content);
        // A fenced producer purges what it has: its records fail for that, and only the client knows why.
        if let (false, Some(reason)) = (failed.is_empty(), self.fenced()) {
            for undelivered in &mut failed {
                (undelivered.cause, undelivered.reason) = (Cause::Fenced, reason.clone());
            }
        }
        failed
    }

    async fn send_progress(&mut self, entries: &[KeptEntry]) -> Result<(), Failure> {
        let (Some(producer), Some(progress)) = (&self.producer, &self.progress) else { return Ok(()) };
        let group = progress
            .group_metadata()
            .ok_or_else(|| Failure::Doubt(Doubt::FailedCall("the progress group has no metadata".to_owned())))?;
        let group = Arc::new(group);
        for chunk in chunks(entries) {
            let mut offsets = TopicPartitionList::with_capacity(chunk.len());
            for (partition, cursor, metadata) in &chunk {
                let mut element = offsets.add_partition(&self.job.progress_topic, *partition);
                // An invalid offset would be skipped without a word, and with it the progress.
                element
                    .set_offset(Offset::Offset(*cursor))
                    .map_err(|error| failure("progress is not an offset", error))?;
                element.set_metadata(metadata.as_str());
            }
            let (producer, group) = (producer.clone(), Arc::clone(&group));
            let send = move |timeout| producer.send_offsets_to_transaction(&offsets, &group, timeout);
            kafka::send_offsets(send).map_err(|error| self.failure("send_offsets_to_transaction failed", error))?;
        }
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), Failure> {
        if self.is_exactly_once() {
            // -1: a shorter time could leave client and broker of different minds.
            self.producer()?
                .commit_transaction(Timeout::Never)
                .map_err(|error| self.failure("commit_transaction failed", error))?;
        }
        Ok(())
    }

    async fn stable_progress(&mut self, splits: &[(SplitId, i32)]) -> Result<Vec<ProgressEntry>, Failure> {
        let Some(progress) = &self.progress else { return Ok(Vec::new()) };
        let mut wanted = TopicPartitionList::with_capacity(splits.len());
        for (_, partition) in splits {
            wanted.add_partition(&self.job.progress_topic, *partition);
        }
        let mut attempt = 1;
        let committed = loop {
            match progress.committed_offsets(wanted.clone(), READ_TIMEOUT) {
                Ok(committed) => break committed,
                Err(error) if attempt == READ_ATTEMPTS => return Err(failure("progress cannot be read", error)),
                Err(_) => attempt += 1,
            }
            thread::sleep(Duration::from_millis(100));
        };
        let elements = committed.elements();
        let mut entries = Vec::with_capacity(elements.len());
        for element in &elements {
            element.error().map_err(|error| failure("progress cannot be read", error))?;
            let Offset::Offset(cursor) = element.offset() else { continue };
            let entry = ProgressEntry::parse(cursor, element.metadata()).map_err(|error| {
                Failure::Fenced(format!("{} partition {}: {error}", self.job.progress_topic, element.partition()))
            })?;
            entries.push(entry);
        }
        Ok(entries)
    }

    fn limit(&self, destination: Destination) -> Option<u64> {
        self.limits.of(self.topic(destination))
    }

    fn doubt(&self) -> Option<Doubt> {
        self.producer.as_ref().and_then(|producer| producer.context().doubting.flag.get())
    }

    fn clear_doubt(&self) {
        if let Some(producer) = &self.producer {
            producer.context().doubting.flag.clear();
        }
    }
}

impl Drop for KafkaOutput {
    fn drop(&mut self) {
        discard(self.producer.take());
        discard(self.errors_elsewhere.take());
        discard(self.progress.take());
    }
}

/// Dropping a client may take its time, or hang: nobody waits for it.
fn discard<T: Send + 'static>(client: Option<T>) {
    if let Some(client) = client {
        thread::spawn(move || drop(client));
    }
}

fn create(config: &ClientConfig, name: &str) -> KafkaResult<Client> {
    config.create_with_context(SinkContext { doubting: DoubtingContext::new(name), deliveries: Deliveries::default() })
}

/// Offsets of as many entries as one request may carry.
fn chunks(entries: &[KeptEntry]) -> Vec<Vec<(i32, i64, String)>> {
    let mut chunks: Vec<Vec<_>> = Vec::new();
    let mut bytes = usize::MAX;
    for KeptEntry { partition, entry } in entries {
        let metadata = entry.metadata();
        let size = metadata.len() + 64;
        bytes = bytes.saturating_add(size);
        if bytes > OFFSETS_BYTES {
            chunks.push(Vec::new());
            bytes = size;
        }
        if let Some(chunk) = chunks.last_mut() {
            chunk.push((*partition, entry.progress.cursor, metadata));
        }
    }
    chunks
}

fn source_position(record: &SourceRecord) -> OwnedHeaders {
    let (partition, offset) = (record.partition.to_string(), record.offset.to_string());
    OwnedHeaders::new_with_capacity(3)
        .insert(Header { key: headers::SOURCE_TOPIC, value: Some(&*record.topic) })
        .insert(Header { key: headers::SOURCE_PARTITION, value: Some(&partition) })
        .insert(Header { key: headers::SOURCE_OFFSET, value: Some(&offset) })
}

/// Fenced ones are told apart: another instance may have our place, so we do not take it back by ourselves.
fn failure(what: &str, error: KafkaError) -> Failure {
    let code = error.rdkafka_error_code();
    let text = match &error {
        KafkaError::Transaction(error) => format!("{what}: {} ({})", error.string(), error.name()),
        _ => format!("{what}: {error}"),
    };
    if code.is_some_and(is_about_fencing) { Failure::Fenced(text) } else { Failure::Doubt(Doubt::FailedCall(text)) }
}

fn is_about_fencing(code: Code) -> bool {
    matches!(code, Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch)
}

fn is_about_content(code: Code) -> bool {
    matches!(
        code,
        Code::MessageSizeTooLarge
            | Code::InvalidMessage
            | Code::InvalidMessageSize
            | Code::InvalidRecord
            | Code::InvalidTimestamp
            | Code::MessageBatchTooLarge
    )
}

/// Callbacks of one producer.
struct SinkContext {
    doubting: DoubtingContext,
    deliveries: Deliveries,
}

impl ClientContext for SinkContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.doubting.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.doubting.error(error, reason);
    }
}

impl ProducerContext for SinkContext {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let failed = result.as_ref().err().map(|(error, message)| {
            let code = error.rdkafka_error_code();
            let cause = match code {
                Some(code) if is_about_content(code) => Cause::Content,
                Some(code) if is_about_fencing(code) => Cause::Fenced,
                _ => Cause::Transport,
            };
            Undelivered { number, cause, reason: format!("{error} (topic {})", message.topic()) }
        });
        self.deliveries.done(failed);
    }
}

/// Counts delivery reports: the crate's own `flush` waits in steps of 100 ms.
#[derive(Default)]
struct Deliveries {
    state: Mutex<Outstanding>,
    changed: Condvar,
}

#[derive(Default)]
struct Outstanding {
    count: usize,
    failed: Vec<Undelivered>,
}

impl Deliveries {
    fn expect_one(&self) {
        self.lock().count += 1;
    }

    fn forget_one(&self) {
        self.lock().count -= 1;
    }

    fn done(&self, failed: Option<Undelivered>) {
        let mut state = self.lock();
        state.count = state.count.saturating_sub(1);
        state.failed.extend(failed);
        self.changed.notify_all();
    }

    fn wait_for_one(&self) {
        let _ = self.changed.wait_timeout(self.lock(), Duration::from_millis(20));
    }

    /// Every record is acknowledged or fails within `message.timeout.ms`.
    fn settle(&self) -> Vec<Undelivered> {
        let mut state = self.lock();
        while state.count > 0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::take(&mut state.failed)
    }

    fn lock(&self) -> MutexGuard<'_, Outstanding> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use weir_common::{counters::SplitCounters, progress::Progress, split::SplitsPerPartition};

    use super::*;

    #[test]
    fn progress_is_sent_in_chunks_that_the_broker_takes() {
        let entry = |index: u32| KeptEntry {
            partition: index as i32 + 1,
            entry: ProgressEntry {
                split: SplitId { topic: "t".repeat(200).into(), partition: 0, index },
                splits_per_partition: SplitsPerPartition::new(1024).expect("legal"),
                slot: Some(SlotId(1)),
                progress: Progress::at(i64::from(index)),
                counters: SplitCounters::default(),
            },
        };
        let entries: Vec<_> = (0..1024).map(entry).cycle().take(3000).collect();
        let chunks = chunks(&entries);
        assert!(chunks.len() > 1);
        assert_eq!(chunks.iter().map(Vec::len).sum::<usize>(), entries.len());
        for chunk in chunks {
            assert!(chunk.iter().map(|(_, _, metadata)| metadata.len() + 64).sum::<usize>() <= OFFSETS_BYTES);
        }
        assert_eq!(super::chunks(&[]), Vec::<Vec<_>>::new());
    }
}
