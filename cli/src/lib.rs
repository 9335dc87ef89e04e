//! The operator's command `weir`: admin calls, configuration check, one event by hand, the stub wiki, the demo.

pub mod admin;
pub mod args;
pub mod config_check;
pub mod demo;
pub mod enrich;
pub mod exit;
pub mod output;
mod shutdown;
pub mod stub_wiki;
pub mod wiki;

use exit::Outcome;

/// Runs one command to its end.
///
/// # Errors
/// What the operator has to be told, with the exit code.
pub async fn run(cli: args::Cli) -> Outcome {
    use args::Command;
    match cli.command {
        Command::Status(connection) => admin::status(&connection).await,
        Command::Taskmanagers(connection) => admin::taskmanagers(&connection).await,
        Command::Splits(connection) => admin::splits(&connection).await,
        Command::Checkpoints(args) => admin::checkpoints(&args).await,
        Command::Savepoint(command) => admin::savepoint(command).await,
        Command::Stop(args) => admin::stop(args).await,
        Command::Restore(args) => admin::restore(args).await,
        Command::Suspend(args) => admin::suspend(&args).await,
        Command::Resume(connection) => admin::resume(&connection).await,
        Command::Reset(args) => admin::reset(args).await,
        Command::Transactions(command) => admin::transactions(command).await,
        Command::Errors(command) => admin::errors(command).await,
        Command::Config(command) => config_check::run(command),
        Command::Enrich(args) => enrich::run(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::StubWiki(args) => stub_wiki::run(args).await,
        Command::Completions { shell } => args::completions(shell),
    }
}
