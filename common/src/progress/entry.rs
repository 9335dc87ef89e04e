//! One split's entry in the progress topic's group offsets: offset = cursor, metadata = everything else.
//!
//! The metadata names the split itself, so that progress can be read back from Kafka alone, whatever order partitions
//! were discovered in and whatever became of the snapshots:
//!
//! ```text
//! 1|eqiad.stream|0|5/12|3|<enriched><passed through><errors><dropped>|<gap><length><gap><length>…
//! version|topic|partition|split/splits per partition|slot that wrote it|counters|finished-ahead map
//! ```
//!
//! Kafka allows `offset.metadata.max.bytes` (4096) UTF-16 units of it; ours is ASCII, so units are bytes.

use std::sync::Arc;

use super::{OffsetRange, Progress, vlq};
use crate::{
    counters::SplitCounters,
    ids::SlotId,
    split::{SplitId, SplitsPerPartition},
};

/// The broker's default `offset.metadata.max.bytes`.
pub const MAX_METADATA_CHARS: usize = 4096;

/// What the finished-ahead map may take of it. The rest is room for the split's name (249 characters of topic at most)
/// and the counters.
pub const MAX_MAP_CHARS: usize = 3584;

const VERSION: &str = "1";

/// A split's progress as it stands in Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgressEntry {
    /// Whose progress it is.
    pub split: SplitId,
    /// How many splits a partition had when it was written.
    pub splits_per_partition: SplitsPerPartition,
    /// Who wrote it; `None`: the jobmanager, before the split's first owner.
    pub slot: Option<SlotId>,
    /// How far the split has come.
    pub progress: Progress,
    /// Outcomes of what is finished.
    pub counters: SplitCounters,
}

/// Metadata that is not ours, or was cut.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Written by a newer Weir.
    #[error(
        "progress entry has format version {0}, this build reads version 1; use the Weir version that wrote it or a newer one"
    )]
    NewerVersion(String),
    /// Anything else.
    #[error("progress entry cannot be read: {0}")]
    Malformed(&'static str),
}

impl ProgressEntry {
    /// The metadata of the group offset whose offset is the cursor.
    #[must_use]
    pub fn metadata(&self) -> String {
        let slot = self.slot.map_or_else(|| "-".to_owned(), |slot| slot.to_string());
        let SplitId { topic, partition, index } = &self.split;
        let count = self.splits_per_partition.get();
        let mut text = format!("{VERSION}|{topic}|{partition}|{index}/{count}|{slot}|");
        let counters = &self.counters;
        for value in [counters.enriched, counters.passed_through, counters.errors, counters.dropped] {
            vlq::push(&mut text, value);
        }
        text.push('|');
        let mut floor = self.progress.cursor;
        for range in &self.progress.finished_ahead {
            vlq::push(&mut text, range.start.abs_diff(floor));
            vlq::push(&mut text, range.end.abs_diff(range.start));
            floor = range.end;
        }
        text
    }

    /// Reads a group offset and its metadata back.
    ///
    /// # Errors
    /// The metadata was written by a newer format, or not by Weir.
    pub fn parse(cursor: i64, metadata: &str) -> Result<Self, EntryError> {
        let mut fields = metadata.split('|');
        let mut field = |name| fields.next().ok_or(EntryError::Malformed(name));
        let version = field("no version")?;
        if version != VERSION {
            let newer = version.parse::<u32>().is_ok_and(|number| number > 1);
            return Err(if newer {
                EntryError::NewerVersion(version.to_owned())
            } else {
                EntryError::Malformed("not written by Weir")
            });
        }
        let topic = field("no topic")?;
        let partition = field("no partition")?.parse().map_err(|_| EntryError::Malformed("partition"))?;
        let (index, count) = field("no split")?.split_once('/').ok_or(EntryError::Malformed("split"))?;
        let index: u32 = index.parse().map_err(|_| EntryError::Malformed("split index"))?;
        let splits_per_partition = count
            .parse()
            .ok()
            .and_then(SplitsPerPartition::new)
            .filter(|count| index < count.get())
            .ok_or(EntryError::Malformed("splits per partition"))?;
        let slot = match field("no slot")? {
            "-" => None,
            number => Some(SlotId(number.parse().map_err(|_| EntryError::Malformed("slot"))?)),
        };
        let counters = parse_counters(field("no counters")?)?;
        let progress = parse_map(cursor, field("no map")?)?;
        let split = SplitId { topic: Arc::from(topic), partition, index };
        Ok(Self { split, splits_per_partition, slot, progress, counters })
    }
}

fn parse_counters(mut text: &str) -> Result<SplitCounters, EntryError> {
    let mut next = || vlq::take(&mut text).ok_or(EntryError::Malformed("counters"));
    let (enriched, passed_through, errors, dropped) = (next()?, next()?, next()?, next()?);
    let consumed = enriched
        .checked_add(passed_through)
        .and_then(|sum| sum.checked_add(errors))
        .and_then(|sum| sum.checked_add(dropped))
        .ok_or(EntryError::Malformed("counters"))?;
    Ok(SplitCounters { consumed, enriched, passed_through, errors, dropped })
}

fn parse_map(cursor: i64, mut text: &str) -> Result<Progress, EntryError> {
    let malformed = EntryError::Malformed("finished-ahead map");
    let mut progress = Progress::at(cursor);
    let mut floor = cursor;
    while !text.is_empty() {
        let mut step = |from: i64| {
            let distance = vlq::take(&mut text).and_then(|distance| i64::try_from(distance).ok());
            distance.and_then(|distance| from.checked_add(distance)).ok_or_else(|| malformed.clone())
        };
        let start = step(floor)?;
        let end = step(start)?;
        progress.finished_ahead.push(OffsetRange { start, end });
        floor = end;
    }
    if progress.is_well_formed() { Ok(progress) } else { Err(malformed) }
}
