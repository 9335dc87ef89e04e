//! Loads the configuration: files, then the environment; everything that is wrong is said at once.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::{Config, EffectiveValue};

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
    let _ = env;
    let mut tree = serde_json::Value::Object(serde_json::Map::new());
    for file in files {
        merge(&mut tree, read(file)?);
    }
    let config: Config = serde_path_to_error::deserialize(tree).map_err(|error| one(error.to_string()))?;
    Ok(Loaded { config, effective: Vec::new(), ignored: Vec::new() })
}

fn read(path: &Path) -> Result<serde_json::Value, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| one(format!("{}: {error}", path.display())))?;
    let mut tree = crate::yaml::to_json(&text)
        .map_err(|error| one(format!("{}:{}: {}", path.display(), error.line, error.what)))?;
    if let Some(object) = tree.as_object_mut() {
        object.remove("log_config");
    }
    Ok(tree)
}

fn merge(into: &mut serde_json::Value, from: serde_json::Value) {
    match (into, from) {
        (serde_json::Value::Object(into), serde_json::Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(serde_json::Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn one(what: String) -> ConfigError {
    ConfigError { problems: vec![Problem { key: String::new(), origins: Vec::new(), what, remedy: String::new() }] }
}
