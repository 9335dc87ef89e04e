//! One byte budget for everything a taskmanager holds, and a bound on records being enriched.
//!
//! A record takes its bytes (its own and the enricher's reservation) at admission, before it is enriched; the claim is
//! corrected to the result's size, and ends when the result's transaction has committed. No budget, no more reads.

use std::{fs, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use weir_common::config::size::ByteSize;

/// Bytes are counted in KiB: a semaphore takes at most `u32` permits at once.
const UNIT: u64 = 1024;

/// What a record costs beyond its bytes: its places in tracker, queues and tasks. Also what keeps queues of empty
/// records bounded.
const RECORD_OVERHEAD: u64 = 1024;

/// Share of the memory limit that is the default budget, in percent, and its upper bound: with more, output that waits for
/// Kafka would fill it, and nothing would be faster. It holds 1,800 events of 10 KB of content in flight.
const DEFAULT_PERCENT: u64 = 40;
const DEFAULT_MAX: ByteSize = ByteSize::mib(64);

/// The budget. Cheap to clone; waiters are served in order.
#[derive(Clone, Debug)]
pub struct Budget {
    bytes: Arc<Semaphore>,
    records: Arc<Semaphore>,
    units: u32,
    max_in_flight: usize,
}

impl Budget {
    /// A budget of so many bytes (at least one KiB) and records being enriched (at least one).
    #[must_use]
    pub fn new(bytes: ByteSize, max_in_flight: usize) -> Self {
        let units = u32::try_from(bytes.0 / UNIT).unwrap_or(u32::MAX).max(1);
        let max_in_flight = max_in_flight.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            bytes: Arc::new(Semaphore::new(units as usize)),
            records: Arc::new(Semaphore::new(max_in_flight)),
            units,
            max_in_flight,
        }
    }

    /// Waits until a record of `bytes` may be taken in. One that is larger than the whole budget is admitted alone.
    ///
    /// # Cancel safety
    /// Dropping the future gives back what it had taken and its place in the queue.
    pub async fn admit(&self, bytes: u64) -> Admission {
        let record = Arc::clone(&self.records).acquire_owned().await.expect("the semaphore is never closed");
        let units = self.units_of(bytes);
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(units).await.expect("the semaphore is never closed");
        Admission { held: Held(bytes), _record: record, budget: self.clone() }
    }

    /// Size of the budget in bytes.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        u64::from(self.units) * UNIT
    }

    /// Bytes in use.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.total_bytes() - self.bytes.available_permits() as u64 * UNIT
    }

    /// Records being enriched.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.max_in_flight - self.records.available_permits()
    }

    fn units_of(&self, bytes: u64) -> u32 {
        let units = bytes.saturating_add(RECORD_OVERHEAD).div_ceil(UNIT);
        u32::try_from(units).unwrap_or(u32::MAX).min(self.units)
    }
}

/// A record that may be enriched.
#[derive(Debug)]
pub struct Admission {
    held: Held,
    _record: OwnedSemaphorePermit,
    budget: Budget,
}

impl Admission {
    /// The work is done and its result takes `bytes`: gives the rest back. A result that outgrew its reservation takes
    /// what is free and no more, since waiting here could wait for itself.
    #[must_use]
    pub fn settle(self, bytes: u64) -> Held {
        let Self { mut held, budget, .. } = self;
        let needed = budget.units_of(bytes) as usize;
        let claimed = held.0.num_permits();
        if needed < claimed {
            drop(held.0.split(claimed - needed));
        } else if needed > claimed {
            let missing = u32::try_from(needed - claimed).unwrap_or(u32::MAX);
            if let Ok(more) = Arc::clone(&budget.bytes).try_acquire_many_owned(missing) {
                held.0.merge(more);
            }
        }
        held
    }
}

/// Bytes that are held until this is dropped.
#[derive(Debug)]
pub struct Held(OwnedSemaphorePermit);

impl Held {
    /// How many.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.num_permits() as u64 * UNIT
    }
}

/// The budget to use when none is configured: 40 % of the memory limit that the process sees, at most 64 MiB.
#[must_use]
pub fn default_budget() -> ByteSize {
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let cgroup =
        limits.iter().filter_map(|file| fs::read_to_string(file).ok()).find_map(|text| text.trim().parse().ok());
    let host = fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_total(&text));
    share_of([cgroup, host].into_iter().flatten().min())
}

fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn share_of(limit: Option<u64>) -> ByteSize {
    limit.map_or(DEFAULT_MAX, |limit| ByteSize(limit / 100 * DEFAULT_PERCENT).min(DEFAULT_MAX))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn a_full_budget_admits_nobody_until_bytes_come_back() {
        let budget = Budget::new(ByteSize(10 * 1024), 100);
        let first = budget.admit(8 * 1024).now_or_never().expect("fits");
        assert!(budget.admit(1024).now_or_never().is_none());
        let held = first.settle(2 * 1024);
        assert_eq!(budget.used_bytes(), 3 * 1024, "result and overhead");
        let second = budget.admit(1024).now_or_never().expect("fits again");
        drop(held);
        drop(second);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn a_record_larger_than_the_budget_goes_alone() {
        let budget = Budget::new(ByteSize(10 * 1024), 100);
        let small = budget.admit(0).now_or_never().expect("fits");
        assert!(budget.admit(u64::MAX).now_or_never().is_none());
        drop(small);
        let large = budget.admit(u64::MAX).now_or_never().expect("alone");
        assert!(budget.admit(0).now_or_never().is_none());
        drop(large);
    }

    #[test]
    fn waiters_are_served_in_order_so_that_large_records_do_not_starve() {
        let budget = Budget::new(ByteSize(10 * 1024), 100);
        let first = budget.admit(5 * 1024).now_or_never().expect("fits");
        let mut large = Box::pin(budget.admit(9 * 1024));
        assert!(large.as_mut().now_or_never().is_none());
        assert!(budget.admit(0).now_or_never().is_none(), "waits behind the large one");
        drop(first);
        assert!(large.now_or_never().is_some());
    }

    #[test]
    fn records_in_flight_are_bounded_until_their_work_is_done() {
        let budget = Budget::new(ByteSize::mib(1), 2);
        let first = budget.admit(0).now_or_never().expect("fits");
        let _second = budget.admit(0).now_or_never().expect("fits");
        assert!(budget.admit(0).now_or_never().is_none());
        let _held = first.settle(0);
        assert_eq!(budget.in_flight(), 1);
        assert!(budget.admit(0).now_or_never().is_some());
    }

    #[test]
    fn a_result_that_outgrew_its_reservation_takes_what_is_free() {
        let budget = Budget::new(ByteSize(10 * 1024), 2);
        let held = budget.admit(0).now_or_never().expect("fits").settle(5 * 1024);
        assert_eq!(held.bytes(), 6 * 1024);
        let second = budget.admit(0).now_or_never().expect("fits").settle(9 * 1024);
        assert_eq!(second.bytes(), 1024, "nothing is free for more");
    }

    #[test]
    fn the_default_is_a_share_of_the_limit() {
        for (limit, expected) in [
            (Some(100_000_000), 40_000_000),
            (Some(1_500_000_000), 64 << 20),
            (Some(1 << 40), 64 << 20),
            (None, 64 << 20),
        ] {
            assert_eq!(share_of(limit).0, expected);
        }
        assert_eq!(mem_total("MemTotal:       24576 kB\nMemFree: 1 kB\n"), Some(24576 * 1024));
    }
}
