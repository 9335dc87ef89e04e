//! The taskmanager's one task: hears the jobmanager and the sink, and does what [`state`] says.

mod addresses;
mod link;
mod slot;
pub(crate) mod state;
mod wire;

use std::{
    process,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::mpsc,
    time::{Interval, MissedTickBehavior, interval, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use weir_common::config::Config;
use weir_proto::v1;

use self::{
    addresses::Addresses,
    link::{Link, LinkEvent},
    slot::Slot,
    state::{Effect, FromJobmanager, Input, Leave, Session, ToJobmanager},
    wire::{Heard, Said},
};
use crate::{
    Exit,
    budget::Budget,
    enrich::Enricher,
    job::{EnricherFactory, JobSpec},
    metrics::Metrics,
    sink::{
        lease::Lease,
        report::{SinkEvent, SinkEventKind},
    },
    source::ReadFailure,
};

/// Wait before the enricher is tried again (schemas out of reach).
const ENRICHER_RETRY: Duration = Duration::from_secs(5);

/// Wait before a slot whose sink could not be made is given back.
const SLOT_RETRY: Duration = Duration::from_secs(5);

/// See the module.
pub(crate) struct Taskmanager {
    config: Arc<Config>,
    factory: EnricherFactory,
    metrics: Metrics,
    budget: Budget,
    id: String,
    session: Session,
    addresses: Addresses,
    link: Link,
    failures: u32,
    job: Option<Arc<JobSpec>>,
    enricher: Option<Arc<dyn Enricher>>,
    /// What the jobmanager allows this taskmanager of the job's requests.
    requests_max: Option<u32>,
    lease: Option<Arc<Lease>>,
    slot: Option<Slot>,
    draining: bool,
    exit: Option<Exit>,
    heartbeat: Interval,
    /// When the heartbeat was sent that the newest answer belongs to.
    answered: Option<Instant>,
    /// When the jobmanager said something last.
    heard: Instant,
    /// Of the current slot alone: what an earlier one still says is not heard.
    sink_events: (mpsc::UnboundedSender<SinkEvent>, mpsc::UnboundedReceiver<SinkEvent>),
    enrichers: (mpsc::Sender<Made>, mpsc::Receiver<Made>),
    /// Of the current slot alone.
    read_failures: (mpsc::UnboundedSender<ReadFailure>, mpsc::UnboundedReceiver<ReadFailure>),
}

/// The enricher that a job needs.
type Made = (Arc<JobSpec>, Arc<dyn Enricher>);

enum Woken {
    Link(LinkEvent),
    Sink(SinkEvent),
    ReadFailure(ReadFailure),
    Enricher(Made),
    Heartbeat,
    Shutdown,
    DrainTimedOut,
}

impl Taskmanager {
    pub(crate) fn new(config: Arc<Config>, factory: EnricherFactory, metrics: Metrics, budget: Budget) -> Self {
        let addresses = Addresses::new(config.jobmanager.addresses());
        let link = Link::dial(addresses.current(), Duration::ZERO);
        Self {
            factory,
            metrics,
            budget,
            id: uuid::Uuid::new_v4().to_string(),
            session: Session::default(),
            addresses,
            link,
            failures: 0,
            job: None,
            enricher: None,
            requests_max: None,
            lease: None,
            slot: None,
            draining: false,
            exit: None,
            heartbeat: every(config.heartbeat.interval),
            answered: None,
            heard: Instant::now(),
            sink_events: mpsc::unbounded_channel(),
            enrichers: mpsc::channel(1),
            read_failures: mpsc::unbounded_channel(),
            config,
        }
    }

    /// Works until the jobmanager lets us go after `shutdown`, `taskmanager.drain_timeout` is over, or we are refused.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Exit {
        info!(taskmanager = self.id, jobmanager = self.config.jobmanager.address, "starting");
        let mut drain_deadline = None;
        loop {
            let woken = self.wait(&shutdown, drain_deadline).await;
            if let Woken::Shutdown = woken {
                drain_deadline = Some(tokio::time::Instant::now() + self.config.taskmanager.drain_timeout);
            }
            self.react(woken);
            if let Some(exit) = self.exit.take() {
                self.drop_slot();
                return exit;
            }
            let splits = self.session.held().map_or(0, |held| held.splits.len());
            self.metrics.set_session(self.session.is_registered(), splits);
        }
    }

    async fn wait(&mut self, shutdown: &CancellationToken, drain_deadline: Option<tokio::time::Instant>) -> Woken {
        let lease = self.lease.clone();
        let heartbeat_wanted = async {
            match &lease {
                Some(lease) => lease.heartbeat_wanted().await,
                None => std::future::pending().await,
            }
        };
        let drain_timed_out = async {
            match drain_deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let registered = self.session.is_registered();
        tokio::select! {
            () = shutdown.cancelled(), if !self.draining => Woken::Shutdown,
            () = drain_timed_out => Woken::DrainTimedOut,
            event = self.link.next() => Woken::Link(event),
            Some(event) = self.sink_events.1.recv() => Woken::Sink(event),
            Some(failure) = self.read_failures.1.recv() => Woken::ReadFailure(failure),
            Some(made) = self.enrichers.1.recv() => Woken::Enricher(made),
            _ = self.heartbeat.tick(), if registered => Woken::Heartbeat,
            () = heartbeat_wanted, if registered => Woken::Heartbeat,
        }
    }

    fn react(&mut self, woken: Woken) {
        match woken {
            Woken::Link(event) => self.on_link(event),
            Woken::Sink(event) => {
                if let SinkEventKind::Lost { reason } = &event.kind {
                    warn!(reason, "the slot is lost");
                    self.metrics.slot_lost();
                }
                self.apply(Input::Sink(event));
            }
            Woken::ReadFailure(ReadFailure { partition, failure }) => {
                self.apply(Input::ReadFailed { partition, failure });
            }
            Woken::Enricher((job, enricher)) if self.job.as_ref() == Some(&job) => {
                self.metrics.register_enricher(&*enricher);
                self.enricher = Some(enricher);
                self.limit_requests();
                self.apply(Input::EnricherReady);
            }
            Woken::Enricher(_) => debug!("an enricher for a former job"),
            Woken::Heartbeat => self.send_heartbeat(),
            Woken::Shutdown => {
                info!("draining");
                self.draining = true;
                self.apply(Input::Shutdown);
            }
            Woken::DrainTimedOut => {
                error!(
                    timeout = ?self.config.taskmanager.drain_timeout,
                    "the drain did not end in `taskmanager.drain_timeout`, leaving; what is not committed is done again"
                );
                self.exit = Some(Exit::DrainTimedOut);
            }
        }
    }

    fn on_link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Connected(channel) => {
                self.link = Link::attach(channel, self.register(), link::attach_timeout(&self.config.heartbeat));
                self.apply(Input::Connected);
            }
            LinkEvent::Attached => debug!("stream to the jobmanager is open"),
            LinkEvent::Message(message) => self.on_message(*message),
            LinkEvent::Broken(reason) => self.dial_next(&reason),
        }
    }

    fn dial_next(&mut self, reason: &str) {
        self.failures += 1;
        let wait = link::wait_before(self.failures);
        warn!(jobmanager = self.addresses.current(), reason, ?wait, "no jobmanager, dialling again");
        self.addresses.failed();
        self.redial(wait);
    }

    fn redial(&mut self, wait: Duration) {
        self.link = Link::dial(self.addresses.current(), wait);
        self.apply(Input::Disconnected);
    }

    fn on_message(&mut self, message: v1::JobManagerMessage) {
        self.heard = Instant::now();
        match wire::read(message) {
            Ok(Heard { epoch, what: Said::Registered { heartbeat, job } }) => {
                self.failures = 0;
                self.heartbeat = every(heartbeat);
                let job_changed = self.job.as_deref() != Some(&*job);
                info!(%epoch, job = job.job_name, job_changed, "registered with the jobmanager");
                if job_changed {
                    self.job = Some(Arc::new(*job));
                }
                self.apply(Input::Message { epoch, message: FromJobmanager::Registered { job_changed } });
            }
            Ok(Heard { what: Said::StandsBy { leader, retry }, .. }) => {
                info!(jobmanager = self.addresses.current(), leader, "it stands by, dialling the leader");
                self.addresses.refer(&leader);
                self.redial(retry);
            }
            Ok(Heard { epoch, what: Said::Message(message) }) => {
                match &message {
                    FromJobmanager::Refused { message, retry_ms } => {
                        error!(reason = message, retry_ms, "the jobmanager refuses this taskmanager");
                    }
                    FromJobmanager::HeartbeatAck { .. } => {
                        self.answered = self.link.outgoing().and_then(link::Outgoing::answered);
                    }
                    _ => {}
                }
                self.apply(Input::Message { epoch, message });
            }
            Err(error) => {
                error!(%error, "a message of the jobmanager cannot be used, dialling again");
                self.redial(ENRICHER_RETRY);
            }
        }
    }

    fn apply(&mut self, input: Input) {
        for effect in self.session.handle(input) {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Send(message) => self.send(message),
            Effect::BuildEnricher => self.build_enricher(),
            Effect::Lease { grant, ttl_ms } => {
                self.lease = Some(Arc::new(Lease::new(grant, Duration::from_millis(ttl_ms), Instant::now())));
            }
            Effect::Renew { ttl_ms } => {
                if let (Some(lease), Some(sent)) = (&self.lease, self.answered) {
                    lease.renew(sent, Duration::from_millis(ttl_ms));
                }
            }
            Effect::LimitRequests(max) => {
                self.requests_max = Some(max);
                self.limit_requests();
            }
            Effect::StartSlot { slot } => self.start_slot(slot),
            Effect::Assign(splits) => {
                info!(splits = splits.len(), "splits assigned");
                if let Some(Err(error)) = self.slot.as_mut().map(|slot| slot.assign(splits, self.draining)) {
                    self.give_up_slot(&error.context("splits cannot be read"));
                }
            }
            Effect::LiftLimits => {
                info!("a later jobmanager leads: the limits of the former one are lifted");
                if let Some(slot) = &self.slot {
                    slot.lift_limits();
                }
            }
            Effect::Revoke(splits) => {
                info!(splits = splits.len(), "splits revoked");
                self.metrics_forget(&splits);
                if let Some(slot) = &mut self.slot {
                    slot.revoke(splits);
                }
            }
            Effect::Barrier(checkpoint) => {
                if let Some(slot) = &self.slot {
                    slot.barrier(checkpoint);
                }
            }
            Effect::StopReading => {
                if let Some(slot) = &mut self.slot {
                    slot.stop_reading();
                }
            }
            Effect::DropSlot => self.drop_slot(),
            Effect::Redial { after_ms } => self.redial(Duration::from_millis(after_ms)),
            Effect::Exit(Leave::Drained) => self.exit = Some(Exit::Drained),
            Effect::Exit(Leave::Refused(message)) => self.exit = Some(Exit::Refused(message)),
            Effect::Ignored(what) => {
                self.metrics.unknown_message();
                warn!(what, "ignored");
            }
        }
    }

    fn send(&mut self, message: ToJobmanager) {
        let message = wire::write(message);
        if self.link.outgoing().is_some_and(|outgoing| !outgoing.send(message)) {
            // The stream's end is noticed by its reading half, or by keep-alive: nothing else to do here.
            warn!("the jobmanager takes no messages");
        }
    }

    fn start_slot(&mut self, slot: weir_common::ids::SlotId) {
        let (Some(job), Some(enricher), Some(lease)) = (&self.job, &self.enricher, &self.lease) else { return };
        self.sink_events = mpsc::unbounded_channel();
        self.read_failures = mpsc::unbounded_channel();
        let started = Slot::start(slot::Parts {
            config: Arc::clone(&self.config),
            job: Arc::clone(job),
            enricher: Arc::clone(enricher),
            lease: Arc::clone(lease),
            budget: self.budget.clone(),
            metrics: self.metrics.clone(),
            events: self.sink_events.0.clone(),
            read_failures: self.read_failures.0.clone(),
            slot,
        });
        match started {
            Ok(started) => self.slot = Some(started),
            Err(error) => self.give_up_slot(&error.context("the slot cannot be started")),
        }
    }

    /// Gives the slot back, after a while: another grant would fail as this one did.
    fn give_up_slot(&self, error: &anyhow::Error) {
        let reason = format!("{error:#}");
        error!(reason, "giving the slot back");
        let Some(grant) = self.session.grant() else { return };
        let events = self.sink_events.0.clone();
        tokio::spawn(async move {
            sleep(SLOT_RETRY).await;
            let _ = events.send(SinkEvent { grant, kind: SinkEventKind::Lost { reason } });
        });
    }

    fn drop_slot(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.end();
        }
        if let Some(slot) = self.slot.take() {
            self.metrics_forget(&slot.splits());
            slot.stop();
        }
    }

    fn metrics_forget(&self, splits: &[weir_common::split::SplitId]) {
        splits.iter().for_each(|split| self.metrics.forget_split(split));
    }

    fn limit_requests(&self) {
        if let (Some(enricher), Some(max)) = (&self.enricher, self.requests_max) {
            enricher.limit_requests(usize::try_from(max).unwrap_or(usize::MAX));
        }
    }

    fn build_enricher(&mut self) {
        let Some(job) = self.job.clone() else { return };
        self.enricher = None;
        let (config, factory, made) = (Arc::clone(&self.config), Arc::clone(&self.factory), self.enrichers.0.clone());
        tokio::spawn(async move {
            loop {
                match factory(Arc::clone(&config), Arc::clone(&job)).await {
                    Ok(enricher) => {
                        let _ = made.send((job, enricher)).await;
                        return;
                    }
                    Err(error) => {
                        error!(error = format!("{error:#}"), "the job's enricher cannot be made, trying again");
                        sleep(ENRICHER_RETRY).await;
                    }
                }
                if made.is_closed() {
                    return;
                }
            }
        });
    }

    fn register(&self) -> v1::Register {
        v1::Register {
            protocol_version: weir_proto::PROTOCOL_VERSION,
            protocol_version_min: weir_proto::PROTOCOL_VERSION_MIN,
            taskmanager_id: self.id.clone(),
            job_name: self.config.stream_manager.job_name.clone(),
            host: weir_common::host::name(),
            pid: process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config_digest: self.config.digest(),
            held: self.session.held().map(|held| wire::held(held, self.job.as_deref())),
        }
    }

    /// Each heartbeat is answered. A jobmanager that is stopped keeps its connections open: who waits for those to break
    /// comes too late to be adopted by the next one.
    fn send_heartbeat(&mut self) {
        let patience = link::patience(&self.config.heartbeat);
        if self.heard.elapsed() > patience {
            return self.dial_next(&format!("it has been silent for {patience:?}"));
        }
        let stats = self.stats();
        let grant_id = self.session.grant().map_or(0, |grant| grant.0);
        if let Some(outgoing) = self.link.outgoing() {
            outgoing.heartbeat(v1::Heartbeat { stats: Some(stats), grant_id });
        }
    }

    fn stats(&self) -> v1::TaskManagerStats {
        let resident = crate::host::resident_bytes();
        let (budget, used, in_flight) =
            (self.budget.total_bytes(), self.budget.used_bytes(), self.budget.in_flight() as u64);
        self.metrics.set_load(budget, used, in_flight, resident);
        let totals = self.metrics.totals();
        let enricher = self.enricher.as_ref().map(|enricher| enricher.stats()).unwrap_or_default();
        let log_ends = self.slot.as_ref().map(Slot::log_ends).unwrap_or_default();
        for (split, end, cursor) in &log_ends {
            self.metrics.set_lag(split, (end - cursor).max(0));
        }
        let lag = |(split, log_end_offset, _): &(_, i64, i64)| v1::SplitLag {
            split: Some(wire::to_split_id(split)),
            log_end_offset: *log_end_offset,
        };
        v1::TaskManagerStats {
            rss_bytes: resident,
            budget_bytes: budget,
            budget_used_bytes: used,
            in_flight,
            totals: Some(wire::to_counters(totals.counters)),
            api_requests: enricher.api_requests,
            api_retries: enricher.api_retries,
            transactions_committed: totals.committed,
            transactions_aborted: totals.recycles,
            recycles: totals.recycles,
            last_cut_us: totals.last_cut_us,
            pruned_fields: enricher.pruned_fields,
            pruned_field_names: enricher.pruned_field_names,
            lags: log_ends.iter().map(lag).collect(),
        }
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period.max(Duration::from_millis(10)));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
