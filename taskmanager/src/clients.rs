//! Kafka clients of a taskmanager: settings from `weir_common::kafka`, in one place.

use rdkafka::{ClientConfig, ClientContext, config::RDKafkaLogLevel, consumer::ConsumerContext, error::KafkaError};
use tracing::{debug, warn};
use weir_common::config::Config;

/// Reads the source; offsets are always given, nothing is committed.
pub(crate) fn source(config: &Config) -> ClientConfig {
    let options = &config.stream_manager.source.options;
    let mut client = base(&options.bootstrap_servers);
    client
        .set("group.id", &options.consumer_group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed");
    client
}

/// Writes the sink; with a transactional id exactly once.
pub(crate) fn sink(config: &Config, transactional_id: Option<&str>) -> ClientConfig {
    let mut client = base(&config.stream_manager.sink.options.bootstrap_servers);
    client
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .set("compression.type", "lz4")
        .set("message.timeout.ms", "30000")
        .set("retry.backoff.ms", "10");
    if let Some(id) = transactional_id {
        client
            .set("transactional.id", id)
            .set("transaction.timeout.ms", config.transaction.timeout.as_millis().to_string())
            .set("debug", "broker,eos")
            .set_log_level(RDKafkaLogLevel::Debug);
    }
    client
}

/// Writes error events, when they go to another cluster.
pub(crate) fn error_sink(config: &Config) -> Option<ClientConfig> {
    let servers = &config.stream_manager.error_sink.options.bootstrap_servers;
    (*servers != config.stream_manager.sink.options.bootstrap_servers).then(|| {
        let mut client = base(servers);
        client.set("enable.idempotence", "true").set("message.timeout.ms", "30000");
        client
    })
}

/// Reads progress, stably.
pub(crate) fn progress(config: &Config) -> ClientConfig {
    let mut client = base(&config.stream_manager.sink.options.bootstrap_servers);
    client
        .set("group.id", format!("{}.progress", config.stream_manager.job_name))
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed");
    client
}

fn base(servers: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", servers).set("broker.address.family", "any");
    client
}

/// Sends a client's log to ours.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogContext;

impl ClientContext for LogContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Debug => {}
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => debug!(facility, message, "librdkafka"),
            _ => warn!(facility, message, "librdkafka"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        warn!(%error, reason, "librdkafka");
    }
}

impl ConsumerContext for LogContext {}
