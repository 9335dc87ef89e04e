//! What the jobmanager does with Kafka. librdkafka's calls block, so each runs on a thread for blocking work; nothing
//! here is called from the runtime's loop but to be spawned.
//!
//! No group that is written to has members: the lag mirror is committed to plainly, which the broker allows for that
//! reason only. The progress group is written to in transactions, see [`writer`].

mod backend;
mod describe;
mod errors;
mod fence;
mod lock;
mod off_thread;
mod progress;
mod range;
mod replay;
mod replay_writer;
mod sink_ends;
pub(crate) mod source;
mod topics;
mod writer;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use rdkafka::{
    config::ClientConfig,
    consumer::BaseConsumer,
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::sync::{Mutex, Semaphore};
use weir_common::{config::Config, kafka as settings};

use self::off_thread::OffThread;
pub use self::{
    backend::KafkaBackend,
    lock::LockLeadership,
    progress::{ProgressIndex, StoredProgress},
    replay::{Phase, ReplayEnd, ReplayRequest, ReplayStep, Topics},
};
use crate::leadership::Term;

/// It logs through tracing.
type Consumer = BaseConsumer<settings::LoggingContext>;

/// Time for metadata, watermarks and plain commits.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Fences at once: each is a client with its own threads.
const MAX_FENCES: usize = 8;

/// What did not work, by what the caller can do about it. The texts name topic, group or address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KafkaProblem {
    /// Starting again changes nothing.
    #[error("{0}")]
    Configuration(String),
    /// A transaction with offsets is open or its end is on the way: progress is not stable yet. Never "no progress".
    #[error("{0}")]
    Pending(String),
    /// No answer.
    #[error("{0}")]
    Unreachable(String),
    /// The lag mirror's group has members, so that it cannot be committed to.
    #[error("{0}")]
    GroupHasMembers(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl From<KafkaProblem> for crate::Exit {
    fn from(problem: KafkaProblem) -> Self {
        match problem {
            KafkaProblem::Configuration(text) => Self::Configuration(text),
            KafkaProblem::Pending(text) | KafkaProblem::Unreachable(text) => Self::Unreachable(text),
            KafkaProblem::GroupHasMembers(text) | KafkaProblem::Failed(text) => Self::Failed(anyhow::anyhow!(text)),
        }
    }
}

/// The jobmanager's Kafka clients. Cheap to clone.
#[derive(Clone)]
pub struct Kafka {
    shared: Arc<Shared>,
}

struct Shared {
    config: Arc<Config>,
    /// Sink cluster, group `<job>.progress`, `read_committed`.
    progress: OffThread<Consumer>,
    /// Source cluster, the lag mirror's group.
    source: OffThread<Consumer>,
    fences: Semaphore,
    /// The leadership that these clients write for.
    term: OnceLock<Arc<dyn Term>>,
    /// `None` after a write in doubt.
    writer: Mutex<Option<writer::Client>>,
    /// Held while inputs are sent through again: one operator at a time.
    replaying: Arc<Mutex<()>>,
}

impl std::fmt::Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kafka").field("job", &self.shared.job()).finish_non_exhaustive()
    }
}

impl Shared {
    fn job(&self) -> &str {
        &self.config.stream_manager.job_name
    }

    fn sink_address(&self) -> &str {
        &self.config.stream_manager.sink.options.bootstrap_servers
    }

    fn source_address(&self) -> &str {
        &self.config.stream_manager.source.options.bootstrap_servers
    }

    /// Whether it is the job's own topic of inputs that are done again, on the sink cluster.
    fn is_replay(&self, topic: &str) -> bool {
        settings::is_replay_topic(self.job(), topic)
    }

    /// Who asks for offsets of a topic that the job reads, and where.
    fn of_read(&self, topic: &str) -> (&Consumer, &str) {
        if self.is_replay(topic) {
            (&self.progress, self.sink_address())
        } else {
            (&self.source, self.source_address())
        }
    }
}

impl Kafka {
    /// Makes the clients; nothing is sent yet.
    ///
    /// # Errors
    /// librdkafka does not accept the properties.
    pub fn new(config: &Arc<Config>) -> Result<Self, KafkaProblem> {
        let shared = Shared {
            progress: OffThread::new(consumer(&settings::progress_consumer(config), "progress", "sink")?),
            source: OffThread::new(consumer(&settings::mirror_consumer(config), "mirror", "source")?),
            config: Arc::clone(config),
            fences: Semaphore::new(MAX_FENCES),
            term: OnceLock::new(),
            writer: Mutex::new(None),
            replaying: Arc::new(Mutex::new(())),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Runs on a thread that may block. Dropping the future leaves the call running to its own time-out.
    async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Arc<Shared>) -> Result<T, KafkaProblem> + Send + 'static,
    ) -> Result<T, KafkaProblem> {
        let shared = Arc::clone(&self.shared);
        match tokio::task::spawn_blocking(move || call(&shared)).await {
            Ok(result) => result,
            Err(error) => Err(KafkaProblem::Failed(format!("a call to Kafka was abandoned: {error}"))),
        }
    }
}

fn consumer(config: &ClientConfig, name: &str, section: &str) -> Result<Consumer, KafkaProblem> {
    config.create_with_context(settings::LoggingContext::new(name)).map_err(|error| refused(section, &error))
}

fn refused(section: &str, error: &KafkaError) -> KafkaProblem {
    KafkaProblem::Configuration(format!(
        "librdkafka does not accept the properties of stream_manager.{section}.options: {error}"
    ))
}

/// Sorts librdkafka's errors; `what` says what was asked of whom.
fn problem(what: &str, error: &KafkaError) -> KafkaProblem {
    let text = match error.rdkafka_error_code() {
        Some(code) => format!("{what}: {code}"),
        None => format!("{what}: {error}"),
    };
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::RequestTimedOut
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::WaitingForCoordinator
            | RDKafkaErrorCode::NotCoordinator
            | RDKafkaErrorCode::CoordinatorNotAvailable
            | RDKafkaErrorCode::CoordinatorLoadInProgress
            // A broker that went while it was asked, a partition that is between two leaders or has just got one.
            | RDKafkaErrorCode::DestroyBroker
            | RDKafkaErrorCode::NetworkException
            | RDKafkaErrorCode::BrokerNotAvailable
            | RDKafkaErrorCode::LeaderNotAvailable
            | RDKafkaErrorCode::NotLeaderForPartition
            | RDKafkaErrorCode::ReplicaNotAvailable
            | RDKafkaErrorCode::OffsetNotAvailable
            | RDKafkaErrorCode::FencedLeaderEpoch
            | RDKafkaErrorCode::UnknownLeaderEpoch
            | RDKafkaErrorCode::KafkaStorageError
            | RDKafkaErrorCode::NotEnoughReplicas
            | RDKafkaErrorCode::NotEnoughReplicasAfterAppend,
        ) => KafkaProblem::Unreachable(format!("{text}; check that it runs, and its bootstrap_servers")),
        Some(
            RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::Authentication,
        ) => KafkaProblem::Configuration(format!("{text}; give the job's user that right, or set other credentials")),
        _ => KafkaProblem::Failed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_is_unreachable_and_rights_are_configuration() {
        use RDKafkaErrorCode as Code;
        let sorted = |code| problem("asking", &KafkaError::MetadataFetch(code));
        for code in [Code::AllBrokersDown, Code::DestroyBroker, Code::NotCoordinator, Code::OffsetNotAvailable] {
            assert!(matches!(sorted(code), KafkaProblem::Unreachable(_)), "{code:?}");
        }
        assert!(matches!(sorted(Code::TopicAuthorizationFailed), KafkaProblem::Configuration(_)));
        assert!(matches!(sorted(Code::InvalidMessage), KafkaProblem::Failed(_)));
    }
}
