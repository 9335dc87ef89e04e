//! Weir's end-to-end tests: real Kafka, real Ceph RGW, real MediaWiki, real processes, and a checker that shares no code
//! with what it checks.

pub mod cases;
pub mod chaos;
pub mod checker;
pub mod events;
pub mod harness;
pub mod odd_api;
pub mod player;
pub mod proxy;
