//! What a taskmanager decides and in which order it writes, without its IO: the session's state machine, the sink with its
//! writer, and what reader and enrichment share with them.
//!
//! The process runs these with Kafka, the system's clock and a thread ([`run`](crate::run)); the simulation in `tests/`
//! runs the same with a model of the broker and its own time. [`KafkaOutput`] is the producer on Kafka, for trials that
//! disturb it.

pub use crate::{
    clock::Clock,
    metrics::Metrics,
    pipeline::{Finished, cell::SplitCell, order::OrderGate},
    session::state::{Effect, FromJobmanager, Held, Input, Leave, Session, ToJobmanager},
    sink::{
        Sink,
        doubt::{Doubt, DoubtFlag},
        inbox::{AssignedSplit, Command, Inbox},
        kafka::KafkaOutput,
        lease::Lease,
        output::{Cause, Failure, KeptEntry, Output, Refusal, Undelivered},
        report::{Assignment, SinkEvent, SinkEventKind, SplitReport},
        writer::{Lost, Setup, Writer},
    },
};
