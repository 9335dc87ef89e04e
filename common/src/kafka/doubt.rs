//! When a transaction is not to be believed.
//!
//! librdkafka speaks EndTxn v1: a request that outlives its connection can end a *later* transaction of the same
//! producer epoch, and records are then lost or doubled although every call said Ok. Only a new epoch (a new producer on
//! the same id) excludes that. The one sign that saw every dangerous fault in trials (106 of 106; the error callback saw
//! 31, latency half) is the client's own log with `debug=broker,eos`: librdkafka mutes repeated errors in its callback for
//! 30 s. A false alarm costs one recycle. `taskmanager/tests/doubt` shows both on a disturbed wire: exact with the rule;
//! lost and doubled records where every failed call is handled and every Ok is believed.
//!
//! The log callback is asynchronous: the sink looks here at the end of each cut and again before each begin.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    error::KafkaError,
    producer::{DeliveryResult, ProducerContext},
};

use super::LoggingContext;

/// Why a transaction is in doubt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The client's log spoke of a transport failure.
    LogLine(String),
    /// The client's error callback was called.
    ErrorCallback(String),
    /// A call failed.
    FailedCall(String),
    /// A record was not delivered.
    FailedDelivery(String),
    /// The cut took longer than `transaction.slow`.
    SlowCut(Duration),
}

impl Doubt {
    /// Short name, for metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::LogLine(_) => "log_line",
            Self::ErrorCallback(_) => "error_callback",
            Self::FailedCall(_) => "failed_call",
            Self::FailedDelivery(_) => "failed_delivery",
            Self::SlowCut(_) => "slow_cut",
        }
    }

    /// Whether a line of the client's log puts the transaction in doubt.
    #[must_use]
    pub fn of_log_line(facility: &str, message: &str) -> Option<Self> {
        let doubtful = facility == "FAIL" || message.contains("_TRANSPORT") || message.contains("_TIMED_OUT");
        doubtful.then(|| Self::LogLine(format!("{facility}: {message}")))
    }

    /// Whether a cut's duration does.
    #[must_use]
    pub fn of_duration(took: Duration, slow: Duration) -> Option<Self> {
        (took > slow).then_some(Self::SlowCut(took))
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LogLine(line) => write!(f, "the client logged `{line}`"),
            Self::ErrorCallback(error) => write!(f, "the client reported `{error}`"),
            Self::FailedCall(error) => write!(f, "{error}"),
            Self::FailedDelivery(error) => write!(f, "a record was not delivered: {error}"),
            Self::SlowCut(took) => write!(f, "the cut took {} ms", took.as_millis()),
        }
    }
}

/// The first doubt about one producer since it was made or [`DoubtFlag::clear`]ed. Set by the client's callbacks.
#[derive(Debug, Default)]
pub struct DoubtFlag(Mutex<Option<Doubt>>);

impl DoubtFlag {
    /// Raises it, unless it is raised already.
    pub fn raise(&self, doubt: Doubt) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(doubt);
    }

    /// What raised it.
    #[must_use]
    pub fn get(&self) -> Option<Doubt> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lowers it: only when nothing is under way that the doubt could be about, right after `init_transactions`.
    pub fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Callbacks of a transactional producer: raise its flag, and log.
#[derive(Debug)]
pub struct DoubtingContext {
    /// What was heard.
    pub flag: DoubtFlag,
    log: LoggingContext,
}

impl DoubtingContext {
    /// See [`LoggingContext::new`].
    #[must_use]
    pub fn new(client: &str) -> Self {
        Self { flag: DoubtFlag::default(), log: LoggingContext::new(client) }
    }
}

impl ClientContext for DoubtingContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if let Some(doubt) = Doubt::of_log_line(facility, message) {
            self.flag.raise(doubt);
        }
        self.log.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.flag.raise(Doubt::ErrorCallback(format!("{error}: {reason}")));
        self.log.error(error, reason);
    }
}

impl ProducerContext for DoubtingContext {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.flag.raise(Doubt::FailedDelivery(error.to_string()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_transport_trouble_are_doubtful_and_nothing_else() {
        let table = [
            ("FAIL", "[thrd:127.0.0.1:9092/1]: Disconnected (after 1234 ms in state UP)", true),
            ("REQERR", "EndTxnRequest failed: _TRANSPORT: actions Retry", true),
            ("TXNERR", "Failed to commit: Local: Timed out: _TIMED_OUT", true),
            ("ADDOFFSETS", "AddOffsetsToTxn retried: Broker: CONCURRENT_TRANSACTIONS", false),
            ("TXNSTATE", "Transaction state change InTransaction -> BeginCommit", false),
            ("BROKERFAIL", "mentions a broker", false),
        ];
        for (facility, message, doubtful) in table {
            assert_eq!(Doubt::of_log_line(facility, message).is_some(), doubtful, "{facility}: {message}");
        }
    }

    #[test]
    fn only_slow_cuts_are_doubtful() {
        let slow = Duration::from_secs(2);
        assert_eq!(Doubt::of_duration(slow, slow), None);
        let took = slow + Duration::from_millis(1);
        assert_eq!(Doubt::of_duration(took, slow), Some(Doubt::SlowCut(took)));
    }

    #[test]
    fn the_first_doubt_is_kept_until_it_is_cleared() {
        let flag = DoubtFlag::default();
        flag.raise(Doubt::FailedCall("one".to_owned()));
        flag.raise(Doubt::FailedCall("two".to_owned()));
        assert_eq!(flag.get(), Some(Doubt::FailedCall("one".to_owned())));
        flag.clear();
        assert_eq!(flag.get(), None);
    }
}
