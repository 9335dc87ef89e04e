//! Which topics the offsets belong to: pure.
//!
//! A topic that was deleted and made anew has its old name and other records. Where its end is above a cursor, nothing
//! would be noticed but by the id that the broker gives each topic. The job record keeps the ids that the progress belongs to.

use std::collections::BTreeMap;

use weir_common::split::TopicName;

/// Topics with the ids that a broker gave them.
pub type TopicIds = BTreeMap<TopicName, String>;

/// The topics that the progress belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownTopics(TopicIds);

impl KnownTopics {
    /// Those that are not what they were, with what to tell the operator. Topics that were not known are from now on.
    pub fn compare(&mut self, seen: &TopicIds) -> BTreeMap<TopicName, String> {
        let mut recreated = BTreeMap::new();
        for (topic, id) in seen {
            let known = self.0.entry(topic.clone()).or_insert_with(|| id.clone());
            if known != id {
                recreated.insert(
                    topic.clone(),
                    format!(
                        "topic {topic} was deleted and made anew (id {known} before, {id} now): its offsets mean other records; \
                         `weir reset --topic {topic} --to …` says where to go on"
                    ),
                );
            }
        }
        recreated
    }

    /// From now on the progress belongs to the topics as they were seen.
    pub fn accept(&mut self, topic: &TopicName, seen: &TopicIds) {
        if let Some(id) = seen.get(topic) {
            self.0.insert(topic.clone(), id.clone());
        }
    }

    /// As it is written in the job record: `topic=id,topic=id`, as many as fit.
    #[must_use]
    pub fn to_field(&self, max_chars: usize) -> String {
        let mut field = String::new();
        for (topic, id) in &self.0 {
            let more = format!("{}{topic}={id}", if field.is_empty() { "" } else { "," });
            if field.len() + more.len() <= max_chars {
                field += &more;
            }
        }
        field
    }

    /// Reads it back; what is not understood is not known.
    #[must_use]
    pub fn of_field(field: &str) -> Self {
        let pairs = field.split(',').filter_map(|pair| pair.split_once('='));
        Self(pairs.map(|(topic, id)| (TopicName::from(topic), id.to_owned())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(pairs: &[(&str, &str)]) -> TopicIds {
        pairs.iter().map(|(topic, id)| (TopicName::from(*topic), (*id).to_owned())).collect()
    }

    #[test]
    fn a_topic_with_another_id_is_told_until_it_is_accepted() {
        let mut known = KnownTopics::default();
        assert!(known.compare(&ids(&[("a", "1"), ("b", "2")])).is_empty(), "seen for the first time");
        let seen = ids(&[("a", "1"), ("b", "3")]);
        let recreated = known.compare(&seen);
        assert_eq!(recreated.keys().map(|topic| &**topic).collect::<Vec<_>>(), ["b"]);
        assert!(recreated[&TopicName::from("b")].contains("id 2 before, 3 now"), "{recreated:?}");
        assert!(known.compare(&ids(&[])).is_empty(), "not seen is not other");
        assert_eq!(known.compare(&seen).len(), 1, "still");
        known.accept(&"b".into(), &seen);
        assert!(known.compare(&seen).is_empty());
    }

    #[test]
    fn they_are_read_back_as_far_as_they_fit() {
        let mut known = KnownTopics::default();
        known.compare(&ids(&[("a.topic", "xYz_-09"), ("b", "2"), ("c", "3")]));
        let field = known.to_field(100);
        assert_eq!(field, "a.topic=xYz_-09,b=2,c=3");
        assert_eq!(KnownTopics::of_field(&field), known);
        assert_eq!(known.to_field(19), "a.topic=xYz_-09,b=2");
        assert_eq!(known.to_field(5), "b=2");
        for strange in ["", ",", "x", "=", "a=b=c,"] {
            let _ = KnownTopics::of_field(strange);
        }
        assert_eq!(KnownTopics::of_field(""), KnownTopics::default());
    }
}
