//! A root and an intermediate that somebody has already.

use std::time::{Duration, SystemTime};

use mesh_tls::LeafKey;
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateDer;

use super::{DAY, fixed, request, sealing, unix};
use crate::key::CaKey;
use crate::x509::{self, Validity};
use crate::{
    Authority, BuiltIn, CaConfig, CaError, CaState, Import, KeyType, import, renew_intermediate,
    renewal_due,
};

const YEAR: u64 = 365 * 24 * 3600;

/// A CA that somebody has: certificate and key.
pub(super) struct Theirs {
    der: CertificateDer<'static>,
    key: CaKey,
}

impl Theirs {
    pub(super) fn pem(&self) -> String {
        x509::certificate_pem(&self.der)
    }

    pub(super) fn key_pem(&self) -> String {
        self.key.to_pem().unwrap().as_str().to_owned()
    }
}

/// A CA with room for `below` CAs, changed as told.
pub(super) fn authority(
    name: &str,
    above: Option<&Theirs>,
    below: u8,
    kind: KeyType,
    change: impl FnOnce(&mut CertificateParams),
) -> Theirs {
    let key = CaKey::generate(kind).unwrap();
    let validity = Validity::new(unix(SystemTime::now()), 60, YEAR, x509::END_OF_TIME);
    let mut params = x509::authority(name, None, Some(below), validity).unwrap();
    change(&mut params);
    let cert = match above {
        None => params.self_signed(&key),
        Some(above) => {
            let key_above = CaKey::from_pkcs8("above", &above.key.to_pkcs8().unwrap()).unwrap();
            let issuer = Issuer::from_ca_cert_der(&above.der, key_above).unwrap();
            params.signed_by(&key, &issuer)
        }
    };
    Theirs {
        der: cert.unwrap().der().clone(),
        key,
    }
}

pub(super) fn unchanged(_: &mut CertificateParams) {}

pub(super) fn ec(name: &str, above: Option<&Theirs>, below: u8) -> Theirs {
    authority(name, above, below, KeyType::EcP256, unchanged)
}

pub(super) fn take_at(
    chain: &[&Theirs],
    key: &str,
    root_key: Option<&str>,
    now: SystemTime,
) -> Result<CaState, CaError> {
    let text: String = chain.iter().map(|one| one.pem()).collect();
    let given = Import::from_pem(text.as_bytes(), key.as_bytes(), root_key.map(str::as_bytes))?;
    let domain = "test.mesh".parse().unwrap();
    let config = CaConfig::default();
    import(&domain, "dc1", config, &given, &sealing_of_test(), now)
}

pub(super) fn take(chain: &[&Theirs], key: &str) -> Result<CaState, CaError> {
    take_at(chain, key, None, SystemTime::now())
}

/// One for all of a thread, so that what was made can be opened.
pub(super) fn sealing_of_test() -> crate::SealingKey {
    crate::SealingKey::parse("test", &[b'7'; 64]).unwrap()
}

/// A sidecar gets a leaf, and another one takes it.
async fn leaf_is_taken(state: &CaState) -> usize {
    let open = BuiltIn::open(state, &sealing_of_test(), fixed(SystemTime::now())).unwrap();
    let key = LeafKey::generate().unwrap();
    let leaf = open.sign_leaf(&request(&key, "web", DAY)).await.unwrap();
    let trust = state.trust().unwrap();
    trust.verify(&leaf.chain, SystemTime::now()).unwrap();
    leaf.chain.len()
}

#[tokio::test]
async fn an_intermediate_whose_roots_key_is_elsewhere_signs_and_is_not_renewed_here() {
    let root = ec("Corp root", None, 2);
    let policy = ec("Corp policy", Some(&root), 1);
    let mesh = ec("Corp mesh", Some(&policy), 0);
    let state = take(&[&mesh, &policy, &root], &mesh.key_pem()).unwrap();
    assert_eq!(leaf_is_taken(&state).await, 3);
    assert_eq!(state.roots.len(), 1);
    assert_eq!(state.roots[0].pem, root.pem());
    assert!(!state.renews() && state.root_key.is_none());
    // Also when it nears its end: nobody here can.
    let late = SystemTime::now() + Duration::from_secs(YEAR - 3600);
    assert_eq!(renewal_due(&state, late), None);
    let refused = renew_intermediate(&state, &sealing_of_test(), SystemTime::now());
    let words = refused.unwrap_err().to_string();
    assert!(words.contains("meshctl ca import"), "{words}");
}

#[tokio::test]
async fn a_root_with_its_key_makes_intermediates_of_every_kind_of_key() {
    for kind in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        let root = authority("Corp root", None, 1, kind, unchanged);
        let state = take(&[&root], &root.key_pem()).unwrap();
        assert_eq!(leaf_is_taken(&state).await, 2);
        assert!(state.renews());
        let renewed = renew_intermediate(&state, &sealing_of_test(), SystemTime::now()).unwrap();
        assert_eq!(leaf_is_taken(&renewed).await, 2);
    }
}

#[tokio::test]
async fn both_may_be_given_with_both_keys() {
    let root = authority("Corp root", None, 1, KeyType::Rsa2048, unchanged);
    let mesh = authority("Corp mesh", Some(&root), 0, KeyType::EcP384, unchanged);
    let (now, key) = (SystemTime::now(), root.key_pem());
    let state = take_at(&[&mesh, &root], &mesh.key_pem(), Some(&key), now).unwrap();
    assert_eq!(state.intermediate.as_ref().unwrap().pem, mesh.pem());
    assert_eq!(leaf_is_taken(&state).await, 2);
    let renewed = renew_intermediate(&state, &sealing_of_test(), now).unwrap();
    assert_ne!(renewed.intermediate.as_ref().unwrap().pem, mesh.pem());
    assert_eq!(leaf_is_taken(&renewed).await, 2);
}

#[test]
fn what_is_above_may_end_first() {
    let root = authority("Corp root", None, 1, KeyType::EcP256, |params| {
        params.not_after -= Duration::from_secs(100 * 24 * 3600);
    });
    let mesh = ec("Corp mesh", Some(&root), 0);
    let state = take(&[&mesh, &root], &mesh.key_pem()).unwrap();
    assert_eq!(
        state.intermediate.unwrap().not_after,
        state.roots[0].not_after
    );
}

#[test]
fn keys_come_in_every_form_that_openssl_writes() {
    let folder = tempfile::tempdir().unwrap();
    let root = ec("Corp root", None, 1);
    let rsa = authority("Corp root", None, 1, KeyType::Rsa2048, unchanged);
    for (ca, old_form) in [(root, "ec"), (rsa, "rsa")] {
        std::fs::write(folder.path().join("key.pem"), ca.key_pem()).unwrap();
        let mut arguments = vec![old_form, "-in", "key.pem"];
        if old_form == "rsa" {
            arguments.push("-traditional");
        }
        let Some(text) = super::openssl(&arguments, folder.path()) else {
            return;
        };
        assert!(!text.contains("BEGIN PRIVATE KEY"), "{old_form}");
        take(&[&ca], &text).unwrap();
    }
}

#[test]
fn what_does_not_fit_is_named_with_what_to_do() {
    let root = ec("Corp root", None, 1);
    let mesh = ec("Corp mesh", Some(&root), 0);
    let other = ec("Corp root", None, 1);
    let key = &mesh.key_pem();
    let refused = |chain: &[&Theirs], key: &str, words: &str| {
        let error = take(chain, key).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(
        &[&mesh, &root],
        &root.key_pem(),
        "it is not the key of certificate 1 (CN=Corp mesh)",
    );
    refused(
        &[&root, &mesh],
        key,
        "write each certificate before the one that signed it",
    );
    refused(
        &[&mesh],
        key,
        "this is no root: CN=Corp root signed it; append",
    );
    refused(
        &[&mesh, &other],
        key,
        "did not sign it: another one of that name did",
    );
    refused(
        &[&mesh, &root, &root, &root, &root, &root],
        key,
        "at most 5",
    );
    let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    refused(
        &[&mesh, &root],
        &ed25519.serialize_pem(),
        "neither EC P-256, EC P-384 nor RSA",
    );

    let shaped = |below, change: &dyn Fn(&mut CertificateParams), words: &str| {
        let mesh = authority("Corp mesh", Some(&root), below, KeyType::EcP256, change);
        refused(&[&mesh, &root], &mesh.key_pem(), words);
    };
    shaped(
        0,
        &|p| p.is_ca = IsCa::ExplicitNoCa,
        "it is not the certificate of a CA",
    );
    shaped(
        0,
        &|p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature],
        "does not have keyCertSign",
    );
    shaped(
        0,
        &|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
        "both serverAuth and clientAuth",
    );
    shaped(
        0,
        &|p| p.subject_alt_names = vec![SanType::URI("spiffe://other.mesh".try_into().unwrap())],
        "it is of another trust domain (spiffe://other.mesh); this mesh is spiffe://test.mesh",
    );
    shaped(0, &|p| p.not_after = p.not_before, "it has expired");
    shaped(
        0,
        &|p| p.not_after = p.not_before + Duration::from_secs(3 * 3600),
        "before two lives of a sidecar's certificate",
    );
    shaped(0, &|p| p.not_before = p.not_after, "it is not valid before");
    shaped(
        0,
        &|p| {
            // permitted: [0] { { [6] ".mesh" } }
            let constraint = [
                0x30, 0x0b, 0xa0, 0x09, 0x30, 0x07, 0x86, 0x05, b'.', b'm', b'e', b's', b'h',
            ];
            let mut extension =
                rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 30], constraint.to_vec());
            extension.set_criticality(true);
            p.custom_extensions.push(extension);
        },
        "it has name constraints for URIs",
    );
    shaped(
        0,
        &|p| p.distinguished_name = rcgen::DistinguishedName::new(),
        "it has no name",
    );

    let narrow = ec("Narrow root", None, 0);
    let mesh = ec("Corp mesh", Some(&narrow), 0);
    refused(
        &[&mesh, &narrow],
        &mesh.key_pem(),
        "its path length is 0, and 1 CA stands below it",
    );
    refused(&[&narrow], &narrow.key_pem(), "its path length is 0");
    let root_key = root.key_pem();
    let error = take_at(&[&root], &root_key, Some(&root_key), SystemTime::now()).unwrap_err();
    assert!(error.to_string().contains("given twice"), "{error}");
}

#[test]
fn a_name_that_cannot_be_written_as_an_issuers_is_refused_where_it_would_be() {
    // Two domain components, as roots of Active Directory have: DC=example, DC=com.
    let two = |p: &mut CertificateParams| {
        p.distinguished_name
            .push(DnType::from_oid(&[2, 5, 4, 11]), "one");
    };
    let root = authority("Corp root", None, 1, KeyType::EcP256, two);
    // One of each kind is fine.
    take(&[&root], &root.key_pem()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let made = super::openssl(
        &[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            "key.pem",
            "-out",
            "root.pem",
            "-days",
            "300",
            "-subj",
            "/DC=com/DC=example/CN=Corp root",
        ],
        folder.path(),
    );
    if made.is_none() {
        return;
    }
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    let given = Import::from_pem(&read("root.pem"), &read("key.pem"), None).unwrap();
    let domain = "test.mesh".parse().unwrap();
    let (config, now) = (CaConfig::default(), SystemTime::now());
    let error = import(&domain, "dc1", config, &given, &sealing(), now).unwrap_err();
    assert!(
        error.to_string().contains("two parts of one kind"),
        "{error}"
    );
}

#[test]
fn no_form_of_it_prints_a_key() {
    let root = ec("Corp root", None, 1);
    let given = Import::from_pem(root.pem().as_bytes(), root.key_pem().as_bytes(), None).unwrap();
    assert_eq!(format!("{given:?}"), "Import { certificates: 1, .. }");
    let swapped = Import::from_pem(root.key_pem().as_bytes(), root.pem().as_bytes(), None);
    let words = swapped.unwrap_err().to_string();
    assert!(words.contains("swapped"), "{words}");
    let secret = root.key_pem();
    let line = secret.lines().nth(1).unwrap();
    assert!(!words.contains(line));
    let state = take(&[&root], &root.key_pem()).unwrap();
    assert!(!serde_json::to_string(&state).unwrap().contains(line));
}
