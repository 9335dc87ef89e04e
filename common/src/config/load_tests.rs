//! The loader: production's files as they stand, and every way to get one wrong.

use std::{fs, path::PathBuf, time::Duration};

use super::*;
use crate::config::{DeliveryGuarantee, EnrichJob, LogFormat, size::ByteSize};

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("weir-config-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        Self(folder)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).expect("a temporary file");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const GOOD: &str = "stream_manager:
  job_name: job
  stream_config_uri: file:///streams.json
  schema_uris: [file:///schemas]
  source:
    stream: in:1.2.0
    connector: kafka
    options: {bootstrap_servers: 'a:1', consumer_group: g}
  sink:
    stream: out:1.2.0
    connector: kafka
    options:
      bootstrap_servers: b:1
  error_sink:
    stream: err:2.1.0
    connector: kafka
    options:
      bootstrap_servers: b:1
";

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/config")).join(name)
}

fn load_text(test: &str, more: &str, env: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let folder = Folder::new(test);
    let files = [folder.file("base.yaml", GOOD), folder.file("more.yaml", more)];
    load(&files, env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

fn value<'l>(loaded: &'l Loaded, key: &str) -> (&'l str, String) {
    let found = loaded.effective.iter().find(|value| value.key == key).unwrap_or_else(|| panic!("no {key}"));
    (&found.value, found.origin.to_string())
}

#[test]
fn productions_files_load_as_they_stand() {
    let files = [fixture("reconcile.app.config.yaml"), fixture("python.log.config.yaml")];
    let loaded = load(&files, std::iter::empty()).expect("production's files");
    let manager = &loaded.config.stream_manager;
    assert_eq!(manager.job_name, "mw-content-history-reconcile-enrich");
    assert_eq!(manager.sink.options.delivery_guarantee, DeliveryGuarantee::AtLeastOnce);
    assert_eq!(crate::kafka::effective_max_message_bytes(&loaded.config), 10_485_760);
    let ignored: Vec<_> =
        loaded.ignored.iter().map(|ignored| (ignored.key.as_str(), ignored.origin.to_string())).collect();
    assert_eq!(ignored.len(), 1);
    assert_eq!(ignored[0].0, "log_config");
    assert!(ignored[0].1.ends_with("python.log.config.yaml:3"), "{}", ignored[0].1);
    let (text, origin) = value(&loaded, "stream_manager.sink.options.properties.max.request.size");
    assert_eq!(text, "10485760");
    assert!(origin.ends_with("reconcile.app.config.yaml:35"), "{origin}");
    assert_eq!(value(&loaded, "checkpoint.interval"), ("30 s", "default".to_owned()));

    let other = load(&[fixture("page_content_change.app.config.yaml")], std::iter::empty()).expect("production's file");
    assert!(!crate::kafka::exactly_once(&other.config));
    assert_eq!(
        other.config.stream_manager.source.options.topics.as_deref(),
        Some(&["eqiad.mediawiki.page_change.v1".to_owned()][..])
    );
    assert_ne!(loaded.config.digest(), other.config.digest());
    assert_eq!(loaded.config.enrich_job(), EnrichJob::ContentHistoryReconcile);
    assert_eq!(other.config.enrich_job(), EnrichJob::PageContentChange);
    let (user_agent, _) = value(&other, "enrich.user_agent");
    assert!(user_agent.ends_with("(mw-page-content-change-enrich)"), "{user_agent}");
}

#[test]
fn later_files_and_the_environment_win_key_by_key() {
    let more = "checkpoint.interval: 10 s
checkpoint: {timeout: 2 min}
stream_manager.sink.options.properties.linger.ms: 7
stream_manager:
  source: {options: {properties: {security: {protocol: PLAINTEXT}}}}
log: {format: ecs}
enrich:
";
    let env = [
        ("WEIR__CHECKPOINT__TIMEOUT", "3 min"),
        ("WEIR__ENRICH__MAX_CONCURRENT_REQUESTS", "12"),
        ("WEIR__STORAGE__S3__SECRET_ACCESS_KEY", "0123"),
        ("WEIR__STREAM_MANAGER__SINK__OPTIONS__PROPERTIES__SASL__PASSWORD", "12"),
        ("WEIR__STREAM_MANAGER__SOURCE__OPTIONS__TOPICS", "a.b, c"),
        ("WEIR__STREAM_MANAGER__HTTP_CLIENT_ROUTES", "{\"https://a.b/c\": \"http://d:1\"}"),
        ("WEIR__STORAGE__S3__ENDPOINT", ""),
        ("WEIR_LOG", "debug"),
    ];
    let loaded = load_text("merge", more, &env).expect("good");
    let config = &loaded.config;
    assert_eq!(config.checkpoint.interval, Duration::from_secs(10));
    assert_eq!(config.checkpoint.timeout, Duration::from_secs(180));
    assert_eq!(config.enrich.max_concurrent_requests, 12);
    assert_eq!(config.log.format, LogFormat::Ecs);
    assert_eq!(config.stream_manager.source.options.topics, Some(vec!["a.b".to_owned(), "c".to_owned()]));
    assert_eq!(config.stream_manager.source.options.properties["security.protocol"], "PLAINTEXT");
    assert_eq!(config.stream_manager.sink.options.properties["linger.ms"], "7");
    assert_eq!(config.stream_manager.http_client_routes["https://a.b/c"], "http://d:1");
    assert_eq!(config.storage.s3.secret_access_key.as_ref().map(|secret| secret.reveal()), Some("0123"));
    assert_eq!(config.storage.s3.endpoint, None);

    let (text, origin) = value(&loaded, "checkpoint.interval");
    assert!(text == "10 s" && origin.ends_with("more.yaml:1"), "{origin}");
    let timeout = value(&loaded, "checkpoint.timeout");
    assert_eq!(timeout, ("3 min", "environment WEIR__CHECKPOINT__TIMEOUT".to_owned()));
    assert_eq!(value(&loaded, "storage.s3.secret_access_key").0, "***");
    assert_eq!(value(&loaded, "stream_manager.sink.options.properties.sasl.password").0, "***");
    assert_eq!(value(&loaded, "storage.s3.endpoint"), ("(unset)", "default".to_owned()));
}

#[test]
fn the_digest_is_the_jobs_not_the_processs() {
    let digest = |test, more| load_text(test, more, &[]).expect("good").config.digest();
    let plain = digest("digest", "");
    assert_eq!(plain.len(), 64);
    assert_eq!(
        plain,
        digest("digest-log", "log.level: debug\njobmanager.bind: 0.0.0.0:1\nstorage.s3.secret_access_key: x")
    );
    assert_ne!(plain, digest("digest-job", "job.splits_per_partition: 24"));
}

/// What is wrong, and what the message must say: key, place, remedy.
const BAD: &[(&str, &[&str])] = &[
    (
        "checkpoint.intervall: 30 s",
        &["checkpoint.intervall: unknown key", "more.yaml:1", "did you mean `checkpoint.interval`?"],
    ),
    ("\ncheckpoint:\n  intervall: 30 s", &["checkpoint.intervall", "more.yaml:3", "`checkpoint.interval`"]),
    ("chekpoint: {interval: 30 s}", &["chekpoint: unknown key", "did you mean `checkpoint`?"]),
    ("interval: 30 s", &["interval: unknown key", "did you mean `"]),
    ("parallelism: 4", &["parallelism: unknown key", "its keys are: "]),
    ("state.checkpoints.num-retained: 3", &["Flink's", "`checkpoint.retained`"]),
    ("checkpoint.interval: 30", &["checkpoint.interval: `30` has no unit", "more.yaml:1", "write `30 s` or `30 ms`"]),
    ("checkpoint.interval: '30000'", &["`30000` has no unit"]),
    ("checkpoint.interval: 1.5 s", &["checkpoint.interval", "unknown unit"]),
    ("enrich.maxlag: soon", &["enrich.maxlag: invalid type", "write a whole number"]),
    ("enrich.validate_output: 5", &["enrich.validate_output", "write true or false"]),
    ("stream_manager.schema_uris: file:///a", &["stream_manager.schema_uris", "write a list"]),
    ("checkpoint: 30 s", &["checkpoint: is a section", "its keys are: interval"]),
    (
        "stream_manager.source.stream: in",
        &["stream_manager.source.stream: `in` is not `stream:schema-version`", "correct it"],
    ),
    ("job.order: sideways", &["job.order: unknown variant", "`key`"]),
    ("job.splits_per_partition: 0", &["job.splits_per_partition: 0 splits per partition"]),
    ("taskmanager.memory_budget: lots", &["taskmanager.memory_budget: `lots` is not a size", "8 MiB"]),
    (
        "transaction.interval: 20 s",
        &["transaction.interval: 20 s is more than a fifth", "lower it to 12 s", "more.yaml:1"],
    ),
    ("transaction.timeout: 16 min", &["transaction.timeout: 16 min is above 15 min"]),
    ("transaction: {slow: 2 min}", &["transaction.slow: 2 min is not below"]),
    (
        "stream_manager.sink.options.properties.message.timeout.ms: 60000",
        &["message.timeout.ms: 60000 ms is not below `transaction.timeout`, 1 min"],
    ),
    ("stream_manager.sink.options.properties.delivery.timeout.ms: 0", &["delivery.timeout.ms: 0 ms is not below"]),
    ("stream_manager.sink.options.properties.linger.ms: 40000", &["linger.ms: 40000 ms is not below"]),
    ("heartbeat.interval: 6 s", &["heartbeat.interval: 6 s is more than half of", "lower it to 5 s"]),
    ("heartbeat.grant: 1 s", &["heartbeat.grant: 1 s is not above"]),
    (
        "savepoint: {interval: 2 h, retention: 1 h}",
        &["savepoint.retention: 1 h is less than `savepoint.interval`, 2 h"],
    ),
    ("savepoint.interval: 12", &["savepoint.interval: ", "has no unit"]),
    ("checkpoint: {min_pause: 40 s}", &["checkpoint.min_pause: 40 s is longer than `checkpoint.interval`"]),
    ("checkpoint.timeout: 500 ms", &["checkpoint.timeout: 500 ms is not above `transaction.interval`"]),
    ("checkpoint.interval: 0 s", &["checkpoint.interval: is no time at all"]),
    ("job.order: partition", &["job.order: `partition` needs one split", "splits_per_partition: 1"]),
    (
        "stream_manager.sink.options.delivery_guarantee: AT_LEAST_ONCE",
        &["delivery_guarantee", "more.yaml:1", "the two sinks differ"],
    ),
    ("stream_manager.job_name: my job", &["stream_manager.job_name: `my job` is no job name", "A-Z"]),
    ("stream_manager.job_name: ..", &["`..` is no job name"]),
    ("stream_manager.sink.connector: pulsar", &["stream_manager.sink.connector: `pulsar` is unknown", "`kafka`"]),
    ("stream_manager.source.options.bootstrap_servers: broker", &["`broker` is no list of addresses", "host:port"]),
    ("stream_manager.stream_config_uri: meta", &["stream_manager.stream_config_uri: `meta`"]),
    ("storage.uri: /var/lib", &["storage.uri: `/var/lib` is no storage", "s3://bucket/prefix"]),
    ("jobmanager.address: 'a:1, b'", &["jobmanager.address: `a:1, b` is no address and no list"]),
    (
        "high_availability.type: storage\nstorage.uri: file:///var/lib/weir",
        &["high_availability.type: `storage` keeps a lease by conditional writes", "s3://bucket/prefix"],
    ),
    (
        "high_availability: {type: storage, lease_ttl: 2 s}\nstorage.uri: s3://weir",
        &["high_availability.lease_ttl: 2 s is less than 3 s"],
    ),
    (
        "high_availability: {type: storage, lease_ttl: 3 min}\nstorage.uri: s3://weir",
        &["high_availability.lease_ttl: 3 min is more than half of `heartbeat.grant`"],
    ),
    ("jobmanager.bind: '6123'", &["jobmanager.bind: `6123` is no address"]),
    ("enrich.retry.initial_backoff: 1 min", &["enrich.retry.initial_backoff: 1 min is above"]),
    ("enrich.batch_revisions: 501", &["enrich.batch_revisions: 501"]),
    ("taskmanager.memory_budget: 1 MiB", &["taskmanager.memory_budget: 1.0 MiB is less than one batch"]),
    ("log.level: 'info,=,=x=y'", &["log.level: log filter", "info,weir_taskmanager=debug"]),
    (
        "stream_manager.source.options.properties.ssl.truststore.location: /a.jks",
        &["ssl.truststore.location: cannot be set", "ssl.ca.location"],
    ),
    (
        "stream_manager.sink.options.properties.max.requst.size: 1",
        &["max.requst.size", "did you mean `max.request.size`"],
    ),
    ("stream_manager.error_sink.options.properties.linger.ms: 9", &["linger.ms", "on one cluster"]),
    (
        "checkpoint.interval: 10 s\ncheckpoint: {interval: 20 s}",
        &["checkpoint.interval: is set twice", "more.yaml:1", "more.yaml:2"],
    ),
    ("checkpoint: [\n", &["not readable as YAML", "more.yaml:"]),
    ("- a\n- b", &["is a section", "more.yaml:1"]),
];

#[test]
fn what_is_wrong_is_refused_with_key_place_and_remedy() {
    for (more, parts) in BAD {
        let error = load_text("bad", more, &[]).map(|_| ()).expect_err(more).to_string();
        for part in *parts {
            assert!(error.contains(part), "{more}\nshould say `{part}`:\n{error}");
        }
        assert!(error.starts_with("configuration: ") && !error.contains('\n'), "one problem, one line:\n{error}");
    }
}

#[test]
fn everything_is_said_at_once() {
    let more = "checkpoint: {intervall: 1 s, timeout: 30}
job: {order: partition}
stream_manager: {source: {stream: in}}
heartbeat.interval: 9 s
";
    let env = [("WEIR__LOG__FORMAT", "xml"), ("WEIR__LGO__LEVEL", "info")];
    let error = load_text("all", more, &env).expect_err("bad");
    let keys: Vec<_> = error.problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "checkpoint.intervall",
            "lgo.level",
            "checkpoint.timeout",
            "log.format",
            "stream_manager.source.stream",
            "heartbeat.interval",
            "job.order"
        ],
        "{error}"
    );
    let text = error.to_string();
    assert!(text.contains("environment WEIR__LGO__LEVEL: lgo.level: unknown key; did you mean `log.level`?"), "{text}");
    assert!(text.contains("environment WEIR__LOG__FORMAT: log.format: "), "{text}");
}

#[test]
fn missing_files_and_missing_keys_are_named() {
    let error = load(&[PathBuf::from("/nowhere/app.yaml")], std::iter::empty()).expect_err("no file");
    assert_eq!(error.problems.len(), 1, "{error}");
    assert!(error.to_string().contains("/nowhere/app.yaml"), "{error}");

    assert!(load(&[], std::iter::empty()).expect_err("nothing").to_string().contains("--config"));

    let folder = Folder::new("missing");
    let files = [folder.file("little.yaml", "stream_manager: {job_name: job}\n")];
    let error = load(&files, std::iter::empty()).expect_err("nearly nothing");
    assert_eq!(error.problems.len(), 12, "{error}");
    assert!(error.to_string().contains("stream_manager.sink.stream: is missing; write `stream: name:schema-version`"));
}

#[test]
fn secrets_are_not_in_messages() {
    let more = "storage.s3.secret_access_key: [hush]\nstream_manager.sink.options.properties.sasl.password: [hush]";
    let error = load_text("secret", more, &[]).expect_err("lists are no secrets").to_string();
    assert!(!error.contains("hush") && error.contains("2 problems"), "{error}");
    let loaded = load_text("size", "taskmanager.memory_budget: 512 MiB", &[]).expect("good");
    assert_eq!(loaded.config.taskmanager.memory_budget, Some(ByteSize::mib(512)));
    assert!(!format!("{loaded:?}").contains("hush"));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn no_text_makes_it_panic(text in "([a-z_.]{0,12}(: | : \\[|: \\{|\n|\n  |'|#|&a|\\*a|- |30 s|\\PC)){0,12}") {
        let _ = load_text("any", &text, &[("WEIR__ENRICH", &text), ("WEIR__", "x"), ("WEIR__CHECKPOINT__INTERVAL", &text)]);
    }
}
