//! What both Weir binaries share: ids, splits, progress, configuration, Kafka settings, logging.

pub mod config;
pub mod counters;
pub mod ids;
pub mod progress;
pub mod split;
