//! The limit that a comparison is held against: consume, fetch, produce, as one writes it in an afternoon. Nothing is kept in
//! order, validated, retried or committed with its output; what fails ends the loop.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use rdkafka::{
    ClientConfig, Message as _,
    consumer::{BaseConsumer, Consumer as _},
    error::RDKafkaErrorCode,
    producer::{BaseRecord, DefaultProducerContext, ThreadedProducer},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{runtime::Handle, sync::Semaphore};

/// Requests at once, as many as a taskmanager may have.
const REQUESTS: usize = 64;

/// A batch that is not full waits this long for more.
const LINGER: Duration = Duration::from_millis(5);

/// What to loop over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Loop {
    pub(crate) bootstrap: String,
    pub(crate) source: String,
    pub(crate) sink: String,
    /// URL of `api.php`.
    pub(crate) api: String,
    /// Revisions asked for together.
    pub(crate) revisions: usize,
}

#[derive(Deserialize)]
struct Answer {
    query: Query,
}

#[derive(Deserialize)]
struct Query {
    pages: Vec<Page>,
}

#[derive(Deserialize)]
struct Page {
    revisions: Vec<Revision>,
}

#[derive(Deserialize)]
struct Revision {
    revid: u64,
    slots: BTreeMap<String, Slot>,
}

#[derive(Deserialize)]
struct Slot {
    contentmodel: String,
    contentformat: String,
    content: String,
}

/// An event and its key.
struct Input {
    key: Vec<u8>,
    event: Value,
}

struct Worker {
    plan: Loop,
    http: reqwest::Client,
    producer: ThreadedProducer<DefaultProducerContext>,
}

/// Loops until the process is ended.
pub(crate) async fn run(plan: Loop) -> anyhow::Result<()> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &plan.bootstrap)
        .set("group.id", format!("bare-{}", plan.sink))
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        .create()?;
    consumer.subscribe(&[&plan.source])?;
    // As durable, and compressed, as the job's own output.
    let producer = ClientConfig::new()
        .set("bootstrap.servers", &plan.bootstrap)
        .set("enable.idempotence", "true")
        .set("compression.codec", "lz4")
        .set("linger.ms", "5")
        .set("message.max.bytes", "10485760")
        .create()?;
    // Reqwest wants one to be there, though nothing is encrypted here.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().pool_max_idle_per_host(REQUESTS).build()?;
    let worker = Arc::new(Worker { plan, http, producer });
    tokio::task::spawn_blocking(move || consume(&worker, &consumer)).await?
}

fn consume(worker: &Arc<Worker>, consumer: &BaseConsumer) -> anyhow::Result<()> {
    let requests = Arc::new(Semaphore::new(REQUESTS));
    let mut waiting: HashMap<String, Vec<Input>> = HashMap::new();
    let mut since = Instant::now();
    loop {
        if let Some(message) = consumer.poll(LINGER) {
            let message = message?;
            let event: Value = serde_json::from_slice(message.payload().context("a record without value")?)?;
            let domain = event["meta"]["domain"].as_str().context("an event without domain")?.to_owned();
            let batch = waiting.entry(domain.clone()).or_default();
            batch.push(Input { key: message.key().unwrap_or_default().to_vec(), event });
            if batch.len() >= worker.plan.revisions {
                let batch = std::mem::take(batch);
                worker.start(domain, batch, &requests)?;
            }
        }
        if since.elapsed() >= LINGER {
            since = Instant::now();
            for (domain, batch) in waiting.iter_mut().filter(|(_, batch)| !batch.is_empty()) {
                worker.start(domain.clone(), std::mem::take(batch), &requests)?;
            }
        }
    }
}

impl Worker {
    fn start(self: &Arc<Self>, domain: String, batch: Vec<Input>, requests: &Arc<Semaphore>) -> anyhow::Result<()> {
        let turn = Handle::current().block_on(Arc::clone(requests).acquire_owned())?;
        let worker = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(why) = worker.work(&domain, batch).await {
                eprintln!("{why:#}");
                std::process::exit(1);
            }
            drop(turn);
        });
        Ok(())
    }

    async fn work(&self, domain: &str, batch: Vec<Input>) -> anyhow::Result<()> {
        let rev_id = |input: &Input| input.event["revision"]["rev_id"].as_u64().context("an event without revision");
        let ids = batch.iter().map(|input| Ok(rev_id(input)?.to_string())).collect::<anyhow::Result<Vec<_>>>()?;
        let ids = ids.join("|");
        let parameters = [
            ("action", "query"),
            ("format", "json"),
            ("formatversion", "2"),
            ("prop", "revisions"),
            ("rvprop", "ids|contentmodel|content"),
            ("rvslots", "*"),
            ("revids", &ids),
        ];
        let response = self.http.get(&self.plan.api).header("host", domain).query(&parameters).send().await?;
        let answer: Answer = serde_json::from_slice(&response.bytes().await?)?;
        let revisions = answer.query.pages.into_iter().flat_map(|page| page.revisions);
        let mut revisions: HashMap<u64, Revision> = revisions.map(|revision| (revision.revid, revision)).collect();
        for mut input in batch {
            let revision = revisions.remove(&rev_id(&input)?).context("a revision is missing")?;
            for (role, slot) in revision.slots {
                let filled = &mut input.event["revision"]["content_slots"][role];
                filled["content_model"] = Value::String(slot.contentmodel);
                filled["content_format"] = Value::String(slot.contentformat);
                filled["content_body"] = Value::String(slot.content);
            }
            self.produce(&input.key, &serde_json::to_vec(&input.event)?).await?;
        }
        Ok(())
    }

    async fn produce(&self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        let mut record = BaseRecord::to(&self.plan.sink).key(key).payload(value);
        while let Err((error, refused)) = self.producer.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            record = refused;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }
}
