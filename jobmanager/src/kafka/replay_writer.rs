//! Writes inputs to the replay topic, each once.
//!
//! Exactly-once they are written in transactions of the id `<job>-replay`. Who replays initialises it before looking what was
//! replayed before, and has the leadership confirmed after that, as the [`writer`](super::writer) does: what an earlier leader
//! still writes is refused from then on. After a doubt a new producer looks first what of the batch is there.

use std::{
    collections::{BTreeMap, HashSet},
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rdkafka::{
    error::RDKafkaErrorCode,
    message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _},
    util::Timeout,
};
use tokio::runtime::Handle;
use weir_common::{
    ids::LeaderEpoch,
    kafka::{self as settings, doubt::DoubtingContext, headers},
    split::TopicPartition,
};

use super::{KafkaProblem, REQUEST_TIMEOUT, Shared, off_thread::OffThread, problem, range::RangeReader, refused};
use crate::{
    errors::{Input, Origin, Position, Replayed},
    leadership::Term,
};

/// Initialising waits for the end of a commit that had begun.
const INIT_TIMEOUT: Duration = Duration::from_secs(30);

/// At-least-once: time for a batch to be acknowledged. Exactly-once the commit waits for it.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(60);

/// A full queue is waited for.
const QUEUE_POLL: Duration = Duration::from_millis(20);
const QUEUE_PATIENCE: Duration = Duration::from_secs(60);

/// A batch in doubt is written again by a new producer, so often.
const ATTEMPTS: usize = 3;

type Client = OffThread<BaseProducer<DoubtingContext>>;

/// An input that is to be written.
#[derive(Clone, Debug)]
pub(super) struct Again {
    pub(super) origin: Origin,
    pub(super) error: Position,
    pub(super) input: Input,
}

/// See the module.
pub(super) struct ReplayWriter<'a> {
    shared: &'a Shared,
    /// `None` at-least-once: nothing is fenced there.
    term: Option<Arc<dyn Term>>,
    topic: String,
    reader: RangeReader,
    /// Up to where the topic was looked through when this replay began.
    looked: BTreeMap<i32, i64>,
    /// `None` after a doubt.
    client: Option<Client>,
}

impl<'a> ReplayWriter<'a> {
    /// Looks at the topic, writes nothing.
    pub(super) fn new(shared: &'a Shared) -> Result<Self, KafkaProblem> {
        let reader = RangeReader::new(&settings::replay_consumer(&shared.config), "replay", "sink")?;
        let topic = settings::replay_topic(shared.job());
        let term = shared.term.get().cloned();
        Ok(Self { shared, term, topic, reader, looked: BTreeMap::new(), client: None })
    }

    /// Takes over the right to write.
    pub(super) fn open(&mut self) -> Result<(), KafkaProblem> {
        let id = self.term.as_ref().map(|_| format!("{}-replay", self.shared.job()));
        let config = settings::sink_producer(&self.shared.config, id.as_deref());
        let client: BaseProducer<DoubtingContext> =
            config.create_with_context(DoubtingContext::new("replay")).map_err(|error| refused("sink", &error))?;
        let client = OffThread::new(client);
        let address = self.shared.sink_address();
        // A client that has learnt the brokers drops the connection that it began with at the next answer, which looks like a
        // failure of one: better before anything is begun.
        for _ in 0..2 {
            let known = client.client().fetch_metadata(Some(&self.topic), REQUEST_TIMEOUT);
            known.map_err(|error| problem(&format!("asking {address} for topic {}", self.topic), &error))?;
        }
        if let (Some(id), Some(term)) = (&id, &self.term) {
            let what = format!("initialising {id} at {address}");
            client.init_transactions(INIT_TIMEOUT).map_err(|error| problem(&what, &error))?;
            // Trouble on the way here is over: a new epoch has begun.
            client.context().flag.clear();
            let confirmed = Handle::current().block_on(term.confirm(LeaderEpoch(0)));
            confirmed
                .map_err(|reason| KafkaProblem::Failed(format!("this jobmanager does not lead any more: {reason}")))?;
        }
        self.client = Some(client);
        Ok(())
    }

    /// What was replayed before, by what the topic holds. `go_on` is asked now and then.
    pub(super) fn replayed(&mut self, go_on: &dyn Fn() -> bool) -> Result<Replayed, KafkaProblem> {
        let mut replayed = Replayed::default();
        self.looked = self.scan(&BTreeMap::new(), go_on, &mut |origin| {
            replayed.insert(origin).map(drop).map_err(|many| KafkaProblem::Configuration(many.to_string()))
        })?;
        Ok(replayed)
    }

    /// The first offset of each partition of the topic that is not committed.
    pub(super) fn ends(&self) -> Result<BTreeMap<i32, i64>, KafkaProblem> {
        let count = self.reader.partitions(&self.topic)?.unwrap_or_default();
        (0..count).map(|number| Ok((number, self.reader.ends(&self.partition(number))?.1))).collect()
    }

    /// Writes a batch; those that the topic does not take for their size are left out and given back.
    pub(super) fn write(&mut self, batch: Vec<Again>) -> Result<Vec<Again>, KafkaProblem> {
        let mut left = batch;
        let mut too_large = Vec::new();
        for attempt in 1.. {
            match self.attempt(&left, &mut too_large) {
                Ok(()) => break,
                Err(error) if attempt < ATTEMPTS && self.leads() => {
                    tracing::warn!(attempt, %error, "writing to the replay topic is in doubt: again, by a new producer");
                }
                Err(error) => return Err(error),
            }
            self.open()?;
            let mut found = HashSet::new();
            let looked = self.looked.clone();
            self.scan(&looked, &|| true, &mut |origin| {
                found.insert(origin);
                Ok(())
            })?;
            left.retain(|again| !found.contains(&again.origin));
            too_large.clear();
        }
        Ok(too_large)
    }

    fn leads(&self) -> bool {
        self.term.as_ref().is_none_or(|term| term.leads())
    }

    fn partition(&self, number: i32) -> TopicPartition {
        TopicPartition { topic: self.topic.as_str().into(), partition: number }
    }

    fn attempt(&mut self, batch: &[Again], too_large: &mut Vec<Again>) -> Result<(), KafkaProblem> {
        let what = format!("writing to topic {} at {}", self.topic, self.shared.sink_address());
        let Some(client) = self.client.take().filter(|client| client.context().flag.get().is_none()) else {
            return Err(KafkaProblem::Unreachable(format!("{what}: the producer is in doubt")));
        };
        let in_transactions = self.term.is_some();
        if in_transactions {
            client.begin_transaction().map_err(|error| problem(&what, &error))?;
        }
        for again in batch {
            match self.produce(&client, again) {
                Ok(()) => {}
                Err(RDKafkaErrorCode::MessageSizeTooLarge) => too_large.push(again.clone()),
                Err(code) => return Err(KafkaProblem::Failed(format!("{what}: {code}"))),
            }
        }
        let ended = match in_transactions {
            true => client.commit_transaction(Timeout::Never),
            false => client.flush(FLUSH_TIMEOUT),
        };
        ended.map_err(|error| problem(&what, &error))?;
        match client.context().flag.get() {
            None => {
                self.client = Some(client);
                Ok(())
            }
            Some(doubt) => Err(KafkaProblem::Unreachable(format!("{what}: {doubt}"))),
        }
    }

    fn produce(&self, client: &Client, again: &Again) -> Result<(), RDKafkaErrorCode> {
        let Again { origin: (partition, offset), error, input } = again;
        let (number, offset) = (partition.partition.to_string(), offset.to_string());
        let error = format!("{}:{}", error.0, error.1);
        let headers = OwnedHeaders::new_with_capacity(4)
            .insert(Header { key: headers::SOURCE_TOPIC, value: Some(&*partition.topic) })
            .insert(Header { key: headers::SOURCE_PARTITION, value: Some(&number) })
            .insert(Header { key: headers::SOURCE_OFFSET, value: Some(&offset) })
            .insert(Header { key: headers::REPLAYED_ERROR, value: Some(&error) });
        // The topic keeps a record by its timestamp: from now on, however old the input is.
        let mut record =
            BaseRecord::<[u8], [u8]>::to(&self.topic).headers(headers).timestamp(Timestamp::now().as_millisecond());
        (record.key, record.payload) = (input.key.as_deref(), input.value.as_deref());
        let begun = Instant::now();
        loop {
            match client.send(record) {
                Ok(()) => return Ok(()),
                Err((error, back)) => match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::QueueFull) if begun.elapsed() < QUEUE_PATIENCE => {
                        client.poll(QUEUE_POLL);
                        record = back;
                    }
                    code => return Err(code.unwrap_or(RDKafkaErrorCode::Unknown)),
                },
            }
        }
    }

    /// Gives the origins of all records behind `from` to `take`; where the topic ended.
    fn scan(
        &self,
        from: &BTreeMap<i32, i64>,
        go_on: &dyn Fn() -> bool,
        take: &mut dyn FnMut(Origin) -> Result<(), KafkaProblem>,
    ) -> Result<BTreeMap<i32, i64>, KafkaProblem> {
        let mut ends = BTreeMap::new();
        for number in 0..self.reader.partitions(&self.topic)?.unwrap_or_default() {
            let partition = self.partition(number);
            let (low, end) = self.reader.ends(&partition)?;
            let begin = from.get(&number).copied().unwrap_or(low).max(low);
            let mut failed = None;
            self.reader.read(&partition, begin..end.max(begin), None, |message| {
                if let Some(Err(error)) = origin_of(message).map(&mut *take) {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
                if go_on() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            if let Some(error) = failed {
                return Err(error);
            }
            ends.insert(number, end);
        }
        Ok(ends)
    }
}

fn origin_of(message: &BorrowedMessage<'_>) -> Option<Origin> {
    let headers = message.headers()?;
    let text = |name: &str| std::str::from_utf8(headers.iter().find(|header| header.key == name)?.value?).ok();
    let partition = text(headers::SOURCE_PARTITION)?.parse().ok()?;
    let topic = text(headers::SOURCE_TOPIC)?.into();
    Some((TopicPartition { topic, partition }, text(headers::SOURCE_OFFSET)?.parse().ok()?))
}
