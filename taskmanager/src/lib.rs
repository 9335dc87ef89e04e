//! Weir's taskmanager: reads its splits, enriches over HTTP, writes back in transactions.

pub mod enrich;
pub mod record;
