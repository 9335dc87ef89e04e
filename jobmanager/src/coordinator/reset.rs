//! Moving splits to other offsets by an operator's word.
//!
//! Counters are not moved along: they go on counting what is finished, records that are done again included.

use std::collections::BTreeMap;

use weir_common::{progress::Progress, split::SplitId};

use super::{
    Coordinator,
    action::{Consequences, Reply},
    event::{Allowed, RequestId, SplitState, SplitStates},
    suspension::{Phase, Purpose},
};

impl Coordinator {
    pub(super) fn reset_requested(&mut self, request: RequestId, splits: BTreeMap<SplitId, i64>, allowed: Allowed) {
        if !matches!(self.phase, Phase::Running) {
            return self.busy(request);
        }
        let consequences = self.consequences(&splits);
        if consequences.splits == 0 {
            let reason = "no split of the job is meant; `weir splits` lists topics and partitions".to_owned();
            return self.reply(request, Reply::Rejected { reason });
        }
        if !consequences.are_allowed(allowed) {
            return self.reply(request, Reply::ResetRefused(consequences));
        }
        self.come_to_rest(Purpose::Reset { request, splits, allowed });
    }

    /// Looks again, for the job had gone on while it came to rest.
    pub(super) fn reset(&mut self, request: RequestId, splits: BTreeMap<SplitId, i64>, allowed: Allowed) {
        let consequences = self.consequences(&splits);
        if !consequences.are_allowed(allowed) {
            return self.reply(request, Reply::ResetRefused(consequences));
        }
        let moved = |(id, offset): (SplitId, i64)| {
            let counters = self.splits.get(&id)?.state.counters;
            Some((id, SplitState { progress: Progress::at(offset), counters }))
        };
        let states: SplitStates = splits.into_iter().filter_map(moved).collect();
        self.write_at_rest(request, states, Reply::Reset(consequences));
    }

    fn consequences(&self, targets: &BTreeMap<SplitId, i64>) -> Consequences {
        let mut consequences = Consequences::default();
        for (id, target) in targets {
            let Some(split) = self.splits.get(id) else { continue };
            consequences.splits += 1;
            let progress = &split.state.progress;
            let finished_to = progress.finished_ahead.last().map_or(progress.cursor, |range| range.end);
            let at_most = |map: &mut BTreeMap<_, u64>, records: i64| {
                if let Some(records) = u64::try_from(records).ok().filter(|records| *records > 0) {
                    let known = map.entry(id.topic_partition()).or_default();
                    *known = records.max(*known);
                }
            };
            if split.state.counters.consumed > 0 {
                at_most(&mut consequences.replayed, finished_to.saturating_sub(*target));
            }
            at_most(&mut consequences.skipped, target.saturating_sub(progress.cursor));
        }
        consequences
    }
}

impl Consequences {
    fn are_allowed(&self, allowed: Allowed) -> bool {
        (allowed.replay || self.replayed.is_empty()) && (allowed.skip || self.skipped.is_empty())
    }
}
