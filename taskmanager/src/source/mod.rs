//! Reading: one thread and one consumer for each topic-partition that has a split here.

mod log_end;
mod reader;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rdkafka::ClientConfig;
use tokio::{runtime::Handle, sync::mpsc::UnboundedSender};
use tokio_util::sync::CancellationToken;
use weir_common::{
    config::Config,
    failure::SplitFailure,
    kafka,
    split::{SplitId, SplitsPerPartition, TopicName, TopicPartition},
};

use crate::{
    metrics::Metrics,
    pipeline::{Pipeline, cell::SplitCell},
};

/// What a reader is to read. Changed from outside, looked at between two records.
#[derive(Default)]
struct Wanted {
    splits: Mutex<BTreeMap<u32, Arc<SplitCell>>>,
    /// Grows with each change.
    version: AtomicU64,
    stop: CancellationToken,
}

impl Wanted {
    fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn splits(&self) -> BTreeMap<u32, Arc<SplitCell>> {
        self.splits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn update(&self, change: impl FnOnce(&mut BTreeMap<u32, Arc<SplitCell>>)) -> bool {
        let mut splits = self.splits.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut splits);
        self.version.fetch_add(1, Ordering::Release);
        splits.is_empty()
    }
}

/// Clients for what is read: the source's topics, and the job's own replay topic on the sink cluster.
#[derive(Clone)]
pub(crate) struct Clients {
    source: ClientConfig,
    replay: ClientConfig,
    replay_topic: TopicName,
}

impl Clients {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            source: kafka::source_consumer(config),
            replay: kafka::replay_consumer(config),
            replay_topic: kafka::replay_topic(&config.stream_manager.job_name).into(),
        }
    }

    fn is_replay(&self, topic: &TopicName) -> bool {
        *topic == self.replay_topic
    }

    fn reading(&self, topic: &TopicName) -> &ClientConfig {
        if self.is_replay(topic) { &self.replay } else { &self.source }
    }
}

/// What all readers share.
#[derive(Clone)]
struct Shared {
    clients: Clients,
    splits_per_partition: SplitsPerPartition,
    pipeline: Pipeline,
    metrics: Metrics,
    runtime: Handle,
    failures: UnboundedSender<ReadFailure>,
}

impl Shared {
    fn tell_failure(&self, partition: &TopicPartition, failure: SplitFailure) {
        // Nobody listens any more only when the slot is gone.
        let _ = self.failures.send(ReadFailure { partition: partition.clone(), failure });
    }
}

/// A partition that cannot be read on. At most one for each reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReadFailure {
    /// Which.
    pub partition: TopicPartition,
    /// Why.
    pub failure: SplitFailure,
}

/// The readers of one grant. Dropping it stops them; nobody waits for their threads, since dropping a consumer may hang.
pub(crate) struct Readers {
    shared: Shared,
    wanted: BTreeMap<TopicPartition, Arc<Wanted>>,
    log_ends: log_end::LogEnds,
}

impl Readers {
    pub(crate) fn new(
        clients: Clients,
        splits_per_partition: SplitsPerPartition,
        pipeline: Pipeline,
        metrics: Metrics,
        runtime: Handle,
        failures: UnboundedSender<ReadFailure>,
    ) -> Self {
        let log_ends = log_end::LogEnds::start(clients.clone());
        let shared = Shared { clients, splits_per_partition, pipeline, metrics, runtime, failures };
        Self { shared, wanted: BTreeMap::new(), log_ends }
    }

    /// Reads splits from their cursors on. Others of the same partition go on undisturbed.
    ///
    /// # Errors
    /// A thread or a consumer cannot be made.
    pub(crate) fn add(&mut self, cells: &[Arc<SplitCell>]) -> anyhow::Result<()> {
        let mut by_partition: BTreeMap<TopicPartition, Vec<Arc<SplitCell>>> = BTreeMap::new();
        for cell in cells {
            by_partition.entry(cell.id.topic_partition()).or_default().push(Arc::clone(cell));
        }
        for (partition, cells) in by_partition {
            self.log_ends.watch(&cells);
            let known = self.wanted.get(&partition).filter(|wanted| !wanted.stop.is_cancelled());
            let wanted = known.map(Arc::clone).unwrap_or_default();
            wanted.update(|splits| splits.extend(cells.into_iter().map(|cell| (cell.id.index, cell))));
            if known.is_none() {
                reader::spawn(self.shared.clone(), partition.clone(), Arc::clone(&wanted))?;
                self.wanted.insert(partition, wanted);
            }
        }
        Ok(())
    }

    /// Splits that were read up to a limit are read on.
    pub(crate) fn lift_limits(&self) {
        for wanted in self.wanted.values() {
            wanted.update(|splits| splits.values().for_each(|cell| cell.ask_to_lift_limit()));
        }
    }

    /// Stops reading splits.
    pub(crate) fn remove(&mut self, splits: &[SplitId]) {
        for split in splits {
            let partition = split.topic_partition();
            let Some(wanted) = self.wanted.get(&partition) else { continue };
            if wanted.update(|splits| drop(splits.remove(&split.index))) {
                wanted.stop.cancel();
                self.wanted.remove(&partition);
            }
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        for wanted in self.wanted.values() {
            wanted.stop.cancel();
        }
    }
}
