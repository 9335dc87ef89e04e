//! How far the sink's partitions are stable: an open transaction holds readers of committed records back.

use std::time::{Duration, Instant};

use weir_common::{kafka as settings, split::TopicPartition};

use super::{Kafka, KafkaProblem, consumer, source::watermarks, topics::partition_count};
use crate::runtime::backend::SinkEnd;

/// For all partitions together: each is asked twice.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(20);

impl Kafka {
    /// Last stable offset and end of every partition of topics of the sink cluster. For an operator: it makes a client.
    ///
    /// # Errors
    /// A topic is gone, or the cluster does not answer in time.
    pub async fn sink_ends(&self, topics: Vec<String>) -> Result<Vec<SinkEnd>, KafkaProblem> {
        self.blocking(move |shared| {
            // librdkafka asks for watermarks with the client's isolation level; only so is the real end seen.
            let mut config = settings::progress_consumer(&shared.config);
            config.set("isolation.level", "read_uncommitted");
            let uncommitted = consumer(&config, "sink-ends", "sink")?;
            let (started, address) = (Instant::now(), shared.sink_address());
            let mut ends = Vec::new();
            for topic in topics {
                let count = partition_count(&uncommitted, &topic, address)?.ok_or_else(|| {
                    KafkaProblem::Failed(format!("topic `{topic}` does not exist at {address} any more"))
                })?;
                for partition in 0..count {
                    if started.elapsed() > TOTAL_TIMEOUT {
                        return Err(KafkaProblem::Unreachable(format!(
                            "{address} did not tell all ends of `{topic}` within {TOTAL_TIMEOUT:?}"
                        )));
                    }
                    let partition = TopicPartition { topic: topic.as_str().into(), partition };
                    // In this order: the end can only be further.
                    let (_, last_stable_offset) = watermarks(&shared.progress, &partition, address)?;
                    let (_, high_watermark) = watermarks(&uncommitted, &partition, address)?;
                    ends.push(SinkEnd { partition, last_stable_offset, high_watermark });
                }
            }
            Ok(ends)
        })
        .await
    }
}
