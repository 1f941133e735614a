//! Leaves that were signed, and revocations of them.

use std::collections::BTreeSet;

use mesh_state::{
    Command, MAX_LEAVES, MAX_REVOCATIONS, Refusal, Revoked, RowKey, SignedLeaf, State, TableName,
    Topic, WatchKey, inspect,
};
use proptest::prelude::*;

use crate::make::*;

fn leaf(serial: &str, key_: &str, service: &str, not_after: u64) -> SignedLeaf {
    SignedLeaf {
        serial: serial.into(),
        key: key_.into(),
        service: key(service),
        node: "n1".into(),
        proxy: format!("{service}-1-sidecar-proxy"),
        signed: 1,
        not_after,
    }
}

fn record(leaves: &[SignedLeaf]) -> Command {
    Command::RecordLeaves {
        leaves: leaves.to_vec(),
    }
}

fn serial(text: &str) -> Revoked {
    Revoked::Serial(text.into())
}

fn revoke(what: Revoked, until: Option<u64>) -> Command {
    Command::Revoke {
        what,
        reason: "stolen".into(),
        until,
    }
}

fn revoked(state: &State) -> Vec<Revoked> {
    let rows = state.revocations();
    rows.map(|row| row.value.what.clone()).collect()
}

fn serials(state: &State) -> Vec<&str> {
    state.leaves().map(|leaf| leaf.serial.as_str()).collect()
}

#[test]
fn what_was_signed_is_a_record_and_wakes_nobody() {
    let mut state = cluster();
    let before = state.version();
    let leaves = [leaf("0b", "k1", "web", 90), leaf("0a", "k2", "db", 50)];
    let (result, touched) = run_at(&mut state, 1_000, record(&leaves));
    assert!(result.unwrap().results.is_empty() && touched.is_empty());
    assert_eq!(state.version(), before);
    assert_eq!(serials(&state), ["0a", "0b"], "by their end");
    assert_eq!(state.leaf("0b").unwrap().service, key("web"));
    // Twice is once.
    run(&mut state, record(&leaves)).unwrap();
    assert_eq!(state.leaves().count(), 2);
    assert!(!state.has_ended_leaves(50) && state.has_ended_leaves(51));
    run_at(&mut state, 51_000, Command::SweepLeaves {})
        .0
        .unwrap();
    assert_eq!(serials(&state), ["0b"]);
}

#[test]
fn the_record_is_bounded_and_what_ends_first_goes_first() {
    let mut state = cluster();
    let many = |range: std::ops::Range<usize>| -> Vec<SignedLeaf> {
        let one = |at: usize| leaf(&format!("{at:08x}"), "k", "web", 1_000_000 - at as u64);
        range.map(one).collect()
    };
    for from in (0..MAX_LEAVES).step_by(8192) {
        run(&mut state, record(&many(from..from + 8192))).unwrap();
    }
    assert_eq!(state.leaves().count(), MAX_LEAVES);
    run(&mut state, record(&[leaf("ff", "k", "web", 2_000_000)])).unwrap();
    assert_eq!(state.leaves().count(), MAX_LEAVES);
    assert!(state.leaf("ff").is_some());
    let last = format!("{:08x}", MAX_LEAVES - 1);
    assert!(state.leaf(&last).is_none(), "it ends first");
}

#[test]
fn a_leaf_is_revoked_with_all_others_of_its_key() {
    let mut state = cluster();
    let leaves = [
        leaf("0a", "k1", "web", 50),
        leaf("0b", "k1", "web", 95),
        leaf("0c", "k2", "web", 95),
    ];
    run(&mut state, record(&leaves)).unwrap();
    let before = state.version().index;
    let applied = run(&mut state, revoke(serial("0a"), Some(90))).unwrap();
    assert!(applied.warnings.is_empty());
    assert_eq!(revoked(&state), [serial("0a"), serial("0b")]);
    assert_eq!(state.version().index, before + 1);
    let topic = [WatchKey::Topic(Topic::Revocations)];
    assert_eq!(state.index(&topic), before + 1);
    for row in state.revocations() {
        let leaf = row.value.leaf.as_ref().unwrap();
        assert_eq!((leaf.key.as_str(), row.value.until), ("k1", Some(95)));
        assert_eq!(row.value.reason, "stolen");
    }
    assert!(state.revoked_key("k1").is_some());
    assert!(state.revoked_key("k2").is_none());
    assert!(state.revoked_service(&key("web")).is_none());

    // Neither a leaf that has ended since, nor a second time, shortens it.
    run_at(&mut state, 60_000, Command::SweepLeaves {})
        .0
        .unwrap();
    run_at(&mut state, 60_000, revoke(serial("0a"), Some(61)))
        .0
        .unwrap();
    assert!(state.revocations().all(|row| row.value.until == Some(95)));
    assert_eq!(revoked(&state).len(), 2);
    run_at(&mut state, 95_999, Command::SweepLeaves {})
        .0
        .unwrap();
    assert_eq!(revoked(&state).len(), 2);
    assert!(state.has_ended_leaves(96));
    let (result, touched) = run_at(&mut state, 96_000, Command::SweepLeaves {});
    assert_eq!(result.unwrap().results.len(), 2);
    assert!(touched.affects(&Topic::Revocations) && !touched.affects(&Topic::Roots));
    assert!(revoked(&state).is_empty());
}

#[test]
fn what_nobody_recorded_is_revoked_with_a_warning() {
    let mut state = cluster();
    let applied = run(&mut state, revoke(serial("0a"), Some(90))).unwrap();
    assert!(
        applied.warnings[0]
            .message
            .contains("no server has recorded")
    );
    assert_eq!(revoked(&state), [serial("0a")]);
    assert!(state.revoked_key("").is_none(), "its key is not known");
}

#[test]
fn what_is_recorded_late_is_revoked_with_its_key() {
    let mut state = cluster();
    run(&mut state, revoke(serial("0a"), Some(90))).unwrap();
    let (result, touched) = run_at(&mut state, 2_000, record(&[leaf("0a", "k1", "web", 80)]));
    assert_eq!(result.unwrap().results.len(), 1);
    assert!(touched.affects(&Topic::Revocations));
    assert!(state.revoked_key("k1").is_some());
    // And one that a server signed that did not know it yet.
    run(&mut state, record(&[leaf("0b", "k1", "web", 95)])).unwrap();
    assert_eq!(revoked(&state), [serial("0a"), serial("0b")]);
    assert!(state.revocations().all(|row| row.value.until == Some(95)));
    let before = state.version();
    run(&mut state, record(&[leaf("0c", "k2", "web", 95)])).unwrap();
    assert_eq!(state.version(), before);
}

#[test]
fn a_service_is_revoked_until_it_is_not() {
    let mut state = cluster();
    let web = Revoked::Service(key("team/web"));
    run(&mut state, revoke(web.clone(), None)).unwrap();
    let index = state.version().index;
    run(&mut state, revoke(web.clone(), None)).unwrap();
    assert_eq!(state.version().index, index, "it was so already");
    assert_eq!(
        state.revoked_service(&key("team/web")).unwrap().reason,
        "stolen"
    );
    assert!(state.revoked_service(&key("web")).is_none());
    run_at(&mut state, 1 << 50, Command::SweepLeaves {})
        .0
        .unwrap();
    assert!(state.revoked_service(&key("team/web")).is_some());
    let unrevoke = Command::Unrevoke {
        service: key("team/web"),
    };
    run(&mut state, unrevoke.clone()).unwrap();
    assert!(state.revoked_service(&key("team/web")).is_none());
    let refusal = refused(&mut state, unrevoke);
    let gone = RowKey::Revocation(web);
    assert_eq!(refusal, Refusal::NotFound { key: gone });
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut state = cluster();
    let long = Command::Revoke {
        what: serial("0a"),
        reason: "x".repeat(513),
        until: Some(9),
    };
    for (command, why) in [
        (revoke(serial("0A"), Some(9)), "no serial number"),
        (revoke(serial("web"), Some(9)), "no serial number"),
        (revoke(serial("0a"), None), "until a time"),
        (revoke(Revoked::Service(key("*")), None), "no service"),
        (
            revoke(Revoked::Service(key("web")), Some(9)),
            "until a time",
        ),
        (long, "longer than 512 bytes"),
    ] {
        let text = refused(&mut state, command).to_string();
        assert!(text.contains(why), "{text}");
    }
}

#[test]
fn there_are_no_more_than_every_sidecar_can_hold() {
    let mut state = cluster();
    let number = |at: usize| serial(&format!("01{at:06x}"));
    for at in 1..MAX_REVOCATIONS {
        run(&mut state, revoke(number(at), Some(90))).unwrap();
    }
    // Two leaves of one key are two.
    let leaves = [leaf("aa", "k1", "web", 90), leaf("ab", "k1", "web", 90)];
    run(&mut state, record(&leaves)).unwrap();
    let text = refused(&mut state, revoke(serial("aa"), Some(90))).to_string();
    assert!(text.contains("1024 revocations stand already"), "{text}");
    run(&mut state, revoke(Revoked::Service(key("web")), None)).unwrap();
    let text = refused(&mut state, revoke(Revoked::Service(key("db")), None)).to_string();
    assert!(text.contains("meshctl ca rotate"), "{text}");
    // What stands may be said again.
    run(&mut state, revoke(Revoked::Service(key("web")), None)).unwrap();
    run_at(&mut state, 91_000, Command::SweepLeaves {})
        .0
        .unwrap();
    assert_eq!(state.len(TableName::Revocation), 1);
    run(&mut state, revoke(Revoked::Service(key("db")), None)).unwrap();
}

#[test]
fn a_snapshot_has_both_and_a_restore_forgets_no_revocation() {
    let mut state = cluster();
    let leaves = [
        leaf("0a", "k1", "web", 9_000),
        leaf("0b", "k2", "db", 9_000),
    ];
    run(&mut state, record(&leaves)).unwrap();
    run(&mut state, revoke(serial("0a"), Some(9_000))).unwrap();
    let api = Revoked::Service(key("api"));
    run(&mut state, revoke(api.clone(), None)).unwrap();
    let bytes = state.to_snapshot().unwrap();
    assert!(State::read_snapshot(bytes.as_slice()).unwrap() == state);
    let tables = inspect(bytes.as_slice()).unwrap().tables;
    assert_eq!((tables["leaf"].rows, tables["revocation"].rows), (2, 2));

    // Since then: one was made good again, and another was stolen.
    run(
        &mut state,
        Command::Unrevoke {
            service: key("api"),
        },
    )
    .unwrap();
    run(&mut state, record(&[leaf("0c", "k3", "db", 9_000)])).unwrap();
    run(&mut state, revoke(serial("0c"), Some(9_000))).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    for step in Command::restore(&text, "r1", "epoch-2").unwrap() {
        run(&mut state, step).unwrap();
    }
    assert_eq!(revoked(&state), [api, serial("0a"), serial("0c")]);
    assert_eq!(serials(&state), ["0a", "0b", "0c"]);
    let bytes = state.to_snapshot().unwrap();
    assert!(State::read_snapshot(bytes.as_slice()).unwrap() == state);
}

/// What is done to leaves, with time.
#[derive(Clone, Debug)]
enum Step {
    Sign(u8, u8, u64),
    Revoke(u8),
    Sweep,
}

proptest! {
    /// For as long as any leaf of a key that was revoked can be good, its key and
    /// its serial number are refused; and in the end nothing is kept.
    #[test]
    fn a_revoked_key_is_refused_for_as_long_as_a_leaf_of_it_lives(
        steps in prop::collection::vec((prop_oneof![
            3 => (0..20_u8, 0..4_u8, 1..30_u64).prop_map(|(s, k, ttl)| Step::Sign(s, k, ttl)),
            1 => (0..20_u8).prop_map(Step::Revoke),
            1 => Just(Step::Sweep),
        ], 0..5_u64), 0..60)
    ) {
        let mut state = cluster();
        let mut now = 100;
        // Each leaf, and each that must be refused, with its end.
        let mut signed: Vec<SignedLeaf> = Vec::new();
        let mut stolen: BTreeSet<(String, u64)> = BTreeSet::new();
        for (step, passes) in steps {
            now += passes;
            let command = match step {
                Step::Sign(number, key_, ttl) => {
                    let serial = format!("{:02x}", number + 1);
                    if signed.iter().any(|one| one.serial == serial) {
                        continue; // a serial number is used once
                    }
                    let one = leaf(&serial, &format!("k{key_}"), "web", now + ttl);
                    // No server signs for it; the model of one that does not.
                    if state.revoked_key(&one.key).is_some() {
                        continue;
                    }
                    signed.push(one.clone());
                    record(&[one])
                }
                Step::Revoke(number) => {
                    let serial = format!("{:02x}", number + 1);
                    let key_ = state.leaf(&serial).map(|one| one.key.clone());
                    let same = signed.iter().filter(|one| Some(&one.key) == key_.as_ref());
                    stolen.extend(same.map(|one| (one.serial.clone(), one.not_after)));
                    revoke(Revoked::Serial(serial), Some(now + 1))
                }
                Step::Sweep => Command::SweepLeaves {},
            };
            run_at(&mut state, now * 1_000, command).0.unwrap();
            for (number, _) in stolen.iter().filter(|(_, end)| *end >= now) {
                prop_assert!(revoked(&state).contains(&serial(number)), "{number} at {now}");
                let of = signed.iter().find(|one| one.serial == *number).unwrap();
                prop_assert!(state.revoked_key(&of.key).is_some());
            }
            let bytes = state.to_snapshot().unwrap();
            prop_assert!(State::read_snapshot(bytes.as_slice()).unwrap() == state);
        }
        run_at(&mut state, (now + 100) * 1_000, Command::SweepLeaves {}).0.unwrap();
        prop_assert_eq!(state.leaves().count() + revoked(&state).len(), 0);
    }
}
