//! The fixtures' lines, each by its route.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::environment::Environment;
use crate::{
    checker::{
        Position, Record,
        event::Expected,
        json,
        truth::{Answer, Truth, fixtures::Fixtures},
    },
    harness::kafka::{Input, produce},
    player::Player,
};

/// Revisions of `input_newer_schema.jsonl`, which no API fixture has: host, page, revision, text.
const NEWER: [(&str, i64, i64, &str); 3] = [
    ("en.wikipedia.org", 313_131, 1_340_003_131, "newer"),
    ("en.wikipedia.org", 323_232, 1_340_003_232, "#REDIRECT [[Special:Log/Example]]\n"),
    ("de.wikipedia.org", 333_333, 260_003_333, "neuer\n"),
];

/// Fields of theirs that page/change 1.2.0 does not know.
const PRUNED: [&str; 8] = [
    "page.namespace_is_content",
    "page.wikibase_item_id",
    "revision.revert",
    "revision.editor.user_central_id",
    "revision.editor.wiki_id",
    "revision.editor.first_edit_dt",
    "revision.editor.edit_global_count",
    // Its target is a special page, whose negative namespace 1.2.0 forbids.
    "page.redirect_page_link",
];

pub(super) async fn every_line(environment: Arc<Environment>) -> anyhow::Result<()> {
    let folder = environment.workspace.fixtures();
    let player = Player::start(&folder.join("api"), &NEWER).await?;
    let mut truth = Fixtures::load(&folder.join("api"))?;
    for (host, _, revision, text) in NEWER {
        truth.add_page(host, revision, text);
    }
    let mut job = environment.job("fixtures", &player.api()).await?;
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).with_context(|| name.to_owned());
    let (events, invalid, newer) =
        (read("events/input.jsonl")?, read("events/input_invalid.txt")?, read("events/input_newer_schema.jsonl")?);
    let cases: Vec<Value> = serde_json::from_str(&read("cases.json")?)?;
    let keys = cases.iter().map(|case| Some(case["key"].to_string()));
    let topics = job.source_topics();
    let mut inputs: Vec<Input> = Vec::new();
    let mut add = |line: Option<&[u8]>, key: Option<String>| {
        let topic = topics[inputs.len() % 2].clone();
        inputs.push(Input { topic, key: key.map(String::into_bytes), value: line.map(<[u8]>::to_vec) });
    };
    ensure!(events.lines().count() == 20 && cases.len() == 20, "20 lines and 20 cases");
    events.lines().zip(keys).for_each(|(line, key)| add(Some(line.as_bytes()), key));
    ensure!(invalid.lines().count() == 10, "10 invalid lines");
    invalid.lines().for_each(|line| add(Some(line.as_bytes()), None));
    newer.lines().for_each(|line| add(Some(line.as_bytes()), None));
    // And what no file holds: a tombstone, bytes that are no text, and JSON nested deeper than anybody reads.
    add(None, Some("tombstone".to_owned()));
    add(Some(&[0xff, 0x00, 0xc3, 0x28]), None);
    add(Some("[".repeat(100_000).as_bytes()), None);

    job.start().await?;
    produce(&job.spec.source, &inputs, 0).await?;
    job.all_done(inputs.len() as u64, Duration::from_secs(120)).await?;
    let status = job.admin.status().await?;
    let counters = status.counters.unwrap_or_default();
    let pruned: u64 = job.admin.taskmanagers().await?.iter().map(|info| info.pruned_fields).sum();
    job.say(&format!("{counters:?}, {pruned} fields pruned"));
    ensure!(pruned > 0, "unknown fields were pruned without being counted");
    job.shut_down().await?;

    let lines: Vec<&str> = events.lines().collect();
    let overrides = |records: &[Record]| overrides(records, &lines, &cases, &newer, &truth);
    let verdict = job.verdict(&truth, &overrides).await?;
    let expected = |route: &str| cases.iter().filter(|case| case["expect"] == route).count();
    ensure!(verdict.dropped == expected("drop"), "{} dropped", verdict.dropped);
    Ok(())
}

/// The 20 lines end as `cases.json` says, the three newer ones enriched without what 1.2.0 does not know.
fn overrides(
    records: &[Record],
    lines: &[&str],
    cases: &[Value],
    newer: &str,
    truth: &Fixtures,
) -> BTreeMap<Position, Expected> {
    let mut overrides = BTreeMap::new();
    for record in records {
        let Some(text) = record.value.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok()) else { continue };
        if let Some(at) = lines.iter().position(|line| *line == text) {
            let expected = match cases[at]["expect"].as_str() {
                Some("enriched") => enriched(text, truth, Vec::new()),
                Some("enriched_without_body") => Expected::WithoutBody,
                Some("passthrough") => Expected::PassedThrough,
                Some("drop") => Expected::Dropped,
                _ => Expected::Error,
            };
            overrides.insert(record.position(), expected);
        } else if !text.is_empty() && newer.lines().any(|line| line == text) {
            let pruned = PRUNED.map(str::to_owned).to_vec();
            overrides.insert(record.position(), enriched(text, truth, pruned));
        }
    }
    overrides
}

fn enriched(text: &str, truth: &Fixtures, pruned: Vec<String>) -> Expected {
    let domain = json::text_at(text, &["meta", "domain"]).unwrap_or_default();
    let revision = json::number_at(text, &["revision", "rev_id"]).unwrap_or_default();
    let page = json::number_at(text, &["page", "page_id"]).unwrap_or_default();
    let slots = match truth.revision(&domain, revision) {
        Answer::Slots(slots) => slots,
        Answer::Hidden | Answer::Missing => BTreeMap::new(),
    };
    Expected::Enriched { slots, redirect: truth.redirect(&domain, page), pruned }
}
