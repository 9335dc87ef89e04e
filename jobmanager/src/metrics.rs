//! Metrics, made from a view at each scrape. Flink's names where Flink has one, in Prometheus' form.

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::ConstCounter,
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::{Registry, Unit},
};

use weir_common::split::SplitId;

use crate::{coordinator::view::CheckpointStatus, runtime::view::View};

const PREFIX: &str = "weir_jobmanager";

const LEADER_HELP: &str = "1 while this jobmanager leads, 0 while it stands by or begins";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Partition {
    topic: String,
    partition: i32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Split {
    topic: String,
    partition: i32,
    split: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// The text that Prometheus scrapes.
#[must_use]
pub fn encode(view: &View) -> String {
    let mut registry = Registry::with_prefix(PREFIX);
    register_job(&mut registry, view);
    register_checkpoints(&mut registry, view);
    register_splits(&mut registry, view);
    let mut out = String::new();
    text::encode(&mut out, &registry).expect("a String takes everything");
    out
}

/// The text of a jobmanager that does not lead.
#[must_use]
pub fn encode_standby() -> String {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register("leader", LEADER_HELP, ConstGauge::new(0_i64));
    let mut out = String::new();
    text::encode(&mut out, &registry).expect("a String takes everything");
    out
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn register_job(registry: &mut Registry, view: &View) {
    let mut gauge = |name: &str, help: &str, value: i64| registry.register(name, help, ConstGauge::new(value));
    gauge("leader", LEADER_HELP, 1);
    gauge("taskmanagers", "Registered taskmanagers", number(view.taskmanagers.len()));
    let running = matches!(view.state, "RUNNING" | "RESTARTING" | "CUTTING");
    gauge("running", "1 while the job is RUNNING, RESTARTING or CUTTING", i64::from(running));
    gauge("failed", "1 while the job is FAILED: it waits for an operator", i64::from(view.state == "FAILED"));
    gauge("degraded_reasons", "Reasons for a degraded status", number(view.degraded.len()));
    gauge("leader_epoch", "Epoch of this leadership", i64::try_from(view.leader_epoch.0).unwrap_or(i64::MAX));
    let help = "Failures after which something was handed out again, in this leadership";
    registry.register("num_restarts", help, ConstCounter::new(view.restarts));
    registry.register("taskmanagers_lost", "Taskmanagers that were lost", ConstCounter::new(view.lost_taskmanagers));
    let records = Family::<Outcome, Gauge>::default();
    let counters = view.counters;
    for (outcome, count) in [
        ("enriched", counters.enriched),
        ("passed_through", counters.passed_through),
        ("error", counters.errors),
        ("dropped", counters.dropped),
    ] {
        records.get_or_create(&Outcome { outcome }).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    // A gauge: a restore takes it back.
    registry.register("records_finished", "Committed records since the job's first start, by outcome", records);
    let conserved = view.splits.iter().all(|row| row.split.committed.counters.conserved());
    let help = "1 while consumed = enriched + passed through + errors + dropped holds for every split";
    registry.register("conserved", help, ConstGauge::new(i64::from(conserved)));
}

fn register_checkpoints(registry: &mut Registry, view: &View) {
    let counter = ConstCounter::new(view.completed_checkpoints);
    registry.register("number_of_completed_checkpoints", "Checkpoints and savepoints stored", counter);
    let counter = ConstCounter::new(view.failed_checkpoints);
    registry.register("number_of_failed_checkpoints", "Checkpoints and savepoints that failed", counter);
    let in_progress = view.checkpoints.iter().filter(|row| row.checkpoint.status == CheckpointStatus::InProgress);
    let gauge = ConstGauge::new(number(in_progress.count()));
    registry.register("number_of_in_progress_checkpoints", "Checkpoints on the way", gauge);
    let Some(last) = view.last_completed() else { return };
    let seconds = last.checkpoint.duration.as_secs_f64();
    let help = "From trigger to stored, of the last completed checkpoint";
    registry.register_with_unit("last_checkpoint_duration", help, Unit::Seconds, ConstGauge::new(seconds));
    if let CheckpointStatus::Completed { size_bytes, .. } = last.checkpoint.status {
        let gauge = ConstGauge::new(i64::try_from(size_bytes).unwrap_or(i64::MAX));
        registry.register_with_unit("last_checkpoint_size", "Of the last completed checkpoint", Unit::Bytes, gauge);
    }
    let completed = last.triggered.as_millisecond() as f64 / 1000. + seconds;
    let help = "When the last completed checkpoint was stored, since 1970";
    registry.register_with_unit("last_checkpoint_completed", help, Unit::Seconds, ConstGauge::new(completed));
}

fn register_splits(registry: &mut Registry, view: &View) {
    let states = Family::<State, Gauge>::default();
    let consumed = Family::<Split, Gauge>::default();
    let lags = Family::<Partition, Gauge>::default();
    for row in &view.splits {
        states.get_or_create(&State { state: row.split.state.to_owned() }).inc();
        let SplitId { topic, partition, index } = &row.split.id;
        let split = Split { topic: topic.to_string(), partition: *partition, split: *index };
        let count = row.split.committed.counters.consumed;
        consumed.get_or_create_owned(&split).set(i64::try_from(count).unwrap_or(i64::MAX));
        if let Some(lag) = row.lag {
            let topic = row.split.id.topic.to_string();
            let gauge = lags.get_or_create_owned(&Partition { topic, partition: row.split.id.partition });
            gauge.set(gauge.get().max(lag));
        }
    }
    registry.register("splits", "Splits by state", states);
    registry.register(
        "split_records_finished",
        "Committed records of each split since the job's first start",
        consumed,
    );
    registry.register(
        "split_moves",
        "Splits that went from one taskmanager to another",
        ConstCounter::new(view.moves.count),
    );
    let seconds = ConstCounter::new(view.moves.total.as_secs_f64());
    let help = "From revocation or loss to the next owner's assignment, summed over all moves";
    registry.register_with_unit("split_move", help, Unit::Seconds, seconds);
    let longest = ConstGauge::new(view.moves.longest.as_secs_f64());
    registry.register_with_unit("longest_split_move", "The longest of them", Unit::Seconds, longest);
    registry.register("lag_records", "Records from the lowest cursor to the log's end", lags);
}
