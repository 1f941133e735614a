//! The built-in CA.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_tls::{Credential, LeafKey, MeshTls, peer_identity};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, SanType};
use rustls::{ClientConnection, ServerConnection};
use x509_parser::extensions::GeneralName;

use super::{DAY, fixed, new_ca, new_state, openssl, request, sealing, service, unix};
use crate::{
    Authority, AuthorityError, BuiltIn, CaConfig, CaError, CaState, KeyType, LeafRequest, Renewal,
    RootEntry, SealingKey, create, renew_intermediate, renewal_due,
};

#[tokio::test]
async fn issued_leaves_make_a_connection() {
    let (state, ca) = new_ca();
    let mut sides = Vec::new();
    for name in ["frontend", "user-service"] {
        let key = LeafKey::generate().unwrap();
        let leaf = ca.sign_leaf(&request(&key, name, DAY)).await.unwrap();
        assert_eq!(leaf.chain.len(), 2, "leaf and intermediate, never the root");
        let shown = Credential::from_leaf_key(leaf.chain.clone(), &key).unwrap();
        assert_eq!(shown.leaf().serial, leaf.serial);
        assert_eq!(unix(shown.leaf().not_after), leaf.not_after);
        assert_eq!(unix(shown.leaf().not_before), leaf.not_before);
        sides.push(MeshTls::new(shown, state.trust().unwrap()).unwrap());
    }
    let client = sides[0].client_config(&service("user-service"), &[b"h2"]);
    let server = sides[1].server_config(&[b"h2"]);
    let name = "user-service.default.dc1.internal.test.mesh";
    let mut client = ClientConnection::new(client, name.try_into().unwrap()).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    while client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        server.read_tls(&mut bytes.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        client.read_tls(&mut bytes.as_slice()).unwrap();
        client.process_new_packets().unwrap();
    }
    assert_eq!(peer_identity(&client), Some(service("user-service")));
    assert_eq!(peer_identity(&server), Some(service("frontend")));
}

#[tokio::test]
async fn a_leaf_has_the_shape_that_was_decided() {
    let (_, ca) = new_ca();
    let now = SystemTime::now();
    let key = LeafKey::generate().unwrap();
    let leaf = ca.sign_leaf(&request(&key, "a", DAY)).await.unwrap();
    let (_, cert) = x509_parser::parse_x509_certificate(&leaf.chain[0]).unwrap();

    assert_eq!(cert.subject().iter_rdn().count(), 0);
    let names = cert.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical, "there is no subject");
    let uri = service("a").to_string();
    assert_eq!(names.value.general_names, [GeneralName::URI(&uri)]);
    assert!(!cert.is_ca());
    let usage = cert.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.flags == 1, "{usage:?}");
    let extended = cert.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && extended.client_auth && !extended.any);
    assert_eq!(cert.public_key().raw, key.public_key());

    assert_eq!(leaf.serial.len(), 32, "128 bits");
    let again = ca.sign_leaf(&request(&key, "a", DAY)).await.unwrap();
    assert_ne!(leaf.serial, again.serial);

    let (from, to) = (unix(now) - 60, unix(now + DAY));
    assert!((from..from + 5).contains(&leaf.not_before));
    assert!((to..to + 5).contains(&leaf.not_after));
}

#[tokio::test]
async fn of_a_request_only_the_key_is_taken() {
    let (_, ca) = new_ca();
    let key = KeyPair::generate().unwrap();
    let mut greedy = CertificateParams::default();
    greedy.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    greedy.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
    let uri = service("payment").to_string();
    greedy.subject_alt_names = vec![
        SanType::URI(uri.as_str().try_into().unwrap()),
        SanType::DnsName("bank.example".try_into().unwrap()),
    ];
    let csr = greedy.serialize_request(&key).unwrap();
    let request = LeafRequest::from_csr(csr.der(), service("frontend"), DAY).unwrap();
    let leaf = ca.sign_leaf(&request).await.unwrap();
    let (_, cert) = x509_parser::parse_x509_certificate(&leaf.chain[0]).unwrap();
    let names = cert.subject_alternative_name().unwrap().unwrap().value;
    let uri = service("frontend").to_string();
    assert_eq!(names.general_names, [GeneralName::URI(&uri)]);
    assert!(!cert.is_ca());
    assert!(!cert.extended_key_usage().unwrap().unwrap().value.any);
    assert!(!format!("{:?}", cert.subject()).contains("rcgen"));
}

#[test]
fn a_request_with_a_bad_signature_never_gets_to_the_authority() {
    let mut csr = LeafKey::generate().unwrap().csr().unwrap();
    let at = csr.len() - 5;
    csr[at] ^= 1;
    assert!(LeafRequest::from_csr(&csr, service("a"), DAY).is_err());
}

#[tokio::test]
async fn every_kind_of_key_that_a_request_may_have_is_signed() {
    let (state, ca) = new_ca();
    let trust = state.trust().unwrap();
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let csr = CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        let request = LeafRequest::from_csr(csr.der(), service("a"), DAY).unwrap();
        let leaf = ca.sign_leaf(&request).await.unwrap();
        let id = trust.verify(&leaf.chain, SystemTime::now()).unwrap();
        assert_eq!(id, service("a"));
        Credential::from_pem(
            "leaf",
            leaf.chain_pem().as_bytes(),
            key.serialize_pem().as_bytes(),
        )
        .unwrap();
    }
}

#[tokio::test]
async fn a_leaf_never_outlives_the_intermediate() {
    let (state, ca) = new_ca();
    let end = state.intermediate.as_ref().unwrap().not_after;
    let key = LeafKey::generate().unwrap();
    let long = ca.sign_leaf(&request(&key, "a", 3650 * DAY)).await.unwrap();
    assert_eq!(long.not_after, end);
    let longest = ca
        .sign_leaf(&request(&key, "a", Duration::MAX))
        .await
        .unwrap();
    assert_eq!(longest.not_after, end);

    let before = unix(SystemTime::now());
    let short = request(&key, "a", Duration::from_secs(3)).backdated(Duration::ZERO);
    let short = ca.sign_leaf(&short).await.unwrap();
    assert!((before + 3..before + 8).contains(&short.not_after));
    assert_eq!(short.not_after - short.not_before, 3);
    let none = ca
        .sign_leaf(&request(&key, "a", Duration::ZERO))
        .await
        .unwrap();
    assert!(none.not_after > before, "at least a second");
}

#[tokio::test]
async fn another_trust_domain_is_denied() {
    let (_, ca) = new_ca();
    let other = "spiffe://other.mesh/ns/default/dc/dc1/svc/a"
        .parse()
        .unwrap();
    let csr = LeafKey::generate().unwrap().csr().unwrap();
    let request = LeafRequest::from_csr(&csr, other, DAY).unwrap();
    let error = ca.sign_leaf(&request).await.unwrap_err();
    assert!(matches!(error, AuthorityError::Denied { .. }), "{error}");
    assert!(!error.is_temporary());
    assert!(
        error
            .to_string()
            .contains("not of the trust domain test.mesh")
    );
}

#[tokio::test]
async fn an_expired_intermediate_says_so_and_is_renewed() {
    let (sealing, now) = (sealing(), SystemTime::now());
    let state = new_state(&sealing, now);
    let later = now + 366 * DAY;
    let ca = BuiltIn::open(&state, &sealing, fixed(later)).unwrap();
    let key = LeafKey::generate().unwrap();
    let error = ca.sign_leaf(&request(&key, "a", DAY)).await.unwrap_err();
    assert!(
        error.is_temporary() && error.retry_after().is_some(),
        "{error}"
    );
    assert!(!ca.status().await.healthy);

    let state = renew_intermediate(&state, &sealing, later).unwrap();
    let ca = BuiltIn::open(&state, &sealing, fixed(later)).unwrap();
    let status = ca.status().await;
    assert!(status.healthy && status.reason.is_none());
    assert_eq!(
        status.active_root.as_deref(),
        Some(state.roots[0].id.as_str())
    );
    let leaf = ca.sign_leaf(&request(&key, "a", DAY)).await.unwrap();
    state.trust().unwrap().verify(&leaf.chain, later).unwrap();
}

#[tokio::test]
async fn leaves_of_the_intermediate_before_stay_good() {
    let (sealing, now) = (sealing(), SystemTime::now());
    let state = new_state(&sealing, now);
    let key = LeafKey::generate().unwrap();
    let old = BuiltIn::open(&state, &sealing, fixed(now)).unwrap();
    let leaf = old.sign_leaf(&request(&key, "a", DAY)).await.unwrap();
    let renewed = renew_intermediate(&state, &sealing, now).unwrap();
    assert_ne!(renewed.intermediate, state.intermediate);
    assert_eq!(renewed.roots, state.roots);
    renewed.trust().unwrap().verify(&leaf.chain, now).unwrap();
}

#[test]
fn when_the_intermediate_is_renewed() {
    let (sealing, now) = (sealing(), SystemTime::now());
    let mut state = new_state(&sealing, now);
    assert_eq!(renewal_due(&state, now), None);
    assert_eq!(renewal_due(&state, now + 240 * DAY), None);
    assert_eq!(renewal_due(&state, now + 244 * DAY), Some(Renewal::Old));
    assert_eq!(renewal_due(&state, now + 4000 * DAY), Some(Renewal::Old));
    // A clock that runs behind decides nothing.
    assert_eq!(renewal_due(&state, now - 900 * DAY), None);

    state.config.leaf_ttl_seconds = 70 * DAY.as_secs();
    assert_eq!(renewal_due(&state, now + 200 * DAY), None);
    let cut = Some(Renewal::CutsLeavesShort);
    assert_eq!(renewal_due(&state, now + 226 * DAY), cut);
    // Where even a new one cuts leaves short, that alone is no reason.
    state.config.leaf_ttl_seconds = 300 * DAY.as_secs();
    assert_eq!(renewal_due(&state, now), None);

    let intermediate = state.intermediate.take();
    assert_eq!(renewal_due(&state, now), Some(Renewal::Missing));
    state.intermediate = intermediate;
    state.roots[0].id = "another".into();
    assert_eq!(renewal_due(&state, now), Some(Renewal::OtherRoot));
    state.provider = "of_a_later_version".into();
    assert_eq!(renewal_due(&state, now), None);
}

#[test]
fn near_the_end_of_the_root_renewing_helps_no_more() {
    let (sealing, now) = (sealing(), SystemTime::now());
    let state = new_state(&sealing, now);
    let late = now + 3500 * DAY;
    let state = renew_intermediate(&state, &sealing, late).unwrap();
    assert_eq!(
        state.intermediate.as_ref().unwrap().not_after,
        state.roots[0].not_after,
        "never longer than the root"
    );
    assert_eq!(renewal_due(&state, now + 3640 * DAY), None);
    let error = renew_intermediate(&state, &sealing, now + 3700 * DAY).unwrap_err();
    assert!(error.to_string().contains("it has expired"), "{error}");
}

#[test]
fn rows_that_do_not_fit_together_do_not_open() {
    let (sealing, now) = (sealing(), SystemTime::now());
    let good = new_state(&sealing, now);
    let other = new_state(&sealing, now);
    let refused = |state: &CaState| {
        BuiltIn::open(state, &sealing, fixed(now))
            .unwrap_err()
            .to_string()
    };
    let mut state = good.clone();
    state.intermediate = other.intermediate.clone();
    assert!(refused(&state).contains("no peer would take what it signs"));

    // The envelope is bound to the intermediate that it was made for.
    let mut state = good.clone();
    state.intermediate.as_mut().unwrap().key = other.intermediate.as_ref().unwrap().key.clone();
    assert!(refused(&state).contains("belongs to something else"));
    let mut state = good.clone();
    state.intermediate.as_mut().unwrap().key = good.root_key.clone();
    assert!(refused(&state).contains("belongs to something else"));
    let mut state = good.clone();
    state.intermediate.as_mut().unwrap().pem = other.intermediate.as_ref().unwrap().pem.clone();
    assert!(refused(&state).contains("the key is not the one of the certificate"));

    let mut state = good.clone();
    state.intermediate.as_mut().unwrap().pem = "not PEM".into();
    assert!(refused(&state).contains("-----BEGIN CERTIFICATE-----"));
    let mut state = good.clone();
    state.intermediate = None;
    assert!(refused(&state).contains("there is none"));
    let mut state = good.clone();
    state.roots.clear();
    assert!(refused(&state).contains("roots"));
    let mut state = good.clone();
    state.trust_domain = "Not A Domain".into();
    assert!(refused(&state).contains("trust domain"));
    let mut state = good.clone();
    state.provider = "of_a_later_version".into();
    assert!(refused(&state).contains("provider"));

    let stranger = SealingKey::generate().unwrap();
    let error = BuiltIn::open(&good, &stranger, fixed(now)).unwrap_err();
    assert!(matches!(error, CaError::Seal(_)));
    let text = error.to_string();
    assert!(
        text.contains(sealing.id()) && text.contains(stranger.id()),
        "{text}"
    );
    assert!(renew_intermediate(&good, &stranger, now).is_err());
    let mut state = good;
    state.root_key = None;
    assert!(renew_intermediate(&state, &sealing, now).is_err());
}

#[test]
fn the_state_grows_and_old_forms_load() {
    let (state, _) = new_ca();
    let text = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<CaState>(&text).unwrap(), state);

    let mut value = serde_json::to_value(&state).unwrap();
    let fields = value.as_object_mut().unwrap();
    fields.insert("of_a_later_version".into(), 1.into());
    for optional in ["dc", "config"] {
        fields.remove(optional);
    }
    let back: CaState = serde_json::from_value(value).unwrap();
    assert_eq!(back.config, CaConfig::default());
    let partial = r#"{"leaf_ttl_seconds": 5}"#;
    let config: CaConfig = serde_json::from_str(partial).unwrap();
    assert_eq!(config.leaf_ttl(), Duration::from_secs(5));
    for (seconds, used) in [(0, 1), (u64::MAX, 365 * DAY.as_secs())] {
        let config = CaConfig {
            leaf_ttl_seconds: seconds,
            ..CaConfig::default()
        };
        assert_eq!(config.leaf_ttl().as_secs(), used);
    }
}

#[test]
fn a_configuration_without_sense_makes_no_panic() {
    let config = CaConfig {
        leaf_ttl_seconds: u64::MAX,
        intermediate_ttl_seconds: u64::MAX,
        root_ttl_seconds: u64::MAX,
        key_type: KeyType::EcP256,
        vault: None,
        aws_pca: None,
    };
    let domain = "test.mesh".parse().unwrap();
    let (sealing, now) = (sealing(), SystemTime::now());
    let state = create(&domain, "dc1", config, &sealing, now).unwrap();
    assert_eq!(state.roots[0].not_after, 253_402_300_799, "the year 9999");
    BuiltIn::open(&state, &sealing, fixed(now)).unwrap();
    let none = CaConfig {
        intermediate_ttl_seconds: 0,
        ..CaConfig::default()
    };
    create(&domain, "dc1", none, &sealing, SystemTime::UNIX_EPOCH).unwrap();
}

#[test]
fn no_private_key_shows_anywhere() {
    let (sealing, now) = (sealing(), SystemTime::now());
    let state = new_state(&sealing, now);
    let ca = BuiltIn::open(&state, &sealing, fixed(now)).unwrap();
    let json = serde_json::to_string(&state).unwrap();
    let debug = format!("{state:?} {ca:?} {sealing:?} {:?}", state.trust());
    let intermediate = state.intermediate.as_ref().unwrap();
    let keys = [
        sealing.open(
            "root key",
            &state.roots[0].id,
            state.root_key.as_ref().unwrap(),
        ),
        sealing.open(
            "intermediate key",
            &intermediate.id,
            intermediate.key.as_ref().unwrap(),
        ),
    ];
    for key in keys {
        let key = key.unwrap();
        // The scalar of a PKCS#8 EC key stands behind OCTET STRING(32): 04 20.
        let at = key.windows(2).position(|w| w == [4, 0x20]).unwrap() + 2;
        let secret = &key[at..at + 32];
        for text in [&json, &debug] {
            assert_hidden(secret, text);
        }
    }
    assert!(!json.contains("PRIVATE") && !debug.contains("PRIVATE"));
}

/// Not as hex, as base64 at any alignment, or as a list of numbers.
fn assert_hidden(secret: &[u8], text: &str) {
    use base64::Engine as _;
    let hex: String = secret.iter().map(|b| format!("{b:02x}")).collect();
    assert!(!text.to_lowercase().contains(&hex));
    let numbers: Vec<_> = secret[..8].iter().map(u8::to_string).collect();
    assert!(!text.contains(&numbers.join(", ")) && !text.contains(&numbers.join(",")));
    for offset in 0..3 {
        let coded = base64::engine::general_purpose::STANDARD_NO_PAD.encode(&secret[offset..30]);
        assert!(!text.contains(&coded[..20]));
    }
}

#[test]
fn a_root_says_what_an_operator_asks() {
    let (state, _) = new_ca();
    let root = &state.roots[0];
    assert_eq!(root.id.len(), 64);
    assert_eq!(root.key_type, "EC P-256");
    assert!(
        root.subject.starts_with("CN=meshctl root 20"),
        "{}",
        root.subject
    );
    assert!(root.subject.ends_with(" test.mesh"), "{}", root.subject);
    assert!(root.active && root.not_after - root.not_before > 3652 * DAY.as_secs());
    let again = RootEntry::from_der(&root.der().unwrap(), true).unwrap();
    assert_eq!(&again, root);
    let leaf_like = state.intermediate.as_ref().unwrap().der().unwrap();
    assert!(
        RootEntry::from_der(&leaf_like, false).is_ok(),
        "an intermediate may be trusted"
    );
    assert!(RootEntry::from_der(&b"no"[..].into(), false).is_err());
}

#[tokio::test]
async fn openssl_agrees() {
    let (state, ca) = new_ca();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let key = LeafKey::generate().unwrap();
    let leaf = ca.sign_leaf(&request(&key, "a", DAY)).await.unwrap();
    write("root.pem", &state.roots[0].pem);
    write(
        "intermediate.pem",
        &state.intermediate.as_ref().unwrap().pem,
    );
    write("leaf.pem", &leaf.chain_pem());
    std::fs::write(folder.path().join("csr.der"), key.csr().unwrap()).unwrap();
    for purpose in ["sslserver", "sslclient"] {
        let arguments = format!(
            "verify -x509_strict -purpose {purpose} -CAfile root.pem \
             -untrusted intermediate.pem leaf.pem"
        );
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        openssl(&arguments, folder.path());
    }
    let show = ["x509", "-in", "leaf.pem", "-noout", "-text"];
    if let Some(text) = openssl(&show, folder.path()) {
        assert!(
            text.contains("X509v3 Subject Alternative Name: critical"),
            "{text}"
        );
        assert!(text.contains("URI:spiffe://test.mesh/ns/default/dc/dc1/svc/a"));
    }
    openssl(
        &[
            "req", "-in", "csr.der", "-inform", "DER", "-verify", "-noout",
        ],
        folder.path(),
    );
    let show = ["x509", "-in", "intermediate.pem", "-noout", "-text"];
    if let Some(text) = openssl(&show, folder.path()) {
        assert!(text.contains("CA:TRUE, pathlen:0"), "{text}");
    }
}

#[test]
fn the_trait_can_be_held_as_an_object() {
    let (_, ca) = new_ca();
    let ca: Arc<dyn Authority> = Arc::new(ca);
    assert_eq!(ca.provider(), "built_in");
    assert_eq!(ca.trust_domain().as_str(), "test.mesh");
}

#[tokio::test]
async fn dns_names_stand_beside_the_identity() {
    let (state, ca) = new_ca();
    let key = LeafKey::generate().unwrap();
    let names = vec![
        "*.ingress.dc1.consul".to_owned(),
        "shop.example.com".to_owned(),
    ];
    let request = request(&key, "edge", DAY).for_dns_names(names.clone());
    let leaf = ca.sign_leaf(&request).await.unwrap();
    let read = mesh_tls::Leaf::parse("leaf", leaf.chain.clone()).unwrap();
    assert_eq!(read.dns_names, names);
    // The mesh goes by the identity all the same.
    assert_eq!(read.uri.as_deref(), Some(service("edge").as_str()));
    let trust = state.trust().unwrap();
    trust.verify(&leaf.chain, SystemTime::now()).unwrap();
}
