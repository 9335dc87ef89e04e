//! Results of the open transaction, kept until it has committed, and what becomes of those that Kafka does not take.

use std::{collections::HashSet, sync::Arc};

use tracing::{error, warn};
use weir_common::counters::{OutcomeKind, SplitCounters};

use super::Writer;
use crate::{
    budget::Held,
    clock::Clock,
    pipeline::cell::SplitCell,
    record::{Destination, OutputRecord, SourceRecord},
    sink::output::Output,
};

pub(super) struct Kept {
    pub(super) cell: Arc<SplitCell>,
    pub(super) record: Arc<SourceRecord>,
    pub(super) output: OutputRecord,
    pub(super) kind: OutcomeKind,
    pub(super) held: Held,
    /// The producer has it.
    pub(super) sent: bool,
    /// The broker refused a batch that it was in: it goes alone next time.
    pub(super) suspect: bool,
    /// How often something smaller took its place.
    pub(super) replacements: u8,
}

/// The output's error event, and once more one that is cut to what the topic takes.
const REPLACEMENTS_MAX: u8 = 2;

impl<O: Output, C: Clock> Writer<O, C> {
    /// A record that Kafka does not take for what it is: its error event goes instead, a shorter one if that is refused
    /// too, and then nothing does. Counted and logged with its position: never silent, never for ever.
    pub(super) fn replace(&mut self, number: usize, reason: &str) {
        let Some(kept) = self.kept.get_mut(&number) else { return };
        let split = self.splits.get_mut(&kept.cell.id);
        if let Some(split) = split.filter(|_| kept.kind != OutcomeKind::Error) {
            recount_as_error(&mut split.counters, kept.kind);
            kept.kind = OutcomeKind::Error;
        }
        self.metrics.refused_record();
        let position = kept.record.topic_partition();
        let what = if kept.output.destination == Destination::Sink { "output" } else { "error event" };
        let error_event = if kept.replacements >= REPLACEMENTS_MAX {
            None
        } else {
            let message = format!("Kafka refused the {what} of this record: {reason}");
            let bytes_max = self.output.limit(Destination::ErrorSink);
            self.enricher.error_event(&kept.record, "output_refused", &message, bytes_max)
        };
        let offset = kept.record.offset;
        if let Some(output) = error_event {
            warn!(%position, offset, reason, "Kafka refused an {what}, an error event goes instead");
            (kept.output, kept.suspect, kept.sent) = (output, false, false);
            kept.replacements += 1;
        } else {
            error!(%position, offset, reason, "Kafka refused an {what}, nothing is produced for this record");
            if let Some(kept) = self.kept.remove(&number) {
                self.kept_bytes -= kept.held.bytes();
            }
        }
    }

    /// At-least-once: with a record, the later ones of its key go again, so that the newest stays the last.
    pub(super) fn resend_in_order(&mut self) {
        let mut again = HashSet::new();
        for kept in self.kept.values_mut() {
            let key = (kept.cell.id.clone(), kept.output.key.clone());
            if !kept.sent {
                again.insert(key);
            } else if again.contains(&key) {
                kept.sent = false;
            }
        }
    }
}

/// A result that was counted by its outcome ends as an error.
fn recount_as_error(counters: &mut SplitCounters, kind: OutcomeKind) {
    let counted = match kind {
        OutcomeKind::Enriched => &mut counters.enriched,
        OutcomeKind::PassedThrough => &mut counters.passed_through,
        OutcomeKind::Dropped => &mut counters.dropped,
        OutcomeKind::Error => return,
    };
    *counted -= 1;
    counters.errors += 1;
}
