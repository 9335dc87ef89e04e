//! The jobmanager's own writes to the progress group: transactions of the id `<job>.jobmanager`.
//!
//! A leadership initialises that id before it reads what it decides over, so that the broker refuses from then on what an
//! earlier leader, or a request of it that was lost on its way, still writes. A plain commit has no such lock: one that
//! timed out could land after a newer one.
//!
//! Initialising is last caller wins. So a producer counts only once the leadership was confirmed *after* its
//! initialisation: a former leader that initialises late writes nothing, and the present one, fenced by it, initialises
//! anew. The doubt rule holds here as it does for a sink, and each write is read back.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    consumer::Consumer as _,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, Producer as _},
    util::Timeout,
};
use weir_common::{
    ids::LeaderEpoch,
    kafka::{self as settings, doubt::DoubtingContext},
};

use super::{
    Kafka, KafkaProblem, Shared,
    off_thread::OffThread,
    problem,
    progress::{Committed, committed, lists},
    refused,
};
use crate::leadership::Term;

/// Initialising waits for the end of a commit that had begun.
const INIT_TIMEOUT: Duration = Duration::from_secs(30);

/// A write that is in doubt is done again by a new producer, so often.
const ATTEMPTS: usize = 3;

pub(super) type Client = Arc<OffThread<BaseProducer<DoubtingContext>>>;

impl Kafka {
    /// Takes over the right to write, as long as `term` lasts.
    ///
    /// # Errors
    /// The cluster does not answer, or the leadership has ended.
    pub async fn begin_leadership(&self, term: Arc<dyn Term>) -> Result<(), KafkaProblem> {
        if self.shared.term.set(term).is_err() {
            return Err(KafkaProblem::Failed("these clients have begun a leadership already".to_owned()));
        }
        let mut writer = self.shared.writer.lock().await;
        *writer = Some(self.open().await?);
        Ok(())
    }

    /// Writes offsets of the progress group and reads them back. One write at a time.
    ///
    /// # Errors
    /// Some of it may be written.
    pub(super) async fn commit(&self, entries: Committed) -> Result<(), KafkaProblem> {
        let mut writer = self.shared.writer.lock().await;
        let mut attempt = 1;
        loop {
            match self.attempt(&mut writer, entries.clone()).await {
                Err(error) if attempt < ATTEMPTS && self.term()?.leads() => {
                    tracing::warn!(attempt, %error, "writing to the progress group is in doubt: again, by a new producer");
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    async fn attempt(&self, writer: &mut Option<Client>, entries: Committed) -> Result<(), KafkaProblem> {
        let client = match writer.take() {
            Some(client) if client.context().flag.get().is_none() => client,
            _in_doubt => self.open().await?,
        };
        let (client, written) = self
            .blocking(move |shared| {
                let written = write(&client, shared, &entries);
                Ok((client, written))
            })
            .await?;
        let doubt = client.context().flag.get();
        match (written, doubt) {
            (Ok(()), None) => {
                *writer = Some(client);
                Ok(())
            }
            (written, doubt) => {
                let of_doubt = |doubt| KafkaProblem::Unreachable(format!("writing to the progress group: {doubt}"));
                written.and(doubt.map_or(Ok(()), |doubt| Err(of_doubt(doubt))))
            }
        }
    }

    fn term(&self) -> Result<&Arc<dyn Term>, KafkaProblem> {
        self.shared.term.get().ok_or_else(|| KafkaProblem::Failed("this jobmanager has not begun to lead".to_owned()))
    }

    /// A producer of which the broker knows, with the leadership confirmed after that.
    async fn open(&self) -> Result<Client, KafkaProblem> {
        let term = Arc::clone(self.term()?);
        let client = self.blocking(|shared| initialise(shared)).await?;
        let confirmed = term.confirm(LeaderEpoch(0)).await;
        confirmed
            .map_err(|reason| KafkaProblem::Failed(format!("this jobmanager does not lead any more: {reason}")))?;
        Ok(client)
    }
}

/// `<job>.jobmanager`: names the writer. No slot's id, which ends in a number.
#[must_use]
pub(super) fn transactional_id(job: &str) -> String {
    format!("{job}.jobmanager")
}

fn initialise(shared: &Shared) -> Result<Client, KafkaProblem> {
    let id = transactional_id(shared.job());
    let config = settings::sink_producer(&shared.config, Some(&id));
    let client: BaseProducer<DoubtingContext> =
        config.create_with_context(DoubtingContext::new("jobmanager")).map_err(|error| refused("sink", &error))?;
    let client = Arc::new(OffThread::new(client));
    let what = format!("initialising {id} at {}", shared.sink_address());
    client.init_transactions(INIT_TIMEOUT).map_err(|error| problem(&what, &error))?;
    // Trouble on the way here is over: a new epoch has begun.
    client.context().flag.clear();
    Ok(client)
}

fn write(client: &Client, shared: &Shared, entries: &Committed) -> Result<(), KafkaProblem> {
    let what = format!("writing to group {} at {}", settings::progress_topic(shared.job()), shared.sink_address());
    let failed = |error: &KafkaError| match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch) => {
            KafkaProblem::Failed(format!("{what}: another jobmanager has initialised the writer: {error}"))
        }
        _ => problem(&what, error),
    };
    let group = shared.progress.group_metadata();
    let group = group.ok_or_else(|| KafkaProblem::Failed("the progress group has no metadata".to_owned()))?;
    let group = Arc::new(group);
    client.begin_transaction().map_err(|error| failed(&error))?;
    for list in lists(shared, entries).map_err(|error| failed(&error))? {
        let (client, group) = (Arc::clone(client), Arc::clone(&group));
        let send = move |timeout| client.send_offsets_to_transaction(&list, &group, timeout);
        settings::send_offsets(send).map_err(|error| failed(&error))?;
    }
    client.commit_transaction(Timeout::Never).map_err(|error| failed(&error))?;
    let mut read = committed(shared, entries.iter().map(|(partition, ..)| *partition))?;
    let mut wanted = entries.clone();
    read.sort();
    wanted.sort();
    if read == wanted {
        return Ok(());
    }
    Err(KafkaProblem::Failed(format!(
        "what was written to group {} is not what is read back; does something else write to it?",
        settings::progress_topic(shared.job())
    )))
}
