//! What a start finds in storage: the newest good snapshot, and whatever had to be left aside for it.

use weir_common::ids::{CheckpointId, LeaderEpoch};

use super::{Snapshots, StoreError, keys::SnapshotId, snapshot::Snapshot};
use crate::coordinator::action::SavepointKind;

/// So many snapshots are read at most until one is good.
const MAX_READ: usize = 20;

/// What lies in storage, as far as a start needs it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Survey {
    /// The newest that is good.
    pub newest: Option<Snapshot>,
    /// Newer than that one and not to be used, the newest first.
    pub passed_over: Vec<PassedOver>,
    /// Greatest epoch and greatest number of all that is or was there, good or not: new ones must be above both.
    pub highest: SnapshotId,
    /// What is wrong with `latest`.
    pub pointer: Option<String>,
}

/// A snapshot that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    /// Which.
    pub id: SnapshotId,
    /// What is wrong; names the object.
    pub reason: String,
    /// It is whole, but a newer Weir wrote it.
    pub newer_format: bool,
}

impl Snapshots {
    /// Looks for the newest good snapshot, checkpoint or savepoint.
    ///
    /// # Errors
    /// The store does not answer or does not let us.
    pub async fn survey(&self) -> Result<Survey, StoreError> {
        let mut all = self.checkpoints().await?;
        all.extend(self.savepoints().await?);
        all.sort_by_key(|info| std::cmp::Reverse(info.id));
        let (pointer_epoch, pointer) = self.look_at_pointer(&all).await?;
        let epoch = all.iter().map(|info| info.id.epoch).chain(pointer_epoch).max().unwrap_or(LeaderEpoch(0));
        let checkpoint = all.iter().map(|info| info.id.checkpoint).max().unwrap_or(CheckpointId(0));
        let mut survey = Survey { highest: SnapshotId { epoch, checkpoint }, pointer, ..Survey::default() };
        // An imported one says where somebody else was: no copy of the job's progress.
        for info in all.iter().filter(|info| info.savepoint != Some(SavepointKind::Imported)).take(MAX_READ) {
            match self.read(info).await {
                Ok(snapshot) => {
                    survey.newest = Some(snapshot);
                    break;
                }
                Err(error @ (StoreError::Damaged(_) | StoreError::NewerFormat(_) | StoreError::NotFound(_))) => {
                    let newer_format = matches!(error, StoreError::NewerFormat(_));
                    survey.passed_over.push(PassedOver { id: info.id, reason: error.to_string(), newer_format });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(survey)
    }
}
