//! `weir-taskmanager`: reads the configuration, works for the jobmanager, says in its exit code why it left.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use weir_common::{
    config::{Config, load},
    telemetry,
};
use weir_taskmanager::{Exit, run};

/// For librdkafka, too. The system's takes a fifth of the CPU time where an event's bytes are allocated on one thread and freed on
/// another, and keeps more of them (docs/benchmark.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Reads its splits from Kafka, enriches each record over HTTP and writes back, in transactions.
///
/// Exit codes: 0 drained, 1 failure or a drain that took too long, 2 usage or configuration, 3 refused by the jobmanager.
#[derive(Debug, Parser)]
#[command(name = "weir-taskmanager", version)]
struct Arguments {
    /// Configuration file; may be given several times, later ones win.
    #[arg(long = "config", value_name = "FILE", required = true)]
    configs: Vec<PathBuf>,
}

const CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match configure(&arguments.configs) {
        Ok(config) => config,
        Err(message) => {
            eprintln!("weir-taskmanager: {message}");
            return ExitCode::from(CONFIGURATION);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "no threads for the runtime");
            return ExitCode::FAILURE;
        }
    };
    let code = match runtime.block_on(serve(config)) {
        Ok(exit) => {
            match &exit {
                Exit::Drained => info!("drained, leaving"),
                Exit::DrainTimedOut => warn!("leaving before everything was released"),
                Exit::Refused(reason) => error!(reason, "refused by the jobmanager, leaving"),
            }
            exit.code()
        }
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    };
    // Kafka clients that are still closing are not waited for.
    runtime.shutdown_background();
    code
}

fn configure(files: &[PathBuf]) -> Result<Config, String> {
    let loaded = load(files, std::env::vars()).map_err(|error| error.to_string())?;
    telemetry::init(&loaded.config.log).map_err(|error| error.to_string())?;
    Ok(loaded.config)
}

async fn serve(config: Config) -> anyhow::Result<Exit> {
    let shutdown = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn({
        let shutdown = shutdown.clone();
        async move {
            tokio::select! {
                _ = terminate.recv() => info!("SIGTERM"),
                _ = interrupt.recv() => info!("SIGINT"),
            }
            shutdown.cancel();
        }
    });
    run(config, shutdown).await
}
