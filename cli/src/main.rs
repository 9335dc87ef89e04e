//! Entry of `weir`: arguments, runtime, exit code.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = weir_cli::args::Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("weir: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(weir_cli::run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("weir: {failure}");
            }
            failure.exit_code()
        }
    }
}
