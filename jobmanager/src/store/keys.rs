//! The one place that makes storage keys.
//!
//! ```text
//! <job>/checkpoints/<epoch>-<id>.json
//! <job>/savepoints/<epoch>-<id>[-<label>].json
//! <job>/savepoints/offset-cut|periodic|imported/<epoch>-<id>[-<label>].json
//! <job>/latest
//! <job>/leader
//! ```
//!
//! Savepoints of each kind have a folder, so that a list of names tells which may be deleted; a label cannot make one look
//! like another.
//!
//! Epoch and id have ten digits, so that keys sort as snapshots were made. The epoch keeps two leaders apart: a deposed
//! one can never write where its successor does.

use weir_common::ids::{CheckpointId, LeaderEpoch};

use crate::coordinator::action::SavepointKind;

/// Longest label of a savepoint.
pub const MAX_LABEL_CHARS: usize = 100;

const CHECKPOINTS: &str = "checkpoints";
const SAVEPOINTS: &str = "savepoints";

/// Which snapshot: newer ones are greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId {
    /// Of the leader that made it.
    pub epoch: LeaderEpoch,
    /// Number of its barrier.
    pub checkpoint: CheckpointId,
}

impl std::fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:010}-{:010}", self.epoch.0, self.checkpoint.0)
    }
}

/// Folder of a job's checkpoints.
#[must_use]
pub fn checkpoints(job: &str) -> String {
    format!("{job}/{CHECKPOINTS}")
}

/// Folder of a job's savepoints.
#[must_use]
pub fn savepoints(job: &str) -> String {
    format!("{job}/{SAVEPOINTS}")
}

/// The pointer to the newest snapshot.
#[must_use]
pub fn latest(job: &str) -> String {
    format!("{job}/latest")
}

/// The lease of who leads.
#[must_use]
pub fn lease(job: &str) -> String {
    format!("{job}/leader")
}

/// Where a candidate tries whether storage heeds conditions; there for a moment only.
#[must_use]
pub fn lease_probe(job: &str, holder: &str) -> String {
    format!("{job}/leader-probe-{holder}")
}

/// Key of a checkpoint.
#[must_use]
pub fn checkpoint(job: &str, id: SnapshotId) -> String {
    format!("{}/{id}.json", checkpoints(job))
}

fn folder_of(kind: SavepointKind) -> &'static str {
    match kind {
        SavepointKind::Operator => SAVEPOINTS,
        SavepointKind::OffsetCut => "offset-cut",
        SavepointKind::Periodic => "periodic",
        SavepointKind::Imported => "imported",
    }
}

/// Key of a savepoint. `label` is empty or passes [`check_label`].
#[must_use]
pub fn savepoint(job: &str, id: SnapshotId, kind: SavepointKind, label: &str) -> String {
    let mut folder = savepoints(job);
    if kind != SavepointKind::Operator {
        folder = format!("{folder}/{}", folder_of(kind));
    }
    if label.is_empty() { format!("{folder}/{id}.json") } else { format!("{folder}/{id}-{label}.json") }
}

/// Whether a savepoint may be called that.
///
/// # Errors
/// What is wrong with it and what is right, for the operator.
pub fn check_label(label: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if label.len() <= MAX_LABEL_CHARS && label.chars().all(legal) {
        return Ok(());
    }
    Err(format!(
        "label `{}` cannot be part of a storage key: use at most {MAX_LABEL_CHARS} of A-Z a-z 0-9 . _ -",
        label.escape_default()
    ))
}

/// Reads a key's last part back: which snapshot, and its label.
#[must_use]
pub fn parse(key: &str) -> Option<(SnapshotId, String)> {
    let name = key.rsplit('/').next()?.strip_suffix(".json")?;
    let mut parts = name.splitn(3, '-');
    let mut number = || parts.next()?.parse::<u64>().ok();
    let id = SnapshotId { epoch: LeaderEpoch(number()?), checkpoint: CheckpointId(number()?) };
    Some((id, parts.next().unwrap_or_default().to_owned()))
}

/// Which kind of savepoint the key is of; `None` for a checkpoint's.
#[must_use]
pub fn savepoint_kind(key: &str) -> Option<SavepointKind> {
    let folder = key.rsplit('/').nth(1)?;
    SavepointKind::ALL.into_iter().find(|kind| folder_of(*kind) == folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_snapshots_were_made_and_are_read_back() {
        let ids = [(1, 2), (1, 10), (2, 3), (10, 1)]
            .map(|(epoch, id)| SnapshotId { epoch: LeaderEpoch(epoch), checkpoint: CheckpointId(id) });
        let keys = ids.map(|id| checkpoint("job", id));
        assert!(keys.is_sorted());
        for (id, key) in ids.iter().zip(&keys) {
            assert_eq!(parse(key), Some((*id, String::new())));
            assert_eq!(savepoint_kind(key), None);
            for kind in SavepointKind::ALL {
                let savepoint = savepoint("job", *id, kind, "before-1.2");
                assert_eq!(parse(&savepoint), Some((*id, "before-1.2".to_owned())));
                assert_eq!(savepoint_kind(&savepoint), Some(kind));
                assert!(savepoint.starts_with("job/savepoints/"));
            }
        }
    }

    #[test]
    fn foreign_keys_are_no_snapshots() {
        for key in ["job/latest", "job/checkpoints/readme.json", "job/checkpoints/1-x.json", "1-2", ""] {
            assert_eq!(parse(key), None, "{key}");
        }
    }

    #[test]
    fn labels_are_part_of_a_key_or_refused() {
        assert_eq!(check_label(""), Ok(()));
        assert_eq!(check_label("before-1.2_x"), Ok(()));
        for label in ["a/b", "..\n", "ä", &"x".repeat(101)] {
            assert!(check_label(label).is_err(), "{label}");
        }
    }
}
