//! Sends the inputs of errors through the enrichment again, by way of the replay topic. One blocking thread does it from
//! beginning to end; whoever asked hears of it through a channel, and stops it by dropping that.

use std::{
    collections::{BTreeMap, HashMap},
    ops::{ControlFlow, Range},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rdkafka::message::{BorrowedMessage, Message as _};
use tokio::sync::mpsc;
use weir_common::{kafka as settings, split::TopicPartition};

use super::{
    Kafka, KafkaProblem, Shared,
    errors::ErrorLog,
    range::RangeReader,
    replay_writer::{Again, ReplayWriter},
};
use crate::errors::{ErrorEvent, Input, Origin, Replayed, Selection, Tally, input, origin};

/// Inputs and bytes of one transaction.
const BATCH_MAX: usize = 500;
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Time for the originals of a batch; one that does not come is looked for in the error event.
const ORIGINALS_TIMEOUT: Duration = Duration::from_secs(30);

/// Originals that lie no further apart are read in one go.
const NEAR: i64 = 200;

/// How often whoever asked hears of a long step, and how soon a stop is seen.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);
const STOP_POLL: Duration = Duration::from_millis(100);

/// What an operator wants.
#[derive(Clone, Debug, Default)]
pub struct ReplayRequest {
    /// Which errors.
    pub selection: Selection,
    /// Inputs a second.
    pub per_second: u32,
    /// At most so many inputs; 0: all.
    pub limit: u64,
    /// Those too that were replayed before.
    pub again: bool,
    /// Count only.
    pub dry_run: bool,
}

/// How far a replay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It counts what is meant.
    Counting,
    /// It writes.
    Writing,
}

/// Told on the way.
#[derive(Clone, Debug)]
pub struct ReplayStep {
    /// How far it is.
    pub phase: Phase,
    /// What it has come to.
    pub tally: Tally,
}

/// The end of a replay: everything is written that was to be, or whoever asked has left.
#[derive(Clone, Debug, Default)]
pub struct ReplayEnd {
    /// What it came to.
    pub tally: Tally,
    /// When the job has read the replay topic up to here, all of it is done.
    pub ends: BTreeMap<TopicPartition, i64>,
}

impl Kafka {
    /// Where they go.
    pub(super) fn replay_topic(&self) -> String {
        settings::replay_topic(self.shared.job())
    }

    /// Writes the inputs of errors to the replay topic. Ends early when `steps` is closed: what is written by then stays,
    /// and counts as replayed.
    ///
    /// # Errors
    /// [`KafkaProblem::Configuration`]: another replay is under way, or the topic cannot be made. A cluster does not answer.
    /// What is written by then stays.
    pub async fn replay_errors(
        &self,
        topics: Topics,
        request: ReplayRequest,
        steps: mpsc::Sender<ReplayStep>,
    ) -> Result<ReplayEnd, KafkaProblem> {
        let Ok(alone) = Arc::clone(&self.shared.replaying).try_lock_owned() else {
            return Err(KafkaProblem::Configuration(
                "another replay is under way: one at a time, so that none is done twice; wait for it, or stop it"
                    .to_owned(),
            ));
        };
        if !request.dry_run {
            self.ensure_replay_topic(&topics.errors).await?;
        }
        self.blocking(move |shared| {
            // Held by the thread: whoever asked may leave before it does.
            let _alone = alone;
            Replay::new(shared, &topics, &request, &steps)?.run()
        })
        .await
    }
}

/// Where errors and their inputs are.
#[derive(Clone, Debug)]
pub struct Topics {
    /// The error topic.
    pub errors: String,
    /// The source's.
    pub source: Vec<String>,
}

struct Replay<'a> {
    request: &'a ReplayRequest,
    listener: Listener<'a>,
    log: ErrorLog,
    originals: Originals<'a>,
    writer: ReplayWriter<'a>,
    tally: Tally,
}

/// Whoever asked.
struct Listener<'a> {
    steps: &'a mpsc::Sender<ReplayStep>,
    told: Instant,
}

impl Listener<'_> {
    fn has_left(&self) -> bool {
        self.steps.is_closed()
    }

    /// Tells how far it is, now and then. Nobody waits for who does not listen.
    fn tell(&mut self, phase: Phase, tally: &Tally, at_once: bool) {
        if at_once || self.told.elapsed() >= REPORT_INTERVAL {
            self.told = Instant::now();
            let _ = self.steps.try_send(ReplayStep { phase, tally: tally.clone() });
        }
    }
}

impl<'a> Replay<'a> {
    fn new(
        shared: &'a Arc<Shared>,
        topics: &'a Topics,
        request: &'a ReplayRequest,
        steps: &'a mpsc::Sender<ReplayStep>,
    ) -> Result<Self, KafkaProblem> {
        Ok(Self {
            request,
            listener: Listener { steps, told: Instant::now() },
            log: ErrorLog::open(&settings::error_consumer(&shared.config), topics.errors.clone())?,
            originals: Originals::new(shared, topics)?,
            writer: ReplayWriter::new(shared)?,
            tally: Tally::default(),
        })
    }

    fn run(mut self) -> Result<ReplayEnd, KafkaProblem> {
        let ranges = self.ranges()?;
        if !self.request.dry_run {
            self.writer.open()?;
        }
        let listener = &self.listener;
        let before = self.writer.replayed(&|| !listener.has_left())?;
        let mut replayed = if self.request.again { Replayed::default() } else { before };
        self.count(&ranges, &replayed)?;
        if self.request.dry_run || self.tally.chosen == 0 {
            return Ok(ReplayEnd { tally: self.tally, ends: BTreeMap::new() });
        }
        self.write(&ranges, &mut replayed)?;
        let topic = settings::replay_topic(self.originals.shared.job());
        let ends = self.writer.ends()?.into_iter();
        let ends = ends.map(|(partition, end)| (TopicPartition { topic: topic.as_str().into(), partition }, end));
        Ok(ReplayEnd { tally: self.tally, ends: ends.collect() })
    }

    /// What is committed now: errors of this replay itself are not replayed by it.
    fn ranges(&self) -> Result<Vec<(i32, Range<i64>)>, KafkaProblem> {
        let selection = &self.request.selection;
        let narrowed = |(partition, range): (i32, Range<i64>)| {
            let (first, end) = selection.offsets(partition)?;
            Some((partition, range.start.max(first)..range.end.min(end)))
        };
        Ok(self.log.ranges(&selection.filter)?.into_iter().filter_map(narrowed).collect())
    }

    fn wanted(&self) -> u64 {
        if self.request.limit == 0 { u64::MAX } else { self.request.limit }
    }

    fn count(&mut self, ranges: &[(i32, Range<i64>)], replayed: &Replayed) -> Result<(), KafkaProblem> {
        let (selection, topic) = (&self.request.selection, self.log.topic().to_owned());
        let wanted = self.wanted();
        // Two events of one input are one error.
        let mut seen = Replayed::default();
        let mut many = None;
        for (partition, range) in ranges {
            self.log.read(*partition, range.clone(), None, |error, _| {
                self.tally.looked_at += 1;
                self.listener.tell(Phase::Counting, &self.tally, false);
                if selection.takes(&error) {
                    let origin = origin(&error, &topic);
                    if replayed.contains(&origin) {
                        self.tally.replayed_before += 1;
                    } else {
                        match seen.insert(origin) {
                            Ok(true) => self.tally.choose(&error.error_type),
                            Ok(false) => self.tally.replayed_before += 1,
                            Err(error) => many = Some(error),
                        }
                    }
                }
                let full = self.tally.chosen >= wanted;
                if many.is_some() || full || self.listener.has_left() {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })?;
            if self.tally.chosen >= wanted {
                break;
            }
        }
        self.listener.tell(Phase::Counting, &self.tally, true);
        many.map_or(Ok(()), |many| Err(KafkaProblem::Configuration(many.to_string())))
    }

    fn write(&mut self, ranges: &[(i32, Range<i64>)], replayed: &mut Replayed) -> Result<(), KafkaProblem> {
        let begun = Instant::now();
        let per_second = self.request.per_second.max(1);
        let mut done: u64 = 0;
        for (partition, range) in ranges {
            let mut next = range.start;
            while next < range.end && done < self.wanted() && !self.listener.has_left() {
                let room = BATCH_MAX.min(per_second as usize);
                let room = room.min(usize::try_from(self.wanted() - done).unwrap_or(usize::MAX));
                let (batch, end) = self.batch(*partition, next..range.end, room, replayed)?;
                next = end;
                done += batch.len() as u64;
                self.write_batch(batch)?;
                self.listener.tell(Phase::Writing, &self.tally, true);
                self.keep_to(begun + Duration::from_secs_f64(done as f64 / f64::from(per_second)));
            }
        }
        Ok(())
    }

    /// The next errors that are meant, and where to go on.
    fn batch(
        &self,
        partition: i32,
        range: Range<i64>,
        room: usize,
        replayed: &mut Replayed,
    ) -> Result<(Vec<(Origin, ErrorEvent)>, i64), KafkaProblem> {
        let (mut batch, mut bytes, mut next) = (Vec::new(), 0, range.end);
        let mut many = None;
        self.log.read(partition, range, None, |error, _| {
            let offset = error.position.1;
            if self.request.selection.takes(&error) {
                let origin = origin(&error, self.log.topic());
                match replayed.insert(origin.clone()) {
                    Ok(true) => {
                        bytes += error.raw_event.len();
                        batch.push((origin, error));
                    }
                    Ok(false) => {}
                    Err(error) => many = Some(error),
                }
            }
            if many.is_some() || batch.len() >= room || bytes >= BATCH_BYTES_MAX || self.listener.has_left() {
                next = offset + 1;
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        many.map_or(Ok((batch, next)), |many| Err(KafkaProblem::Configuration(many.to_string())))
    }

    fn write_batch(&mut self, batch: Vec<(Origin, ErrorEvent)>) -> Result<(), KafkaProblem> {
        let mut originals = self.originals.read(&batch)?;
        let mut again = Vec::with_capacity(batch.len());
        for (origin, error) in batch {
            match input(&error, originals.remove(&origin)) {
                Some(input) => again.push(Again { origin, error: error.position, input }),
                None => self.tally.lose(error.position),
            }
        }
        if again.is_empty() {
            return Ok(());
        }
        let count = again.len() as u64;
        let too_large = self.writer.write(again)?.len() as u64;
        self.tally.too_large += too_large;
        self.tally.written += count - too_large;
        Ok(())
    }

    fn keep_to(&self, time: Instant) {
        while !self.listener.has_left() {
            let left = time.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(STOP_POLL));
        }
    }
}

/// Reads inputs where they were.
struct Originals<'a> {
    shared: &'a Shared,
    topics: &'a Topics,
    source: RangeReader,
    replay: RangeReader,
}

impl<'a> Originals<'a> {
    fn new(shared: &'a Shared, topics: &'a Topics) -> Result<Self, KafkaProblem> {
        let config = &shared.config;
        Ok(Self {
            shared,
            topics,
            source: RangeReader::new(&settings::source_consumer(config), "originals", "source")?,
            replay: RangeReader::new(&settings::replay_consumer(config), "originals", "sink")?,
        })
    }

    /// What is at the origins, as far as it is there. Topics that the job does not read are not looked at.
    fn read(&self, batch: &[(Origin, ErrorEvent)]) -> Result<HashMap<Origin, Input>, KafkaProblem> {
        let deadline = Instant::now() + ORIGINALS_TIMEOUT;
        let mut wanted: BTreeMap<&TopicPartition, Vec<i64>> = BTreeMap::new();
        for ((partition, offset), _) in batch {
            wanted.entry(partition).or_default().push(*offset);
        }
        let mut found = HashMap::new();
        for (partition, mut offsets) in wanted {
            let reader = match &*partition.topic {
                topic if self.shared.is_replay(topic) => &self.replay,
                topic if self.topics.source.iter().any(|known| known == topic) => &self.source,
                _ => continue,
            };
            if !(0..reader.partitions(&partition.topic)?.unwrap_or_default()).contains(&partition.partition) {
                continue;
            }
            let (low, high) = reader.ends(partition)?;
            offsets.retain(|offset| (low..high).contains(offset));
            offsets.sort_unstable();
            for near in offsets.chunk_by(|one, next| next - one <= NEAR) {
                let (Some(first), Some(last)) = (near.first(), near.last()) else { continue };
                let read = reader.read(partition, *first..last + 1, Some(deadline), |message| {
                    if near.binary_search(&message.offset()).is_ok() {
                        found.insert((partition.clone(), message.offset()), owned(message));
                    }
                    ControlFlow::Continue(())
                });
                match read {
                    // Deleted since the ends were read: the error event may hold it.
                    Err(KafkaProblem::Failed(what)) => tracing::debug!(what, "originals cannot be read"),
                    read => drop(read?),
                }
            }
        }
        Ok(found)
    }
}

fn owned(message: &BorrowedMessage<'_>) -> Input {
    Input { key: message.key().map(<[u8]>::to_vec), value: message.payload().map(<[u8]>::to_vec) }
}
