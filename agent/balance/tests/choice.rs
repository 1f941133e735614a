//! Whom the policies choose, and how often.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::time::Duration;

use mesh_balance::{Endpoint, EndpointSet, Health, Outcome, Picked, Policy, Token};
use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};

const NOW: Duration = Duration::from_secs(1);
const POLICIES: [Policy; 3] = [Policy::RoundRobin, Policy::Random, Policy::LeastRequest];

fn policy() -> impl Strategy<Value = Policy> {
    prop::sample::select(POLICIES.to_vec())
}

fn endpoint(key: usize, weight: u32) -> Endpoint<usize, ()> {
    Endpoint {
        key,
        weight,
        health: Health::Passing,
        value: (),
    }
}

fn set(policy: Policy, weights: &[u32], rng: &mut StdRng) -> EndpointSet<usize, ()> {
    let mut set = EndpointSet::new(policy);
    let endpoints = weights.iter().enumerate();
    set.update(
        endpoints.map(|(key, weight)| endpoint(key, *weight)),
        NOW,
        rng,
    );
    set
}

fn count(
    set: &mut EndpointSet<usize, ()>,
    picks: usize,
    rng: &mut StdRng,
) -> HashMap<usize, usize> {
    let mut counts = HashMap::new();
    for _ in 0..picks {
        let picked = set.pick(NOW, rng, &[]).unwrap();
        *counts.entry(*set.key(picked.token()).unwrap()).or_default() += 1;
        set.done(picked, Outcome::Success, NOW);
    }
    counts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Round robin is exact: at no time is an endpoint further from its part
    /// than the turns that are just going on.
    #[test]
    fn round_robin_is_fair_at_any_time(
        weights in prop::collection::vec(1u32..20, 1..20),
        picks in 1usize..500,
        seed: u64,
    ) {
        let rng = &mut StdRng::seed_from_u64(seed);
        let counts = count(&mut set(Policy::RoundRobin, &weights, rng), picks, rng);
        let total: u32 = weights.iter().sum();
        for (key, weight) in weights.iter().enumerate() {
            let part = f64::from(*weight) / f64::from(total);
            let got = counts.get(&key).copied().unwrap_or(0) as f64;
            let slack = 2.0 + weights.len() as f64 * part;
            prop_assert!((got - picks as f64 * part).abs() <= slack, "{key}: {got} of {picks}");
        }
    }

    /// In each full round of equal endpoints, each one is picked once.
    #[test]
    fn round_robin_of_equals_is_a_circle(endpoints in 1usize..50, seed: u64) {
        let rng = &mut StdRng::seed_from_u64(seed);
        let mut set = set(Policy::RoundRobin, &vec![3; endpoints], rng);
        for _ in 0..5 {
            let counts = count(&mut set, endpoints, rng);
            prop_assert_eq!(counts.len(), endpoints);
        }
    }

    /// Idle endpoints are picked by weight, whatever the policy.
    #[test]
    fn by_weight(policy in policy(), weights in prop::collection::vec(1u32..10, 1..8)) {
        let rng = &mut StdRng::seed_from_u64(42);
        const PICKS: usize = 20_000;
        let counts = count(&mut set(policy, &weights, rng), PICKS, rng);
        let total: u32 = weights.iter().sum();
        for (key, weight) in weights.iter().enumerate() {
            let part = f64::from(*weight) / f64::from(total);
            let got = counts.get(&key).copied().unwrap_or(0) as f64 / PICKS as f64;
            // Over seven standard deviations of a fair choice.
            prop_assert!((got - part).abs() < 0.025, "{key}: {got} instead of {part}");
        }
    }

    /// No endpoint starves.
    #[test]
    fn none_starves(policy in policy(), weights in prop::collection::vec(1u32..5, 1..30)) {
        let rng = &mut StdRng::seed_from_u64(1);
        let counts = count(&mut set(policy, &weights, rng), 5000, rng);
        prop_assert_eq!(counts.len(), weights.len());
    }

    /// With all but one excluded, that one; with all, none. And an exclusion
    /// leaves no trace.
    #[test]
    fn exclusion(policy in policy(), endpoints in 1usize..10, seed: u64) {
        let rng = &mut StdRng::seed_from_u64(seed);
        let mut set = set(policy, &vec![2; endpoints], rng);
        let mut tried: Vec<Token> = Vec::new();
        for left in (0..endpoints).rev() {
            let picked = set.pick(NOW, rng, &tried).unwrap();
            prop_assert!(!tried.contains(&picked.token()));
            tried.push(picked.token());
            tried.push(picked.token()); // twice does no harm
            set.done(picked, Outcome::Success, NOW);
            prop_assert_eq!(tried.len(), 2 * (endpoints - left));
        }
        prop_assert!(set.pick(NOW, rng, &tried).is_none());
        let counts = count(&mut set, 400 * endpoints, rng);
        for key in 0..endpoints {
            let got = counts.get(&key).copied().unwrap_or(0);
            prop_assert!((200..600).contains(&got), "{key}: {got}");
        }
    }

    /// The same calls and the same seed, the same choices.
    #[test]
    fn the_same_seed_the_same_choices(
        policy in policy(),
        weights in prop::collection::vec(0u32..5, 1..20),
        seed: u64,
    ) {
        let run = || {
            let rng = &mut StdRng::seed_from_u64(seed);
            let mut set = set(policy, &weights, rng);
            let mut open: Vec<Picked> = Vec::new();
            let mut keys = Vec::new();
            for step in 0..100 {
                let Some(picked) = set.pick(NOW, rng, &[]) else { break };
                keys.push(*set.key(picked.token()).unwrap());
                open.push(picked);
                if step % 3 == 0 {
                    set.done(open.remove(0), Outcome::Success, NOW);
                }
            }
            keys
        };
        prop_assert_eq!(run(), run());
    }
}

#[test]
fn heavy_endpoints_are_spread_and_not_picked_in_a_row() {
    let rng = &mut StdRng::seed_from_u64(3);
    let mut set = set(Policy::RoundRobin, &[5, 1, 1, 1, 1, 1], rng);
    let mut last = None;
    for _ in 0..1000 {
        let picked = set.pick(NOW, rng, &[]).unwrap();
        let key = *set.key(picked.token()).unwrap();
        set.done(picked, Outcome::Success, NOW);
        // 5 of 10: every other pick, but for where the others fall together.
        let heavy_again = last == Some(key) && key == 0;
        let light_again = last == Some(key) && key != 0;
        assert!(!light_again);
        if heavy_again {
            last = None; // twice at most
        } else {
            last = Some(key);
        }
    }
}

#[test]
fn sets_begin_at_different_endpoints() {
    let mut firsts = HashMap::new();
    for seed in 0..200 {
        let rng = &mut StdRng::seed_from_u64(seed);
        let mut set = set(Policy::RoundRobin, &[1; 10], rng);
        let picked = set.pick(NOW, rng, &[]).unwrap();
        *firsts.entry(*set.key(picked.token()).unwrap()).or_insert(0) += 1;
        set.done(picked, Outcome::Cancelled, NOW);
    }
    assert_eq!(firsts.len(), 10);
    assert!(firsts.values().all(|count| *count < 50), "{firsts:?}");
}

#[test]
fn least_request_leaves_a_stuck_endpoint_alone() {
    let rng = &mut StdRng::seed_from_u64(5);
    let mut set = set(Policy::LeastRequest, &[1; 10], rng);
    // 0 never answers, the others at once.
    let mut stuck = Vec::new();
    let mut others = 0;
    for _ in 0..10_000 {
        let picked = set.pick(NOW, rng, &[]).unwrap();
        if *set.key(picked.token()).unwrap() == 0 {
            stuck.push(picked);
        } else {
            others += 1;
            set.done(picked, Outcome::Success, NOW);
        }
    }
    assert_eq!((stuck.len(), others), (1, 9_999), "always the worse of two");
}

#[test]
fn least_request_keeps_loads_in_proportion_to_weights() {
    let rng = &mut StdRng::seed_from_u64(6);
    let mut set = set(Policy::LeastRequest, &[1, 1, 4, 4], rng);
    let open: Vec<Picked> = (0..1000)
        .map(|_| set.pick(NOW, rng, &[]).unwrap())
        .collect();
    for status in set.statuses() {
        let part = 100 * status.weight;
        assert!(status.active.abs_diff(part) <= 10, "{status:?}");
    }
    for picked in open {
        set.done(picked, Outcome::Success, NOW);
    }
    assert!(set.statuses().all(|status| status.active == 0));
}

#[test]
fn ten_thousand_endpoints() {
    let rng = &mut StdRng::seed_from_u64(8);
    for policy in POLICIES {
        let weights: Vec<u32> = (0..10_000).map(|i| 1 + i % 7).collect();
        let mut set = set(policy, &weights, rng);
        let counts = count(&mut set, 50_000, rng);
        assert!(counts.len() > 7_000, "{policy:?}: {}", counts.len());
    }
}

#[test]
fn nothing_to_pick() {
    let rng = &mut StdRng::seed_from_u64(8);
    for policy in POLICIES {
        assert!(set(policy, &[], rng).pick(NOW, rng, &[]).is_none());
        assert!(set(policy, &[0, 0], rng).pick(NOW, rng, &[]).is_none());
        let mut extreme = set(policy, &[u32::MAX, u32::MAX, 1], rng);
        assert!(count(&mut extreme, 1000, rng).len() >= 2);
    }
}
