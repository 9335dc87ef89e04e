//! Decides whether a job did its work, from nothing but what Kafka and the wikis hold.
//!
//! An own code path on purpose: no parser, no rule and no type of the product is used here. What is read is what a
//! consumer with `isolation.level=read_committed` sees.

pub mod conservation;
pub mod event;
pub mod json;
pub mod read;
mod rules;
pub mod schema;
#[cfg(test)]
mod tests;
pub mod truth;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
};

use self::{
    event::{Expected, expected},
    schema::Schemas,
    truth::Truth,
};

/// A Kafka record, as read.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Topic.
    pub topic: String,
    /// Partition number.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Message key.
    pub key: Option<Vec<u8>>,
    /// Message value.
    pub value: Option<Vec<u8>>,
    /// Headers in order.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// Where an input record is: topic, partition, offset.
pub type Position = (String, i32, i64);

impl Record {
    /// Its own position.
    #[must_use]
    pub fn position(&self) -> Position {
        (self.topic.clone(), self.partition, self.offset)
    }

    /// The position of the input that it says it was made from; the reason if it does not say.
    ///
    /// # Errors
    /// Which header is missing, doubled or not a number.
    pub fn source(&self) -> Result<Position, String> {
        let header = |name: &str| {
            let mut found = self.headers.iter().filter(|(key, _)| key == name);
            match (found.next(), found.next()) {
                (Some((_, value)), None) => {
                    String::from_utf8(value.clone()).map_err(|_| format!("header {name} is not text"))
                }
                (None, _) => Err(format!("no header {name}")),
                (Some(_), Some(_)) => Err(format!("header {name} comes twice")),
            }
        };
        let number = |name: &str| -> Result<i64, String> {
            let text = header(name)?;
            text.parse().map_err(|_| format!("header {name} is `{text}`, not a number"))
        };
        let partition = number("weir-source-partition")?;
        let partition = i32::try_from(partition).map_err(|_| format!("partition {partition}"))?;
        Ok((header("weir-source-topic")?, partition, number("weir-source-offset")?))
    }

    fn text(&self) -> Option<&str> {
        self.value.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok())
    }
}

/// What the job was told to do.
#[derive(Clone, Debug)]
pub struct Job {
    /// Stream of the enriched events, as `meta.stream` must say.
    pub sink_stream: String,
    /// Stream of the error events.
    pub error_stream: String,
    /// Stream that is read, as `errored_stream_name` must say.
    pub source_stream: String,
    /// `$schema` of the enriched events.
    pub sink_schema: String,
    /// True: a redirect page's output names the target that it has now. False: what the input says of it stays.
    pub redirect_targets: bool,
    /// True: each input exactly once. False: at least once, repeats are counted.
    pub exactly_once: bool,
    /// Inputs whose route the general rules do not give.
    pub overrides: BTreeMap<Position, Expected>,
}

/// All that there is to judge.
pub struct Evidence<'a> {
    /// Everything in the source topics.
    pub inputs: &'a [Record],
    /// Everything committed in the sink's topic.
    pub outputs: &'a [Record],
    /// Everything committed in the error sink's topic.
    pub errors: &'a [Record],
}

/// One thing that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which rule.
    pub rule: Rule,
    /// Where and how.
    pub what: String,
}

/// The rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// An input has neither output nor error event, and is no canary.
    Lost,
    /// An input has more than one.
    Doubled,
    /// A record names an input that does not exist.
    FromNowhere,
    /// A canary came out, or an error event came where an output was due, or the other way round.
    Route,
    /// Content differs from what the wiki holds.
    Content,
    /// Something changed that nobody asked to change.
    Identity,
    /// Two events of one page of one source partition came out in the wrong order.
    Order,
    /// The message key is not the compact JSON of the key fields, or one key went to two partitions.
    Key,
    /// A source-position header is missing or garbled.
    Header,
    /// `meta`: id not new or not unique, dt missing, stream wrong.
    Meta,
    /// The record's timestamp is not the event's `dt`.
    Timestamp,
    /// Not valid against its schema.
    Schema,
    /// An error event does not carry its input as it came.
    RawEvent,
    /// What the product counted is not what the topics hold.
    Conservation,
}

/// What the checker found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Records in the source topics.
    pub inputs: usize,
    /// Inputs with an output.
    pub outputs: usize,
    /// Inputs with an error event.
    pub errors: usize,
    /// Canaries, rightly absent.
    pub dropped: usize,
    /// Records beyond the first of their input. At-least-once allows them.
    pub repeats: usize,
    /// Empty: all is well.
    pub violations: Vec<Violation>,
}

impl Verdict {
    /// True when nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    fn add(&mut self, rule: Rule, what: impl Into<String>) {
        self.violations.push(Violation { rule, what: what.into() });
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} inputs = {} outputs + {} error events + {} dropped, {} repeats, {} violations",
            self.inputs,
            self.outputs,
            self.errors,
            self.dropped,
            self.repeats,
            self.violations.len()
        )?;
        let mut by_rule: BTreeMap<Rule, Vec<&str>> = BTreeMap::new();
        for violation in &self.violations {
            by_rule.entry(violation.rule).or_default().push(&violation.what);
        }
        for (rule, found) in by_rule {
            write!(f, "\n  {rule:?}: {}", found.len())?;
            for what in found.iter().take(3) {
                write!(f, "\n    {what}")?;
            }
        }
        Ok(())
    }
}

/// Judges. Everything is looked at, whatever was found before.
#[must_use]
pub fn check(job: &Job, evidence: &Evidence<'_>, truth: &dyn Truth, schemas: &Schemas) -> Verdict {
    let mut verdict = Verdict { inputs: evidence.inputs.len(), ..Verdict::default() };
    let inputs: HashMap<Position, &Record> = evidence.inputs.iter().map(|r| (r.position(), r)).collect();
    let outputs = by_source(evidence.outputs, &inputs, &mut verdict);
    let errors = by_source(evidence.errors, &inputs, &mut verdict);
    let checker = rules::Rules { job, schemas };

    for (position, input) in &inputs {
        let none = Vec::new();
        let (out, err) = (outputs.get(position).unwrap_or(&none), errors.get(position).unwrap_or(&none));
        let mut expected = job.overrides.get(position).cloned().unwrap_or_else(|| expected(input, truth, schemas));
        if let Expected::Enriched { redirect, .. } = &mut expected
            && !job.redirect_targets
        {
            *redirect = None;
        }
        count(&expected, position, out, err, job.exactly_once, &mut verdict);
        for record in out {
            checker.output(input, record, &expected, &mut verdict);
        }
        for record in err {
            checker.error_event(input, record, &mut verdict);
        }
    }
    order(evidence.outputs, &inputs, &mut verdict);
    order(evidence.errors, &inputs, &mut verdict);
    keys_stay_in_one_partition(evidence.outputs, &mut verdict);
    unique_ids(evidence, &mut verdict);
    verdict
}

fn by_source<'a>(
    records: &'a [Record],
    inputs: &HashMap<Position, &Record>,
    verdict: &mut Verdict,
) -> HashMap<Position, Vec<&'a Record>> {
    let mut found: HashMap<Position, Vec<&Record>> = HashMap::new();
    for record in records {
        match record.source() {
            Ok(source) if inputs.contains_key(&source) => found.entry(source).or_default().push(record),
            Ok(source) => verdict.add(Rule::FromNowhere, format!("{} says it is from {}", at(record), show(&source))),
            Err(why) => verdict.add(Rule::Header, format!("{}: {why}", at(record))),
        }
    }
    found
}

fn count(
    expected: &Expected,
    input: &Position,
    outputs: &[&Record],
    errors: &[&Record],
    exactly_once: bool,
    verdict: &mut Verdict,
) {
    let all = outputs.len() + errors.len();
    match (expected, outputs.is_empty(), errors.is_empty()) {
        (Expected::Dropped, true, true) => verdict.dropped += 1,
        (Expected::Dropped, ..) => verdict.add(Rule::Route, format!("{}: a canary came out", show(input))),
        (_, true, true) => verdict.add(Rule::Lost, format!("{}: expected {}", show(input), expected.name())),
        (Expected::Error, true, false) => verdict.errors += 1,
        (Expected::Error, false, _) => {
            verdict.outputs += 1;
            verdict.add(Rule::Route, format!("{}: an output where an error event was due", show(input)));
        }
        (_, true, false) => {
            verdict.errors += 1;
            let why = errors[0].text().map(event::error_summary).unwrap_or_default();
            verdict.add(Rule::Route, format!("{}: expected {}, got error event {why}", show(input), expected.name()));
        }
        (_, false, _) => verdict.outputs += 1,
    }
    if all > 1 {
        verdict.repeats += all - 1;
        // Output and error event of one input exclude each other even where repeats are allowed to happen, but a retry
        // may honestly end differently there.
        if exactly_once {
            verdict.add(
                Rule::Doubled,
                format!("{}: {} outputs and {} error events", show(input), outputs.len(), errors.len()),
            );
        }
    }
}

/// First occurrences of one key of one source partition must come out as they went in.
fn order(records: &[Record], inputs: &HashMap<Position, &Record>, verdict: &mut Verdict) {
    let mut sorted: Vec<&Record> = records.iter().collect();
    sorted.sort_by_key(|r| (&r.topic, r.partition, r.offset));
    let mut newest: HashMap<(String, i32, Vec<u8>), i64> = HashMap::new();
    let mut seen = HashSet::new();
    for record in sorted {
        let Ok(source) = record.source() else { continue };
        let Some(key) = inputs.get(&source).and_then(|input| input.key.clone()) else { continue };
        if !seen.insert(source.clone()) {
            continue;
        }
        let (topic, partition, offset) = source;
        let newest = newest.entry((topic, partition, key)).or_insert(-1);
        if offset < *newest {
            verdict.add(Rule::Order, format!("{}: from offset {offset}, after that from {newest}", at(record)));
        }
        *newest = offset.max(*newest);
    }
}

fn keys_stay_in_one_partition(outputs: &[Record], verdict: &mut Verdict) {
    let mut partitions: BTreeMap<&[u8], BTreeSet<i32>> = BTreeMap::new();
    for record in outputs {
        if let Some(key) = &record.key {
            partitions.entry(key).or_default().insert(record.partition);
        }
    }
    for (key, found) in partitions.into_iter().filter(|(_, found)| found.len() > 1) {
        verdict.add(Rule::Key, format!("key {} in partitions {found:?}", String::from_utf8_lossy(key)));
    }
}

fn unique_ids(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    let ids = |records: &[Record]| -> Vec<String> {
        records.iter().filter_map(|r| r.text().and_then(|text| json::text_at(text, &["meta", "id"]))).collect()
    };
    let taken: HashSet<String> = ids(evidence.inputs).into_iter().collect();
    let mut seen = HashSet::new();
    for id in ids(evidence.outputs).into_iter().chain(ids(evidence.errors)) {
        if taken.contains(&id) {
            verdict.add(Rule::Meta, format!("meta.id {id} is an input's"));
        }
        if !seen.insert(id.clone()) {
            verdict.add(Rule::Meta, format!("meta.id {id} comes twice"));
        }
    }
}

fn at(record: &Record) -> String {
    show(&record.position())
}

fn show((topic, partition, offset): &Position) -> String {
    format!("{topic}-{partition}@{offset}")
}
