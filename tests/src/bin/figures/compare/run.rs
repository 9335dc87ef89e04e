//! One run: a load, and what works it off.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde::Serialize;
use tokio::{process::Command, task::JoinHandle};
use weir_tests::{
    cases::Environment,
    checker::read,
    harness::{
        http,
        job::{Job, Spec},
        kafka::{create_topics, delete_topics, produce},
        process::{Process, usage},
        until,
    },
};

use super::{
    bare::Loop,
    load::Load,
    steady::{Look, Steady, steady},
    verify,
};
use crate::{LIMIT, Percentiles};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Who works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Who {
    /// A loop that asks for so many revisions at once.
    Bare { revisions: usize },
    /// A job, exactly once and in order.
    Weir { taskmanagers: u32 },
}

/// A load and who works it off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) who: Who,
    pub(crate) partitions: i32,
    pub(crate) load: Load,
    pub(crate) events: usize,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Figures {
    #[serde(flatten)]
    pub(crate) steady: Steady,
    /// Of the jobs' checkpoints: their number and the 99th of a hundred.
    pub(crate) checkpoints: Option<(usize, f64)>,
}

/// A process of this very program, and the URL that it serves at.
pub(crate) struct Api {
    url: String,
    process: Process,
}

/// Does it, with topics of its own that are gone afterwards.
pub(crate) async fn run(environment: &Environment, name: &str, plan: &Plan) -> anyhow::Result<Figures> {
    let api = Api::start(environment, name, &plan.load).await?;
    match plan.who {
        Who::Bare { revisions } => bare(environment, name, plan, &api, revisions).await,
        Who::Weir { taskmanagers } => weir(environment, name, plan, &api, taskmanagers).await,
    }
    .with_context(|| format!("{name}: {plan:?}"))
}

async fn bare(
    environment: &Environment,
    name: &str,
    plan: &Plan,
    api: &Api,
    revisions: usize,
) -> anyhow::Result<Figures> {
    let bootstrap = environment.kafka().await?;
    let (source, sink) = (format!("{name}.source"), format!("{name}.sink"));
    create_topics(&bootstrap, &[(&source, plan.partitions), (&sink, plan.partitions)]).await?;
    let events = plan.load.events(&source, plan.events);
    let settings = Loop {
        bootstrap: bootstrap.clone(),
        source: source.clone(),
        sink: sink.clone(),
        api: format!("{}/w/api.php", api.url),
        revisions,
    };
    let mut command = itself("bare-loop", &settings)?;
    let mut process = Process::start(name, &environment.workspace.run, &mut command)?;
    let watch = Watch::start(&bootstrap, &sink, api, vec![process.pid]);
    produce(&bootstrap, &events, 0).await?;
    let ready = watch.begun.elapsed();
    until("the loop to be at its end", LIMIT, async || {
        process.must_live()?;
        Ok((watch.produced() >= plan.events as u64).then_some(()))
    })
    .await?;
    process.kill().await?;
    let steady = watch.end(plan, ready)?;
    delete_topics(&bootstrap, &[&source, &sink]).await?;
    Ok(Figures { steady, checkpoints: None })
}

async fn weir(
    environment: &Environment,
    name: &str,
    plan: &Plan,
    api: &Api,
    taskmanagers: u32,
) -> anyhow::Result<Figures> {
    let mut job = prepared(environment, name, plan, api, |_| ()).await?;
    let events = plan.load.events(&job.source_topics()[0], plan.events);
    job.start_jobmanager()?;
    for _ in 0..taskmanagers {
        job.start_taskmanager()?;
    }
    job.running(taskmanagers).await?;
    let pids = job.taskmanagers.iter().map(|process| process.pid).collect();
    let watch = Watch::start(&job.spec.sink, &job.sink_topic(), api, pids);
    // Written much faster than it is worked off: a backlog, from which the figures are taken.
    produce(&job.spec.source, &events, 0).await?;
    drop(events);
    let ready = watch.begun.elapsed();
    job.all_done(plan.events as u64, LIMIT).await?;
    let steady = watch.end(plan, ready)?;
    let counters = job.admin.status().await?.counters.unwrap_or_default();
    ensure!(counters.enriched == plan.events as u64, "not every event was enriched: {counters:?}");
    let completed = job.admin.checkpoints().await?.into_iter().filter(|found| found.status == "COMPLETED");
    let checkpoints = Percentiles::of_micros(completed.map(|found| found.duration_us).collect());
    job.shut_down().await?;
    let (sink, topic, count) = (job.spec.sink.clone(), job.sink_topic(), plan.events);
    tokio::task::spawn_blocking(move || verify::once_and_in_order(&sink, &topic, count)).await??;
    let [eqiad, codfw] = job.source_topics();
    delete_topics(&job.spec.source, &[&eqiad, &codfw, &job.sink_topic(), &job.error_topic()]).await?;
    Ok(Figures { steady, checkpoints: Some((checkpoints.count, checkpoints.p99)) })
}

/// A job over this load, its topics made and nothing started.
pub(crate) async fn prepared(
    environment: &Environment,
    name: &str,
    plan: &Plan,
    api: &Api,
    change: impl FnOnce(&mut Spec),
) -> anyhow::Result<Job> {
    let mut spec = environment.spec(name, &format!("{}/w/api.php", api.url)).await?;
    (spec.source_partitions, spec.sink_partitions) = (plan.partitions, plan.partitions);
    spec.environment = vec![
        ("WEIR__JOB__STARTING_OFFSETS", "earliest"),
        ("WEIR__HEARTBEAT__INTERVAL", "1 s"),
        ("WEIR__HEARTBEAT__TIMEOUT", "10 s"),
        ("WEIR__CHECKPOINT__INTERVAL", "1 s"),
        ("WEIR__CHECKPOINT__MIN_PAUSE", "500 ms"),
    ];
    change(&mut spec);
    Job::prepare(&environment.workspace, spec).await
}

fn itself(verb: &str, settings: &impl Serialize) -> anyhow::Result<Command> {
    let program: PathBuf = std::env::current_exe()?;
    let mut command = Command::new(program);
    command.arg(verb).arg(serde_json::to_string(settings)?);
    Ok(command)
}

impl Api {
    pub(crate) async fn start(environment: &Environment, name: &str, load: &Load) -> anyhow::Result<Self> {
        let mut command = itself("api", load)?;
        let mut process = Process::start(&format!("api-{name}"), &environment.workspace.run, &mut command)?;
        let url = until("the API to say where it is", Duration::from_secs(60), async || {
            process.must_live()?;
            Ok(process.text().lines().find(|line| line.starts_with("http://")).map(str::to_owned))
        })
        .await?;
        Ok(Self { url, process })
    }
}

/// Looks at a run, again and again.
struct Watch {
    begun: Instant,
    looks: Arc<Mutex<Vec<Look>>>,
    looking: JoinHandle<anyhow::Result<()>>,
}

impl Watch {
    fn start(bootstrap: &str, topic: &str, api: &Api, workers: Vec<u32>) -> Self {
        let (begun, looks) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
        let address = api.url.trim_start_matches("http://").to_owned();
        let (bootstrap, topic, api, seen) =
            (bootstrap.to_owned(), topic.to_owned(), api.process.pid, Arc::clone(&looks));
        let looking = tokio::spawn(async move {
            let ends = Arc::new(read::Ends::of(&bootstrap, &topic)?);
            loop {
                let ends = Arc::clone(&ends);
                let produced = tokio::task::spawn_blocking(move || ends.sum()).await??;
                let workers = workers.iter().filter_map(|pid| usage(*pid).ok());
                let workers = workers.map(|usage| (usage.cpu_seconds, usage.rss_bytes)).collect();
                let at = begun.elapsed();
                let (_, requests) = http::get(&address, "/requests", "api").await?;
                let (requests, api_cpu) = (requests.parse()?, usage(api)?.cpu_seconds);
                lock(&seen).push(Look { at, produced, workers, api_cpu, requests });
                tokio::time::sleep(LOOK).await;
            }
        });
        Self { begun, looks, looking }
    }

    fn produced(&self) -> u64 {
        lock(&self.looks).last().map_or(0, |look| look.produced)
    }

    fn end(self, plan: &Plan, ready: Duration) -> anyhow::Result<Steady> {
        ensure!(!self.looking.is_finished(), "nobody looks any more");
        self.looking.abort();
        let looks = lock(&self.looks);
        steady(&looks, plan.events as u64, ready).context("the run was over too soon to be measured: more EVENTS")
    }
}

fn lock(looks: &Mutex<Vec<Look>>) -> std::sync::MutexGuard<'_, Vec<Look>> {
    looks.lock().unwrap_or_else(PoisonError::into_inner)
}
