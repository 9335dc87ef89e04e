//! `weir-jobmanager`: reads the configuration, runs the jobmanager, says in its exit code why it left.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use weir_common::config::Config;
use weir_jobmanager::Exit;

/// Weir's jobmanager: assigns splits, makes snapshots, serves operators.
///
/// Exit codes: 0 the job ended as asked, or SIGTERM; 1 failure while running; 2 usage or configuration; 3 another
/// jobmanager of the job lives; 4 something needed does not answer.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Configuration file; may be given several times, later ones win. Environment variables
    /// `WEIR__SECTION__KEY=value` win over all.
    #[arg(long, value_name = "FILE", required = true)]
    config: Vec<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match weir_common::config::load(&arguments.config, std::env::vars()) {
        Ok(loaded) => loaded.config,
        Err(error) => return leave(&Exit::Configuration(error.to_string())),
    };
    if let Err(error) = weir_common::telemetry::init(&config.log) {
        return leave(&Exit::Configuration(format!("log.level: {error}")));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return leave(&Exit::Failed(error.into())),
    };
    let ended = runtime.block_on(run(config));
    // Calls to Kafka that still block must not hold the process.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => leave(&exit),
    }
}

async fn run(config: Config) -> Result<(), Exit> {
    let shutdown = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).map_err(anyhow::Error::from)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(anyhow::Error::from)?;
    let asked = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: leaving; taskmanagers go on"),
            _ = interrupt.recv() => tracing::info!("SIGINT: leaving; taskmanagers go on"),
        }
        asked.cancel();
    });
    weir_jobmanager::run(config, shutdown).await
}

fn leave(exit: &Exit) -> ExitCode {
    eprintln!("weir-jobmanager: {exit}");
    ExitCode::from(exit.code())
}
