//! The end-to-end cases. Each starts a job of its own on shared brokers, and ends with the checker's verdict.

mod bad_configuration;
mod chaos;
pub(crate) mod environment;
mod errors;
mod failures;
mod fixtures;
mod hostile;
mod leadership;
mod lifecycle;
mod operations;
mod page_content_change;
mod poison;
mod real_wiki;
mod rescale;
mod savepoints;
mod storage;
mod stub;
mod throughput;

use std::{sync::Arc, time::Duration};

use futures::future::LocalBoxFuture;

pub use self::environment::{Environment, Stub};

/// A case.
pub struct Case {
    /// Selects it.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// It has failed when it takes longer.
    pub limit: Duration,
    /// Runs it.
    pub run: fn(Arc<Environment>) -> LocalBoxFuture<'static, anyhow::Result<()>>,
}

/// No case takes this long, unless it says so.
const LIMIT: Duration = Duration::from_secs(600);

/// Cases that have the machine to themselves, after all others.
#[must_use]
pub fn alone() -> Vec<Case> {
    vec![Case {
        name: "chaos",
        about: "random faults of every kind under load, by a seed; healed, drained, nothing lost or doubled",
        limit: chaos::limit(),
        run: |environment| Box::pin(chaos::random_faults(environment)),
    }]
}

macro_rules! cases {
    ($($function:path, $name:literal, $about:literal;)*) => {
        /// All cases, those that take longest first, but for the one that fills the machine.
        #[must_use]
        pub fn all() -> Vec<Case> {
            vec![$(Case { name: $name, about: $about, limit: LIMIT, run: |environment| Box::pin($function(environment)) }),*]
        }
    };
}

cases! {
    storage::outage, "storage-outage", "S3 away at start and in the middle: the job runs, degraded, and recovers";
    throughput::two_taskmanagers, "two-taskmanagers", "5,000 events of a real MediaWiki, both taskmanagers do a fair share";
    failures::jobmanager_killed, "jobmanager-killed", "kill -9 and restart: the data plane does not stop, nobody restarts";
    failures::taskmanager_killed, "taskmanager-killed", "kill -9 in the middle: only its splits move, the other never stops";
    leadership::leader_killed, "leader-killed", "two jobmanagers: the leader is killed, then one leaves; the other adopts what runs";
    leadership::leader_stopped, "leader-stopped", "SIGSTOP of the leader past its lease: the standby leads, the old one stands by";
    failures::everything_killed, "everything-killed", "kill -9 of all processes, then a new start goes on where it was";
    failures::at_least_once, "at-least-once", "without transactions a kill loses nothing; repeats are counted";
    lifecycle::stop_and_start, "stop-with-savepoint", "stop with a savepoint, start again from it";
    lifecycle::restore, "restore", "a rewind is refused, then allowed, and repeats exactly what it said";
    lifecycle::scale_out, "scale-out", "a third taskmanager comes and one leaves by SIGTERM; splits move, nothing stops";
    operations::suspend_and_reset, "suspend", "suspended over a restart of the jobmanager, resumed, reset: every input twice and no more";
    operations::offsets_gone, "offsets-gone", "records deleted before they were read: typed failure, others go on, a reset heals";
    operations::topic_recreated, "topic-recreated", "a source topic deleted and made anew, longer than before: not read until a reset";
    savepoints::travel, "savepoint-travels", "an offset cut under load, exported, followed by a plain consumer; other splits from a cut; back by offsets";
    savepoints::given_up, "savepoint-given-up", "a cut that does not come to its end, by time and by a killed jobmanager: the job goes on";
    errors::replayed, "errors-replayed", "error events listed, shown, replayed over a killed jobmanager: each input once, and again only if asked";
    page_content_change::exactly_once, "page-content-change", "the sibling job, production's file: every kind of change, source and sink apart, a taskmanager killed";
    throughput::two_clusters, "two-clusters", "source and sink on different Kafka clusters";
    real_wiki::every_kind, "real-wiki", "every kind of page of a real MediaWiki, byte for byte as its database holds it; how it is asked";
    poison::topic_limit, "topic-limit", "records over a topic's limit that was lowered meanwhile: error events, neighbours unharmed, no loop";
    poison::broker_limit, "broker-limit", "the same by the broker's limit";
    hostile::inputs_and_answers, "hostile", "every kind of bad input, and an API that answers oddly: one output or error event each, the job is up";
    fixtures::every_line, "fixtures", "every line of the fixtures takes its route";
    lifecycle::second_jobmanager, "second-jobmanager", "a second job of the same name is refused while the first lives";
    stub::holds_what_the_checker_expects, "stub-wiki", "the stub wiki holds what the checker expects of it";
    bad_configuration::table, "bad-configuration", "one clear message for each mistake, before a port is bound";
    rescale::up_and_down, "rescale", "1 -> 8 -> 2 taskmanagers under load: splits move one by one, order and exactly once hold";
}
