//! Progress as plain Kafka offsets: one number for a whole partition, which any consumer understands.

use std::collections::{BTreeMap, BTreeSet};

use weir_common::{
    progress::Progress,
    split::{SplitId, TopicPartition},
};

use super::event::{SplitState, SplitStates};

/// So many partitions are named in one message; the others are counted.
const MAX_NAMED: usize = 8;

/// Key ranges of a partition that have come differently far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// The lowest offset that is not finished.
    pub lowest: i64,
    /// Nothing at or above it was finished or read past.
    pub highest: i64,
}

/// Progress that is not one offset a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uneven(pub BTreeMap<TopicPartition, Spread>);

impl std::fmt::Display for Uneven {
    /// `eqiad.stream-0 from 41 to 57, …`, a few of them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let named = self.0.iter().take(MAX_NAMED);
        let named: Vec<String> = named
            .map(|(partition, spread)| format!("{partition} from {} to {}", spread.lowest, spread.highest))
            .collect();
        f.write_str(&named.join(", "))?;
        match self.0.len().saturating_sub(MAX_NAMED) {
            0 => Ok(()),
            more => write!(f, " and {more} more partitions"),
        }
    }
}

/// Nothing at or above it was finished or read past.
#[must_use]
pub fn end(progress: &Progress) -> i64 {
    progress.finished_ahead.last().map_or(progress.cursor, |range| range.end)
}

/// How far apart the key ranges of each partition are.
#[must_use]
pub fn spreads<'a>(
    states: impl IntoIterator<Item = (&'a SplitId, &'a SplitState)>,
) -> BTreeMap<TopicPartition, Spread> {
    let mut spreads: BTreeMap<TopicPartition, Spread> = BTreeMap::new();
    for (id, state) in states {
        let (lowest, highest) = (state.progress.cursor, end(&state.progress));
        let spread = spreads.entry(id.topic_partition()).or_insert(Spread { lowest, highest });
        *spread = Spread { lowest: lowest.min(spread.lowest), highest: highest.max(spread.highest) };
    }
    spreads
}

/// The one offset of each partition below which everything is finished and above which nothing is.
///
/// # Errors
/// Partitions that have no such offset.
pub fn plain_offsets(states: &SplitStates) -> Result<BTreeMap<TopicPartition, i64>, Uneven> {
    let spreads = spreads(states);
    let uneven: BTreeMap<_, _> = spreads
        .iter()
        .filter(|(_, spread)| spread.lowest != spread.highest)
        .map(|(partition, spread)| (partition.clone(), *spread))
        .collect();
    if uneven.is_empty() {
        Ok(spreads.into_iter().map(|(partition, spread)| (partition, spread.lowest)).collect())
    } else {
        Err(Uneven(uneven))
    }
}

/// What is wrong with offsets that are to be of all the job's partitions and no others, for the operator.
#[must_use]
pub fn mismatch(offsets: &BTreeMap<TopicPartition, i64>, job: &BTreeSet<TopicPartition>) -> Option<String> {
    let unknown: Vec<&TopicPartition> = offsets.keys().filter(|partition| !job.contains(partition)).collect();
    let missing: Vec<&TopicPartition> = job.iter().filter(|partition| !offsets.contains_key(partition)).collect();
    let mut wrong = Vec::new();
    if !unknown.is_empty() {
        wrong.push(format!("the job does not read {}", list(&unknown)));
    }
    if !missing.is_empty() {
        wrong.push(format!("no offset is given for {}", list(&missing)));
    }
    (!wrong.is_empty()).then(|| {
        format!(
            "{}; give one offset for each partition of the job and for no other: `weir splits` lists them",
            wrong.join("; ")
        )
    })
}

fn list(partitions: &[&TopicPartition]) -> String {
    let named: Vec<String> = partitions.iter().take(MAX_NAMED).map(ToString::to_string).collect();
    match partitions.len().saturating_sub(MAX_NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use weir_common::progress::OffsetRange;

    use super::*;

    /// Partition, key range, cursor, what is finished ahead.
    type Row<'a> = (i32, u32, i64, &'a [(i64, i64)]);

    fn states(rows: &[Row<'_>]) -> SplitStates {
        let state = |(partition, index, cursor, ahead): &Row<'_>| {
            let id = SplitId { topic: "t".into(), partition: *partition, index: *index };
            let finished_ahead = ahead.iter().map(|(start, end)| OffsetRange { start: *start, end: *end }).collect();
            (id, SplitState { progress: Progress { cursor: *cursor, finished_ahead }, ..SplitState::default() })
        };
        rows.iter().map(state).collect()
    }

    #[test]
    fn one_offset_a_partition_or_how_far_they_are_apart() {
        let even = states(&[(0, 0, 7, &[]), (0, 1, 7, &[]), (1, 0, 0, &[])]);
        let offsets: Vec<i64> = plain_offsets(&even).expect("even").into_values().collect();
        assert_eq!(offsets, [7, 0]);
        for (rows, text) in [
            (states(&[(0, 0, 7, &[]), (0, 1, 9, &[])]), "t-0 from 7 to 9"),
            (states(&[(0, 0, 7, &[(9, 12)]), (0, 1, 7, &[]), (1, 0, 3, &[])]), "t-0 from 7 to 12"),
        ] {
            assert_eq!(plain_offsets(&rows).expect_err("uneven").to_string(), text);
        }
        let many: Vec<Row<'_>> = (0..10).map(|partition| (partition, 0, 1, &[(2, 3)][..])).collect();
        assert!(plain_offsets(&states(&many)).expect_err("uneven").to_string().ends_with("and 2 more partitions"));
    }

    #[test]
    fn offsets_are_of_all_partitions_and_no_others() {
        let partition = |partition| TopicPartition { topic: "t".into(), partition };
        let job = [partition(0), partition(1)].into();
        assert_eq!(mismatch(&[(partition(0), 1), (partition(1), 2)].into(), &job), None);
        let wrong = mismatch(&[(partition(0), 1), (partition(2), 2)].into(), &job).expect("wrong");
        assert!(wrong.starts_with("the job does not read t-2; no offset is given for t-1; give one"), "{wrong}");
    }
}
