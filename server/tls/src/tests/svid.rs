//! SPIFFE's rules for certificates (X509-SVID), and those of chains, case by case: each is shown to
//! both sides in a whole handshake, and both refuse it with the same reason.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
};

use super::mesh::refusals;
use crate::testing::{Ca, service};
use crate::{Credential, LeafKey};

type Change = fn(&mut CertificateParams);

fn uris(params: &mut CertificateParams, uris: &[&str]) {
    params.subject_alt_names = uris
        .iter()
        .map(|uri| SanType::URI((*uri).try_into().unwrap()))
        .collect();
}

const NAME: &str = "spiffe://test.mesh/ns/default/dc/dc1/svc/user-service";

#[test]
fn leaves() {
    let cases: &[(&str, Change, &str)] = &[
        (
            "no URI name",
            |p| p.subject_alt_names.clear(),
            "has 0 URI names",
        ),
        (
            "a DNS name only",
            |p| p.subject_alt_names = vec![SanType::DnsName("user-service".try_into().unwrap())],
            "has 0 URI names",
        ),
        (
            "two URI names",
            |p| uris(p, &[NAME, "https://test.mesh/"]),
            "has 2 URI names",
        ),
        (
            "another scheme",
            |p| uris(p, &["https://test.mesh/ns/default/dc/dc1/svc/user-service"]),
            "does not begin with spiffe://",
        ),
        (
            "no path",
            |p| uris(p, &["spiffe://test.mesh"]),
            "spiffe://test.mesh",
        ),
        (
            "an empty path",
            |p| uris(p, &["spiffe://test.mesh/"]),
            "spiffe://test.mesh/",
        ),
        (
            "an empty segment",
            |p| uris(p, &["spiffe://test.mesh/ns/default/dc/dc1/svc/"]),
            "svc/",
        ),
        (
            "a query",
            |p| {
                uris(
                    p,
                    &["spiffe://test.mesh/ns/default/dc/dc1/svc/user-service?x"],
                )
            },
            "user-service?x",
        ),
        (
            "another trust domain",
            |p| {
                uris(
                    p,
                    &["spiffe://other.mesh/ns/default/dc/dc1/svc/user-service"],
                )
            },
            "other.mesh/ns/default/dc/dc1/svc/user-service came",
        ),
        (
            "a trust domain in capitals",
            |p| {
                uris(
                    p,
                    &["spiffe://TEST.mesh/ns/default/dc/dc1/svc/user-service"],
                )
            },
            "TEST.mesh",
        ),
        (
            "a CA",
            |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
            "CA certificate where a leaf must",
        ),
        ("no key usage", |p| p.key_usages.clear(), "has no key usage"),
        (
            "may sign certificates",
            |p| p.key_usages.push(KeyUsagePurpose::KeyCertSign),
            "may not sign certificates or revocation lists",
        ),
        (
            "may sign revocation lists",
            |p| p.key_usages.push(KeyUsagePurpose::CrlSign),
            "may not sign certificates or revocation lists",
        ),
        (
            "no digital signature",
            |p| p.key_usages = vec![KeyUsagePurpose::KeyAgreement],
            "must have digital signature",
        ),
        (
            "for mail",
            |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection],
            "extended key usage",
        ),
        (
            "over",
            |p| p.not_after = (SystemTime::now() - Duration::from_secs(30)).into(),
            "expired",
        ),
        (
            "not begun",
            |p| p.not_before = (SystemTime::now() + Duration::from_secs(600)).into(),
            "valid only in",
        ),
    ];
    let ca = Ca::root("root");
    for (case, change, words) in cases {
        for reason in refusals(&ca, ca.issue(&[NAME], change)) {
            assert!(reason.contains(words), "{case}: {reason}");
            let claims = ["over", "not begun", "a CA", "no key usage", "for mail"];
            if claims.contains(case) {
                assert!(reason.contains(&format!("says it is {NAME}")), "{reason}");
            }
        }
    }
}

#[test]
fn a_leaf_for_one_side_only_is_no_leaf_of_the_other() {
    let ca = Ca::root("root");
    let mut refused = Vec::new();
    for purpose in [
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ] {
        let one = ca.issue(&[NAME], |p| p.extended_key_usages = vec![purpose]);
        refused.push(super::mesh::tried(&ca, one).map(|tried| tried.is_err()));
    }
    // What it says to the client, and to the server.
    assert_eq!(refused, [[false, true], [true, false]]);
}

#[test]
fn chains() {
    let ca = Ca::root("root");
    let intermediate = ca.intermediate("intermediate");
    let key = LeafKey::generate().unwrap();
    let credential = |chain| Credential::from_leaf_key(chain, &key).unwrap();
    let good = intermediate.chain(&key, &[NAME], |_| {});
    assert_eq!(good.len(), 2);
    let stranger = Ca::root("root").chain(&key, &[NAME], |_| {});
    let lone = vec![good[0].clone()];
    let others = vec![good[0].clone(), ca.intermediate("intermediate").cert];
    // A leaf that signs: once one without the CA flag, once an intermediate without the usage.
    let by_leaf = Ca::under_leaf(&ca, |_| {}).chain(&key, &[NAME], |_| {});
    let without_usage = Ca::under_leaf(&ca, |p| {
        p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        p.extended_key_usages.clear();
    });
    let without_usage = without_usage.chain(&key, &[NAME], |_| {});
    let over = Ca::under_leaf(&ca, |p| {
        p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        p.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        p.extended_key_usages.clear();
        p.not_after = (SystemTime::now() - Duration::from_secs(30)).into();
    });
    let over = over.chain(&key, &[NAME], |_| {});
    for (case, chain, words) in [
        (
            "a foreign CA of the same name",
            stranger,
            "not signed by a root",
        ),
        ("without its intermediate", lone, "not signed by a root"),
        (
            "with another's intermediate",
            others,
            "not signed by a root",
        ),
        ("signed by a leaf", by_leaf, "the peer's certificate"),
        (
            "an intermediate that may not sign",
            without_usage,
            "must have certificate signing",
        ),
        ("an intermediate that is over", over, "expired"),
    ] {
        for reason in refusals(&ca, credential(chain)) {
            assert!(reason.contains(words), "{case}: {reason}");
        }
    }
    let good = super::mesh::tried(&ca, credential(good));
    assert!(good.iter().all(Result::is_ok), "{good:?}");
    assert_eq!(service("user-service"), NAME);
}
