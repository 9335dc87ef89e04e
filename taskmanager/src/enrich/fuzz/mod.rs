//! Mutation of the fixtures, by a seed: of events for parser and editor, of answers for what reads them.
//!
//! Short as a test. Longer: `WEIR_FUZZ_SECONDS=300 WEIR_FUZZ_SEED=7 cargo test -p weir-taskmanager --lib fuzz -- --nocapture`.
//! What it finds becomes a named test.

mod events;
pub(crate) mod mutate;

use std::{
    collections::BTreeMap,
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::{Duration, Instant},
};

use rand::{SeedableRng, rngs::StdRng};
use serde_json::Value;

/// Of a short run.
const CASES: u64 = 2_000;

/// Judges mutated inputs until the run is over; `judge` names what became of one, or panics. How often which happened.
pub(crate) fn run(
    name: &str,
    corpus: &[Vec<u8>],
    judge: impl Fn(&mut StdRng, &[u8]) -> &'static str,
) -> BTreeMap<&'static str, u64> {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (seed, seconds) = (number("WEIR_FUZZ_SEED").unwrap_or(1), number("WEIR_FUZZ_SECONDS"));
    let begun = Instant::now();
    let mut seen = BTreeMap::new();
    let mut cases = 0;
    while seconds.map_or(cases < CASES, |seconds| begun.elapsed() < Duration::from_secs(seconds)) {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(1 << 40).wrapping_add(cases));
        let input = mutate::mutated(&mut rng, corpus);
        match catch_unwind(AssertUnwindSafe(|| judge(&mut rng, &input))) {
            Ok(outcome) => *seen.entry(outcome).or_default() += 1,
            Err(panic) => {
                eprintln!("{name}: case {cases} of seed {seed}, {} bytes: {}", input.len(), input.escape_ascii());
                resume_unwind(panic);
            }
        }
        cases += 1;
    }
    eprintln!("{name}: {cases} cases in {:.1} s: {seen:?}", begun.elapsed().as_secs_f64());
    seen
}

/// A file of the fixtures.
pub(crate) fn fixture(path: &str) -> String {
    let path = format!("{}/../tests/fixtures/{path}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Bodies of the answers in the fixtures. Long repetitions are cut short.
pub(crate) fn answers() -> Vec<Vec<u8>> {
    let folder = format!("{}/../tests/fixtures/api", env!("CARGO_MANIFEST_DIR"));
    let mut names: Vec<String> = fs::read_dir(&folder)
        .expect("the fixtures")
        .map(|entry| entry.expect("a file").file_name().into_string().expect("a name"))
        .collect();
    names.sort();
    let calls = names.iter().flat_map(|name| {
        let document: Value = serde_json::from_str(&fixture(&format!("api/{name}"))).expect("JSON");
        document["calls"].as_array().expect("calls").clone()
    });
    let responses = calls.flat_map(|call| call["responses"].as_array().expect("responses").clone());
    responses
        .filter(|response| response["body"].is_object())
        .map(|mut response| {
            shorten(&mut response["body"]);
            response["body"].to_string().into_bytes()
        })
        .collect()
}

fn shorten(value: &mut Value) {
    match value {
        Value::Object(fields) => match fields.get("$repeat") {
            Some(repeat) => *value = repeat[0].as_str().expect("a text").repeat(3).into(),
            None => fields.values_mut().for_each(shorten),
        },
        Value::Array(items) => items.iter_mut().for_each(shorten),
        _ => {}
    }
}
