//! `weir stub-wiki`.

use std::time::Duration;

use weir_common::config::size::ByteSize;

use crate::{
    args::{parse_duration, parse_share, parse_size},
    exit::{Failure, Outcome},
    output, shutdown,
    wiki::{self, Options, content::Wiki},
};

/// Prints the base URL as one line on stdout once it serves, then runs until SIGINT or SIGTERM.
///
/// Content is a function of host and revision id; `cli/src/wiki/content.rs` has the rules, also for revisions that
/// are unknown, hidden or lost, and for redirects. `action=streamconfigs` is answered for any stream.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address to listen on; port 0 takes any free one
    #[arg(long, default_value = "127.0.0.1:0", value_name = "HOST:PORT")]
    pub bind: String,
    /// Time that every answer takes
    #[arg(long, default_value = "0", value_parser = parse_duration, value_name = "DURATION")]
    pub latency: Duration,
    /// Up to this much more, evenly distributed
    #[arg(long, default_value = "0", value_parser = parse_duration, value_name = "DURATION")]
    pub latency_jitter: Duration,
    /// Share of queries that fail: 429, 503, maxlag, internal_api_error, broken connection in equal parts
    #[arg(long, default_value = "0", value_parser = parse_share, value_name = "SHARE")]
    pub failure_rate: f64,
    /// Bytes of a revision's wikitext
    #[arg(long, default_value = "10 KiB", value_parser = parse_size, value_name = "SIZE")]
    pub content_bytes: ByteSize,
}

/// Serves until told to stop.
pub(crate) async fn run(args: Args) -> Outcome {
    let options = Options {
        wiki: Wiki { content_bytes: args.content_bytes.as_usize() },
        latency: args.latency,
        latency_jitter: args.latency_jitter,
        failure_rate: args.failure_rate,
    };
    let stub = wiki::serve(&args.bind, options)
        .await
        .map_err(|error| Failure::usage(format!("cannot listen on {} (--bind): {error}", args.bind)))?;
    output::print(&stub.url())?;
    shutdown::requested().await;
    Ok(())
}
