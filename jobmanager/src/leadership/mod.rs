//! Which jobmanager leads.

pub mod lease;
