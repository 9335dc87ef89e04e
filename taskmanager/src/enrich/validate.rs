//! JSON Schema, compiled once: does an event conform, and which of its fields does the schema not know?

use anyhow::anyhow;
use jsonschema::{Draft, Validator};
use serde_json::{Map, Value};

/// Keywords whose values are maps from names to schemas: a key in there is no keyword.
const MAPS_OF_SCHEMAS: [&str; 4] = ["properties", "patternProperties", "definitions", "$defs"];
const MESSAGE_CHARS_MAX: usize = 500;

/// Keywords of an object's schema under which one more field makes nothing invalid that was valid, if the field itself is:
/// `properties` and `additionalProperties` say which that is, and the others ask for no more.
const INDIFFERENT_TO_MORE: [&str; 8] =
    ["type", "required", "minProperties", "additionalProperties", "properties", "title", "description", "$comment"];

/// What a text's schema may have so that every text conforms.
const ANY_TEXT: [&str; 4] = ["type", "title", "description", "$comment"];

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

    /// Whether a valid event stays valid when the field at `path` becomes any text, be it there or not: the schema asks no
    /// more of it than to be one, and nothing else of the objects on the way. `*` stands for every name of an object that
    /// names none. Proven by the schema alone; what it says in another way (references, combinations) is not.
    #[must_use]
    pub(crate) fn takes_any_text(&self, path: &[&str]) -> bool {
        let only = |schema: &Value, keywords: &[&str]| {
            schema.as_object().is_some_and(|schema| schema.keys().all(|keyword| keywords.contains(&keyword.as_str())))
        };
        let field = path.iter().try_fold(&self.document, |schema, name| {
            let named = schema.get("properties").filter(|_| only(schema, &INDIFFERENT_TO_MORE));
            match (*name, named) {
                ("*", None) if only(schema, &INDIFFERENT_TO_MORE) => schema.get("additionalProperties"),
                ("*", _) => None,
                (name, named) => named?.get(name),
            }
        });
        field.is_some_and(|field| field.get("type").is_some_and(|of| of == "string") && only(field, &ANY_TEXT))
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
    fn a_text_is_free_where_nothing_else_is_asked() {
        let body = |schema: Value| json!({"type": "object", "properties": {"slots": {"type": "object", "additionalProperties": schema}}});
        let slot = |body: Value| json!({"type": "object", "additionalProperties": false, "required": ["role"], "properties": {"body": body}});
        let free =
            |document: Value| Schema::compile(&document).expect("a schema").takes_any_text(&["slots", "*", "body"]);
        assert!(free(body(slot(json!({"type": "string", "description": "wikitext"})))));
        for text in [
            json!({"type": "string", "maxLength": 5}),
            json!({"type": "string", "format": "uri"}),
            json!({"type": "string", "enum": ["a"]}),
            json!({"type": ["string", "null"]}),
            json!({"type": "integer"}),
            json!({}),
            json!(true),
        ] {
            assert!(!free(body(slot(text.clone()))), "{text}");
        }
        let any = json!({"type": "string"});
        let with = |mut object: Value, keyword: &str, value: Value| {
            object[keyword] = value;
            object
        };
        for (keyword, value) in [
            ("maxProperties", json!(2)),
            ("propertyNames", json!({"maxLength": 3})),
            ("dependencies", json!({"body": ["hash"]})),
            ("patternProperties", json!({"^b": {"maxLength": 5}})),
            ("not", json!({"required": ["body"]})),
            ("if", json!({"required": ["body"]})),
            ("allOf", json!([{"properties": {"body": {"maxLength": 5}}}])),
            ("const", json!({})),
        ] {
            assert!(!free(body(with(slot(any.clone()), keyword, value.clone()))), "in the slot: {keyword}");
            assert!(!free(with(body(slot(any.clone())), keyword, value)), "at the root: {keyword}");
        }
        assert!(!free(with(
            body(slot(any)),
            "properties",
            json!({"slots": {"type": "object", "properties": {"main": {}}}})
        )));
        assert!(!free(json!({})));
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
