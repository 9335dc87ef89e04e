//! Which error events an operator means.

use weir_common::split::TopicPartition;

use super::ErrorEvent;

/// Any of each list's, and all of the lists; an empty list takes everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Not older, milliseconds since 1970.
    pub from_ms: Option<i64>,
    /// Older than this, milliseconds since 1970.
    pub to_ms: Option<i64>,
    /// `error_type`.
    pub error_types: Vec<String>,
    /// `wiki_id` or `meta.domain`.
    pub wikis: Vec<String>,
    /// Where the input was: `topic` or `topic-partition`.
    pub sources: Vec<String>,
}

impl Filter {
    /// Whether it takes this one.
    #[must_use]
    pub fn takes(&self, error: &ErrorEvent) -> bool {
        let any = |wanted: &[String], is: &dyn Fn(&String) -> bool| wanted.is_empty() || wanted.iter().any(is);
        let of = |known: &Option<String>, wanted: &String| known.as_ref() == Some(wanted);
        let from = |(partition, _): &(TopicPartition, i64), wanted: &String| {
            *partition.topic == **wanted || partition.to_string() == *wanted
        };
        self.from_ms.is_none_or(|from| error.timestamp_ms >= from)
            && self.to_ms.is_none_or(|to| error.timestamp_ms < to)
            && any(&self.error_types, &|wanted| error.error_type == *wanted)
            && any(&self.wikis, &|wanted| of(&error.wiki_id, wanted) || of(&error.domain, wanted))
            && any(&self.sources, &|wanted| error.source.as_ref().is_some_and(|source| from(source, wanted)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errors::{Stored, read};

    fn error() -> ErrorEvent {
        let value = br#"{"error_type":"Timeout","message":"m","meta":{"domain":"en.wikipedia.org"},"raw_event":"{\"wiki_id\":\"enwiki\"}"}"#;
        let source = [Some(&b"eqiad.in"[..]), Some(b"3"), Some(b"9")];
        read(&Stored { position: (0, 1), timestamp_ms: 1000, value, source })
    }

    #[test]
    fn each_part_of_a_filter_must_take_it() {
        let list = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
        let all = Filter::default();
        for (filter, takes) in [
            (all.clone(), true),
            (Filter { from_ms: Some(1000), to_ms: Some(1001), ..all.clone() }, true),
            (Filter { from_ms: Some(1001), ..all.clone() }, false),
            (Filter { to_ms: Some(1000), ..all.clone() }, false),
            (Filter { error_types: list(&["MaxLag", "Timeout"]), ..all.clone() }, true),
            (Filter { error_types: list(&["MaxLag"]), ..all.clone() }, false),
            (Filter { wikis: list(&["enwiki"]), ..all.clone() }, true),
            (Filter { wikis: list(&["en.wikipedia.org"]), ..all.clone() }, true),
            (Filter { wikis: list(&["dewiki"]), ..all.clone() }, false),
            (Filter { sources: list(&["eqiad.in"]), ..all.clone() }, true),
            (Filter { sources: list(&["eqiad.in-3"]), ..all.clone() }, true),
            (Filter { sources: list(&["eqiad.in-4"]), ..all.clone() }, false),
            (Filter { wikis: list(&["enwiki"]), error_types: list(&["MaxLag"]), ..all }, false),
        ] {
            assert_eq!(filter.takes(&error()), takes, "{filter:?}");
        }
    }
}
