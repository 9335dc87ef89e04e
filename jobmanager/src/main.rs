//! `weir-jobmanager`: reads the configuration, runs the jobmanager, says in its exit code why it left.

fn main() {}
