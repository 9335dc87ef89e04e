use super::*;
use crate::enrich::routes::Kind;

const SECOND: Duration = Duration::from_secs(1);

fn policy() -> RetryPolicy {
    RetryPolicy::new(
        &Retry { max_attempts: 4, initial_backoff: SECOND, max_backoff: 10 * SECOND, budget: 60 * SECOND },
        &NotFound { max_attempts: 3, delay: 2 * SECOND, max_age: 100 * SECOND },
    )
}

fn moment(elapsed: u32, age: Option<u32>, chance: f64) -> Moment {
    Moment { elapsed: SECOND * elapsed, outage: false, age: age.map(|age| SECOND * age), chance }
}

fn fault(kind: Kind) -> Fault {
    Fault::new(kind, "")
}

/// Requests until an error event, each failing so; at most `limit`.
fn requests(kind: Kind, age: Option<u32>, outage: bool, limit: usize) -> usize {
    let mut attempts = Attempts::default();
    let mut requests = 1;
    let moment = Moment { outage, ..moment(0, age, 0.5) };
    while requests < limit && policy().decide(&mut attempts, &fault(kind), moment) != Decision::GiveUp {
        requests += 1;
    }
    requests
}

#[test]
fn every_kind_is_asked_for_as_often_as_its_route_says() {
    for kind in Kind::ALL.iter().copied() {
        // Young, old, of unknown age, while the API is down.
        let wanted = match kind.row().route {
            Route::ErrorEvent | Route::Split | Route::WithoutBody => [1, 1, 1, 1],
            Route::Retry => [4, 4, 4, 1000],
            Route::RetryWhileYoung => [3, 2, 2, 3],
        };
        let asked = [
            requests(kind, Some(100), false, 1000),
            requests(kind, Some(101), false, 1000),
            requests(kind, None, false, 1000),
            requests(kind, Some(0), true, 1000),
        ];
        assert_eq!(asked, wanted, "{kind:?}");
    }
}

#[test]
fn no_kind_is_asked_for_longer_than_the_budget() {
    for kind in Kind::ALL.iter().copied() {
        let decision = policy().decide(&mut Attempts::default(), &fault(kind), moment(61, Some(0), 0.0));
        assert_eq!(decision, Decision::GiveUp, "{kind:?}");
    }
}

#[test]
fn the_bound_doubles_up_to_its_cap_and_attempts_end() {
    let mut attempts = Attempts::default();
    let timeout = fault(Kind::Timeout);
    let waits: Vec<_> = (0..4).map(|_| policy().decide(&mut attempts, &timeout, moment(0, None, 0.5))).collect();
    let half = |seconds: u32| Decision::Retry(SECOND * seconds / 2);
    assert_eq!(waits, [half(1), half(2), half(4), Decision::GiveUp]);
    assert_eq!(policy().backoff(40, None, 1.0), 10 * SECOND);
}

#[test]
fn an_outage_uses_up_nothing() {
    let mut attempts = Attempts::default();
    for _ in 0..100 {
        let moment = Moment { outage: true, ..moment(9999, None, 1.0) };
        let decision = policy().decide(&mut attempts, &fault(Kind::ConnectionFailed), moment);
        assert_eq!(decision, Decision::Retry(SECOND));
    }
    assert_eq!(attempts, Attempts::default());
}

#[test]
fn decisions() {
    let overloaded = |seconds: u32| Fault { retry_after: Some(SECOND * seconds), ..fault(Kind::MaxLag) };
    let none = Attempts::default();
    let seen = Attempts { failed: 0, not_found: 1 };
    let unknown = || fault(Kind::BadRevision);
    let again = Decision::Retry(2 * SECOND);
    let table = [
        ("retry-after is a floor", none, overloaded(5), moment(0, None, 0.1), Decision::Retry(5 * SECOND)),
        ("retry-after is capped", none, overloaded(3600), moment(0, None, 0.1), Decision::Retry(10 * SECOND)),
        ("budget", none, overloaded(5), moment(56, None, 0.0), Decision::GiveUp),
        ("young", seen, unknown(), moment(0, Some(100), 0.0), again),
        ("old: first time", none, unknown(), moment(0, Some(101), 0.0), again),
        ("old: second time", seen, unknown(), moment(0, Some(101), 0.0), Decision::GiveUp),
        ("unknown age is old", seen, unknown(), moment(0, None, 0.0), Decision::GiveUp),
    ];
    for (name, mut attempts, fault, moment, wanted) in table {
        assert_eq!(policy().decide(&mut attempts, &fault, moment), wanted, "{name}");
    }
}

#[test]
fn alone_once_the_revision_may_be_to_blame() {
    let table = [
        (Kind::OtherApiError, Some(2)),
        (Kind::Timeout, Some(2)),
        (Kind::Unavailable, Some(5)),
        (Kind::MaxLag, None),
        (Kind::TooManyRequests, None),
        (Kind::BadRevision, None),
    ];
    for (kind, wanted) in table {
        let alone = |failed: &u32| asks_alone(&fault(kind), Attempts { failed: *failed, not_found: 3 });
        assert_eq!((0..10).find(alone), wanted, "{kind:?}");
        assert!((wanted.unwrap_or(10)..10).all(|failed| alone(&failed)), "{kind:?}");
    }
}
