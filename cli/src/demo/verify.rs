//! The demo checks itself: every input has become what it must, and nothing else came out. Pure: inputs and outputs are
//! told, in any order; the verdict is asked for.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;
use serde_json::Value;

use super::{content_check, events::Expected};
use crate::wiki::content::Wiki;

/// Violations that are kept with their text; all are counted.
const VIOLATIONS_KEPT: usize = 20;

/// Ids of outputs that are remembered to find one used twice; an endless demo stops looking then.
const IDS_REMEMBERED_MAX: usize = 2_000_000;

/// Source topic, partition and offset.
pub(crate) type Position = (String, i32, i64);

/// Where an output was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Destination {
    Sink { partition: i32 },
    Errors,
}

/// One output record.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    pub(crate) destination: Destination,
    /// By its headers; `None`: they are missing or wrong.
    pub(crate) source: Option<Position>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Vec<u8>,
}

/// One input record, as it was produced.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) key: Option<String>,
    pub(crate) value: Vec<u8>,
    pub(crate) expected: Expected,
}

/// What is remembered of an input for ever: one byte, so that an endless demo stays small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Seen {
    /// Not produced, as far as is known.
    #[default]
    Unknown,
    /// Produced, its output not seen yet.
    Waiting,
    /// Its output was seen.
    Done,
    /// A canary: no output may be seen.
    Dropped,
}

/// What has come of all inputs so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Tally {
    pub(crate) inputs: u64,
    pub(crate) enriched: u64,
    /// Of the enriched: hidden content, no body.
    pub(crate) without_body: u64,
    pub(crate) passed_through: u64,
    pub(crate) errors: u64,
    /// Canaries: they must not come out.
    pub(crate) dropped: u64,
    /// Outputs of inputs that had one already.
    pub(crate) repeats: u64,
    /// Inputs whose output has not been seen.
    pub(crate) missing: u64,
}

/// The job's own counters, as its status says them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct JobCounters {
    pub(crate) consumed: u64,
    pub(crate) enriched: u64,
    pub(crate) passed_through: u64,
    pub(crate) errors: u64,
    pub(crate) dropped: u64,
}

pub(crate) struct Verifier {
    wiki: Wiki,
    streams: Streams,
    exactly_once: bool,
    /// Inputs whose output has not been seen.
    waiting: BTreeMap<Position, Input>,
    /// By topic and partition, then offset.
    seen: HashMap<(String, i32), Vec<Seen>>,
    /// Outputs that were read before their input's offset was known.
    early: HashMap<Position, Vec<Output>>,
    /// Newest source offset whose output was seen, by output partition, source partition and key.
    newest: HashMap<(Destination, String, i32, Vec<u8>), i64>,
    ids: HashSet<String>,
    tally: Tally,
    violations: Vec<String>,
    violations_total: u64,
}

/// Names that outputs must carry.
#[derive(Clone, Debug)]
pub(crate) struct Streams {
    pub(crate) sink: &'static str,
    pub(crate) errors: &'static str,
}

impl Verifier {
    pub(crate) fn new(wiki: Wiki, streams: Streams, exactly_once: bool) -> Self {
        Self {
            wiki,
            streams,
            exactly_once,
            waiting: BTreeMap::new(),
            seen: HashMap::new(),
            early: HashMap::new(),
            newest: HashMap::new(),
            ids: HashSet::new(),
            tally: Tally::default(),
            violations: Vec::new(),
            violations_total: 0,
        }
    }

    /// An input was produced.
    pub(crate) fn produced(&mut self, position: Position, input: Input) {
        self.tally.inputs += 1;
        if input.expected == Expected::Dropped {
            self.tally.dropped += 1;
            *self.seen(&position) = Seen::Dropped;
        } else {
            self.tally.missing += 1;
            *self.seen(&position) = Seen::Waiting;
            self.waiting.insert(position.clone(), input);
        }
        for output in self.early.remove(&position).unwrap_or_default() {
            self.read(output);
        }
    }

    /// An output was read.
    pub(crate) fn read(&mut self, output: Output) {
        let Some(position) = output.source.clone() else {
            self.violation(format!("an output has no source position: {}", excerpt(&output.value)));
            return;
        };
        match self.state(&position) {
            Seen::Unknown => self.early.entry(position).or_default().push(output),
            Seen::Dropped => self.violation(format!("{}: a canary came out", name(&position))),
            Seen::Done => {
                self.tally.repeats += 1;
                if self.exactly_once {
                    self.violation(format!("{}: came out twice", name(&position)));
                }
            }
            Seen::Waiting => {
                *self.seen(&position) = Seen::Done;
                if let Some(input) = self.waiting.remove(&position) {
                    self.first(&position, &input, &output);
                }
            }
        }
    }

    fn state(&self, (topic, partition, offset): &Position) -> Seen {
        let offsets = self.seen.get(&(topic.clone(), *partition));
        offsets.and_then(|offsets| offsets.get(usize::try_from(*offset).ok()?)).copied().unwrap_or_default()
    }

    /// The state of an offset that the broker gave to an input.
    fn seen(&mut self, (topic, partition, offset): &Position) -> &mut Seen {
        let index = usize::try_from(*offset).unwrap_or(0);
        let offsets = self.seen.entry((topic.clone(), *partition)).or_default();
        if offsets.len() <= index {
            offsets.resize(index + 1, Seen::Unknown);
        }
        &mut offsets[index]
    }

    fn first(&mut self, position: &Position, input: &Input, output: &Output) {
        self.tally.missing -= 1;
        match input.expected {
            Expected::Enriched => self.tally.enriched += 1,
            Expected::WithoutBody => {
                self.tally.enriched += 1;
                self.tally.without_body += 1;
            }
            Expected::PassedThrough => self.tally.passed_through += 1,
            Expected::Error => self.tally.errors += 1,
            Expected::Dropped => {}
        }
        let complaints = self.complaints(position, input, output);
        for complaint in complaints {
            self.violation(format!("{}: {complaint}", name(position)));
        }
    }

    fn complaints(&mut self, position: &Position, input: &Input, output: &Output) -> Vec<String> {
        let is_error = output.destination == Destination::Errors;
        let Ok(event) = serde_json::from_slice::<Value>(&output.value) else {
            return vec![format!("the output is not JSON: {}", excerpt(&output.value))];
        };
        if is_error != (input.expected == Expected::Error) {
            let what = if is_error { event["message"].to_string() } else { "it went to the sink".to_owned() };
            return vec![format!("expected {:?}, but {what}", input.expected)];
        }
        let mut complaints = Vec::new();
        if is_error {
            complaints.extend(content_check::error_event(&event, &input.value, self.streams.errors));
        } else {
            complaints.extend(content_check::output_event(&self.wiki, &event, input, self.streams.sink));
            if output.key.as_deref() != input.key.as_ref().map(String::as_bytes) {
                complaints.push("the key is another one".to_owned());
            }
            complaints.extend(self.order(position, output));
        }
        if let Some(id) = event["meta"]["id"].as_str()
            && self.ids.len() < IDS_REMEMBERED_MAX
            && !self.ids.insert(id.to_owned())
        {
            complaints.push(format!("meta.id {id} was used before"));
        }
        complaints
    }

    /// Events of one page leave in the order in which they came.
    fn order(&mut self, (topic, partition, offset): &Position, output: &Output) -> Option<String> {
        let key = output.key.clone()?;
        let newest = self.newest.entry((output.destination, topic.clone(), *partition, key)).or_insert(-1);
        let before = std::mem::replace(newest, *offset.max(newest));
        (before > *offset).then(|| format!("came after offset {before} of the same page"))
    }

    fn violation(&mut self, text: String) {
        self.violations_total += 1;
        if self.violations.len() < VIOLATIONS_KEPT {
            self.violations.push(text);
        }
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(crate) fn violations_total(&self) -> u64 {
        self.violations_total
    }

    /// The verdict on a drained job: all violations, those of the end included.
    pub(crate) fn finish(mut self, job: Option<JobCounters>) -> (Tally, Vec<String>, u64) {
        let missing: Vec<Position> = self.waiting.keys().cloned().collect();
        let strangers: Vec<Position> = self.early.keys().cloned().collect();
        for position in missing {
            self.violation(format!("{}: nothing came out", name(&position)));
        }
        for position in strangers {
            self.violation(format!("{}: an output of an input that was never produced", name(&position)));
        }
        if let Some(job) = job {
            for text in conservation(&self.tally, &job) {
                self.violation(text);
            }
        }
        (self.tally, self.violations, self.violations_total)
    }
}

/// What the job counted is what went in and came out.
fn conservation(tally: &Tally, job: &JobCounters) -> Vec<String> {
    let sum = job.enriched + job.passed_through + job.errors + job.dropped;
    [
        ("consumed", job.consumed, tally.inputs),
        ("enriched", job.enriched, tally.enriched),
        ("passed through", job.passed_through, tally.passed_through),
        ("errors", job.errors, tally.errors),
        ("dropped", job.dropped, tally.dropped),
        ("consumed against the sum of outcomes", job.consumed, sum),
    ]
    .into_iter()
    .filter(|(_, counted, seen)| counted != seen)
    .map(|(what, counted, seen)| format!("conservation: the job counts {counted} {what}, {seen} were seen"))
    .collect()
}

fn name((topic, partition, offset): &Position) -> String {
    format!("{topic}-{partition}@{offset}")
}

fn excerpt(value: &[u8]) -> String {
    String::from_utf8_lossy(value).chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const STREAMS: Streams = Streams { sink: "sink.v1", errors: "job.error" };

    fn verifier(exactly_once: bool) -> Verifier {
        Verifier::new(Wiki { content_bytes: 100 }, STREAMS, exactly_once)
    }

    fn at(offset: i64) -> Position {
        ("eqiad.in".to_owned(), 0, offset)
    }

    fn delete() -> Input {
        let value = json!({"meta": {"domain": "en.wikipedia.org", "id": "old"}, "page_change_kind": "delete"});
        Input { key: Some("k".to_owned()), value: value.to_string().into_bytes(), expected: Expected::PassedThrough }
    }

    fn deleted(offset: i64) -> Output {
        let value = json!({
            "$schema": "/mediawiki/page/change/1.2.0",
            "meta": {"domain": "en.wikipedia.org", "id": format!("new{offset}"), "stream": "sink.v1", "dt": "now"},
            "page_change_kind": "delete",
        });
        Output {
            destination: Destination::Sink { partition: 0 },
            source: Some(at(offset)),
            key: Some(b"k".to_vec()),
            value: value.to_string().into_bytes(),
        }
    }

    #[test]
    fn all_well_is_no_violation_in_whatever_order_it_is_told() {
        let mut verifier = verifier(true);
        verifier.produced(at(0), delete());
        verifier.read(deleted(0));
        verifier.read(deleted(1));
        verifier.produced(at(1), delete());
        let job = JobCounters { consumed: 2, passed_through: 2, ..Default::default() };
        let (tally, violations, total) = verifier.finish(Some(job));
        assert_eq!((tally.inputs, tally.passed_through, total), (2, 2, 0), "{violations:?}");
    }

    #[test]
    fn repeats_count_and_are_violations_under_exactly_once_only() {
        for exactly_once in [false, true] {
            let mut verifier = verifier(exactly_once);
            verifier.produced(at(0), delete());
            verifier.read(deleted(0));
            verifier.read(deleted(0));
            assert_eq!(verifier.tally().repeats, 1);
            assert_eq!(verifier.violations_total(), u64::from(exactly_once));
        }
    }

    #[test]
    fn what_is_missing_strange_out_of_order_or_uncounted_is_found() {
        let mut verifier = verifier(false);
        for offset in 0..4 {
            verifier.produced(at(offset), delete());
        }
        verifier.read(deleted(2));
        verifier.read(deleted(1));
        verifier.read(deleted(9));
        verifier.read(Output { key: None, ..deleted(3) });
        verifier.read(Output { source: None, ..deleted(0) });
        let job = JobCounters { consumed: 4, passed_through: 4, ..Default::default() };
        let (_, violations, _) = verifier.finish(Some(job));
        for expected in [
            "eqiad.in-0@1: came after offset 2",
            "eqiad.in-0@9: an output of an input that was never produced",
            "eqiad.in-0@3: the key is another one",
            "eqiad.in-0@0: nothing came out",
            "no source position",
            "the job counts 4 passed through, 3 were seen",
        ] {
            assert!(violations.iter().any(|text| text.contains(expected)), "{expected} in {violations:?}");
        }
    }

    #[test]
    fn canaries_and_errors_that_come_out_of_the_wrong_end_are_found() {
        let mut verifier = verifier(false);
        verifier.produced(at(0), Input { expected: Expected::Dropped, ..delete() });
        verifier.read(deleted(0));
        verifier.produced(at(1), Input { expected: Expected::Error, ..delete() });
        verifier.read(deleted(1));
        assert_eq!(verifier.violations_total(), 2);
    }
}
