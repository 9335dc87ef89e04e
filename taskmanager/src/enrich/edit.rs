//! Lossless editing of a JSON object: what no change names stays as it was, byte for byte.
//!
//! A [`Patch`] is applied twice: to the text that is produced, and to the parsed value that is validated. Numbers beyond
//! 2^53, unknown fields and the order of fields therefore never pass through a parser that could change them. Only blanks
//! between the fields of an object that is changed are not kept.

use std::{borrow::Cow, collections::HashSet, fmt};

use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};
use thiserror::Error;

/// Changes to one object, by field.
#[derive(Clone, Debug, Default)]
pub(crate) struct Patch(Vec<(String, Change)>);

#[derive(Clone, Debug)]
enum Change {
    Set(Value),
    /// A JSON string as the API wrote it, quotes and escapes included: the content is copied, never decoded.
    Token(Box<RawValue>),
    Remove,
    Inside(Patch),
}

/// What a patch says of a field.
#[cfg(test)]
pub(crate) enum Named<'a> {
    Kept,
    Removed,
    Set,
    Inside(&'a Patch),
}

/// Why a text cannot be edited.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum EditError {
    /// Which of the two a reader takes is not defined.
    #[error("field `{0}` occurs twice")]
    DuplicateField(String),
    /// A change goes inside something that is no object.
    #[error("not a JSON object where one is needed: {0}")]
    NotAnObject(String),
}

impl Patch {
    /// Sets the field at `path`; objects on the way are made.
    pub(crate) fn set(&mut self, path: &[&str], value: impl Into<Value>) {
        self.insert(path, Change::Set(value.into()));
    }

    /// Sets the field at `path` to a JSON string that is already encoded.
    pub(crate) fn set_token(&mut self, path: &[&str], token: Box<RawValue>) {
        self.insert(path, Change::Token(token));
    }

    /// Leaves the field at `path` out.
    pub(crate) fn remove(&mut self, path: &[&str]) {
        self.insert(path, Change::Remove);
    }

    fn insert(&mut self, path: &[&str], change: Change) {
        let Some((head, rest)) = path.split_first() else { return };
        let at = self.0.iter().position(|(name, _)| name == head).unwrap_or_else(|| {
            self.0.push(((*head).to_owned(), Change::Inside(Self::default())));
            self.0.len() - 1
        });
        let slot = &mut self.0[at].1;
        match slot {
            _ if rest.is_empty() => *slot = change,
            Change::Inside(inner) => inner.insert(rest, change),
            // The later change applies to what the earlier one has set.
            Change::Set(value) if !matches!(change, Change::Token(_)) => {
                let mut inner = Self::default();
                inner.insert(rest, change);
                inner.apply_to_value(value);
            }
            Change::Set(_) | Change::Token(_) | Change::Remove => {
                let mut inner = Self::default();
                inner.insert(rest, change);
                *slot = Change::Inside(inner);
            }
        }
    }

    /// What becomes of the field of this name.
    #[cfg(test)]
    pub(crate) fn change_of(&self, name: &str) -> Named<'_> {
        match self.0.iter().find(|(changed, _)| changed == name) {
            None => Named::Kept,
            Some((_, Change::Remove)) => Named::Removed,
            Some((_, Change::Set(_) | Change::Token(_))) => Named::Set,
            Some((_, Change::Inside(inner))) => Named::Inside(inner),
        }
    }

    /// Applies the changes to a parsed object. Encoded strings are stood in for by an empty one.
    pub(crate) fn apply_to_value(&self, value: &mut Value) {
        if !value.is_object() {
            *value = Value::Object(serde_json::Map::new());
        }
        let Some(object) = value.as_object_mut() else { return };
        for (name, change) in &self.0 {
            match change {
                Change::Set(new) => drop(object.insert(name.clone(), new.clone())),
                Change::Token(_) => drop(object.insert(name.clone(), Value::String(String::new()))),
                Change::Remove => drop(object.remove(name)),
                Change::Inside(inner) => inner.apply_to_value(object.entry(name.clone()).or_insert(Value::Null)),
            }
        }
    }

    /// Applies the changes to a text.
    ///
    /// # Errors
    /// Where it is ambiguous which field is meant, or a change goes inside something that is no object.
    pub(crate) fn apply_to_text(&self, text: &str) -> Result<Vec<u8>, EditError> {
        let mut out = Vec::with_capacity(text.len() + self.size_hint());
        self.write(Some(text), &mut out)?;
        Ok(out)
    }

    fn size_hint(&self) -> usize {
        let change_size = |(name, change): &(String, Change)| {
            name.len()
                + 4
                + match change {
                    Change::Set(_) => 64,
                    Change::Token(token) => token.get().len(),
                    Change::Remove => 0,
                    Change::Inside(inner) => inner.size_hint() + 2,
                }
        };
        self.0.iter().map(change_size).sum()
    }

    fn write(&self, text: Option<&str>, out: &mut Vec<u8>) -> Result<(), EditError> {
        let fields = text.map_or(Ok(Vec::new()), fields_of)?;
        let mut comma = Comma(false);
        out.push(b'{');
        for field in &fields {
            match self.0.iter().find(|(changed, _)| *changed == field.name) {
                None => {
                    comma.name(field.raw_name, out);
                    out.extend_from_slice(field.value.as_bytes());
                }
                Some((_, change)) => change.write(field.raw_name, Some(field.value), &mut comma, out)?,
            }
        }
        for (name, change) in &self.0 {
            if !fields.iter().any(|present| present.name == *name) {
                let encoded = Value::from(name.as_str()).to_string();
                change.write(&encoded, None, &mut comma, out)?;
            }
        }
        out.push(b'}');
        Ok(())
    }
}

impl Change {
    /// `raw_name` is encoded: a name keeps the form that it has in the text.
    fn write(&self, raw_name: &str, old: Option<&str>, comma: &mut Comma, out: &mut Vec<u8>) -> Result<(), EditError> {
        if matches!(self, Self::Remove) {
            return Ok(());
        }
        comma.name(raw_name, out);
        match self {
            Self::Set(value) => write_json(value, out),
            Self::Token(token) => out.extend_from_slice(token.get().as_bytes()),
            Self::Inside(inner) => inner.write(old, out)?,
            Self::Remove => {}
        }
        Ok(())
    }
}

struct Comma(bool);

impl Comma {
    fn name(&mut self, raw_name: &str, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.0, true) {
            out.push(b',');
        }
        out.extend_from_slice(raw_name.as_bytes());
        out.push(b':');
    }
}

fn write_json(value: &Value, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("values have a JSON form, and memory takes all of it");
}

/// A field of an object, name and value as they stand in the text.
struct Field<'a> {
    name: Cow<'a, str>,
    raw_name: &'a str,
    value: &'a str,
}

fn fields_of(text: &str) -> Result<Vec<Field<'_>>, EditError> {
    let no_object = |error: serde_json::Error| EditError::NotAnObject(error.to_string());
    let RawFields(raw) = serde_json::from_str(text).map_err(no_object)?;
    let mut names = HashSet::with_capacity(raw.len());
    let mut fields = Vec::with_capacity(raw.len());
    for (name, value) in raw {
        let Name(decoded) = serde_json::from_str(name.get()).map_err(no_object)?;
        if !names.insert(decoded.clone()) {
            return Err(EditError::DuplicateField(decoded.into_owned()));
        }
        fields.push(Field { name: decoded, raw_name: name.get(), value: value.get() });
    }
    Ok(fields)
}

struct RawFields<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de> Deserialize<'de> for RawFields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = RawFields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(16);
                while let Some(field) = map.next_entry::<&'de RawValue, &'de RawValue>()? {
                    fields.push(field);
                }
                Ok(RawFields(fields))
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_no_change_names_stays_byte_for_byte() {
        let text = r#"{"big":123456789012345678901234567890,"tiny":1.0e-400 ,"m\u0065ta":{"id":"x","n":9007199254740993},"\u00e9":"\u00e9"}"#;
        let mut patch = Patch::default();
        patch.set(&["meta", "id"], "y");
        patch.set(&["new", "deep"], 1);
        let edited = patch.apply_to_text(text).expect("an object");
        let wanted = r#"{"big":123456789012345678901234567890,"tiny":1.0e-400,"m\u0065ta":{"id":"y","n":9007199254740993},"\u00e9":"\u00e9","new":{"deep":1}}"#;
        assert_eq!(String::from_utf8(edited).expect("text"), wanted);
    }

    #[test]
    fn ambiguous_and_misplaced_changes_are_refused() {
        let mut patch = Patch::default();
        patch.set(&["meta", "id"], "y");
        let edit = |text| patch.apply_to_text(text);
        assert_eq!(edit(r#"{"meta":{},"meta":{}}"#), Err(EditError::DuplicateField("meta".to_owned())));
        assert_eq!(edit(r#"{"meta":{"id":1,"\u0069d":2}}"#), Err(EditError::DuplicateField("id".to_owned())));
        assert!(matches!(edit(r#"{"meta":7}"#), Err(EditError::NotAnObject(_))));
        assert!(matches!(edit("[]"), Err(EditError::NotAnObject(_))));
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,6}".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-c]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn text_and_value_are_edited_alike(
            fields in prop::collection::btree_map("[a-c]", json_value(), 0..4),
            changes in prop::collection::vec((prop::collection::vec("[a-d]", 1..3), prop::option::of(json_value())), 0..5),
        ) {
            let mut value = Value::Object(fields.into_iter().collect());
            let mut patch = Patch::default();
            for (path, new) in &changes {
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                match new {
                    Some(new) => patch.set(&path, new.clone()),
                    None => patch.remove(&path),
                }
            }
            let text = patch.apply_to_text(&value.to_string());
            patch.apply_to_value(&mut value);
            if let Ok(text) = text {
                prop_assert_eq!(serde_json::from_slice::<Value>(&text).expect("valid JSON"), value);
            }
        }
    }

    #[test]
    fn tokens_are_copied_as_they_are() {
        let mut patch = Patch::default();
        patch.set_token(&["body"], RawValue::from_string(r#""a\/bé""#.to_owned()).expect("a string"));
        assert_eq!(
            patch.apply_to_text("{}").expect("an object"),
            br#"{"body":"a\/b"#.iter().copied().chain("é\"}".bytes()).collect::<Vec<u8>>()
        );
        let mut value = json!({"body": 1});
        patch.apply_to_value(&mut value);
        assert_eq!(value, json!({"body": ""}));
    }
}
