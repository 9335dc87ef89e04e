//! `weir enrich`: one event by hand, no Kafka.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use weir_common::counters::OutcomeKind;

use crate::{
    config_check,
    exit::{Failure, Outcome, Reason},
    output,
};

/// Largest event that is read: far more than any broker takes.
const EVENT_BYTES_MAX: u64 = 64 << 20;

/// Prints what a taskmanager would produce for the event: the enriched event, or the error event and exit code 1. A
/// canary prints nothing. Asks MediaWiki, the stream configuration and the schema repositories; no Kafka.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// File with one event; `-` reads stdin
    #[arg(value_name = "EVENT.JSON")]
    pub event: PathBuf,
    /// Configuration file; several are merged, later ones win
    #[arg(long, required = true, value_name = "FILE")]
    pub config: Vec<PathBuf>,
}

/// Enriches the event.
pub(crate) async fn run(args: Args) -> Outcome {
    let loaded = config_check::load(&args.config)?;
    let event = read(&args.event)?;
    let outcome = weir_taskmanager::enrich::enrich_one(&loaded.config, &event).await?;
    match &outcome.output {
        Some(record) => output::print(&String::from_utf8_lossy(&record.value))?,
        None => eprintln!("weir: a canary: nothing is produced"),
    }
    if outcome.kind == OutcomeKind::Error { Err(Failure::new(Reason::Failed, "")) } else { Ok(()) }
}

fn read(path: &Path) -> Outcome<Vec<u8>> {
    let mut event = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(EVENT_BYTES_MAX).read_to_end(&mut event)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(EVENT_BYTES_MAX).read_to_end(&mut event))
    };
    read.map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
    // An editor's last newline is no part of the event.
    while event.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        event.pop();
    }
    Ok(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_usage() {
        assert_eq!(read(Path::new("/nonexistent/event.json")).expect_err("missing").reason, Reason::Usage);
    }
}
