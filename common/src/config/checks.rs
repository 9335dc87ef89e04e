//! Values that are fine alone and wrong together, or that no job can run with.

use std::time::Duration;

use super::{Config, HighAvailability, HighAvailabilityType, Order, SinkOptions, duration};
use crate::{
    kafka::{self, Role},
    telemetry,
};

/// The broker's `transaction.max.timeout.ms` as it is shipped.
const BROKER_MAX_TRANSACTION: Duration = Duration::from_secs(15 * 60);

/// Keys that contradict each other, the one to change first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Contradiction {
    pub(super) keys: Vec<String>,
    pub(super) what: String,
    pub(super) remedy: String,
}

#[derive(Default)]
struct Found(Vec<Contradiction>);

impl Found {
    fn unless(&mut self, good: bool, keys: &[&str], what: impl Into<String>, remedy: impl Into<String>) {
        if !good {
            let keys = keys.iter().map(|key| (*key).to_owned()).collect();
            self.0.push(Contradiction { keys, what: what.into(), remedy: remedy.into() });
        }
    }

    /// A duration must not be nothing.
    fn some_time(&mut self, key: &str, value: Duration) {
        self.unless(!value.is_zero(), &[key], "is no time at all", "write for example `1 s`");
    }

    /// A backoff begins no higher than it may get.
    fn rising(&mut self, section: &str, initial_backoff: Duration, max_backoff: Duration) {
        let (initial, max) = (format!("{section}.initial_backoff"), format!("{section}.max_backoff"));
        let text = duration::format;
        self.unless(
            initial_backoff <= max_backoff,
            &[&initial, &max],
            format!("{} is above `max_backoff`, {}", text(initial_backoff), text(max_backoff)),
            format!("raise `{max}`"),
        );
    }

    /// A count must not be zero.
    fn some(&mut self, key: &str, value: u64) {
        self.unless(value > 0, &[key], "is 0", "write at least 1");
    }
}

/// All of them.
pub(super) fn contradictions(config: &Config) -> Vec<Contradiction> {
    let mut found = Found::default();
    names(config, &mut found);
    addresses(config, &mut found);
    properties(config, &mut found);
    transactions(config, &mut found);
    timers(config, &mut found);
    savepoints(config, &mut found);
    counts(config, &mut found);
    restarts(config, &mut found);
    leadership(config, &mut found);
    found.0
}

fn names(config: &Config, found: &mut Found) {
    let manager = &config.stream_manager;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let job = &manager.job_name;
    let good = (1..=200).contains(&job.len()) && job.chars().all(legal) && !job.chars().all(|c| c == '.');
    let remedy = "topics, groups and storage keys carry it: use 1 to 200 of `A-Z a-z 0-9 . _ -`";
    found.unless(good, &["stream_manager.job_name"], format!("`{job}` is no job name"), remedy);
    for (key, connector) in [
        ("stream_manager.source.connector", &manager.source.connector),
        ("stream_manager.sink.connector", &manager.sink.connector),
        ("stream_manager.error_sink.connector", &manager.error_sink.connector),
    ] {
        found.unless(connector == "kafka", &[key], format!("`{connector}` is unknown"), "write `kafka`, the only one");
    }
    let (sink, errors) = (&manager.sink.options, &manager.error_sink.options);
    found.unless(
        sink.delivery_guarantee == errors.delivery_guarantee,
        &["stream_manager.error_sink.options.delivery_guarantee", "stream_manager.sink.options.delivery_guarantee"],
        "the two sinks differ in `delivery_guarantee`, of which a job has one",
        "write the same for both; the default is EXACTLY_ONCE",
    );
    if let Err(error) = telemetry::filter(&config.log.level) {
        let text = error.to_string();
        let (what, remedy) = text.rsplit_once("; ").unwrap_or((&text, "write `info`"));
        found.unless(false, &["log.level"], what, remedy);
    }
}

fn addresses(config: &Config, found: &mut Found) {
    let manager = &config.stream_manager;
    for (key, servers) in [
        ("stream_manager.source.options.bootstrap_servers", &manager.source.options.bootstrap_servers),
        ("stream_manager.sink.options.bootstrap_servers", &manager.sink.options.bootstrap_servers),
        ("stream_manager.error_sink.options.bootstrap_servers", &manager.error_sink.options.bootstrap_servers),
    ] {
        let good = servers.split(',').all(|server| is_address(server.trim()));
        found.unless(good, &[key], format!("`{servers}` is no list of addresses"), "write `host:port,host:port`");
    }
    for (key, address) in [
        ("jobmanager.bind", &config.jobmanager.bind),
        ("jobmanager.http_bind", &config.jobmanager.http_bind),
        ("jobmanager.metrics_bind", &config.jobmanager.metrics_bind),
        ("taskmanager.metrics_bind", &config.taskmanager.metrics_bind),
    ] {
        found.unless(is_address(address), &[key], format!("`{address}` is no address"), "write `host:port`");
    }
    let jobmanager = &config.jobmanager;
    found.unless(
        jobmanager.addresses().all(is_address),
        &["jobmanager.address"],
        format!("`{}` is no address and no list of addresses", jobmanager.address),
        "write `host:port`, or `host:port,host:port` where one stands by",
    );
    if let Some(address) = &jobmanager.advertised_address {
        let key = "jobmanager.advertised_address";
        found.unless(is_address(address), &[key], format!("`{address}` is no address"), "write `host:port`");
    }
    let http = |uri: &str| ["http://", "https://"].iter().any(|scheme| uri.strip_prefix(scheme).is_some_and(has_host));
    let file = |uri: &str| uri.starts_with("file:///");
    let uri = &manager.stream_config_uri;
    found.unless(
        http(uri) || file(uri),
        &["stream_manager.stream_config_uri"],
        format!("`{uri}` is no address of a stream configuration"),
        "write `http(s)://host/w/api.php` or `file:///path`",
    );
    let uris = &manager.schema_uris;
    found.unless(
        !uris.is_empty() && uris.iter().all(|uri| http(uri) || file(uri)),
        &["stream_manager.schema_uris"],
        format!("`{}` are no schema repositories", uris.join(", ")),
        "write a list of `file:///path` and `http(s)://host/path`",
    );
    for (from, to) in &manager.http_client_routes {
        let key = format!("stream_manager.http_client_routes.{from}");
        let what = format!("`{to}` is no place to send requests to");
        found.unless(http(from) && http(to), &[&key], what, "write `\"https://host/path\": \"http://host:port\"`");
    }
    let template = &config.enrich.mediawiki_api_endpoint_template;
    found.unless(
        http(template),
        &["enrich.mediawiki_api_endpoint_template"],
        format!("`{template}` is no URL"),
        "write `http://localhost:6500/w/api.php` or `https://{domain}/w/api.php`",
    );
    let storage = &config.storage.uri;
    found.unless(
        file(storage) || storage.strip_prefix("s3://").is_some_and(has_host),
        &["storage.uri"],
        format!("`{storage}` is no storage"),
        "write `s3://bucket/prefix` or `file:///folder`",
    );
    if let Some(endpoint) = &config.storage.s3.endpoint {
        let what = format!("`{endpoint}` is no URL");
        found.unless(http(endpoint), &["storage.s3.endpoint"], what, "write `https://host` or `http://host:port`");
    }
}

fn has_host(rest: &str) -> bool {
    rest.chars().next().is_some_and(|first| !matches!(first, '/' | ':' | '?' | '#'))
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let host = host.rsplit_once("//").map_or(host, |(_, host)| host);
        !host.is_empty() && !host.contains(char::is_whitespace) && port.parse::<u16>().is_ok()
    })
}

fn properties(config: &Config, found: &mut Found) {
    let manager = &config.stream_manager;
    for (section, properties, role) in [
        ("source", &manager.source.options.properties, Role::Consumer),
        ("sink", &manager.sink.options.properties, Role::Producer),
        ("error_sink", &manager.error_sink.options.properties, Role::Producer),
    ] {
        for (name, value) in properties {
            if let Err(refused) = kafka::translate(name, value, role) {
                let key = format!("stream_manager.{section}.options.properties.{name}");
                found.unless(false, &[&key], refused.problem, refused.remedy);
            }
        }
    }
    let (sink, errors) = (&manager.sink.options.properties, &manager.error_sink.options.properties);
    let same_cluster = !kafka::error_sink_is_elsewhere(config);
    if same_cluster && !errors.is_empty() {
        let differing = sink.keys().chain(errors.keys()).find(|name| sink.get(*name) != errors.get(*name));
        if let Some(name) = differing {
            let key = |section| format!("stream_manager.{section}.options.properties.{name}");
            found.unless(
                false,
                &[&key("error_sink"), &key("sink")],
                "the two sinks are on one cluster, where one producer writes both, and differ in this property",
                "write the same for both, or no `properties` for the error sink",
            );
        }
    }
}

fn transactions(config: &Config, found: &mut Found) {
    let transaction = &config.transaction;
    let text = duration::format;
    found.some_time("transaction.interval", transaction.interval);
    found.some_time("transaction.slow", transaction.slow);
    found.unless(
        transaction.timeout <= BROKER_MAX_TRANSACTION,
        &["transaction.timeout"],
        format!("{} is above 15 min, the brokers' `transaction.max.timeout.ms`", text(transaction.timeout)),
        "write at most `15 min`",
    );
    found.unless(
        transaction.timeout >= Duration::from_secs(1),
        &["transaction.timeout"],
        format!("{} is less than 1 s, the least that a producer takes", text(transaction.timeout)),
        "write for example `60 s`",
    );
    found.unless(
        transaction.interval * 5 <= transaction.timeout,
        &["transaction.interval", "transaction.timeout"],
        format!(
            "{} is more than a fifth of `transaction.timeout`, {}: brokers would abort a cut that is a little late",
            text(transaction.interval),
            text(transaction.timeout)
        ),
        format!("lower it to {} or raise `transaction.timeout`", text(transaction.timeout / 5)),
    );
    found.unless(
        transaction.slow < transaction.timeout,
        &["transaction.slow", "transaction.timeout"],
        format!("{} is not below `transaction.timeout`, {}", text(transaction.slow), text(transaction.timeout)),
        "lower it: a slow cut is doubtful long before the broker aborts it",
    );
    let manager = &config.stream_manager;
    message_timeout(config, "sink", &manager.sink.options, found);
    if kafka::error_sink_is_elsewhere(config) {
        message_timeout(config, "error_sink", &manager.error_sink.options, found);
    }
}

fn message_timeout(config: &Config, section: &str, options: &SinkOptions, found: &mut Found) {
    let millis = |names: &[&str]| {
        let set = names.iter().find_map(|name| Some((*name, options.properties.get(*name)?)));
        set.and_then(|(name, value)| Some((name.to_owned(), value.trim().parse::<f64>().ok()?)))
    };
    let default = kafka::default_message_timeout(config.transaction.timeout).as_secs_f64() * 1000.0;
    let timeout = millis(&["message.timeout.ms", "delivery.timeout.ms"]);
    let linger = millis(&["linger.ms", "queue.buffering.max.ms"]);
    let key = |name: &str| format!("stream_manager.{section}.options.properties.{name}");
    if let Some((name, timeout)) = &timeout {
        let limit = config.transaction.timeout;
        found.unless(
            // Zero is librdkafka's word for ever.
            *timeout > 0.0 && *timeout < limit.as_secs_f64() * 1000.0,
            &[&key(name), "transaction.timeout"],
            format!("{timeout} ms is not below `transaction.timeout`, {}", duration::format(limit)),
            format!("lower it, or leave it out: then it is {default} ms"),
        );
    }
    if let Some((name, linger)) = &linger {
        let timeout = timeout.map_or(default, |(_, timeout)| timeout);
        found.unless(
            *linger < timeout,
            &[&key(name)],
            format!("{linger} ms is not below the time that a delivery may take, {timeout} ms"),
            "lower it; 5 ms is the default",
        );
    }
}

fn restarts(config: &Config, found: &mut Found) {
    let strategy = &config.restart_strategy;
    let exponential = &strategy.exponential_delay;
    found.rising("restart_strategy.exponential_delay", exponential.initial_backoff, exponential.max_backoff);
    found.unless(
        (1.0..=1000.0).contains(&exponential.backoff_multiplier),
        &["restart_strategy.exponential_delay.backoff_multiplier"],
        format!("{} is no factor to grow by", exponential.backoff_multiplier),
        "write 1 to 1000; 1.5 is the default",
    );
    let rate = &strategy.failure_rate;
    found.some_time("restart_strategy.failure_rate.failure_rate_interval", rate.failure_rate_interval);
    found.unless(
        (1..=1000).contains(&rate.max_failures_per_interval),
        &["restart_strategy.failure_rate.max_failures_per_interval"],
        format!("{} is not from 1 to 1000", rate.max_failures_per_interval),
        "write `type: none` for a job that must not survive any failure",
    );
}

fn leadership(config: &Config, found: &mut Found) {
    let HighAvailability { kind, lease_ttl } = config.high_availability;
    if kind == HighAvailabilityType::None {
        return;
    }
    found.unless(
        config.storage.uri.starts_with("s3://"),
        &["high_availability.type", "storage.uri"],
        format!("`storage` keeps a lease by conditional writes, which `{}` does not have", config.storage.uri),
        "write `storage.uri: s3://bucket/prefix`, or `high_availability.type: none`",
    );
    let text = duration::format;
    found.unless(
        lease_ttl >= Duration::from_secs(3),
        &["high_availability.lease_ttl"],
        format!("{} is less than 3 s: one slow answer of storage would end a leadership", text(lease_ttl)),
        "write for example `10 s`",
    );
    found.unless(
        lease_ttl * 2 <= config.heartbeat.grant,
        &["high_availability.lease_ttl", "heartbeat.grant"],
        format!(
            "{} is more than half of `heartbeat.grant`, {}: taskmanagers would stop before a standby leads",
            text(lease_ttl),
            text(config.heartbeat.grant)
        ),
        "lower it, or raise `heartbeat.grant`",
    );
}

fn timers(config: &Config, found: &mut Found) {
    let (heartbeat, checkpoint) = (&config.heartbeat, &config.checkpoint);
    let text = duration::format;
    found.some_time("heartbeat.interval", heartbeat.interval);
    found.unless(
        heartbeat.interval * 2 <= heartbeat.timeout,
        &["heartbeat.interval", "heartbeat.timeout"],
        format!(
            "{} is more than half of `heartbeat.timeout`, {}: one late heartbeat would move splits",
            text(heartbeat.interval),
            text(heartbeat.timeout)
        ),
        format!("lower it to {} or raise `heartbeat.timeout`", text(heartbeat.timeout / 2)),
    );
    found.unless(
        heartbeat.grant > heartbeat.interval,
        &["heartbeat.grant", "heartbeat.interval"],
        format!("{} is not above `heartbeat.interval`, which renews it", text(heartbeat.grant)),
        "raise it; 5 min is the default",
    );
    found.some_time("checkpoint.interval", checkpoint.interval);
    found.unless(
        checkpoint.min_pause <= checkpoint.interval,
        &["checkpoint.min_pause", "checkpoint.interval"],
        format!(
            "{} is longer than `checkpoint.interval`, {}, which would never take effect",
            text(checkpoint.min_pause),
            text(checkpoint.interval)
        ),
        "raise `checkpoint.interval` to it",
    );
    found.unless(
        checkpoint.timeout > config.transaction.interval,
        &["checkpoint.timeout", "transaction.interval"],
        format!(
            "{} is not above `transaction.interval`, {}: no checkpoint could end in time",
            text(checkpoint.timeout),
            text(config.transaction.interval)
        ),
        "raise it; 10 min is the default",
    );
    found.some_time("partition.discovery.interval", config.partition.discovery.interval);
    found.some_time("stream_config.refresh_interval", config.stream_config.refresh_interval);
    found.some_time("storage.s3.request_timeout", config.storage.s3.request_timeout);
    found.some_time("enrich.request_timeout", config.enrich.request_timeout);
    let retry = &config.enrich.retry;
    found.rising("enrich.retry", retry.initial_backoff, retry.max_backoff);
    found.unless(
        retry.max_attempts <= 1 || retry.max_backoff <= retry.budget,
        &["enrich.retry.budget", "enrich.retry.max_backoff"],
        format!("{} is less than one wait of `max_backoff`, {}", text(retry.budget), text(retry.max_backoff)),
        "raise it, or lower `enrich.retry.max_backoff`",
    );
}

fn savepoints(config: &Config, found: &mut Found) {
    let savepoint = &config.savepoint;
    found.some_time("savepoint.cut_timeout", savepoint.cut_timeout);
    let Some(interval) = savepoint.interval else { return };
    found.some_time("savepoint.interval", interval);
    found.unless(
        savepoint.retention >= interval,
        &["savepoint.retention", "savepoint.interval"],
        format!(
            "{} is less than `savepoint.interval`, {}: a savepoint would be deleted before the next one is due",
            duration::format(savepoint.retention),
            duration::format(interval)
        ),
        "raise it; 30 d is the default",
    );
}

fn counts(config: &Config, found: &mut Found) {
    let enrich = &config.enrich;
    let count = |number: usize| number as u64;
    found.some("checkpoint.retained", count(config.checkpoint.retained));
    found.some("enrich.max_concurrent_requests", count(enrich.max_concurrent_requests));
    found.some("enrich.max_concurrent_requests_per_job", count(enrich.max_concurrent_requests_per_job));
    found.some("enrich.retry.max_attempts", u64::from(enrich.retry.max_attempts));
    found.some("enrich.not_found.max_attempts", u64::from(enrich.not_found.max_attempts));
    found.some("enrich.batch_bytes", enrich.batch_bytes.0);
    found.some("taskmanager.max_in_flight", count(config.taskmanager.max_in_flight));
    found.unless(
        (1..=500).contains(&enrich.batch_revisions),
        &["enrich.batch_revisions"],
        format!("{} revisions cannot be asked for together", enrich.batch_revisions),
        "write 1 to 50, or up to 500 for a user with `apihighlimits`",
    );
    found.unless(
        config.job.order != Order::Partition || config.job.splits_per_partition.get() == 1,
        &["job.order", "job.splits_per_partition"],
        format!(
            "`partition` needs one split per partition, and there are {}: splits of a partition run side by side",
            config.job.splits_per_partition.get()
        ),
        "write `splits_per_partition: 1`, or `order: key`",
    );
    if let Some(budget) = config.taskmanager.memory_budget {
        found.unless(
            budget >= enrich.batch_bytes,
            &["taskmanager.memory_budget", "enrich.batch_bytes"],
            format!("{budget} is less than one batch may hold, {}", enrich.batch_bytes),
            "raise it, or lower `enrich.batch_bytes`",
        );
    }
}
