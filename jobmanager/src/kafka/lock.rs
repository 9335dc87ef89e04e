//! One jobmanager a job: the only member of the consumer group `<job>.jobmanager`, which shows in that it was assigned all
//! partitions of the sink topic.
//!
//! A dead holder's membership ends with its session, so a newcomer first waits until the group is empty. Where the broker
//! does not tell, or two join at once, the assignment decides: the group's partitions are shared, nobody who joins gets
//! them all, and of two newcomers the one without partition 0 gives up first. A holder keeps the lock while it keeps any.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::KafkaError,
    topic_partition_list::TopicPartitionListElem,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weir_common::{ids::LeaderEpoch, kafka as settings};

use super::{Kafka, Shared, problem, refused, topics::partition_count};
use crate::{
    Exit,
    leadership::{Leadership, Term},
};

/// A killed holder's membership ends after it.
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

/// How long a newcomer waits for a dead holder's session to end and for its own assignment.
const PATIENCE: Duration = Duration::from_secs(12);

/// How often the group is looked at and the consumer polled.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

const GROUP_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

const DECIDING_PARTITION: i32 = 0;

/// Says what goes wrong with the membership at debug alone: that nothing can be fetched is meant, and what matters shows
/// in the assignment.
struct Quiet;

type Member = BaseConsumer<Quiet>;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", client = "job-lock", facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", client = "job-lock", %error, "{reason}");
    }
}

impl ConsumerContext for Quiet {}

/// How a jobmanager leads that has no standby: it takes the lock, or is refused.
#[derive(Debug)]
pub struct LockLeadership {
    kafka: Kafka,
    topic: String,
    leader: watch::Sender<Option<String>>,
    lock: Mutex<Option<Arc<JobLock>>>,
}

impl LockLeadership {
    /// By membership in a group that reads `topic`, which exists. `address`: where others reach this jobmanager.
    #[must_use]
    pub fn new(kafka: Kafka, topic: &str, address: &str) -> Self {
        let leader = watch::Sender::new(Some(address.to_owned()));
        Self { kafka, topic: topic.to_owned(), leader, lock: Mutex::new(None) }
    }
}

#[async_trait]
impl Leadership for LockLeadership {
    async fn lead(&self) -> Result<Arc<dyn Term>, Exit> {
        let topic = self.topic.clone();
        let lock = Arc::new(self.kafka.blocking(move |shared| Ok(acquire(shared, &topic))).await??);
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&lock));
        Ok(lock)
    }

    fn stands_by(&self) -> bool {
        false
    }

    fn leader(&self) -> watch::Receiver<Option<String>> {
        self.leader.subscribe()
    }

    async fn release(&self) {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(lock) = lock {
            let _ = tokio::task::spawn_blocking(move || lock.release()).await;
        }
    }
}

/// The lock, held until it is released or lost.
#[derive(Debug)]
struct JobLock {
    lost: CancellationToken,
    /// When the thread that keeps it last saw that it is held.
    seen: Arc<Mutex<Instant>>,
    release: CancellationToken,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

impl JobLock {
    /// Leaves the group, so that a successor need not wait.
    fn release(&self) {
        self.release.cancel();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Drop for JobLock {
    fn drop(&mut self) {
        self.release.cancel();
    }
}

#[async_trait]
impl Term for JobLock {
    /// What Kafka and storage know of epochs is enough.
    fn epoch(&self) -> LeaderEpoch {
        LeaderEpoch(0)
    }

    fn leads(&self) -> bool {
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // A process that was stopped does not say a word before it has looked again.
        !self.lost.is_cancelled() && seen.elapsed() < PATIENCE
    }

    async fn lost(&self) -> String {
        self.lost.cancelled().await;
        "another jobmanager has taken the job's lock while this one was cut off from Kafka: it leads now".to_owned()
    }

    async fn confirm(&self, _: LeaderEpoch) -> Result<(), String> {
        if self.leads() { Ok(()) } else { Err("the job's lock is not held".to_owned()) }
    }
}

/// `Err(Refused)`: another jobmanager of the job lives.
fn acquire(shared: &Arc<Shared>, topic: &str) -> Result<JobLock, Exit> {
    let group = format!("{}.jobmanager", shared.job());
    let deadline = Instant::now() + PATIENCE;
    let mut waited = false;
    while let Some(holder) = members(shared, &group).unwrap_or_default().into_iter().next() {
        if Instant::now() >= deadline {
            return Err(taken(shared, &group, &holder));
        }
        if !waited {
            tracing::info!(group, holder, "waiting for the former jobmanager's session to end");
            waited = true;
        }
        thread::sleep(POLL_INTERVAL);
    }
    let mut config = settings::progress_consumer(&shared.config);
    let name = format!("weir-jobmanager-{}", uuid::Uuid::new_v4());
    config
        .set("client.id", &name)
        .set("group.id", &group)
        .set("group.protocol", "classic")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", SESSION_TIMEOUT.as_millis().to_string())
        .set("heartbeat.interval.ms", "1500")
        .set("enable.auto.commit", "false")
        // Nothing is committed in this group, so that no record of the topic is ever fetched.
        .set("auto.offset.reset", "error");
    let consumer: Member = config.create_with_context(Quiet).map_err(|error| refused("sink", &error))?;
    let what = format!("joining group {group} at {}", shared.sink_address());
    consumer.subscribe(&[topic]).map_err(|error| problem(&what, &error))?;
    let all = partition_count(&shared.progress, topic, shared.sink_address())?.unwrap_or(1);
    let joined = Instant::now();
    loop {
        let held = held(&consumer, topic);
        if held.len() >= usize::try_from(all).unwrap_or(usize::MAX) {
            break;
        }
        let patience = if held.contains(&DECIDING_PARTITION) { PATIENCE * 2 } else { PATIENCE };
        if joined.elapsed() >= patience {
            let members = members(shared, &group).unwrap_or_default();
            let other = members.into_iter().find(|member| !member.starts_with(&name));
            let holder = other.unwrap_or_else(|| "another member".to_owned());
            return Err(taken(shared, &group, &holder));
        }
        let _ = consumer.poll(POLL_INTERVAL);
    }
    Ok(keep(Keeper { shared: Arc::clone(shared), consumer, topic: topic.to_owned(), group, name }))
}

fn taken(shared: &Shared, group: &str, holder: &str) -> Exit {
    Exit::Refused(format!(
        "another jobmanager of job {} lives: {holder} is a member of group {group} at {}; stop it first, or give this job \
         another stream_manager.job_name",
        shared.job(),
        shared.sink_address()
    ))
}

/// Members by client id and host. `None` where the broker does not tell (librdkafka's mock).
fn members(shared: &Shared, group: &str) -> Option<Vec<String>> {
    let list = shared.progress.client().fetch_group_list(Some(group), GROUP_REQUEST_TIMEOUT).ok()?;
    let members = list.groups().iter().flat_map(rdkafka::groups::GroupInfo::members);
    Some(members.map(|member| format!("{} at {}", member.client_id(), member.client_host())).collect())
}

fn held(consumer: &Member, topic: &str) -> Vec<i32> {
    let Ok(assignment) = consumer.assignment() else { return Vec::new() };
    assignment.elements_for_topic(topic).iter().map(TopicPartitionListElem::partition).collect()
}

/// Polls the consumer, as membership needs, until the lock is released or lost.
fn keep(keeper: Keeper) -> JobLock {
    let (lost, release) = (CancellationToken::new(), CancellationToken::new());
    let seen = Arc::new(Mutex::new(Instant::now()));
    let (told, released, shown) = (lost.clone(), release.clone(), Arc::clone(&seen));
    let thread = thread::Builder::new().name("job-lock".to_owned()).spawn(move || keeper.run(&told, &released, &shown));
    JobLock { lost, seen, release, thread: Mutex::new(thread.ok()) }
}

/// Who keeps the lock.
struct Keeper {
    shared: Arc<Shared>,
    consumer: Member,
    topic: String,
    group: String,
    /// Its client id, which no other process has.
    name: String,
}

impl Keeper {
    fn run(self, lost: &CancellationToken, released: &CancellationToken, seen: &Mutex<Instant>) {
        let mut missing_since: Option<Instant> = None;
        let mut looked = Instant::now();
        while !released.is_cancelled() {
            let _ = self.consumer.poll(POLL_INTERVAL);
            // This process was stopped for longer than its membership lasts: who has come meanwhile?
            let stopped = looked.elapsed() > SESSION_TIMEOUT;
            if !held(&self.consumer, &self.topic).is_empty() {
                missing_since = None;
            }
            let missing = missing_since.get_or_insert_with(Instant::now).elapsed() > PATIENCE;
            if stopped || missing {
                // Without an assignment and alone: the broker was away, and the membership comes back.
                if self.others().is_some_and(|others| others > 0) {
                    lost.cancel();
                    break;
                }
                missing_since = None;
            }
            looked = Instant::now();
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = looked;
        }
        self.consumer.unsubscribe();
    }

    /// Other members of the group; `None` where nobody answers.
    fn others(&self) -> Option<usize> {
        let members = members(&self.shared, &self.group)?;
        Some(members.iter().filter(|member| !member.starts_with(&self.name)).count())
    }
}
