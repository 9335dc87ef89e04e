//! Random trouble on real parts, by a seed: every process is killed and stopped, every link is cut, delayed and falsified,
//! storage and API fail, all under load, then all is healed and the checker judges.

pub mod api;
pub mod fleet;
pub mod inject;
pub mod kind;
pub mod log;
pub mod plan;
pub mod watch;
