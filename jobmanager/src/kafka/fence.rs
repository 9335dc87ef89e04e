//! Fencing: the broker refuses a slot's former owner.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    config::RDKafkaLogLevel,
    producer::{BaseProducer, Producer as _},
};
use weir_common::{ids::SlotId, kafka as settings};

use super::{Kafka, KafkaProblem, off_thread::OffThread, problem, refused};

/// Initialising waits for the end of a commit that had begun.
const INIT_TIMEOUT: Duration = Duration::from_secs(30);

impl Kafka {
    /// Initialises the slot's transactional id by a producer that does nothing else: aborts what was open, and makes the
    /// broker refuse whoever had it. At most a few at once.
    ///
    /// # Errors
    /// It is not known to be fenced; fencing again does no harm.
    pub async fn fence(&self, slot: SlotId) -> Result<(), KafkaProblem> {
        let shared = Arc::clone(&self.shared);
        let Ok(_permit) = shared.fences.acquire().await else {
            return Err(KafkaProblem::Failed("fencing has ended".to_owned()));
        };
        self.blocking(move |shared| {
            let id = slot.transactional_id(shared.job());
            let mut config = settings::sink_producer(&shared.config, Some(&id));
            // There for the doubt rule, which has nothing to doubt here.
            config.remove("debug").set_log_level(RDKafkaLogLevel::Info);
            let producer: BaseProducer<settings::LoggingContext> = config
                .create_with_context(settings::LoggingContext::new("fence"))
                .map_err(|error| refused("sink", &error))?;
            let producer = OffThread::new(producer);
            let what = format!("fencing {id} at {}", shared.sink_address());
            producer.init_transactions(INIT_TIMEOUT).map_err(|error| problem(&what, &error))
        })
        .await
    }

    /// Fences all of them, those that fail again after a while, for a bounded time.
    ///
    /// # Errors
    /// One is still not fenced.
    pub async fn fence_all(&self, slots: &[SlotId]) -> Result<(), KafkaProblem> {
        const ATTEMPTS: usize = 3;
        let fence = |slot: SlotId| async move {
            let mut attempt = 1;
            loop {
                match self.fence(slot).await {
                    Err(error) if attempt < ATTEMPTS => {
                        tracing::warn!(%slot, attempt, %error, "fencing did not succeed, trying again");
                        attempt += 1;
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                    result => return result,
                }
            }
        };
        futures::future::try_join_all(slots.iter().map(|slot| fence(*slot))).await.map(|_| ())
    }
}
