//! The steps of a change of the root, as states that follow each other.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use mesh_tls::LeafKey;

use super::{DAY, fixed, new_state, request, sealing};
use crate::rotation::{abort, begin, retire, switch};
use crate::{
    Authority, BuiltIn, CaConfig, CaState, KeyType, SealingKey, create, renew_intermediate,
    renewal_due,
};

fn ids(state: &CaState) -> Vec<&str> {
    state.roots.iter().map(|root| root.id.as_str()).collect()
}

/// A leaf of the CA as it is, and whether those who trust `state` take it.
async fn leaf_is_taken(
    ca: &CaState,
    state: &CaState,
    sealing: &SealingKey,
    now: SystemTime,
) -> bool {
    let open = BuiltIn::open(ca, sealing, fixed(now)).unwrap();
    let key = LeafKey::generate().unwrap();
    let leaf = open.sign_leaf(&request(&key, "web", DAY)).await.unwrap();
    state.trust().unwrap().verify(&leaf.chain, now).is_ok()
}

#[tokio::test]
async fn at_each_step_everyone_takes_what_is_signed() {
    let (sealing, now) = (sealing(), SystemTime::now());
    let old = new_state(&sealing, now);
    let next = new_state(&sealing, now);
    let begun = begin(&old, next.clone(), now).unwrap();
    assert_eq!(begun.roots.len(), 2);
    assert_eq!(begun.active_root(), old.active_root());
    assert_eq!(begun.intermediate, old.intermediate);
    assert_eq!(begun.next_root().unwrap().id, next.roots[0].id);
    // The old signs, for those who have the new root already and those who have not.
    assert!(leaf_is_taken(&begun, &old, &sealing, now).await);
    assert!(leaf_is_taken(&begun, &begun, &sealing, now).await);
    // Nothing is there to renew: what comes is ready.
    assert_eq!(renewal_due(&begun, now), None);

    let switched = switch(&begun, 7, now).unwrap();
    assert!(leaf_is_taken(&switched, &begun, &sealing, now).await);
    assert!(!leaf_is_taken(&switched, &old, &sealing, now).await);
    assert_eq!(switched.active_root().unwrap().id, next.roots[0].id);
    assert_eq!(
        (switched.rotation.is_none(), switched.reissue_seconds),
        (true, 7)
    );
    assert_eq!(switched.root_key, next.root_key);
    assert_eq!(renewal_due(&switched, now), None);

    // The old one stays for as long as a leaf of it may live, and as one is seen.
    let nobody = BTreeSet::new();
    assert_eq!(retire(&switched, &nobody, now + DAY), None);
    let later = now + DAY + Duration::from_secs(31);
    let seen = BTreeSet::from([old.roots[0].id.clone()]);
    assert_eq!(retire(&switched, &seen, later), None);
    let done = retire(&switched, &nobody, later).unwrap();
    assert_eq!(ids(&done), ids(&next));
    assert_eq!(retire(&done, &nobody, later + DAY * 999), None);
}

#[tokio::test]
async fn from_any_kind_of_key_to_any_other() {
    let (sealing, now) = (sealing(), SystemTime::now());
    let domain = "test.mesh".parse().unwrap();
    let mut state = new_state(&sealing, now);
    for key_type in [
        KeyType::Rsa2048,
        KeyType::EcP384,
        KeyType::Rsa4096,
        KeyType::EcP256,
    ] {
        let config = CaConfig {
            key_type,
            ..CaConfig::default()
        };
        let next = create(&domain, "dc1", config, &sealing, now).unwrap();
        let begun = begin(&state, next, now).unwrap();
        assert!(leaf_is_taken(&begun, &begun, &sealing, now).await);
        state = switch(&begun, 0, now).unwrap();
        assert!(
            leaf_is_taken(&state, &begun, &sealing, now).await,
            "{key_type:?}"
        );
        let kind = state
            .active_root()
            .unwrap()
            .key_type
            .to_lowercase()
            .replace(' ', "-");
        assert_eq!(kind.replace("p-", "p"), key_type.as_str());
        // A later intermediate is of the same kind, and its key opens again.
        state = renew_intermediate(&state, &sealing, now).unwrap();
        assert!(leaf_is_taken(&state, &begun, &sealing, now).await);
    }
}

#[test]
fn one_at_a_time_and_never_to_what_signs() {
    let (sealing, now) = (sealing(), SystemTime::now());
    let old = new_state(&sealing, now);
    let begun = begin(&old, new_state(&sealing, now), now).unwrap();
    let refused = begin(&begun, new_state(&sealing, now), now).unwrap_err();
    assert!(refused.to_string().contains("is under way"), "{refused}");
    let refused = begin(&old, old.clone(), now).unwrap_err();
    assert!(refused.to_string().contains("signs already"), "{refused}");
    let mut foreign = new_state(&sealing, now);
    foreign.trust_domain = "other.mesh".into();
    assert!(begin(&old, foreign, now).is_err());
    assert!(switch(&old, 0, now).is_err());
    assert!(abort(&old).is_err());
    assert_eq!(abort(&begun).unwrap(), old);
}

#[test]
fn back_to_a_root_that_was_on_its_way_out() {
    let (sealing, now) = (sealing(), SystemTime::now());
    let first = new_state(&sealing, now);
    let second = switch(
        &begin(&first, new_state(&sealing, now), now).unwrap(),
        0,
        now,
    )
    .unwrap();
    let back = begin(&second, first.clone(), now).unwrap();
    assert_eq!(back.roots.len(), 2, "it is not there twice");
    // It does not go while it is the one to come.
    assert_eq!(retire(&back, &BTreeSet::new(), now + DAY * 99), None);
    assert_eq!(abort(&back).unwrap(), second, "and it retires as it did");
    let again = switch(&back, 0, now).unwrap();
    assert_eq!(again.active_root().unwrap().id, first.roots[0].id);
    assert_eq!(again.retiring().count(), 1);
}

#[test]
fn a_rotation_is_read_as_it_was_written_and_its_keys_are_sealed() {
    let (sealing, now) = (sealing(), SystemTime::now());
    let begun = begin(&new_state(&sealing, now), new_state(&sealing, now), now).unwrap();
    let text = serde_json::to_string(&begun).unwrap();
    assert_eq!(serde_json::from_str::<CaState>(&text).unwrap(), begun);
    let rotation = begun.rotation.unwrap();
    assert!(rotation.root_key.is_some() && rotation.intermediate.key.is_some());
}
