//! The keys of a server, and changing the one that seals.

use std::sync::Arc;
use std::time::SystemTime;

use super::{fixed, new_state};
use crate::rotation::begin;
use crate::{
    BuiltIn, CaState, Keyring, SealBy, SealedWith, SealingKey, SealingOptions, Wrapped, reseal,
};

fn key() -> Arc<SealingKey> {
    Arc::new(SealingKey::generate().unwrap())
}

fn ring(files: &[&Arc<SealingKey>]) -> Keyring {
    let options = SealingOptions {
        files: files.iter().map(|key| (*key).clone()).collect(),
        ..SealingOptions::default()
    };
    Keyring::new(options, None)
}

fn opens(state: &CaState, key: &SealingKey) -> bool {
    BuiltIn::open(state, key, fixed(SystemTime::now())).is_ok()
}

#[test]
fn every_envelope_is_of_the_new_key_and_the_old_one_opens_none() {
    let (old, new, now) = (key(), key(), SystemTime::now());
    let begun = begin(&new_state(&old, now), new_state(&old, now), now).unwrap();
    let next = reseal(&begun, &old, &new).unwrap();
    assert_eq!(
        next.sealing,
        SealedWith {
            id: new.id().to_owned(),
            transit: None
        }
    );
    let text = serde_json::to_string(&next).unwrap();
    assert!(!text.contains(old.id()));
    assert_eq!(
        text.matches(new.id()).count(),
        5,
        "four envelopes, and what says so"
    );
    assert!(opens(&next, &new) && !opens(&next, &old));
    // And so do those that the rotation brings.
    let switched = crate::rotation::switch(&next, 0, now).unwrap();
    assert!(opens(&switched, &new));
    crate::renew_intermediate(&switched, &new, now).unwrap();
    // Nothing else is another one.
    let back = reseal(&next, &new, &old).unwrap();
    assert_eq!((back.roots, back.config), (begun.roots, begun.config));
    assert!(reseal(&next, &old, &new).is_err(), "the old one opens none");
}

#[test]
fn a_server_with_both_opens_either_and_one_without_names_both() {
    let (old, new) = (key(), key());
    let state = new_state(&old, SystemTime::now());
    assert_eq!(ring(&[&new, &old]).of(&state).unwrap().id(), old.id());
    let words = ring(&[&new]).of(&state).unwrap_err().to_string();
    assert!(
        words.contains(old.id()) && words.contains(new.id()),
        "{words}"
    );
    let words = ring(&[]).of(&state).unwrap_err().to_string();
    assert!(words.contains("has key none"), "{words}");
}

#[tokio::test]
async fn a_key_of_vaults_waits_for_vault_and_says_so() {
    let old = key();
    let state = new_state(&old, SystemTime::now());
    let wrapped = Wrapped {
        mount: "transit".into(),
        key: "meshctl".into(),
        data_key: "vault:v1:AAAA".into(),
    };
    let data = SealingKey::of_vault(&[7; 32], wrapped).unwrap();
    let next = reseal(&state, &old, &data).unwrap();
    assert_eq!(next.sealing.by(), SealBy::Transit);
    let ring = ring(&[&old]);
    let words = ring.of(&next).unwrap_err().to_string();
    assert!(words.contains("transit/meshctl"), "{words}");
    // This server knows no Vault.
    let words = ring.open(&next.sealing).await.unwrap_err().to_string();
    assert!(words.contains("how Vault is reached"), "{words}");
    let words = ring.of(&next).unwrap_err().to_string();
    assert!(words.contains("how Vault is reached"), "{words}");
    assert!(ring.fresh(SealBy::Transit).await.is_err());
    ring.hold(Arc::new(data));
    assert_eq!((ring.opened(), ring.of(&next).is_ok()), (1, true));
    assert!(opens(&next, &ring.of(&next).unwrap()));
}
