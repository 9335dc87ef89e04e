//! Weir's end-to-end tests: real Kafka, real Ceph RGW, real MediaWiki, real processes, and a checker that shares no code
//! with what it checks.

pub mod checker;
