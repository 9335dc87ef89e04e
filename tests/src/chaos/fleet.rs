//! A job with everything around it, each link through a proxy: three brokers, storage, API, two jobmanagers, taskmanagers.
//!
//! ```text
//! taskmanagers --group 0--> brokers <--group 1-- jobmanagers --> storage
//!      |  \-----> api (front) --> stub wiki          ^
//!      \---------------- control --------------------/
//! ```
//!
//! What feeds, watches and checks goes to the brokers directly.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{Router, http::StatusCode};
use tokio::{net::TcpListener, sync::Mutex};
use tokio_util::task::AbortOnDropHandle;

use super::{api::Api, log::Log};
use crate::{
    cases::{Environment, Stub, environment::storage_yaml},
    harness::{
        admin::Admin,
        job::{Job, Spec},
        parts::{Cluster, Rgw},
        process::Process,
        until,
        workspace::{free_port, signal},
    },
    proxy::Proxy,
};

/// Taskmanagers at the start.
const TASKMANAGERS: usize = 3;

/// Group of proxies before the brokers.
pub const OF_TASKMANAGERS: usize = 0;
/// The other one.
pub const OF_JOBMANAGERS: usize = 1;

/// Short times, so that a run has room for what is longer; those of `kind` are against these.
const SETTINGS: &str = "transaction:\n  interval: 500 ms\n  timeout: 15 s\n\
    high_availability:\n  type: storage\n  lease_ttl: 4 s\n";

/// An outage of the API is lag, never an error event: the checker knows what each input must become.
const PATIENT: [(&str, &str); 3] = [
    ("WEIR__ENRICH__RETRY__MAX_ATTEMPTS", "1000000"),
    ("WEIR__ENRICH__RETRY__BUDGET", "24 h"),
    ("WEIR__ENRICH__REQUEST_TIMEOUT", "2 s"),
];

/// One jobmanager of the two.
pub struct Jobmanager {
    /// Before its gRPC.
    pub control: Proxy,
    /// Asked without a proxy.
    pub admin: Admin,
    bind: String,
    /// Its process, while it runs.
    pub process: Mutex<Option<Process>>,
    environment: Vec<(String, String)>,
}

/// See the module.
pub struct Fleet {
    /// Configuration, topics, verdict.
    pub job: Job,
    /// The brokers.
    pub cluster: Arc<Cluster>,
    /// The object storage …
    pub rgw: Arc<Rgw>,
    /// … and what stands before it.
    pub storage: Proxy,
    /// Answers 503 to everything.
    pub errors: SocketAddr,
    /// Where storage is.
    pub storage_address: SocketAddr,
    /// Before the wiki.
    pub api: Api,
    /// The wiki.
    pub stub: Stub,
    /// Both.
    pub jobmanagers: [Jobmanager; 2],
    /// Those that run.
    pub taskmanagers: Mutex<Vec<Process>>,
    /// What happened.
    pub log: Log,
    of_taskmanagers: Vec<(String, String)>,
    started: AtomicU32,
    _errors: AbortOnDropHandle<()>,
}

impl Fleet {
    /// Starts all of it and waits until the job runs.
    ///
    /// # Errors
    /// Something does not start.
    pub async fn start(environment: &Environment, name: &str) -> anyhow::Result<Self> {
        let stub = environment.stub(name, "20 ms", "0", 2000).await?;
        let wiki = stub.api.trim_start_matches("http://").trim_end_matches("/w/api.php").to_owned();
        let api = Api::start(&wiki).await?;
        let cluster = Cluster::up(&environment.workspace, "chaos-kafka", 2).await?;
        let rgw = environment.own_rgw("chaos-rgw").await?;
        let storage_address: SocketAddr = rgw.endpoint.trim_start_matches("http://").parse()?;
        let storage = Proxy::start(storage_address).await?;
        let (errors, _errors) = unavailable().await?;
        let spec = Spec {
            name: name.to_owned(),
            source: cluster.direct.clone(),
            sink: cluster.direct.clone(),
            exactly_once: true,
            api: api.url(),
            storage: storage_yaml(&rgw, &format!("http://{}", storage.address())),
            more: SETTINGS.to_owned(),
            source_partitions: 1,
            sink_partitions: 3,
            standby: false,
            replays: false,
            page_content_change: false,
            environment: PATIENT.to_vec(),
        };
        let mut job = Job::prepare(&environment.workspace, spec).await?;
        let brokers = brokers(&cluster.bootstrap(OF_JOBMANAGERS));
        let jobmanagers = [jobmanager(&brokers).await?, jobmanager(&brokers).await?];
        job.admin = Admin::new(&jobmanagers.each_ref().map(|one| one.bind.as_str()))?;
        let addresses = jobmanagers.iter().map(|one| one.control.address().to_string()).collect::<Vec<_>>().join(",");
        let mut of_taskmanagers = self::brokers(&cluster.bootstrap(OF_TASKMANAGERS));
        of_taskmanagers.push(("WEIR__JOBMANAGER__ADDRESS".to_owned(), addresses));
        let log = Log::start(&job.folder.join("chaos.log"))?;
        let fleet = Self {
            job,
            cluster: Arc::new(cluster),
            rgw: Arc::new(rgw),
            storage,
            errors,
            storage_address,
            api,
            stub,
            jobmanagers,
            taskmanagers: Mutex::default(),
            log,
            of_taskmanagers,
            started: AtomicU32::new(0),
            _errors,
        };
        fleet.start_jobmanager(0).await?;
        fleet.runs_with_a_leader().await?;
        fleet.start_jobmanager(1).await?;
        for _ in 0..TASKMANAGERS {
            fleet.start_taskmanager().await?;
        }
        fleet.all_assigned(Duration::from_secs(90)).await?;
        Ok(fleet)
    }

    /// Starts one more.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn start_taskmanager(&self) -> anyhow::Result<String> {
        let name = format!("taskmanager-{}", self.started.fetch_add(1, Ordering::Relaxed));
        let process = self.job.start_process("weir-taskmanager", &name, &self.of_taskmanagers)?;
        self.taskmanagers.lock().await.push(process);
        Ok(name)
    }

    /// Starts one of the two, unless it runs.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn start_jobmanager(&self, which: usize) -> anyhow::Result<()> {
        let one = &self.jobmanagers[which];
        let mut process = one.process.lock().await;
        if process.is_none() {
            let name = format!("jobmanager-{which}");
            *process = Some(self.job.start_process("weir-jobmanager", &name, &one.environment)?);
        }
        Ok(())
    }

    /// Which one leads, if one says so.
    pub async fn leader(&self) -> Option<usize> {
        let asked = self.jobmanagers.iter().map(|one| one.admin.status());
        futures::future::join_all(asked).await.iter().position(Result::is_ok)
    }

    async fn runs_with_a_leader(&self) -> anyhow::Result<()> {
        until("a jobmanager to lead", Duration::from_secs(60), async || Ok(self.leader().await.map(drop))).await
    }

    /// Waits until every split has an owner.
    ///
    /// # Errors
    /// It does not come to that in time.
    pub async fn all_assigned(&self, limit: Duration) -> anyhow::Result<()> {
        until("all splits to be assigned", limit, async || {
            let status = self.job.admin.status().await?;
            let all = status.state == "RUNNING" && status.splits > 0 && status.splits_assigned == status.splits;
            anyhow::ensure!(all, "{}, {} of {} splits assigned", status.state, status.splits_assigned, status.splits);
            Ok(Some(()))
        })
        .await
    }

    /// Starts again whatever ended by itself, as Kubernetes would, and notes it.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn supervise(&self) -> anyhow::Result<()> {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            for which in 0..self.jobmanagers.len() {
                let mut process = self.jobmanagers[which].process.lock().await;
                if let Some(status) = process.as_mut().map(Process::exit).transpose()?.flatten() {
                    self.log.ended(&format!("jobmanager-{which} ended by itself with {status} and is started again"));
                    process.take();
                    drop(process);
                    self.start_jobmanager(which).await?;
                }
            }
            let mut ended = Vec::new();
            self.taskmanagers.lock().await.retain_mut(|process| match process.exit() {
                Ok(None) => true,
                Ok(Some(status)) => {
                    ended.push(format!("{} ended by itself with {status}", process.name));
                    false
                }
                Err(_) => true,
            });
            for what in ended {
                let name = self.start_taskmanager().await?;
                self.log.ended(&format!("{what}, {name} is started"));
            }
        }
    }

    /// Everything is as it should be again, and who is missing is started.
    ///
    /// # Errors
    /// Something cannot be started.
    pub async fn heal(&self) -> anyhow::Result<()> {
        let proxies = self.cluster.links.iter().flatten().chain(self.jobmanagers.iter().map(|one| &one.control));
        proxies.chain([&self.storage]).for_each(Proxy::heal);
        self.storage.forward_to(self.storage_address);
        self.api.heal();
        for number in 1..=3 {
            signal(self.cluster.pid(number)?, "CONT");
        }
        for which in 0..self.jobmanagers.len() {
            if let Some(process) = self.jobmanagers[which].process.lock().await.as_ref() {
                signal(process.pid, "CONT");
            }
            self.start_jobmanager(which).await?;
        }
        self.taskmanagers.lock().await.iter().for_each(|process| signal(process.pid, "CONT"));
        while self.taskmanagers.lock().await.len() < 2 {
            self.start_taskmanager().await?;
        }
        Ok(())
    }

    /// SIGTERM to all, taskmanagers first; all must leave with exit code 0.
    ///
    /// # Errors
    /// One does not, or not in time.
    pub async fn shut_down(&self) -> anyhow::Result<()> {
        let mut all: Vec<Process> = self.taskmanagers.lock().await.drain(..).collect();
        for one in &self.jobmanagers {
            all.extend(one.process.lock().await.take());
        }
        for mut process in all {
            let status = process.terminate(Duration::from_secs(40)).await?;
            anyhow::ensure!(status.success(), "{} left with {status}:\n{}", process.name, process.tail(15));
        }
        Ok(())
    }
}

fn brokers(bootstrap: &str) -> Vec<(String, String)> {
    let key = |part: &str| format!("WEIR__STREAM_MANAGER__{part}__OPTIONS__BOOTSTRAP_SERVERS");
    ["SOURCE", "SINK", "ERROR_SINK"].map(|part| (key(part), bootstrap.to_owned())).to_vec()
}

async fn jobmanager(brokers: &[(String, String)]) -> anyhow::Result<Jobmanager> {
    let bind = format!("127.0.0.1:{}", free_port()?);
    let control = Proxy::start(bind.parse()?).await?;
    let free = || anyhow::Ok(format!("127.0.0.1:{}", free_port()?));
    let mut environment = brokers.to_vec();
    for (key, value) in [
        ("BIND", bind.clone()),
        ("ADVERTISED_ADDRESS", control.address().to_string()),
        ("HTTP_BIND", free()?),
        ("METRICS_BIND", free()?),
    ] {
        environment.push((format!("WEIR__JOBMANAGER__{key}"), value));
    }
    Ok(Jobmanager { control, admin: Admin::new(&[&bind])?, bind, process: Mutex::default(), environment })
}

async fn unavailable() -> anyhow::Result<(SocketAddr, AbortOnDropHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let router = Router::new().fallback(|| async { (StatusCode::SERVICE_UNAVAILABLE, "SlowDown") });
    let task = tokio::spawn(async move {
        if let Err(why) = axum::serve(listener, router).await {
            eprintln!("the server of errors ended: {why}");
        }
    });
    Ok((address, AbortOnDropHandle::new(task)))
}
