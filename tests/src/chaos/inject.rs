//! Performs a fault, and undoes it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::{process::Command, time::sleep};

use super::{
    api::Mode,
    fleet::{Fleet, OF_JOBMANAGERS, OF_TASKMANAGERS},
    kind::{Kind, Lane},
    plan::{Fault, Plan},
};
use crate::{
    harness::{process::Process, workspace::signal},
    proxy::{Link, Plan as Requests, Proxy, frame},
};

/// Neither more nor fewer taskmanagers than these.
const TASKMANAGERS: std::ops::RangeInclusive<usize> = 2..=5;

/// How long one that got SIGTERM may take, stopped neighbours and dead brokers included.
const LEAVES: Duration = Duration::from_secs(60);

/// A fault that is over.
#[derive(Clone, Debug)]
pub struct Done {
    /// Which.
    pub fault: Fault,
    /// What it struck.
    pub target: String,
    /// When it began.
    pub from: Instant,
    /// When it was undone.
    pub to: Instant,
}

/// Performs the plan, its sequences side by side.
///
/// # Errors
/// The test's own means failed: a script, a process that cannot be started.
pub async fn perform(fleet: &Fleet, plan: &Plan) -> anyhow::Result<Vec<Done>> {
    let started = Instant::now();
    let sequences = plan.sequences.iter().map(|faults| async move {
        let mut done = Vec::new();
        let mut not_before = Duration::ZERO;
        for fault in faults {
            sleep(fault.at.max(not_before).saturating_sub(started.elapsed())).await;
            fleet.log.say(&format!("+ {} for {:.1} s", fault.kind.name(), fault.duration.as_secs_f64()));
            let from = Instant::now();
            let target = strike(fleet, *fault).await.with_context(|| fault.kind.name())?;
            let to = Instant::now();
            fleet.log.say(&format!("- {} ({target}) after {:.1} s", fault.kind.name(), (to - from).as_secs_f64()));
            not_before = started.elapsed() + plan.calm;
            done.push(Done { fault: *fault, target, from, to });
        }
        anyhow::Ok(done)
    });
    let mut done: Vec<Done> = futures::future::try_join_all(sequences).await?.into_iter().flatten().collect();
    done.sort_by_key(|done| done.from);
    Ok(done)
}

async fn strike(fleet: &Fleet, fault: Fault) -> anyhow::Result<String> {
    match fault.kind.lane() {
        Lane::Taskmanagers => taskmanager(fleet, fault).await,
        Lane::Jobmanagers => jobmanager(fleet, fault).await,
        Lane::Brokers => broker(fleet, fault).await,
        Lane::TaskmanagerKafka => link(&fleet.cluster.links[OF_TASKMANAGERS].each_ref(), fault).await,
        Lane::JobmanagerKafka => link(&fleet.cluster.links[OF_JOBMANAGERS].each_ref(), fault).await,
        Lane::TaskmanagerJobmanager => link(&fleet.jobmanagers.each_ref().map(|one| &one.control), fault).await,
        Lane::Storage => storage(fleet, fault).await,
        Lane::Api => api(fleet, fault).await,
    }
}

/// Takes one out, so that nobody misses it.
async fn taken(fleet: &Fleet, target: u32) -> Process {
    let mut all = fleet.taskmanagers.lock().await;
    let at = target as usize % all.len();
    all.remove(at)
}

async fn taskmanager(fleet: &Fleet, fault: Fault) -> anyhow::Result<String> {
    let Fault { kind, target, duration, .. } = fault;
    let count = fleet.taskmanagers.lock().await.len();
    match kind {
        Kind::TaskmanagerKill | Kind::TaskmanagerTerminate => {
            let mut process = taken(fleet, target).await;
            let how = if kind == Kind::TaskmanagerKill {
                process.kill().await?;
                "killed".to_owned()
            } else {
                process.terminate(LEAVES).await?.to_string()
            };
            sleep(duration).await;
            let next = fleet.start_taskmanager().await?;
            Ok(format!("{}: {how}; then {next}", process.name))
        }
        Kind::ScaleUp | Kind::ScaleDown => {
            let up = if kind == Kind::ScaleUp { count < *TASKMANAGERS.end() } else { count <= *TASKMANAGERS.start() };
            let what = if up {
                fleet.start_taskmanager().await?
            } else {
                let mut process = taken(fleet, target).await;
                let status = process.terminate(LEAVES).await?;
                format!("{}: {status}", process.name)
            };
            sleep(duration).await;
            Ok(format!("{what}; {count} before"))
        }
        _ => {
            let (pid, name) = {
                let all = fleet.taskmanagers.lock().await;
                let process = &all[target as usize % all.len()];
                (process.pid, process.name.clone())
            };
            stopped(pid, duration).await;
            Ok(name)
        }
    }
}

async fn stopped(pid: u32, duration: Duration) {
    signal(pid, "STOP");
    sleep(duration).await;
    signal(pid, "CONT");
}

async fn jobmanager(fleet: &Fleet, fault: Fault) -> anyhow::Result<String> {
    let Fault { kind, target, duration, .. } = fault;
    let leader = fleet.leader().await;
    let leads = leader.unwrap_or(target as usize % 2);
    let which: &[usize] = match kind {
        Kind::JobmanagersKill => &[0, 1],
        Kind::StandbyKill => &[1 - leads],
        _ => &[leads],
    };
    if matches!(kind, Kind::LeaderPauseShort | Kind::LeaderPauseLong) {
        let pid = fleet.jobmanagers[leads].process.lock().await.as_ref().map(|process| process.pid);
        stopped(pid.context("a jobmanager runs")?, duration).await;
    } else {
        for which in which {
            // Taken out before, or its end would be noticed.
            if let Some(mut process) = fleet.jobmanagers[*which].process.lock().await.take() {
                process.kill().await?;
            }
        }
        sleep(duration).await;
        for which in which {
            fleet.start_jobmanager(*which).await?;
        }
    }
    let led = leader.map_or("nobody led".to_owned(), |leader| format!("jobmanager-{leader} led"));
    Ok(format!("{which:?}, {led}"))
}

async fn broker(fleet: &Fleet, fault: Fault) -> anyhow::Result<String> {
    let Fault { kind, target, duration, .. } = fault;
    let number = target % 3 + 1;
    let call = |verb: &'static str| {
        let cluster = Arc::clone(&fleet.cluster);
        async move { tokio::task::spawn_blocking(move || cluster.broker(verb, number)).await? }
    };
    match kind {
        Kind::BrokerKill | Kind::BrokerRestart => {
            call(if kind == Kind::BrokerKill { "kill" } else { "stop" }).await?;
            sleep(duration).await;
            call("start").await?;
        }
        Kind::BrokerStutter => {
            let pid = fleet.cluster.pid(number)?;
            let slices = format!("while kill -STOP {pid}; do sleep 0.18; kill -CONT {pid}; sleep 0.02; done");
            let mut shell = Command::new("bash").args(["-c", &slices]).kill_on_drop(true).spawn()?;
            sleep(duration).await;
            shell.kill().await?;
            signal(pid, "CONT");
        }
        _ => {
            call("pause").await?;
            sleep(duration).await;
            call("resume").await?;
        }
    }
    Ok(format!("broker {number}"))
}

async fn link(proxies: &[&Proxy], fault: Fault) -> anyhow::Result<String> {
    let Fault { kind, target, duration, .. } = fault;
    let all = |link: Link| proxies.iter().for_each(|proxy| proxy.set(link));
    let mut what = String::new();
    match kind {
        Kind::TaskmanagerKafkaRequests | Kind::JobmanagerKafkaRequests => {
            let before: u64 = proxies.iter().map(|proxy| harmed(proxy)).sum();
            proxies.iter().zip(0..).for_each(|(proxy, nth)| proxy.disturb(Some(requests(u64::from(target) + nth))));
            sleep(duration).await;
            let after: u64 = proxies.iter().map(|proxy| harmed(proxy)).sum();
            what = format!("{} requests", after - before);
        }
        Kind::TaskmanagerKafkaReset => {
            for _ in 0..3 {
                proxies.iter().for_each(|proxy| proxy.reset());
                sleep(duration / 3).await;
            }
        }
        Kind::TaskmanagerKafkaDelay | Kind::JobmanagerKafkaDelay | Kind::TaskmanagerJobmanagerDelay => {
            let delay = Duration::from_millis(u64::from(50 + target % 350));
            all(Link { delay, ..Link::default() });
            what = format!("{} ms each way", delay.as_millis());
            sleep(duration).await;
        }
        Kind::TaskmanagerKafkaSilence | Kind::JobmanagerKafkaSilence => {
            all(Link { to_client: false, ..Link::default() });
            sleep(duration).await;
        }
        Kind::TaskmanagerJobmanagerSilence => {
            all(Link { to_client: false, to_server: false, ..Link::default() });
            sleep(duration).await;
        }
        _ => {
            all(Link { refuse: true, ..Link::default() });
            proxies.iter().for_each(|proxy| proxy.cut());
            sleep(duration).await;
        }
    }
    proxies.iter().for_each(|proxy| proxy.heal());
    Ok(if what.is_empty() { "all".to_owned() } else { what })
}

fn harmed(proxy: &Proxy) -> u64 {
    proxy.counts().values().sum()
}

/// Every third end of a transaction, and some of what it consists of.
fn requests(seed: u64) -> Requests {
    let plan = Requests::transactions(seed, 0.08, 50..4000);
    let shares = plan.shares.iter().map(|(kind, share)| (*kind, if *kind == frame::END_TXN { 0.35 } else { *share }));
    Requests { shares: shares.collect(), ..plan }
}

async fn storage(fleet: &Fleet, fault: Fault) -> anyhow::Result<String> {
    let Fault { kind, target, duration, .. } = fault;
    let proxy = &fleet.storage;
    let call = |verb: fn(&crate::harness::parts::Rgw) -> anyhow::Result<()>| {
        let rgw = Arc::clone(&fleet.rgw);
        async move { tokio::task::spawn_blocking(move || verb(&rgw)).await? }
    };
    match kind {
        Kind::StorageGone => {
            call(crate::harness::parts::Rgw::kill).await?;
            sleep(duration).await;
            call(crate::harness::parts::Rgw::start).await?;
        }
        Kind::StorageErrors => {
            proxy.forward_to(fleet.errors);
            proxy.cut();
            sleep(duration).await;
            proxy.forward_to(fleet.storage_address);
            proxy.cut();
        }
        Kind::StorageSlow => {
            let delay = Duration::from_millis(u64::from(300 + target % 900));
            proxy.set(Link { delay, ..Link::default() });
            sleep(duration).await;
            proxy.heal();
            return Ok(format!("{} ms each way", delay.as_millis()));
        }
        _ => {
            proxy.set(Link { refuse: true, ..Link::default() });
            proxy.reset();
            sleep(duration).await;
            proxy.heal();
        }
    }
    Ok("storage".to_owned())
}

async fn api(fleet: &Fleet, fault: Fault) -> anyhow::Result<String> {
    fleet.api.set(match fault.kind {
        Kind::ApiTooManyRequests => Mode::TooManyRequests,
        Kind::ApiUnavailable => Mode::Unavailable,
        Kind::ApiHang => Mode::Hang,
        Kind::ApiReset => Mode::Reset,
        _ => Mode::Flapping,
    });
    sleep(fault.duration).await;
    fleet.api.set(Mode::Healthy);
    Ok("all wikis".to_owned())
}
