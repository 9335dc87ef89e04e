//! `weir config check`: what the processes would work with, without starting them or touching the network.

use std::{path::PathBuf, time::Duration};

use clap::Subcommand;
use rdkafka::ClientConfig;
use serde_json::{Map, Value, json};
use weir_common::{
    config::{self, Config, ConfigError, Enrich, Loaded, duration},
    kafka,
};

use crate::{
    exit::{Failure, Outcome, Reason},
    output::{self, Format, facts, table},
};

/// `weir config …`
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the effective configuration with where each value comes from, or everything that is wrong with it (exit 2)
    Check(Args),
}

/// `weir config check`
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Configuration file; several are merged, later ones win
    #[arg(long, required = true, value_name = "FILE")]
    pub config: Vec<PathBuf>,
    /// Form of the output
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Format,
}

/// Runs `weir config …`.
pub fn run(ConfigCommand::Check(args): ConfigCommand) -> Outcome {
    let loaded = match config::load(&args.config, std::env::vars()) {
        Ok(loaded) => loaded,
        Err(error) => {
            if args.output == Format::Json {
                output::print(&format!("{:#}", problems(&error)))?;
            }
            return Err(Failure::usage(error.to_string()));
        }
    };
    output::show(args.output, &document(&loaded), || text(&loaded))
}

/// Loads the configuration for a command that needs one.
pub(crate) fn load(files: &[PathBuf]) -> Outcome<Loaded> {
    config::load(files, std::env::vars()).map_err(|error| Failure::new(Reason::Usage, error.to_string()))
}

fn problems(error: &ConfigError) -> Value {
    let problems = error.problems.iter().map(|problem| {
        json!({
            "key": problem.key,
            "origins": problem.origins.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "what": problem.what,
            "remedy": problem.remedy,
        })
    });
    json!({ "problems": problems.collect::<Vec<_>>() })
}

fn document(loaded: &Loaded) -> Value {
    let effective = loaded
        .effective
        .iter()
        .map(|value| json!({ "key": value.key, "value": value.value, "origin": value.origin.to_string() }));
    let ignored = loaded
        .ignored
        .iter()
        .map(|ignored| json!({ "key": ignored.key, "origin": ignored.origin.to_string(), "reason": ignored.reason }));
    let kafka: Map<String, Value> = clients(&loaded.config)
        .into_iter()
        .map(|(name, client)| (name.to_owned(), json!(properties(&client))))
        .collect();
    let budget = RetryBudget::of(&loaded.config.enrich);
    json!({
        "effective": effective.collect::<Vec<_>>(),
        "ignored": ignored.collect::<Vec<_>>(),
        "digest": loaded.config.digest(),
        "retry_budget": {
            "transient_ms": budget.transient.as_millis() as u64,
            "not_found_ms": budget.not_found.as_millis() as u64,
        },
        "kafka": kafka,
    })
}

fn text(loaded: &Loaded) -> String {
    let mut effective = table(&["KEY", "VALUE", "ORIGIN"]);
    for value in &loaded.effective {
        effective.add_row([value.key.clone(), value.value.clone(), value.origin.to_string()]);
    }
    let mut parts = vec![effective.trim_fmt()];
    if !loaded.ignored.is_empty() {
        let lines =
            loaded.ignored.iter().map(|ignored| format!("{} ({}): {}", ignored.key, ignored.origin, ignored.reason));
        parts.push(format!("Accepted, without meaning here\n{}", lines.collect::<Vec<_>>().join("\n")));
    }
    let budget = RetryBudget::of(&loaded.config.enrich);
    parts.push(facts(&[
        ("Retries end after at most", whole_seconds(budget.transient)),
        ("  for an unknown revision", whole_seconds(budget.not_found)),
        ("Configuration digest", loaded.config.digest()),
    ]));
    for (name, client) in clients(&loaded.config) {
        let lines: Vec<String> = properties(&client).iter().map(|(name, value)| format!("{name}={value}")).collect();
        parts.push(format!("Kafka client: {name}\n{}", lines.join("\n")));
    }
    parts.join("\n\n")
}

fn whole_seconds(time: Duration) -> String {
    duration::format(Duration::from_secs(time.as_secs_f64().ceil() as u64))
}

/// librdkafka's properties of every client, Java names translated.
fn clients(config: &Config) -> Vec<(&'static str, ClientConfig)> {
    let exactly_once = kafka::exactly_once(config);
    let transactional_id = exactly_once.then(|| format!("{}-<slot>", config.stream_manager.job_name));
    let mut clients = vec![
        ("source consumer", kafka::source_consumer(config)),
        ("sink producer", kafka::sink_producer(config, transactional_id.as_deref())),
    ];
    clients.extend(kafka::error_producer(config).map(|client| ("error producer", client)));
    if exactly_once {
        clients.push(("progress consumer", kafka::progress_consumer(config)));
    }
    clients.push(("lag mirror", kafka::mirror_consumer(config)));
    clients
}

fn properties(client: &ClientConfig) -> std::collections::BTreeMap<String, String> {
    let shown = |name: &str, value: &str| if kafka::is_secret(name) { "***".to_owned() } else { value.to_owned() };
    client.config_map().iter().map(|(name, value)| ((*name).to_owned(), shown(name, value))).collect()
}

/// How long one event can be tried, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RetryBudget {
    /// What may pass: time-outs, 5xx, maxlag …
    transient: Duration,
    /// Revisions that the API does not know.
    not_found: Duration,
}

impl RetryBudget {
    /// Every attempt may take the whole request time-out, every wait its upper bound; the budget ends it earlier, but never a
    /// request that is under way.
    fn of(enrich: &Enrich) -> Self {
        let retry = &enrich.retry;
        let mut wait = retry.initial_backoff;
        let mut transient = enrich.request_timeout;
        for _ in 1..retry.max_attempts {
            if transient >= retry.budget {
                break;
            }
            transient += wait.min(retry.max_backoff) + enrich.request_timeout;
            wait = wait.saturating_mul(2);
        }
        let attempts = enrich.not_found.max_attempts;
        Self {
            transient: transient.min(retry.budget + enrich.request_timeout),
            not_found: enrich.request_timeout * attempts + enrich.not_found.delay * attempts.saturating_sub(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_common::config::Retry;

    use super::*;

    fn fixture(name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/config").join(name)
    }

    #[test]
    fn productions_files_are_accepted_as_they_stand() {
        let files = [fixture("reconcile.app.config.yaml"), fixture("python.log.config.yaml")];
        let loaded = config::load(&files, std::iter::empty()).expect("accepted");
        let document = document(&loaded);
        let value = |key: &str| {
            let values = document["effective"].as_array().expect("a list");
            values.iter().find(|value| value["key"] == key).unwrap_or_else(|| panic!("{key} is there")).clone()
        };
        let guarantee = value("stream_manager.sink.options.delivery_guarantee");
        assert_eq!(guarantee["value"], "AT_LEAST_ONCE");
        assert!(guarantee["origin"].as_str().expect("text").ends_with("reconcile.app.config.yaml:31"), "{guarantee}");
        assert_eq!(
            value("checkpoint.interval"),
            json!({
                "key": "checkpoint.interval", "value": "30 s", "origin": "default"
            })
        );
        assert_eq!(document["kafka"]["sink producer"]["message.max.bytes"], "10485760");
        assert_eq!(document["ignored"][0]["key"], "log_config");
        let text = text(&loaded);
        for part in ["message.max.bytes=10485760", "log_config", "Retries end after at most", "30 s"] {
            assert!(text.contains(part), "{part}");
        }
    }

    #[test]
    fn the_second_jobs_file_is_accepted_too() {
        let loaded =
            config::load(&[fixture("page_content_change.app.config.yaml")], std::iter::empty()).expect("accepted");
        assert_eq!(document(&loaded)["kafka"]["source consumer"]["security.protocol"], "SSL");
    }

    #[test]
    fn problems_end_with_exit_2_and_name_the_key() {
        let args = Args { config: vec![fixture("flink_configuration.yaml")], output: Format::Table };
        let failure = run(ConfigCommand::Check(args)).expect_err("no configuration of ours");
        assert_eq!(failure.reason, Reason::Usage);
        assert!(failure.message.contains("execution.checkpointing.interval"), "{failure}");
    }

    #[test]
    fn the_retry_budget_is_the_worst_case() {
        let seconds = Duration::from_secs;
        let retry =
            Retry { max_attempts: 4, initial_backoff: seconds(1), max_backoff: seconds(2), budget: seconds(600) };
        let mut enrich = Enrich { request_timeout: seconds(10), retry, ..Enrich::default() };
        assert_eq!(RetryBudget::of(&enrich).transient, seconds(4 * 10 + 1 + 2 + 2));
        enrich.retry.budget = seconds(20);
        assert_eq!(RetryBudget::of(&enrich).transient, seconds(21));
        assert_eq!(RetryBudget::of(&enrich).not_found, seconds(4 * 10 + 3));
    }
}
