//! A producer as librdkafka's manual has it: every failed call is handled, every Ok is believed, a transaction that cannot
//! go on is aborted and the next one begins on the same producer, which is replaced only after a fatal error.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _, ConsumerGroupMetadata},
    error::KafkaError,
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext},
    util::Timeout,
};
use weir_common::{config::Config, ids::SlotId, kafka, progress::entry::ProgressEntry, split::SplitId};
use weir_taskmanager::{
    engine::{Cause, Doubt, Failure, KafkaOutput, KeptEntry, Output, Refusal, Undelivered},
    job::JobSpec,
    record::{OutputRecord, SourceRecord, headers},
};

const CALL: Duration = Duration::from_secs(30);
/// Too short for some disturbed requests: the transaction is aborted then.
const OFFSETS: Duration = Duration::from_millis(600);

/// See the module.
pub(crate) struct Textbook {
    job: Arc<JobSpec>,
    config: ClientConfig,
    producer: Option<BaseProducer<Deliveries>>,
    group: BaseConsumer,
    /// Reads progress, and that alone.
    reader: KafkaOutput,
}

#[derive(Default)]
struct Deliveries(Mutex<Vec<Undelivered>>);

impl ClientContext for Deliveries {
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        if let Err((error, _)) = result {
            let undelivered = Undelivered { number, cause: Cause::Transport, reason: error.to_string() };
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(undelivered);
        }
    }
}

fn failed(what: &str, error: &KafkaError) -> Failure {
    Failure::Doubt(Doubt::FailedCall(format!("{what}: {error}")))
}

impl Textbook {
    pub(crate) fn new(config: &Config, job: Arc<JobSpec>, slot: SlotId) -> Self {
        let mut client = kafka::sink_producer(config, Some(&slot.transactional_id(&job.job_name)));
        client.remove("debug");
        Self {
            config: client,
            producer: None,
            group: kafka::progress_consumer(config).create().expect("settings that are taken"),
            reader: KafkaOutput::new(config, Arc::clone(&job), slot).expect("settings that are taken"),
            job,
        }
    }

    fn producer(&self) -> &BaseProducer<Deliveries> {
        self.producer.as_ref().expect("opened first")
    }

    fn group(&self) -> ConsumerGroupMetadata {
        self.group.group_metadata().expect("it has a group")
    }
}

impl Output for Textbook {
    async fn open(&mut self) -> Result<(), Failure> {
        if let Some(producer) = self.producer.take().filter(|producer| producer.client().fatal_error().is_none()) {
            // What failed is abortable: the manual says to abort and to begin again.
            if producer.abort_transaction(CALL).is_ok() {
                // What was purged is produced again; it failed with the transaction, not with the next one.
                producer.context().0.lock().unwrap_or_else(PoisonError::into_inner).clear();
                self.producer = Some(producer);
                return Ok(());
            }
        }
        let producer: BaseProducer<Deliveries> =
            self.config.create_with_context(Deliveries::default()).map_err(|error| failed("create", &error))?;
        producer.init_transactions(CALL).map_err(|error| failed("init_transactions", &error))?;
        self.producer = Some(producer);
        Ok(())
    }

    async fn begin(&mut self) -> Result<(), Failure> {
        self.producer().begin_transaction().map_err(|error| failed("begin_transaction", &error))
    }

    async fn produce(&mut self, number: usize, record: &SourceRecord, output: &OutputRecord) -> Result<(), Refusal> {
        let (partition, offset) = (record.partition.to_string(), record.offset.to_string());
        let position = OwnedHeaders::new()
            .insert(Header { key: headers::SOURCE_TOPIC, value: Some(&*record.topic) })
            .insert(Header { key: headers::SOURCE_PARTITION, value: Some(&partition) })
            .insert(Header { key: headers::SOURCE_OFFSET, value: Some(&offset) });
        let mut message = BaseRecord::with_opaque_to(&self.job.sink_topic, number)
            .payload(output.value.as_ref())
            .timestamp(output.timestamp_ms)
            .headers(position);
        message.key = output.key.as_deref();
        let sent = self.producer().send::<[u8], [u8]>(message);
        sent.map_err(|(error, _)| Refusal::Producer(failed("send", &error)))
    }

    async fn settle(&mut self) -> Vec<Undelivered> {
        // What is not delivered by then the commit waits for, and fails.
        let _ = self.producer().flush(CALL);
        std::mem::take(&mut *self.producer().context().0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn send_progress(&mut self, entries: &[KeptEntry]) -> Result<(), Failure> {
        let mut offsets = TopicPartitionList::new();
        for KeptEntry { partition, entry } in entries {
            let mut element = offsets.add_partition(&self.job.progress_topic, *partition);
            element.set_offset(Offset::Offset(entry.progress.cursor)).map_err(|error| failed("offset", &error))?;
            element.set_metadata(entry.metadata());
        }
        let sent = self.producer().send_offsets_to_transaction(&offsets, &self.group(), OFFSETS);
        sent.map_err(|error| failed("send_offsets_to_transaction", &error))
    }

    async fn commit(&mut self) -> Result<(), Failure> {
        self.producer().commit_transaction(Timeout::Never).map_err(|error| failed("commit_transaction", &error))
    }

    async fn stable_progress(&mut self, splits: &[(SplitId, i32)]) -> Result<Vec<ProgressEntry>, Failure> {
        self.reader.stable_progress(splits).await
    }

    fn doubt(&self) -> Option<Doubt> {
        None
    }

    fn clear_doubt(&self) {}
}
