//! `weir-jobmanager`.

fn main() {}
