//! Inputs of errors, sent through again: what is told of it on the way.

use std::{collections::BTreeMap, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, interval},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use weir_common::{counters::SplitCounters, split::TopicPartition};
use weir_proto::v1;

use super::{
    Service, convert,
    errors::{filter, of_kafka},
    refusal::gone,
};
use crate::{
    errors::{Selection, Tally},
    kafka::{Phase, ReplayEnd, ReplayRequest, ReplayStep},
    runtime::{Handle, view::View},
};

/// Inputs a second where none is asked for, and at most.
const DEFAULT_PER_SECOND: u32 = 50;
const PER_SECOND_MAX: u32 = 10_000;

/// How often whoever asked hears something, whether or not anything has changed.
const TELL_INTERVAL: Duration = Duration::from_millis(500);

/// Messages that wait for whoever asked.
const CAPACITY: usize = 8;

type Told = Result<v1::ReplayErrorsResponse, Status>;

impl Service {
    pub(super) async fn replay(&self, request: v1::ReplayErrorsRequest) -> Result<ReceiverStream<Told>, Status> {
        let runtime = self.runtime()?;
        let (out, stream) = mpsc::channel(CAPACITY);
        let topic = self.replay_topic();
        let before = counters(&runtime.view().await.map_err(gone)?, &topic);
        tracing::info!(again = request.again, dry_run = request.dry_run, "replay of errors requested");
        let no_wait = request.no_wait;
        let replay = Replay { runtime, topic, before, out };
        let request = wanted(request);
        tokio::spawn(async move {
            // Whoever asked has left: what is written is written.
            if let Err(status) = replay.run(request, no_wait).await {
                let _ = replay.out.send(Err(status)).await;
            }
        });
        Ok(ReceiverStream::new(stream))
    }
}

fn wanted(request: v1::ReplayErrorsRequest) -> ReplayRequest {
    let position = |at: v1::ErrorPosition| (at.partition, at.offset);
    ReplayRequest {
        selection: Selection {
            filter: filter(request.filter.unwrap_or_default()),
            positions: request.positions.into_iter().map(position).collect(),
        },
        per_second: match request.per_second {
            0 => DEFAULT_PER_SECOND,
            per_second => per_second.min(PER_SECOND_MAX),
        },
        limit: request.limit,
        again: request.again,
        dry_run: request.dry_run,
    }
}

struct Replay {
    runtime: Handle,
    topic: String,
    before: SplitCounters,
    out: mpsc::Sender<Told>,
}

impl Replay {
    async fn run(&self, request: ReplayRequest, no_wait: bool) -> Result<(), Status> {
        let dry_run = request.dry_run;
        let Some(ReplayEnd { tally, ends }) = self.write(request).await? else { return Ok(()) };
        if !dry_run {
            tracing::info!(
                written = tally.written,
                lost = tally.lost,
                before = tally.replayed_before,
                "errors replayed"
            );
        }
        if !dry_run && !no_wait && tally.written > 0 && self.wait(&tally, &ends).await?.is_none() {
            return Ok(());
        }
        let outcome = self.outcome(&self.runtime.view().await.map_err(gone)?);
        let done = v1::ReplayErrorsResponse { outcome: Some(outcome), ..told("DONE", &tally) };
        let _ = self.out.send(Ok(done)).await;
        Ok(())
    }

    /// `None`: whoever asked has left.
    async fn write(&self, request: ReplayRequest) -> Result<Option<ReplayEnd>, Status> {
        let (sender, mut steps) = mpsc::channel(CAPACITY);
        let backend = self.runtime.backend();
        let replay = backend.replay_errors(request, sender);
        tokio::pin!(replay);
        let mut tick = interval(TELL_INTERVAL);
        let mut last = ReplayStep { phase: Phase::Counting, tally: Tally::default() };
        let mut looked = false;
        loop {
            tokio::select! {
                ended = &mut replay => return Ok(Some(ended.map_err(|error| of_kafka(&error))?)),
                Some(step) = steps.recv() => last = step,
                _ = tick.tick() => {}
                // The channel goes with this future, and the writing ends with the batch that is under way.
                () = self.out.closed() => return Ok(None),
            }
            // The topic may be new: from its first records on the job is to read it.
            if last.tally.written > 0 && !std::mem::replace(&mut looked, true) {
                self.runtime.look_for_partitions().await.map_err(gone)?;
            }
            let phase = match last.phase {
                Phase::Counting => "COUNTING",
                Phase::Writing => "WRITING",
            };
            // One that does not listen misses some.
            let _ = self.out.try_send(Ok(told(phase, &last.tally)));
        }
    }

    /// Until the job has finished the replay topic up to there. `None`: whoever asked has left.
    async fn wait(&self, tally: &Tally, ends: &BTreeMap<TopicPartition, i64>) -> Result<Option<()>, Status> {
        self.runtime.look_for_partitions().await.map_err(gone)?;
        let mut tick = interval(TELL_INTERVAL);
        let began = Instant::now();
        loop {
            tick.tick().await;
            let view = self.runtime.view().await.map_err(gone)?;
            let remaining = remaining(&view, ends);
            if remaining == 0 {
                tracing::debug!(waited = ?began.elapsed(), "replayed errors are enriched");
                return Ok(Some(()));
            }
            let step = v1::ReplayErrorsResponse {
                remaining,
                outcome: Some(self.outcome(&view)),
                job_state: view.state.to_owned(),
                ..told("ENRICHING", tally)
            };
            if self.out.send(Ok(step)).await.is_err() {
                return Ok(None);
            }
        }
    }

    fn outcome(&self, view: &View) -> v1::SplitCounters {
        let (now, before) = (counters(view, &self.topic), self.before);
        convert::counters_to_proto(SplitCounters {
            consumed: now.consumed.saturating_sub(before.consumed),
            enriched: now.enriched.saturating_sub(before.enriched),
            passed_through: now.passed_through.saturating_sub(before.passed_through),
            errors: now.errors.saturating_sub(before.errors),
            dropped: now.dropped.saturating_sub(before.dropped),
        })
    }
}

fn counters(view: &View, topic: &str) -> SplitCounters {
    let mut sum = SplitCounters::default();
    let rows = view.splits.iter().filter(|row| *row.split.id.topic == *topic);
    rows.for_each(|row| sum += row.split.committed.counters);
    sum
}

/// Offsets below the ends that are not finished; all of them where a partition is not known yet.
fn remaining(view: &View, ends: &BTreeMap<TopicPartition, i64>) -> i64 {
    let left = |(partition, end): (&TopicPartition, &i64)| {
        let splits = view.splits.iter().filter(|row| row.split.id.topic_partition() == *partition);
        let cursor = splits.map(|row| row.split.committed.progress.cursor).min();
        (end - cursor.unwrap_or(0)).max(0)
    };
    ends.iter().map(left).sum()
}

fn told(phase: &str, tally: &Tally) -> v1::ReplayErrorsResponse {
    let position = |(partition, offset): &(i32, i64)| v1::ErrorPosition { partition: *partition, offset: *offset };
    v1::ReplayErrorsResponse {
        phase: phase.to_owned(),
        looked_at: tally.looked_at,
        chosen: tally.chosen,
        chosen_by_type: tally.by_type.clone().into_iter().collect(),
        replayed_before: tally.replayed_before,
        written: tally.written,
        lost: tally.lost,
        lost_errors: tally.lost_named.iter().map(position).collect(),
        too_large: tally.too_large,
        ..v1::ReplayErrorsResponse::default()
    }
}
