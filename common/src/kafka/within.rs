//! Calls that may never return.

use std::{sync::mpsc, thread, time::Duration};

use rdkafka::{
    error::{KafkaError, KafkaResult},
    types::RDKafkaErrorCode,
};

/// `send_offsets_to_transaction` may take so long before the transaction is in doubt.
const OFFSETS_TIMEOUT: Duration = Duration::from_secs(10);

/// librdkafka's own end of the call comes first, where it comes at all.
const OFFSETS_GRACE: Duration = Duration::from_secs(2);

/// Makes a producer's call of `send_offsets_to_transaction`, which is given its time-out, and gives it up some time after that.
///
/// librdkafka does not keep that time-out while it looks for the group's coordinator, and waits for ever where the one it knew
/// is gone (librdkafka issues 5456 and 5511). A call that is given up keeps its thread and its client until it returns, if it
/// does; the client must not be used any more.
///
/// # Errors
/// The call's, or `OperationTimedOut`.
pub fn send_offsets(call: impl FnOnce(Duration) -> KafkaResult<()> + Send + 'static) -> KafkaResult<()> {
    within(OFFSETS_TIMEOUT + OFFSETS_GRACE, || call(OFFSETS_TIMEOUT))
}

/// Makes a call on a thread of its own and waits for it at most `limit`.
fn within<T: Send + 'static>(
    limit: Duration,
    call: impl FnOnce() -> KafkaResult<T> + Send + 'static,
) -> KafkaResult<T> {
    let (sender, result) = mpsc::sync_channel(1);
    thread::spawn(move || {
        // Who has given up hears nothing.
        let _ = sender.send(call());
    });
    result.recv_timeout(limit).unwrap_or(Err(KafkaError::Global(RDKafkaErrorCode::OperationTimedOut)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rdkafka::{
        ClientConfig, Offset, TopicPartitionList,
        consumer::{BaseConsumer, Consumer as _},
        mocking::{MockCluster, MockCoordinator},
        producer::{BaseProducer, Producer as _},
    };

    use super::*;

    /// Should `send_offsets_to_transaction` ever keep its time-out, its own error comes first and says so here.
    #[test]
    fn librdkafka_waits_for_ever_for_a_group_coordinator_that_is_gone() {
        let cluster = MockCluster::new(2).expect("a mock cluster");
        cluster.create_topic("topic", 1, 2).expect("a topic");
        cluster.coordinator(MockCoordinator::Transaction("id".to_owned()), 1).expect("the first broker");
        cluster.coordinator(MockCoordinator::Group("group".to_owned()), 2).expect("the second broker");
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", cluster.bootstrap_servers());
        let producer: BaseProducer = config.clone().set("transactional.id", "id").create().expect("a producer");
        let consumer: BaseConsumer = config.set("group.id", "group").create().expect("a consumer");
        let group = Arc::new(consumer.group_metadata().expect("its group"));
        let producer = Arc::new(producer);
        producer.init_transactions(Duration::from_secs(30)).expect("initialised");
        producer.begin_transaction().expect("begun");
        let send = |limit| {
            let (producer, group) = (Arc::clone(&producer), Arc::clone(&group));
            let mut offsets = TopicPartitionList::new();
            offsets.add_partition_offset("topic", 0, Offset::Offset(7)).expect("an offset");
            within(limit, move || producer.send_offsets_to_transaction(&offsets, &group, Duration::from_secs(1)))
        };
        send(Duration::from_secs(30)).expect("the coordinator answers");
        cluster.broker_down(2).expect("down");
        let given_up = send(Duration::from_secs(4)).expect_err("nobody answers");
        assert!(matches!(given_up, KafkaError::Global(RDKafkaErrorCode::OperationTimedOut)), "{given_up}");
        cluster.broker_up(2).expect("up again, so that the call and its client can end");
    }

    #[test]
    fn a_call_that_does_not_return_is_given_up() {
        assert_eq!(within(Duration::from_secs(60), || Ok(1)).expect("at once"), 1);
        let (_kept, never) = mpsc::channel::<()>();
        let hanging = within(Duration::from_millis(20), move || {
            let _ = never.recv();
            Ok(())
        });
        assert_eq!(hanging.expect_err("it hangs").rdkafka_error_code(), Some(RDKafkaErrorCode::OperationTimedOut));
    }
}
