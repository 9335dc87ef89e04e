//! What a snapshot says, as readable JSON. The format is versioned: a reader refuses what is newer than itself.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use weir_common::{
    counters::SplitCounters,
    ids::{CheckpointId, LeaderEpoch, SlotId},
    progress::{OffsetRange, Progress},
    split::{SplitId, SplitsPerPartition, TopicName, TopicPartition},
};

use super::{StoreError, keys::SnapshotId};
use crate::coordinator::{
    action::{SavepointKind, SnapshotKind},
    event::{SplitState, SplitStates},
    plain_offsets::{Uneven, plain_offsets},
};

/// The newest version that this build reads. It writes 1, which older ones read too, unless a savepoint has a kind.
pub const FORMAT_VERSION: u32 = 2;

/// A checkpoint or savepoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// See [`FORMAT_VERSION`].
    pub format_version: u32,
    /// The job's name.
    pub job: String,
    /// Of the leader that made it.
    pub leader_epoch: LeaderEpoch,
    /// Number of its barrier.
    pub checkpoint_id: CheckpointId,
    /// `CHECKPOINT` or `SAVEPOINT`.
    pub kind: StoredKind,
    /// A savepoint's name, may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// Which kind of savepoint; since format version 2.
    #[serde(default, skip_serializing_if = "is_of_version_1")]
    pub savepoint_kind: SavepointKind,
    /// When it was made.
    pub time: Timestamp,
    /// Who wrote it.
    pub weir_version: String,
    /// SHA-256 of the effective configuration.
    pub config_digest: String,
    /// What a split is a part of.
    pub splits_per_partition: SplitsPerPartition,
    /// Slots that were leased: at-least-once, whose holders a next jobmanager may adopt.
    pub slots: Vec<SlotId>,
    /// Sums of all splits.
    pub counters: SplitCounters,
    /// All splits of the job.
    pub splits: Vec<StoredSplit>,
    /// `sha256:` of this object as compact JSON, fields in this order, with an empty checksum.
    pub checksum: String,
}

/// See [`SnapshotKind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StoredKind {
    /// Periodic.
    Checkpoint,
    /// Asked for.
    Savepoint,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference over")]
fn is_of_version_1(kind: &SavepointKind) -> bool {
    *kind == SavepointKind::Operator
}

/// A split in a snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredSplit {
    /// Source topic.
    pub topic: TopicName,
    /// Partition number.
    pub partition: i32,
    /// Index of the key range.
    pub index: u32,
    /// Its bounds in hash space, `[start, end)`.
    pub key_range: (u64, u64),
    /// Lowest offset whose work is not finished.
    pub cursor: i64,
    /// Finished offsets above it.
    pub finished_ahead: Vec<OffsetRange>,
    /// Outcomes of everything finished.
    pub counters: SplitCounters,
}

/// What a snapshot is made from.
#[derive(Clone, Debug)]
pub struct Content<'a> {
    /// The job's name.
    pub job: &'a str,
    /// Which.
    pub id: SnapshotId,
    /// Why.
    pub kind: &'a SnapshotKind,
    /// When.
    pub time: Timestamp,
    /// SHA-256 of the effective configuration.
    pub config_digest: &'a str,
    /// The job's.
    pub splits_per_partition: SplitsPerPartition,
    /// Leased slots.
    pub slots: Vec<SlotId>,
    /// All splits.
    pub splits: &'a SplitStates,
}

impl Snapshot {
    /// Puts a snapshot together; its checksum is made by [`Snapshot::to_json`].
    #[must_use]
    pub fn new(content: &Content<'_>) -> Self {
        let (kind, label, savepoint_kind) = match content.kind {
            SnapshotKind::Checkpoint => (StoredKind::Checkpoint, String::new(), SavepointKind::default()),
            SnapshotKind::Savepoint { label, kind } => (StoredKind::Savepoint, label.clone(), *kind),
        };
        let mut counters = SplitCounters::default();
        content.splits.values().for_each(|state| counters += state.counters);
        let store = |(id, state): (&SplitId, &SplitState)| StoredSplit {
            topic: id.topic.clone(),
            partition: id.partition,
            index: id.index,
            key_range: content.splits_per_partition.range(id.index),
            cursor: state.progress.cursor,
            finished_ahead: state.progress.finished_ahead.clone(),
            counters: state.counters,
        };
        Self {
            format_version: if is_of_version_1(&savepoint_kind) { 1 } else { FORMAT_VERSION },
            job: content.job.to_owned(),
            leader_epoch: content.id.epoch,
            checkpoint_id: content.id.checkpoint,
            kind,
            label,
            savepoint_kind,
            time: content.time,
            weir_version: env!("CARGO_PKG_VERSION").to_owned(),
            config_digest: content.config_digest.to_owned(),
            splits_per_partition: content.splits_per_partition,
            slots: content.slots.clone(),
            counters,
            splits: content.splits.iter().map(store).collect(),
            checksum: String::new(),
        }
    }

    /// Which snapshot it is.
    #[must_use]
    pub fn id(&self) -> SnapshotId {
        SnapshotId { epoch: self.leader_epoch, checkpoint: self.checkpoint_id }
    }

    /// Whether it says how far the job had come. An imported one says where somebody wants it to go.
    #[must_use]
    pub fn is_copy(&self) -> bool {
        self.savepoint_kind != SavepointKind::Imported
    }

    /// The snapshot as plain Kafka offsets: for each partition the first that is not done, where everything below is done
    /// and nothing above.
    ///
    /// # Errors
    /// It is no offset cut: the partitions whose key ranges have come differently far.
    pub fn offsets(&self) -> Result<BTreeMap<TopicPartition, i64>, Uneven> {
        plain_offsets(&self.states())
    }

    /// The splits as the coordinator knows them.
    #[must_use]
    pub fn states(&self) -> SplitStates {
        let state = |split: &StoredSplit| {
            let id = SplitId { topic: split.topic.clone(), partition: split.partition, index: split.index };
            let progress = Progress { cursor: split.cursor, finished_ahead: split.finished_ahead.clone() };
            (id, SplitState { progress, counters: split.counters })
        };
        self.splits.iter().map(state).collect()
    }

    /// The object as it is stored.
    #[must_use]
    pub fn to_json(mut self) -> Bytes {
        self.checksum = self.computed_checksum();
        let mut json = serde_json::to_vec_pretty(&self).expect("numbers, strings and lists have a JSON form");
        json.push(b'\n');
        json.into()
    }

    /// Reads and checks an object.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] or [`StoreError::NewerFormat`], with the reason and `location`.
    pub fn from_json(content: &[u8], location: &str) -> Result<Self, StoreError> {
        #[derive(Deserialize)]
        struct Format {
            format_version: u32,
        }
        let damaged = |what: String| StoreError::Damaged(format!("snapshot {location} {what}"));
        let format: Format =
            serde_json::from_slice(content).map_err(|error| damaged(format!("is not a snapshot: {error}")))?;
        if format.format_version > FORMAT_VERSION {
            return Err(StoreError::NewerFormat(format!(
                "snapshot {location} has format version {}, this build reads up to {FORMAT_VERSION}; use the Weir version \
                 that wrote it or a newer one",
                format.format_version
            )));
        }
        let snapshot: Self =
            serde_json::from_slice(content).map_err(|error| damaged(format!("cannot be read: {error}")))?;
        if snapshot.checksum != snapshot.computed_checksum() {
            return Err(damaged("does not have the content that its checksum is of; use another one".to_owned()));
        }
        let ill_formed = snapshot.states().into_iter().find(|(_, state)| !state.progress.is_well_formed());
        match ill_formed {
            Some((split, _)) => Err(damaged(format!("has impossible progress for split {split}"))),
            None => Ok(snapshot),
        }
    }

    fn computed_checksum(&self) -> String {
        let unsigned = Self { checksum: String::new(), ..self.clone() };
        let compact = serde_json::to_vec(&unsigned).expect("numbers, strings and lists have a JSON form");
        let hex: String = Sha256::digest(&compact).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{hex}")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Two splits of one partition, the second with something finished ahead.
    pub(crate) fn states() -> SplitStates {
        let split = |index| SplitId { topic: "eqiad.stream".into(), partition: 0, index };
        let ahead = Progress { cursor: 7, finished_ahead: vec![OffsetRange { start: 9, end: 12 }] };
        let counters = SplitCounters { consumed: 4, enriched: 3, errors: 1, ..SplitCounters::default() };
        [
            (split(0), SplitState { progress: Progress::at(10), counters: SplitCounters::default() }),
            (split(1), SplitState { progress: ahead, counters }),
        ]
        .into()
    }

    pub(crate) fn snapshot(epoch: u64, checkpoint: u64, kind: &SnapshotKind) -> Snapshot {
        Snapshot::new(&Content {
            job: "job",
            id: SnapshotId { epoch: LeaderEpoch(epoch), checkpoint: CheckpointId(checkpoint) },
            kind,
            time: Timestamp::UNIX_EPOCH,
            config_digest: "d1",
            splits_per_partition: SplitsPerPartition::new(2).expect("legal"),
            slots: vec![SlotId(0)],
            splits: &states(),
        })
    }

    #[test]
    fn what_is_written_is_read_back() {
        for (kind, version) in SavepointKind::ALL.into_iter().zip([1, 2, 2, 2]) {
            let json = snapshot(1, 2, &SnapshotKind::Savepoint { label: "x".to_owned(), kind }).to_json();
            let read = Snapshot::from_json(&json, "here").expect("reads");
            assert_eq!(read.states(), states());
            assert_eq!((read.kind, read.label.as_str(), read.counters.consumed), (StoredKind::Savepoint, "x", 4));
            assert_eq!((read.savepoint_kind, read.format_version), (kind, version));
            let text = std::str::from_utf8(&json).expect("JSON is UTF-8");
            assert_eq!(text.contains(&format!("\"savepoint_kind\": \"{}\"", kind.name())), version == 2, "{text}");
        }
    }

    #[test]
    fn reformatting_does_no_harm_and_any_change_is_found() {
        let json = snapshot(1, 2, &SnapshotKind::Checkpoint).to_json();
        let text = std::str::from_utf8(&json).expect("JSON is UTF-8");
        let compact: serde_json::Value = serde_json::from_str(text).expect("JSON");
        assert!(Snapshot::from_json(compact.to_string().as_bytes(), "here").is_ok());
        let changed = text.replacen("\"cursor\": 7", "\"cursor\": 8", 1);
        assert_ne!(changed, text);
        assert!(matches!(Snapshot::from_json(changed.as_bytes(), "here"), Err(StoreError::Damaged(_))));
    }

    #[test]
    fn newer_formats_and_other_objects_are_refused_by_name() {
        let newer = br#"{"format_version": 3, "anything": {}}"#;
        let error = Snapshot::from_json(newer, "s3://b/x.json").expect_err("newer").to_string();
        assert!(error.contains("format version 3") && error.contains("s3://b/x.json"), "{error}");
        for other in [&b"{}"[..], b"", b"\xff\xfe", b"[1]", br#"{"format_version": 1}"#] {
            assert!(matches!(Snapshot::from_json(other, "here"), Err(StoreError::Damaged(_))));
        }
    }
}
