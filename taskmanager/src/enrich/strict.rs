//! JSON in which every field is there once: of two, readers disagree which one counts.

use std::{cell::Cell, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, map::Entry};

/// Objects and arrays can take seventy times their text in memory: an event has some hundred values, not millions.
pub(crate) const VALUES_MAX: u32 = 10_000;

/// Reads a value without repeated fields, at any level, and of a bounded number of values.
///
/// # Errors
/// What is wrong, and where.
pub(crate) fn from_slice(bytes: &[u8]) -> serde_json::Result<Value> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict(&Cell::new(0)).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Counts the values.
#[derive(Clone, Copy)]
struct Strict<'a>(&'a Cell<u32>);

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.0.set(self.0.get() + 1);
        if self.0.get() > VALUES_MAX {
            return Err(D::Error::custom(format!("more than {VALUES_MAX} values")));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            match object.entry(name) {
                Entry::Vacant(entry) => drop(entry.insert(fields.next_value_seed(self)?)),
                Entry::Occupied(entry) => {
                    let name: String = entry.key().chars().take(100).collect();
                    return Err(A::Error::custom(format!("field `{name}` occurs twice")));
                }
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_usual_value_unless_a_field_comes_twice() {
        for text in ["null", "-0", "[1,-1,1.5,18446744073709551615,1e300]", r#"{"a":{"b":[true,{"a":"é"}]},"b":{}}"#] {
            assert_eq!(from_slice(text.as_bytes()).expect(text), serde_json::from_str::<Value>(text).expect(text));
        }
        for text in [r#"{"a":1,"b":2,"a":1}"#, r#"{"a":1,"\u0061":2}"#, r#"[[{"x":{"":1,"":1}}]]"#] {
            let error = from_slice(text.as_bytes()).expect_err(text).to_string();
            assert!(error.contains("occurs twice"), "{error}");
        }
        assert!(from_slice(b"{} {}").is_err() && from_slice(b"").is_err());
    }

    #[test]
    fn values_are_counted_at_all_levels() {
        let objects = |count: usize| format!("[{}]", vec![r#"{"a":1}"#; count].join(","));
        assert!(from_slice(objects(4_999).as_bytes()).is_ok());
        assert!(from_slice(objects(5_000).as_bytes()).expect_err("10,001").to_string().contains("values"));
    }
}
