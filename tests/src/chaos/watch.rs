//! What a consumer of the output sees meanwhile, and so what a fault cost.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Context;
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};

use crate::checker::{Position, read};

/// A record that takes longer than this from input to visible output is delayed.
const DELAYED: Duration = Duration::from_secs(2);

/// What a fault stops may start again only so long after it.
const AFTERMATH: Duration = Duration::from_secs(3);

/// Reads inputs and outputs as they become visible, until it is dropped.
pub struct Watch {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// When what became visible.
#[derive(Debug, Default)]
pub struct Seen {
    inputs: HashMap<Position, Instant>,
    /// With the input that each is from.
    outputs: Vec<(Instant, Position)>,
}

/// What a time cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// The longest time without any output.
    pub pause: Duration,
    /// Inputs of that time whose output took longer than 2 s.
    pub delayed: usize,
    /// The longest of them …
    pub latest: Duration,
    /// … and which it was.
    pub which: Option<Position>,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pause, latest) = (self.pause.as_secs_f64(), self.latest.as_secs_f64());
        write!(f, "longest pause of output {pause:4.1} s, {:5} records delayed", self.delayed)?;
        match &self.which {
            Some((topic, _, offset)) => {
                let site = topic.split('.').next().unwrap_or_default();
                write!(f, ", by up to {latest:4.1} s ({site} {offset})")
            }
            None => Ok(()),
        }
    }
}

impl Watch {
    /// Reads these topics. Inputs whose key holds `except` are left out.
    ///
    /// # Errors
    /// The broker does not answer.
    pub fn start(bootstrap: &str, sources: &[String], outputs: &[String], except: String) -> anyhow::Result<Self> {
        let consumer = read::consumer(bootstrap, "read_committed")?;
        let mut all = TopicPartitionList::new();
        for topic in sources.iter().chain(outputs) {
            for partition in read::partitions(&consumer, topic)? {
                all.add_partition_offset(topic, partition, Offset::Beginning)?;
            }
        }
        consumer.assign(&all).context("assign")?;
        let (seen, stop) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
        let thread = thread::spawn({
            let (seen, stop, sources) = (Arc::clone(&seen), Arc::clone(&stop), sources.to_vec());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    poll(&consumer, &sources, &except, &seen);
                }
            }
        });
        Ok(Self { seen, stop, thread: Some(thread) })
    }

    /// What was seen up to now.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It ends within a poll; a panic in it has been printed.
            let _ = thread.join();
        }
    }
}

fn poll(consumer: &BaseConsumer, sources: &[String], except: &str, seen: &Mutex<Seen>) {
    // Errors pass: brokers are killed while it reads.
    let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { return };
    let now = Instant::now();
    let is_input = sources.iter().any(|topic| topic == message.topic());
    let left_out = is_input && String::from_utf8_lossy(message.key().unwrap_or_default()).contains(except);
    if left_out {
        return;
    }
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    if is_input {
        seen.inputs.insert((message.topic().to_owned(), message.partition(), message.offset()), now);
    } else if let Ok(source) = read::own(&message).source() {
        seen.outputs.push((now, source));
    }
}

impl Seen {
    /// What the time from `from` to `to` cost, once everything has come out.
    #[must_use]
    pub fn cost(&self, from: Instant, to: Instant) -> Cost {
        let mut cost = Cost::default();
        let mut previous = None;
        for (at, source) in &self.outputs {
            let since = previous.replace(*at).unwrap_or(*at);
            if *at >= from && since <= to + AFTERMATH {
                cost.pause = cost.pause.max(*at - since);
            }
            let Some(came) = self.inputs.get(source).filter(|came| (from..=to).contains(came)) else { continue };
            let took = at.saturating_duration_since(*came);
            if took > DELAYED {
                cost.delayed += 1;
                if took > cost.latest {
                    (cost.latest, cost.which) = (took, Some(source.clone()));
                }
            }
        }
        cost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_and_the_records_of_a_time_are_told() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let position = |offset| ("in".to_owned(), 0, offset);
        let mut seen = Seen::default();
        for (offset, came, went) in [(0, 0, 1), (1, 1, 2), (2, 3, 9), (3, 8, 9), (4, 10, 13), (5, 30, 40)] {
            seen.inputs.insert(position(offset), at(came));
            seen.outputs.push((at(went), position(offset)));
        }
        let second = Duration::from_secs(1);
        let late = |pause, delayed, latest, offset| {
            let (pause, latest, which) = (pause * second, latest * second, Some(position(offset)));
            Cost { pause, delayed, latest, which }
        };
        // The pause began before its end and the late record came in it.
        assert_eq!(seen.cost(at(3), at(5)), late(7, 1, 6, 2));
        assert_eq!(seen.cost(at(0), at(1)), Cost { pause: 7 * second, ..Cost::default() });
        assert_eq!(seen.cost(at(10), at(12)), late(27, 1, 3, 4));
        assert_eq!(seen.cost(at(3), at(30)), late(27, 3, 10, 5));
        assert_eq!(seen.cost(at(41), at(50)), Cost::default());
    }
}
