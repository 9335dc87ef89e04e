//! Loads the configuration: files, then the environment; everything that is wrong is said at once.

use std::{collections::BTreeSet, fmt, path::PathBuf};

use serde_path_to_error::Segment;

use super::{
    Config, EffectiveValue,
    checks::{self, Contradiction},
    reader::{Leaf, Reader},
    template,
};
use crate::kafka::is_secret;

/// The effective configuration and where it comes from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Checked.
    pub config: Config,
    /// Every key, in order.
    pub effective: Vec<EffectiveValue>,
    /// What was accepted and means nothing here.
    pub ignored: Vec<Ignored>,
}

/// A key that is accepted and means nothing here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// Dotted.
    pub key: String,
    /// Where it was found.
    pub origin: Origin,
    /// Why it is no error.
    pub reason: &'static str,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A line of a file, from 1.
    File(PathBuf, usize),
    /// An environment variable.
    Environment(String),
    /// Nobody set it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, dotted; empty where it is about a whole file.
    pub key: String,
    /// Where it was set, all places where several keys contradict each other.
    pub origins: Vec<Origin>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, origin) in self.origins.iter().enumerate() {
            write!(f, "{}{origin}", if i > 0 { ", " } else { "" })?;
        }
        if !self.origins.is_empty() {
            f.write_str(": ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// All that is wrong with a configuration, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [only] => write!(f, "configuration: {only}"),
            many => {
                write!(f, "configuration: {} problems", many.len())?;
                many.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

impl std::error::Error for ConfigError {}

/// Loads files in order, later ones over earlier ones key by key, then `WEIR__SECTION__KEY` of the environment.
/// Touches no network.
///
/// # Errors
/// Everything that is wrong, with key, place and remedy.
pub fn load(files: &[PathBuf], env: impl Iterator<Item = (String, String)>) -> Result<Loaded, ConfigError> {
    let mut reader = Reader::default();
    for file in files {
        reader.file(file);
    }
    reader.environment(env);
    if files.is_empty() && reader.leaves.is_empty() {
        let what = "there is no configuration".to_owned();
        let remedy = "give `--config FILE`, several times if need be".to_owned();
        let problem = Problem { key: String::new(), origins: Vec::new(), what, remedy };
        return Err(ConfigError { problems: vec![problem] });
    }
    let mut repaired = BTreeSet::new();
    missing(&mut reader, &mut repaired);
    let mut config = typed(&mut reader, &mut repaired);
    if let Some(config) = config.as_mut().filter(|_| reader.origin("enrich.user_agent").is_none()) {
        config.enrich.user_agent = format!("{} ({})", config.enrich.user_agent, config.stream_manager.job_name);
    }
    if let Some(config) = &config {
        contradictions(&mut reader, config, &repaired);
    }
    match config {
        Some(config) if reader.problems.is_empty() => {
            let effective = effective(&config, &reader);
            Ok(Loaded { config, effective, ignored: reader.ignored })
        }
        _ => Err(ConfigError { problems: reader.problems }),
    }
}

/// Keys without default that nobody set. A stand-in takes their place, so that the rest can be checked.
fn missing(reader: &mut Reader, repaired: &mut BTreeSet<String>) {
    for (key, remedy) in template::REQUIRED {
        if reader.origin(key).is_none() {
            stand_in(reader, key);
            repaired.insert(key.to_owned());
            // What could not be read is said once, not once more by every key that it should have had.
            if !reader.incomplete {
                let (key, what, remedy) = (key.to_owned(), "is missing".to_owned(), remedy.to_owned());
                reader.problems.push(Problem { key, origins: Vec::new(), what, remedy });
            }
        }
    }
}

/// Reads values as what they should be. One that is not gives way to its default, so that the next one is found.
fn typed(reader: &mut Reader, repaired: &mut BTreeSet<String>) -> Option<Config> {
    loop {
        let error = match serde_path_to_error::deserialize::<_, Config>(reader.tree()) {
            Ok(config) => return Some(config),
            Err(error) => error,
        };
        let path: Vec<&str> = error
            .path()
            .iter()
            .map_while(|segment| match segment {
                Segment::Map { key } => Some(key.as_str()),
                _ => None,
            })
            .collect();
        let found = reader.leaves.keys().find(|key| key.iter().map(String::as_str).eq(path.iter().copied())).cloned();
        let Some(leaf) = found.as_ref().and_then(|key| reader.leaves.remove(key)) else {
            let (key, what) = (path.join("."), error.inner().to_string());
            let remedy = "correct this section".to_owned();
            reader.problems.push(Problem { key, origins: Vec::new(), what, remedy });
            return None;
        };
        let key = found.unwrap_or_default().join(".");
        reader.problems.push(mistyped(&key, leaf, &error.inner().to_string()));
        if template::REQUIRED.iter().any(|(required, _)| *required == key) {
            stand_in(reader, &key);
        }
        repaired.insert(key);
    }
}

fn stand_in(reader: &mut Reader, key: &str) {
    if let Some(value) = template::at(key) {
        let leaf = Leaf { value: value.clone(), origin: Origin::Default };
        reader.leaves.insert(key.split('.').map(str::to_owned).collect(), leaf);
    }
}

fn mistyped(key: &str, leaf: Leaf, why: &str) -> Problem {
    let by_type = match template::at(key) {
        Some(serde_json::Value::Number(_)) => "write a whole number",
        Some(serde_json::Value::Bool(_)) => "write true or false",
        Some(serde_json::Value::Array(_)) => "write a list of texts: `[a, b]`",
        _ => "correct it; a text that looks like something else needs quotes",
    };
    let (what, remedy) = why.rsplit_once("; ").unwrap_or((why, by_type));
    // The parser quotes what it found.
    let what = if is_secret(key) { "is not a text" } else { what };
    Problem { key: key.to_owned(), origins: vec![leaf.origin], what: what.to_owned(), remedy: remedy.to_owned() }
}

fn contradictions(reader: &mut Reader, config: &Config, repaired: &BTreeSet<String>) {
    for Contradiction { keys, what, remedy } in checks::contradictions(config) {
        if keys.iter().any(|key| repaired.contains(key)) {
            continue;
        }
        let mut origins: Vec<Origin> = keys.iter().filter_map(|key| reader.origin(key).cloned()).collect();
        origins.dedup();
        reader.problems.push(Problem { key: keys.into_iter().next().unwrap_or_default(), origins, what, remedy });
    }
}

fn effective(config: &Config, reader: &Reader) -> Vec<EffectiveValue> {
    super::effective::leaves(config)
        .into_iter()
        .map(|(key, value)| EffectiveValue {
            origin: reader.leaves.get(&key).map_or(Origin::Default, |leaf| leaf.origin.clone()),
            key: key.join("."),
            value,
        })
        .collect()
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
