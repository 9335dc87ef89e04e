//! Periodic savepoints: when the next one is due, and which have grown too old.
//!
//! Both are decided from what lies in storage, by its age, so that neither restarts nor missed times matter: one is due
//! when the newest is `savepoint.interval` old, however long nobody looked. Deleted is by kind and age: periodic ones beyond
//! `savepoint.retention`, but for the newest.

use std::time::Duration;

use super::{
    Coordinator,
    action::{Action, SavepointKind, SnapshotKind},
    event::StoredSavepoint,
};

/// Time between two looks when nothing else asks for one.
const LOOK_INTERVAL: Duration = Duration::from_secs(3600);

/// Time before storage is looked at again after it did not answer, and before a savepoint that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// See the module. Without an interval nothing ever happens.
#[derive(Clone, Debug)]
pub(super) struct Periodic {
    interval: Option<Duration>,
    retention: Duration,
    next_look: Duration,
    /// Known since the last look, until it is taken.
    due: Option<Duration>,
}

impl Periodic {
    pub(super) fn new(interval: Option<Duration>, retention: Duration) -> Self {
        Self { interval, retention, next_look: Duration::ZERO, due: None }
    }

    /// `may_trigger`: whether the job is in a state to make one.
    pub(super) fn next_deadline(&self, may_trigger: bool) -> Option<Duration> {
        self.interval?;
        Some(self.due.filter(|_| may_trigger).map_or(self.next_look, |due| due.min(self.next_look)))
    }

    /// Whether storage is to be looked at now.
    fn look(&mut self, now: Duration) -> bool {
        let looks = self.interval.is_some() && self.next_look <= now;
        if looks {
            self.next_look = now + LOOK_INTERVAL;
        }
        looks
    }

    /// What lies there: the keys of those that are to be deleted.
    fn listed(&mut self, now: Duration, savepoints: &[StoredSavepoint]) -> Vec<String> {
        let Some(interval) = self.interval else { return Vec::new() };
        let mut periodic: Vec<&StoredSavepoint> =
            savepoints.iter().filter(|savepoint| savepoint.kind == SavepointKind::Periodic).collect();
        periodic.sort_by_key(|savepoint| savepoint.age);
        self.due = Some(periodic.first().map_or(now, |newest| now + interval.saturating_sub(newest.age)));
        let old = periodic.iter().skip(1).filter(|savepoint| savepoint.age > self.retention);
        old.map(|savepoint| savepoint.key.clone()).collect()
    }

    fn unknown(&mut self, now: Duration) {
        self.next_look = now + RETRY_AFTER;
    }

    /// Whether one is to be taken now; it is taken once.
    fn take(&mut self, now: Duration) -> bool {
        let takes = self.due.is_some_and(|due| due <= now);
        if takes {
            self.due = None;
        }
        takes
    }

    /// One was stored or failed: what lies there now tells when the next is due.
    fn ended(&mut self, now: Duration, stored: bool) {
        self.next_look = if stored { now } else { now + RETRY_AFTER };
    }
}

impl Coordinator {
    pub(super) fn look_for_savepoints(&mut self) {
        if self.periodic.look(self.now) {
            self.actions.push(Action::ListSavepoints);
        }
    }

    pub(super) fn savepoints_listed(&mut self, savepoints: &[StoredSavepoint]) {
        let keys = self.periodic.listed(self.now, savepoints);
        if self.checkpoints.pending_kind().is_some_and(is_periodic) {
            // It was not there yet, or was not seen.
            self.periodic.due = None;
        }
        if !keys.is_empty() {
            self.actions.push(Action::DeleteSavepoints { keys });
        }
    }

    pub(super) fn savepoints_unknown(&mut self) {
        self.periodic.unknown(self.now);
    }

    /// The kind of a periodic savepoint that is to be taken now.
    pub(super) fn due_savepoint(&mut self) -> Option<SnapshotKind> {
        self.periodic
            .take(self.now)
            .then(|| SnapshotKind::Savepoint { label: String::new(), kind: SavepointKind::Periodic })
    }

    pub(super) fn periodic_ended(&mut self, kind: &SnapshotKind, stored: bool) {
        if is_periodic(kind) {
            self.periodic.ended(self.now, stored);
        }
    }
}

fn is_periodic(kind: &SnapshotKind) -> bool {
    matches!(kind, SnapshotKind::Savepoint { kind: SavepointKind::Periodic, .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn stored(rows: &[(SavepointKind, u32)]) -> Vec<StoredSavepoint> {
        let savepoint = |(kind, hours): &(SavepointKind, u32)| StoredSavepoint {
            key: format!("{}-{hours}", kind.name()),
            kind: *kind,
            age: HOUR * *hours,
        };
        rows.iter().map(savepoint).collect()
    }

    #[test]
    fn due_by_the_age_of_the_newest_periodic_one_and_deleted_by_kind_and_age() {
        use SavepointKind::{Imported, OffsetCut, Operator, Periodic as Timed};
        type Row = (&'static [(SavepointKind, u32)], u32, &'static [&'static str]);
        // What is there, in how many hours one is due, what is deleted. Every 6 hours, kept for 24.
        let table: [Row; 7] = [
            (&[], 0, &[]),
            (&[(Operator, 1), (OffsetCut, 1), (Imported, 1)], 0, &[]),
            (&[(Timed, 2)], 4, &[]),
            (&[(Timed, 8), (Timed, 2)], 4, &[]),
            (
                &[(Timed, 24), (Timed, 25), (Operator, 99), (OffsetCut, 99), (Imported, 99), (Timed, 2)],
                4,
                &["PERIODIC-25"],
            ),
            (&[(Timed, 70), (Timed, 80)], 0, &["PERIODIC-80"]),
            // The newest stays, whatever its age.
            (&[(Timed, 999)], 0, &[]),
        ];
        for (there, due, deleted) in table {
            let mut periodic = Periodic::new(Some(HOUR * 6), HOUR * 24);
            let now = HOUR * 100;
            assert_eq!(periodic.listed(now, &stored(there)), deleted, "{there:?}");
            assert_eq!(periodic.due, Some(now + HOUR * due), "{there:?}");
        }
    }

    #[test]
    fn a_missed_time_is_made_up_for_once() {
        let mut periodic = Periodic::new(Some(HOUR), HOUR * 24);
        assert!(periodic.look(Duration::ZERO) && !periodic.look(Duration::ZERO));
        periodic.listed(Duration::ZERO, &stored(&[(SavepointKind::Periodic, 7)]));
        assert!(periodic.take(HOUR * 5) && !periodic.take(HOUR * 9), "not for each time that was missed");
        periodic.ended(HOUR * 9, true);
        assert!(periodic.look(HOUR * 9), "what is there now tells when the next one is due");
        periodic.listed(HOUR * 9, &stored(&[(SavepointKind::Periodic, 0)]));
        assert!(!periodic.take(HOUR * 10 - Duration::from_secs(1)) && periodic.take(HOUR * 10));
    }

    #[test]
    fn without_an_interval_nothing_happens() {
        let mut periodic = Periodic::new(None, HOUR);
        assert_eq!((periodic.look(HOUR), periodic.next_deadline(true)), (false, None));
        assert!(
            periodic.listed(HOUR, &stored(&[(SavepointKind::Periodic, 9), (SavepointKind::Periodic, 8)])).is_empty()
        );
        assert!(!periodic.take(HOUR));
    }
}
