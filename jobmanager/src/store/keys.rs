//! The one place that makes storage keys.
//!
//! ```text
//! <job>/checkpoints/<epoch>-<id>.json
//! <job>/savepoints/<epoch>-<id>[-<label>].json
//! <job>/latest
//! <job>/leader
//! ```
//!
//! Epoch and id have ten digits, so that keys sort as snapshots were made. The epoch keeps two leaders apart: a deposed
//! one can never write where its successor does.

use weir_common::ids::{CheckpointId, LeaderEpoch};

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

/// Key of a savepoint. `label` is empty or passes [`check_label`].
#[must_use]
pub fn savepoint(job: &str, id: SnapshotId, label: &str) -> String {
    let folder = savepoints(job);
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

/// Whether the key is a savepoint's.
#[must_use]
pub fn is_savepoint(key: &str) -> bool {
    key.rsplit('/').nth(1) == Some(SAVEPOINTS)
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
            let savepoint = savepoint("job", *id, "before-1.2");
            assert_eq!(parse(&savepoint), Some((*id, "before-1.2".to_owned())));
            assert!(is_savepoint(&savepoint) && !is_savepoint(key));
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
