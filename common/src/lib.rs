//! What both Weir binaries share: ids, splits, progress, configuration, Kafka settings, logging.

pub mod config;
pub mod counters;
pub mod failure;
pub mod host;
pub mod http;
pub mod ids;
pub mod kafka;
pub mod progress;
pub mod raw_event;
pub mod schema;
pub mod split;
pub mod streams;
pub mod telemetry;
mod yaml;
