//! The reconcile enricher against a wiki farm made of fixtures: routes, samples, bad input, batches, faults.

mod answers;
mod batches;
mod fixtures;
mod hostile;
mod job;
#[path = "../../src/enrich/fuzz/mutate.rs"]
mod mutate;
mod stub;
mod support;
mod tls;
mod trouble;
mod wire;
