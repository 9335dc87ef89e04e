//! Records that Kafka refuses: the sink's topic takes less than it took when the job started.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::ensure;
use rand::{RngExt, SeedableRng, distr::Alphanumeric, rngs::StdRng};

use super::environment::{Environment, Stub};
use crate::{
    checker::{Position, Record, event::Expected, json, read},
    events::Maker,
    harness::{
        job::Job,
        kafka::{self, Input, produce},
    },
};

const EVENTS: usize = 1500;
const PER_SECOND: u32 = 150;
/// One in so many is larger than the topic takes later.
const ONE_IN: usize = 50;
const LARGE: usize = 150_000;
/// Below a batch of many small records, so that innocent ones are refused with theirs, too.
const LIMIT: u32 = 60_000;
/// Begin of the comment that makes a record too large.
const POISON: &str = "too-large";

pub(super) async fn topic_limit(environment: Arc<Environment>) -> anyhow::Result<()> {
    let stub = environment.stub("topic-limit", "10 ms", "0", 2000).await?;
    let mut job = environment.job("topic-limit", &stub.api).await?;
    let (sink, topic) = (job.spec.sink.clone(), job.sink_topic());
    refused(&mut job, &stub, async || kafka::set_topic_limit(&sink, &topic, LIMIT).await).await
}

/// The same by the broker's own limit, which the topic inherits.
pub(super) async fn broker_limit(environment: Arc<Environment>) -> anyhow::Result<()> {
    let stub = environment.stub("broker-limit", "10 ms", "0", 2000).await?;
    let broker = environment.own_kafka("kafka-limit").await?;
    let mut spec = environment.spec("broker-limit", &stub.api).await?;
    (spec.source, spec.sink) = (broker.bootstrap.clone(), broker.bootstrap.clone());
    let mut job = Job::prepare(&environment.workspace, spec).await?;
    // What is read, and error events, stay as they are.
    for topic in job.source_topics().into_iter().chain([job.error_topic()]) {
        kafka::set_topic_limit(&broker.bootstrap, &topic, 10_000_000).await?;
    }
    refused(&mut job, &stub, async || kafka::set_broker_limit(&broker.bootstrap, LIMIT).await).await
}

async fn refused(job: &mut Job, stub: &Stub, lower: impl AsyncFn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut maker = Maker::new(30, job.source_topics());
    let before = enlarge(maker.from_stub(&stub.truth, 150, EVENTS / 3), "fits-still");
    let after = Arc::new(enlarge(maker.from_stub(&stub.truth, 150, EVENTS), POISON));
    job.start().await?;
    produce(&job.spec.source, &before, 0).await?;
    job.all_done(before.len() as u64, Duration::from_secs(60)).await?;

    lower().await?;
    let feeding = job.feed(&after, PER_SECOND);
    feeding.await??;
    job.all_done((before.len() + after.len()) as u64, Duration::from_secs(90)).await?;
    let status = job.admin.status().await?;
    let recycles: u64 = job.admin.taskmanagers().await?.iter().map(|info| info.recycles).sum();
    let poison = after.iter().filter(|input| is_poison(input.value.as_deref())).count();
    job.say(&format!("{poison} records over the limit: {recycles} recycles, {} restarts", status.restarts));
    ensure!(status.restarts == 0, "{} slots or taskmanagers were lost over refused records", status.restarts);
    job.shut_down().await?;
    job.verdict(&stub.truth, &overrides).await?;
    told_with_sizes(job, poison).await?;
    // The limit is learned from the first refusals: later records are not even tried.
    ensure!(recycles <= 12, "{recycles} recycles for {poison} refused records");
    Ok(())
}

/// Gives some events a long comment that does not compress.
fn enlarge(mut inputs: Vec<Input>, mark: &str) -> Vec<Input> {
    let mut rng = StdRng::seed_from_u64(31);
    for input in inputs.iter_mut().step_by(ONE_IN) {
        let comment: String = (&mut rng).sample_iter(Alphanumeric).take(LARGE).map(char::from).collect();
        let text = String::from_utf8_lossy(input.value.as_deref().unwrap_or_default()).into_owned();
        let text = text.replace(r#""comment":"""#, &format!(r#""comment":"{mark} {comment}""#));
        input.value = Some(text.into_bytes());
    }
    inputs
}

fn is_poison(value: Option<&[u8]>) -> bool {
    let text = String::from_utf8_lossy(value.unwrap_or_default());
    text.contains(&format!(r#""comment":"{POISON} "#)) && !text.contains(r#""domain":"canary""#)
}

fn overrides(inputs: &[Record]) -> BTreeMap<Position, Expected> {
    let poison = inputs.iter().filter(|input| is_poison(input.value.as_deref()));
    poison.map(|input| (input.position(), Expected::Error)).collect()
}

/// Each error event says how large the record was and what the topic takes.
async fn told_with_sizes(job: &Job, poison: usize) -> anyhow::Result<()> {
    let (sink, topic) = (job.spec.sink.clone(), job.error_topic());
    let errors = tokio::task::spawn_blocking(move || read::topic(&sink, &topic)).await??;
    let texts = errors.iter().filter_map(|event| std::str::from_utf8(event.value.as_deref()?).ok());
    let refused = |text: &&str| json::text_at(text, &["error_type"]).as_deref() == Some("output_refused");
    let messages: Vec<String> = texts.filter(refused).filter_map(|text| json::text_at(text, &["message"])).collect();
    ensure!(!messages.is_empty() && messages.len() <= poison, "{} error events of {poison}", messages.len());
    for message in &messages {
        let sizes = message.contains(&format!("{LIMIT}")) && message.contains("bytes");
        ensure!(sizes, "an error event without sizes: {message}");
    }
    job.say(&format!("{} error events, for example: {}", messages.len(), messages[0]));
    Ok(())
}
