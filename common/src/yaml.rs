//! YAML to JSON values, with positions.

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};
use serde_json::Value;

/// Nobody writes deeper; a document that does would overflow the stack.
const MAX_DEPTH: usize = 64;

/// Why a document cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct YamlError {
    /// 1-based.
    pub(crate) line: usize,
    pub(crate) what: String,
}

/// The only document of a text; `None` when there is none.
pub(crate) fn parse(text: &str) -> Result<Option<MarkedYaml<'_>>, YamlError> {
    let documents = MarkedYaml::load_from_str(text)
        .map_err(|error| YamlError { line: error.marker().line(), what: error.info().to_owned() })?;
    if let Some(second) = documents.get(1) {
        return Err(YamlError { line: second.span.start.line(), what: "a second document".to_owned() });
    }
    Ok(documents.into_iter().next())
}

/// A whole document as a JSON value.
pub(crate) fn to_json(text: &str) -> Result<Value, YamlError> {
    parse(text)?.map_or(Ok(Value::Null), |node| value(&node))
}

/// A node as a JSON value.
pub(crate) fn value(node: &MarkedYaml<'_>) -> Result<Value, YamlError> {
    value_at(node, 0)
}

fn value_at(node: &MarkedYaml<'_>, depth: usize) -> Result<Value, YamlError> {
    let fail = |what: &str| Err(YamlError { line: node.span.start.line(), what: what.to_owned() });
    if depth > MAX_DEPTH {
        return fail("nested too deeply");
    }
    match &node.data {
        YamlData::Value(scalar) => Ok(scalar_value(scalar)),
        YamlData::Sequence(items) => {
            items.iter().map(|item| value_at(item, depth + 1)).collect::<Result<Vec<_>, _>>().map(Value::Array)
        }
        YamlData::Mapping(entries) => entries
            .iter()
            .map(|(key, item)| Ok((key_text(key)?, value_at(item, depth + 1)?)))
            .collect::<Result<serde_json::Map<_, _>, _>>()
            .map(Value::Object),
        YamlData::Tagged(_, inner) => value_at(inner, depth + 1),
        _ => fail("neither a scalar nor a list nor a mapping"),
    }
}

/// A mapping's key as text.
pub(crate) fn key_text(key: &MarkedYaml<'_>) -> Result<String, YamlError> {
    match &key.data {
        YamlData::Value(scalar) => match scalar_value(scalar) {
            Value::String(text) => Ok(text),
            other => Ok(other.to_string()),
        },
        _ => Err(YamlError { line: key.span.start.line(), what: "a key that is not a text".to_owned() }),
    }
}

fn scalar_value(scalar: &Scalar<'_>) -> Value {
    match scalar {
        Scalar::Null => Value::Null,
        Scalar::Boolean(flag) => Value::Bool(*flag),
        Scalar::Integer(number) => Value::from(*number),
        Scalar::FloatingPoint(number) => Value::from(number.into_inner()),
        Scalar::String(text) => Value::String(text.clone().into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_becomes_json() {
        let text = "a: 1\nb: [x, 2.5, null, true]\nc: {d: '5'}\ne: &x {f: 1}\ng: *x\n";
        let expected = serde_json::json!({
            "a": 1, "b": ["x", 2.5, null, true], "c": {"d": "5"}, "e": {"f": 1}, "g": {"f": 1}
        });
        assert_eq!(to_json(text), Ok(expected));
        assert_eq!(to_json("# nothing"), Ok(Value::Null));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        assert_eq!(to_json("a: 1\nb: [\n").map_err(|error| error.line > 0), Err(true));
        assert_eq!(to_json("a: 1\na: 2\n").map_err(|error| error.line), Err(2));
        assert!(to_json(&"[".repeat(500)).is_err());
    }
}
