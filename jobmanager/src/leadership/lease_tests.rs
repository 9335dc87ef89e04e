use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::{SeedableRng as _, rngs::StdRng};

use super::*;

const TTL: Duration = Duration::from_secs(10);
const HOLD: Duration = Duration::from_secs(9);

fn settings(holder: &str) -> Settings {
    Settings { holder: holder.to_owned(), address: format!("{holder}:6123"), ttl: TTL }
}

fn candidate(holder: &str) -> Candidate<u64> {
    Candidate::new(settings(holder))
}

fn seconds(number: f64) -> Duration {
    Duration::from_secs_f64(number)
}

fn lease(holder: &str, epoch: u64, renewal: u64) -> Lease {
    let address = if holder.is_empty() { String::new() } else { format!("{holder}:6123") };
    Lease { holder: holder.to_owned(), address, epoch: LeaderEpoch(epoch), renewal, ttl_ms: 10_000 }
}

fn held(epoch: u64, sent: f64) -> Action<u64> {
    Action::Held { epoch: LeaderEpoch(epoch), sent: seconds(sent), until: seconds(sent) + HOLD }
}

fn write(holder: &str, epoch: u64, renewal: u64, over: Option<u64>) -> Action<u64> {
    Action::Write { lease: lease(holder, epoch, renewal), over }
}

/// What happens, when, and what it leads to.
type Script = Vec<(f64, Event<u64>, Vec<Action<u64>>)>;

fn play(candidate: &mut Candidate<u64>, script: Script) {
    for (at, event, expected) in script {
        let told = format!("{event:?} at {at}");
        assert_eq!(candidate.handle(event, seconds(at)), expected, "{told}");
    }
}

/// Leads with epoch 1 by a write that was sent at 1 and answered at 1.5, the object's state being 1.
fn leader() -> Candidate<u64> {
    let mut leader = candidate("a");
    play(
        &mut leader,
        vec![
            (0.5, Event::Deadline, vec![Action::Read]),
            (0.9, Event::Read(None), vec![]),
            (2.0, Event::Deadline, vec![write("a", 1, 1, None)]),
            (2.5, Event::Written(1), vec![held(1, 2.0)]),
        ],
    );
    leader
}

#[test]
fn nobody_s_lease_is_taken_at_once_with_the_next_epoch() {
    for (object, epoch, renewal, over) in [
        (None, 1, 1, None),
        (Some((lease("", 7, 40), 3)), 8, 41, Some(3)),
        (Some((lease("a", 7, 40), 3)), 8, 41, Some(3)),
    ] {
        let mut candidate = candidate("a");
        play(&mut candidate, vec![(0.0, Event::Deadline, vec![Action::Read]), (0.1, Event::Read(object), vec![])]);
        let soon = candidate.next_deadline().expect("it goes on");
        assert!(soon <= seconds(1.1), "{soon:?}");
        assert_eq!(candidate.handle(Event::Deadline, soon), [write("a", epoch, renewal, over)]);
        assert_eq!(candidate.handle(Event::Written(9), soon), [held(epoch, soon.as_secs_f64())]);
        assert!(candidate.leads(soon) && !candidate.leads(soon + HOLD));
    }
}

#[test]
fn a_standby_waits_for_the_whole_ttl_since_it_first_saw_that_state() {
    let mut standby = candidate("b");
    let of_a = |version| Event::Read(Some((lease("a", 1, version), version)));
    play(
        &mut standby,
        vec![
            (100.0, Event::Deadline, vec![Action::Read]),
            (101.0, of_a(5), vec![]),
            (105.0, Event::Deadline, vec![Action::Read]),
            (105.0, of_a(6), vec![]),
            (110.0, Event::Deadline, vec![Action::Read]),
            (110.0, of_a(6), vec![]),
            (114.9, Event::Deadline, vec![Action::Read]),
            (114.9, of_a(6), vec![]),
            (114.95, Event::Deadline, vec![]),
            (115.9, Event::Deadline, vec![write("b", 2, 7, Some(6))]),
        ],
    );
    assert_eq!(standby.observed().map(|lease| lease.holder.as_str()), Some("a"));
}

#[test]
fn a_deleted_object_is_waited_for_by_whoever_has_seen_it() {
    let mut standby = candidate("b");
    play(
        &mut standby,
        vec![
            (0.0, Event::Deadline, vec![Action::Read]),
            (0.0, Event::Read(Some((lease("a", 1, 5), 5))), vec![]),
            (1.0, Event::Deadline, vec![Action::Read]),
            (1.0, Event::Read(None), vec![]),
            (10.5, Event::Deadline, vec![Action::Read]),
            (10.5, Event::Read(None), vec![]),
            (11.5, Event::Deadline, vec![write("b", 1, 1, None)]),
        ],
    );
}

#[test]
fn a_leader_renews_every_third_and_counts_from_when_it_sent() {
    let mut leader = leader();
    assert_eq!(leader.next_deadline(), Some(seconds(2.0) + TTL / 3));
    play(
        &mut leader,
        vec![
            (5.0, Event::Deadline, vec![]),
            (5.4, Event::Deadline, vec![write("a", 1, 2, Some(1))]),
            (7.0, Event::Written(2), vec![held(1, 5.4)]),
        ],
    );
    assert!(leader.leads(seconds(14.3)) && !leader.leads(seconds(14.4)));
}

#[test]
fn without_an_answer_it_steps_down_by_its_own_clock() {
    let mut leader = leader();
    play(&mut leader, vec![(6.0, Event::Deadline, vec![write("a", 1, 2, Some(1))])]);
    assert_eq!(leader.next_deadline(), Some(seconds(11.0)));
    let actions = leader.handle(Event::Deadline, seconds(11.0));
    assert!(matches!(&actions[..], [Action::Lost { reason }] if reason.contains("not renewed")), "{actions:?}");
    // The write was done after all: it is too late for this leadership, and the next one has the next epoch.
    play(
        &mut leader,
        vec![
            (11.5, Event::Written(2), vec![Action::Read]),
            (11.6, Event::Read(Some((lease("a", 1, 2), 2))), vec![]),
            (12.6, Event::Deadline, vec![write("a", 2, 3, Some(2))]),
        ],
    );
}

#[test]
fn an_unclear_write_counts_when_the_object_shows_it_and_from_when_it_was_sent() {
    let mut leader = leader();
    play(
        &mut leader,
        vec![
            (6.0, Event::Deadline, vec![write("a", 1, 2, Some(1))]),
            (7.0, Event::WriteUnclear(String::new()), vec![]),
            (8.0, Event::Deadline, vec![Action::Read]),
            (8.5, Event::Read(Some((lease("a", 1, 2), 2))), vec![held(1, 6.0)]),
        ],
    );
}

#[test]
fn an_unclear_write_that_the_object_does_not_show_is_written_again_under_the_old_condition() {
    let mut leader = leader();
    play(
        &mut leader,
        vec![
            (6.0, Event::Deadline, vec![write("a", 1, 2, Some(1))]),
            (7.0, Event::WriteUnclear(String::new()), vec![]),
            (8.0, Event::Deadline, vec![Action::Read]),
            (8.5, Event::Read(Some((lease("a", 1, 1), 1))), vec![]),
            (9.5, Event::Deadline, vec![write("a", 1, 3, Some(1))]),
            // The first one came later than thought.
            (9.6, Event::ConditionFailed, vec![Action::Read]),
            (9.7, Event::Read(Some((lease("a", 1, 2), 2))), vec![]),
            (10.7, Event::Deadline, vec![write("a", 1, 4, Some(2))]),
            (10.8, Event::Written(3), vec![held(1, 10.7)]),
        ],
    );
}

#[test]
fn a_condition_that_fails_means_another_leads() {
    let objects =
        [(Some((lease("b", 2, 2), 2)), "b:6123 leads"), (Some((lease("", 2, 3), 3)), "ended"), (None, "gone")];
    for (object, why) in objects {
        let mut leader = leader();
        play(
            &mut leader,
            vec![
                (6.0, Event::Deadline, vec![write("a", 1, 2, Some(1))]),
                (6.1, Event::ConditionFailed, vec![Action::Read]),
            ],
        );
        let actions = leader.handle(Event::Read(object), seconds(6.2));
        assert!(matches!(&actions[..], [Action::Lost { reason }] if reason.contains(why)), "{actions:?}");
        assert!(!leader.leads(seconds(6.2)));
    }
}

#[test]
fn a_confirmation_is_a_write_sent_later_and_may_raise_the_epoch() {
    let mut leader = leader();
    play(
        &mut leader,
        vec![
            (3.0, Event::Confirm { at_least: LeaderEpoch(12) }, vec![write("a", 12, 2, Some(1))]),
            // Asked for while one is on its way: another one follows.
            (3.1, Event::Confirm { at_least: LeaderEpoch(0) }, vec![]),
            (3.2, Event::Written(2), vec![held(12, 3.0), write("a", 12, 3, Some(2))]),
            (3.3, Event::Written(3), vec![held(12, 3.2)]),
            (3.4, Event::Deadline, vec![]),
        ],
    );
}

#[test]
fn a_release_leaves_the_lease_free_and_the_epoch_in_it() {
    let mut leader = leader();
    play(
        &mut leader,
        vec![(3.0, Event::Release, vec![write("", 1, 2, Some(1))]), (3.1, Event::Written(2), vec![Action::Released])],
    );
    assert_eq!(leader.next_deadline(), None);
    // A renewal that is on its way is waited for.
    let mut leader = self::leader();
    play(
        &mut leader,
        vec![
            (6.0, Event::Deadline, vec![write("a", 1, 2, Some(1))]),
            (6.1, Event::Release, vec![]),
            (6.2, Event::WriteUnclear(String::new()), vec![Action::Read]),
            (6.3, Event::Read(Some((lease("a", 1, 2), 2))), vec![held(1, 6.0), write("", 1, 3, Some(2))]),
            (6.4, Event::WriteUnclear(String::new()), vec![Action::Released]),
        ],
    );
    let mut standby = candidate("b");
    assert_eq!(standby.handle(Event::Release, seconds(0.0)), [Action::Released]);
}

/// A request on its way to the store: who sent it, what it writes on which condition (`None`: it reads), and whether the
/// answer is lost.
type Arriving = (usize, Option<(Lease, Option<u64>)>, bool);

/// A store, and candidates whose clocks run at different speeds, whose requests are lost, late, or done twice, and whose
/// processes pause.
struct World {
    rng: StdRng,
    object: Option<(Lease, u64)>,
    versions: u64,
    candidates: Vec<One>,
    /// By the real time of their arrival.
    arriving: BTreeMap<(u64, u64), Arriving>,
    /// Real time of an answer.
    answers: BTreeMap<(u64, u64), (usize, u64, Event<u64>)>,
    sequence: u64,
    now_ms: u64,
    faults: bool,
    epochs: Vec<(LeaderEpoch, String)>,
}

struct One {
    candidate: Candidate<u64>,
    name: String,
    /// Its seconds are so long.
    speed: f64,
    paused_until_ms: u64,
    epoch: Option<LeaderEpoch>,
    /// The request that is waited for, and until when by real time.
    asked: Option<(u64, u64, bool)>,
}

impl One {
    fn clock(&self, now_ms: u64) -> Duration {
        Duration::from_secs_f64(now_ms as f64 / 1000.0 * self.speed)
    }
}

impl World {
    fn new(seed: u64, candidates: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let one = |index: usize, speed: f64| {
            let name = format!("c{index}");
            One { candidate: candidate(&name), name, speed, paused_until_ms: 0, epoch: None, asked: None }
        };
        let candidates = (0..candidates).map(|index| one(index, rng.random_range(0.97..1.03))).collect();
        Self {
            rng,
            object: None,
            versions: 0,
            candidates,
            arriving: BTreeMap::new(),
            answers: BTreeMap::new(),
            sequence: 0,
            now_ms: 0,
            faults: true,
            epochs: Vec::new(),
        }
    }

    fn chance(&mut self, share: f64) -> bool {
        self.faults && self.rng.random_bool(share)
    }

    fn step(&mut self) {
        self.now_ms += 50;
        while let Some(entry) = self.arriving.first_entry().filter(|entry| entry.key().0 <= self.now_ms) {
            let ((_, sequence), (who, request, lost)) = entry.remove_entry();
            self.serve(sequence, who, request, lost);
        }
        while let Some(entry) = self.answers.first_entry().filter(|entry| entry.key().0 <= self.now_ms) {
            let (_, (who, sequence, event)) = entry.remove_entry();
            self.answer(who, sequence, event);
        }
        for who in 0..self.candidates.len() {
            if self.chance(0.001) {
                self.candidates[who].paused_until_ms = self.now_ms + self.rng.random_range(0..40_000);
            }
            if self.candidates[who].paused_until_ms > self.now_ms {
                continue;
            }
            if let Some((sequence, until, writes)) = self.candidates[who].asked
                && until <= self.now_ms
            {
                let text = "time-out".to_owned();
                self.answer(who, sequence, if writes { Event::WriteUnclear(text) } else { Event::ReadFailed(text) });
            }
            let clock = self.candidates[who].clock(self.now_ms);
            if self.candidates[who].candidate.next_deadline().is_some_and(|deadline| deadline <= clock) {
                self.happens(who, Event::Deadline);
            }
            if self.chance(0.002) {
                self.happens(who, Event::Confirm { at_least: LeaderEpoch(0) });
            }
        }
        self.check();
    }

    fn serve(&mut self, sequence: u64, who: usize, request: Option<(Lease, Option<u64>)>, lost: bool) {
        let event = match request {
            None => Event::Read(self.object.clone()),
            Some((lease, over)) if self.object.as_ref().map(|(_, version)| *version) == over => {
                self.versions += 1;
                self.object = Some((lease, self.versions));
                Event::Written(self.versions)
            }
            Some(_) => Event::ConditionFailed,
        };
        if !lost {
            let delay = if self.chance(0.05) { self.rng.random_range(0..15_000) } else { 20 };
            self.answers.insert((self.now_ms + delay, sequence), (who, sequence, event));
        }
    }

    fn answer(&mut self, who: usize, sequence: u64, event: Event<u64>) {
        if self.candidates[who].asked.is_some_and(|(asked, ..)| asked == sequence) {
            if self.candidates[who].paused_until_ms > self.now_ms {
                let later = (self.candidates[who].paused_until_ms, sequence);
                self.answers.insert(later, (who, sequence, event));
                return;
            }
            self.candidates[who].asked = None;
            self.happens(who, event);
        }
    }

    fn happens(&mut self, who: usize, event: Event<u64>) {
        let clock = self.candidates[who].clock(self.now_ms);
        for action in self.candidates[who].candidate.handle(event, clock) {
            match action {
                Action::Read => self.ask(who, None),
                Action::Write { lease, over } => self.ask(who, Some((lease, over))),
                Action::Held { epoch, .. } => self.holds(who, epoch),
                Action::Lost { .. } => self.candidates[who].epoch = None,
                Action::Released => unreachable!("nobody asks for it"),
            }
        }
    }

    fn holds(&mut self, who: usize, epoch: LeaderEpoch) {
        if self.candidates[who].epoch.replace(epoch).is_none() {
            let last = self.epochs.last().map_or(LeaderEpoch(0), |(epoch, _)| *epoch);
            assert!(epoch > last, "epoch {epoch} after {last}");
            self.epochs.push((epoch, self.candidates[who].name.clone()));
        }
    }

    fn ask(&mut self, who: usize, request: Option<(Lease, Option<u64>)>) {
        assert!(self.candidates[who].asked.is_none(), "one request at a time");
        self.sequence += 1;
        let delay = if self.chance(0.05) { self.rng.random_range(0..20_000) } else { 20 };
        let lost = self.chance(0.05);
        self.candidates[who].asked = Some((self.sequence, self.now_ms + 2000, request.is_some()));
        if !self.chance(0.05) {
            self.arriving.insert((self.now_ms + delay, self.sequence), (who, request, lost));
        }
    }

    fn check(&self) {
        let leaders: Vec<&str> = self
            .candidates
            .iter()
            .filter(|one| one.candidate.leads(one.clock(self.now_ms)))
            .map(|one| one.name.as_str())
            .collect();
        assert!(leaders.len() <= 1, "{leaders:?} lead at {} ms", self.now_ms);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Never two at once by their own clocks, each leadership with a higher epoch; healed, somebody leads and goes on to.
    #[test]
    fn at_most_one_leads_and_soon_somebody_does(seed in any::<u64>(), candidates in 1_usize..4) {
        let mut world = World::new(seed, candidates);
        for _ in 0..6000 {
            world.step();
        }
        world.faults = false;
        for one in &mut world.candidates {
            one.paused_until_ms = 0;
        }
        for _ in 0..1200 {
            world.step();
        }
        let leaderships = world.epochs.len();
        prop_assert!(world.candidates.iter().any(|one| one.candidate.leads(one.clock(world.now_ms))));
        for _ in 0..600 {
            world.step();
        }
        prop_assert_eq!(world.epochs.len(), leaderships, "the leader stays");
    }
}
