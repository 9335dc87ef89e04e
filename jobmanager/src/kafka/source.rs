//! The source cluster: where a job starts, how far its partitions reach, and the mirror for lag tools.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext},
    error::RDKafkaErrorCode,
};
use weir_common::{
    config::StartingOffsets,
    split::{TopicName, TopicPartition},
};

use super::{Consumer, Kafka, KafkaProblem, REQUEST_TIMEOUT, Shared, consumer, problem};
use crate::runtime::ResetTo;

/// Every partition of the topics, from how many each has.
pub(crate) fn partitions(counts: &BTreeMap<TopicName, i32>) -> Vec<TopicPartition> {
    let of = |(topic, count): (&TopicName, &i32)| {
        let topic = topic.clone();
        (0..*count).map(move |partition| TopicPartition { topic: topic.clone(), partition })
    };
    counts.iter().flat_map(of).collect()
}

impl Kafka {
    /// The offset of the configured start, for each partition.
    ///
    /// # Errors
    /// The source cluster does not answer.
    pub async fn start_offsets(
        &self,
        partitions: Vec<TopicPartition>,
        start: StartingOffsets,
    ) -> Result<BTreeMap<TopicPartition, i64>, KafkaProblem> {
        self.blocking(move |shared| {
            let found = match start {
                StartingOffsets::Committed => {
                    let group = &shared.config.stream_manager.source.options.consumer_group;
                    committed(shared, &shared.source, group, &partitions)?
                }
                StartingOffsets::Timestamp(time) => since(shared, &partitions, time)?,
                StartingOffsets::Earliest | StartingOffsets::Latest => BTreeMap::new(),
            };
            let mut offsets = BTreeMap::new();
            for partition in partitions {
                let (client, address) = shared.of_read(&partition.topic);
                let (low, high) = watermarks(client, &partition, address)?;
                let offset = match start {
                    StartingOffsets::Earliest => low,
                    StartingOffsets::Latest => high,
                    // What is gone cannot be read, and what is not there yet was committed to another topic of the name.
                    StartingOffsets::Committed => {
                        found.get(&partition).map_or(low, |offset| (*offset).clamp(low, high))
                    }
                    // Where there is none, all that is there is older.
                    StartingOffsets::Timestamp(_) => found.get(&partition).copied().unwrap_or(high),
                };
                offsets.insert(partition, offset);
            }
            Ok(offsets)
        })
        .await
    }

    /// Where a reset leads, for each partition that it means.
    ///
    /// # Errors
    /// [`KafkaProblem::Configuration`]: an offset is not in the log. Or the source cluster does not answer.
    pub async fn reset_offsets(
        &self,
        partitions: Vec<TopicPartition>,
        to: ResetTo,
    ) -> Result<BTreeMap<TopicPartition, i64>, KafkaProblem> {
        let offsets = match to {
            ResetTo::Earliest => return self.start_offsets(partitions, StartingOffsets::Earliest).await,
            ResetTo::Latest => return self.start_offsets(partitions, StartingOffsets::Latest).await,
            ResetTo::Timestamp(time) => return self.start_offsets(partitions, StartingOffsets::Timestamp(time)).await,
            ResetTo::Offsets(offsets) => offsets,
        };
        self.blocking(move |shared| {
            for (partition, offset) in &offsets {
                if !partitions.contains(partition) {
                    return Err(KafkaProblem::Configuration(format!("{partition} is not read by this job")));
                }
                let (client, address) = shared.of_read(&partition.topic);
                let (low, high) = watermarks(client, partition, address)?;
                if !(low..=high).contains(offset) {
                    return Err(KafkaProblem::Configuration(format!(
                        "offset {offset} of {partition} is not in the log, which goes from {low} to {high}"
                    )));
                }
            }
            Ok(offsets)
        })
        .await
    }

    /// Log end offsets of the partitions, as far as they are known; a partition that does not answer is left out.
    pub async fn log_ends(&self, partitions: Vec<TopicPartition>) -> BTreeMap<TopicPartition, i64> {
        let ends = self.blocking(move |shared| {
            let end = |partition: TopicPartition| {
                let (client, address) = shared.of_read(&partition.topic);
                watermarks(client, &partition, address).map(|(_, high)| (partition, high)).ok()
            };
            Ok(partitions.into_iter().map_while(end).collect())
        });
        ends.await.unwrap_or_default()
    }

    /// Commits the cursors to the job's consumer group, for lag tools. Never read back. The replay topic is left out: it may
    /// not be on that cluster, and is nothing that another consumer reads.
    ///
    /// # Errors
    /// [`KafkaProblem::GroupHasMembers`]: somebody consumes with this group, so it belongs to them.
    pub async fn mirror(&self, mut cursors: BTreeMap<TopicPartition, i64>) -> Result<(), KafkaProblem> {
        self.blocking(move |shared| {
            cursors.retain(|partition, _| !shared.is_replay(&partition.topic));
            let group = &shared.config.stream_manager.source.options.consumer_group;
            let what = format!("mirroring lag to group {group} at {}", shared.source_address());
            commit(&shared.source, &cursors, &what, || {
                format!(
                    "consumer group {group} at {} has members, lag is not mirrored to it; stop them, or set another \
                     stream_manager.source.options.consumer_group",
                    shared.source_address()
                )
            })
        })
        .await
    }

    /// What a consumer group has committed; partitions without a commit are left out.
    ///
    /// # Errors
    /// The source cluster does not answer, or does not let us.
    pub async fn group_offsets(
        &self,
        group: String,
        partitions: Vec<TopicPartition>,
    ) -> Result<BTreeMap<TopicPartition, i64>, KafkaProblem> {
        self.blocking(move |shared| committed(shared, &of_group(shared, &group)?, &group, &partitions)).await
    }

    /// Commits offsets to another consumer group, for whoever goes on from them.
    ///
    /// # Errors
    /// [`KafkaProblem::GroupHasMembers`]: somebody consumes with it.
    pub async fn commit_group(
        &self,
        group: String,
        offsets: BTreeMap<TopicPartition, i64>,
    ) -> Result<(), KafkaProblem> {
        self.blocking(move |shared| {
            let what = format!("committing to group {group} at {}", shared.source_address());
            commit(&of_group(shared, &group)?, &offsets, &what, || {
                format!(
                    "consumer group {group} at {} has members, which would not notice: stop them first",
                    shared.source_address()
                )
            })
        })
        .await
    }
}

/// A client in another group than the lag mirror's.
fn of_group(shared: &Shared, group: &str) -> Result<Consumer, KafkaProblem> {
    let mut config = weir_common::kafka::mirror_consumer(&shared.config);
    consumer(config.set("group.id", group), "group", "source")
}

/// Commits plainly, as the broker allows while the group has no members.
fn commit(
    client: &Consumer,
    offsets: &BTreeMap<TopicPartition, i64>,
    what: &str,
    has_members: impl FnOnce() -> String,
) -> Result<(), KafkaProblem> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(*offset))
            .map_err(|error| problem(what, &error))?;
    }
    let _ = client.poll(Duration::ZERO);
    client.commit(&list, CommitMode::Sync).map_err(|error| match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::UnknownMemberId
            | RDKafkaErrorCode::IllegalGeneration
            | RDKafkaErrorCode::RebalanceInProgress,
        ) => KafkaProblem::GroupHasMembers(has_members()),
        _ => problem(what, &error),
    })
}

/// The oldest offset of a partition and its end, as far as the client's isolation level lets it see.
pub(super) fn watermarks<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    partition: &TopicPartition,
    address: &str,
) -> Result<(i64, i64), KafkaProblem> {
    let answer = client.fetch_watermarks(&partition.topic, partition.partition, REQUEST_TIMEOUT);
    answer.map_err(|error| problem(&format!("asking {address} for the offsets of {partition}"), &error))
}

/// The first offset of each partition whose record is not older; left out where all are.
fn since(
    shared: &Shared,
    partitions: &[TopicPartition],
    time: Timestamp,
) -> Result<BTreeMap<TopicPartition, i64>, KafkaProblem> {
    let (replay, source): (Vec<_>, Vec<_>) =
        partitions.iter().cloned().partition(|partition| shared.is_replay(&partition.topic));
    let mut found = BTreeMap::new();
    for partitions in [source, replay].iter().filter(|partitions| !partitions.is_empty()) {
        found.extend(since_on(shared.of_read(&partitions[0].topic), partitions, time)?);
    }
    Ok(found)
}

fn since_on(
    (client, address): (&Consumer, &str),
    partitions: &[TopicPartition],
    time: Timestamp,
) -> Result<BTreeMap<TopicPartition, i64>, KafkaProblem> {
    let what = format!("asking {address} for the offsets of {time}");
    let mut asked = TopicPartitionList::new();
    for partition in partitions {
        // The protocol's field for the offset carries the time here.
        asked
            .add_partition_offset(&partition.topic, partition.partition, Offset::Offset(time.as_millisecond()))
            .map_err(|error| problem(&what, &error))?;
    }
    let answer = client.offsets_for_times(asked, REQUEST_TIMEOUT).map_err(|error| problem(&what, &error))?;
    let mut found = BTreeMap::new();
    for partition in partitions {
        let Some(element) = answer.find_partition(&partition.topic, partition.partition) else { continue };
        element.error().map_err(|error| problem(&what, &error))?;
        if let Some(offset) = element.offset().to_raw().filter(|offset| *offset >= 0) {
            found.insert(partition.clone(), offset);
        }
    }
    Ok(found)
}

fn committed(
    shared: &Shared,
    client: &Consumer,
    group: &str,
    partitions: &[TopicPartition],
) -> Result<BTreeMap<TopicPartition, i64>, KafkaProblem> {
    let what = format!("reading offsets of group {group} at {}", shared.source_address());
    let mut asked = TopicPartitionList::new();
    for partition in partitions {
        asked.add_partition(&partition.topic, partition.partition);
    }
    let answer = client.committed_offsets(asked, REQUEST_TIMEOUT).map_err(|error| problem(&what, &error))?;
    let known = |partition: &TopicPartition| {
        let element = answer.find_partition(&partition.topic, partition.partition)?;
        Some((partition.clone(), element.offset().to_raw().filter(|offset| *offset >= 0)?))
    };
    Ok(partitions.iter().filter_map(known).collect())
}
