//! Which inputs are sent through the enrichment again: pure.
//!
//! An error is known by where its input was first read, so two error events of one input (at-least-once) are one error. An
//! input that was sent through again and failed again was read in the replay topic, so its error is a new one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use weir_common::{raw_event::RawEvent, split::TopicPartition};

use super::{ErrorEvent, Filter, Position};

/// Replayed inputs that are remembered while one replay runs: eight bytes each and their table.
const REPLAYED_MAX: usize = 4_000_000;

/// Kinds of errors that are counted each for itself.
const TYPES_MAX: usize = 100;

/// Lost inputs that are named.
const LOST_NAMED_MAX: usize = 20;

/// Where the input of an error was first read.
pub type Origin = (TopicPartition, i64);

/// Which error events are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// What they are like.
    pub filter: Filter,
    /// Only these; empty: all.
    pub positions: BTreeSet<Position>,
}

impl Selection {
    /// Whether this one is meant.
    #[must_use]
    pub fn takes(&self, error: &ErrorEvent) -> bool {
        (self.positions.is_empty() || self.positions.contains(&error.position)) && self.filter.takes(error)
    }

    /// The offsets of a partition between which all of them are; `None`: none is in it.
    #[must_use]
    pub fn offsets(&self, partition: i32) -> Option<(i64, i64)> {
        if self.positions.is_empty() {
            return Some((i64::MIN, i64::MAX));
        }
        let mut offsets =
            self.positions.range((partition, i64::MIN)..=(partition, i64::MAX)).map(|(_, offset)| *offset);
        let first = offsets.next()?;
        Some((first, offsets.next_back().unwrap_or(first).saturating_add(1)))
    }
}

/// What identifies an error. An event that does not say where its input was (another program's) is known by itself.
#[must_use]
pub fn origin(error: &ErrorEvent, error_topic: &str) -> Origin {
    error.source.clone().unwrap_or_else(|| {
        let (partition, offset) = error.position;
        (TopicPartition { topic: error_topic.into(), partition }, offset)
    })
}

/// A record as it was read, or is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Input {
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
}

/// The input of an error: the record at its origin where that is still there and is what the error event shows, else what
/// the event holds, if that is all of it. `None`: it is lost.
#[must_use]
pub fn input(error: &ErrorEvent, original: Option<Input>) -> Option<Input> {
    // A topic that was deleted and made anew has other records at the same offsets.
    let original = original.filter(|input| {
        let text = String::from_utf8_lossy(input.value.as_deref().unwrap_or_default());
        match error.raw {
            RawEvent::Whole | RawEvent::Replaced => text == error.raw_event,
            RawEvent::Cut => text.starts_with(&error.raw_event),
        }
    });
    let whole = || {
        (error.raw == RawEvent::Whole && !error.raw_event.is_empty())
            .then(|| Input { key: None, value: Some(error.raw_event.clone().into_bytes()) })
    };
    original.or_else(whole)
}

/// More inputs were replayed than can be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the replay topic holds more than {REPLAYED_MAX} inputs: too many to look whether one was replayed before; shorten its retention.ms"
)]
pub struct TooMany;

/// Inputs that were replayed.
#[derive(Clone, Debug, Default)]
pub struct Replayed {
    offsets: HashMap<TopicPartition, HashSet<i64>>,
    count: usize,
}

impl Replayed {
    /// Whether this one was.
    #[must_use]
    pub fn contains(&self, (partition, offset): &Origin) -> bool {
        self.offsets.get(partition).is_some_and(|offsets| offsets.contains(offset))
    }

    /// Remembers it; whether it is new.
    ///
    /// # Errors
    /// There are too many.
    pub fn insert(&mut self, (partition, offset): Origin) -> Result<bool, TooMany> {
        if self.count >= REPLAYED_MAX {
            return Err(TooMany);
        }
        let new = self.offsets.entry(partition).or_default().insert(offset);
        self.count += usize::from(new);
        Ok(new)
    }
}

/// What a replay comes to, so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Error events that were read.
    pub looked_at: u64,
    /// Errors that are meant and were not replayed before.
    pub chosen: u64,
    /// Those by `error_type`.
    pub by_type: BTreeMap<String, u64>,
    /// Meant, but replayed before.
    pub replayed_before: u64,
    /// Inputs that were written to the replay topic.
    pub written: u64,
    /// Inputs that are in no topic any more, and in their error event only in part.
    pub lost: u64,
    /// The first of those: where their error events are.
    pub lost_named: Vec<Position>,
    /// Inputs that the replay topic does not take.
    pub too_large: u64,
}

impl Tally {
    /// One more that is chosen.
    pub fn choose(&mut self, error_type: &str) {
        self.chosen += 1;
        let known = self.by_type.len() < TYPES_MAX || self.by_type.contains_key(error_type);
        *self.by_type.entry(if known { error_type } else { "(others)" }.to_owned()).or_default() += 1;
    }

    /// One more that is lost.
    pub fn lose(&mut self, position: Position) {
        self.lost += 1;
        if self.lost_named.len() < LOST_NAMED_MAX {
            self.lost_named.push(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weir_common::raw_event::{REPLACED_NOTE, cut_note};

    use super::*;
    use crate::errors::{Stored, read};

    fn error(message: &str, raw_event: &str) -> ErrorEvent {
        let value = json!({"error_type": "T", "message": message, "raw_event": raw_event}).to_string();
        let source = [Some(&b"in"[..]), Some(b"2"), Some(b"41")];
        read(&Stored { position: (0, 7), timestamp_ms: 1, value: value.as_bytes(), source })
    }

    fn record(value: &[u8]) -> Option<Input> {
        Some(Input { key: Some(b"key".to_vec()), value: Some(value.to_vec()) })
    }

    #[test]
    fn an_error_is_known_by_where_its_input_was() {
        let partition = |topic: &str, partition| TopicPartition { topic: topic.into(), partition };
        let mut event = error("m", "{}");
        assert_eq!(origin(&event, "errors"), (partition("in", 2), 41));
        event.source = None;
        assert_eq!(origin(&event, "errors"), (partition("errors", 0), 7));
    }

    #[test]
    fn the_original_is_preferred_and_must_be_what_the_event_shows() {
        let cut = cut_note(100);
        for (event, original, expected) in [
            (error("m", "{}"), record(b"{}"), record(b"{}")),
            // Gone, or another one since the topic was made anew.
            (error("m", "{}"), None, Some(Input { key: None, value: Some(b"{}".to_vec()) })),
            (error("m", "{}"), record(b"[]"), Some(Input { key: None, value: Some(b"{}".to_vec()) })),
            (error(&cut, "{\"a"), record(b"{\"a\":1}"), record(b"{\"a\":1}")),
            (error(&cut, "{\"a"), record(b"{\"b\":1}"), None),
            (error(&cut, "{\"a"), None, None),
            (error(REPLACED_NOTE, "a\u{fffd}b"), record(b"a\xffb"), record(b"a\xffb")),
            (error(REPLACED_NOTE, "a\u{fffd}b"), None, None),
            // A tombstone shows as nothing.
            (error("m", ""), Some(Input::default()), Some(Input::default())),
            (error("m", ""), None, None),
        ] {
            assert_eq!(input(&event, original.clone()), expected, "{} with {original:?}", event.message);
        }
    }

    #[test]
    fn positions_narrow_down_what_is_read() {
        let one = Selection { positions: [(0, 7), (0, 9), (2, 3)].into(), ..Selection::default() };
        assert_eq!((one.offsets(0), one.offsets(1), one.offsets(2)), (Some((7, 10)), None, Some((3, 4))));
        assert!(one.takes(&error("m", "{}")));
        let other = Selection { positions: [(0, 8)].into(), ..Selection::default() };
        assert!(!other.takes(&error("m", "{}")));
        assert_eq!(Selection::default().offsets(5), Some((i64::MIN, i64::MAX)));
    }

    #[test]
    fn what_was_replayed_is_remembered_once() {
        let mut replayed = Replayed::default();
        let origin = origin(&error("m", "{}"), "errors");
        assert!(!replayed.contains(&origin));
        assert_eq!((replayed.insert(origin.clone()), replayed.insert(origin.clone())), (Ok(true), Ok(false)));
        assert!(replayed.contains(&origin));
    }

    #[test]
    fn hostile_types_do_not_fill_the_memory() {
        let mut tally = Tally::default();
        (0..1000).for_each(|number| tally.choose(&format!("type {number}")));
        assert_eq!((tally.chosen, tally.by_type.len(), tally.by_type["(others)"]), (1000, TYPES_MAX + 1, 900));
    }
}
