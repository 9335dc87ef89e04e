//! Weir's jobmanager: the coordinator, and the shell that performs its actions.

pub mod coordinator;
