//! Whether what the product counted is what the topics hold: consumed = enriched + passed through + errors + dropped, for
//! every key range of every source partition.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::AddAssign,
};

use xxhash_rust::xxh3::xxh3_64;

use super::{Evidence, Job, Position, Record, Rule, Verdict, event::Expected, json};

/// Records by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Outputs with content, or without it because it is hidden.
    pub enriched: u64,
    /// Outputs as they came.
    pub passed_through: u64,
    /// Error events.
    pub errors: u64,
    /// Canaries.
    pub dropped: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.enriched += other.enriched;
        self.passed_through += other.passed_through;
        self.errors += other.errors;
        self.dropped += other.dropped;
    }
}

/// What the product counted of one key range.
#[derive(Clone, Debug)]
pub struct Counted {
    /// Source topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Number of the key range.
    pub split: u32,
    /// Its bounds, `[start, end)`, in the upper half of XXH3-64 of the message key.
    pub key_hashes: (u64, u64),
    /// What it counted.
    pub counts: Counts,
}

/// An input's key hash, where it has a key, and what became of it.
type Ended = (Option<u64>, Counts);

/// Compares by key range where every message of a partition has a key, and by partition always. Nothing counted is nothing
/// to compare.
pub fn check(job: &Job, evidence: &Evidence<'_>, counted: &[Counted], verdict: &mut Verdict) {
    if counted.is_empty() {
        return;
    }
    let sources =
        |records: &[Record]| -> HashSet<Position> { records.iter().filter_map(|r| r.source().ok()).collect() };
    let (outputs, errors) = (sources(evidence.outputs), sources(evidence.errors));
    let mut found: HashMap<(&str, i32), Vec<Ended>> = HashMap::new();
    for input in evidence.inputs {
        let position = input.position();
        let mut counts = Counts::default();
        let field = if outputs.contains(&position) {
            if is_passed_through(job, input) { &mut counts.passed_through } else { &mut counts.enriched }
        } else if errors.contains(&position) {
            &mut counts.errors
        } else {
            // A lost one is told of by another rule; here it makes the sums differ as well.
            &mut counts.dropped
        };
        *field += 1;
        let hash = input.key.as_ref().map(|key| xxh3_64(key) >> 32);
        found.entry((&input.topic, input.partition)).or_default().push((hash, counts));
    }
    let mut ranges: BTreeMap<(&str, i32), Vec<&Counted>> = BTreeMap::new();
    for each in counted {
        ranges.entry((&each.topic, each.partition)).or_default().push(each);
    }
    for ((topic, partition), ranges) in ranges {
        let records = found.remove(&(topic, partition)).unwrap_or_default();
        let all = |in_range: &dyn Fn(u64) -> bool| sum(&records, in_range);
        let counted = ranges.iter().fold(Counts::default(), |mut sum, each| {
            sum += each.counts;
            sum
        });
        compare(&format!("{topic}-{partition}"), counted, all(&|_| true), verdict);
        if records.iter().all(|(hash, _)| hash.is_some()) {
            for each in ranges {
                let (start, end) = each.key_hashes;
                let name = format!("{topic}-{partition}/{}", each.split);
                compare(&name, each.counts, all(&|hash| (start..end).contains(&hash)), verdict);
            }
        }
    }
}

/// Of an input that has an output: whether nothing was to be fetched for it.
fn is_passed_through(job: &Job, input: &Record) -> bool {
    match job.overrides.get(&input.position()) {
        Some(expected) => *expected == Expected::PassedThrough,
        None => {
            let kind = input.text().and_then(|text| json::text_at(text, &["page_change_kind"]));
            kind.as_deref() == Some("delete")
        }
    }
}

fn sum(records: &[Ended], in_range: &dyn Fn(u64) -> bool) -> Counts {
    let mut sum = Counts::default();
    records.iter().filter(|(hash, _)| in_range(hash.unwrap_or_default())).for_each(|(_, counts)| sum += *counts);
    sum
}

fn compare(name: &str, counted: Counts, found: Counts, verdict: &mut Verdict) {
    if counted != found {
        verdict.add(Rule::Conservation, format!("{name}: counted {counted:?}, the topics hold {found:?}"));
    }
}
