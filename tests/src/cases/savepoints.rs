//! Savepoints that travel: out as plain Kafka offsets, back again, and into another number of splits.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::environment::{Environment, stub_events};
use crate::{
    checker::{Position, read},
    harness::{
        job::{Job, no_overrides},
        kafka::Input,
        until,
    },
};

const EVENTS: usize = 4000;
/// Slow enough for the job to be in the middle of it all the time.
const PER_SECOND: u32 = 150;

const LEAVES: Duration = Duration::from_secs(40);

/// Splits per partition after the change; the default before.
const OTHER_SPLITS: (&str, &str) = ("WEIR__JOB__SPLITS_PER_PARTITION", "5");

/// Marks an event that is dropped.
const CANARY: &str = r#""domain":"canary""#;

/// The first offset of each partition that is not done.
type Cut = BTreeMap<(String, i32), i64>;

pub(super) async fn travel(environment: Arc<Environment>) -> anyhow::Result<()> {
    let stub = environment.stub("savepoint-travels", "20 ms", "0.02", 2000).await?;
    let mut job = environment.job("savepoint-travels", &stub.api).await?;
    let inputs = stub_events(&job, &stub, 31, EVENTS);
    job.start().await?;
    let feeding = job.feed(&inputs, PER_SECOND);

    job.consumed(EVENTS as u64 / 8, Duration::from_secs(60)).await?;
    let first = cut_while_it_runs(&mut job).await?;
    job.consumed(EVENTS as u64 * 3 / 8, Duration::from_secs(60)).await?;
    let second = stop_with_cut(&mut job).await?;
    holds_exactly_what_is_below(&job, &inputs, &second).await?;
    came_before_and_after(&job, &first).await?;
    a_plain_consumer_goes_on(&job, &inputs, &first, &second).await?;

    job.spec.environment.push(OTHER_SPLITS);
    job.start().await?;
    let splits = job.admin.status().await?.splits;
    ensure!(splits == 10, "{splits} splits after the change");
    job.consumed(EVENTS as u64 * 5 / 8, Duration::from_secs(60)).await?;
    refuses_another_number_between_cuts(&mut job).await?;
    feeding.await??;
    job.all_done(EVENTS as u64, Duration::from_secs(120)).await?;
    job.count_by_partition();

    let again = go_back_by_plain_offsets(&mut job, &first).await?;
    job.shut_down().await?;
    let mut offsets: BTreeMap<&str, i64> = BTreeMap::new();
    let repeated = inputs.iter().filter(|input| {
        let offset = offsets.entry(input.topic.as_str()).or_insert(-1);
        *offset += 1;
        *offset >= first[&(input.topic.clone(), 0)]
    });
    let repeated: Vec<_> = repeated.cloned().collect();
    ensure!(repeated.len() as u64 == again, "{again} records were to be done again at most, {} are", repeated.len());
    job.judge_repeats(&stub.truth, &repeated).await
}

/// Events hang longer than a cut may take: it is given up with the event named, and the job goes on. So it does when the
/// jobmanager is killed in the middle of a cut: the next one knows of no limit, and taskmanagers go on past theirs.
pub(super) async fn given_up(environment: Arc<Environment>) -> anyhow::Result<()> {
    const FEW: usize = 400;
    let stub = environment.stub("savepoint-given-up", "6 s", "0", 500).await?;
    let mut spec = environment.spec("savepoint-given-up", &stub.api).await?;
    spec.environment.push(("WEIR__SAVEPOINT__CUT_TIMEOUT", "3 s"));
    let mut job = Job::prepare(&environment.workspace, spec).await?;
    let inputs = stub_events(&job, &stub, 32, FEW);
    job.start().await?;
    let feeding = job.feed(&inputs, 30);
    job.consumed(20, Duration::from_secs(60)).await?;
    let refused = job.weir_refuses(&["savepoint", "trigger", "--offset-cut"]).await?;
    ensure!(refused.contains("savepoint.cut_timeout (3s): split ") && refused.contains(" is at offset "), "{refused}");
    job.say(refused.trim());
    job.running(2).await?;

    let mut jobmanager = job.jobmanager.take().context("it runs")?;
    let cutting = async {
        until("splits to have a limit", Duration::from_secs(20), async || {
            Ok(job.admin.status().await?.state_reason.contains("its cut at").then_some(()))
        })
        .await?;
        jobmanager.kill().await
    };
    let (cut, killed) = tokio::join!(job.run_weir(&job.address, &["savepoint", "trigger", "--offset-cut"]), cutting);
    killed?;
    ensure!(!cut?.0.success(), "a cut without a jobmanager");
    job.start_jobmanager()?;
    job.running(2).await?;
    feeding.await??;
    job.all_done(FEW as u64, Duration::from_secs(120)).await?;
    job.shut_down().await?;
    job.verdict(&stub.truth, &no_overrides).await?;
    Ok(())
}

async fn json(job: &Job, arguments: &[&str]) -> anyhow::Result<Value> {
    let printed = job.weir(&[arguments, &["--output", "json"]].concat(), 0).await?;
    serde_json::from_str(&printed).with_context(|| format!("weir {arguments:?} printed {printed:.300}"))
}

fn cut_of(document: &Value) -> anyhow::Result<Cut> {
    let offsets = document["offsets"].as_array().context("no offsets")?;
    let entry = |entry: &Value| {
        let partition = i32::try_from(entry["partition"].as_i64()?).ok()?;
        Some(((entry["topic"].as_str()?.to_owned(), partition), entry["offset"].as_i64()?))
    };
    offsets.iter().map(|each| entry(each).with_context(|| format!("no offset: {each}"))).collect()
}

/// A plain savepoint of a job under load is not exported; a cut is, to a file and to a group. The job goes on meanwhile.
async fn cut_while_it_runs(job: &mut Job) -> anyhow::Result<Cut> {
    job.weir(&["savepoint", "trigger", "--label", "plain"], 0).await?;
    let refused = job.weir_refuses(&["savepoint", "export", "plain"]).await.context("a plain savepoint is no cut")?;
    ensure!(refused.contains("differently far") && refused.contains("--offset-cut"), "{refused}");
    let started = Instant::now();
    let taken = json(job, &["savepoint", "trigger", "--offset-cut", "--label", "cut"]).await?;
    let took = started.elapsed();
    ensure!(taken["savepoint"]["savepoint_kind"] == "OFFSET_CUT", "{taken}");
    let cut = cut_of(&taken)?;
    ensure!(cut.len() == 2 && cut.values().all(|offset| *offset > 0), "{cut:?}");
    job.running(2).await?;
    job.say(&format!(
        "cut at {cut:?} in {:.2} s, all splits back after {:.2} s",
        took.as_secs_f64(),
        started.elapsed().as_secs_f64()
    ));
    let exported = json(job, &["savepoint", "export", "cut", "--group", &travellers(job)]).await?;
    ensure!(cut_of(&exported)? == cut, "exported {exported}, taken {cut:?}");
    Ok(cut)
}

fn travellers(job: &Job) -> String {
    format!("{}.travellers", job.spec.name)
}

async fn stop_with_cut(job: &mut Job) -> anyhow::Result<Cut> {
    let stopped = json(job, &["stop", "--with-savepoint", "--offset-cut"]).await?;
    for mut process in job.jobmanager.take().into_iter().chain(job.taskmanagers.drain(..)) {
        let status = process.ended(LEAVES).await?;
        ensure!(status.success(), "{} left with {status}:\n{}", process.name, process.tail(10));
    }
    cut_of(&stopped)
}

/// Source positions of all outputs and error events, in the order of each topic-partition.
async fn written(job: &Job) -> anyhow::Result<Vec<(Position, Position)>> {
    let (sink, topics) = (job.spec.sink.clone(), [job.sink_topic(), job.error_topic()]);
    tokio::task::spawn_blocking(move || {
        let mut written = Vec::new();
        for topic in topics {
            for record in read::topic(&sink, &topic)? {
                written.push((record.position(), record.source().map_err(anyhow::Error::msg)?));
            }
        }
        Ok(written)
    })
    .await?
}

/// Positions of inputs from `from` on and below `to` that leave a trace. Told by what is fed, in its order: the source still grows.
fn inputs_between(inputs: &[Input], from: &Cut, to: &Cut) -> BTreeSet<Position> {
    let mut offsets: BTreeMap<&str, i64> = BTreeMap::new();
    let mut inside = BTreeSet::new();
    for input in inputs {
        let next = offsets.entry(input.topic.as_str()).or_default();
        let (partition, offset) = ((input.topic.clone(), 0), *next);
        *next += 1;
        let is_canary = String::from_utf8_lossy(input.value.as_deref().unwrap_or_default()).contains(CANARY);
        let begun = from.get(&partition).is_none_or(|from| offset >= *from);
        if begun && to.get(&partition).is_none_or(|to| offset < *to) && !is_canary {
            inside.insert((partition.0, partition.1, offset));
        }
    }
    inside
}

/// Each input below the cut was written, none above it.
async fn holds_exactly_what_is_below(job: &Job, inputs: &[Input], cut: &Cut) -> anyhow::Result<()> {
    let written: Vec<Position> = written(job).await?.into_iter().map(|(_, source)| source).collect();
    let sources: BTreeSet<Position> = written.iter().cloned().collect();
    ensure!(sources.len() == written.len(), "{} outputs of {} inputs", written.len(), sources.len());
    let below = inputs_between(inputs, &Cut::new(), cut);
    let (missing, beyond) = (below.difference(&sources).count(), sources.difference(&below).count());
    job.say(&format!("stopped at {cut:?}: {} inputs below, {missing} missing, {beyond} beyond", below.len()));
    ensure!(missing == 0 && beyond == 0, "{missing} inputs below the cut are missing, {beyond} above it are written");
    // Whoever goes on from the job's own group finds the cut, too.
    for ((topic, _), offset) in cut {
        let (source, group, topic) = (job.spec.source.clone(), format!("{}.test.000", job.spec.name), topic.clone());
        let (committed, _) =
            tokio::task::spawn_blocking(move || read::committed_of_group(&source, &group, &topic)).await??;
        ensure!(committed == *offset, "the job's group is at {committed}, the cut at {offset}");
    }
    Ok(())
}

/// In each partition of the output, whatever came from below the cut is before whatever came from above it.
async fn came_before_and_after(job: &Job, cut: &Cut) -> anyhow::Result<()> {
    let mut beyond: BTreeSet<(String, i32, (String, i32))> = BTreeSet::new();
    for ((topic, partition, offset), (source, source_partition, source_offset)) in written(job).await? {
        let from = (source, source_partition);
        let above = source_offset >= cut[&from];
        let key = (topic, partition, from);
        if above {
            beyond.insert(key);
        } else {
            ensure!(!beyond.contains(&key), "{key:?}@{offset} is from below the cut, and after what is from above it");
        }
    }
    ensure!(!beyond.is_empty(), "nothing came after the cut");
    Ok(())
}

/// A consumer that knows nothing of Weir starts where the group is, and sees exactly what the job wrote after the cut.
async fn a_plain_consumer_goes_on(job: &Job, inputs: &[Input], first: &Cut, second: &Cut) -> anyhow::Result<()> {
    let (source, group, topics) = (job.spec.source.clone(), travellers(job), job.source_topics());
    let limits = second.clone();
    let seen: BTreeSet<Position> = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
        let mut seen = BTreeSet::new();
        for topic in topics {
            let records = read::from_group(&source, &group, &topic)?;
            let below = |record: &crate::checker::Record| record.offset < limits[&(topic.clone(), record.partition)];
            seen.extend(records.iter().filter(|record| below(record)).map(crate::checker::Record::position));
        }
        Ok(seen)
    })
    .await??;
    let traces = inputs_between(inputs, first, second);
    ensure!(traces.is_subset(&seen), "the consumer has not seen all that came after the cut");
    let after: BTreeSet<Position> = written(job)
        .await?
        .into_iter()
        .map(|(_, source)| source)
        .filter(|(topic, partition, offset)| *offset >= first[&(topic.clone(), *partition)])
        .collect();
    ensure!(after == traces, "{} inputs were written after the cut, the consumer saw {}", after.len(), traces.len());
    ensure!(seen.iter().all(|(topic, partition, offset)| *offset >= first[&(topic.clone(), *partition)]), "too early");
    job.say(&format!("a plain consumer saw the {} inputs after the cut that the job wrote", after.len()));
    Ok(())
}

/// Killed in the middle, the job stands at no cut: another number is refused with the way to it, its own goes on.
async fn refuses_another_number_between_cuts(job: &mut Job) -> anyhow::Result<()> {
    for mut process in job.taskmanagers.drain(..).chain(job.jobmanager.take()) {
        process.kill().await?;
    }
    job.spec.environment.push((OTHER_SPLITS.0, "7"));
    job.start_jobmanager()?;
    let mut refused = job.jobmanager.take().context("it was started")?;
    let status = refused.ended(LEAVES).await?;
    ensure!(status.code() == Some(2), "left with {status}:\n{}", refused.tail(10));
    let text = refused.text();
    ensure!(text.contains("splits_per_partition is 7") && text.contains("--offset-cut"), "{}", refused.tail(5));
    job.spec.environment.pop();
    job.start().await
}

/// The exported offsets come back as a savepoint; going there is guarded. How many records are done again at most.
async fn go_back_by_plain_offsets(job: &mut Job, cut: &Cut) -> anyhow::Result<u64> {
    let file = job.folder.join("offsets.csv");
    let name = file.display().to_string();
    job.weir(&["savepoint", "export", "cut", "--as", "csv", "--to", &name], 0).await?;
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(job.folder.join("half.csv"), text.lines().next().unwrap_or_default())?;
    let half = job.folder.join("half.csv").display().to_string();
    let refused = job.weir_refuses(&["savepoint", "import", &half]).await.context("a partition is missing")?;
    ensure!(refused.contains("no offset is given for"), "{refused}");
    let imported = json(job, &["savepoint", "import", &name, "--label", "back"]).await?;
    ensure!(imported["savepoint"]["savepoint_kind"] == "IMPORTED", "{imported}");
    let refused = job.weir_refuses(&["restore", "back"]).await.context("output beyond it exists")?;
    ensure!(refused.contains("would be done again (--allow-replay)"), "{refused}");
    let restored = json(job, &["restore", "back", "--allow-replay"]).await?;
    let again = restored["replayed_records"].as_u64().context("no replayed_records")?;
    let expected = EVENTS as u64 + again;
    job.say(&format!("back at {cut:?} by plain offsets: {again} records are done again"));
    until("everything to be done again", Duration::from_secs(90), async || {
        let status = job.admin.status().await?;
        let consumed = status.counters.unwrap_or_default().consumed;
        ensure!(consumed <= expected, "counted {consumed}, more than {expected}");
        Ok((consumed == expected && status.state == "RUNNING").then_some(()))
    })
    .await?;
    Ok(again)
}
