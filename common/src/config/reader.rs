//! Files and environment as one flat map of keys, each with its origin; what no key takes is a problem.

use std::{collections::BTreeMap, path::Path};

use saphyr::{MarkedYaml, YamlData};
use serde_json::{Map, Value};

use super::{
    Ignored, Origin, Problem, nearest,
    template::{self, TEMPLATE},
};
use crate::yaml::{self, YamlError};

/// Variables of the environment that are configuration.
const PREFIX: &str = "WEIR__";

/// Top-level keys that production's other files have.
const IGNORED: [(&str, &str); 1] =
    [("log_config", "it configures Python's logging; here `log.format` and `log.level` do")];

/// Flink's keys, which stand in production's cluster settings, and ours.
const FLINK: [(&str, &str); 14] = [
    ("execution.checkpointing.interval", "checkpoint.interval"),
    ("execution.checkpointing.timeout", "checkpoint.timeout"),
    ("execution.checkpointing.min-pause", "checkpoint.min_pause"),
    ("execution.checkpointing.tolerable-failed-checkpoints", "checkpoint.tolerable_failed_checkpoints"),
    ("execution.checkpointing.num-retained", "checkpoint.retained"),
    ("state.checkpoints.num-retained", "checkpoint.retained"),
    ("state.checkpoints.dir", "storage.uri"),
    ("state.savepoints.dir", "storage.uri"),
    ("kubernetes.operator.periodic.savepoint.interval", "savepoint.interval"),
    ("kubernetes.operator.savepoint.history.max.age", "savepoint.retention"),
    ("s3.endpoint", "storage.s3.endpoint"),
    ("s3.path.style.access", "storage.s3.path_style_access"),
    ("heartbeat.interval.ms", "heartbeat.interval"),
    ("pipeline.name", "stream_manager.job_name"),
];

/// A key in parts; a part of a free map may itself have dots.
pub(super) type Key = Vec<String>;

/// A value and where it was set.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// Everything that was set, the last word for every key.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) leaves: BTreeMap<Key, Leaf>,
    pub(super) problems: Vec<Problem>,
    pub(super) ignored: Vec<Ignored>,
    /// Something could not be read at all: what is missing may be in there.
    pub(super) incomplete: bool,
}

/// Where a node comes from.
#[derive(Clone, Copy)]
enum Place<'a> {
    File(&'a Path),
    Variable(&'a str),
}

impl Place<'_> {
    fn origin(self, line: usize) -> Origin {
        match self {
            Self::File(path) => Origin::File(path.to_owned(), line),
            Self::Variable(name) => Origin::Environment(name.to_owned()),
        }
    }
}

impl Reader {
    /// Lays a file over what was read before.
    pub(super) fn file(&mut self, path: &Path) {
        match std::fs::read_to_string(path) {
            Ok(text) => self.text(Place::File(path), &text, &TEMPLATE, &Vec::new()),
            Err(error) => {
                self.incomplete = true;
                self.problems.push(Problem {
                    key: String::new(),
                    origins: Vec::new(),
                    what: format!("file {} cannot be read: {error}", path.display()),
                    remedy: "check `--config` and the file's permissions".to_owned(),
                });
            }
        }
    }

    /// Lays the environment over the files.
    pub(super) fn environment(&mut self, variables: impl Iterator<Item = (String, String)>) {
        let mut variables: Vec<_> = variables.filter(|(name, _)| name.starts_with(PREFIX)).collect();
        variables.sort();
        for (name, text) in variables {
            self.variable(&name, &text);
        }
    }

    fn variable(&mut self, name: &str, text: &str) {
        let words: Vec<String> = name[PREFIX.len()..].split("__").map(str::to_lowercase).collect();
        let mut key = Key::new();
        let Some(node) = descend(&TEMPLATE, &mut key, &words.join(".")) else {
            return self.unknown(&words.join("."), &Key::new(), Place::Variable(name).origin(0));
        };
        let origin = Origin::Environment(name.to_owned());
        let value = match node {
            Value::Object(_) => return self.text(Place::Variable(name), text, node, &key),
            // Charts pass empty variables on where nobody chose a value.
            _ if text.is_empty() => return drop(self.leaves.remove(&key)),
            Value::String(_) | Value::Null => Value::String(text.to_owned()),
            Value::Array(_) if !text.trim_start().starts_with('[') => {
                text.split(',').map(|item| Value::String(item.trim().to_owned())).collect()
            }
            _ => yaml::to_json(text).unwrap_or_else(|_| Value::String(text.to_owned())),
        };
        self.leaves.insert(key, Leaf { value, origin });
    }

    fn text(&mut self, place: Place<'_>, text: &str, section: &Value, key: &Key) {
        match yaml::parse(text) {
            Ok(Some(node)) => self.node(place, &node, section, key.clone(), 1),
            Ok(None) => {}
            Err(error) => self.unreadable(place, key, error),
        }
    }

    fn unreadable(&mut self, place: Place<'_>, key: &Key, error: YamlError) {
        self.incomplete = true;
        self.problems.push(Problem {
            key: key.join("."),
            origins: vec![place.origin(error.line)],
            what: format!("not readable as YAML: {}", error.what),
            remedy: "correct the text there or just above".to_owned(),
        });
    }

    /// `line` is that of the node's key.
    fn node(&mut self, place: Place<'_>, node: &MarkedYaml<'_>, section: &Value, key: Key, line: usize) {
        let origin = place.origin(line);
        match (section, &node.data) {
            (Value::Object(_), YamlData::Mapping(entries)) => {
                for (name, child) in entries {
                    match yaml::key_text(name) {
                        Ok(text) => self.entry(place, &text, child, section, &key, name.span.start.line()),
                        Err(error) => self.unreadable(place, &key, error),
                    }
                }
            }
            // A section whose lines are all comments.
            (Value::Object(_), YamlData::Value(saphyr::Scalar::Null)) => {}
            (Value::Object(_), _) => self.problems.push(Problem {
                key: key.join("."),
                origins: vec![origin],
                what: "is a section, not a single value".to_owned(),
                remedy: sections_keys(section),
            }),
            _ => match yaml::value(node) {
                Ok(value) => self.leaf(key, value, origin),
                Err(error) => self.unreadable(place, &key, error),
            },
        }
    }

    fn entry(
        &mut self,
        place: Place<'_>,
        name: &str,
        child: &MarkedYaml<'_>,
        section: &Value,
        prefix: &Key,
        line: usize,
    ) {
        let origin = place.origin(line);
        if let Some((_, reason)) = IGNORED.iter().find(|(ignored, _)| prefix.is_empty() && *ignored == name) {
            self.ignored.push(Ignored { key: name.to_owned(), origin, reason });
            return;
        }
        if template::is_free(section) {
            return self.free(place, name, child, prefix, line);
        }
        let mut key = prefix.clone();
        match descend(section, &mut key, name) {
            // A dotted key that ends inside of a free map.
            Some(Value::Null) => {
                let name = key.pop().unwrap_or_default();
                self.free(place, &name, child, &key, line);
            }
            Some(node) => self.node(place, child, node, key, line),
            None => self.unknown(name, prefix, origin),
        }
    }

    /// A key of the user's choice: any scalar is its text, and nesting is dots.
    fn free(&mut self, place: Place<'_>, name: &str, child: &MarkedYaml<'_>, prefix: &Key, line: usize) {
        if let YamlData::Mapping(entries) = &child.data {
            for (inner, node) in entries {
                match yaml::key_text(inner) {
                    Ok(text) => {
                        self.free(place, &format!("{name}.{text}"), node, prefix, inner.span.start.line());
                    }
                    Err(error) => self.unreadable(place, prefix, error),
                }
            }
            return;
        }
        let mut key = prefix.clone();
        key.push(name.to_owned());
        match yaml::value(child) {
            Ok(value @ (Value::Bool(_) | Value::Number(_))) => {
                self.leaf(key, Value::String(value.to_string()), place.origin(line));
            }
            Ok(value) => self.leaf(key, value, place.origin(line)),
            Err(error) => self.unreadable(place, &key, error),
        }
    }

    /// Null takes a key back to its default.
    fn leaf(&mut self, key: Key, value: Value, origin: Origin) {
        if let (Some(Leaf { origin: Origin::File(before, line), .. }), Origin::File(now, _)) =
            (self.leaves.get(&key), &origin)
            && before == now
        {
            self.problems.push(Problem {
                key: key.join("."),
                origins: vec![Origin::File(before.clone(), *line), origin.clone()],
                what: "is set twice in one file".to_owned(),
                remedy: "remove one of them".to_owned(),
            });
        }
        if value.is_null() {
            self.leaves.remove(&key);
        } else {
            self.leaves.insert(key, Leaf { value, origin });
        }
    }

    fn unknown(&mut self, name: &str, prefix: &Key, origin: Origin) {
        let key = prefix.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join(".");
        let remedy = match FLINK.iter().find(|(flink, _)| *flink == key) {
            Some((_, ours)) => format!("it is Flink's; here it is `{ours}`, and durations carry a unit"),
            None => did_you_mean(&key),
        };
        self.problems.push(Problem { key, origins: vec![origin], what: "unknown key".to_owned(), remedy });
    }

    /// All that was set, as a tree.
    pub(super) fn tree(&self) -> Value {
        let mut tree = Value::Object(Map::new());
        for (key, leaf) in &self.leaves {
            let mut node = &mut tree;
            for part in key {
                if !node.is_object() {
                    *node = Value::Object(Map::new());
                }
                node = &mut node[part.as_str()];
            }
            *node = leaf.value.clone();
        }
        tree
    }

    /// Where a dotted key was set.
    pub(super) fn origin(&self, key: &str) -> Option<&Origin> {
        self.leaves.iter().find(|(parts, _)| parts.join(".") == key).map(|(_, leaf)| &leaf.origin)
    }
}

/// Follows a key that may be dotted; `Null` stands for a key of the user's choice.
fn descend<'t>(section: &'t Value, key: &mut Key, name: &str) -> Option<&'t Value> {
    const CHOSEN: &Value = &Value::Null;
    if template::is_free(section) {
        key.push(name.to_owned());
        return Some(CHOSEN);
    }
    if let Some(node) = section.get(name) {
        key.push(name.to_owned());
        return Some(node);
    }
    let (head, rest) = name.split_once('.')?;
    let node = section.get(head).filter(|node| node.is_object())?;
    key.push(head.to_owned());
    descend(node, key, rest)
}

fn did_you_mean(key: &str) -> String {
    let known = template::all_keys();
    if let Some(near) = nearest(key, known.iter().map(String::as_str)) {
        return format!("did you mean `{near}`?");
    }
    let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
    // The right name in the wrong place, or nearly so.
    let last = |key: &'_ String| key.rsplit('.').next().map(str::to_owned);
    let names: Vec<String> = known.iter().filter_map(last).collect();
    if name.len() > 3
        && let Some(near) = nearest(name, names.iter().map(String::as_str))
        && let Some(at) = known.iter().find(|key| key.rsplit('.').next() == Some(near))
    {
        return format!("did you mean `{at}`?");
    }
    let section = if section.is_empty() { Some(&*TEMPLATE) } else { template::at(section) };
    section.map_or_else(|| "remove it".to_owned(), sections_keys)
}

fn sections_keys(section: &Value) -> String {
    let keys: Vec<&str> = section.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
    match keys.as_slice() {
        [] => "write `name: value` pairs below it".to_owned(),
        keys => format!("its keys are: {}", keys.join(", ")),
    }
}
