//! A job's snapshots: where they are, which is the newest, how long they are kept.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use weir_common::ids::{CheckpointId, LeaderEpoch};

use super::{
    Put, Storage, StoreError,
    keys::{self, SnapshotId},
    snapshot::{Snapshot, StoredKind},
};
use crate::coordinator::action::SavepointKind;

/// The pointer is read again and written again so often when somebody else writes it too.
const POINTER_ATTEMPTS: usize = 3;

/// Which of the two.
pub type Kind = StoredKind;

/// A snapshot as it lies in storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Which.
    pub id: SnapshotId,
    /// Checkpoint or savepoint.
    pub kind: Kind,
    /// Which kind of savepoint.
    pub savepoint: Option<SavepointKind>,
    /// A savepoint's name.
    pub label: String,
    /// Storage key.
    pub key: String,
    /// Address of the object.
    pub location: String,
    /// How large.
    pub size_bytes: u64,
    /// When it was written.
    pub modified: Timestamp,
}

/// `latest`: where the newest snapshot is, for people and scripts. A start takes the epoch alone from it. The key is empty
/// until the first snapshot.
#[derive(Debug, Serialize, Deserialize)]
struct Pointer {
    epoch: LeaderEpoch,
    id: CheckpointId,
    key: String,
}

/// The snapshots of one job. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Snapshots {
    storage: Arc<dyn Storage>,
    job: String,
    retained: usize,
}

impl Snapshots {
    /// `retained`: how many checkpoints stay; see [`Snapshots::retire`].
    #[must_use]
    pub fn new(storage: Arc<dyn Storage>, job: &str, retained: usize) -> Self {
        Self { storage, job: job.to_owned(), retained: retained.max(1) }
    }

    /// What they lie in.
    #[must_use]
    pub fn storage(&self) -> Arc<dyn Storage> {
        Arc::clone(&self.storage)
    }

    /// Where they are, for messages.
    #[must_use]
    pub fn address(&self) -> &str {
        self.storage.address()
    }

    /// Stores a snapshot and points `latest` at it; returns its location and size. An identical one already there
    /// counts as stored.
    ///
    /// # Errors
    /// [`StoreError::Superseded`]: a later leader stores here, this one must stop. Others may pass.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the object without its pointer; a start finds it all the same.
    pub async fn store(&self, snapshot: Snapshot) -> Result<(String, u64), StoreError> {
        let id = snapshot.id();
        let key = match snapshot.kind {
            Kind::Checkpoint => keys::checkpoint(&self.job, id),
            Kind::Savepoint => keys::savepoint(&self.job, id, snapshot.savepoint_kind, &snapshot.label),
        };
        let is_copy = snapshot.is_copy();
        let content = snapshot.to_json();
        let size_bytes = content.len() as u64;
        match self.storage.put(&key, content.clone(), Put::New).await {
            // A retry after an answer that was lost.
            Err(StoreError::Exists(_)) if self.storage.get(&key).await?.0 == content => {}
            result => drop(result?),
        }
        if is_copy {
            self.point_at(id, &key).await?;
        }
        Ok((self.storage.location(&key), size_bytes))
    }

    async fn point_at(&self, id: SnapshotId, key: &str) -> Result<(), StoreError> {
        let latest = keys::latest(&self.job);
        let pointer = Pointer { epoch: id.epoch, id: id.checkpoint, key: key.to_owned() };
        let content = Bytes::from(serde_json::to_vec(&pointer).expect("numbers and strings have a JSON form"));
        let mut attempt = 1;
        loop {
            let put = match self.storage.get(&latest).await {
                Ok((current, version)) => {
                    if self.is_passed(&current, id)? {
                        return Ok(());
                    }
                    Put::Over(version)
                }
                Err(StoreError::NotFound(_)) => Put::New,
                Err(error) => return Err(error),
            };
            match self.storage.put(&latest, content.clone(), put).await {
                Err(StoreError::Changed(_) | StoreError::Exists(_)) if attempt < POINTER_ATTEMPTS => attempt += 1,
                // No later leader was seen, and the snapshot itself is there: nothing but people reads the pointer.
                Err(StoreError::Changed(why) | StoreError::Exists(why)) => {
                    tracing::warn!(key, "the pointer to the newest snapshot was not moved: {why}");
                    return Ok(());
                }
                result => return result.map(drop),
            }
        }
    }

    /// Whether the pointer names a newer snapshot of the same leader: one that took its time was given up, and the next one
    /// was quicker.
    fn is_passed(&self, pointer: &[u8], id: SnapshotId) -> Result<bool, StoreError> {
        match serde_json::from_slice::<Pointer>(pointer) {
            Ok(current) if current.epoch > id.epoch => Err(StoreError::Superseded(format!(
                "leader epoch {} stores snapshots of job {} at {}, this jobmanager has epoch {}: it was replaced",
                current.epoch,
                self.job,
                self.address(),
                id.epoch
            ))),
            Ok(current) => Ok(current.epoch == id.epoch && current.id > id.checkpoint),
            Err(_) => Ok(false),
        }
    }

    /// All checkpoints, the newest first.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn checkpoints(&self) -> Result<Vec<Info>, StoreError> {
        self.list(&keys::checkpoints(&self.job)).await
    }

    /// All savepoints, the newest first.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn savepoints(&self) -> Result<Vec<Info>, StoreError> {
        self.list(&keys::savepoints(&self.job)).await
    }

    async fn list(&self, folder: &str) -> Result<Vec<Info>, StoreError> {
        let listed = self.storage.list(folder).await?;
        let info = |object: super::Listed| {
            let (id, label) = keys::parse(&object.key)?;
            let savepoint = keys::savepoint_kind(&object.key);
            let kind = if savepoint.is_some() { Kind::Savepoint } else { Kind::Checkpoint };
            let location = self.storage.location(&object.key);
            let (size_bytes, modified) = (object.size_bytes, object.modified);
            Some(Info { id, kind, savepoint, label, key: object.key, location, size_bytes, modified })
        };
        let mut infos: Vec<Info> = listed.into_iter().filter_map(info).collect();
        infos.sort_by_key(|info| std::cmp::Reverse(info.id));
        Ok(infos)
    }

    /// The newest snapshot that is good, checkpoint or savepoint; see [`Snapshots::survey`].
    ///
    /// # Errors
    /// The store does not answer or does not let us.
    pub async fn newest(&self) -> Result<Option<Snapshot>, StoreError> {
        Ok(self.survey().await?.newest)
    }

    /// The epoch in `latest`, and what is wrong with it. `all`: everything that is there.
    pub(super) async fn look_at_pointer(
        &self,
        all: &[Info],
    ) -> Result<(Option<LeaderEpoch>, Option<String>), StoreError> {
        let latest = keys::latest(&self.job);
        let location = self.storage.location(&latest);
        let content = match self.storage.get(&latest).await {
            Ok((content, _)) => content,
            Err(StoreError::NotFound(_)) => return Ok((None, None)),
            Err(error) => return Err(error),
        };
        Ok(match serde_json::from_slice::<Pointer>(&content) {
            Err(error) => (None, Some(format!("pointer {location} cannot be read: {error}"))),
            Ok(pointer) if pointer.key.is_empty() || all.iter().any(|info| info.key == pointer.key) => {
                (Some(pointer.epoch), None)
            }
            Ok(pointer) => {
                let named = self.storage.location(&pointer.key);
                (Some(pointer.epoch), Some(format!("pointer {location} names snapshot {named}, which is not there")))
            }
        })
    }

    /// Makes a leadership known before it has stored anything: later ones have higher epochs, and earlier ones are refused
    /// from now on. For at-least-once, which has no job record in Kafka.
    ///
    /// # Errors
    /// [`StoreError::Superseded`]: a later leader is there already. Others may pass.
    pub async fn claim(&self, epoch: LeaderEpoch) -> Result<(), StoreError> {
        let latest = keys::latest(&self.job);
        let known = match self.storage.get(&latest).await {
            Ok((content, _)) => serde_json::from_slice::<Pointer>(&content).ok(),
            Err(StoreError::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        let (checkpoint, key) = known.map_or((CheckpointId(0), String::new()), |pointer| (pointer.id, pointer.key));
        self.point_at(SnapshotId { epoch, checkpoint }, &key).await
    }

    /// Reads and checks a snapshot.
    ///
    /// # Errors
    /// It is not there, damaged, or of another job.
    pub async fn read(&self, info: &Info) -> Result<Snapshot, StoreError> {
        let (content, _) = self.storage.get(&info.key).await?;
        let snapshot = Snapshot::from_json(&content, &info.location)?;
        if snapshot.job == self.job {
            return Ok(snapshot);
        }
        Err(StoreError::Damaged(format!("snapshot {} is of job {}, not of {}", info.location, snapshot.job, self.job)))
    }

    /// The object as it is stored.
    ///
    /// # Errors
    /// It is not there, or the store does not answer.
    pub async fn content(&self, info: &Info) -> Result<Bytes, StoreError> {
        Ok(self.storage.get(&info.key).await?.0)
    }

    /// Finds a snapshot by its location, key, label or checkpoint id; among equals the newest.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] with what to do; or the store does not answer.
    pub async fn find(&self, name: &str) -> Result<Info, StoreError> {
        let mut all = self.savepoints().await?;
        all.extend(self.checkpoints().await?);
        let key = self.storage.key_of(name).unwrap_or_else(|| name.to_owned());
        let number = name.parse().ok().map(CheckpointId);
        let exact = all.iter().find(|info| info.key == key);
        let found = exact
            .or_else(|| all.iter().find(|info| Some(info.id.checkpoint) == number || info.id.to_string() == name))
            .or_else(|| all.iter().find(|info| !name.is_empty() && info.label == name));
        found.cloned().ok_or_else(|| {
            StoreError::NotFound(format!(
                "no snapshot `{name}` of job {} at {}; `weir savepoint list` names them",
                self.job,
                self.address()
            ))
        })
    }

    /// Deletes a savepoint.
    ///
    /// # Errors
    /// The store does not answer or does not let us.
    pub async fn dispose(&self, savepoint: &Info) -> Result<(), StoreError> {
        self.delete(&savepoint.key).await
    }

    /// Deletes a savepoint by its key.
    ///
    /// # Errors
    /// As [`Snapshots::dispose`].
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.storage.delete(key).await
    }

    /// Deletes checkpoints beyond the newest `retained`. Savepoints stay.
    ///
    /// # Errors
    /// The store does not answer; what is left is deleted next time.
    pub async fn retire(&self) -> Result<usize, StoreError> {
        let checkpoints = self.checkpoints().await?;
        let old = checkpoints.get(self.retained..).unwrap_or_default();
        for info in old {
            self.storage.delete(&info.key).await?;
        }
        Ok(old.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        coordinator::action::SnapshotKind,
        store::{object::Objects, snapshot::tests::snapshot},
    };

    fn stores(folder: &std::path::Path) -> [Snapshots; 2] {
        let storage = weir_common::config::Storage {
            uri: format!("file://{}", folder.display()),
            ..weir_common::config::Storage::default()
        };
        let folder = Objects::open(&storage).expect("a writable folder");
        [Arc::new(folder), Arc::new(Objects::in_memory())].map(|storage| Snapshots::new(storage, "job", 2))
    }

    fn savepoint(label: &str) -> SnapshotKind {
        SnapshotKind::Savepoint { label: label.to_owned(), kind: SavepointKind::Operator }
    }

    fn temporary() -> std::path::PathBuf {
        std::env::temp_dir().join(format!("weir-store-{}", uuid::Uuid::new_v4()))
    }

    #[tokio::test]
    async fn the_newest_is_found_and_old_checkpoints_go_but_savepoints_stay() {
        let folder = temporary();
        for store in stores(&folder) {
            assert_eq!(store.newest().await, Ok(None));
            store.store(snapshot(1, 1, &savepoint("first"))).await.expect("stored");
            for id in 2..6 {
                store.store(snapshot(1, id, &SnapshotKind::Checkpoint)).await.expect("stored");
            }
            store.store(snapshot(2, 6, &SnapshotKind::Checkpoint)).await.expect("stored");
            assert_eq!(store.retire().await, Ok(3));
            let ids = |infos: Vec<Info>| infos.iter().map(|info| info.id.checkpoint.0).collect::<Vec<_>>();
            assert_eq!(ids(store.checkpoints().await.expect("listed")), [6, 5]);
            assert_eq!(ids(store.savepoints().await.expect("listed")), [1]);
            let newest = store.newest().await.expect("readable").expect("there");
            assert_eq!((newest.leader_epoch.0, newest.checkpoint_id.0), (2, 6));
        }
        std::fs::remove_dir_all(folder).expect("removed");
    }

    #[tokio::test]
    async fn savepoints_are_listed_by_kind_and_an_imported_one_is_no_copy_of_the_job() {
        let folder = temporary();
        for store in stores(&folder) {
            store.store(snapshot(1, 1, &SnapshotKind::Checkpoint)).await.expect("stored");
            for (id, kind) in (2..).zip(SavepointKind::ALL) {
                let savepoint = SnapshotKind::Savepoint { label: "x".to_owned(), kind };
                store.store(snapshot(1, id, &savepoint)).await.expect("stored");
            }
            let listed = store.savepoints().await.expect("listed");
            let kinds: Vec<_> = listed.iter().rev().filter_map(|info| info.savepoint).collect();
            assert_eq!(kinds, SavepointKind::ALL, "the newest first, none left out");
            let checkpoints = store.checkpoints().await.expect("listed");
            assert!(checkpoints.len() == 1 && checkpoints[0].savepoint.is_none(), "{checkpoints:?}");
            // It says where somebody wants to go: no start goes there by itself, and its number is taken.
            let survey = store.survey().await.expect("answers");
            assert_eq!(survey.newest.expect("there").savepoint_kind, SavepointKind::Periodic);
            assert_eq!((survey.highest.checkpoint, survey.pointer), (CheckpointId(5), None));
            let (pointer, _) = store.storage.get("job/latest").await.expect("there");
            assert_eq!(serde_json::from_slice::<Pointer>(&pointer).expect("a pointer").id, CheckpointId(4));
        }
        std::fs::remove_dir_all(folder).expect("removed");
    }

    #[tokio::test]
    async fn a_snapshot_is_never_overwritten_and_storing_it_twice_is_storing_it() {
        let folder = temporary();
        for store in stores(&folder) {
            let first = store.store(snapshot(1, 1, &SnapshotKind::Checkpoint)).await.expect("stored");
            assert_eq!(store.store(snapshot(1, 1, &SnapshotKind::Checkpoint)).await, Ok(first));
            let mut other = snapshot(1, 1, &SnapshotKind::Checkpoint);
            other.config_digest = "another".to_owned();
            assert!(matches!(store.store(other).await, Err(StoreError::Exists(_))));
        }
        std::fs::remove_dir_all(folder).expect("removed");
    }

    #[tokio::test]
    async fn a_deposed_leader_is_told_so() {
        let folder = temporary();
        for store in stores(&folder) {
            store.store(snapshot(2, 9, &SnapshotKind::Checkpoint)).await.expect("stored");
            let deposed = store.store(snapshot(1, 10, &SnapshotKind::Checkpoint)).await;
            assert!(matches!(deposed, Err(StoreError::Superseded(_))), "{deposed:?}");
        }
        std::fs::remove_dir_all(folder).expect("removed");
    }

    #[tokio::test]
    async fn a_snapshot_that_was_given_up_and_stored_late_does_not_turn_the_pointer_back() {
        let folder = temporary();
        for store in stores(&folder) {
            for id in [3, 2] {
                store.store(snapshot(1, id, &SnapshotKind::Checkpoint)).await.expect("stored");
                let (pointer, _) = store.storage.get("job/latest").await.expect("there");
                let pointer: Pointer = serde_json::from_slice(&pointer).expect("a pointer");
                assert_eq!(pointer.id, CheckpointId(3), "after {id}");
            }
        }
        std::fs::remove_dir_all(folder).expect("removed");
    }

    #[tokio::test]
    async fn a_damaged_newest_is_passed_over() {
        let folder = temporary();
        for store in stores(&folder) {
            store.store(snapshot(1, 1, &SnapshotKind::Checkpoint)).await.expect("stored");
            let key = "job/checkpoints/0000000001-0000000002.json";
            store.storage.put(key, Bytes::from_static(b"{ torn"), Put::New).await.expect("stored");
            assert_eq!(store.newest().await.expect("readable").expect("there").checkpoint_id, CheckpointId(1));
        }
        std::fs::remove_dir_all(folder).expect("removed");
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_named_with_its_reason_and_its_number_stays_taken() {
        let folder = temporary();
        for store in stores(&folder) {
            store.store(snapshot(1, 1, &SnapshotKind::Checkpoint)).await.expect("stored");
            let good = snapshot(1, 2, &SnapshotKind::Checkpoint).to_json();
            let text = std::str::from_utf8(&good).expect("JSON is UTF-8");
            let foreign = Snapshot { job: "other".to_owned(), ..snapshot(1, 5, &SnapshotKind::Checkpoint) };
            let bad = [
                (2, text[..text.len() / 2].to_owned(), "is not a snapshot"),
                (3, text.replacen("\"cursor\": 7", "\"cursor\": 8", 1), "checksum"),
                (4, "<html>".to_owned(), "is not a snapshot"),
                (5, String::from_utf8(foreign.to_json().to_vec()).expect("UTF-8"), "is of job other"),
                (6, text.replacen("\"format_version\": 1", "\"format_version\": 3", 1), "format version 3"),
            ];
            for (id, content, _) in &bad {
                let key = format!("job/checkpoints/0000000004-000000000{id}.json");
                store.storage.put(&key, Bytes::from(content.clone()), Put::New).await.expect("stored");
            }
            let survey = store.survey().await.expect("answers");
            assert_eq!(survey.newest.expect("the first is good").checkpoint_id, CheckpointId(1));
            assert_eq!((survey.highest.epoch, survey.highest.checkpoint), (LeaderEpoch(4), CheckpointId(6)));
            assert_eq!(survey.passed_over.len(), bad.len());
            for ((id, _, expected), found) in bad.iter().rev().zip(&survey.passed_over) {
                let key = format!("0000000004-000000000{id}.json");
                assert!(found.reason.contains(expected) && found.reason.contains(&key), "{found:?}");
                assert_eq!(found.newer_format, *id == 6, "{found:?}");
            }
        }
        std::fs::remove_dir_all(folder).expect("removed");
    }

    #[tokio::test]
    async fn a_pointer_to_nothing_or_to_nonsense_is_said_and_its_epoch_counts() {
        let folder = temporary();
        for store in stores(&folder) {
            store.store(snapshot(1, 1, &SnapshotKind::Checkpoint)).await.expect("stored");
            assert_eq!(store.survey().await.expect("answers").pointer, None);
            store.store(snapshot(5, 2, &SnapshotKind::Checkpoint)).await.expect("stored");
            let newest = store.find("2").await.expect("there");
            store.dispose(&newest).await.expect("deleted");
            let survey = store.survey().await.expect("answers");
            assert!(survey.pointer.is_some_and(|text| text.contains("0000000005-0000000002.json, which is not there")));
            assert_eq!(survey.highest.epoch, LeaderEpoch(5));
            let (_, version) = store.storage.get("job/latest").await.expect("there");
            store.storage.put("job/latest", Bytes::from_static(b"?"), Put::Over(version)).await.expect("stored");
            assert!(store.survey().await.expect("answers").pointer.is_some_and(|text| text.contains("cannot be read")));
        }
        std::fs::remove_dir_all(folder).expect("removed");
    }

    #[tokio::test]
    async fn a_leadership_that_stored_nothing_has_its_epoch_for_itself() {
        let folder = temporary();
        for store in stores(&folder) {
            for epoch in 1..4 {
                let survey = store.survey().await.expect("answers");
                assert_eq!((survey.highest.epoch, survey.pointer), (LeaderEpoch(epoch - 1), None));
                store.claim(LeaderEpoch(epoch)).await.expect("nobody is above");
            }
            assert!(matches!(store.claim(LeaderEpoch(2)).await, Err(StoreError::Superseded(_))));
            let deposed = store.store(snapshot(2, 1, &SnapshotKind::Checkpoint)).await;
            assert!(matches!(deposed, Err(StoreError::Superseded(_))), "{deposed:?}");
            store.store(snapshot(3, 1, &SnapshotKind::Checkpoint)).await.expect("stored");
            store.claim(LeaderEpoch(4)).await.expect("nobody is above");
            assert_eq!(store.survey().await.expect("answers").pointer, None, "the snapshot stays pointed at");
        }
        std::fs::remove_dir_all(folder).expect("removed");
    }

    #[tokio::test]
    async fn savepoints_are_found_by_all_their_names_and_disposed_of() {
        let folder = temporary();
        for store in stores(&folder) {
            let (location, _) = store.store(snapshot(3, 7, &savepoint("before-1.2"))).await.expect("stored");
            for name in [location.as_str(), "7", "before-1.2", "0000000003-0000000007"] {
                assert_eq!(store.find(name).await.expect(name).location, location);
            }
            assert!(matches!(store.find("8").await, Err(StoreError::NotFound(_))));
            let info = store.find("7").await.expect("there");
            store.dispose(&info).await.expect("deleted");
            assert!(matches!(store.find("7").await, Err(StoreError::NotFound(_))));
        }
        std::fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn addresses_that_make_no_sense_are_refused_with_the_key() {
        for uri in ["/var/lib/weir", "file://relative", "gs://bucket", ""] {
            let storage = weir_common::config::Storage { uri: uri.to_owned(), ..Default::default() };
            let error = Objects::open(&storage).expect_err(uri);
            assert!(matches!(&error, StoreError::Configuration(text) if text.contains("storage.uri")), "{error}");
        }
    }
}
