//! Client settings, from the configuration.

use rdkafka::{ClientConfig, ClientContext, config::RDKafkaLogLevel, consumer::ConsumerContext};
use weir_common::config::Config;

/// Routes librdkafka's log into ours.
#[derive(Clone, Debug, Default)]
pub(super) struct LogContext;

impl ClientContext for LogContext {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        tracing::debug!(?level, fac, message, "librdkafka");
    }
    fn error(&self, error: rdkafka::error::KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
    }
}

impl ConsumerContext for LogContext {}

fn base(servers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers).set("client.id", "weir-jobmanager");
    config
}

fn sink(config: &Config) -> ClientConfig {
    base(&config.stream_manager.sink.options.bootstrap_servers)
}

pub(super) fn progress_topic(job: &str) -> String {
    format!("{job}.progress")
}

pub(super) fn progress_consumer(config: &Config) -> ClientConfig {
    let mut client = sink(config);
    client
        .set("group.id", progress_topic(&config.stream_manager.job_name))
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false");
    client
}

pub(super) fn mirror_consumer(config: &Config) -> ClientConfig {
    let mut client = base(&config.stream_manager.source.options.bootstrap_servers);
    client.set("group.id", &config.stream_manager.source.options.consumer_group).set("enable.auto.commit", "false");
    client
}

pub(super) fn sink_admin(config: &Config) -> ClientConfig {
    sink(config)
}

pub(super) fn sink_producer(config: &Config, id: Option<&str>) -> ClientConfig {
    let mut client = sink(config);
    if let Some(id) = id {
        client.set("transactional.id", id);
    }
    client
}

pub(super) fn error_producer(config: &Config) -> Option<ClientConfig> {
    let manager = &config.stream_manager;
    let elsewhere = manager.error_sink.options.bootstrap_servers != manager.sink.options.bootstrap_servers;
    elsewhere.then(|| base(&manager.error_sink.options.bootstrap_servers))
}

impl rdkafka::producer::ProducerContext for LogContext {
    type DeliveryOpaque = ();
    fn delivery(&self, _: &rdkafka::producer::DeliveryResult<'_>, (): ()) {}
}
