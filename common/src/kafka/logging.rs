//! librdkafka's log lines and errors as ours, bounded in number.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{DeliveryResult, ProducerContext},
};
use tracing::{debug, info, warn};

/// An unreachable broker makes librdkafka write several lines a second for every connection, for as long as it lasts.
const LINES_PER_WINDOW: u32 = 20;
const WINDOW: Duration = Duration::from_secs(10);

/// What to do with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Write it.
    Write,
    /// Write it, and before it that so many were left out.
    WriteAfterGap(u64),
    /// Leave it out.
    Drop,
}

/// So many lines a window, then a count. Time comes from outside.
#[derive(Debug, Default)]
pub struct LineBudget {
    window_start: Option<Instant>,
    written: u32,
    dropped: u64,
}

impl LineBudget {
    /// Counts one line.
    pub fn admit(&mut self, now: Instant) -> Verdict {
        if self.window_start.is_none_or(|start| now.saturating_duration_since(start) >= WINDOW) {
            self.window_start = Some(now);
            self.written = 0;
        }
        if self.written == LINES_PER_WINDOW {
            self.dropped += 1;
            return Verdict::Drop;
        }
        self.written += 1;
        match std::mem::take(&mut self.dropped) {
            0 => Verdict::Write,
            dropped => Verdict::WriteAfterGap(dropped),
        }
    }
}

/// A client context that does nothing but log. Clones share one budget.
#[derive(Clone, Debug)]
pub struct LoggingContext {
    client: Arc<str>,
    budget: Arc<Mutex<LineBudget>>,
}

impl LoggingContext {
    /// `client` names the client in every line: `source`, `sink`, `progress`.
    #[must_use]
    pub fn new(client: &str) -> Self {
        Self { client: client.into(), budget: Arc::default() }
    }

    /// `None`: leave it out. `Some(n)`: n lines were left out before this one.
    fn admit(&self) -> Option<u64> {
        match self.budget.lock().unwrap_or_else(PoisonError::into_inner).admit(Instant::now()) {
            Verdict::Write => Some(0),
            Verdict::WriteAfterGap(dropped) => Some(dropped),
            Verdict::Drop => None,
        }
    }
}

impl ClientContext for LoggingContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let client = &*self.client;
        // Debug lines are many on purpose (the doubt rule reads them) and must not use up the budget of the others.
        if matches!(level, RDKafkaLogLevel::Debug) {
            debug!(target: "librdkafka", client, facility, "{message}");
            return;
        }
        let Some(left_out) = self.admit() else { return };
        match level {
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => {
                info!(target: "librdkafka", client, facility, left_out, "{message}");
            }
            _ => warn!(target: "librdkafka", client, facility, left_out, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The client reports the end of a partition as an error, each time that a reader has caught up.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) {
            return;
        }
        if let Some(left_out) = self.admit() {
            warn!(target: "librdkafka", client = &*self.client, %error, left_out, "{reason}");
        }
    }
}

impl ConsumerContext for LoggingContext {}

impl ProducerContext for LoggingContext {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_budget_are_counted_and_told_in_the_next_window() {
        let start = Instant::now();
        let mut budget = LineBudget::default();
        for _ in 0..LINES_PER_WINDOW {
            assert_eq!(budget.admit(start), Verdict::Write);
        }
        for _ in 0..1000 {
            assert_eq!(budget.admit(start + WINDOW / 2), Verdict::Drop);
        }
        assert_eq!(budget.admit(start + WINDOW), Verdict::WriteAfterGap(1000));
        assert_eq!(budget.admit(start + WINDOW), Verdict::Write);
    }
}
