//! The command line.

use std::time::Duration;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use weir_common::config::{duration, size::ByteSize};

use crate::{
    admin::{self, Connection},
    config_check, demo, enrich, exit, output, stub_wiki,
};

/// Operates Weir: Kafka in, enriched over HTTP, Kafka out.
#[derive(Debug, Parser)]
#[command(name = "weir", version, after_help = exit::HELP, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the job at a glance
    Status(Connection),
    /// List taskmanagers
    Taskmanagers(Connection),
    /// List splits: who has them, how far they are
    Splits(Connection),
    /// List the newest checkpoints and savepoints
    Checkpoints(admin::CheckpointsArgs),
    /// Take, list, show and delete savepoints
    #[command(subcommand)]
    Savepoint(admin::SavepointCommand),
    /// End the job
    Stop(admin::StopArgs),
    /// Move the job to a savepoint
    Restore(admin::RestoreArgs),
    /// Let the job rest: every split is released, taskmanagers stay and wait
    Suspend(admin::SuspendArgs),
    /// Let a suspended or failed job go on
    Resume(Connection),
    /// Move splits to other offsets
    Reset(admin::ResetArgs),
    /// List the job's transactional ids, abort what is open on one
    #[command(subcommand)]
    Transactions(admin::TransactionsCommand),
    /// List and show the job's error events, send their inputs through again
    #[command(subcommand)]
    Errors(admin::ErrorsCommand),
    /// Check configuration files, without network
    #[command(subcommand)]
    Config(config_check::ConfigCommand),
    /// Enrich one event by hand, without Kafka
    Enrich(enrich::Args),
    /// Run everything on this machine, with sample events, and check what comes out
    Demo(demo::Args),
    /// Serve a stub of MediaWiki's Action API, for load, benchmarks and tests
    StubWiki(stub_wiki::Args),
    /// Print completions for a shell
    Completions {
        /// bash, zsh, fish, elvish, powershell
        shell: Shell,
    },
}

/// Prints completions for `shell`.
pub fn completions(shell: Shell) -> exit::Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "weir", &mut script);
    output::print(String::from_utf8_lossy(&script).trim_end())
}

/// For clap: a duration with unit, as in the configuration.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if text == "0" { Ok(Duration::ZERO) } else { duration::parse(text) }
}

/// For clap: a size, `10 KiB` or bytes, as in the configuration.
pub fn parse_size(text: &str) -> Result<ByteSize, String> {
    serde_json::from_value(text.into()).map_err(|error| error.to_string())
}

/// For clap: a share, 0 to 1.
pub fn parse_share(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| format!("`{text}` is no share from 0 to 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn values_carry_units() {
        assert_eq!(parse_duration("50ms"), Ok(Duration::from_millis(50)));
        assert!(parse_duration("50").is_err());
        assert_eq!(parse_size("10 KiB"), Ok(ByteSize(10_240)));
        assert_eq!(parse_size("10240"), Ok(ByteSize(10_240)));
        assert!(parse_share("1.5").is_err());
    }
}
