//! What operators do about error events: look at them, and send their inputs through again once the cause is gone.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::environment::{Environment, stub_events};
use crate::{
    checker::{Position, Record, event::Expected, json, read},
    events::Maker,
    harness::{
        job::Job,
        kafka::{Input, produce},
        process::Process,
        until,
    },
};

/// Pages whose revision is late: an error at first, for the job asks once only, and there when it is asked for again.
const LATE: i64 = 60;

/// Those of them that are replayed one by one, so that the jobmanager can be killed on the way.
const RATE: &str = "10";

fn is_late(value: Option<&[u8]>) -> bool {
    let text = value.and_then(|value| std::str::from_utf8(value).ok());
    let revision = text.and_then(|text| json::number_at(text, &["revision", "rev_id"]));
    revision.is_some_and(|revision| revision % 1000 == 996)
}

/// The late ones ended as errors where they were first read, and only there.
fn late_are_errors(job: &Job) -> impl Fn(&[Record]) -> BTreeMap<Position, Expected> {
    let replay = job.replay_topic();
    move |inputs| {
        let late = inputs.iter().filter(|input| input.topic != replay && is_late(input.value.as_deref()));
        late.map(|input| (input.position(), Expected::Error)).collect()
    }
}

async fn ask(job: &Job, arguments: &[&str]) -> anyhow::Result<Value> {
    let answer = job.weir(&[&["errors"], arguments, &["--output", "json"]].concat(), 0).await?;
    serde_json::from_str(&answer).with_context(|| format!("no JSON: {answer}"))
}

async fn list(job: &Job, filter: &[&str]) -> anyhow::Result<Vec<Value>> {
    let list = ask(job, &[&["list", "--limit", "1000"], filter].concat()).await?;
    ensure!(list["more"] == false && list["searched_back_to"].is_null(), "not all were looked at: {list:.300}");
    Ok(list["errors"].as_array().context("no list")?.clone())
}

pub(super) async fn replayed(environment: Arc<Environment>) -> anyhow::Result<()> {
    let stub = environment.stub("errors-replayed", "5 ms", "0", 2000).await?;
    let mut spec = environment.spec("errors-replayed", &stub.api).await?;
    (spec.source, spec.replays) = (environment.second_kafka().await?, true);
    spec.environment.push(("WEIR__ENRICH__NOT_FOUND__MAX_ATTEMPTS", "1"));
    let mut job = Job::prepare(&environment.workspace, spec).await?;
    let mut inputs: Vec<Input> = stub_events(&job, &stub, 31, 500).to_vec();
    inputs.retain(|input| !is_late(input.value.as_deref()));
    let mut maker = Maker::new(32, job.source_topics());
    inputs.extend((1..=LATE).map(|page| maker.late(&stub.truth, page)));
    job.start().await?;
    produce(&job.spec.source, &inputs, 0).await?;
    job.all_done(inputs.len() as u64, Duration::from_secs(60)).await?;

    let position = look(&job, &inputs).await?;
    let late = usize::try_from(LATE)?;
    replay_over_a_kill(&mut job, late).await?;

    let before =
        ask(&job, &["replay", "--type", "BadRevision", "--wiki", "enwiki", "--source", "no-such-topic"]).await?;
    ensure!(before["chosen"] == 0, "{before}");
    let chosen = ask(&job, &["replay", &position]).await?;
    ensure!(chosen["chosen"] == 0 && chosen["replayed_before"] == 1, "replayed twice: {chosen}");
    let again = ask(&job, &["replay", &position, "--again"]).await?;
    ensure!(again["written"] == 1 && again["outcome"]["enriched"] == 1, "{again}");
    // What fails for good fails again, as a new error that names the replay topic.
    let malformed = list(&job, &["--type", "MalformedInput"]).await?.len();
    ensure!(malformed > 0, "no malformed input");
    let failed = ask(&job, &["replay", "--type", "MalformedInput"]).await?;
    ensure!(failed["outcome"]["errors"] == malformed && failed["written"] == malformed, "{malformed}: {failed}");
    let replay = job.replay_topic();
    ensure!(list(&job, &["--source", &replay]).await?.len() == malformed, "errors of replayed inputs name their topic");

    job.all_done((inputs.len() + late + 1 + malformed) as u64, Duration::from_secs(60)).await?;
    job.lag_is_mirrored().await?;
    job.weir(&["savepoint", "trigger", "--offset-cut", "--label", "cut"], 0).await?;
    let exported = job.weir(&["savepoint", "export", "cut"], 0).await?;
    ensure!(!exported.contains(&replay), "other consumers know nothing of {replay}: {exported}");
    job.shut_down().await?;
    job.verdict(&stub.truth, &late_are_errors(&job)).await?;
    each_once(&job, late, malformed, &position).await
}

/// Lists by every filter and shows one; where that one is.
async fn look(job: &Job, inputs: &[Input]) -> anyhow::Result<String> {
    let unknown = list(job, &["--type", "BadRevision", "--wiki", "enwiki"]).await?;
    let is_late = |error: &&Value| error["rev_id"].as_i64().is_some_and(|revision| revision % 1000 == 996);
    let late = unknown.iter().filter(is_late).count();
    ensure!(late == usize::try_from(LATE)?, "{late} of {LATE} late revisions are listed");
    ensure!(
        list(job, &["--wiki", "en.wikipedia.org", "--type", "BadRevision"]).await?.len() == unknown.len(),
        "by domain"
    );
    let all = list(job, &[]).await?;
    ensure!(all.len() > unknown.len(), "a filter leaves some out");
    let times: Vec<jiff::Timestamp> = all
        .iter()
        .map(|error| Ok(error["time"].as_str().context("a time")?.parse()?))
        .collect::<anyhow::Result<_>>()?;
    ensure!(times.is_sorted_by(|newer, older| newer >= older), "newest first: {times:?}");
    ensure!(list(job, &["--from", "1 h"]).await?.len() == all.len(), "since an hour ago");
    ensure!(list(job, &["--to", "1 h"]).await?.is_empty(), "before an hour ago");
    let [eqiad, codfw] = job.source_topics();
    let of = async |source: &str| anyhow::Ok(list(job, &["--source", source]).await?.len());
    ensure!(of(&format!("{eqiad}-0")).await? + of(&codfw).await? == all.len(), "by source");

    let one = unknown.iter().find(is_late).context("a late one")?;
    let position = format!("{}:{}", one["partition"], one["offset"]);
    let shown = ask(job, &["show", &position]).await?;
    let raw = shown["event"]["raw_event"].as_str().context("no raw event")?;
    ensure!(inputs.iter().any(|input| input.value.as_deref() == Some(raw.as_bytes())), "raw_event is no input: {raw}");
    job.weir(&["errors", "show", "0:999999"], 1).await?;
    job.weir(&["errors", "replay"], 2).await?;
    Ok(position)
}

/// Replays the late ones; the jobmanager is killed on the way, and the same command finishes it.
async fn replay_over_a_kill(job: &mut Job, late: usize) -> anyhow::Result<()> {
    // Others of this kind are unknown for ever.
    let filter = ["--type", "BadRevision", "--wiki", "enwiki", "--to", "0 s"];
    let counted = ask(job, &[&["replay", "--dry-run"], &filter[..]].concat()).await?;
    let chosen = counted["chosen"].as_u64().context("no count")? as usize;
    ensure!(chosen >= late && counted["written"] == 0, "{counted}");
    let mut places: Vec<String> = Vec::new();
    for error in list(job, &filter[..4]).await? {
        if error["rev_id"].as_i64().is_some_and(|revision| revision % 1000 == 996) {
            places.push(format!("{}:{}", error["partition"], error["offset"]));
        }
    }
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    let command = [&["errors", "replay", "--rate", RATE, "--output", "json"], &places[..]].concat();
    let jobmanager = job.jobmanager.take().context("it runs")?;
    disturbed(job, &command, jobmanager).await?;
    job.start_jobmanager()?;
    job.running(2).await?;
    let rest = ask(job, &[&["replay", "--rate", "1000"], &places[..]].concat()).await?;
    let count = |name: &str| rest[name].as_u64().unwrap_or_default() as usize;
    job.say(&format!(
        "{} were replayed before the jobmanager was killed, {} after",
        count("replayed_before"),
        count("written")
    ));
    ensure!(count("replayed_before") > 0 && count("written") > 0, "killed too early or too late: {rest}");
    ensure!(count("replayed_before") + count("written") == late, "not each once: {rest}");
    Ok(())
}

/// Runs the command until some inputs are written, then kills the jobmanager.
async fn disturbed(job: &Job, command: &[&str], mut jobmanager: Process) -> anyhow::Result<()> {
    let (sink, topic) = (job.spec.sink.clone(), job.replay_topic());
    let some_written = until("some of them to be written", Duration::from_secs(40), async || {
        let (sink, topic) = (sink.clone(), topic.clone());
        let span = tokio::task::spawn_blocking(move || read::span(&sink, &topic)).await?;
        Ok((span.unwrap_or(0) > 15).then_some(()))
    });
    let replaying = job.run_weir(&job.address, command);
    tokio::pin!(replaying);
    tokio::select! {
        written = some_written => written?,
        ended = &mut replaying => anyhow::bail!("ended before it could be disturbed: {:?}", ended?),
    }
    jobmanager.kill().await?;
    let (status, _, told) = replaying.await?;
    ensure!(status.code() == Some(4), "{status}: {told}");
    Ok(())
}

/// The topic itself: which inputs it holds, by where they were first read.
async fn each_once(job: &Job, late: usize, malformed: usize, again: &str) -> anyhow::Result<()> {
    let (sink, topic) = (job.spec.sink.clone(), job.replay_topic());
    let records = tokio::task::spawn_blocking(move || read::topic(&sink, &topic)).await??;
    let originals: HashMap<Position, Record> =
        job.inputs().await?.into_iter().map(|record| (record.position(), record)).collect();
    let mut counts: BTreeMap<Position, usize> = BTreeMap::new();
    for record in &records {
        let source = record.source().map_err(anyhow::Error::msg)?;
        let original = originals.get(&source).with_context(|| format!("{source:?} is no input"))?;
        ensure!((&original.key, &original.value) == (&record.key, &record.value), "{source:?} was changed");
        *counts.entry(source).or_default() += 1;
    }
    let twice: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    ensure!(counts.len() == late + malformed, "{} inputs of {}", counts.len(), late + malformed);
    ensure!(twice.len() == 1 && *twice[0].1 == 2, "twice: {twice:?}, asked for {again} only");
    Ok(())
}
