//! Client settings of every role.

use rdkafka::{consumer::BaseConsumer, producer::BaseProducer};

use super::*;
use crate::config::{StreamName, load};

fn production() -> Config {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/config/reconcile.app.config.yaml");
    let mut config = load(&[file.into()], std::iter::empty()).expect("production's file").config;
    // Its CA file is not on every machine.
    for properties in [
        &mut config.stream_manager.source.options.properties,
        &mut config.stream_manager.sink.options.properties,
        &mut config.stream_manager.error_sink.options.properties,
    ] {
        properties.remove("ssl.ca.location");
    }
    config
}

#[test]
fn the_sinks_producer_is_what_exactly_once_needs() {
    let client = sink_producer(&production(), Some("job-3"));
    for (name, value) in [
        ("transactional.id", "job-3"),
        ("enable.idempotence", "true"),
        ("acks", "all"),
        ("message.max.bytes", "10485760"),
        ("message.timeout.ms", "30000"),
        ("transaction.timeout.ms", "60000"),
        ("retry.backoff.ms", "10"),
        ("linger.ms", "20"),
        ("compression.codec", "lz4"),
        ("partitioner", "murmur2_random"),
        ("batch.size", "1000000"),
        ("debug", "broker,eos"),
        ("security.protocol", "SSL"),
    ] {
        assert_eq!(client.get(name), Some(value), "{name}");
    }
    assert!(matches!(client.log_level, RDKafkaLogLevel::Debug));
    let plain = sink_producer(&production(), None);
    assert_eq!((plain.get("transactional.id"), plain.get("debug")), (None, None));
}

#[test]
fn readers_read_what_is_committed_and_decide_nothing_by_themselves() {
    let config = production();
    for (client, group) in [
        (source_consumer(&config), "mw-content-history-reconcile-enrich.dse-k8s-eqiad.000"),
        (progress_consumer(&config), "mw-content-history-reconcile-enrich.progress"),
        (mirror_consumer(&config), "mw-content-history-reconcile-enrich.dse-k8s-eqiad.000"),
    ] {
        for (name, value) in [
            ("group.id", group),
            ("isolation.level", "read_committed"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("allow.auto.create.topics", "false"),
        ] {
            assert_eq!(client.get(name), Some(value), "{group}: {name}");
        }
    }
}

#[test]
fn librdkafka_takes_all_of_them() {
    let mut config = production();
    config.stream_manager.error_sink.options.bootstrap_servers = "127.0.0.1:2".to_owned();
    for client in [source_consumer(&config), progress_consumer(&config), mirror_consumer(&config)] {
        client.create_with_context::<_, BaseConsumer<_>>(LoggingContext::new("test")).expect("a consumer");
    }
    let producers = [
        Some(sink_producer(&config, Some("job-0"))),
        Some(sink_producer(&config, None)),
        Some(sink_admin(&config)),
        error_producer(&config),
    ];
    for client in producers {
        let client = client.expect("the error sink is elsewhere");
        client.create_with_context::<_, BaseProducer<_>>(LoggingContext::new("test")).expect("a producer");
    }
}

#[test]
fn the_error_sink_is_elsewhere_when_its_brokers_are() {
    let mut config = production();
    config.stream_manager.sink.options.bootstrap_servers = "a:1, b:1".to_owned();
    config.stream_manager.error_sink.options.bootstrap_servers = "b:1,a:1".to_owned();
    assert!(!error_sink_is_elsewhere(&config) && error_producer(&config).is_none());
    config.stream_manager.error_sink.options.bootstrap_servers = "c:1".to_owned();
    assert!(error_sink_is_elsewhere(&config));
    assert_eq!(error_producer(&config).and_then(|client| client.get("transactional.id").map(str::to_owned)), None);
}

#[test]
fn the_least_limit_counts() {
    let mut config = production();
    config.stream_manager.error_sink.options.properties.insert("max.request.size".into(), "2000000".into());
    assert_eq!(effective_max_message_bytes(&config), 2_000_000);
    config.stream_manager.error_sink.options.properties.clear();
    assert_eq!(effective_max_message_bytes(&config), 10_485_760);
    config.stream_manager.sink.options.properties.clear();
    config.stream_manager.sink.stream = StreamName { name: "s".into(), version: "1".into() };
    assert_eq!(effective_max_message_bytes(&config), 1_048_576);
}
