//! JSON Schema, compiled once: does an event conform, and which of its fields does the schema not know?

use anyhow::anyhow;
use jsonschema::{Draft, Validator};
use serde_json::{Map, Value};

/// Keywords whose values are maps from names to schemas: a key in there is no keyword.
const MAPS_OF_SCHEMAS: [&str; 4] = ["properties", "patternProperties", "definitions", "$defs"];
const MESSAGE_CHARS_MAX: usize = 500;

/// One stream's schema.
#[derive(Debug)]
pub(crate) struct Schema {
    validator: Validator,
    document: Value,
}

impl Schema {
    /// Compiles a schema whose foreign `$ref`s are resolved. No network, no files.
    ///
    /// # Errors
    /// What of it is no valid JSON Schema.
    pub(crate) fn compile(document: &Value) -> anyhow::Result<Self> {
        let mut document = document.clone();
        strip_identifiers(&mut document);
        let validator = jsonschema::options()
            .with_draft(Draft::Draft7)
            .should_validate_formats(true)
            .offline()
            .build(&document)
            .map_err(|error| anyhow!("invalid JSON schema: {error}"))?;
        Ok(Self { validator, document })
    }

    /// # Errors
    /// What does not conform: where, and how. Values are not repeated; they may be large, or nobody's business.
    pub(crate) fn check(&self, event: &Value) -> Result<(), String> {
        if self.validator.is_valid(event) {
            return Ok(());
        }
        let errors: Vec<String> = self
            .validator
            .iter_errors(event)
            .take(5)
            .map(|error| {
                let path = error.instance_path().to_string();
                format!("{}: {}", if path.is_empty() { "/" } else { &path }, error.masked())
            })
            .collect();
        Err(errors.join("; ").chars().take(MESSAGE_CHARS_MAX).collect())
    }

    /// The schema itself, identifiers left out.
    #[must_use]
    pub(crate) fn document(&self) -> &Value {
        &self.document
    }
}

/// Materialised schemas repeat their fragments' `$id` with different contents, and name a meta-schema by an address that
/// is not the standard's; both mean nothing once every foreign reference is resolved.
fn strip_identifiers(schema: &mut Value) {
    let Value::Object(object) = schema else {
        return;
    };
    for keyword in ["$id", "$schema", "examples", "default"] {
        object.remove(keyword);
    }
    for (keyword, value) in object.iter_mut() {
        if MAPS_OF_SCHEMAS.contains(&keyword.as_str()) {
            value.as_object_mut().into_iter().flat_map(Map::values_mut).for_each(strip_identifiers);
        } else if let Value::Array(schemas) = value {
            schemas.iter_mut().for_each(strip_identifiers);
        } else {
            strip_identifiers(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn properties_named_like_keywords_stay() {
        let mut schema = json!({"$id": "/a", "properties": {"$schema": {"$id": "/b", "type": "string"}}});
        strip_identifiers(&mut schema);
        assert_eq!(schema, json!({"properties": {"$schema": {"type": "string"}}}));
    }

    #[test]
    fn messages_say_where_and_how_and_never_repeat_the_value() {
        let schema = Schema::compile(&json!({
            "$schema": "https://json-schema.org/draft-07/schema#",
            "properties": {"dt": {"type": "string", "format": "date-time"}, "id": {"type": "integer"}},
        }))
        .expect("a schema");
        assert_eq!(schema.check(&json!({"dt": "2026-03-17T02:11:05Z", "id": 1})), Ok(()));
        let message = schema.check(&json!({"dt": "yesterday", "id": "secret"})).expect_err("two errors");
        assert!(message.contains("/dt: ") && message.contains("/id: ") && !message.contains("secret"), "{message}");
    }
}
