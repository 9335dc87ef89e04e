//! Every kind of page and revision on the real MediaWiki, content held against the wiki's own database byte for byte; and how
//! the API is asked: together, within its limits, and nobody pays for what another breaks.

mod event;
mod kinds;
mod told;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use anyhow::ensure;
use serde_json::{Value, json};

use self::{
    kinds::{Kind, MANY, MANY_TITLE, Then},
    told::{Told, Wanted, newest},
};
use super::environment::Environment;
use crate::{
    checker::{
        Position, Record,
        event::Expected,
        json::{number_at, text_at},
        read,
        truth::{
            Answer, Link, Truth,
            mediawiki::{MediaWikis, Revision},
        },
    },
    events::ODD_WIKIS,
    harness::{
        job::Job,
        kafka::{Input, produce},
        parts::MediaWiki,
    },
};

/// Database name and domain.
type Wiki = (&'static str, &'static str);

const ODD: Wiki = ODD_WIKIS[0];
const ARABIC: Wiki = ODD_WIKIS[1];
const HIGH_LIMITS: Wiki = ODD_WIKIS[2];

/// Revisions of the wiki that allows 500 together.
const HIGH: usize = 200;

/// `$wgAPIMaxResultSize`, and the default of `enrich.batch_bytes`.
const API_CAP: i64 = 8 << 20;

/// Retries that end soon; time for a burst to come together, whatever else the machine does.
const SETTINGS: [(&str, &str); 2] =
    [("WEIR__ENRICH__RETRY__MAX_ATTEMPTS", "4"), ("WEIR__ENRICH__BATCH_LINGER", "500 ms")];

type Query = BTreeMap<String, String>;

pub(super) async fn every_kind(environment: Arc<Environment>) -> anyhow::Result<()> {
    let _turn = environment.mediawiki_turn.lock().await;
    let server = Arc::clone(environment.mediawiki().await?);
    let kinds = kinds::all();
    let truth = {
        let (server, kinds) = (Arc::clone(&server), kinds.clone());
        tokio::task::spawn_blocking(move || fill(&server, &kinds)).await??
    };
    let mut job = environment.job_on_mediawiki("real-wiki", &SETTINGS).await?;
    let told = told::every_kind(&source_stream(&job), &truth, &kinds)?;
    run(&mut job, &told, &truth).await?;
    let asked = server.requests(ODD.0)?;
    let sizes = sizes(&asked);
    job.say(&format!("{} kinds of pages, {} events; revisions a request: {sizes:?}", kinds.len(), told.len()));
    ensure!(sizes.iter().max() == Some(&50), "no full batch, or one over the API's limit: {sizes:?}");
    ensure!(asked.iter().all(|query| query.get("maxlag").is_some_and(|lag| lag == "5")), "asked without maxlag");
    within_the_cap(&truth, &asked)?;
    together(&environment, &server, &truth, &kinds).await
}

/// Where the wiki allows 500 at once, more than 50 are asked for together; where it does not, they are split without harm, and
/// so they are where they come to more than an answer may hold. Redirects are looked up together. Nothing here makes the API fail.
async fn together(
    environment: &Environment,
    server: &MediaWiki,
    truth: &MediaWikis,
    kinds: &[Kind],
) -> anyhow::Result<()> {
    let settings = [SETTINGS[0], SETTINGS[1], ("WEIR__ENRICH__BATCH_REVISIONS", "500")];
    let mut job = environment.job_on_mediawiki("real-wiki-high-limits", &settings).await?;
    let stream = source_stream(&job);
    let mut told = told::understated(&stream, truth)?;
    told.extend(told::redirects(&stream, truth, kinds)?);
    let others = told.len();
    told.extend(told::of_page(&stream, truth, [ODD, HIGH_LIMITS], MANY_TITLE));
    ensure!(told.len() == others + MANY + HIGH, "{} events", told.len());
    run(&mut job, &told, truth).await?;
    let odd = server.requests(ODD.0)?;
    let redirects: Vec<usize> = odd.iter().filter_map(|query| Some(query.get("pageids")?.split('|').count())).collect();
    let targets = odd.iter().filter(|query| query.contains_key("titles")).count();
    job.say(&format!("redirects a request: {redirects:?}, and {targets} for targets that are redirects themselves"));
    ensure!(redirects.iter().any(|size| *size >= 5), "redirects are not looked up together: {redirects:?}");
    ensure!(targets > 0 && targets <= redirects.len(), "{targets} requests for targets of {redirects:?}");
    let (high, low) = (sizes(&server.requests(HIGH_LIMITS.0)?), sizes(&odd));
    ensure!(odd.iter().any(|query| query.contains_key("rvcontinue")), "no answer was continued");
    job.say(&format!("revisions a request: {high:?} where 500 are allowed, {low:?} where 50 are"));
    ensure!(high.iter().any(|size| *size > 50) && high.iter().all(|size| *size <= 500), "{high:?}");
    ensure!(high.iter().sum::<usize>() == HIGH, "some were asked for twice: {high:?}");
    ensure!(low.iter().any(|size| *size > 50), "nothing had to be split: {low:?}");
    ensure!(
        low.iter().filter(|size| **size <= 50).sum::<usize>() == others + MANY,
        "some were asked for twice: {low:?}"
    );
    Ok(())
}

/// Makes the pages; what the databases hold then, and what the API makes of it.
fn fill(server: &MediaWiki, kinds: &[Kind]) -> anyhow::Result<MediaWikis> {
    let lines = |operations: &[Value]| -> String { operations.iter().map(|one| format!("{one}\n")).collect() };
    let operations: Vec<Value> = kinds.iter().flat_map(|kind| kind.operations.clone()).collect();
    server.load(ODD.0, &lines(&operations))?;
    let page = |title: &str, times: usize| {
        let slots = json!({"main": {"model": "wikitext", "text": "Revision %d"}});
        json!({"op": "save", "title": title, "times": times, "slots": slots})
    };
    let (arabic, decomposed) = kinds::ARABIC;
    let store = json!({"op": "store", "title": "Arabic", "hex": kinds::hexadecimal(arabic.as_bytes())});
    server.load(ARABIC.0, &lines(&[page("Arabic", 1), store]))?;
    server.load(HIGH_LIMITS.0, &lines(&[page(MANY_TITLE, HIGH)]))?;
    let mut truth = MediaWikis::default();
    for (name, domain) in ODD_WIKIS {
        truth.add(domain, &server.truth(name)?)?;
    }
    let mut shown = vec![(ARABIC, newest(&truth, ARABIC, "Arabic")?.rev_id, decomposed)];
    for kind in kinds {
        let revision = newest(&truth, ODD, &kind.title)?;
        let held = revision.slots.get("main").and_then(|slot| slot.text.as_ref());
        ensure!(kind.stored.is_none() || kind.stored.as_ref() == held, "{}: not what was stored", kind.title);
        if let Then::Shown(text) = kind.then {
            shown.push((ODD, revision.rev_id, text));
        }
    }
    for ((_, domain), rev_id, text) in shown {
        truth.shows(domain, rev_id, text)?;
    }
    Ok(truth)
}

/// Feeds the events, all before the job starts, runs it to the end and judges it, types of error events included.
async fn run(job: &mut Job, told: &[Told], truth: &MediaWikis) -> anyhow::Result<()> {
    let topics = job.source_topics();
    let inputs: Vec<Input> = told.iter().enumerate().map(|(number, told)| told.input(&topics[number % 2])).collect();
    produce(&job.spec.source, &inputs, 0).await?;
    job.start_jobmanager()?;
    job.start_taskmanager()?;
    job.running(1).await?;
    job.all_done(inputs.len() as u64, Duration::from_secs(120)).await?;
    job.shut_down().await?;
    let wanted: HashMap<String, Wanted> =
        told.iter().filter_map(|told| Some((told.event.to_string(), told.wanted?))).collect();
    let wanted_of = |record: &Record| wanted.get(std::str::from_utf8(record.value.as_deref()?).ok()?).copied();
    let overrides = |records: &[Record]| -> BTreeMap<Position, Expected> {
        let one = |record: &Record| Some((record.position(), overridden(wanted_of(record)?, record, truth)));
        records.iter().filter_map(one).collect()
    };
    job.verdict(truth, &overrides).await?;
    let types: HashMap<Position, &str> = job
        .inputs()
        .await?
        .iter()
        .filter_map(|record| match wanted_of(record)? {
            Wanted::Error(error_type) => Some((record.position(), error_type)),
            Wanted::NoNamespace => None,
        })
        .collect();
    let (sink, topic) = (job.spec.sink.clone(), job.error_topic());
    let errors = tokio::task::spawn_blocking(move || read::topic(&sink, &topic)).await??;
    ensure!(errors.len() == types.len(), "{} error events, {} were due", errors.len(), types.len());
    for record in errors {
        let text = std::str::from_utf8(record.value.as_deref().unwrap_or_default())?;
        let source = record.source().map_err(anyhow::Error::msg)?;
        let (found, due) = (text_at(text, &["error_type"]), types.get(&source));
        let message = text_at(text, &["message"]).unwrap_or_default();
        ensure!(found.as_deref() == due.copied(), "error event of {source:?} is {found:?}, due was {due:?}: {message}");
    }
    Ok(())
}

fn overridden(wanted: Wanted, input: &Record, truth: &MediaWikis) -> Expected {
    match wanted {
        Wanted::Error(_) => Expected::Error,
        Wanted::NoNamespace => {
            let text = input.value.as_deref().and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default();
            let domain = text_at(text, &["meta", "domain"]).unwrap_or_default();
            let number = |path: &[&str]| number_at(text, path).unwrap_or_default();
            let slots = match truth.revision(&domain, number(&["revision", "rev_id"])) {
                Answer::Slots(slots) => slots,
                Answer::Hidden | Answer::Missing => BTreeMap::new(),
            };
            let link = truth.redirect(&domain, number(&["page", "page_id"]));
            let redirect = link.map(|link| Link { namespace_id: None, ..link });
            Expected::Enriched { slots, redirect, pruned: vec!["page.namespace_id".to_owned()] }
        }
    }
}

fn source_stream(job: &Job) -> String {
    job.source_topics()[0].trim_start_matches("eqiad.").to_owned()
}

/// Declared sizes are true here: what is asked for together fits into an answer, and only what never fits is continued.
fn within_the_cap(truth: &MediaWikis, asked: &[Query]) -> anyhow::Result<()> {
    let bytes = |revision: &Revision| revision.slots.values().map(|slot| slot.content_size).sum::<i64>();
    let all = truth.revisions().into_iter().filter(|(domain, _)| *domain == ODD.1);
    let size_of: HashMap<i64, i64> = all.map(|(_, revision)| (revision.rev_id, bytes(revision))).collect();
    for query in asked {
        let Some(ids) = query.get("revids") else { continue };
        let ids: Vec<i64> = ids.split('|').map(str::parse).collect::<Result<_, _>>()?;
        let bytes: i64 = ids.iter().filter_map(|id| size_of.get(id)).sum();
        ensure!(ids.len() == 1 || bytes <= API_CAP, "{} revisions of {bytes} bytes were asked for together", ids.len());
        let continued = query.contains_key("rvcontinue");
        ensure!(!continued || bytes > API_CAP, "{bytes} bytes in {} revisions had to be continued", ids.len());
    }
    Ok(())
}

/// How many revisions each request asked for, continuations left out.
fn sizes(asked: &[Query]) -> Vec<usize> {
    let firsts = asked.iter().filter(|query| !query.contains_key("rvcontinue"));
    firsts.filter_map(|query| Some(query.get("revids")?.split('|').count())).collect()
}
