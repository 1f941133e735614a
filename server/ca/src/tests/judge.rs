//! What Vault gives back: good, or wrong in one way; signed by the right CA all the same.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use time::OffsetDateTime;

use crate::builtin::intermediate_name;
use crate::fuzz::{DNS_NAME, NOW, TTL, field, vault_leaf};
use crate::x509::{self, Validity};

const ID: &str = "spiffe://fuzz.mesh/ns/default/dc/dc1/svc/web";

type Change = fn(&mut CertificateParams);

/// Name, what is changed in a good one, and what the judge then says; `None`: it is taken.
const CASES: &[(&str, Change, Option<&str>)] = &[
    ("good", |_| {}, None),
    ("no-eku", |leaf| leaf.extended_key_usages.clear(), None),
    (
        "client-only",
        |leaf| leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
        Some("both sides of TLS"),
    ),
    (
        "server-only",
        |leaf| leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
        Some("both sides of TLS"),
    ),
    (
        "other-identity",
        |leaf| {
            leaf.subject_alt_names = vec![
                uri("spiffe://fuzz.mesh/ns/default/dc/dc1/svc/db"),
                dns(DNS_NAME),
            ]
        },
        Some("it is of spiffe://fuzz.mesh/ns/default/dc/dc1/svc/db"),
    ),
    (
        "other-domain",
        |leaf| {
            leaf.subject_alt_names = vec![
                uri("spiffe://other.mesh/ns/default/dc/dc1/svc/web"),
                dns(DNS_NAME),
            ]
        },
        Some("expected a service of trust domain fuzz.mesh"),
    ),
    (
        "two-identities",
        |leaf| {
            leaf.subject_alt_names
                .push(uri("spiffe://fuzz.mesh/ns/default/dc/dc1/svc/db"))
        },
        Some("2 URI names"),
    ),
    (
        "no-identity",
        |leaf| leaf.subject_alt_names = vec![dns(DNS_NAME)],
        Some("0 URI names"),
    ),
    (
        "more-dns",
        |leaf| leaf.subject_alt_names.push(dns("db.example.com")),
        Some("its DNS names are [db.example.com, shop.example.com], and not [shop.example.com]"),
    ),
    (
        "no-dns",
        |leaf| leaf.subject_alt_names = vec![uri(ID)],
        Some("its DNS names are [], and not [shop.example.com]"),
    ),
    (
        "an-address",
        |leaf| {
            leaf.subject_alt_names
                .push(SanType::IpAddress([10, 0, 0, 1].into()))
        },
        Some("a name of a kind that was not asked for"),
    ),
    (
        "no-key-usage",
        |leaf| leaf.key_usages.clear(),
        Some("this one has no key usage"),
    ),
    (
        "signs-certificates",
        |leaf| leaf.key_usages.push(KeyUsagePurpose::KeyCertSign),
        Some("may not sign certificates"),
    ),
    (
        "a-ca",
        |leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
        Some("it is a CA's"),
    ),
    (
        "too-long",
        |leaf| leaf.not_after = at(NOW.as_secs() + TTL.as_secs() + 61),
        Some("lives longer than was asked for"),
    ),
    (
        "expired",
        |leaf| leaf.not_after = at(NOW.as_secs() - 1),
        Some("expired 1 s ago"),
    ),
    (
        "not-yet",
        |leaf| leaf.not_before = at(NOW.as_secs() + 30),
        Some("valid only in 30 s"),
    ),
    (
        "critical-extension",
        |leaf| {
            let mut strange =
                CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
            strange.set_criticality(true);
            leaf.custom_extensions.push(strange);
        },
        Some("UnsupportedCriticalExtension"),
    ),
];

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

fn at(unix: u64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(unix.try_into().unwrap()).unwrap()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/vault_leaf")
}

/// The inner part of a certificate of the fuzz target's CA: the same bytes each time.
fn inner(change: Change, public_key: &[u8]) -> Vec<u8> {
    let now = NOW.as_secs();
    let validity = Validity::new(now, 60, TTL.as_secs(), u64::MAX);
    let mut leaf = x509::leaf(ID, &[DNS_NAME.to_owned()], validity).unwrap();
    leaf.serial_number = Some(SerialNumber::from_slice(&[0x40; 16]));
    leaf.use_authority_key_identifier_extension = false;
    change(&mut leaf);
    let name = intermediate_name("dc1", "fuzz.mesh");
    let issuer = x509::authority(&name, None, Some(0), validity).unwrap();
    let issuer = Issuer::new(issuer, KeyPair::generate().unwrap());
    let key = SubjectPublicKeyInfo::from_der(public_key).unwrap();
    let whole = leaf.signed_by(&key, &issuer).unwrap();
    let (_, read) = x509_parser::parse_x509_certificate(whole.der()).unwrap();
    read.tbs_certificate.as_ref().to_vec()
}

#[test]
fn what_vault_signed_is_what_was_asked_for() {
    let field = field().unwrap();
    for (name, change, wrong) in CASES {
        let inner = inner(*change, field.request.public_key());
        let file = folder().join(format!("{name}.der"));
        if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
            std::fs::write(&file, &inner).unwrap();
        }
        assert_eq!(std::fs::read(&file).unwrap(), inner, "{}", file.display());
        let judged = field.judge_signed(&inner);
        match wrong {
            None => assert!(judged.is_ok(), "{name}: {judged:?}"),
            Some(words) => {
                let said = judged.unwrap_err();
                assert!(said.contains(words), "{name}: {said}");
            }
        }
    }
    let other = mesh_tls::LeafKey::generate().unwrap().public_key();
    let said = field.judge_signed(&inner(|_| {}, &other)).unwrap_err();
    assert_eq!(said, "it certifies another key");
}

#[test]
fn the_corpus_is_replayed() {
    let mut count = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let data = std::fs::read(entry.unwrap().path()).unwrap();
        vault_leaf(&data);
        for end in (0..data.len()).step_by(7) {
            vault_leaf(&data[..end]);
        }
        count += 1;
    }
    assert!(count >= CASES.len());
}

proptest::proptest! {
    #[test]
    fn damaged_leaves_are_refused_or_good(
        which in 0..CASES.len(),
        place in proptest::prelude::any::<proptest::sample::Index>(),
        byte in proptest::prelude::any::<u8>(),
    ) {
        let field = field().unwrap();
        let mut data = inner(CASES[which].1, field.request.public_key());
        let place = place.index(data.len());
        data[place] = byte;
        vault_leaf(&data);
    }
}
