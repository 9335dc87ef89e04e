//! The binary `weir-taskmanager`.

fn main() {}
