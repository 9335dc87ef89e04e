//! One jobmanager a job: the only member of the consumer group `<job>.jobmanager`, which shows in that it was assigned all
//! partitions of the sink topic.
//!
//! A dead holder's membership ends with its session, so a newcomer first waits until the group is empty. Where the broker
//! does not tell, or two join at once, the assignment decides: the group's partitions are shared, nobody who joins gets
//! them all, and of two newcomers the one without partition 0 gives up first. A holder keeps the lock while it keeps any.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::KafkaError,
    topic_partition_list::TopicPartitionListElem,
};
use tokio_util::sync::CancellationToken;
use weir_common::kafka as settings;

use super::{Kafka, Shared, problem, refused, topics::partition_count};

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

/// The lock, held. Dropping it leaves the group, so that a successor need not wait.
#[derive(Debug)]
pub struct JobLock {
    lost: CancellationToken,
    release: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
}

impl JobLock {
    /// Ends when another jobmanager has taken the lock.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for JobLock {
    fn drop(&mut self) {
        self.release.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Kafka {
    /// Takes the job's lock.
    ///
    /// # Errors
    /// `Err(Ok(text))`: another jobmanager of the job lives. `Err(Err(..))`: the group does not answer.
    pub async fn lock(&self, topic: &str) -> Result<JobLock, crate::Exit> {
        let topic = topic.to_owned();
        self.blocking(move |shared| Ok(acquire(shared, &topic))).await?
    }
}

fn acquire(shared: &Arc<Shared>, topic: &str) -> Result<JobLock, crate::Exit> {
    let group = format!("{}.jobmanager", shared.job());
    let deadline = Instant::now() + PATIENCE;
    let mut waited = false;
    while let Some(holder) = members(shared, &group).into_iter().next() {
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
    config
        .set("client.id", format!("weir-jobmanager-{}", std::process::id()))
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
            let holder = members(shared, &group).into_iter().next().unwrap_or_else(|| "another member".to_owned());
            return Err(taken(shared, &group, &holder));
        }
        let _ = consumer.poll(POLL_INTERVAL);
    }
    Ok(keep(Arc::clone(shared), consumer, topic.to_owned(), group))
}

fn taken(shared: &Shared, group: &str, holder: &str) -> crate::Exit {
    crate::Exit::Refused(format!(
        "another jobmanager of job {} lives: {holder} is a member of group {group} at {}; stop it first, or give this job \
         another stream_manager.job_name",
        shared.job(),
        shared.sink_address()
    ))
}

/// Members by client id and host. Empty as well where the broker does not tell (librdkafka's mock).
fn members(shared: &Shared, group: &str) -> Vec<String> {
    let Ok(list) = shared.progress.client().fetch_group_list(Some(group), GROUP_REQUEST_TIMEOUT) else {
        return Vec::new();
    };
    let members = list.groups().iter().flat_map(rdkafka::groups::GroupInfo::members);
    members.map(|member| format!("{} at {}", member.client_id(), member.client_host())).collect()
}

fn held(consumer: &Member, topic: &str) -> Vec<i32> {
    let Ok(assignment) = consumer.assignment() else { return Vec::new() };
    assignment.elements_for_topic(topic).iter().map(TopicPartitionListElem::partition).collect()
}

/// Polls the consumer, as membership needs, until the lock is released or lost.
fn keep(shared: Arc<Shared>, consumer: Member, topic: String, group: String) -> JobLock {
    let (lost, release) = (CancellationToken::new(), CancellationToken::new());
    let (tell_lost, released) = (lost.clone(), release.clone());
    let thread = thread::Builder::new().name("job-lock".to_owned()).spawn(move || {
        let mut missing_since: Option<Instant> = None;
        while !released.is_cancelled() {
            let _ = consumer.poll(POLL_INTERVAL);
            if !held(&consumer, &topic).is_empty() {
                missing_since = None;
            } else if missing_since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                // Without an assignment and alone: the broker was away, and the membership comes back.
                if members(&shared, &group).len() > 1 {
                    tell_lost.cancel();
                    break;
                }
                missing_since = None;
            }
        }
        consumer.unsubscribe();
    });
    JobLock { lost, release, thread: thread.ok() }
}
