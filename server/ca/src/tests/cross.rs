//! A new root, certified by the old one.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use mesh_tls::LeafKey;
use rcgen::{GeneralSubtree, NameConstraints};
use rustls_pki_types::CertificateDer;

use super::import::{Theirs, authority, ec, sealing_of_test, take, take_at, unchanged};
use super::{DAY, fixed, openssl, request, unix};
use crate::rotation::{abort, begin, retire, switch};
use crate::{
    Authority, BuiltIn, CaConfig, CaState, KeyType, RootEntry, create, cross_obstacle, cross_sign,
};

fn new(key_type: KeyType) -> CaState {
    let config = CaConfig {
        key_type,
        ..CaConfig::default()
    };
    let domain = "test.mesh".parse().unwrap();
    create(&domain, "dc1", config, &sealing_of_test(), now()).unwrap()
}

fn now() -> SystemTime {
    SystemTime::now()
}

async fn begun(old: &CaState, next: CaState) -> CaState {
    let begun = begin(old, next, now()).unwrap();
    cross_sign(&begun, None, &sealing_of_test(), now()).await
}

/// The same, and the new root signs.
async fn changed(old: &CaState, next: CaState) -> CaState {
    switch(&begun(old, next).await, 0, now()).unwrap()
}

async fn leaf(ca: &CaState) -> Vec<CertificateDer<'static>> {
    let open = BuiltIn::open(ca, &sealing_of_test(), fixed(now())).unwrap();
    let key = LeafKey::generate().unwrap();
    open.sign_leaf(&request(&key, "web", DAY))
        .await
        .unwrap()
        .chain
}

/// Whether who trusts these roots only takes a chain: one of the mesh, and OpenSSL.
fn takes(roots: &[&RootEntry], chain: &[CertificateDer<'_>]) -> bool {
    let pem: String = roots.iter().map(|root| root.pem.as_str()).collect();
    let domain = "test.mesh".parse().unwrap();
    let trust = mesh_tls::Trust::from_pem(domain, "roots", pem.as_bytes()).unwrap();
    let ours = trust.verify(chain, now()).is_ok();
    if ours {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
        let text = |all: &[CertificateDer<'_>]| -> String {
            all.iter()
                .map(|der| crate::x509::certificate_pem(der))
                .collect()
        };
        write("roots.pem", &pem).unwrap();
        write("leaf.pem", &text(&chain[..1])).unwrap();
        write("rest.pem", &text(&chain[1..])).unwrap();
        let arguments = [
            "verify",
            "-x509_strict",
            "-purpose",
            "sslserver",
            "-CAfile",
            "roots.pem",
            "-untrusted",
            "rest.pem",
            "leaf.pem",
        ];
        openssl(&arguments, folder.path());
    }
    ours
}

fn missing(state: &CaState) -> String {
    let rotation = state.rotation.as_ref().unwrap();
    rotation.cross.clone().unwrap().missing.unwrap()
}

#[tokio::test]
async fn who_trusts_only_the_old_root_takes_what_the_new_one_signs() {
    let mut state = new(KeyType::EcP256);
    for kind in [KeyType::Rsa2048, KeyType::EcP384, KeyType::EcP256] {
        let old = state.active_root().unwrap().clone();
        let begins = begun(&state, new(kind)).await;
        // Until the switch leaves are as they were.
        assert_eq!(leaf(&begins).await.len(), 2);
        state = switch(&begins, 0, now()).unwrap();
        let active = state.active_root().unwrap();
        let chain = leaf(&state).await;
        assert_eq!(chain.len(), 3, "{kind:?}");
        assert!(takes(&[&old], &chain), "{kind:?}");
        assert!(takes(&[active], &chain) && takes(&[&old, active], &chain));
        assert!(!takes(&[&new(kind).roots[0]], &chain));
        // Without it they would not.
        assert!(!takes(&[&old], &chain[..2]));
        assert!(takes(&[active], &chain[..2]));
        // With the old root it goes.
        let later = now() + DAY + Duration::from_secs(31);
        state = retire(&state, &BTreeSet::new(), later).unwrap();
        assert_eq!(state.active_root().unwrap().cross, None);
        assert_eq!(leaf(&state).await.len(), 2);
    }
}

#[tokio::test]
async fn it_is_the_new_root_for_as_long_as_both_are_good() {
    let old = new(KeyType::Rsa2048);
    let state = changed(&old, new(KeyType::EcP256)).await;
    let chain = leaf(&state).await;
    let (root, other) = (state.active_root().unwrap(), &old.roots[0]);
    let cross = RootEntry::from_der(&chain[2], false).unwrap();
    assert_eq!(cross.subject, root.subject);
    assert_ne!(cross.subject, other.subject, "roots are told apart by name");
    assert_eq!(cross.not_after, root.not_after.min(other.not_after));
    assert!(cross.not_before <= unix(now()));
}

#[tokio::test]
async fn twice_in_a_row_and_each_old_root_still_leads_to_what_signs() {
    let first = new(KeyType::EcP256);
    let second = changed(&first, new(KeyType::Rsa2048)).await;
    let third = changed(&second, new(KeyType::EcP256)).await;
    let chain = leaf(&third).await;
    assert_eq!(chain.len(), 4);
    for root in &third.roots {
        assert!(takes(&[root], &chain), "{}", root.subject);
    }
    assert!(takes(&third.roots.iter().collect::<Vec<_>>(), &chain));
    // A third time the chain does not grow, and the oldest root is not led to.
    let fourth = changed(&third, new(KeyType::EcP256)).await;
    let chain = leaf(&fourth).await;
    assert_eq!(chain.len(), 4);
    let taken: Vec<bool> = fourth
        .roots
        .iter()
        .map(|root| takes(&[root], &chain))
        .collect();
    assert_eq!(taken, [false, true, true, true]);
    // The oldest of three goes first; the chain ends at the next.
    let mut left = third;
    left.roots[0].retires = Some(1);
    let left = retire(&left, &BTreeSet::new(), now()).unwrap();
    assert_eq!(left.roots.len(), 2);
    assert_eq!(leaf(&left).await.len(), 3);
}

#[tokio::test]
async fn back_to_a_root_that_was_on_its_way_out() {
    let first = new(KeyType::EcP256);
    let second = changed(&first, new(KeyType::EcP256)).await;
    let back = begun(&second, first.clone()).await;
    assert_eq!(
        abort(&back).unwrap(),
        second,
        "what was undone leaves nothing"
    );
    let back = switch(&back, 0, now()).unwrap();
    // Each certifies the other now: the chain does not go round.
    assert!(back.roots.iter().all(|root| root.cross.is_some()));
    let chain = leaf(&back).await;
    assert_eq!(chain.len(), 3);
    for root in &back.roots {
        assert!(takes(&[root], &chain), "{}", root.subject);
    }
}

#[tokio::test]
async fn of_and_to_a_ca_that_somebody_has() {
    let root = authority("Corp root", None, 3, KeyType::Rsa2048, unchanged);
    let policy = ec("Corp policy", Some(&root), 1);
    let mesh = ec("Corp mesh", Some(&policy), 0);
    let theirs = take(&[&mesh, &policy, &root], &mesh.key_pem()).unwrap();
    let ours = new(KeyType::EcP256);
    let state = changed(&ours, theirs.clone()).await;
    let chain = leaf(&state).await;
    assert_eq!(chain.len(), 4);
    assert!(takes(&[&ours.roots[0]], &chain) && takes(&[&theirs.roots[0]], &chain));
    // From there: only with the root's key.
    let away = begun(&theirs, new(KeyType::EcP256)).await;
    assert!(
        missing(&away).contains("its key is not here"),
        "{}",
        missing(&away)
    );
    assert!(
        cross_obstacle(&theirs, now())
            .unwrap()
            .contains("its key is not here")
    );
    assert_eq!(leaf(&switch(&away, 0, now()).unwrap()).await.len(), 2);
    let keys = (mesh.key_pem(), root.key_pem());
    let whole = take_at(&[&mesh, &policy, &root], &keys.0, Some(&keys.1), now()).unwrap();
    assert_eq!(cross_obstacle(&whole, now()), None);
    let state = changed(&whole, new(KeyType::EcP256)).await;
    assert!(takes(&[&whole.roots[0]], &leaf(&state).await));
}

fn alone(root: &Theirs) -> CaState {
    take(&[root], &root.key_pem()).unwrap()
}

#[tokio::test]
async fn where_it_cannot_be_made_the_rotation_goes_on_and_says_why() {
    let short = alone(&ec("Short root", None, 1));
    let deep = {
        let (root, policy) = (ec("Root", None, 2), "Policy");
        let policy = ec(policy, Some(&root), 1);
        let mesh = ec("Mesh", Some(&policy), 0);
        take(&[&mesh, &policy, &root], &mesh.key_pem()).unwrap()
    };
    let room_for_one = alone(&ec("Room for one", None, 2));
    let bound = alone(&authority(
        "Bound root",
        None,
        1,
        KeyType::EcP256,
        |params| {
            params.name_constraints = Some(NameConstraints {
                permitted_subtrees: vec![GeneralSubtree::DnsName("example.com".to_owned())],
                excluded_subtrees: Vec::new(),
            });
        },
    ));
    let foreign = CaState {
        provider: crate::AWS_PCA.to_owned(),
        root_key: None,
        ..new(KeyType::EcP256)
    };
    let in_vault = CaState {
        provider: crate::VAULT.to_owned(),
        root_key: None,
        ..new(KeyType::EcP256)
    };
    let mut closed = new(KeyType::EcP256);
    closed.root_key = new(KeyType::EcP256).root_key;
    // Whether it is known before there is a new root.
    for (old, next, words, known) in [
        (&short, new(KeyType::EcP256), "path length", true),
        (&room_for_one, deep, "path length", false),
        (&new(KeyType::EcP256), bound, "constraints", false),
        (&foreign, new(KeyType::EcP256), "in AWS", true),
        (&in_vault, new(KeyType::EcP256), "where in Vault", true),
        (&closed, new(KeyType::EcP256), "root key", false),
    ] {
        let begun = begun(old, next).await;
        assert!(missing(&begun).contains(words), "{}", missing(&begun));
        let told = cross_obstacle(old, now());
        assert_eq!(told.is_some(), known, "{told:?}");
        let switched = switch(&begun, 0, now()).unwrap();
        let below = switched.intermediate.as_ref().unwrap().above.len();
        assert_eq!(leaf(&switched).await.len(), 2 + below);
        let why = switched.active_root().unwrap().cross.clone().unwrap();
        assert!(why.pem.is_none() && why.missing.is_some());
    }
    // Of an old root that has ended nothing is made.
    let late = now() + 4000 * DAY;
    assert!(
        cross_obstacle(&new(KeyType::EcP256), late)
            .unwrap()
            .contains("expired")
    );
}

#[tokio::test]
async fn nothing_depends_on_what_stands_there() {
    let good = changed(&new(KeyType::EcP256), new(KeyType::EcP256)).await;
    let text = serde_json::to_string(&good).unwrap();
    assert_eq!(serde_json::from_str::<CaState>(&text).unwrap(), good);
    let at = good.roots.iter().position(|root| root.active).unwrap();
    let mut damaged = Vec::new();
    for pem in [
        "nonsense".to_owned(),
        crate::x509::certificate_pem(b"nonsense"),
    ] {
        let mut one = good.clone();
        one.roots[at].cross.as_mut().unwrap().pem = Some(pem);
        damaged.push(one);
    }
    let mut gone = good.clone();
    gone.roots[at].cross.as_mut().unwrap().by = "nobody".to_owned();
    damaged.push(gone);
    // A row of before there were any, and one of a time when more is said of them.
    let mut row = serde_json::to_value(&good).unwrap();
    row["roots"][at]["cross"]["more"] = true.into();
    let newer: CaState = serde_json::from_value(row.clone()).unwrap();
    assert_eq!(newer, good);
    row["roots"][at].as_object_mut().unwrap().remove("cross");
    damaged.push(serde_json::from_value(row).unwrap());
    for state in damaged {
        let chain = leaf(&state).await;
        assert_eq!(chain.len(), 2);
        assert!(takes(&[state.active_root().unwrap()], &chain));
    }
}
