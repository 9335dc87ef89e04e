//! How long a split stands still while it goes from one taskmanager to another.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::admin::Admin;

/// How often the splits are looked at.
const GLANCE: Duration = Duration::from_millis(20);

/// For each move: from the last commit of the old owner to the first of the new one, as the jobmanager was told.
#[derive(Debug, Default)]
pub struct Moves {
    /// In the order of their ends.
    pub gaps: Vec<Duration>,
}

impl fmt::Display for Moves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gaps = self.gaps.clone();
        gaps.sort_unstable();
        let ms = |at: usize| gaps.get(at).map_or(0, Duration::as_millis);
        write!(
            f,
            "{} moves of splits; from commit to commit over the move: median {} ms, 90 % below {} ms, longest {} ms",
            gaps.len(),
            ms(gaps.len() / 2),
            ms(gaps.len() * 9 / 10),
            ms(gaps.len().saturating_sub(1))
        )
    }
}

/// A split as it was seen last.
struct Seen {
    owner: String,
    consumed: u64,
    changed: Instant,
    moved: bool,
}

/// Watches until `stop`. Splits must have records to do all the time, or their gaps say nothing.
///
/// # Errors
/// The jobmanager does not answer.
pub async fn watch(admin: Admin, stop: CancellationToken) -> anyhow::Result<Moves> {
    let mut moves = Moves::default();
    let mut seen: BTreeMap<i32, Seen> = BTreeMap::new();
    while !stop.is_cancelled() {
        let splits = admin.splits().await?;
        let now = Instant::now();
        for split in splits.into_iter().filter(|split| !split.taskmanager_id.is_empty()) {
            let consumed = split.counters.unwrap_or_default().consumed;
            let owner = split.taskmanager_id;
            let entry = seen.entry(split.progress_partition).or_insert_with(|| Seen {
                owner: owner.clone(),
                consumed,
                changed: now,
                moved: false,
            });
            if entry.owner != owner {
                (entry.owner, entry.moved) = (owner, true);
            }
            if entry.consumed != consumed {
                if std::mem::take(&mut entry.moved) {
                    moves.gaps.push(now - entry.changed);
                }
                (entry.consumed, entry.changed) = (consumed, now);
            }
        }
        tokio::time::sleep(GLANCE).await;
    }
    Ok(moves)
}
