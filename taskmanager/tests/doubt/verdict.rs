//! What was disturbed, and what became of the records.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::{Duration, Instant},
};

use weir_common::progress::entry::ProgressEntry;
use weir_tests::{
    checker::Record,
    proxy::{Injected, frame},
};

use super::trial::{SOURCE, client};

/// From the first record to the end of its cut.
pub(crate) struct Transaction {
    pub(crate) slot: u32,
    pub(crate) started: Instant,
    pub(crate) ended: Instant,
    /// Not one: the slot was lost and granted anew.
    pub(crate) lost: bool,
}

impl Transaction {
    pub(crate) fn lost(slot: u32) -> Self {
        let now = Instant::now();
        Self { slot, started: now, ended: now, lost: true }
    }
}

/// The figures of a trial.
#[derive(Default)]
pub(crate) struct Verdict {
    transactions: u64,
    pub(crate) disturbed: u64,
    /// By request and fault.
    faults: BTreeMap<(&'static str, &'static str), u64>,
    /// By doubt.
    recycles: BTreeMap<String, u64>,
    slots_lost: u64,
    took: Duration,
    records: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    disordered: u64,
    /// Progress that is not where the records are, and records from nowhere.
    wrong: Vec<String>,
}

impl Verdict {
    /// Transactions that at least one fault fell into.
    pub(crate) fn disturbed(transactions: &[Transaction], injected: &[Injected]) -> u64 {
        let mut by_client: BTreeMap<&str, Vec<Instant>> = BTreeMap::new();
        for fault in injected {
            by_client.entry(&fault.client).or_default().push(fault.at);
        }
        // As they came in: ascending for each client.
        let hit = |transaction: &&Transaction| {
            let faults = by_client.get(client(transaction.slot).as_str());
            faults.is_some_and(|faults| {
                let next = faults.partition_point(|at| *at < transaction.started);
                faults.get(next).is_some_and(|at| *at <= transaction.ended)
            })
        };
        transactions.iter().filter(|transaction| !transaction.lost).filter(hit).count() as u64
    }

    pub(crate) fn new(transactions: &[Transaction], injected: &[Injected], metrics: &str, took: Duration) -> Self {
        let mut verdict = Self {
            transactions: transactions.iter().filter(|transaction| !transaction.lost).count() as u64,
            slots_lost: transactions.iter().filter(|transaction| transaction.lost).count() as u64,
            disturbed: Self::disturbed(transactions, injected),
            recycles: recycles(metrics),
            took,
            ..Self::default()
        };
        for fault in injected {
            *verdict.faults.entry((request(fault.head.api_key), fault.fault.name())).or_default() += 1;
        }
        verdict
    }

    /// Holds what was read back against what was written: by slot the offsets below.
    pub(crate) fn judge(
        mut self,
        written: &BTreeMap<u32, i64>,
        stable: &BTreeMap<u32, ProgressEntry>,
        outputs: &[Record],
    ) -> Self {
        let mut times: BTreeMap<(u32, i64), u64> = BTreeMap::new();
        let mut newest: BTreeMap<&[u8], i64> = BTreeMap::new();
        for record in outputs {
            let found = match record.source() {
                Ok((topic, partition, offset)) if topic == SOURCE => (partition as u32, offset),
                other => {
                    self.wrong.push(format!("a record from {other:?}"));
                    continue;
                }
            };
            let count = times.entry(found).or_default();
            *count += 1;
            let newest = newest.entry(record.key.as_deref().unwrap_or_default()).or_insert(-1);
            // A repeat is counted as one; only first times tell the order.
            if *count == 1 && found.1 < *newest {
                self.disordered += 1;
            }
            *newest = found.1.max(*newest);
        }
        for (slot, next) in written {
            let found: BTreeSet<i64> = times.keys().filter(|(of, _)| of == slot).map(|(_, offset)| *offset).collect();
            self.records += *next as u64;
            self.lost += (0..*next).filter(|offset| !found.contains(offset)).count() as u64;
            self.doubled += times.iter().filter(|((of, _), count)| of == slot && **count > 1).count() as u64;
            match stable.get(slot) {
                Some(entry) if entry.progress.cursor == *next && entry.progress.finished_ahead.is_empty() => {}
                other => self.wrong.push(format!("progress of slot {slot} is {other:?}, {next} records were written")),
            }
        }
        self
    }

    pub(crate) fn recycles(&self) -> u64 {
        self.recycles.values().sum()
    }

    pub(crate) fn is_exact(&self) -> bool {
        self.lost + self.doubled + self.disordered == 0 && self.wrong.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: u64 = self.faults.values().sum();
        writeln!(
            f,
            "  {} transactions, {} of them disturbed, by {total} faults, in {:.0} s; slots lost and granted anew: {}",
            self.transactions,
            self.disturbed,
            self.took.as_secs_f64(),
            self.slots_lost
        )?;
        for ((request, fault), count) in &self.faults {
            writeln!(f, "    {request:20} {fault:18} {count:6}")?;
        }
        write!(f, "  recycles {}:", self.recycles())?;
        for (doubt, count) in &self.recycles {
            write!(f, " {doubt} {count}")?;
        }
        writeln!(
            f,
            "\n  {} records: {} lost, {} doubled, {} out of order",
            self.records, self.lost, self.doubled, self.disordered
        )?;
        for wrong in self.wrong.iter().take(10) {
            writeln!(f, "  {wrong}")?;
        }
        Ok(())
    }
}

fn request(api_key: i16) -> &'static str {
    match api_key {
        frame::PRODUCE => "Produce",
        frame::INIT_PRODUCER_ID => "InitProducerId",
        frame::ADD_PARTITIONS_TO_TXN => "AddPartitionsToTxn",
        frame::ADD_OFFSETS_TO_TXN => "AddOffsetsToTxn",
        frame::END_TXN => "EndTxn",
        frame::TXN_OFFSET_COMMIT => "TxnOffsetCommit",
        _ => "other",
    }
}

/// From lines such as `weir_recycles_total{reason="log_line"} 12`.
fn recycles(metrics: &str) -> BTreeMap<String, u64> {
    let lines = metrics.lines().filter_map(|line| line.strip_prefix("weir_recycles_total{reason=\""));
    lines
        .filter_map(|line| {
            let (reason, count) = line.split_once("\"} ")?;
            Some((reason.to_owned(), count.parse().ok()?))
        })
        .collect()
}
