//! What a set learns of its endpoints, and how that changes the choice.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::time::Duration;

use mesh_balance::{
    Avoidance, Endpoint, EndpointSet, Health, Outcome, Outlier, Picked, Policy, Status,
};
use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

struct World {
    set: EndpointSet<&'static str, u32>,
    rng: StdRng,
}

impl World {
    fn new(endpoints: &[(&'static str, Health)]) -> Self {
        let mut world = Self {
            set: EndpointSet::new(Policy::RoundRobin),
            rng: StdRng::seed_from_u64(9),
        };
        world.set.set_outlier(Some(Outlier {
            consecutive_failures: 3,
            max_ejection_time: s(100),
            ..Outlier::default()
        }));
        world.set.set_avoidance(Avoidance {
            base: s(1),
            max: s(10),
        });
        world.update(endpoints, Duration::ZERO);
        world
    }

    fn update(&mut self, endpoints: &[(&'static str, Health)], now: Duration) {
        let endpoints = endpoints.iter().map(|(key, health)| Endpoint {
            key: *key,
            weight: 1,
            health: *health,
            value: 0,
        });
        self.set.update(endpoints, now, &mut self.rng);
    }

    fn pick(&mut self, now: Duration) -> Picked {
        self.set.pick(now, &mut self.rng, &[]).unwrap()
    }

    /// Picks until it gets that one.
    fn pick_this(&mut self, key: &str, now: Duration) -> Picked {
        for _ in 0..1000 {
            let picked = self.pick(now);
            if *self.set.key(picked.token()).unwrap() == key {
                return picked;
            }
            self.set.done(picked, Outcome::Cancelled, now);
        }
        panic!("{key} is not picked");
    }

    fn fail(&mut self, key: &str, outcome: Outcome, times: usize, now: Duration) {
        for _ in 0..times {
            let picked = self.pick_this(key, now);
            self.set.done(picked, outcome, now);
        }
    }

    /// Who is picked in many picks.
    fn used(&mut self, now: Duration) -> Vec<&'static str> {
        let mut keys = HashSet::new();
        for _ in 0..100 {
            let picked = self.pick(now);
            keys.insert(*self.set.key(picked.token()).unwrap());
            self.set.done(picked, Outcome::Cancelled, now);
        }
        let mut keys: Vec<_> = keys.into_iter().collect();
        keys.sort_unstable();
        keys
    }

    fn status(&self, key: &str) -> Status<'_, &'static str, u32> {
        self.set
            .statuses()
            .find(|status| *status.key == key)
            .unwrap()
    }
}

use Health::{Critical, Passing, Unknown, Warning};

#[test]
fn the_order_of_choice() {
    let all = [
        ("p", Passing),
        ("w", Warning),
        ("u", Unknown),
        ("c", Critical),
    ];
    let mut world = World::new(&all);
    assert_eq!(world.used(s(1)), ["p", "w"]);
    world.update(&[("u", Unknown), ("c", Critical)], s(2));
    assert_eq!(world.used(s(2)), ["u"]);
    assert_eq!(world.set.counters().picks_of_unknown, 100);
    world.update(&[("c", Critical)], s(3));
    assert!(world.set.pick(s(3), &mut world.rng, &[]).is_none());
    assert_eq!(world.set.len(), 1);
}

#[test]
fn passing_ones_that_are_down_come_after_unknown_ones_that_are_not() {
    let mut world = World::new(&[("p", Passing), ("u", Unknown)]);
    world.fail("p", Outcome::ConnectFailure, 1, s(1));
    assert_eq!(world.used(s(1)), ["u"]);
    assert_eq!(world.set.counters().picks_in_panic, 0);
    // Nothing is known to work any more: panic, among the passing ones.
    let picked = world.pick_this("u", s(1));
    world.set.done(picked, Outcome::ConnectFailure, ms(1100));
    assert_eq!(world.used(ms(1100)), ["p"]);
    assert_eq!(world.set.counters().picks_in_panic, 100);
    let picked = world.pick(ms(1100));
    assert!(picked.is_panic());
    world.set.done(picked, Outcome::Success, ms(1200));
    assert_eq!(
        world.used(ms(1200)),
        ["p"],
        "it works again, and is used as ever"
    );
    assert_eq!(world.set.counters().picks_in_panic, 101);
}

#[test]
fn failures_in_a_row_eject() {
    let mut world = World::new(&[
        ("a", Passing),
        ("b", Passing),
        ("c", Passing),
        ("d", Passing),
    ]);
    world.fail("a", Outcome::ServerError, 2, s(1));
    world.fail("a", Outcome::Success, 1, s(1));
    world.fail("a", Outcome::Reset, 2, s(1));
    assert_eq!(world.used(s(1)), ["a", "b", "c", "d"], "not in a row");
    world.fail("a", Outcome::Timeout, 1, s(1));
    assert_eq!(world.used(s(1)), ["b", "c", "d"]);
    assert_eq!(world.set.ejected(), 1);
    assert_eq!(world.status("a").ejected_until, Some(s(31)));
    assert_eq!(world.used(ms(30_999)), ["b", "c", "d"]);
    assert_eq!(world.used(s(31)), ["a", "b", "c", "d"]);
    assert_eq!(world.set.ejected(), 0);
}

#[test]
fn ejections_grow_longer_have_a_limit_and_are_forgiven() {
    let mut world = World::new(&[("a", Passing), ("b", Passing)]);
    let mut now = s(1);
    for expected in [30, 60, 90, 100, 100] {
        world.fail("a", Outcome::ServerError, 3, now);
        assert_eq!(world.status("a").ejected_until, Some(now + s(expected)));
        now += s(expected);
    }
    // 4 times 30 s in use forgive 4 of 5 ejections.
    now += s(120);
    world.fail("a", Outcome::ServerError, 3, now);
    assert_eq!(world.status("a").ejected_until, Some(now + s(60)));
}

#[test]
fn at_most_half_are_ejected_but_one_always_may_be() {
    let mut world = World::new(&[
        ("a", Passing),
        ("b", Passing),
        ("c", Passing),
        ("d", Passing),
        ("e", Passing),
        ("x", Critical),
    ]);
    for key in ["a", "b"] {
        world.fail(key, Outcome::ServerError, 3, s(1));
    }
    world.fail("c", Outcome::ServerError, 10, s(1));
    assert_eq!(world.set.ejected(), 2);
    assert_eq!(world.used(s(1)), ["c", "d", "e"]);
    assert_eq!(world.set.counters().ejections, 2);
    assert_eq!(world.set.counters().ejections_forbidden, 8);

    let mut world = World::new(&[("only", Passing)]);
    world.fail("only", Outcome::ServerError, 3, s(1));
    assert_eq!(world.set.ejected(), 1);
    let picked = world.pick(s(1));
    assert!(picked.is_panic(), "used all the same");
    world.set.done(picked, Outcome::Success, s(1));
}

#[test]
fn without_outlier_detection_answers_do_not_matter() {
    let mut world = World::new(&[("a", Passing), ("b", Passing)]);
    world.fail("a", Outcome::ServerError, 3, s(1));
    assert_eq!(world.used(s(1)), ["b"]);
    world.set.set_outlier(None);
    assert_eq!(world.set.ejected(), 0);
    world.fail("a", Outcome::ServerError, 100, s(1));
    assert_eq!(world.used(s(1)), ["a", "b"]);
}

#[test]
fn a_refused_connection_is_avoided_at_once_and_longer_each_time() {
    let mut world = World::new(&[("a", Passing), ("b", Passing)]);
    world.set.set_outlier(None);
    let mut now = s(1);
    for expected in [1, 2, 4, 8, 10, 10] {
        world.fail("a", Outcome::ConnectFailure, 1, now);
        assert_eq!(world.status("a").avoided_until, Some(now + s(expected)));
        assert_eq!(world.used(now), ["b"]);
        now += s(expected);
    }
    world.fail("a", Outcome::Success, 1, now);
    assert_eq!(world.used(now), ["a", "b"]);
    world.fail("a", Outcome::ConnectFailure, 1, now);
    assert_eq!(
        world.status("a").avoided_until,
        Some(now + s(1)),
        "forgotten"
    );
}

#[test]
fn after_an_avoidance_one_request_tries() {
    let mut world = World::new(&[("a", Passing), ("b", Passing)]);
    world.fail("a", Outcome::ConnectFailure, 1, s(1));
    let trial = world.pick_this("a", s(2));
    assert_eq!(world.used(s(2)), ["b"], "until it is known how that went");
    world.set.connected(&trial, s(2));
    assert_eq!(world.used(s(2)), ["a", "b"], "though it is not over");
    world.set.done(trial, Outcome::Success, s(60));

    // A trial that nobody hears of again does not block for ever.
    world.fail("a", Outcome::ConnectFailure, 1, s(61));
    let lost = world.pick_this("a", s(62));
    assert_eq!(world.used(s(62)), ["b"]);
    let next = world.pick_this("a", s(63));
    world.set.done(lost, Outcome::Cancelled, s(63));
    world.set.done(next, Outcome::ServerError, s(63));
    assert_eq!(world.used(s(63)), ["a", "b"], "an answer is an answer");
}

#[test]
fn connects_that_fail_together_are_one_failure() {
    let mut world = World::new(&[("a", Passing), ("b", Passing)]);
    world.set.set_outlier(None);
    let picked: Vec<_> = (0..50).map(|_| world.pick_this("a", s(1))).collect();
    let early = world.pick_this("a", s(1));
    for picked in picked {
        world.set.done(picked, Outcome::ConnectFailure, s(2));
    }
    assert_eq!(world.status("a").avoided_until, Some(s(3)));
    // One that was connected before says nothing about now.
    world.set.done(early, Outcome::Success, ms(2500));
    assert_eq!(world.used(ms(2500)), ["b"]);
}

#[test]
fn requests_from_before_an_ejection_do_not_eject_again() {
    let mut world = World::new(&[("a", Passing), ("b", Passing)]);
    let slow: Vec<_> = (0..10).map(|_| world.pick_this("a", s(1))).collect();
    world.fail("a", Outcome::ServerError, 3, s(2));
    assert_eq!(world.used(s(32)), ["a", "b"]);
    for picked in slow {
        world.set.done(picked, Outcome::Timeout, s(33));
    }
    assert_eq!(world.used(s(33)), ["a", "b"]);
}

#[test]
fn survivors_of_an_update_keep_what_is_known() {
    let mut world = World::new(&[("a", Passing), ("b", Passing), ("c", Passing)]);
    let open = world.pick_this("b", s(1));
    let gone = world.pick_this("c", s(1));
    world.fail("a", Outcome::ServerError, 3, s(1));
    world.update(&[("d", Passing), ("b", Passing), ("a", Warning)], s(2));
    assert_eq!(world.used(s(2)), ["b", "d"]);
    assert_eq!((world.status("b").active, world.set.ejected()), (1, 1));
    // d has c's place, and nothing of c's.
    assert!(world.set.value(&gone).is_none());
    world.set.done(gone, Outcome::ConnectFailure, s(2));
    assert_eq!(world.used(s(2)), ["b", "d"]);
    assert_eq!(world.status("d").active, 0);
    world.set.done(open, Outcome::Success, s(2));
    assert_eq!(world.status("b").active, 0);
    // An ejected one that goes is not counted any more.
    world.update(&[("b", Passing)], s(3));
    assert_eq!(world.set.ejected(), 0);
}

#[test]
fn what_was_critical_and_passes_begins_anew() {
    let mut world = World::new(&[("a", Passing), ("b", Passing)]);
    world.fail("a", Outcome::ServerError, 3, s(1));
    world.update(&[("a", Critical), ("b", Passing)], s(2));
    assert_eq!(world.used(s(2)), ["b"]);
    world.update(&[("a", Passing), ("b", Passing)], s(3));
    assert_eq!(world.used(s(3)), ["a", "b"]);
    assert_eq!(world.set.ejected(), 0);
}

#[test]
fn an_exclusion_does_not_lead_to_a_worse_group() {
    let mut world = World::new(&[("a", Passing), ("b", Passing)]);
    world.fail("a", Outcome::ConnectFailure, 1, s(1));
    let first = world.pick(s(1));
    let tried = [first.token()];
    world.set.done(first, Outcome::ServerError, s(1));
    assert!(world.set.pick(s(1), &mut world.rng, &tried).is_none());
    assert!(world.set.pick(s(1), &mut world.rng, &[]).is_some());
}

#[test]
fn another_policy_keeps_what_is_known() {
    let mut world = World::new(&[("a", Passing), ("b", Passing), ("c", Passing)]);
    world.fail("a", Outcome::ServerError, 3, s(1));
    for policy in [Policy::LeastRequest, Policy::Random, Policy::RoundRobin] {
        world.set.set_policy(policy);
        assert_eq!(world.used(s(1)), ["b", "c"]);
    }
}

/// What may happen to a set.
#[derive(Clone, Debug)]
enum Event {
    Update(Vec<(u8, u32, u8)>),
    Pick,
    Done(prop::sample::Index, u8),
    Connected(prop::sample::Index),
    Wait(u64),
    Policy(u8),
    Outlier(u32, u32),
}

fn event() -> impl Strategy<Value = Event> {
    let endpoints = prop::collection::vec((0u8..12, 0u32..4, 0u8..4), 0..12);
    prop_oneof![
        1 => endpoints.prop_map(Event::Update),
        8 => Just(Event::Pick),
        8 => (any::<prop::sample::Index>(), 0u8..6).prop_map(|(at, how)| Event::Done(at, how)),
        1 => any::<prop::sample::Index>().prop_map(Event::Connected),
        3 => (0u64..40_000).prop_map(Event::Wait),
        1 => (0u8..3).prop_map(Event::Policy),
        1 => (0u32..4, 0u32..120).prop_map(|(n, percent)| Event::Outlier(n, percent)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever happens, the rule of choice holds, as a slow second opinion
    /// sees it, and the limits too.
    #[test]
    fn the_rule_holds(events in prop::collection::vec(event(), 1..150), seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut set: EndpointSet<u8, ()> = EndpointSet::new(Policy::RoundRobin);
        let mut percent = None;
        let mut open: Vec<Picked> = Vec::new();
        let mut now = Duration::ZERO;
        for event in events {
            match event {
                Event::Update(endpoints) => {
                    let endpoints = endpoints.into_iter().map(|(key, weight, health)| Endpoint {
                        key,
                        weight,
                        health: [Passing, Warning, Unknown, Critical][usize::from(health)],
                        value: (),
                    });
                    set.update(endpoints, now, &mut rng);
                }
                Event::Pick => {
                    let usable = |status: &&Status<'_, u8, ()>| status.weight > 0 && status.health != Critical;
                    let is_passing = |status: &Status<'_, u8, ()>| matches!(status.health, Passing | Warning);
                    let is_down = |until: Option<Duration>| until.is_some_and(|until| until > now);
                    let rank = |status: &Status<'_, u8, ()>| {
                        let down = is_down(status.ejected_until) || is_down(status.avoided_until);
                        (down, !is_passing(status))
                    };
                    let all: Vec<Status<'_, u8, ()>> = set.statuses().collect();
                    let best = all.iter().filter(usable).map(rank).min();
                    let allowed: Vec<u8> = all
                        .iter()
                        .filter(usable)
                        .filter(|status| Some(rank(status)) == best)
                        .map(|status| *status.key)
                        .collect();
                    drop(all);
                    match set.pick(now, &mut rng, &[]) {
                        None => prop_assert!(allowed.is_empty()),
                        Some(picked) => {
                            let key = set.key(picked.token()).unwrap();
                            prop_assert!(allowed.contains(key));
                            prop_assert_eq!(picked.is_panic(), best.unwrap().0);
                            open.push(picked);
                        }
                    }
                }
                Event::Done(at, how) if !open.is_empty() => {
                    let picked = open.swap_remove(at.index(open.len()));
                    let outcome = [
                        Outcome::Success,
                        Outcome::ServerError,
                        Outcome::ConnectFailure,
                        Outcome::Reset,
                        Outcome::Timeout,
                        Outcome::Cancelled,
                    ][usize::from(how)];
                    let before = set.ejected();
                    let usable = set.statuses().filter(|s| s.weight > 0 && s.health != Critical).count();
                    set.done(picked, outcome, now);
                    if let Some(percent) = percent
                        && set.ejected() > before
                    {
                        let limit = (usable * percent as usize / 100).max(1);
                        prop_assert!(set.ejected() <= limit);
                    }
                }
                Event::Connected(at) if !open.is_empty() => set.connected(&open[at.index(open.len())], now),
                Event::Done(..) | Event::Connected(_) => {}
                Event::Wait(wait) => now += ms(wait),
                Event::Policy(which) => set.set_policy(
                    [Policy::RoundRobin, Policy::Random, Policy::LeastRequest][usize::from(which)],
                ),
                Event::Outlier(0, _) => {
                    percent = None;
                    set.set_outlier(None);
                }
                Event::Outlier(failures, max) => {
                    percent = Some(max.min(100));
                    set.set_outlier(Some(Outlier {
                        consecutive_failures: failures,
                        max_ejection_percent: max,
                        ..Outlier::default()
                    }));
                }
            }
            let active: u32 = set.statuses().map(|status| status.active).sum();
            let known = open.iter().filter(|picked| set.key(picked.token()).is_some()).count();
            prop_assert_eq!(active as usize, known);
            let ejected = set.statuses().filter(|status| status.ejected_until.is_some()).count();
            prop_assert_eq!(ejected, set.ejected());
        }
    }
}
