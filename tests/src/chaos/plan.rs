//! What strikes when: a pure function of the seed.

use std::{fmt, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::kind::{Kind, Lane};

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// After the start.
    pub at: Duration,
    /// What.
    pub kind: Kind,
    /// Which of several: taken modulo how many there are.
    pub target: u32,
    /// How long.
    pub duration: Duration,
}

/// Before a lane's first fault, and between two of them, milliseconds. Of eight lanes about two have one at a time: a job
/// that nothing gets through to shows nothing.
const PAUSE_MS: std::ops::Range<u64> = 4000..26_000;

/// What a fault is given to wear off where each is to be seen alone.
const CALM: Duration = Duration::from_secs(10);

/// Sequences of faults that run side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Each in order of time.
    pub sequences: Vec<Vec<Fault>>,
    /// At least so long from the end of a fault to the next of its sequence, even where it took longer than it should.
    pub calm: Duration,
}

impl Plan {
    /// All faults by time.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults: Vec<Fault> = self.sequences.iter().flatten().copied().collect();
        faults.sort_by_key(|fault| (fault.at, fault.kind));
        faults
    }

    /// When the last one should be over.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.sequences.iter().flatten().map(|fault| fault.at + fault.duration).max().unwrap_or_default()
    }
}

/// Random faults of these kinds that overlap. Each lane goes through all its kinds in a random order before one comes
/// again, and ends its last fault before `length` is over.
#[must_use]
pub fn overlapping(seed: u64, length: Duration, kinds: &[Kind]) -> Plan {
    let sequences = Lane::ALL.into_iter().map(|lane| of_lane(seed, lane, length, kinds)).collect();
    Plan { sequences, calm: Duration::from_secs(1) }
}

/// Each of these kinds once, one after another: what each costs by itself.
#[must_use]
pub fn one_by_one(seed: u64, kinds: &[Kind]) -> Plan {
    let mut random = StdRng::seed_from_u64(seed);
    let mut kinds = kinds.to_vec();
    kinds.shuffle(&mut random);
    let mut at = CALM;
    let faults = kinds.into_iter().map(|kind| {
        let fault = Fault { at, kind, target: random.random(), duration: duration(kind, &mut random) };
        at += fault.duration + CALM;
        fault
    });
    Plan { sequences: vec![faults.collect()], calm: CALM }
}

fn duration(kind: Kind, random: &mut StdRng) -> Duration {
    Duration::from_millis(random.random_range(kind.duration_ms()))
}

fn of_lane(seed: u64, lane: Lane, length: Duration, kinds: &[Kind]) -> Vec<Fault> {
    let mut random = StdRng::seed_from_u64(xxhash_rust::xxh3::xxh3_64_with_seed(format!("{lane:?}").as_bytes(), seed));
    let mut deck: Vec<Kind> = Vec::new();
    let mut faults = Vec::new();
    let mut at = Duration::from_millis(random.random_range(PAUSE_MS));
    loop {
        if deck.is_empty() {
            deck = kinds.iter().copied().filter(|kind| kind.lane() == lane).collect();
            deck.shuffle(&mut random);
        }
        let Some(kind) = deck.pop() else { return faults };
        let duration = duration(kind, &mut random);
        if at + duration > length {
            return faults;
        }
        faults.push(Fault { at, kind, target: random.random(), duration });
        at += duration + Duration::from_millis(random.random_range(PAUSE_MS));
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, duration) = (self.at.as_secs_f64(), self.duration.as_secs_f64());
        write!(f, "{at:7.1} s  {} for {duration:.1} s", self.kind.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn faults(seed: u64, length: Duration) -> Vec<Fault> {
        overlapping(seed, length, Kind::ALL).faults()
    }

    #[test]
    fn a_plan_is_its_seed() {
        assert_eq!(faults(1, LONG), faults(1, LONG));
        assert_ne!(faults(1, LONG), faults(2, LONG));
        let short = faults(1, LONG / 4);
        let start: Vec<Fault> =
            faults(1, LONG).into_iter().filter(|fault| fault.at + fault.duration <= LONG / 4).collect();
        assert_eq!(short, start, "a longer run begins as the shorter one");
    }

    #[test]
    fn every_kind_comes_and_none_twice_before_all_of_its_lane() {
        for seed in 0..20 {
            let mut counts: BTreeMap<Kind, u32> = Kind::ALL.iter().map(|kind| (*kind, 0)).collect();
            for fault in faults(seed, LONG) {
                *counts.get_mut(&fault.kind).expect("known") += 1;
            }
            for lane in Lane::ALL {
                let of_lane = || counts.iter().filter(|(kind, _)| kind.lane() == lane).map(|(_, count)| *count);
                let (least, most) = (of_lane().min(), of_lane().max());
                assert!(least >= Some(1), "seed {seed}: {counts:?}");
                assert!(most.expect("kinds") - least.expect("kinds") <= 1, "seed {seed}: {counts:?}");
            }
        }
    }

    #[test]
    fn a_lane_has_one_fault_at_a_time_and_ends_in_time() {
        for seed in 0..20 {
            let faults = faults(seed, LONG);
            assert!(faults.is_sorted_by_key(|fault| fault.at));
            for lane in Lane::ALL {
                let faults: Vec<&Fault> = faults.iter().filter(|fault| fault.kind.lane() == lane).collect();
                for pair in faults.windows(2) {
                    assert!(
                        pair[0].at + pair[0].duration + Duration::from_secs(2) <= pair[1].at,
                        "seed {seed}: {pair:?}"
                    );
                }
                assert!(faults.iter().all(|fault| fault.at + fault.duration <= LONG));
            }
            for fault in faults {
                assert!(fault.kind.duration_ms().contains(&(fault.duration.as_millis() as u64)), "{fault:?}");
            }
        }
    }

    #[test]
    fn lanes_overlap() {
        let faults = faults(1, LONG);
        let overlaps = |one: &Fault, other: &Fault| {
            one.kind.lane() != other.kind.lane()
                && one.at < other.at + other.duration
                && other.at < one.at + one.duration
        };
        let overlapping = faults.iter().filter(|one| faults.iter().any(|other| overlaps(one, other))).count();
        assert!(overlapping * 10 > faults.len() * 7, "{overlapping} of {}", faults.len());
    }

    #[test]
    fn one_by_one_every_kind_comes_once_and_alone() {
        let plan = one_by_one(3, Kind::ALL);
        let mut kinds: Vec<Kind> = plan.faults().iter().map(|fault| fault.kind).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, Kind::ALL);
        for pair in plan.faults().windows(2) {
            assert_eq!(pair[0].at + pair[0].duration + CALM, pair[1].at);
        }
        let last = *plan.faults().last().expect("faults");
        assert_eq!(plan.length(), last.at + last.duration);
        assert_ne!(plan, one_by_one(4, Kind::ALL));
    }

    #[test]
    fn only_the_kinds_that_are_asked_for_come() {
        let kinds = [Kind::BrokerKill, Kind::ApiHang];
        let found: Vec<Kind> = overlapping(1, LONG, &kinds).faults().iter().map(|fault| fault.kind).collect();
        assert!(found.iter().all(|kind| kinds.contains(kind)) && kinds.iter().all(|kind| found.contains(kind)));
        assert_eq!(overlapping(1, LONG, &[]).faults(), []);
    }

    #[test]
    fn there_are_more_than_twenty_kinds_with_names_of_their_own() {
        let mut names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Kind::ALL.len());
        assert!(names.len() >= 20);
    }
}
