//! Weir's jobmanager: the coordinator, and the shell that performs its actions.

pub mod coordinator;
mod exit;
pub mod start;
pub mod store;

use tokio_util::sync::CancellationToken;
use weir_common::config::Config;

pub use self::exit::Exit;

/// Runs a jobmanager until the job ends by an operator's word (`Ok`), or until `shutdown` (`Ok` too: the job goes on
/// without it, a successor adopts what runs).
///
/// # Errors
/// Why it could not start or go on; [`Exit::code`] is the process's exit code.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Exit> {
    let _ = (config, shutdown);
    Err(Exit::Failed(anyhow::anyhow!("not there yet")))
}
