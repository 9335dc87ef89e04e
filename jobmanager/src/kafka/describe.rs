//! Which topic a name means: the id that a broker gives a topic when it is made (KIP-516). A topic that was deleted and made
//! anew has another one, and its offsets mean other records.
//!
//! The `rdkafka` crate does not wrap `DescribeTopics`, so this calls librdkafka itself.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString, c_char},
    ptr,
    time::Duration,
};

use rdkafka::{bindings as rd, client::NativeClient, consumer::Consumer as _, types::RDKafkaErrorCode};
use weir_common::split::TopicName;

use super::{Kafka, KafkaProblem};
use crate::start::topics::TopicIds;

const TIMEOUT: Duration = Duration::from_secs(5);

impl Kafka {
    /// The ids of topics that the job reads, as far as they are known: none of a topic that is not there, and none at all
    /// from a broker that does not know of ids.
    ///
    /// # Errors
    /// A cluster does not answer.
    pub async fn topic_ids(&self, topics: Vec<TopicName>) -> Result<TopicIds, KafkaProblem> {
        self.blocking(move |shared| {
            let (replay, source): (Vec<_>, Vec<_>) = topics.into_iter().partition(|topic| shared.is_replay(topic));
            let mut found = TopicIds::new();
            for topics in [source, replay].iter().filter(|topics| !topics.is_empty()) {
                let (client, address) = shared.of_read(&topics[0]);
                let ids = describe(client.client().native_client(), topics, TIMEOUT).map_err(|error| {
                    KafkaProblem::Unreachable(format!("asking {address} for the ids of {}: {error}", topics.join(", ")))
                })?;
                found.extend(ids);
            }
            Ok(found)
        })
        .await
    }
}

/// Owns a pointer of librdkafka and gives it back to its destructor.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the pointer came from the constructor that belongs to this destructor, and is dropped once.
            unsafe { self.1(self.0) }
        }
    }
}

/// Asks and waits, at most twice `timeout`.
fn describe(client: &NativeClient, topics: &[TopicName], timeout: Duration) -> Result<TopicIds, RDKafkaErrorCode> {
    let names: Vec<CString> = topics.iter().filter_map(|topic| CString::new(topic.as_bytes()).ok()).collect();
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: `client` lives as long as this function, and librdkafka's handles may be used from any thread. What is made
    // here is owned by `Owned`; the collection copies the names, the request copies collection and options. Results
    // belong to the event and are copied before it is dropped.
    unsafe {
        let rk = client.ptr();
        let collection = rd::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let collection = Owned(collection, rd::rd_kafka_TopicCollection_destroy);
        let options = rd::rd_kafka_AdminOptions_new(rk, rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        let options = Owned(options, rd::rd_kafka_AdminOptions_destroy);
        rd::rd_kafka_AdminOptions_set_request_timeout(options.0, millis, ptr::null_mut(), 0);
        let queue = Owned(rd::rd_kafka_queue_new(rk), rd::rd_kafka_queue_destroy);
        rd::rd_kafka_DescribeTopics(rk, collection.0, options.0, queue.0);
        let event = Owned(rd::rd_kafka_queue_poll(queue.0, millis.saturating_mul(2)), rd::rd_kafka_event_destroy);
        if event.0.is_null() {
            return Err(RDKafkaErrorCode::OperationTimedOut);
        }
        let error = RDKafkaErrorCode::from(rd::rd_kafka_event_error(event.0));
        if error != RDKafkaErrorCode::NoError {
            return Err(error);
        }
        let result = rd::rd_kafka_event_DescribeTopics_result(event.0);
        if result.is_null() {
            return Err(RDKafkaErrorCode::BadMessage);
        }
        let mut count = 0;
        let descriptions = rd::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        let described = (0..count).filter_map(|at| id_of(*descriptions.add(at)));
        Ok(described.collect())
    }
}

/// Name and id of a topic that is there.
///
/// # Safety
/// `topic` belongs to an event that lives.
unsafe fn id_of(topic: *const rd::rd_kafka_TopicDescription_t) -> Option<(TopicName, String)> {
    // SAFETY: as said above; texts are copied, and librdkafka ends them with a zero.
    unsafe {
        let error = rd::rd_kafka_TopicDescription_error(topic);
        if !error.is_null() && rd::rd_kafka_error_code(error) != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        let (name, id) = (rd::rd_kafka_TopicDescription_name(topic), rd::rd_kafka_TopicDescription_topic_id(topic));
        if name.is_null() || id.is_null() {
            return None;
        }
        let unknown =
            rd::rd_kafka_Uuid_most_significant_bits(id) == 0 && rd::rd_kafka_Uuid_least_significant_bits(id) == 0;
        let text = rd::rd_kafka_Uuid_base64str(id);
        if unknown || text.is_null() {
            return None;
        }
        let name = CStr::from_ptr(name).to_string_lossy();
        Some((TopicName::from(&*name), CStr::from_ptr(text).to_string_lossy().into_owned()))
    }
}
