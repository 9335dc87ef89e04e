//! Stops, starts, rewinds, and who may run.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::process::Command;

use super::{
    environment::{Environment, stub_events},
    failures::feed,
};
use crate::harness::{
    job::{Job, no_overrides},
    kafka::produce,
    process::Process,
    until,
    workspace::free_port,
};

const LEAVES: Duration = Duration::from_secs(40);

pub(super) async fn stop_and_start(environment: Arc<Environment>) -> anyhow::Result<()> {
    let stub = environment.stub("stop-with-savepoint", "20 ms", "0.02", 2000).await?;
    let mut job = environment.job("stop-with-savepoint", &stub.api).await?;
    let inputs = stub_events(&job, &stub, 8, 3000);
    job.start().await?;
    let feeding = feed(&job, &inputs);
    job.consumed(1000, Duration::from_secs(60)).await?;
    let printed = job.weir(&["stop", "--with-savepoint", "--output", "json"], 0).await?;
    job.say(&format!("stopped: {}", printed.split_whitespace().collect::<Vec<_>>().join(" ")));
    for mut process in job.jobmanager.take().into_iter().chain(job.taskmanagers.drain(..)) {
        let status = process.ended(LEAVES).await?;
        ensure!(status.success(), "{} left with {status}:\n{}", process.name, process.tail(10));
    }
    job.start().await?;
    let listed = job.weir(&["savepoint", "list", "--output", "json"], 0).await?;
    ensure!(listed.contains("savepoints/"), "the savepoint is not listed: {listed}");
    feeding.await??;
    job.all_done(inputs.len() as u64, Duration::from_secs(120)).await?;
    job.shut_down().await?;
    job.verdict(&stub.truth, &no_overrides).await?;
    Ok(())
}

pub(super) async fn restore(environment: Arc<Environment>) -> anyhow::Result<()> {
    let stub = environment.stub("restore", "10 ms", "0", 2000).await?;
    let mut job = environment.job("restore", &stub.api).await?;
    let inputs = stub_events(&job, &stub, 9, 1500);
    let (first, rest) = inputs.split_at(1000);
    job.start().await?;
    produce(&job.spec.source, first, 0).await?;
    job.all_done(1000, Duration::from_secs(90)).await?;
    let savepoint: Value = serde_json::from_str(&job.weir(&["savepoint", "trigger", "--output", "json"], 0).await?)?;
    let location = find_text(&savepoint, "location").context("no location in the savepoint's JSON")?;
    produce(&job.spec.source, rest, 0).await?;
    job.all_done(1500, Duration::from_secs(90)).await?;

    job.weir(&["restore", &location], 3).await?;
    let answer = job.weir(&["restore", &location, "--allow-replay", "--output", "json"], 0).await?;
    job.say(&format!("restored: {}", answer.split_whitespace().collect::<Vec<_>>().join(" ").get(..200).unwrap_or("")));
    until("the replay to be finished", Duration::from_secs(90), async || {
        let status = job.admin.status().await?;
        let done = status.state == "RUNNING" && status.lag == 0 && status.splits_assigned == status.splits;
        Ok(done.then_some(()))
    })
    .await?;
    job.weir(&["savepoint", "dispose", &location], 0).await?;
    job.shut_down().await?;
    // What the restore said, and no other input, comes twice.
    let answer: Value = serde_json::from_str(&answer)?;
    let replayed = answer["replayed_records"].as_u64().context("no replayed_records in the restore's JSON")?;
    ensure!(replayed == 500, "{replayed} inputs replayed of 500");
    job.judge_repeats(&stub.truth, rest).await
}

fn find_text(value: &Value, name: &str) -> Option<String> {
    match value {
        Value::Object(fields) => match fields.get(name) {
            Some(Value::String(text)) => Some(text.clone()),
            _ => fields.values().find_map(|inner| find_text(inner, name)),
        },
        Value::Array(items) => items.iter().find_map(|inner| find_text(inner, name)),
        _ => None,
    }
}

pub(super) async fn scale_out(environment: Arc<Environment>) -> anyhow::Result<()> {
    let stub = environment.stub("scale-out", "20 ms", "0.02", 2000).await?;
    let mut job = environment.job("scale-out", &stub.api).await?;
    let inputs = stub_events(&job, &stub, 10, 4000);
    job.start().await?;
    let feeding = feed(&job, &inputs);
    job.consumed(800, Duration::from_secs(60)).await?;
    job.start_taskmanager()?;
    job.running(3).await?;
    let mut leaving = job.taskmanagers.remove(0);
    let status = leaving.terminate(LEAVES).await?;
    ensure!(status.success(), "the leaving taskmanager: {status}\n{}", leaving.tail(10));
    job.running(2).await?;
    feeding.await??;
    job.all_done(inputs.len() as u64, Duration::from_secs(120)).await?;
    job.shut_down().await?;
    job.verdict(&stub.truth, &no_overrides).await?;
    Ok(())
}

pub(super) async fn second_jobmanager(environment: Arc<Environment>) -> anyhow::Result<()> {
    let stub = environment.stub("second-jobmanager", "0", "0", 500).await?;
    let mut job = environment.job("second-jobmanager", &stub.api).await?;
    job.start().await?;
    let mut second = start_second(&environment, &job)?;
    let status = second.ended(Duration::from_secs(60)).await?;
    ensure!(status.code() == Some(3), "the second jobmanager left with {status}:\n{}", second.tail(10));
    ensure!(second.text().contains("second-jobmanager"), "its message does not name the job:\n{}", second.tail(10));
    job.say(&format!("refused: {}", second.tail(1)));
    let inputs = stub_events(&job, &stub, 11, 300);
    produce(&job.spec.source, &inputs, 0).await?;
    job.all_done(300, Duration::from_secs(60)).await?;
    job.shut_down().await?;
    job.verdict(&stub.truth, &no_overrides).await?;
    Ok(())
}

fn start_second(environment: &Environment, job: &Job) -> anyhow::Result<Process> {
    let mut command = Command::new(environment.workspace.bin.join("weir-jobmanager"));
    command.arg("--config").arg(&job.config);
    for (name, port) in [("BIND", free_port()?), ("HTTP_BIND", free_port()?), ("METRICS_BIND", free_port()?)] {
        command.env(format!("WEIR__JOBMANAGER__{name}"), format!("127.0.0.1:{port}"));
    }
    Process::start("second-jobmanager", &job.folder, &mut command)
}
