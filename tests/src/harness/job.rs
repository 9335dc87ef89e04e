//! A job: its configuration, topics and processes.

mod verdict;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use tokio::{process::Command, task::JoinHandle};
use tonic::transport::Endpoint;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use weir_proto::v1::{SplitInfo, TaskManagerInfo};

use super::{
    admin::Admin,
    http,
    kafka::{self, Input},
    process::{Process, Usage},
    standby::Standby,
    until,
    workspace::{Workspace, free_port},
};
use crate::checker::{self, read};

/// Marks an event that is dropped.
const CANARY: &str = r#""domain":"canary""#;

/// What a case wants of its job.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Names job, topics and folder; unique in a run.
    pub name: String,
    /// Cluster of the source.
    pub source: String,
    /// Cluster of both sinks.
    pub sink: String,
    /// `EXACTLY_ONCE` or `AT_LEAST_ONCE`.
    pub exactly_once: bool,
    /// URL of `api.php`.
    pub api: String,
    /// YAML of section `storage`, indented by two.
    pub storage: String,
    /// Further YAML, whole sections.
    pub more: String,
    /// The job is page_content_change: its production file as it stands, and over it what the tests need. Its name is fixed.
    pub page_content_change: bool,
    /// Partitions of each source topic.
    pub source_partitions: i32,
    /// Partitions of the sink's topic.
    pub sink_partitions: i32,
    /// Whether the configuration knows of a second jobmanager.
    pub standby: bool,
    /// Whether errors are replayed, so that there is a topic of their inputs.
    pub replays: bool,
    /// Overrides by environment, `WEIR__SECTION__KEY`.
    pub environment: Vec<(&'static str, &'static str)>,
}

/// A job that runs.
pub struct Job {
    /// What the case wanted.
    pub spec: Spec,
    /// Folder of configuration and logs.
    pub folder: PathBuf,
    /// Its configuration file.
    pub config: PathBuf,
    /// Admin calls.
    pub admin: Admin,
    /// The jobmanager's gRPC address.
    pub address: String,
    /// Its addresses for health and for metrics.
    pub http: [String; 2],
    /// The jobmanager, when it runs.
    pub jobmanager: Option<Process>,
    /// The second one, where the case wants it.
    pub standby: Option<Standby>,
    /// The taskmanagers that run.
    pub taskmanagers: Vec<Process>,
    /// What `weir splits` counted when the whole source was last finished; held against the topics by the verdict.
    pub counted: Vec<SplitInfo>,
    workspace: Workspace,
    started: u32,
}

impl Job {
    /// Makes topics and configuration; starts nothing.
    ///
    /// # Errors
    /// The broker refuses, files cannot be written.
    pub async fn prepare(workspace: &Workspace, spec: Spec) -> anyhow::Result<Self> {
        let folder = workspace.run.join(&spec.name);
        std::fs::create_dir_all(&folder)?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let standby = spec.standby.then(Standby::new).transpose()?;
        let second = standby.as_ref().map(|standby| standby.address.as_str());
        let addresses: Vec<&str> = [address.as_str()].into_iter().chain(second).collect();
        let job = Self {
            config: folder.join("weir.yaml"),
            admin: Admin::new(&addresses)?,
            http: [format!("127.0.0.1:{}", free_port()?), format!("127.0.0.1:{}", free_port()?)],
            address,
            jobmanager: None,
            standby,
            taskmanagers: Vec::new(),
            counted: Vec::new(),
            workspace: workspace.clone(),
            started: 0,
            spec,
            folder,
        };
        std::fs::write(job.folder.join("streams.json"), job.stream_configuration())?;
        std::fs::write(&job.config, job.yaml()?)?;
        let (sources, partitions) = (job.read_topics(), job.spec.source_partitions);
        let sources: Vec<(&str, i32)> = sources.iter().map(|topic| (topic.as_str(), partitions)).collect();
        kafka::create_topics(&job.spec.source, &sources).await?;
        let (sink, errors) = (job.sink_topic(), job.error_topic());
        kafka::create_topics(&job.spec.sink, &[(&sink, job.spec.sink_partitions), (&errors, 1)]).await?;
        Ok(job)
    }

    fn stream(&self, kind: &str) -> String {
        match kind {
            _ if !self.spec.page_content_change => format!("mediawiki.{kind}.{}", self.spec.name),
            "reconcile" => "mediawiki.page_change.v1".to_owned(),
            "enriched" => "rc1.mediawiki.page_content_change".to_owned(),
            _ => "mw_page_content_change_enrich.error".to_owned(),
        }
    }

    /// Both source topics. The second job reads one alone, which stands here twice.
    #[must_use]
    pub fn source_topics(&self) -> [String; 2] {
        let sites = if self.spec.page_content_change { ["eqiad", "eqiad"] } else { ["eqiad", "codfw"] };
        sites.map(|site| format!("{site}.{}", self.stream("reconcile")))
    }

    /// The source topics, each once.
    fn read_topics(&self) -> Vec<String> {
        let mut topics = self.source_topics().to_vec();
        topics.dedup();
        topics
    }

    /// Topic of enriched events.
    #[must_use]
    pub fn sink_topic(&self) -> String {
        format!("eqiad.{}", self.stream("enriched"))
    }

    /// Topic of inputs that were sent through again.
    #[must_use]
    pub fn replay_topic(&self) -> String {
        format!("{}.replay", self.spec.name)
    }

    /// Topic of error events.
    #[must_use]
    pub fn error_topic(&self) -> String {
        format!("eqiad.{}", self.stream("error"))
    }

    /// Written as text: the order of the key fields is part of it.
    fn stream_configuration(&self) -> String {
        let keys = r#","message_key_fields":{"wiki_id":"wiki_id","page_id":"page.page_id"}"#;
        let stream = |kind: &str, title: &str, keys: &str| {
            let name = self.stream(kind);
            format!(
                r#""{name}":{{"stream":"{name}","schema_title":"{title}","topic_prefixes":["eqiad.","codfw."],"topics":["eqiad.{name}","codfw.{name}"],"canary_events_enabled":false{keys}}}"#
            )
        };
        let streams = [
            stream("reconcile", "mediawiki/page/change", keys),
            stream("enriched", "mediawiki/page/change", keys),
            stream("error", "error", ""),
        ];
        format!(r#"{{"streams":{{{}}}}}"#, streams.join(","))
    }

    fn yaml(&self) -> anyhow::Result<String> {
        let guarantee = if self.spec.exactly_once { "EXACTLY_ONCE" } else { "AT_LEAST_ONCE" };
        let Self { spec, folder, .. } = self;
        let schemas = self.workspace.fixtures().join("schemas/jsonschema");
        let mut yaml = "stream_manager:\n".to_owned();
        if !spec.page_content_change {
            writeln!(yaml, "  job_name: {}", spec.name)?;
        }
        writeln!(yaml, "  stream_config_uri: file://{}/streams.json", folder.display())?;
        writeln!(yaml, "  schema_uris:\n    - file://{}", schemas.display())?;
        writeln!(yaml, "  source:\n    stream: {}:1.2.0\n    connector: kafka", self.stream("reconcile"))?;
        writeln!(yaml, "    options:\n      bootstrap_servers: {}", spec.source)?;
        writeln!(yaml, "      consumer_group: {}.test.000", spec.name)?;
        // What production's file says of TLS goes with its addresses.
        let plain = "      properties:\n        security.protocol: PLAINTEXT\n";
        let properties = if spec.page_content_change {
            yaml += plain;
            plain
        } else {
            "      properties:\n        max.request.size: \"10485760\"\n"
        };
        for (key, kind, version) in [("sink", "enriched", "1.2.0"), ("error_sink", "error", "2.1.0")] {
            writeln!(yaml, "  {key}:\n    stream: {}:{version}\n    connector: kafka", self.stream(kind))?;
            writeln!(yaml, "    options:\n      bootstrap_servers: {}\n      kafka_topic_prefix: eqiad.", spec.sink)?;
            writeln!(yaml, "      delivery_guarantee: {guarantee}")?;
            yaml += properties;
        }
        writeln!(yaml, "enrich:\n  mediawiki_api_endpoint_template: {}", spec.api)?;
        yaml += "  retry:\n    initial_backoff: 100 ms\n    max_backoff: 2 s\n    budget: 60 s\n";
        yaml += "  not_found:\n    delay: 200 ms\n    max_age: 87600 h\n";
        yaml += "checkpoint:\n  interval: 2 s\n  timeout: 30 s\n";
        yaml += "heartbeat:\n  interval: 500 ms\n  timeout: 4 s\n";
        writeln!(yaml, "storage:\n{}", spec.storage.trim_end())?;
        let second = self.standby.iter().map(|standby| format!(", {}", standby.address)).collect::<String>();
        writeln!(yaml, "jobmanager:\n  address: {0}{second}\n  bind: {0}", self.address)?;
        writeln!(yaml, "  http_bind: {}\n  metrics_bind: {}", self.http[0], self.http[1])?;
        yaml += "log:\n  level: info\n";
        yaml += &spec.more;
        Ok(yaml)
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.workspace.bin.join(name));
        if self.spec.page_content_change {
            let production = self.workspace.fixtures().join("config/page_content_change.app.config.yaml");
            command.arg("--config").arg(production);
        }
        command.arg("--config").arg(&self.config).current_dir(&self.folder);
        command.envs(self.spec.environment.iter().copied());
        command
    }

    /// Starts one of the programs with this job's configuration and further overrides.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_process(
        &self,
        program: &str,
        name: &str,
        environment: &[(String, String)],
    ) -> anyhow::Result<Process> {
        let mut command = self.program(program);
        Process::start(name, &self.folder, command.envs(environment.iter().cloned()))
    }

    /// Starts the jobmanager.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_jobmanager(&mut self) -> anyhow::Result<()> {
        let process = Process::start("jobmanager", &self.folder, &mut self.program("weir-jobmanager"))?;
        self.jobmanager = Some(process);
        Ok(())
    }

    /// Starts the second jobmanager.
    ///
    /// # Errors
    /// It cannot be started, or the configuration does not know of it.
    pub fn start_standby(&mut self) -> anyhow::Result<()> {
        let mut program = self.program("weir-jobmanager");
        let standby = self.standby.as_mut().context("the configuration does not know of a second jobmanager")?;
        standby.override_addresses(&mut program);
        standby.process = Some(Process::start("jobmanager-2", &self.folder, &mut program)?);
        Ok(())
    }

    /// Starts one more taskmanager; its index in `taskmanagers`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_taskmanager(&mut self) -> anyhow::Result<usize> {
        let name = format!("taskmanager-{}", self.started);
        self.started += 1;
        let process = Process::start(&name, &self.folder, &mut self.program("weir-taskmanager"))?;
        self.taskmanagers.push(process);
        Ok(self.taskmanagers.len() - 1)
    }

    /// Starts the jobmanager and two taskmanagers, and waits until every split is assigned.
    ///
    /// # Errors
    /// It does not come to that in time.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        self.start_jobmanager()?;
        self.start_taskmanager()?;
        self.start_taskmanager()?;
        self.running(2).await
    }

    /// Waits until that many taskmanagers share all splits.
    ///
    /// # Errors
    /// It does not come to that in time, or a process ended.
    pub async fn running(&mut self, taskmanagers: u32) -> anyhow::Result<()> {
        let started = Instant::now();
        until("the job to run", Duration::from_secs(90), async || {
            self.must_live()?;
            let status = self.admin.status().await?;
            let ready = status.state == "RUNNING"
                && status.splits > 0
                && status.splits_assigned == status.splits
                && status.taskmanagers == taskmanagers;
            Ok(ready.then_some(()))
        })
        .await?;
        // Assigned is not yet balanced: the second may have come when the first had all.
        until("a balanced assignment", Duration::from_secs(60), async || {
            let all = self.admin.taskmanagers().await?;
            let splits: Vec<u32> =
                all.iter().filter(|found| found.state == "READY").map(|found| found.splits).collect();
            let (least, most) = (splits.iter().min().copied(), splits.iter().max().copied());
            let balanced = splits.len() == taskmanagers as usize && most.unwrap_or(0) - least.unwrap_or(0) <= 1;
            Ok(balanced.then_some(()))
        })
        .await?;
        self.say(&format!("runs after {:.1} s", started.elapsed().as_secs_f64()));
        Ok(())
    }

    fn must_live(&mut self) -> anyhow::Result<()> {
        let second = self.standby.iter_mut().filter_map(|standby| standby.process.as_mut());
        self.jobmanager.iter_mut().chain(second).chain(&mut self.taskmanagers).try_for_each(Process::must_live)
    }

    /// Writes inputs in the background, so many in a second (0: as fast as they go), until it is awaited.
    #[must_use]
    pub fn feed(&self, inputs: &Arc<Vec<Input>>, per_second: u32) -> JoinHandle<anyhow::Result<()>> {
        let (bootstrap, inputs) = (self.spec.source.clone(), Arc::clone(inputs));
        tokio::spawn(async move { kafka::produce(&bootstrap, &inputs, per_second).await })
    }

    /// Prints a line about this job.
    pub fn say(&self, what: &str) {
        eprintln!("[{}] {what}", self.spec.name);
    }

    /// Waits until that many inputs are finished.
    ///
    /// # Errors
    /// It does not come to that in time.
    pub async fn consumed(&mut self, count: u64, limit: Duration) -> anyhow::Result<()> {
        let mut found = 0;
        let waited = until(&format!("{count} inputs to be finished"), limit, async || {
            self.must_live()?;
            found = self.admin.status().await?.counters.unwrap_or_default().consumed;
            Ok((found >= count).then_some(()))
        })
        .await;
        waited.with_context(|| format!("{found} are"))
    }

    /// Waits until all of the source is finished: `count` inputs and no lag.
    ///
    /// # Errors
    /// It does not come to that in time.
    pub async fn all_done(&mut self, count: u64, limit: Duration) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut found = (0, 0);
        let waited = until("the whole source to be finished", limit, async || {
            self.must_live()?;
            let status = self.admin.status().await?;
            found = (status.counters.unwrap_or_default().consumed, status.lag);
            Ok((found.0 >= count && found.1 == 0).then_some(()))
        })
        .await;
        waited.with_context(|| format!("{} finished of {count}, lag {}", found.0, found.1))?;
        self.say(&format!("{count} inputs finished after {:.1} s more", started.elapsed().as_secs_f64()));
        let status = self.admin.status().await?;
        let counters = status.counters.unwrap_or_default();
        let sum = counters.enriched + counters.passed_through + counters.errors + counters.dropped;
        ensure!(counters.consumed == sum, "not conserved: {counters:?}");
        if self.spec.exactly_once {
            ensure!(counters.consumed == count, "counted {} of {count} inputs", counters.consumed);
        }
        self.counted = self.admin.splits().await?;
        Ok(())
    }

    /// The taskmanager with this process id.
    ///
    /// # Errors
    /// The jobmanager does not know it.
    pub async fn info(&self, pid: u32) -> anyhow::Result<TaskManagerInfo> {
        let all = self.admin.taskmanagers().await?;
        all.into_iter().find(|found| found.pid == pid).with_context(|| format!("no taskmanager with process id {pid}"))
    }

    /// What was counted, by partition alone: after a change of the number of splits, the first key range of each carries what
    /// the former ones had counted.
    pub fn count_by_partition(&mut self) {
        let mut sums: BTreeMap<(String, i32), SplitInfo> = BTreeMap::new();
        for mut info in std::mem::take(&mut self.counted) {
            let split = info.split.clone().unwrap_or_default();
            (info.key_range_start, info.key_range_end) = (0, 1 << 32);
            let add = info.counters.unwrap_or_default();
            let sum = sums.entry((split.topic, split.partition)).or_insert(SplitInfo { counters: None, ..info });
            let counters = sum.counters.get_or_insert_default();
            counters.consumed += add.consumed;
            counters.enriched += add.enriched;
            counters.passed_through += add.passed_through;
            counters.errors += add.errors;
            counters.dropped += add.dropped;
        }
        self.counted = sums.into_values().collect();
    }

    /// Calls the command `weir` against this job; its standard output.
    ///
    /// # Errors
    /// It did not exit with `code`; what it printed.
    pub async fn weir(&self, arguments: &[&str], code: i32) -> anyhow::Result<String> {
        self.weir_at(&self.address, arguments, code).await
    }

    /// The same against the jobmanager at this address.
    ///
    /// # Errors
    /// As [`Job::weir`].
    pub async fn weir_at(&self, address: &str, arguments: &[&str], code: i32) -> anyhow::Result<String> {
        let (status, out, err) = self.run_weir(address, arguments).await?;
        if status.code() != Some(code) {
            bail!("weir {arguments:?}: {status} instead of {code}\n{out}{err}");
        }
        Ok(out)
    }

    /// Calls the command `weir`, which must refuse (exit code 3); what it says.
    ///
    /// # Errors
    /// It did something else.
    pub async fn weir_refuses(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let (status, out, err) = self.run_weir(&self.address, arguments).await?;
        ensure!(status.code() == Some(3), "weir {arguments:?}: {status} instead of 3\n{out}{err}");
        Ok(err)
    }

    /// Calls the command `weir` against the jobmanager at this address: how it ended, its standard output and error.
    ///
    /// # Errors
    /// It does not end.
    pub async fn run_weir(
        &self,
        address: &str,
        arguments: &[&str],
    ) -> anyhow::Result<(std::process::ExitStatus, String, String)> {
        let mut command = Command::new(self.workspace.bin.join("weir"));
        command.args(arguments).args(["--jobmanager", address]).stdin(Stdio::null());
        let output = tokio::time::timeout(Duration::from_secs(120), command.kill_on_drop(true).output())
            .await
            .with_context(|| format!("weir {arguments:?} does not end"))??;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((output.status, text(&output.stdout), text(&output.stderr)))
    }

    /// Waits until lag tools see on the source cluster that all is done: the consumer group's offsets are the ends.
    ///
    /// # Errors
    /// It does not come to that in time.
    pub async fn lag_is_mirrored(&self) -> anyhow::Result<()> {
        until("the consumer group's offsets to reach the ends", Duration::from_secs(30), async || {
            for topic in self.source_topics() {
                let (source, group) = (self.spec.source.clone(), format!("{}.test.000", self.spec.name));
                let read = move || read::committed_of_group(&source, &group, &topic);
                let (committed, end) = tokio::task::spawn_blocking(read).await??;
                if committed != end {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
        .await
    }

    /// Looks at what probes and scrapers look at: gRPC health, `/readyz`, `/metrics`.
    ///
    /// # Errors
    /// One of them does not answer as it should.
    pub async fn is_observable(&self) -> anyhow::Result<()> {
        let channel = Endpoint::from_shared(format!("http://{}", self.address))?.connect().await?;
        let health = HealthClient::new(channel).check(HealthCheckRequest::default()).await?.into_inner();
        ensure!(health.status() == ServingStatus::Serving, "grpc.health.v1 says {:?}", health.status());
        let [http, metrics] = &self.http;
        for (address, path) in [(http, "/healthz"), (http, "/readyz"), (metrics, "/metrics")] {
            let (status, body) = http::get(address, path, "localhost").await?;
            ensure!(status == 200, "{path}: {status} {body}");
            ensure!(path != "/metrics" || body.contains("weir_"), "no metrics of ours: {body:.300}");
        }
        Ok(())
    }

    /// SIGTERM to all, taskmanagers first; all must leave with exit code 0.
    ///
    /// # Errors
    /// One does not, or not in time.
    pub async fn shut_down(&mut self) -> anyhow::Result<()> {
        let second = self.standby.as_mut().and_then(|standby| standby.process.take());
        for mut process in self.taskmanagers.drain(..).chain(self.jobmanager.take()).chain(second) {
            let status = process.terminate(Duration::from_secs(40)).await?;
            ensure!(status.success(), "{} left with {status}:\n{}", process.name, process.tail(15));
        }
        Ok(())
    }

    /// Everything in the topics that it reads.
    ///
    /// # Errors
    /// Topics cannot be read.
    pub async fn inputs(&self) -> anyhow::Result<Vec<checker::Record>> {
        let (source, topics) = (self.spec.source.clone(), self.read_topics());
        let replay = self.spec.replays.then(|| (self.spec.sink.clone(), self.replay_topic()));
        tokio::task::spawn_blocking(move || {
            let mut inputs = Vec::new();
            for topic in topics {
                inputs.extend(read::topic(&source, &topic)?);
            }
            if let Some((sink, topic)) = replay {
                inputs.extend(read::topic(&sink, &topic)?);
            }
            Ok(inputs)
        })
        .await?
    }

    /// What the processes have used: jobmanager first.
    #[must_use]
    pub fn usage(&self) -> Vec<(String, Usage)> {
        let all = self.jobmanager.iter().chain(&self.taskmanagers);
        all.filter_map(|process| Some((process.name.clone(), process.usage().ok()?))).collect()
    }
}

/// Says which inputs end otherwise than the general rules tell.
pub type Overrides<'a> = dyn Fn(&[checker::Record]) -> BTreeMap<checker::Position, checker::event::Expected> + 'a;

/// None do.
#[must_use]
pub fn no_overrides(_: &[checker::Record]) -> BTreeMap<checker::Position, checker::event::Expected> {
    BTreeMap::new()
}
