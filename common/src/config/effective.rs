//! The effective configuration as a list, for `config check` and the digest.

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Config, Origin};
use crate::kafka::is_secret;

/// What stands for a value that is not shown.
const STARS: &str = "***";

/// One key of the effective configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveValue {
    /// Dotted.
    pub key: String,
    /// As it would be written; secrets as `***`, what has no value as `(unset)`.
    pub value: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// Keys that say where a process listens or how it logs, not what the job does.
const NOT_THE_JOB: [&str; 8] = [
    "log.format",
    "log.level",
    "jobmanager.address",
    "jobmanager.advertised_address",
    "jobmanager.bind",
    "jobmanager.http_bind",
    "jobmanager.metrics_bind",
    "taskmanager.metrics_bind",
];

impl Config {
    /// SHA-256, hex, of the effective configuration without secrets, logging and addresses of processes: two digests
    /// differ where the job does.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for (path, value) in leaves(self) {
            let key = path.join(".");
            if !is_secret(&key) && !NOT_THE_JOB.contains(&key.as_str()) {
                hash.update(format!("{key}={value}\n"));
            }
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Every key with its value, secrets as stars, in order of keys.
pub(super) fn leaves(config: &Config) -> BTreeMap<Vec<String>, String> {
    let tree = serde_json::to_value(config).expect("a configuration has only string keys and finite numbers");
    let mut leaves = BTreeMap::new();
    collect(&tree, &mut Vec::new(), &mut leaves);
    leaves
}

fn collect(node: &Value, path: &mut Vec<String>, leaves: &mut BTreeMap<Vec<String>, String>) {
    let Value::Object(object) = node else {
        let secret = path.last().is_some_and(|key| is_secret(key)) && !node.is_null();
        let text = match node {
            _ if secret => STARS.to_owned(),
            Value::Null => "(unset)".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        leaves.insert(path.clone(), text);
        return;
    };
    for (key, child) in object {
        path.push(key.clone());
        collect(child, path, leaves);
        path.pop();
    }
}
