//! The stream configuration is read again now and then: topics that the source has got are taken in; what a running job
//! cannot follow is said.

use weir_common::streams::{self, Changes, ResolvedStreams};

use super::{Command, Handle, Shared, Trouble};

const PART: &str = "stream configuration";

/// `running`: what the job began with.
pub(super) async fn refresh(shared: &Shared, handle: &Handle, mut running: ResolvedStreams) {
    loop {
        tokio::time::sleep(shared.config.stream_config.refresh_interval).await;
        let trouble = Trouble { part: PART, what: follow(shared, &mut running).await.err() };
        if handle.send(Command::Noted { trouble }).await.is_err() {
            return;
        }
    }
}

/// # Errors
/// What is wrong, or what only a restart brings.
async fn follow(shared: &Shared, running: &mut ResolvedStreams) -> Result<(), String> {
    let found = streams::resolve(&shared.config).await.map_err(|error| format!("{error}; the job goes on as it is"))?;
    let Changes { new_topics, mut others } = running.changes(&found);
    if !new_topics.is_empty() {
        match shared.backend.read_also(new_topics.clone()).await {
            Ok(()) => {
                tracing::info!(topics = ?new_topics, "the stream configuration names further topics: they are read from their oldest record");
                running.source_topics.extend(new_topics);
            }
            Err(error) => others.push(format!("{error}; it is read once it is there")),
        }
    }
    if others.is_empty() {
        return Ok(());
    }
    Err(format!("{}: restart the jobmanager to follow, or take it back", others.join("; ")))
}
