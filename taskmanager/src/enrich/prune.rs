//! Fields of an event that the sink's pinned schema does not know: newer producers send more than older schemas allow.

use serde_json::{Map, Value};

/// Where an unknown field is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unknown {
    /// Names on the way from the root.
    pub(crate) path: Vec<String>,
    /// The same for people and metrics, free names (slot roles) as `*`: `revision.content_slots.*.new_field`.
    pub(crate) name: String,
}

/// Finds what has to be left out so that a newer event fits an older schema:
///
/// - fields that a closed object (`additionalProperties: false`) does not list. An open object takes any field, so
///   none of its fields is unknown;
/// - optional numbers outside of the bounds, as newer versions widen them (namespaces below 0).
///
/// Objects inside of arrays are not looked into; what does not fit there fails validation.
#[must_use]
pub(crate) fn unknown_fields(schema: &Value, event: &Value) -> Vec<Unknown> {
    let mut walk = Walk { root: schema, found: Vec::new() };
    walk.object(schema, event, &mut Vec::new());
    walk.found
}

struct Walk<'a> {
    root: &'a Value,
    found: Vec<Unknown>,
}

/// One step of a path, and whether the schema names it.
type Step<'a> = (&'a str, bool);

impl<'a> Walk<'a> {
    fn object(&mut self, schema: &'a Value, value: &'a Value, path: &mut Vec<Step<'a>>) {
        let schema = self.resolve(schema);
        let (Some(schema), Some(fields)) = (schema.as_object(), value.as_object()) else { return };
        // Combinations could allow a field elsewhere; validation decides about those.
        if ["allOf", "anyOf", "oneOf", "if", "patternProperties"].iter().any(|keyword| schema.contains_key(*keyword)) {
            return;
        }
        let additional = schema.get("additionalProperties");
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, field) in fields {
            let known = properties.and_then(|properties| properties.get(name));
            path.push((name, known.is_some()));
            match (known, additional) {
                (Some(known), _) if out_of_bounds(self.resolve(known), field) && !requires(schema, name) => {
                    self.report(path);
                }
                (Some(known), _) => self.object(known, field, path),
                (None, Some(Value::Bool(false))) => {
                    // The schema does not name it, but the report does: it is the field to look for.
                    path.last_mut().expect("pushed above").1 = true;
                    self.report(path);
                }
                (None, Some(free @ Value::Object(_))) => self.object(free, field, path),
                (None, _) => {}
            }
            path.pop();
        }
    }

    fn report(&mut self, path: &[Step<'a>]) {
        let name: Vec<&str> = path.iter().map(|(step, named)| if *named { *step } else { "*" }).collect();
        self.found
            .push(Unknown { path: path.iter().map(|(step, _)| (*step).to_owned()).collect(), name: name.join(".") });
    }

    /// Follows a reference inside of the document; anything else is itself. One step: chains are not materialised.
    fn resolve(&self, schema: &'a Value) -> &'a Value {
        let target = schema.get("$ref").and_then(Value::as_str).and_then(|reference| reference.strip_prefix('#'));
        target.and_then(|pointer| self.root.pointer(pointer)).unwrap_or(schema)
    }
}

fn requires(schema: &Map<String, Value>, name: &str) -> bool {
    schema.get("required").and_then(Value::as_array).is_some_and(|names| names.iter().any(|required| required == name))
}

fn out_of_bounds(schema: &Value, value: &Value) -> bool {
    let Some(number) = value.as_f64() else { return false };
    let bound = |keyword| schema.get(keyword).and_then(Value::as_f64);
    bound("minimum").is_some_and(|minimum| number < minimum) || bound("maximum").is_some_and(|maximum| number > maximum)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn closed_objects_open_objects_and_bounds() {
        let schema = json!({
            "additionalProperties": false,
            "required": ["id"],
            "properties": {
                "id": {"type": "integer", "minimum": 1},
                "ns": {"type": "integer", "minimum": 0},
                "meta": {"properties": {"dt": {}}},
                "user": {"$ref": "#/definitions/user"},
                "slots": {"additionalProperties": {"$ref": "#/definitions/user"}},
            },
            "definitions": {"user": {"additionalProperties": false, "properties": {"name": {}}}},
        });
        let event = json!({
            "id": 0, "ns": -1, "extra": 1,
            "meta": {"anything": 1},
            "user": {"name": "n", "wiki_id": "w"},
            "slots": {"main": {"name": "n", "new": {"deep": 1}}},
        });
        let mut names: Vec<_> = unknown_fields(&schema, &event).into_iter().map(|unknown| unknown.name).collect();
        names.sort();
        assert_eq!(names, ["extra", "ns", "slots.*.new", "user.wiki_id"]);
    }
}
