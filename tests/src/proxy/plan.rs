//! Which requests are disturbed, and how: a pure function of the seed.

use std::{ops::Range, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::frame;

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The broker never gets it; both connections end.
    RequestLost,
    /// The broker gets it; the client's connection ends before the answer.
    AnswerLost,
    /// The client's connection ends at once; the broker gets the request this much later. The dangerous one: it may then
    /// arrive inside of a later transaction of the same epoch.
    Late(Duration),
    /// This and later requests of the connection reach the broker only after this time. If that is longer than the
    /// client's socket time-out it has given the connection up, and they arrive all the same.
    RequestWithheld(Duration),
    /// The broker gets the first half, then both connections end.
    HalfDelivered,
    /// The broker gets it; this and later answers reach the client only after this time.
    AnswerWithheld(Duration),
}

impl Fault {
    /// Short name, for reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RequestLost => "request_lost",
            Self::RequestWithheld(_) => "request_withheld",
            Self::AnswerLost => "answer_lost",
            Self::Late(_) => "late",
            Self::HalfDelivered => "half_delivered",
            Self::AnswerWithheld(_) => "answer_withheld",
        }
    }
}

/// Faults by seed. The n-th request of a kind has the same fate in each run, however the kinds interleave.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Of all choices.
    pub seed: u64,
    /// Share of the requests of a kind (api key) that are disturbed, 0 to 1. Kinds that are not named never are.
    pub shares: Vec<(i16, f64)>,
    /// How late, and how long withheld, in milliseconds.
    pub delay_ms: Range<u64>,
}

impl Plan {
    /// This share of all requests that a transaction consists of.
    #[must_use]
    pub fn transactions(seed: u64, share: f64, delay_ms: Range<u64>) -> Self {
        let kinds = [
            frame::PRODUCE,
            frame::INIT_PRODUCER_ID,
            frame::ADD_PARTITIONS_TO_TXN,
            frame::ADD_OFFSETS_TO_TXN,
            frame::END_TXN,
            frame::TXN_OFFSET_COMMIT,
        ];
        Self { seed, shares: kinds.map(|kind| (kind, share)).to_vec(), delay_ms }
    }

    /// The fate of the `nth` request (from 0) of this kind.
    #[must_use]
    pub fn fault(&self, api_key: i16, nth: u64) -> Option<Fault> {
        let share = self.shares.iter().find(|(kind, _)| *kind == api_key)?.1;
        let mut name = [0; 10];
        name[..2].copy_from_slice(&api_key.to_be_bytes());
        name[2..].copy_from_slice(&nth.to_be_bytes());
        let mut random = StdRng::seed_from_u64(xxhash_rust::xxh3::xxh3_64_with_seed(&name, self.seed));
        if !random.random_bool(share.clamp(0.0, 1.0)) {
            return None;
        }
        let mut delay = || {
            let Range { start, end } = self.delay_ms;
            Duration::from_millis(if start < end { random.random_range(start..end) } else { start })
        };
        let delay = delay();
        Some(match random.random_range(0..6) {
            0 => Fault::RequestLost,
            1 => Fault::AnswerLost,
            2 => Fault::Late(delay),
            3 => Fault::RequestWithheld(delay),
            4 => Fault::HalfDelivered,
            _ => Fault::AnswerWithheld(delay),
        })
    }
}
