//! Progress and job record: group offsets of the progress topic, on the sink cluster.
//!
//! Partition 0 is the job record: offset = leader epoch, metadata =
//! `1|job|<splits per partition>|<slots>|<rewound>|<state>|<grants>|<topics>`, `slots` and their newest `grants` (`<epoch>.<number>`) comma
//! separated, `rewound` a snapshot's `<epoch>-<id>` or empty, `state` `suspended` or empty. Readers accept fewer and more
//! fields. Only the leading jobmanager writes it.
//! Partitions from 1 on are one split each, see [`ProgressEntry`].

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::Consumer as _,
    error::{KafkaResult, RDKafkaErrorCode},
};
use weir_common::{
    ids::{CheckpointId, GrantId, LeaderEpoch, SlotId},
    kafka as settings,
    progress::entry::{EntryError, ProgressEntry},
    split::{SplitId, SplitsPerPartition},
};

use super::{Kafka, KafkaProblem, Shared, problem};
use crate::{
    coordinator::event::{SplitState, SplitStates},
    start::{JobRecord, topics::KnownTopics},
    store::keys::SnapshotId,
};

/// A pending transaction makes a stable read wait this long, then it is tried again.
const STABLE_READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The broker takes about 1 MB of metadata in one request.
const MAX_COMMIT_BYTES: usize = 500_000;

/// The broker's `offset.metadata.max.bytes`.
const MAX_METADATA_CHARS: usize = 4096;

const RECORD_VERSION: &str = "1";
/// Lower half of a grant: its number in its leadership.
const LOW: u64 = u32::MAX as u64;

/// What slots and grants may take of the record together: some 300 slots.
const MAX_SLOTS_CHARS: usize = 3000;

const RECORD_PARTITION: i32 = 0;
const SUSPENDED: &str = "suspended";

/// Which partition of the progress topic keeps which split.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgressIndex {
    partitions: BTreeMap<SplitId, i32>,
    taken: BTreeSet<i32>,
}

impl ProgressIndex {
    /// The split's partition, if it has one.
    #[must_use]
    pub fn get(&self, split: &SplitId) -> Option<i32> {
        self.partitions.get(split).copied()
    }

    /// The split's partition; the lowest free one becomes it.
    pub fn assign(&mut self, split: &SplitId) -> i32 {
        if let Some(partition) = self.get(split) {
            return partition;
        }
        let lowest_free = (RECORD_PARTITION + 1..).find(|partition| !self.taken.contains(partition));
        let partition = lowest_free.expect("there are more numbers than splits");
        self.insert(split.clone(), partition);
        partition
    }

    /// How many partitions the topic needs.
    #[must_use]
    pub fn partitions_needed(&self) -> i32 {
        self.taken.last().copied().unwrap_or(RECORD_PARTITION) + 1
    }

    fn insert(&mut self, split: SplitId, partition: i32) {
        self.partitions.insert(split, partition);
        self.taken.insert(partition);
    }
}

/// Everything that the progress group keeps, each with its partition. Entries of a former number of splits stay until the
/// broker forgets them, or their partitions are needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredProgress(Vec<(i32, ProgressEntry)>);

impl StoredProgress {
    /// What was made with this number of splits.
    #[must_use]
    pub fn states(&self, of: SplitsPerPartition) -> SplitStates {
        let state = |entry: &ProgressEntry| SplitState { progress: entry.progress.clone(), counters: entry.counters };
        self.of(of).map(|(_, entry)| (entry.split.clone(), state(entry))).collect()
    }

    /// The number of splits that everything was made with; `None` where there is nothing, or more than one.
    #[must_use]
    pub fn only_shape(&self) -> Option<SplitsPerPartition> {
        let first = self.0.first()?.1.splits_per_partition;
        self.0.iter().all(|(_, entry)| entry.splits_per_partition == first).then_some(first)
    }

    /// Where progress of this number of splits is kept. An entry that a change left behind keeps its place, so that no split
    /// ever has two. Partitions of `other` are not given away.
    #[must_use]
    pub fn index(&self, of: SplitsPerPartition, other: SplitsPerPartition) -> ProgressIndex {
        let mut index = ProgressIndex::default();
        self.of(of).for_each(|(partition, entry)| index.insert(entry.split.clone(), *partition));
        index.taken.extend(self.of(other).map(|(partition, _)| *partition));
        index
    }

    fn of(&self, count: SplitsPerPartition) -> impl Iterator<Item = &(i32, ProgressEntry)> {
        self.0.iter().filter(move |(_, entry)| entry.splits_per_partition == count)
    }
}

impl Kafka {
    /// The job record; `None` before the job's first start.
    ///
    /// # Errors
    /// The cluster does not answer, or a newer Weir wrote it.
    pub async fn read_record(&self) -> Result<Option<JobRecord>, KafkaProblem> {
        self.blocking(|shared| {
            let committed = committed(shared, RECORD_PARTITION..RECORD_PARTITION + 1)?;
            let Some((_, offset, metadata)) = committed.into_iter().next() else { return Ok(None) };
            parse_record(offset, &metadata).map(Some).map_err(|reason| {
                KafkaProblem::Configuration(format!(
                    "job record of {} (partition 0 of group {}): {reason}",
                    shared.job(),
                    settings::progress_topic(shared.job())
                ))
            })
        })
        .await
    }

    /// Writes the job record.
    ///
    /// # Errors
    /// It is not written, or that is not known.
    pub async fn write_record(&self, record: JobRecord) -> Result<(), KafkaProblem> {
        self.commit(vec![record_entry(self.shared.job(), &record)]).await
    }

    /// All splits' stable progress, and where it is kept.
    ///
    /// # Errors
    /// [`KafkaProblem::Pending`]: a transaction is open somewhere.
    pub async fn read_all_progress(&self, partitions: i32) -> Result<StoredProgress, KafkaProblem> {
        self.blocking(move |shared| {
            let mut entries = Vec::new();
            for (partition, cursor, metadata) in committed(shared, RECORD_PARTITION + 1..partitions)? {
                entries.extend(parse_entry(shared, partition, cursor, &metadata)?.map(|entry| (partition, entry)));
            }
            Ok(StoredProgress(entries))
        })
        .await
    }

    /// These splits' stable progress.
    ///
    /// # Errors
    /// [`KafkaProblem::Pending`]: a transaction is open; [`KafkaProblem::Failed`]: an entry is gone.
    pub async fn read_progress(&self, splits: BTreeMap<SplitId, i32>) -> Result<SplitStates, KafkaProblem> {
        self.blocking(move |shared| {
            let mut states = SplitStates::new();
            for (partition, cursor, metadata) in committed(shared, splits.values().copied())? {
                let entry = parse_entry(shared, partition, cursor, &metadata)?;
                // One of a former number of splits is no progress of this job's.
                let configured = shared.config.job.splits_per_partition;
                if let Some(entry) = entry.filter(|entry| entry.splits_per_partition == configured) {
                    states.insert(entry.split, SplitState { progress: entry.progress, counters: entry.counters });
                }
            }
            match splits.keys().find(|split| !states.contains_key(split)) {
                None => Ok(states),
                Some(split) => Err(KafkaProblem::Failed(format!(
                    "progress of split {split} is gone from group {}; restart the jobmanager to go on from the newest \
                     snapshot",
                    settings::progress_topic(shared.job())
                ))),
            }
        })
        .await
    }

    /// Writes progress and reads it back. Nobody may own one of the splits.
    ///
    /// # Errors
    /// Some of it may be written.
    pub async fn write_progress(
        &self,
        splits: SplitStates,
        places: BTreeMap<SplitId, i32>,
        splits_per_partition: SplitsPerPartition,
    ) -> Result<(), KafkaProblem> {
        let entries = entries(splits, &places, splits_per_partition);
        if entries.is_empty() { Ok(()) } else { self.commit(entries).await }
    }

    /// Writes what a leadership begins with, progress and job record in one transaction: where the record says another number of
    /// splits than before, its progress is there, and before that the former one is.
    ///
    /// # Errors
    /// All of it is written, or nothing.
    pub async fn write_start(
        &self,
        splits: SplitStates,
        places: BTreeMap<SplitId, i32>,
        record: JobRecord,
    ) -> Result<(), KafkaProblem> {
        let mut all = entries(splits, &places, record.splits_per_partition);
        all.push(record_entry(self.shared.job(), &record));
        self.commit(all).await
    }
}

fn entries(
    splits: SplitStates,
    places: &BTreeMap<SplitId, i32>,
    splits_per_partition: SplitsPerPartition,
) -> Committed {
    let entry = |(split, state): (SplitId, SplitState)| {
        let partition = places.get(&split).copied()?;
        let SplitState { progress, counters } = state;
        let entry = ProgressEntry { split, splits_per_partition, slot: None, progress, counters };
        Some((partition, entry.progress.cursor, entry.metadata()))
    };
    splits.into_iter().filter_map(entry).collect()
}

fn record_entry(job: &str, record: &JobRecord) -> (i32, i64, String) {
    let offset = i64::try_from(record.leader_epoch.0).unwrap_or(i64::MAX);
    (RECORD_PARTITION, offset, record_metadata(job, record))
}

/// Partition, offset and metadata of what is committed.
pub(super) type Committed = Vec<(i32, i64, String)>;

/// What is committed for these partitions, stable.
pub(super) fn committed(shared: &Shared, partitions: impl IntoIterator<Item = i32>) -> Result<Committed, KafkaProblem> {
    let topic = settings::progress_topic(shared.job());
    let mut asked = TopicPartitionList::new();
    for partition in partitions {
        asked.add_partition(&topic, partition);
    }
    if asked.count() == 0 {
        return Ok(Committed::new());
    }
    // Serves librdkafka's own queue; there are no records for a consumer without assignment.
    let _ = shared.progress.poll(Duration::ZERO);
    let what = format!("reading progress of group {topic} at {}", shared.sink_address());
    let answer = shared.progress.committed_offsets(asked, STABLE_READ_TIMEOUT).map_err(|error| {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::UnstableOffsetCommit) => {
                KafkaProblem::Pending(format!(
                    "{what}: not stable within {STABLE_READ_TIMEOUT:?}, a transaction is open"
                ))
            }
            _ => problem(&what, &error),
        }
    })?;
    let mut found = Committed::new();
    for element in answer.elements() {
        element.error().map_err(|error| problem(&what, &error))?;
        if let Offset::Offset(offset) = element.offset() {
            found.push((element.partition(), offset, element.metadata().to_owned()));
        }
    }
    Ok(found)
}

/// As lists that the broker takes in one request each.
pub(super) fn lists(shared: &Shared, entries: &Committed) -> KafkaResult<Vec<TopicPartitionList>> {
    let topic = settings::progress_topic(shared.job());
    let mut lists = Vec::new();
    let mut bytes = MAX_COMMIT_BYTES;
    for (partition, offset, metadata) in entries {
        if bytes >= MAX_COMMIT_BYTES {
            lists.push(TopicPartitionList::new());
            bytes = 0;
        }
        bytes += metadata.len() + topic.len();
        if let Some(list) = lists.last_mut() {
            let mut element = list.add_partition(&topic, *partition);
            // An invalid offset would be skipped without a word.
            element.set_offset(Offset::Offset(*offset))?;
            element.set_metadata(metadata.as_str());
        }
    }
    Ok(lists)
}

/// `None`: not ours; somebody reset the group's offsets. Whose it was is not known, so the start rules find it missing.
fn parse_entry(
    shared: &Shared,
    partition: i32,
    cursor: i64,
    metadata: &str,
) -> Result<Option<ProgressEntry>, KafkaProblem> {
    match ProgressEntry::parse(cursor, metadata) {
        Ok(entry) => Ok(Some(entry)),
        Err(error @ EntryError::NewerVersion(_)) => Err(KafkaProblem::Configuration(error.to_string())),
        Err(error @ EntryError::Malformed(_)) => {
            let group = settings::progress_topic(shared.job());
            tracing::error!(group, partition, cursor, %error, "progress entry is not Weir's: was the group reset?");
            Ok(None)
        }
    }
}

fn record_metadata(job: &str, record: &JobRecord) -> String {
    let slots: Vec<String> = record.slots.keys().map(ToString::to_string).collect();
    let grant = |grant: &Option<GrantId>| {
        grant.map(|GrantId(grant)| format!("{}.{}", grant >> 32, grant & LOW)).unwrap_or_default()
    };
    let grants: Vec<String> = record.slots.values().map(grant).collect();
    let (slots, mut grants) = (slots.join(","), grants.join(","));
    if slots.len() + grants.len() > MAX_SLOTS_CHARS {
        // Whoever holds one of so many slots may claim it.
        grants.clear();
    }
    let rewound = record.rewound.map(|id| format!("{}-{}", id.epoch, id.checkpoint)).unwrap_or_default();
    let state = if record.suspended { SUSPENDED } else { "" };
    let splits_per_partition = record.splits_per_partition.get();
    let text = format!("{RECORD_VERSION}|{job}|{splits_per_partition}|{slots}|{rewound}|{state}|{grants}");
    let topics = record.topics.to_field(MAX_METADATA_CHARS.saturating_sub(text.len() + 1));
    format!("{text}|{topics}")
}

fn parse_grant(text: &str) -> Option<GrantId> {
    let (epoch, number) = text.split_once('.')?;
    let (epoch, number): (u32, u32) = (epoch.parse().ok()?, number.parse().ok()?);
    Some(GrantId((u64::from(epoch) << 32) + u64::from(number)))
}

fn parse_record(offset: i64, metadata: &str) -> Result<JobRecord, String> {
    let malformed = || format!("`{}` is not a job record", metadata.escape_default());
    let fields: Vec<&str> = metadata.split('|').collect();
    let [version, _job, splits, slots, more @ ..] = fields.as_slice() else { return Err(malformed()) };
    let (version, splits, slots) = (*version, *splits, *slots);
    let rewound = more.first().copied().unwrap_or_default();
    let suspended = more.get(1) == Some(&SUSPENDED);
    if version != RECORD_VERSION {
        return Err(format!(
            "format version {version}, this build reads version 1; use the Weir version that wrote it"
        ));
    }
    let splits_per_partition = splits.parse().ok().and_then(SplitsPerPartition::new).ok_or_else(malformed)?;
    let mut grants = more.get(2).copied().unwrap_or_default().split(',');
    let mut slot = |number: &str| {
        let grant = grants.next().filter(|grant| !grant.is_empty());
        let grant = grant.map(|grant| parse_grant(grant).ok_or_else(malformed)).transpose()?;
        Ok((number.parse().map(SlotId).map_err(|_| malformed())?, grant))
    };
    let slots = slots.split(',').filter(|number| !number.is_empty()).map(&mut slot).collect::<Result<_, String>>()?;
    let snapshot = |text: &str| {
        let (epoch, id) = text.split_once('-')?;
        Some(SnapshotId { epoch: LeaderEpoch(epoch.parse().ok()?), checkpoint: CheckpointId(id.parse().ok()?) })
    };
    let rewound = if rewound.is_empty() { None } else { Some(snapshot(rewound).ok_or_else(malformed)?) };
    let leader_epoch = LeaderEpoch(u64::try_from(offset).map_err(|_| malformed())?);
    let topics = KnownTopics::of_field(more.get(3).copied().unwrap_or_default());
    Ok(JobRecord { leader_epoch, splits_per_partition, slots, rewound, suspended, topics })
}

#[cfg(test)]
mod tests {
    use weir_common::counters::SplitCounters;

    use super::*;

    #[test]
    fn a_job_record_is_read_back() {
        let rewound = SnapshotId { epoch: LeaderEpoch(3), checkpoint: CheckpointId(44) };
        let slots = [(SlotId(0), Some(GrantId(77))), (SlotId(3), None), (SlotId(12), Some(GrantId(1 << 40)))];
        let cases = [(vec![], None, true), (slots.to_vec(), Some(rewound), false)];
        for (slots, rewound, suspended) in cases {
            let record = JobRecord {
                leader_epoch: LeaderEpoch(9),
                splits_per_partition: SplitsPerPartition::DEFAULT,
                slots: slots.into_iter().collect(),
                rewound,
                suspended,
                topics: KnownTopics::of_field("a.topic=id-1,b=id_2"),
            };
            assert_eq!(parse_record(9, &record_metadata("a.job", &record)), Ok(record));
        }
    }

    #[test]
    fn a_change_of_the_number_of_splits_leaves_the_former_progress_until_it_is_over_and_no_split_two_places() {
        let count = |splits| SplitsPerPartition::new(splits).expect("legal");
        let split = |index| SplitId { topic: "t".into(), partition: 0, index };
        let stored = |rows: &[(i32, u32, u32, i64)]| {
            let entry = |(partition, index, splits, cursor): &(i32, u32, u32, i64)| {
                let (progress, counters) = (weir_common::progress::Progress::at(*cursor), SplitCounters::default());
                let splits_per_partition = count(*splits);
                (
                    *partition,
                    ProgressEntry { split: split(*index), splits_per_partition, slot: None, progress, counters },
                )
            };
            StoredProgress(rows.iter().map(entry).collect())
        };
        let places =
            |mut index: ProgressIndex, splits: u32| (0..splits).map(|at| index.assign(&split(at))).collect::<Vec<_>>();
        // Two splits are to be three: none takes the place of a former one.
        let two = stored(&[(1, 0, 2, 40), (2, 1, 2, 40)]);
        assert_eq!(places(two.index(count(3), count(2)), 3), [3, 4, 5]);
        assert_eq!((two.states(count(3)).len(), two.states(count(2)).len(), two.only_shape()), (0, 2, Some(count(2))));
        // They are, and go on; what is left of the two is not looked at, and its places may be taken.
        let three = stored(&[(1, 0, 2, 40), (2, 1, 2, 40), (3, 0, 3, 50), (4, 1, 3, 50), (5, 2, 3, 50)]);
        let cursors: Vec<i64> = three.states(count(3)).values().map(|state| state.progress.cursor).collect();
        assert_eq!((cursors, three.only_shape()), (vec![50, 50, 50], None));
        assert_eq!(places(three.index(count(3), count(3)), 4), [3, 4, 5, 1]);
        // Back to two: each where it was, over what was left there.
        assert_eq!(places(three.index(count(2), count(3)), 2), [1, 2]);
    }

    #[test]
    fn grants_are_left_out_where_they_do_not_fit() {
        for (count, kept) in [(200, true), (400, false)] {
            let record = JobRecord {
                leader_epoch: LeaderEpoch(9),
                splits_per_partition: SplitsPerPartition::DEFAULT,
                slots: (0..count).map(|slot| (SlotId(slot), Some(GrantId((9 << 32) + u64::from(slot))))).collect(),
                rewound: None,
                suspended: false,
                topics: KnownTopics::default(),
            };
            let metadata = record_metadata("a.job", &record);
            assert!(metadata.len() < MAX_METADATA_CHARS, "{}", metadata.len());
            let read = parse_record(9, &metadata).expect("a record");
            assert!(read.slots.values().all(|grant| grant.is_some() == kept) && read.slots.len() == count as usize);
        }
    }

    #[test]
    fn foreign_records_are_refused_without_panic() {
        let before_grants = parse_record(1, "1|job|12|0,1").expect("fewer fields");
        assert_eq!(before_grants.slots, [(SlotId(0), None), (SlotId(1), None)].into());
        for metadata in ["", "1", "1|job|12|0|||x", "1|job|0|", "1|job|12|x", "1|job|12|0|x", "1|job|99999|"] {
            assert!(parse_record(1, metadata).is_err(), "{metadata}");
        }
        assert!(parse_record(-1, "1|job|12|").is_err());
        assert!(parse_record(1, "2|anything|12|").is_err_and(|reason| reason.contains("format version 2")));
    }

    #[test]
    fn splits_keep_their_partition_and_new_ones_fill_the_gaps() {
        let split = |index| SplitId { topic: "t".into(), partition: 0, index };
        let mut index = ProgressIndex::default();
        assert_eq!(index.partitions_needed(), 1);
        index.insert(split(5), 2);
        assert_eq!([index.assign(&split(5)), index.assign(&split(0)), index.assign(&split(1))], [2, 1, 3]);
        assert_eq!((index.assign(&split(0)), index.partitions_needed()), (1, 4));
    }
}
