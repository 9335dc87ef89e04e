//! Weir in a model of everything around it, by seeds: see ARCHITECTURE.md for what it shows.
//!
//! Real: coordinator, start rules, snapshots, the candidate for the lease; session, sink, writer, doubt, cells, order and
//! budget. Models: broker and its clients, object store, network, clocks, processes, reading and enrichment.
//!
//! `WEIR_SIM_SEEDS` (default 300) schedules from `WEIR_SIM_FIRST_SEED` (default 0) on. A failing one is printed with what
//! happened in it, and replays exactly.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used, reason = "a test that reports what it tried")]

mod broker;
mod bucket;
mod checker;
mod client;
mod jobmanager;
mod memory;
mod network;
mod output;
mod random;
mod reader;
mod taskmanager;
mod time;
mod variants;
mod weather;
mod world;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Instant,
};

use variants::Variant;
use weir_taskmanager::engine::Metrics;
use world::{Outcome, World};

/// Lines of the trace that are printed for a failing seed.
const TRACE_LINES: usize = 400;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: `{text}` is no number")))
}

fn threads() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Runs a schedule; a panic in what is simulated is a result like another.
fn run(seed: u64, variant: Variant, metrics: &Metrics, traced: bool) -> Outcome {
    let played = catch_unwind(AssertUnwindSafe(|| World::run(seed, variant, metrics, traced)));
    played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
        Outcome {
            result: Err(format!("panicked: {text}")),
            steps: 0,
            digest: 0,
            counts: BTreeMap::new(),
            trace: Vec::new(),
        }
    })
}

#[test]
fn schedules_lose_and_double_nothing() {
    let (first, seeds) = (number("WEIR_SIM_FIRST_SEED", 0), number("WEIR_SIM_SEEDS", 300));
    let (next, failed) = (AtomicU64::new(first), AtomicBool::new(false));
    let started = Instant::now();
    let work = || {
        let metrics = Metrics::new();
        let (mut steps, mut counts) = (0, BTreeMap::new());
        while !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds {
                break;
            }
            let outcome = run(seed, Variant::Correct, &metrics, false);
            steps += outcome.steps;
            outcome.counts.iter().for_each(|(what, count)| *counts.entry(*what).or_insert(0) += count);
            if let Err(violation) = outcome.result {
                failed.store(true, Ordering::Relaxed);
                return Err((seed, violation));
            }
        }
        Ok((steps, counts))
    };
    let results: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads()).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let (mut steps, mut faults) = (0u64, BTreeMap::<&str, u64>::new());
    for result in results {
        match result {
            Ok((some, counts)) => {
                steps += some;
                counts.into_iter().for_each(|(what, count)| *faults.entry(what).or_default() += count);
            }
            Err((seed, violation)) => explain(seed, &violation),
        }
    }
    let took = started.elapsed();
    let rate = seeds as f64 / took.as_secs_f64();
    println!("{seeds} schedules from seed {first} in {took:.1?} ({rate:.0}/s), {steps} steps; faults: {faults:#?}");
    assert!(seeds < 200 || faults.len() >= 16, "a kind of fault never happened");
}

/// Plays a failing seed again, with words.
fn explain(seed: u64, violation: &str) {
    let outcome = run(seed, Variant::Correct, &Metrics::new(), true);
    for line in outcome.trace.iter().rev().take(TRACE_LINES).rev() {
        println!("{line}");
    }
    panic!("seed {seed}: {violation}\nreplay: make sim SEEDS=1 FIRST_SEED={seed}");
}

#[test]
fn a_seed_is_always_the_same_schedule() {
    let metrics = Metrics::new();
    for seed in 0..20 {
        let first = run(seed, Variant::Correct, &metrics, true);
        let second = run(seed, Variant::Correct, &Metrics::new(), true);
        let untraced = run(seed, Variant::Correct, &metrics, false);
        assert_eq!(first.trace, second.trace, "seed {seed}");
        assert_eq!([second.digest, untraced.digest], [first.digest; 2], "seed {seed}");
    }
}

/// A simulation that cannot fail shows nothing: each of these mistakes must be found.
#[test]
fn mistakes_are_found() {
    let most = number("WEIR_SIM_MISTAKE_SEEDS", 5000);
    let next = AtomicU64::new(0);
    let look = || {
        let metrics = Metrics::new();
        let mut missed = Vec::new();
        while let Some(variant) = Variant::MISTAKES.get(next.fetch_add(1, Ordering::Relaxed) as usize).copied() {
            let found = |seed| Some((seed, run(seed, variant, &metrics, false).result.err()?));
            match (0..most).filter_map(found).find(|(_, why)| why.contains(variant.sign())) {
                Some((seed, why)) => println!("{variant:?}: seed {seed}: {why}"),
                None => missed.push(variant),
            }
        }
        missed
    };
    let missed: Vec<Variant> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads()).map(|_| scope.spawn(look)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(missed.is_empty(), "not found in {most} schedules each: {missed:?}");
}
