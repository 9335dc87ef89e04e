//! The reconcile enricher against a wiki farm made of fixtures: routes, samples, bad input, batches, faults.

mod answers;
mod batches;
mod fixtures;
mod hostile;
mod job;
mod stub;
mod support;
mod tls;
mod trouble;
mod wire;
