//! The streams' JSON Schemas, as the fixtures hold them.

use std::path::Path;

use anyhow::{Context, ensure};
use saphyr::{LoadableYamlNode, ScalarOwned, YamlOwned};
use serde_json::{Map, Value};

/// A compiled schema.
pub struct Schema(jsonschema::Validator);

impl Schema {
    /// Reads and compiles a YAML schema without outside references.
    ///
    /// # Errors
    /// Not readable, not YAML, not a schema.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
        let documents = YamlOwned::load_from_str(&text).with_context(|| format!("{} is not YAML", path.display()))?;
        ensure!(documents.len() == 1, "{}: {} documents", path.display(), documents.len());
        Self::new(to_json(&documents[0])?).with_context(|| path.display().to_string())
    }

    /// Compiles a schema without outside references.
    ///
    /// # Errors
    /// Not a schema.
    pub fn new(mut schema: Value) -> anyhow::Result<Self> {
        if let Some(root) = schema.as_object_mut() {
            // Their values are relative to the schema repository; nothing here looks them up.
            root.remove("$id");
            root.remove("$schema");
        }
        jsonschema::draft7::new(&schema).map(Self).map_err(|why| anyhow::anyhow!("not a schema: {why}"))
    }

    /// `None` for a valid document.
    #[must_use]
    pub fn why_invalid(&self, document: &str) -> Option<String> {
        match serde_json::from_str(document) {
            Err(why) => Some(why.to_string()),
            Ok(value) => self.0.iter_errors(&value).next().map(|why| {
                let why = format!("{}: {why}", why.instance_path());
                why.chars().take(300).collect()
            }),
        }
    }
}

/// The schemas of the job.
pub struct Schemas {
    /// Of inputs and outputs.
    pub page_change: Schema,
    /// Of error events.
    pub error: Schema,
}

impl Schemas {
    /// Reads both below a repository's `jsonschema` folder.
    ///
    /// # Errors
    /// See [`Schema::load`].
    pub fn load(root: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            page_change: Schema::load(&root.join("mediawiki/page/change/1.2.0.yaml"))?,
            error: Schema::load(&root.join("error/2.1.0.yaml"))?,
        })
    }
}

fn to_json(yaml: &YamlOwned) -> anyhow::Result<Value> {
    Ok(match yaml {
        YamlOwned::Value(ScalarOwned::Null) => Value::Null,
        YamlOwned::Value(ScalarOwned::Boolean(value)) => Value::from(*value),
        YamlOwned::Value(ScalarOwned::Integer(value)) => Value::from(*value),
        YamlOwned::Value(ScalarOwned::FloatingPoint(value)) => Value::from(value.into_inner()),
        YamlOwned::Value(ScalarOwned::String(value)) => Value::from(value.as_str()),
        YamlOwned::Sequence(items) => Value::Array(items.iter().map(to_json).collect::<Result<_, _>>()?),
        YamlOwned::Mapping(fields) => {
            let mut object = Map::new();
            for (key, value) in fields {
                let key = key.as_str().context("a key that is no text")?;
                object.insert(key.to_owned(), to_json(value)?);
            }
            Value::Object(object)
        }
        YamlOwned::Tagged(_, inner) => to_json(inner)?,
        YamlOwned::Representation(text, ..) => Value::from(text.as_str()),
        YamlOwned::Alias(_) | YamlOwned::BadValue => anyhow::bail!("YAML that a schema has no use for"),
    })
}
