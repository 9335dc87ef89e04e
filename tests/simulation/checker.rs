//! What must hold whenever a transaction is decided: output and progress are one fact, nothing is there twice, nothing is
//! missing below the cursor, each key is in its order, counters add up.

use std::{collections::BTreeMap, sync::Arc};

use weir_common::{
    counters::{OutcomeKind, SplitCounters},
    progress::{
        Progress,
        entry::{MAX_METADATA_CHARS, ProgressEntry},
    },
    split::{KeyHash, SplitId, SplitsPerPartition, TopicName},
};
use weir_jobmanager::coordinator::event::{Grants, SplitStates};
use weir_taskmanager::record::Destination;

use crate::{
    broker::{Kept, Produced},
    random::Random,
    time::Micros,
};

/// A record of the source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InputRecord {
    pub(crate) key: u32,
    /// When it is written.
    pub(crate) at: Micros,
    /// It is dropped on purpose.
    pub(crate) dropped: bool,
}

/// All records of the source, by partition.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) topic: TopicName,
    pub(crate) splits_per_partition: SplitsPerPartition,
    pub(crate) partitions: Vec<Vec<InputRecord>>,
}

impl Input {
    /// Records of few keys, some of them hot, written until `end`.
    pub(crate) fn new(random: &mut Random, end: Micros) -> Self {
        let partitions = random.between(1, 3);
        let splits = random.between(1, 4) as u32;
        let keys = random.between(2, 12);
        let partition = |_| {
            let count = random.between(20, 90);
            let mut times: Vec<Micros> = (0..count).map(|_| random.between(0, end)).collect();
            times.sort_unstable();
            let record = |at| {
                let hot = random.chance(300);
                let key = if hot { 0 } else { random.between(0, keys) as u32 };
                InputRecord { key, at, dropped: random.chance(50) }
            };
            times.into_iter().map(record).collect()
        };
        Self {
            topic: Arc::from("in"),
            partitions: (0..partitions).map(partition).collect(),
            splits_per_partition: SplitsPerPartition::new(splits).expect("a few"),
        }
    }

    pub(crate) fn index_of(&self, key: &[u8]) -> u32 {
        self.splits_per_partition.index_of(KeyHash::of(key))
    }

    pub(crate) fn splits(&self) -> impl Iterator<Item = SplitId> {
        let indices = 0..self.splits_per_partition.get();
        let of = |partition, index| SplitId { topic: self.topic.clone(), partition, index };
        (0..self.partitions.len() as i32)
            .flat_map(move |partition| indices.clone().map(move |index| of(partition, index)))
    }

    /// Where a split's progress is kept; 0 is the job record.
    pub(crate) fn place(&self, split: &SplitId) -> i32 {
        1 + split.partition * self.splits_per_partition.get() as i32 + split.index as i32
    }
}

#[derive(Debug)]
struct CheckedRecord {
    offset: i64,
    key: u32,
    dropped: bool,
    written: bool,
}

/// A split as the decided transactions make it.
#[derive(Debug)]
struct CheckedSplit {
    records: Vec<CheckedRecord>,
    progress: Option<Progress>,
    counters: SplitCounters,
}

pub(crate) struct Checker {
    splits: BTreeMap<SplitId, CheckedSplit>,
    /// Newest offset in the output by partition and key.
    newest: BTreeMap<(i32, u32), i64>,
    /// The slots of the job record.
    pub(crate) recorded: Grants,
}

impl Checker {
    pub(crate) fn new(input: &Input) -> Self {
        let mut splits: BTreeMap<SplitId, CheckedSplit> = input
            .splits()
            .map(|split| {
                (split, CheckedSplit { records: Vec::new(), progress: None, counters: SplitCounters::default() })
            })
            .collect();
        for (partition, records) in input.partitions.iter().enumerate() {
            for (offset, record) in records.iter().enumerate() {
                let index = input.index_of(&record.key.to_le_bytes());
                let split = SplitId { topic: input.topic.clone(), partition: partition as i32, index };
                let InputRecord { key, dropped, .. } = *record;
                let checked = CheckedRecord { offset: offset as i64, key, dropped, written: false };
                splits.get_mut(&split).expect("it is one of them").records.push(checked);
            }
        }
        Self { splits, newest: BTreeMap::new(), recorded: Grants::new() }
    }

    /// A transaction is decided to be committed.
    pub(crate) fn decided(&mut self, produced: &[Produced], offsets: &[(i32, Kept)]) -> Result<(), String> {
        for record in produced {
            self.written(record)?;
        }
        for (_, kept) in offsets {
            match kept {
                Kept::Record(record) => self.recorded.clone_from(&record.slots),
                Kept::Progress(entry) => self.moved(entry)?,
            }
        }
        match produced.iter().find(|record| !self.is_finished(record)) {
            None => Ok(()),
            Some(record) => Err(format!("output without progress: {} offset {}", record.split, record.offset)),
        }
    }

    fn is_finished(&self, record: &Produced) -> bool {
        let progress = self.splits.get(&record.split).and_then(|split| split.progress.as_ref());
        progress.is_some_and(|progress| progress.is_finished(record.offset))
    }

    fn written(&mut self, produced: &Produced) -> Result<(), String> {
        let Produced { split: id, offset, kind, destination } = produced;
        let split = self.splits.get_mut(id).ok_or("output of no split")?;
        let record = split.records.iter_mut().find(|record| record.offset == *offset);
        let record = record.ok_or_else(|| format!("output of {id} offset {offset}, which is not its record"))?;
        if std::mem::replace(&mut record.written, true) {
            return Err(format!("doubled: {id} offset {offset} is written again"));
        }
        if record.dropped {
            return Err(format!("{id} offset {offset} is written, which is to be dropped"));
        }
        split.counters.count(*kind);
        if *destination == Destination::Sink {
            let newest = self.newest.insert((id.partition, record.key), *offset);
            if newest.is_some_and(|newest| newest > *offset) {
                return Err(format!("order: {id} offset {offset} comes after {newest:?} of key {}", record.key));
            }
        }
        Ok(())
    }

    /// Called after all outputs of the transaction.
    fn moved(&mut self, entry: &ProgressEntry) -> Result<(), String> {
        let ProgressEntry { split: id, progress, counters, .. } = entry;
        let split = self.splits.get_mut(id).ok_or("progress of no split")?;
        if !progress.is_well_formed() {
            return Err(format!("progress of {id} is {progress:?}"));
        }
        if let Some(before) = split.progress.as_ref().filter(|before| !before.is_covered_by(progress)) {
            return Err(format!("progress of {id} goes back: {before:?}, then {progress:?}"));
        }
        let before = split.progress.replace(progress.clone()).unwrap_or_default();
        for record in split.records.iter().filter(|record| record.offset >= before.cursor) {
            let newly = progress.is_finished(record.offset) && !before.is_finished(record.offset);
            if newly && record.dropped {
                split.counters.count(OutcomeKind::Dropped);
            } else if newly && !record.written {
                return Err(format!("lost: {id} offset {} is finished without an output", record.offset));
            }
        }
        if !counters.conserved() || *counters != split.counters {
            return Err(format!("counters of {id} are {counters:?}, what is there makes {:?}", split.counters));
        }
        let metadata = entry.metadata().len();
        if metadata > MAX_METADATA_CHARS {
            return Err(format!("metadata of {id} takes {metadata} characters"));
        }
        Ok(())
    }

    /// At-least-once: a record is visible at once, however often.
    pub(crate) fn delivered(&mut self, produced: &Produced) {
        let split = self.splits.get_mut(&produced.split);
        let record = split.and_then(|split| split.records.iter_mut().find(|record| record.offset == produced.offset));
        if let Some(record) = record {
            record.written = true;
        }
    }

    /// At-least-once: what a restart would pass over is there.
    pub(crate) fn snapshot_of_delivered(&self, splits: &SplitStates) -> Result<(), String> {
        for (id, state) in splits {
            let missing = |record: &&CheckedRecord| {
                !record.written && !record.dropped && state.progress.is_finished(record.offset)
            };
            let records = self.splits.get(id).map(|split| split.records.as_slice()).unwrap_or_default();
            if let Some(record) = records.iter().find(missing) {
                return Err(format!("lost: a snapshot passes over {id} offset {}, which is not there", record.offset));
            }
        }
        Ok(())
    }

    pub(crate) fn is_delivered(&self) -> bool {
        self.splits.values().flat_map(|split| &split.records).all(|record| record.written || record.dropped)
    }

    /// Snapshots are never ahead.
    pub(crate) fn snapshot(&self, splits: &SplitStates) -> Result<(), String> {
        if splits.len() != self.splits.len() {
            return Err(format!("a snapshot names {} of {} splits", splits.len(), self.splits.len()));
        }
        for (id, state) in splits {
            let decided = self.splits.get(id).and_then(|split| split.progress.as_ref());
            if !decided.is_some_and(|decided| state.progress.is_covered_by(decided)) {
                return Err(format!("a snapshot is ahead at {id}: {:?}, decided is {decided:?}", state.progress));
            }
        }
        Ok(())
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.splits.values().all(|split| {
            let finished = |offset| split.progress.as_ref().is_some_and(|progress| progress.is_finished(offset));
            split.records.iter().all(|record| finished(record.offset))
        })
    }

    /// At the end: every record once, and what readers of committed progress get is what was decided.
    pub(crate) fn finally(&self, stable: impl Fn(&SplitId) -> Option<Progress>) -> Result<(), String> {
        for (id, split) in &self.splits {
            if let Some(record) = split.records.iter().find(|record| !record.dropped && !record.written) {
                return Err(format!("lost: {id} offset {} was never written", record.offset));
            }
            if stable(id) != split.progress {
                return Err(format!("stable progress of {id} is {:?}, decided is {:?}", stable(id), split.progress));
            }
        }
        Ok(())
    }

    /// For the operator of a failing seed.
    pub(crate) fn unfinished(&self) -> String {
        let split = |(id, split): (&SplitId, &CheckedSplit)| {
            let finished = |offset| split.progress.as_ref().is_some_and(|progress| progress.is_finished(offset));
            let open: Vec<i64> =
                split.records.iter().map(|record| record.offset).filter(|offset| !finished(*offset)).collect();
            (!open.is_empty()).then(|| format!("{id}: {open:?}"))
        };
        self.splits.iter().filter_map(split).collect::<Vec<_>>().join(", ")
    }
}
