//! Waiting for a moment that may never come.

use std::time::Instant;

/// Waits until `deadline`; for ever where there is none.
///
/// # Cancel safety
/// Cancel safe.
pub(crate) async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
