//! Kafka client settings of every role, from the configuration. The rules are those of `CORRECTNESS`: what librdkafka
//! does by itself is not what exactly-once needs.

pub mod doubt;
pub mod headers;
mod logging;
mod properties;
mod within;

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{ClientConfig, config::RDKafkaLogLevel};

pub use self::{
    logging::{LineBudget, LoggingContext, Verdict},
    properties::{PropertyError, Role, is_secret, translate},
    within::send_offsets,
};
use crate::config::{Config, DeliveryGuarantee};

/// `max.request.size` of the Java client when nobody sets it, bytes. Brokers' own default is a little above.
const DEFAULT_MAX_MESSAGE_BYTES: u64 = 1_048_576;

/// librdkafka's default. A refused batch is not split and fails its innocent records too, so it stays under the usual
/// topic limit of 1 MiB whatever the largest single record may be.
const BATCH_BYTES: u64 = 1_000_000;

/// How long a batch waits for more. Nobody sees a record before its transaction commits, so it delays nothing but the end of a
/// cut. With less, a busy broker soon has the five requests that an idempotent producer may have in flight, and while it has,
/// librdkafka spins: it looks at once again for a batch that may not be sent yet.
const LINGER_MS: u64 = 20;

/// Bytes that wait in a producer. Results wait before it, inside the taskmanager's own budget.
const PRODUCER_QUEUE_KBYTES: u64 = 16_384;

/// Bytes fetched ahead by one reader, of which a taskmanager has one for each partition: some thousand events.
const CONSUMER_QUEUE_KBYTES: u64 = 4096;

/// Largest answer to one fetch.
const FETCH_BYTES: u64 = 16 * 1024 * 1024;

/// `<job>.progress`: name of the progress topic and of its group, on the sink cluster.
#[must_use]
pub fn progress_topic(job: &str) -> String {
    format!("{job}.progress")
}

/// `<job>.replay`: name of the topic, on the sink cluster, of inputs that an operator sent through again. The job reads it
/// beside the source's topics once it exists.
#[must_use]
pub fn replay_topic(job: &str) -> String {
    format!("{job}.replay")
}

/// Whether it is that topic.
#[must_use]
pub fn is_replay_topic(job: &str, topic: &str) -> bool {
    topic == replay_topic(job)
}

/// Reads source partitions by manual assignment; commits nothing, resets nothing by itself.
#[must_use]
pub fn source_consumer(config: &Config) -> ClientConfig {
    let options = &config.stream_manager.source.options;
    let mut client = base(config, "source", &options.bootstrap_servers, &options.properties, Role::Consumer);
    reader(&mut client);
    stable(&mut client, &options.consumer_group);
    client
}

/// Reads the replay topic in the same way.
#[must_use]
pub fn replay_consumer(config: &Config) -> ClientConfig {
    let mut client = sink_reader(config, "replay");
    reader(&mut client);
    stable(&mut client, &progress_topic(&config.stream_manager.job_name));
    client
}

/// Writes the sink. With a transactional id its log must be watched by the caller's context (the doubt rule): it logs
/// what `debug=broker,eos` says, at level `Debug`.
#[must_use]
pub fn sink_producer(config: &Config, transactional_id: Option<&str>) -> ClientConfig {
    let options = &config.stream_manager.sink.options;
    let mut client = base(config, "sink", &options.bootstrap_servers, &options.properties, Role::Producer);
    producer(&mut client, config);
    if let Some(id) = transactional_id {
        client
            .set("transactional.id", id)
            .set("transaction.timeout.ms", config.transaction.timeout.as_millis().to_string())
            .set("debug", "broker,eos")
            .set_log_level(RDKafkaLogLevel::Debug);
    }
    client
}

/// Writes error events where the error sink is on another cluster than the sink; else `None`: the sink's producer does.
#[must_use]
pub fn error_producer(config: &Config) -> Option<ClientConfig> {
    let options = &config.stream_manager.error_sink.options;
    error_sink_is_elsewhere(config).then(|| {
        let mut client = base(config, "error-sink", &options.bootstrap_servers, &options.properties, Role::Producer);
        producer(&mut client, config);
        client
    })
}

/// Reads progress off the sink cluster, stably: while a transaction is pending the read times out, which never means
/// "no progress".
#[must_use]
pub fn progress_consumer(config: &Config) -> ClientConfig {
    let mut client = sink_reader(config, "progress");
    stable(&mut client, &progress_topic(&config.stream_manager.job_name));
    client
}

/// Reads the error sink's topic, which may be on a cluster of its own: committed records only.
#[must_use]
pub fn error_consumer(config: &Config) -> ClientConfig {
    let manager = &config.stream_manager;
    // On the sink's own cluster the sink's producer writes it, by the sink's properties.
    let options = if error_sink_is_elsewhere(config) { &manager.error_sink.options } else { &manager.sink.options };
    let mut client = base(config, "errors", &options.bootstrap_servers, &options.properties, Role::Connection);
    // Named because manual assignment needs a name; nothing is committed in it here.
    stable(&mut client, &progress_topic(&manager.job_name));
    client
}

/// Creates topics and partitions, reads topic and broker configuration of the sink cluster.
#[must_use]
pub fn sink_admin(config: &Config) -> ClientConfig {
    sink_reader(config, "admin")
}

/// Mirrors lag to the consumer group of the source cluster, by plain commits.
#[must_use]
pub fn mirror_consumer(config: &Config) -> ClientConfig {
    let options = &config.stream_manager.source.options;
    let mut client = base(config, "mirror", &options.bootstrap_servers, &options.properties, Role::Consumer);
    stable(&mut client, &options.consumer_group);
    client
}

/// Largest record that the producers accept, bytes: the lesser of both sinks' `max.request.size`. Topic and broker
/// limits come on top.
#[must_use]
pub fn effective_max_message_bytes(config: &Config) -> u64 {
    let manager = &config.stream_manager;
    let of = |properties: &BTreeMap<String, String>| {
        ["max.request.size", "message.max.bytes"]
            .iter()
            .find_map(|name| properties.get(*name)?.trim().parse().ok())
            .unwrap_or(DEFAULT_MAX_MESSAGE_BYTES)
    };
    let sink = of(&manager.sink.options.properties);
    // On the sink's own cluster one producer writes both, and the error sink may leave its properties out.
    match (error_sink_is_elsewhere(config), manager.error_sink.options.properties.is_empty()) {
        (false, true) => sink,
        _ => sink.min(of(&manager.error_sink.options.properties)),
    }
}

/// Whether error events go to another cluster than enriched ones, so that no transaction can hold both.
#[must_use]
pub fn error_sink_is_elsewhere(config: &Config) -> bool {
    let servers = |list: &str| {
        let mut servers: Vec<String> = list.split(',').map(|server| server.trim().to_owned()).collect();
        servers.sort();
        servers
    };
    let manager = &config.stream_manager;
    servers(&manager.sink.options.bootstrap_servers) != servers(&manager.error_sink.options.bootstrap_servers)
}

/// `message.timeout.ms` when nobody sets it: well inside the transaction, so that a failed delivery can still abort it.
#[must_use]
pub fn default_message_timeout(transaction_timeout: Duration) -> Duration {
    (transaction_timeout / 2).min(Duration::from_secs(30))
}

fn sink_reader(config: &Config, role: &str) -> ClientConfig {
    let options = &config.stream_manager.sink.options;
    base(config, role, &options.bootstrap_servers, &options.properties, Role::Connection)
}

/// What all have in common, with the configured properties already in.
fn base(config: &Config, role: &str, servers: &str, properties: &BTreeMap<String, String>, kind: Role) -> ClientConfig {
    let mut client = ClientConfig::new();
    // Client creation logs by its own rules; the context decides what is seen. `Info` keeps connection trouble in.
    client.set_log_level(RDKafkaLogLevel::Info);
    for (name, value) in properties {
        match translate(name, value, kind) {
            Ok(Some((name, value))) => drop(client.set(name, value)),
            Ok(None) => {}
            // Refused when the configuration is loaded; what comes by another way librdkafka refuses in its own words.
            Err(_) => drop(client.set(name, value)),
        }
    }
    client.set("bootstrap.servers", servers);
    default(&mut client, "client.id", format!("weir-{}-{role}", config.stream_manager.job_name));
    default(&mut client, "socket.keepalive.enable", true);
    // A broker that comes back is found within this; the default of 10 s is a long stop of a stream.
    default(&mut client, "reconnect.backoff.max.ms", 2000);
    client
}

fn producer(client: &mut ClientConfig, config: &Config) {
    let message_bytes = effective_max_message_bytes(config);
    client.set("enable.idempotence", "true").set("acks", "all").set("message.max.bytes", message_bytes.to_string());
    default(client, "compression.codec", "lz4");
    default(client, "linger.ms", LINGER_MS);
    // The Java client's, so that a page's events stay in the partition where other producers put them.
    default(client, "partitioner", "murmur2_random");
    // Just after a commit the broker answers CONCURRENT_TRANSACTIONS; the default of 100 ms is what a cut would take.
    default(client, "retry.backoff.ms", 10);
    default(client, "message.timeout.ms", default_message_timeout(config.transaction.timeout).as_millis());
    default(client, "batch.size", BATCH_BYTES.min(message_bytes));
    // A single record must fit, or it could never be sent.
    default(client, "queue.buffering.max.kbytes", PRODUCER_QUEUE_KBYTES.max(2 * message_bytes / 1024));
    default(client, "queue.buffering.max.messages", 100_000);
}

fn reader(client: &mut ClientConfig) {
    default(client, "fetch.max.bytes", FETCH_BYTES);
    default(client, "queued.max.messages.kbytes", CONSUMER_QUEUE_KBYTES);
    default(client, "queued.min.messages", 10_000);
    // How long a full queue holds the next fetch back: the default second would starve a fast reader.
    default(client, "fetch.queue.backoff.ms", 50);
    default(client, "check.crcs", true);
}

/// Manual assignment, stable reads, no commits and no resets by itself.
fn stable(client: &mut ClientConfig, group: &str) {
    client
        .set("group.id", group)
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("allow.auto.create.topics", "false");
}

fn default(client: &mut ClientConfig, name: &str, value: impl ToString) {
    if client.get(name).is_none() {
        client.set(name, value.to_string());
    }
}

/// Whether the sink's delivery guarantee is exactly-once.
#[must_use]
pub fn exactly_once(config: &Config) -> bool {
    config.stream_manager.sink.options.delivery_guarantee == DeliveryGuarantee::ExactlyOnce
}

#[cfg(test)]
#[path = "mod_tests.rs"]
mod tests;
