//! `weir demo`: everything on one machine, alive, and checked by the demo itself.

mod cluster;
mod content_check;
mod events;
mod layout;
mod processes;
mod run;
mod summary;
mod traffic;
mod verify;
mod view;
mod watch;

use std::time::Duration;

use weir_common::config::size::ByteSize;

pub use self::run::run;
use crate::{
    args::{parse_duration, parse_share, parse_size},
    output::Format,
};

/// Starts Kafka (librdkafka's mock, or a real one), a stub wiki, one jobmanager and two taskmanagers as processes of their
/// own, lets sample events flow and checks what comes out: nothing missing, content and order right, counts conserved.
/// Kill any of the processes and see it replaced. Ctrl-C drains, judges and ends; everything is removed again.
///
/// The mock cluster keeps no transactions, so the embedded demo runs AT_LEAST_ONCE: after a kill, some outputs are repeated.
/// With --bootstrap-servers it runs EXACTLY_ONCE, and a repeat is a violation.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// End after this many events: drain, judge, exit 0 or 1. Without it events flow until ctrl-C
    #[arg(long, value_name = "COUNT")]
    pub events: Option<u64>,
    /// Events a second
    #[arg(long, default_value_t = 200.0, value_name = "RATE", value_parser = parse_rate)]
    pub rate: f64,
    /// Run exactly-once on these brokers, in topics of this run's own, deleted at the end
    #[arg(long, value_name = "HOST:PORT,…")]
    pub bootstrap_servers: Option<String>,
    /// Kill a taskmanager (kill -9) in the middle
    #[arg(long)]
    pub kill: bool,
    /// Keep the demo's folder (configuration, logs, snapshots) and topics
    #[arg(long)]
    pub keep: bool,
    /// Time that every answer of the wiki takes
    #[arg(long, default_value = "20 ms", value_parser = parse_duration, value_name = "DURATION")]
    pub latency: Duration,
    /// Share of requests to the wiki that fail
    #[arg(long, default_value = "0.01", value_parser = parse_share, value_name = "SHARE")]
    pub failure_rate: f64,
    /// Bytes of a revision's wikitext
    #[arg(long, default_value = "2 KiB", value_parser = parse_size, value_name = "SIZE")]
    pub content_bytes: ByteSize,
    /// Seed of the sample events
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Give up when nothing has come out for this long
    #[arg(long, default_value = "60 s", value_parser = parse_duration, value_name = "DURATION")]
    pub drain_timeout: Duration,
    /// Form of the summary; with json, stdout holds it alone and progress goes to stderr
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Format,
}

fn parse_rate(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|rate| (0.1..=100_000.0).contains(rate))
        .ok_or_else(|| format!("`{text}` is no rate a second"))
}
