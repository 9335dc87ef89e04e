//! The beginning of a leadership: the writer is initialised, then what stands in Kafka and in storage is read, then the
//! real rules decide; the lease is confirmed with the epoch, the record written (at-least-once: the epoch claimed in storage),
//! and only then anything is commanded.

use std::{collections::BTreeMap, rc::Rc};

use tokio_util::sync::CancellationToken;
use weir_common::{
    ids::{LeaderEpoch, SlotId},
    progress::entry::ProgressEntry,
    split::TopicPartition,
};
use weir_jobmanager::{
    coordinator::event::{SplitState, SplitStates},
    start::{self, Facts, JobRecord, Plan, SnapshotFacts, topics::TopicIds},
    store::{Snapshots, StoreError, snapshot::Snapshot, survey::Survey},
};

use super::leading::Leadership;
use crate::{
    broker::{Kept, Offsets, TransactionalId},
    client::{Client, Trouble},
    time::{MS, Pid, Sleep},
    variants::Variant,
    world::World,
};

/// Progress that is pending is waited for so often, then all slots are fenced.
const READ_ATTEMPTS: usize = 2;

/// Why a start is tried again.
#[derive(Debug)]
enum Failed {
    Kafka,
    Storage,
    /// The leadership is over.
    Deposed,
}

impl From<Trouble> for Failed {
    fn from(_: Trouble) -> Self {
        Self::Kafka
    }
}

impl World {
    pub(super) fn begin_term(self: &Rc<Self>, pid: Pid) {
        let Some(shared) = self.jobmanager(pid) else { return };
        let (term, over) = {
            let mut jobmanager = shared.borrow_mut();
            // The former one's is fenced with everything that it still has on its way.
            jobmanager.writer = Rc::new(Client::new(self, pid, TransactionalId::Jobmanager));
            jobmanager.term_over = CancellationToken::new();
            (jobmanager.term, jobmanager.term_over.clone())
        };
        self.note(|| format!("jm-{pid}: holds the lease"));
        let world = Rc::clone(self);
        self.time.spawn(pid, async move {
            loop {
                let begun = over.run_until_cancelled(world.begin(pid, term)).await.unwrap_or(Err(Failed::Deposed));
                let still = world.is_term(pid, term);
                world.note(|| format!("jm-{pid}: start: {:?}", begun.as_ref().map(|leadership| leadership.epoch)));
                match begun {
                    _ if !still => return,
                    Ok(leadership) => return world.lead(pid, leadership),
                    Err(_) => Sleep::until(&world, world.time.now() + 400 * MS).await,
                }
            }
        });
    }

    async fn begin(self: &Rc<Self>, pid: Pid, term: u64) -> Result<Leadership, Failed> {
        let (writer, snapshots) = {
            let shared = self.jobmanager(pid).ok_or(Failed::Deposed)?;
            let jobmanager = shared.borrow();
            (Rc::clone(&jobmanager.writer), jobmanager.snapshots.clone())
        };
        if self.exactly_once {
            // Whatever a former leader has on its way is refused or visible below.
            writer.init().await?;
            writer.clear_doubt();
            self.confirm(pid, LeaderEpoch(0)).await.ok_or(Failed::Deposed)?;
        }
        let survey = match snapshots.survey().await {
            Ok(survey) => survey,
            Err(StoreError::Unreachable(_)) if self.exactly_once => Survey::default(),
            Err(_) => return Err(Failed::Storage),
        };
        let (facts, plan) = self.decide(pid, &writer, &survey).await?;
        let epoch = self.confirm(pid, plan.leader_epoch).await.ok_or(Failed::Deposed)?;
        if self.exactly_once {
            self.carry_out(&writer, &facts, &plan, epoch).await?;
        } else {
            claim(&snapshots, epoch).await?;
        }
        Ok(Leadership::new(term, epoch, plan, self.time.local(pid), self.exactly_once))
    }

    /// Reads the facts and decides; where slots must be fenced first, what stands there after that counts.
    async fn decide(self: &Rc<Self>, pid: Pid, writer: &Client, survey: &Survey) -> Result<(Facts, Plan), Failed> {
        let record = if self.exactly_once { writer.read(vec![0]).await? } else { Offsets::new() };
        let record = record.into_iter().find_map(|(_, kept)| match kept {
            Kept::Record(record) => Some(record),
            Kept::Progress(_) => None,
        });
        let partition = |number| TopicPartition { topic: self.input.topic.clone(), partition: number };
        let partitions = (0..self.input.partitions.len() as i32).map(|number| (partition(number), 0)).collect();
        let mut facts = Facts {
            exactly_once: self.exactly_once,
            splits_per_partition: self.input.splits_per_partition,
            partitions,
            topics: TopicIds::default(),
            record,
            progress: SplitStates::new(),
            former: None,
            snapshot: survey.newest.as_ref().map(snapshot_facts),
        };
        if self.exactly_once {
            facts.progress = self.read_progress(pid, writer, &mut facts.record).await?;
        }
        let mut plan = start::plan(&facts).expect("the shape never changes");
        if !plan.fence_first.is_empty() {
            self.violate(format!("progress behind or gone: {:?}", plan.findings));
            self.fence_all(pid, &plan.fence_first).await?;
            if let Some(record) = &mut facts.record {
                record.slots.clear();
            }
            facts.progress = self.read_progress(pid, writer, &mut facts.record).await?;
            plan = start::plan(&facts).expect("the shape never changes");
        }
        start::storage::heed(&mut plan, &facts, survey).expect("nothing is damaged here");
        Ok((facts, plan))
    }

    async fn read_progress(
        self: &Rc<Self>,
        pid: Pid,
        writer: &Client,
        record: &mut Option<JobRecord>,
    ) -> Result<SplitStates, Failed> {
        let places: Vec<i32> = self.input.splits().map(|split| self.input.place(&split)).collect();
        for _ in 0..READ_ATTEMPTS {
            if let Ok(read) = writer.read(places.clone()).await {
                return Ok(states(read));
            }
        }
        if let Some(record) = record {
            let slots: Vec<SlotId> = std::mem::take(&mut record.slots).into_keys().collect();
            self.fence_all(pid, &slots).await?;
        }
        Ok(states(writer.read(places).await?))
    }

    async fn fence_all(self: &Rc<Self>, pid: Pid, slots: &[SlotId]) -> Result<(), Failed> {
        for slot in slots {
            Client::new(self, pid, TransactionalId::Slot(*slot)).init().await?;
        }
        Ok(())
    }

    /// Writes what the plan wants in Kafka, the record with it.
    async fn carry_out(&self, writer: &Client, facts: &Facts, plan: &Plan, epoch: LeaderEpoch) -> Result<(), Failed> {
        let entry = |split| {
            let SplitState { progress, counters } = plan.splits.get(split)?.clone();
            let splits_per_partition = facts.splits_per_partition;
            let entry = ProgressEntry { split: split.clone(), splits_per_partition, slot: None, progress, counters };
            Some((self.input.place(split), Kept::Progress(entry)))
        };
        let mut offsets: Offsets = plan.to_write.iter().filter_map(entry).collect();
        let record = Kept::Record(JobRecord {
            leader_epoch: epoch,
            splits_per_partition: facts.splits_per_partition,
            slots: plan.orphaned_slots.clone(),
            rewound: plan.rewound,
            suspended: plan.suspended,
            topics: plan.topics.clone(),
        });
        if self.variant == Variant::UnfencedRecord {
            writer.commit_plainly(vec![(0, record)]).await?;
        } else {
            offsets.push((0, record));
        }
        if offsets.is_empty() {
            return Ok(());
        }
        Ok(writer.write(offsets).await?)
    }
}

async fn claim(snapshots: &Snapshots, epoch: LeaderEpoch) -> Result<(), Failed> {
    match snapshots.claim(epoch).await {
        Ok(()) => Ok(()),
        Err(StoreError::Superseded(_)) => Err(Failed::Deposed),
        Err(_) => Err(Failed::Storage),
    }
}

pub(super) fn states(offsets: Offsets) -> BTreeMap<weir_common::split::SplitId, SplitState> {
    let state = |(_, kept)| match kept {
        Kept::Progress(entry) => Some((entry.split, SplitState { progress: entry.progress, counters: entry.counters })),
        Kept::Record(_) => None,
    };
    offsets.into_iter().filter_map(state).collect()
}

fn snapshot_facts(snapshot: &Snapshot) -> SnapshotFacts {
    SnapshotFacts {
        id: snapshot.id(),
        splits_per_partition: snapshot.splits_per_partition,
        slots: snapshot.slots.iter().copied().collect(),
        splits: snapshot.states(),
    }
}
