//! A slot at work: its sink, its readers, its splits.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context as _;
use tokio::{runtime::Handle, sync::mpsc::UnboundedSender};
use weir_common::{
    config::Config,
    ids::{CheckpointId, SlotId},
    split::SplitId,
};

use crate::{
    budget::Budget,
    clock::SystemClock,
    enrich::Enricher,
    job::JobSpec,
    metrics::Metrics,
    pipeline::{Pipeline, cell::SplitCell},
    sink::{
        Sink,
        inbox::{AssignedSplit, Command, Inbox},
        kafka::KafkaOutput,
        lease::Lease,
        report::{Assignment, SinkEvent, SplitReport},
        writer::{Setup, Writer},
    },
    source::{Clients, ReadFailure, Readers},
};

/// Kept results make a cut due when they take this part of the budget.
const CUT_SHARE: u64 = 3;

/// What a slot is made of.
pub(super) struct Parts {
    pub(super) config: Arc<Config>,
    pub(super) job: Arc<JobSpec>,
    pub(super) enricher: Arc<dyn Enricher>,
    pub(super) lease: Arc<Lease>,
    pub(super) budget: Budget,
    pub(super) metrics: Metrics,
    pub(super) events: UnboundedSender<SinkEvent>,
    pub(super) read_failures: UnboundedSender<ReadFailure>,
    pub(super) slot: SlotId,
}

/// See the module.
pub(super) struct Slot {
    config: Arc<Config>,
    inbox: Arc<Inbox>,
    readers: Readers,
    cells: BTreeMap<SplitId, Arc<SplitCell>>,
}

impl Slot {
    /// Starts the sink's thread, which initialises the producer; readers come with splits.
    ///
    /// # Errors
    /// A client property is refused, or there is no thread.
    pub(super) fn start(parts: Parts) -> anyhow::Result<Self> {
        let Parts { config, job, enricher, lease, budget, metrics, events, read_failures, slot } = parts;
        let output = KafkaOutput::new(&config, Arc::clone(&job), slot).context("the sink's Kafka clients")?;
        let setup = Setup {
            guarantee: job.delivery_guarantee,
            slot,
            splits_per_partition: job.splits_per_partition,
            slow: config.transaction.slow,
            cut_bytes: budget.total_bytes() / CUT_SHARE,
        };
        let inbox = Arc::new(Inbox::default());
        let writer =
            Writer::new(output, SystemClock, setup, Arc::clone(&lease), Arc::clone(&enricher), metrics.clone());
        let interval = config.transaction.interval;
        Sink::new(writer, Arc::clone(&inbox), lease, interval, events).spawn().context("the sink's thread")?;
        let runtime = Handle::current();
        let pipeline = Pipeline::new(enricher, budget, Arc::clone(&inbox), runtime.clone());
        let clients = Clients::of(&config);
        let readers = Readers::new(clients, job.splits_per_partition, pipeline, metrics, runtime, read_failures);
        Ok(Self { config, inbox, readers, cells: BTreeMap::new() })
    }

    /// Takes splits to sink and readers; while draining only to the sink, to be released again.
    ///
    /// # Errors
    /// A reader cannot be started.
    pub(super) fn assign(&mut self, splits: Vec<Assignment>, draining: bool) -> anyhow::Result<()> {
        let mut cells = Vec::with_capacity(splits.len());
        let mut assigned = Vec::with_capacity(splits.len());
        for Assignment { report, limit } in splits {
            let SplitReport { split, progress, counters, progress_partition } = report;
            let cell = Arc::new(SplitCell::new(split.clone(), &progress, self.config.job.order).up_to(limit));
            self.cells.insert(split, Arc::clone(&cell));
            cells.push(Arc::clone(&cell));
            assigned.push(AssignedSplit { cell, progress_partition, progress, counters });
        }
        // Before the readers: the sink must know a split when its first result comes.
        self.inbox.push_command(Command::Assign(assigned));
        if draining { Ok(()) } else { self.readers.add(&cells) }
    }

    /// Splits that were read up to a limit are read on.
    pub(super) fn lift_limits(&self) {
        self.readers.lift_limits();
    }

    pub(super) fn revoke(&mut self, splits: Vec<SplitId>) {
        self.readers.remove(&splits);
        for split in &splits {
            self.cells.remove(split);
        }
        self.inbox.push_command(Command::Revoke(splits));
    }

    pub(super) fn barrier(&self, checkpoint: CheckpointId) {
        self.inbox.push_command(Command::Barrier(checkpoint));
    }

    pub(super) fn stop_reading(&mut self) {
        let splits = self.splits();
        self.readers.remove(&splits);
    }

    pub(super) fn splits(&self) -> Vec<SplitId> {
        self.cells.keys().cloned().collect()
    }

    /// Log end and cursor of every split whose log end is known.
    pub(super) fn log_ends(&self) -> Vec<(SplitId, i64, i64)> {
        let known = self.cells.iter().filter_map(|(split, cell)| Some((split.clone(), cell.log_end()?, cell.cursor())));
        known.collect()
    }

    /// Drops everything without a commit.
    pub(super) fn stop(self) {
        self.inbox.push_command(Command::Stop);
        self.cells.values().for_each(|cell| cell.close());
    }
}
