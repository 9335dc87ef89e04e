//! Asks for the log ends of partitions, for lag: on a client of its own, so that neither reading nor heartbeats wait.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    thread,
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer as _},
};
use tracing::debug;
use weir_common::kafka::LoggingContext;

use super::Clients;
use crate::pipeline::cell::SplitCell;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(5);

type Watched = Mutex<Vec<Weak<SplitCell>>>;

/// Ends when it is dropped.
pub(super) struct LogEnds(Arc<Watched>);

impl LogEnds {
    pub(super) fn start(clients: Clients) -> Self {
        let watched = Arc::new(Watched::default());
        let shared = Arc::downgrade(&watched);
        let spawned = thread::Builder::new().name("weir-log-ends".to_owned()).spawn(move || watch(&clients, &shared));
        if let Err(error) = spawned {
            debug!(%error, "no thread for log ends, lag stays unknown");
        }
        Self(watched)
    }

    pub(super) fn watch(&self, cells: &[Arc<SplitCell>]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(cells.iter().map(Arc::downgrade));
    }
}

fn consumer(mut client: ClientConfig) -> Option<BaseConsumer<LoggingContext>> {
    // Without a group there is nothing to leave when it is dropped.
    client.remove("group.id");
    client.create_with_context(LoggingContext::new("log-ends")).ok()
}

fn watch(clients: &Clients, watched: &Weak<Watched>) {
    // Made when a partition of that cluster is first watched.
    let (mut source, mut replay) = (None, None);
    while let Some(watched) = watched.upgrade() {
        let cells: Vec<Arc<SplitCell>> = {
            let mut watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
            watched.retain(|cell| cell.upgrade().is_some_and(|cell| !cell.is_closed()));
            watched.iter().filter_map(Weak::upgrade).collect()
        };
        drop(watched);
        let mut partitions: Vec<_> = cells.iter().map(|cell| cell.id.topic_partition()).collect();
        partitions.sort();
        partitions.dedup();
        for partition in partitions {
            let (client, made) = match clients.is_replay(&partition.topic) {
                true => (&clients.replay, &mut replay),
                false => (&clients.source, &mut source),
            };
            if made.is_none() {
                *made = consumer(client.clone());
            }
            let Some(consumer) = made else { continue };
            match consumer.fetch_watermarks(&partition.topic, partition.partition, TIMEOUT) {
                Ok((_, high)) => {
                    for cell in cells.iter().filter(|cell| cell.id.topic_partition() == partition) {
                        cell.set_log_end(high);
                    }
                }
                Err(error) => debug!(%partition, %error, "log end is not known"),
            }
        }
        for consumer in source.iter().chain(&replay) {
            consumer.poll(Duration::ZERO);
        }
        thread::sleep(INTERVAL);
    }
}
