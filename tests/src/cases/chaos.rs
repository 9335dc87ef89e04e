//! The fault suite: see [`crate::chaos`].

use std::{sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::environment::Environment;
use crate::{
    chaos::{
        api::STUCK_PAGE,
        fleet::Fleet,
        inject,
        kind::Kind,
        plan::{self, Plan},
        watch::Watch,
    },
    checker::read,
    events::Maker,
    harness::{
        job::no_overrides,
        kafka::{self, Input},
        until,
    },
};

const PER_SECOND: u32 = 100;
/// Pages of each wiki, and of them those that get a third of the events.
const PAGES: i64 = 150;
const HOT_PAGES: i64 = 2;
/// One event of the stuck page in so many.
const STUCK_ONE_IN: usize = 400;
/// Of a run that is not told otherwise.
const MINUTES: f64 = 2.0;
/// The load lasts so long after all is healed.
const AFTERWARDS: Duration = Duration::from_secs(5);
/// All must be done so long after the last fault is undone.
const DRAINS: Duration = Duration::from_secs(180);

fn setting<T: std::str::FromStr>(name: &str, default: T) -> anyhow::Result<T> {
    let Ok(text) = std::env::var(name) else { return Ok(default) };
    text.parse().ok().with_context(|| format!("{name}={text} is not a number"))
}

pub(super) async fn random_faults(environment: Arc<Environment>) -> anyhow::Result<()> {
    let (seed, plan) = plan()?;
    let faults = plan.faults();
    let mut fleet = Fleet::start(&environment, "chaos").await?;
    fleet.log.say(&format!("seed {seed}, {:.1} minutes, {} faults:", plan.length().as_secs_f64() / 60.0, faults.len()));
    for fault in &faults {
        fleet.log.say(&format!("  {fault}"));
    }
    // More than are needed: faults may take longer than planned.
    let inputs = load(&fleet, seed, (plan.length() * 2 + Duration::from_secs(60)).as_secs() * u64::from(PER_SECOND));
    let (sources, outputs) = (fleet.job.source_topics(), [fleet.job.sink_topic(), fleet.job.error_topic()]);
    let watch = Watch::start(&fleet.job.spec.sink, &sources, &outputs, format!("\"page_id\":{STUCK_PAGE}}}"))?;
    let stop = CancellationToken::new();
    let feeding = tokio::spawn({
        let (stop, bootstrap) = (stop.clone(), fleet.job.spec.source.clone());
        async move { kafka::produce_until(&bootstrap, &inputs, PER_SECOND, &stop).await }
    });
    fleet.log.say(&format!("load begins: {PER_SECOND} events a second"));
    let done = tokio::select! {
        done = inject::perform(&fleet, &plan) => done?,
        failed = fleet.supervise() => return failed,
    };
    fleet.log.say("all is healed");
    let drained = tokio::select! {
        drained = drain(&fleet, feeding, stop) => drained,
        failed = fleet.supervise() => failed.map(|()| 0),
    };
    fleet.log.costs(&done, &watch.seen());
    fleet.job.all_done(drained?, DRAINS).await?;
    let ended = fleet.log.ended_by_themselves();
    fleet.log.say(&format!("all inputs are finished; {ended} processes ended by themselves and were started again"));
    fleet.shut_down().await?;
    let verdict = fleet.job.verdict(&fleet.stub.truth, &no_overrides).await?;
    fleet.log.say(&format!("{verdict}"));
    Ok(())
}

/// By `WEIR_CHAOS_SEED`, and `WEIR_CHAOS_MINUTES` or `WEIR_CHAOS_ONE_BY_ONE`; of kinds whose names hold `WEIR_CHAOS_ONLY`.
fn plan() -> anyhow::Result<(u64, Plan)> {
    let (seed, minutes) = (setting("WEIR_CHAOS_SEED", 1)?, setting("WEIR_CHAOS_MINUTES", MINUTES)?);
    let one_by_one = setting("WEIR_CHAOS_ONE_BY_ONE", 0_u32)? > 0;
    let (only, length) = (setting("WEIR_CHAOS_ONLY", String::new())?, Duration::from_secs_f64(minutes * 60.0));
    let kinds: Vec<Kind> = Kind::ALL.iter().copied().filter(|kind| kind.name().contains(&only)).collect();
    ensure!(!kinds.is_empty(), "no kind has `{only}` in its name: {:?}", Kind::ALL.iter().map(|kind| kind.name()));
    let plan = if one_by_one { plan::one_by_one(seed, &kinds) } else { plan::overlapping(seed, length, &kinds) };
    Ok((seed, plan))
}

/// All is healed: how many inputs were written, once they are finished.
async fn drain(
    fleet: &Fleet,
    feeding: JoinHandle<anyhow::Result<usize>>,
    stop: CancellationToken,
) -> anyhow::Result<u64> {
    fleet.heal().await?;
    fleet.all_assigned(DRAINS).await?;
    tokio::time::sleep(AFTERWARDS).await;
    stop.cancel();
    let fed = feeding.await?? as u64;
    let written = inputs_in_source(fleet)?;
    ensure!(written >= fed, "{fed} inputs were acknowledged, {written} are in the source");
    if written > fed {
        // A batch without an answer from a broker that was killed: the client begins a new epoch, and repeats it.
        fleet.log.say(&format!("the source has {} inputs twice, by the client that fed it", written - fed));
    }
    until("the lag to go", DRAINS, async || {
        let now = fleet.job.admin.status().await?;
        ensure!(
            now.lag == 0,
            "lag {}, {} of {} splits assigned, degraded: {:?}",
            now.lag,
            now.splits_assigned,
            now.splits,
            now.degraded
        );
        Ok(Some(()))
    })
    .await?;
    Ok(written)
}

/// The source has no transactions: each offset is a record.
fn inputs_in_source(fleet: &Fleet) -> anyhow::Result<u64> {
    let spans = fleet.job.source_topics().into_iter().map(|topic| read::span(&fleet.job.spec.source, &topic));
    Ok(u64::try_from(spans.sum::<anyhow::Result<i64>>()?)?)
}

/// Events of many pages, a third of them of few, and now and then one of the page that is stuck.
fn load(fleet: &Fleet, seed: u64, count: u64) -> Vec<Input> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let truth = &fleet.stub.truth;
    let mut maker = Maker::new(seed, fleet.job.source_topics());
    let mut random = StdRng::seed_from_u64(seed);
    let mut inputs = Vec::with_capacity(count);
    while inputs.len() < count {
        let more = if inputs.len() % STUCK_ONE_IN == STUCK_ONE_IN / 8 {
            vec![maker.of_page(truth, STUCK_PAGE)]
        } else if random.random_ratio(1, 3) {
            maker.from_stub(truth, HOT_PAGES, 1)
        } else {
            maker.from_stub(truth, PAGES, 1)
        };
        inputs.extend(more);
    }
    inputs
}

/// What the runner gives it.
pub(super) fn limit() -> Duration {
    let planned = plan().map_or(Duration::ZERO, |(_, plan)| plan.length());
    planned * 2 + Duration::from_secs(600)
}
