//! What unusable snapshots mean for a start.
//!
//! | in storage | exactly-once | at-least-once |
//! |---|---|---|
//! | newest damaged, an older one good | progress in Kafka, checked against the older one; loudly | the older one; loudly |
//! | newest of a newer format | the same; loudly | refused: its progress is whole, only this build cannot read it |
//! | none good | progress in Kafka; loudly. Refused where there is none either | refused |
//! | `latest` names nothing | no difference: a start lists what is there; loudly | the same |
//!
//! Damage is never silent, and never looks like a first start: that would read the source from the configured offset.

use super::{Facts, Finding, Plan, Severity};
use crate::store::survey::{PassedOver, Survey};

/// So many are named in one message; the others are counted.
const MAX_NAMED: usize = 3;

/// Nothing is left that says how far the job has come.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// At-least-once, and this build is too old.
    #[error(
        "{0}; at-least-once keeps its progress in snapshots alone, and an older one would do again all that came after it. If that \
         is wanted, move the object away with the store's own tools"
    )]
    NewerFormat(String),
    /// There are snapshots, none is good, and Kafka has no progress.
    #[error(
        "no snapshot can be used and there is no progress in Kafka: {0}. Nothing says how far the job has come: bring a good \
         snapshot back, or move the damaged ones away to start from job.starting_offsets"
    )]
    NothingGood(String),
}

/// Adds to a plan what storage says beside its newest good snapshot.
///
/// # Errors
/// See [`Unusable`].
pub fn heed(plan: &mut Plan, facts: &Facts, survey: &Survey) -> Result<(), Unusable> {
    let has_progress = facts.exactly_once && (facts.record.is_some() || !facts.progress.is_empty());
    if let Some(newer) = survey.passed_over.iter().find(|each| each.newer_format && !facts.exactly_once) {
        return Err(Unusable::NewerFormat(newer.reason.clone()));
    }
    if survey.newest.is_none() && !survey.passed_over.is_empty() && !has_progress {
        return Err(Unusable::NothingGood(reasons(&survey.passed_over)));
    }
    // An unusable one has its number and its leader's epoch all the same.
    plan.leader_epoch = plan.leader_epoch.max(survey.highest.epoch.next());
    plan.first_checkpoint = plan.first_checkpoint.max(survey.highest.checkpoint.next());
    let mut warn = |text| plan.findings.push(Finding { severity: Severity::Warning, text });
    if !survey.passed_over.is_empty() {
        let instead = match &survey.newest {
            Some(good) if facts.exactly_once => {
                format!("progress in Kafka was checked against the older snapshot {}", good.id())
            }
            Some(good) => format!("goes on from the older snapshot {}, whatever came after it comes twice", good.id()),
            None => "progress in Kafka was not checked against a snapshot".to_owned(),
        };
        let count = survey.passed_over.len();
        let unit = if count == 1 { "snapshot" } else { "snapshots" };
        warn(format!("{count} {unit} passed over: {}; {instead}", reasons(&survey.passed_over)));
    }
    if let Some(pointer) = &survey.pointer {
        warn(format!(
            "{pointer}; this start looked at what is there instead, the next snapshot puts the pointer right"
        ));
    }
    Ok(())
}

fn reasons(passed_over: &[PassedOver]) -> String {
    let named: Vec<&str> = passed_over.iter().take(MAX_NAMED).map(|each| each.reason.as_str()).collect();
    let more = passed_over.len().saturating_sub(MAX_NAMED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("{}{more}", named.join("; "))
}

#[cfg(test)]
mod tests {
    use weir_common::ids::{CheckpointId, LeaderEpoch};

    use super::*;
    use crate::{
        coordinator::action::SnapshotKind,
        start::{plan, tests::facts},
        store::{keys::SnapshotId, snapshot::tests::snapshot},
    };

    fn bad(checkpoint: u64, newer_format: bool) -> PassedOver {
        let id = SnapshotId { epoch: LeaderEpoch(3), checkpoint: CheckpointId(checkpoint) };
        PassedOver { id, reason: format!("snapshot {checkpoint}.json is bad"), newer_format }
    }

    fn survey(good: bool, passed_over: Vec<PassedOver>) -> Survey {
        let newest = good.then(|| snapshot(3, 30, &SnapshotKind::Checkpoint));
        let highest = SnapshotId { epoch: LeaderEpoch(6), checkpoint: CheckpointId(31) };
        Survey { newest, passed_over, highest, pointer: None }
    }

    /// The warnings, or why the job does not start.
    fn outcome(exactly_once: bool, progress: bool, survey: &Survey) -> Result<Vec<String>, Unusable> {
        let mut facts = facts((exactly_once && progress).then_some(40), survey.newest.as_ref().map(|_| 40));
        facts.exactly_once = exactly_once;
        let mut plan = plan(&facts).expect("same shape");
        heed(&mut plan, &facts, survey)?;
        assert_eq!((plan.leader_epoch, plan.first_checkpoint), (LeaderEpoch(7), CheckpointId(32)));
        let loud = plan.findings.into_iter().filter(|finding| finding.severity == Severity::Warning);
        Ok(loud.map(|finding| finding.text).collect())
    }

    #[test]
    fn the_table_of_unusable_snapshots() {
        const EXACTLY: bool = true;
        const AT_LEAST: bool = false;
        let damaged = || vec![bad(31, false)];
        let newer = || vec![bad(31, true)];
        // guarantee, progress in Kafka, an older good one, passed over, what the warning says or why it is refused
        let cases = [
            (EXACTLY, true, true, damaged(), Ok("checked against the older snapshot 0000000003-0000000030")),
            (EXACTLY, true, true, newer(), Ok("checked against the older snapshot")),
            (EXACTLY, true, false, damaged(), Ok("not checked against a snapshot")),
            (EXACTLY, true, false, newer(), Ok("not checked against a snapshot")),
            (EXACTLY, false, false, damaged(), Err("move the damaged ones away")),
            (AT_LEAST, false, true, damaged(), Ok("goes on from the older snapshot 0000000003-0000000030")),
            (AT_LEAST, false, true, newer(), Err("at-least-once keeps its progress in snapshots alone")),
            (AT_LEAST, false, false, damaged(), Err("no snapshot can be used")),
        ];
        for (exactly_once, progress, good, passed_over, expected) in cases {
            let name = format!("exactly once {exactly_once}, progress {progress}, good {good}, {passed_over:?}");
            let said = outcome(exactly_once, progress, &survey(good, passed_over));
            match (said, expected) {
                (Ok(warnings), Ok(text)) => {
                    assert_eq!(warnings.len(), 1, "{name}: {warnings:?}");
                    assert!(warnings[0].contains(text) && warnings[0].contains("31.json"), "{name}: {warnings:?}");
                }
                (Err(refused), Err(text)) => {
                    let refused = refused.to_string();
                    assert!(refused.contains(text) && refused.contains("31.json"), "{name}: {refused}");
                }
                (said, _) => panic!("{name}: {said:?}"),
            }
        }
    }

    #[test]
    fn a_start_without_damage_says_nothing_and_many_are_counted() {
        assert_eq!(outcome(true, true, &survey(true, vec![])), Ok(vec![]));
        let many = survey(true, (31..39).map(|id| bad(id, false)).collect());
        let warnings = outcome(true, true, &many).expect("starts");
        assert!(warnings[0].starts_with("8 snapshots") && warnings[0].contains("and 5 more"), "{warnings:?}");
    }

    #[test]
    fn a_pointer_to_nothing_is_said_and_makes_no_difference() {
        let lost = Survey { pointer: Some("latest names nothing".to_owned()), ..survey(true, vec![]) };
        let warnings = outcome(true, true, &lost).expect("starts");
        assert!(warnings[0].contains("latest names nothing"), "{warnings:?}");
    }
}
