//! The demo's folder and names: configuration, schemas, logs, snapshots; job and topics.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::events::SOURCE_STREAM;

/// The sink's stream.
pub(crate) const SINK_STREAM: &str = "mediawiki.content_history_reconcile_enriched.v1";
/// The error sink's stream.
pub(crate) const ERROR_STREAM: &str = "mw_content_history_reconcile_enrich.error";

/// Versions of the schemas that the demo pins.
const SCHEMAS: [(&str, &str); 2] = [
    (
        "mediawiki/page/change/1.2.0.yaml",
        include_str!("../../../tests/fixtures/schemas/jsonschema/mediawiki/page/change/1.2.0.yaml"),
    ),
    ("error/2.1.0.yaml", include_str!("../../../tests/fixtures/schemas/jsonschema/error/2.1.0.yaml")),
];

/// Job and topics. On a shared cluster every run has its own.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) job: String,
    pub(crate) sources: [String; 2],
    pub(crate) sink: String,
    pub(crate) errors: String,
    prefix: String,
}

impl Names {
    /// `run`: what makes this run's names its own.
    pub(crate) fn new(run: &str) -> Self {
        let prefix = format!("weir-demo-{run}.");
        Self {
            job: format!("weir-demo-{run}"),
            sources: ["eqiad", "codfw"].map(|site| format!("{prefix}{site}.{SOURCE_STREAM}")),
            sink: format!("{prefix}eqiad.{SINK_STREAM}"),
            errors: format!("{prefix}eqiad.{ERROR_STREAM}"),
            prefix,
        }
    }

    /// Where the job keeps its progress under exactly-once.
    pub(crate) fn progress_topic(&self) -> String {
        format!("{}.progress", self.job)
    }

    /// All topics that the run may have made.
    pub(crate) fn topics(&self) -> Vec<String> {
        let outputs = [self.sink.clone(), self.errors.clone(), self.progress_topic()];
        self.sources.iter().cloned().chain(outputs).collect()
    }
}

/// The jobmanager's addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) metrics: SocketAddr,
}

impl Ports {
    /// Three free ports of loopback. They are free again on return: the jobmanager binds them next, and once more after
    /// it was killed.
    pub(crate) fn free() -> io::Result<Self> {
        let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0"));
        let [grpc, http, metrics] = listeners;
        let (grpc, http, metrics) = (grpc?, http?, metrics?);
        Ok(Self { grpc: grpc.local_addr()?, http: http.local_addr()?, metrics: metrics.local_addr()? })
    }
}

/// The demo's folder.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

impl Folder {
    /// Makes a new folder under the system's temporary one; removed at the end unless `keep`.
    pub(crate) fn create(run: &str, keep: bool) -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("weir-demo-{run}"));
        let create = || {
            fs::create_dir_all(path.join("logs"))?;
            fs::create_dir_all(path.join("snapshots"))?;
            for (name, text) in SCHEMAS {
                let file = path.join("schemas").join(name);
                fs::create_dir_all(file.parent().unwrap_or(&path))?;
                fs::write(file, text)?;
            }
            Ok::<_, io::Error>(())
        };
        create().with_context(|| format!("cannot write to {}", path.display()))?;
        Ok(Self { path, keep })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.path.join("weir.yaml")
    }

    pub(crate) fn log_file(&self, process: &str) -> PathBuf {
        self.path.join("logs").join(format!("{process}.log"))
    }

    /// Writes the configuration of all processes.
    pub(crate) fn configure(&self, config: &str) -> anyhow::Result<()> {
        let file = self.config_file();
        fs::write(&file, config).with_context(|| format!("cannot write {}", file.display()))
    }
}

/// The configuration of all processes.
pub(crate) fn configuration(
    names: &Names,
    folder: &Path,
    ports: &Ports,
    (bootstrap_servers, wiki_url, guarantee): (&str, &str, &str),
) -> String {
    let Names { job, sources: [eqiad, codfw], prefix, .. } = names;
    let folder = folder.display();
    let Ports { grpc, http, metrics } = ports;
    let sink = |stream: &str, version: &str| {
        format!(
            "
    stream: {stream}:{version}
    connector: kafka
    options:
      bootstrap_servers: {bootstrap_servers}
      kafka_topic_prefix: {prefix}eqiad.
      delivery_guarantee: {guarantee}"
        )
    };
    let (sink, error_sink) = (sink(SINK_STREAM, "1.2.0"), sink(ERROR_STREAM, "2.1.0"));
    format!(
        "# Written by `weir demo`. The shape is production's; shorter times make the demo lively.
stream_manager:
  job_name: {job}
  stream_config_uri: {wiki_url}/w/api.php
  schema_uris: [\"file://{folder}/schemas\"]
  source:
    stream: {SOURCE_STREAM}:1.2.0
    connector: kafka
    options:
      bootstrap_servers: {bootstrap_servers}
      topics: [{eqiad}, {codfw}]
      consumer_group: {job}
  sink:{sink}
  error_sink:{error_sink}

enrich:
  mediawiki_api_endpoint_template: {wiki_url}/w/api.php
  request_timeout: 10 s
  retry:
    initial_backoff: 200 ms
    max_backoff: 5 s
  not_found:
    delay: 300 ms

job:
  splits_per_partition: 4

checkpoint:
  interval: 5 s

heartbeat:
  interval: 500 ms
  timeout: 3 s

storage:
  uri: file://{folder}/snapshots

jobmanager:
  address: {grpc}
  bind: {grpc}
  http_bind: {http}
  metrics_bind: {metrics}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_goes_with_its_demo_unless_kept() {
        for keep in [false, true] {
            let folder =
                Folder::create(&format!("test-{}-{keep}", std::process::id()), keep).expect("temp is writable");
            folder.configure("a: b\n").expect("written");
            let path = folder.path().to_owned();
            assert!(path.join("schemas/error/2.1.0.yaml").exists());
            drop(folder);
            assert_eq!(path.exists(), keep);
            let _ = fs::remove_dir_all(path);
        }
    }

    #[test]
    fn every_topic_of_a_run_carries_its_name() {
        let names = Names::new("ab12");
        assert_eq!(names.topics().len(), 5);
        assert!(names.topics().iter().all(|topic| topic.starts_with("weir-demo-ab12.")));
        assert_eq!(names.sink, "weir-demo-ab12.eqiad.mediawiki.content_history_reconcile_enriched.v1");
    }
}
