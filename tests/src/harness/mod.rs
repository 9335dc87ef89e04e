//! Starts and ends what a case needs: brokers, storage, wikis, jobmanagers, taskmanagers.

pub mod admin;
pub mod http;
pub mod job;
pub mod kafka;
pub mod moves;
pub mod parts;
pub mod process;
pub mod standby;
pub mod workspace;

use std::time::{Duration, Instant};

use anyhow::Context;

/// Asks again and again until the answer is `Some`, at most `limit`.
///
/// # Errors
/// The limit passed; `what` and the last error say what was waited for.
pub async fn until<T>(
    what: &str,
    limit: Duration,
    mut ask: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let started = Instant::now();
    let mut last = None;
    while started.elapsed() < limit {
        match ask().await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => last = None,
            Err(why) if why.is::<process::Ended>() => {
                return Err(why).with_context(|| format!("while waiting for: {what}"));
            }
            Err(why) => last = Some(why),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    match last {
        Some(why) => Err(why).with_context(|| format!("waited {limit:?} for: {what}")),
        None => anyhow::bail!("waited {limit:?} for: {what}"),
    }
}
