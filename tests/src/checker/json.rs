//! Compares JSON documents by their text, so that a number that changed its spelling or a field that changed its place
//! is seen.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// An object's fields in order, each with its text.
pub struct Fields<'a>(pub Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Vec<(String, &'de RawValue)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    fields.push(entry);
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(InOrder).map(Fields)
    }
}

/// How a place differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Only the new document has it; its text.
    Added(String),
    /// Only the old document has it.
    Removed,
    /// Both have it; the new text.
    Changed(String),
    /// The fields that both have come in another order.
    Reordered,
}

/// All differences, by path from the root.
///
/// # Errors
/// One of the two is not JSON.
pub fn differences(old: &str, new: &str) -> Result<Vec<(Vec<String>, Difference)>, serde_json::Error> {
    let (old, new): (&RawValue, &RawValue) = (serde_json::from_str(old)?, serde_json::from_str(new)?);
    let mut found = Vec::new();
    compare(old, new, &mut Vec::new(), &mut found);
    Ok(found)
}

fn compare(old: &RawValue, new: &RawValue, path: &mut Vec<String>, found: &mut Vec<(Vec<String>, Difference)>) {
    if old.get() == new.get() {
        return;
    }
    let (Ok(Fields(old_fields)), Ok(Fields(new_fields))) =
        (serde_json::from_str(old.get()), serde_json::from_str(new.get()))
    else {
        found.push((path.clone(), Difference::Changed(new.get().to_owned())));
        return;
    };
    for (name, old_value) in &old_fields {
        path.push(name.clone());
        match new_fields.iter().find(|(other, _)| other == name) {
            Some((_, new_value)) => compare(old_value, new_value, path, found),
            None => found.push((path.clone(), Difference::Removed)),
        }
        path.pop();
    }
    for (name, new_value) in &new_fields {
        if !old_fields.iter().any(|(other, _)| other == name) {
            path.push(name.clone());
            found.push((path.clone(), Difference::Added(new_value.get().to_owned())));
            path.pop();
        }
    }
    let both = |fields: &[(String, &RawValue)], others: &[(String, &RawValue)]| -> Vec<String> {
        let common = fields.iter().filter(|(name, _)| others.iter().any(|(other, _)| other == name));
        common.map(|(name, _)| name.clone()).collect()
    };
    if both(&old_fields, &new_fields) != both(&new_fields, &old_fields) {
        found.push((path.clone(), Difference::Reordered));
    }
}

/// The text of the value at a path.
#[must_use]
pub fn raw_at(document: &str, path: &[&str]) -> Option<String> {
    let mut value: &RawValue = serde_json::from_str(document).ok()?;
    for step in path {
        let Fields(fields) = serde_json::from_str(value.get()).ok()?;
        value = fields.into_iter().find(|(name, _)| name == step)?.1;
    }
    Some(value.get().to_owned())
}

/// The string at a path.
#[must_use]
pub fn text_at(document: &str, path: &[&str]) -> Option<String> {
    serde_json::from_str(&raw_at(document, path)?).ok()
}

/// The whole number at a path.
#[must_use]
pub fn number_at(document: &str, path: &[&str]) -> Option<i64> {
    serde_json::from_str(&raw_at(document, path)?).ok()
}
