//! What a process can say about where it runs.

use std::fs;

/// Name of this host, for people and as part of an address; empty where it cannot be told.
#[must_use]
pub fn name() -> String {
    let file = fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned());
    file.ok().filter(|name| !name.is_empty()).or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default()
}
