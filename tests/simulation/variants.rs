//! Deliberate mistakes, each of which the simulation must find.

use crate::random::Random;

/// One mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// None: Weir as it is.
    Correct,
    /// A lost slot counts as fenced without `init_transactions`.
    NoInitAtTakeover,
    /// Progress is read before the former owner is fenced.
    ReadBeforeInit,
    /// An answer that is not for the grant renews it all the same.
    StaleGrant,
    /// A leader does not look at its lease again, and taskmanagers obey it although they know a higher epoch.
    LowerEpochObeyed,
    /// After a doubt the transaction is aborted, and the same producer goes on.
    NoRecycle,
    /// A log line that comes after the cut is not looked for before the next transaction.
    NoLookBeforeBegin,
    /// A producer that is initialised anew is used before the grant is confirmed.
    NoConfirmation,
    /// A grant is confirmed from when the answer came, not from when the heartbeat was sent.
    ConfirmedByArrival,
    /// Splits go to the next owner as soon as they are revoked.
    ReassignBeforeReleased,
    /// A grant is sent before its slot is in the job record.
    GrantBeforeRecord,
    /// A slot that was fenced stays in the job record when its splits are handed on.
    FencedSlotStaysRecorded,
    /// A taskmanager reports what it is about to commit.
    ReportedAhead,
    /// At-least-once, it reports what is not acknowledged.
    ReportedAheadAtLeastOnce,
    /// Progress is read with `read_uncommitted`.
    UncommittedRead,
    /// Output is committed, then its progress, in two transactions.
    ProgressApart,
    /// The lease ends by the standby's wall clock.
    WallClockLease,
    /// A leader does not look at its lease again.
    LeaseNotChecked,
    /// The job record is written plainly.
    UnfencedRecord,
    /// After a recycle, kept results are not produced again.
    NotReplayed,
    /// After a recycle, they are produced again in another order.
    ReplayedInAnotherOrder,
    /// Objects are written without a condition.
    Overwritten,
}

impl Variant {
    /// Whether a schedule is exactly-once: most are, and all where a mistake is about it.
    pub(crate) fn exactly_once(self, random: &mut Random) -> bool {
        match self {
            Self::Correct => random.chance(850),
            // The pointer keeps leaders apart where no record in Kafka does.
            Self::ReportedAheadAtLeastOnce | Self::Overwritten => false,
            _ => true,
        }
    }

    pub(crate) fn reports_ahead(self) -> bool {
        matches!(self, Self::ReportedAhead | Self::ReportedAheadAtLeastOnce)
    }

    /// A leader goes on when its lease is over.
    pub(crate) fn ignores_lease(self) -> bool {
        matches!(self, Self::LeaseNotChecked | Self::LowerEpochObeyed)
    }

    /// What a violation must say to be this mistake's: where it needs another one to show.
    pub(crate) fn sign(self) -> &'static str {
        if self == Self::LowerEpochObeyed { "obeys epoch" } else { "" }
    }

    pub(crate) const MISTAKES: [Self; 21] = [
        Self::NoInitAtTakeover,
        Self::FencedSlotStaysRecorded,
        Self::ConfirmedByArrival,
        Self::LowerEpochObeyed,
        Self::ReadBeforeInit,
        Self::StaleGrant,
        Self::NoRecycle,
        Self::NoLookBeforeBegin,
        Self::NoConfirmation,
        Self::ReassignBeforeReleased,
        Self::GrantBeforeRecord,
        Self::ReportedAhead,
        Self::ReportedAheadAtLeastOnce,
        Self::UncommittedRead,
        Self::ProgressApart,
        Self::WallClockLease,
        Self::LeaseNotChecked,
        Self::UnfencedRecord,
        Self::NotReplayed,
        Self::ReplayedInAnotherOrder,
        Self::Overwritten,
    ];
}
