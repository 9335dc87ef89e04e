use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// As many as may be at once, all ending so after `took`; the time after them.
fn round(limiter: &mut Limiter, ending: Ending, took: Duration, now: Duration) -> Duration {
    let mut started = 0;
    while limiter.may_start(now) == Start::Now {
        limiter.started();
        started += 1;
        assert!(started <= 10_000, "without bound");
    }
    for _ in 0..started {
        limiter.ended(ending, now, now + took);
    }
    now + took
}

#[test]
fn it_grows_with_each_answer_until_the_first_trouble_and_with_each_round_after_it() {
    let mut limiter = Limiter::new(64);
    let mut now = Duration::ZERO;
    let mut limits = vec![limiter.limit()];
    for _ in 0..4 {
        now = round(&mut limiter, Ending::Answered, 10 * MS, now);
        limits.push(limiter.limit());
    }
    assert_eq!(limits, [8, 11, 15, 21, 29], "each answer counts while at least half of the limit is used");
    now = round(&mut limiter, Ending::Overloaded { retry_after: None }, 10 * MS, now);
    assert_eq!((limiter.limit(), limiter.reason()), (14, Reason::Overloaded), "halved once for all of the round");
    for _ in 0..4 {
        now = round(&mut limiter, Ending::Answered, 10 * MS, now);
    }
    assert!((15..=18).contains(&limiter.limit()), "{}", limiter.limit());
}

#[test]
fn it_never_exceeds_its_bound_and_does_not_grow_unused() {
    let mut limiter = Limiter::new(10);
    let mut now = Duration::ZERO;
    for _ in 0..20 {
        now = round(&mut limiter, Ending::Answered, 10 * MS, now);
    }
    assert_eq!((limiter.limit(), limiter.reason()), (10, Reason::None));
    let mut idle = Limiter::new(64);
    for ms in 0..100 {
        idle.started();
        idle.ended(Ending::Answered, at(ms), at(ms + 1));
    }
    assert_eq!(idle.limit(), 8, "one at a time needs no more");
}

#[test]
fn a_lower_bound_holds_at_once_and_a_higher_one_is_grown_into() {
    let mut limiter = Limiter::new(64);
    for _ in 0..8 {
        limiter.started();
    }
    limiter.set_max(3);
    assert_eq!((limiter.limit(), limiter.may_start(at(0))), (3, Start::WhenOneEnds), "what is on its way ends first");
    for _ in 0..8 {
        limiter.ended(Ending::Answered, at(0), at(1));
    }
    assert_eq!((limiter.limit(), limiter.may_start(at(1))), (3, Start::Now));
    limiter.set_max(64);
    assert_eq!(limiter.limit(), 3);
    round(&mut limiter, Ending::Answered, MS, at(2));
    assert_eq!(limiter.limit(), 5, "from where it is");
    limiter.set_max(0);
    assert_eq!(limiter.limit(), 1);
}

#[test]
fn retry_after_is_waited_for_by_all() {
    let mut limiter = Limiter::new(64);
    limiter.started();
    limiter.ended(Ending::Overloaded { retry_after: Some(at(5000)) }, at(0), at(100));
    assert_eq!(limiter.may_start(at(200)), Start::At(at(5100)));
    assert_eq!(limiter.may_start(at(5100)), Start::Now);
    limiter.started();
    limiter.ended(Ending::Overloaded { retry_after: Some(Duration::MAX) }, at(5100), at(5200));
    assert_eq!(limiter.may_start(at(5200)), Start::At(at(65_200)), "capped");
}

#[test]
fn answers_that_take_longer_than_usual_stop_its_growth() {
    let mut limiter = Limiter::new(64);
    let mut now = Duration::ZERO;
    for _ in 0..3 {
        now = round(&mut limiter, Ending::Answered, 10 * MS, now);
    }
    let before = limiter.limit();
    for _ in 0..3 {
        now = round(&mut limiter, Ending::Answered, 100 * MS, now);
    }
    assert_eq!(limiter.reason(), Reason::Slow);
    assert!(limiter.limit() < before * 2, "{before} {}", limiter.limit());
    for _ in 0..8 {
        now = round(&mut limiter, Ending::Answered, 10 * MS, now);
    }
    assert_eq!((limiter.limit(), limiter.reason()), (64, Reason::None));
}

/// Fails until it counts as down; the time then.
fn down(limiter: &mut Limiter) -> Duration {
    let mut now = Duration::ZERO;
    for _ in 0..100 {
        if limiter.reason() == Reason::Down {
            return now;
        }
        now = round(limiter, Ending::Failed, 500 * MS, now);
    }
    panic!("never counted as down: {limiter:?}");
}

#[test]
fn an_endpoint_that_is_down_gets_one_probe_at_a_time_with_growing_pauses() {
    let mut limiter = Limiter::new(64);
    let mut now = down(&mut limiter);
    let mut pauses = Vec::new();
    for _ in 0..7 {
        let Start::At(next) = limiter.may_start(now) else { panic!("no pause: {limiter:?}") };
        pauses.push((next - now).as_secs());
        limiter.started();
        assert_eq!(limiter.may_start(next), Start::WhenOneEnds, "one at a time");
        limiter.ended(Ending::Failed, next, next);
        now = next;
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
    let Start::At(next) = limiter.may_start(now) else { panic!("no pause") };
    limiter.started();
    limiter.ended(Ending::Answered, next, next + at(10));
    assert_eq!((limiter.limit(), limiter.may_start(next + at(10))), (2, Start::Now));
    let outage = limiter.down_for(next + at(10));
    assert_eq!(outage, limiter.down_for(next + at(99_999)), "it is over");
    assert!(outage >= Duration::from_secs(1 + 2 + 4 + 8 + 16 + 30 + 30), "{outage:?}");
}

#[test]
fn a_success_between_failures_and_a_short_row_of_them_are_no_outage() {
    let mut limiter = Limiter::new(64);
    for ms in 0..200 {
        limiter.started();
        let ending = if ms % 9 == 8 { Ending::Answered } else { Ending::Failed };
        limiter.ended(ending, at(ms * 100), at(ms * 100 + 50));
        assert_ne!(limiter.reason(), Reason::Down);
    }
    let mut limiter = Limiter::new(64);
    for _ in 0..50 {
        limiter.started();
        limiter.ended(Ending::Failed, at(0), at(1900));
    }
    assert_ne!(limiter.reason(), Reason::Down, "all of one moment");
}

fn endings() -> impl Strategy<Value = Ending> {
    prop_oneof![
        4 => Just(Ending::Answered),
        1 => (0u64..100_000).prop_map(|ms| Ending::Overloaded { retry_after: Some(at(ms)) }),
        1 => Just(Ending::Overloaded { retry_after: None }),
        2 => Just(Ending::Failed),
        1 => Just(Ending::Abandoned),
    ]
}

proptest! {
    /// Whatever happens, it is between one and its bound, and with nothing in flight it says when to go on, within a bound.
    #[test]
    fn it_always_goes_on(
        max in 1usize..100, steps in prop::collection::vec((endings(), 0u64..3000, any::<bool>()), 0..300),
    ) {
        let mut limiter = Limiter::new(max);
        let (mut now, mut in_flight) = (Duration::ZERO, Vec::new());
        for (ending, ms, end) in steps {
            now += at(ms);
            if end && !in_flight.is_empty() {
                limiter.ended(ending, in_flight.remove(0), now);
            } else if limiter.may_start(now) == Start::Now {
                limiter.started();
                in_flight.push(now);
            }
            prop_assert!((1..=max).contains(&limiter.limit()));
            prop_assert!(in_flight.len() <= max);
        }
        for sent in in_flight {
            limiter.ended(Ending::Abandoned, sent, now);
        }
        match limiter.may_start(now) {
            Start::Now => {}
            Start::At(later) => prop_assert!(later <= now + LONGEST_RETRY_AFTER.max(LONGEST_PAUSE)),
            Start::WhenOneEnds => prop_assert!(false, "nothing is in flight"),
        }
    }
}
