//! The operator's command `weir`: admin calls, configuration check, one event by hand, the stub wiki, the demo.

pub mod args;
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
    match cli.command {
        args::Command::StubWiki(args) => stub_wiki::run(args).await,
        args::Command::Completions { shell } => args::completions(shell),
    }
}
