//! One run of the demo, start to verdict.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Args,
    cluster::Cluster,
    events::Generator,
    layout::{self, ERROR_STREAM, Folder, Names, Ports, SINK_STREAM},
    processes::{Processes, Spec, beside_me},
    summary::Summary,
    traffic::{self, Reader, Shared},
    verify::{Streams, Tally, Verifier},
    view::{Scene, View},
    watch::Watch,
};
use crate::{
    exit::{Failure, Outcome, Reason},
    output::{self, Format},
    shutdown,
    wiki::{self, StubWiki, content::Wiki},
};

const TASKMANAGERS: [&str; 2] = ["taskmanager-0", "taskmanager-1"];

/// Time between two looks at everything.
const TICK: Duration = Duration::from_millis(250);

/// Time for the job to start: the broker's group protocol alone takes some seconds.
const START_TIMEOUT: Duration = Duration::from_secs(90);

/// After the processes have gone: what they wrote last is read.
const LAST_READS: Duration = Duration::from_millis(500);

/// Runs the demo.
///
/// # Errors
/// The demo cannot be started, or its verdict is bad.
pub async fn run(args: Args) -> Outcome {
    let summary = Demo::start(args.clone()).await?.run().await?;
    match args.output {
        Format::Json => output::print(&summary.json().to_string())?,
        Format::Table => output::print(&format!("\n{}", summary.text()))?,
    }
    if summary.violations_total > 0 { Err(Failure::new(Reason::Failed, "")) } else { Ok(()) }
}

/// Everything that runs. Fields are dropped in this order: processes before what they talk to.
struct Demo {
    watch: Watch,
    processes: Processes,
    reader: Option<Reader>,
    stub: StubWiki,
    cluster: Cluster,
    folder: Folder,
    names: Names,
    verifier: Shared,
    stop_jobmanager: CancellationToken,
    stop_taskmanagers: CancellationToken,
    flowing_since: Instant,
    view: View,
    args: Args,
}

/// How far the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Until somebody can work: a rate is measured against a job that runs.
    Starting {
        since: Instant,
    },
    Producing,
    Draining {
        outputs: u64,
        since: Instant,
    },
}

impl Demo {
    async fn start(args: Args) -> anyhow::Result<Self> {
        let programs = (beside_me("weir-jobmanager")?, beside_me("weir-taskmanager")?);
        let run = Uuid::new_v4().simple().to_string()[..6].to_owned();
        let names = Names::new(&run);
        let folder = Folder::create(&run, args.keep)?;
        let cluster = Cluster::start(args.bootstrap_servers.as_deref(), &names).await?;
        let wiki = Wiki { content_bytes: args.content_bytes.as_usize() };
        let options = wiki::Options {
            wiki,
            latency: args.latency,
            latency_jitter: args.latency,
            failure_rate: args.failure_rate,
        };
        let stub = wiki::serve("127.0.0.1:0", options).await.context("cannot start the stub wiki")?;
        let ports = Ports::free().context("no free ports")?;
        let servers = cluster.bootstrap_servers();
        let guarantee = guarantee(&args);
        folder.configure(&layout::configuration(&names, folder.path(), &ports, (&servers, &stub.url(), guarantee)))?;
        let streams = Streams { sink: SINK_STREAM, errors: ERROR_STREAM };
        let verifier = Arc::new(Mutex::new(Verifier::new(wiki, streams, args.bootstrap_servers.is_some())));
        let reader = Reader::start(&servers, &names, Arc::clone(&verifier))?;

        let processes = Processes::new()?;
        let (stop_jobmanager, stop_taskmanagers) = (CancellationToken::new(), CancellationToken::new());
        let spec = |name, program: &std::path::PathBuf| Spec {
            name,
            program: program.clone(),
            config: folder.config_file(),
            log: folder.log_file(name),
        };
        processes.keep(spec("jobmanager", &programs.0), stop_jobmanager.clone());
        for name in TASKMANAGERS {
            processes.keep(spec(name, &programs.1), stop_taskmanagers.clone());
        }
        let view = View::new(args.output == Format::Json, &heading(&args, &folder, &ports, &servers, &stub));
        let watch = Watch::start(ports.grpc.to_string());
        let reader = Some(reader);
        Ok(Self {
            watch,
            processes,
            reader,
            stub,
            cluster,
            folder,
            names,
            verifier,
            stop_jobmanager,
            stop_taskmanagers,
            flowing_since: Instant::now(),
            view,
            args,
        })
    }

    async fn run(mut self) -> anyhow::Result<Summary> {
        let drained = self.flow().await;
        let duration = self.flowing_since.elapsed();
        let job = self.watch.job();
        self.stop().await;
        drop(self.reader.take());
        self.cluster.clean_up_unless(self.args.keep, &self.names).await;
        let drained = drained?;
        let verifier = {
            let fresh = Verifier::new(Wiki { content_bytes: 0 }, Streams { sink: "", errors: "" }, false);
            std::mem::replace(&mut *self.verifier.lock().unwrap_or_else(PoisonError::into_inner), fresh)
        };
        let (tally, violations, violations_total) = verifier.finish(job.counters());
        let counters = &self.stub.counters;
        Ok(Summary {
            job_name: self.names.job.clone(),
            delivery_guarantee: guarantee(&self.args),
            tally,
            job: job.counters(),
            violations,
            violations_total,
            drained,
            checkpoints: job.status.map_or(0, |status| status.number_of_completed_checkpoints),
            restarts: self.processes.restarts(),
            requests: (counters.requests.load(Ordering::Relaxed), counters.faults.load(Ordering::Relaxed)),
            duration,
            folder: self.args.keep.then(|| self.folder.path().display().to_string()),
        })
    }

    /// Produces and drains. True: every input came out; false: it was given up, or the user could not wait.
    async fn flow(&mut self) -> anyhow::Result<bool> {
        let stop = CancellationToken::new();
        let producing = self.producing(stop.clone());
        tokio::pin!(producing);
        let mut phase = Phase::Starting { since: Instant::now() };
        let mut tick = tokio::time::interval(TICK);
        let signalled = shutdown::requested();
        tokio::pin!(signalled);
        loop {
            tokio::select! {
                produced = &mut producing, if phase == Phase::Producing => {
                    produced?;
                    phase = Phase::Draining { outputs: 0, since: Instant::now() };
                }
                () = &mut signalled => match phase {
                    Phase::Producing => {
                        stop.cancel();
                        signalled.set(shutdown::requested());
                    }
                    Phase::Starting { .. } | Phase::Draining { .. } => return Ok(false),
                },
                failure = self.processes.failed() => anyhow::bail!(failure),
                _ = tick.tick() => {
                    let tally = self.show(phase);
                    self.kill_when_due(&tally).await;
                    match phase {
                        Phase::Starting { since } if self.started(since)? => {
                            self.flowing_since = Instant::now();
                            phase = Phase::Producing;
                        }
                        Phase::Starting { .. } | Phase::Producing => {}
                        Phase::Draining { ref mut outputs, ref mut since } => {
                            if let Some(end) = self.drained(outputs, since, &tally) {
                                return Ok(end);
                            }
                        }
                    }
                }
            }
        }
    }

    fn producing(&self, stop: CancellationToken) -> impl Future<Output = anyhow::Result<()>> + use<> {
        let (servers, names, verifier) =
            (self.cluster.bootstrap_servers(), self.names.clone(), Arc::clone(&self.verifier));
        let generator = Generator::new(self.args.seed, Wiki { content_bytes: self.args.content_bytes.as_usize() });
        let (count, rate) = (self.args.events.unwrap_or(u64::MAX), self.args.rate);
        async move { traffic::produce(&servers, &names, generator, (count, rate), &verifier, &stop).await }
    }

    /// Whether both taskmanagers have their share.
    fn started(&self, since: Instant) -> anyhow::Result<bool> {
        if since.elapsed() > START_TIMEOUT {
            anyhow::bail!("the job does not start within {START_TIMEOUT:?}; with --keep its logs stay");
        }
        let at_work = self.watch.job().taskmanagers.iter().filter(|tm| tm.splits > 0).count();
        Ok(at_work == TASKMANAGERS.len())
    }

    /// `--kill`: once, when half of the events have come out.
    async fn kill_when_due(&mut self, tally: &Tally) {
        let due = self.args.events.map_or(2000, |events| events / 2);
        if self.args.kill && tally.inputs - tally.missing >= due {
            self.args.kill = false;
            self.processes.kill(TASKMANAGERS[0]).await;
        }
    }

    /// `None`: not yet.
    fn drained(&self, outputs: &mut u64, since: &mut Instant, tally: &Tally) -> Option<bool> {
        // The job's counters follow with the next cut, and only they know of canaries.
        let consumed = self.watch.job().counters().map_or(0, |counters| counters.consumed);
        if tally.missing == 0 && consumed >= tally.inputs {
            return Some(true);
        }
        let now = tally.inputs - tally.missing + consumed;
        if now != *outputs {
            (*outputs, *since) = (now, Instant::now());
        }
        (since.elapsed() > self.args.drain_timeout).then_some(false)
    }

    fn show(&mut self, phase: Phase) -> Tally {
        let (tally, violations) = {
            let verifier = traffic::lock(&self.verifier);
            (verifier.tally().clone(), verifier.violations_total())
        };
        let scene = Scene {
            tally: tally.clone(),
            violations,
            processes: self.processes.running(),
            job: self.watch.job(),
            sources: self.names.sources.clone(),
            phase: match phase {
                Phase::Starting { .. } => "starting",
                Phase::Producing => "",
                Phase::Draining { .. } => "draining",
            },
        };
        self.view.show(&scene, self.processes.take_notes(), Instant::now());
        tally
    }

    /// Taskmanagers first: they hand their splits back to a jobmanager that still listens.
    async fn stop(&mut self) {
        self.stop_taskmanagers.cancel();
        let leaving = async {
            while self.processes.running().iter().any(|process| process.name != "jobmanager" && process.pid.is_some()) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(15), leaving).await;
        self.stop_jobmanager.cancel();
        self.processes.stopped().await;
        tokio::time::sleep(LAST_READS).await;
    }
}

fn guarantee(args: &Args) -> &'static str {
    if args.bootstrap_servers.is_some() { "EXACTLY_ONCE" } else { "AT_LEAST_ONCE" }
}

fn heading(args: &Args, folder: &Folder, ports: &Ports, servers: &str, stub: &StubWiki) -> Vec<String> {
    let guarantee = match args.bootstrap_servers {
        None => "AT_LEAST_ONCE: the embedded mock of Kafka keeps no transactions. Exactly-once: --bootstrap-servers",
        Some(_) => "EXACTLY_ONCE: output, error events and progress are one transaction",
    };
    let kept = if args.keep { "kept" } else { "removed at the end; --keep keeps it" };
    vec![
        format!("Weir demo, {guarantee}"),
        format!("Kafka {servers}   wiki {}   jobmanager {} (http://{})", stub.url(), ports.grpc, ports.http),
        format!("{} ({kept})   weir status --jobmanager {}", folder.path().display(), ports.grpc),
    ]
}
