//! Between two sidecars.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use rustls::client::Resumption;
use rustls::server::ServerSessionMemoryCache;
use rustls::{ClientConfig, HandshakeKind, NamedGroup, ProtocolVersion, ServerConfig};

use crate::testing::{Ca, Side, handshake, service};
use crate::{
    Credential, Handshakes, LeafKey, MeshTls, SpiffeId, Trust, explain, explain_here,
    peer_identity, peer_leaf, provider,
};

fn id(name: &str) -> SpiffeId {
    service(name).parse().unwrap()
}

fn mesh(ca: &Ca, roots: &Ca, name: &str) -> MeshTls {
    MeshTls::new(ca.leaf(&service(name)), roots.trust()).unwrap()
}

/// A server whose verifier we borrow, but whose certificate is any that we like.
fn server_showing(verifier_of: &MeshTls, shown: Credential) -> Arc<ServerConfig> {
    let mut config = (*verifier_of.server_config(&[b"h2"])).clone();
    config.cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(
        shown.certified().clone(),
    ));
    Arc::new(config)
}

/// A client the same way.
fn client_showing(verifier_of: &MeshTls, expected: &str, shown: Credential) -> Arc<ClientConfig> {
    let mut config = (*verifier_of.client_config(&id(expected), &[b"h2"])).clone();
    config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(
        shown.certified().clone(),
    ));
    Arc::new(config)
}

/// What each side says when the other shows this certificate in place of `user-service`'s.
pub(super) fn refusals(ca: &Ca, shown: Credential) -> [String; 2] {
    tried(ca, shown).map(|tried| tried.expect_err("it is taken"))
}

/// The same, where one side or both may take it: the client first.
pub(super) fn tried(ca: &Ca, shown: Credential) -> [Result<(), String>; 2] {
    let good = mesh(ca, ca, "user-service");
    let client = good.client_config(&id("user-service"), &[b"h2"]);
    let by_client = refused_by(
        Side::Client,
        handshake(client, server_showing(&good, shown.clone())),
    );
    let client = client_showing(&good, "user-service", shown);
    let by_server = refused_by(
        Side::Server,
        handshake(client, good.server_config(&[b"h2"])),
    );
    [by_client, by_server]
}

fn refused_by<T>(wanted: Side, made: Result<T, (Side, rustls::Error)>) -> Result<(), String> {
    made.map(|_| ()).map_err(|(side, error)| {
        assert_eq!(side, wanted);
        let here = explain_here(&error);
        // Once only: it is not told of another handshake.
        assert_eq!(explain_here(&error), explain(&error));
        here
    })
}

fn assert_both(refusals: [String; 2], words: &str) {
    for refusal in refusals {
        assert!(refusal.contains(words), "{refusal:?} has no {words:?}");
    }
}

#[test]
fn the_cheaper_suite_is_taken() {
    let ca = Ca::root("root");
    let (client, server) = (mesh(&ca, &ca, "frontend"), mesh(&ca, &ca, "user-service"));
    let config = client.client_config(&id("user-service"), &[]);
    let (client, _) = handshake(config, server.server_config(&[])).unwrap();
    let suite = client.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
}

#[test]
fn two_services_meet_and_know_each_other() {
    let root = Ca::root("root");
    let intermediate = root.intermediate("intermediate");
    let front = mesh(&intermediate, &root, "frontend");
    let user = mesh(&intermediate, &root, "user-service");
    let (client, server) = handshake(
        front.client_config(&id("user-service"), &[b"h2", b"mesh/1"]),
        user.server_config(&[b"mesh/1", b"h2", b"http/1.1"]),
    )
    .unwrap();
    assert_eq!(peer_identity(&client), Some(id("user-service")));
    assert_eq!(peer_identity(&server), Some(id("frontend")));
    assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(server.alpn_protocol(), Some(b"mesh/1".as_slice()));
    let (seen, own) = (peer_leaf(&server).unwrap(), front.leaf().unwrap());
    assert_eq!(seen, *own);
    assert_eq!(seen.chain.len(), 2);
    assert!(seen.not_after > SystemTime::now());
}

#[test]
fn another_service_than_the_expected_one_is_refused_by_both_names() {
    let ca = Ca::root("root");
    let front = mesh(&ca, &ca, "frontend");
    let payment = mesh(&ca, &ca, "payment");
    let (side, error) = handshake(
        front.client_config(&id("user-service"), &[]),
        payment.server_config(&[]),
    )
    .unwrap_err();
    assert_eq!(side, Side::Client);
    assert_eq!(
        explain(&error),
        "expected spiffe://test.mesh/ns/default/dc/dc1/svc/user-service, \
         but spiffe://test.mesh/ns/default/dc/dc1/svc/payment came"
    );
}

#[test]
fn another_ca_is_refused() {
    let ca = Ca::root("root");
    let stranger = Ca::root("root").leaf(&service("user-service"));
    assert_both(
        refusals(&ca, stranger),
        "not signed by a root of trust domain test.mesh",
    );
}

#[test]
fn another_trust_domain_is_refused_even_when_our_ca_signed_it() {
    let ca = Ca::root("root");
    let other = "spiffe://other.mesh/ns/default/dc/dc1/svc/user-service";
    let [by_client, by_server] = refusals(&ca, ca.leaf(other));
    assert!(
        by_client.contains(&format!("but {other} came")),
        "{by_client}"
    );
    assert_eq!(
        by_server,
        format!("expected a service of trust domain test.mesh, but {other} came")
    );
}

#[test]
fn expecting_an_identity_of_another_domain_never_works() {
    // The roots say nothing of other.mesh, so not even a leaf with exactly that name will do.
    let ca = Ca::root("root");
    let other: SpiffeId = "spiffe://other.mesh/ns/default/dc/dc1/svc/a"
        .parse()
        .unwrap();
    let front = mesh(&ca, &ca, "frontend");
    let server = server_showing(&front, ca.leaf(other.as_str()));
    assert!(handshake(front.client_config(&other, &[b"h2"]), server).is_err());
}

#[test]
fn a_part_of_the_cluster_is_no_service() {
    let ca = Ca::root("root");
    let server = ca.leaf("spiffe://meshctl.internal/server/s1");
    assert_both(refusals(&ca, server.clone()), "not a service of a mesh");
    assert!(MeshTls::new(server, ca.trust()).is_err());
}

#[test]
fn certificates_that_break_a_rule_are_refused_with_the_rule() {
    let ca = Ca::root("root");
    let name = service("user-service");
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());

    let expired = ca.issue(&[&name], |p| {
        p.not_after = (SystemTime::now() - Duration::from_secs(30)).into();
    });
    assert_both(refusals(&ca, expired), "expired");

    let early = ca.issue(&[&name], |p| {
        p.not_before = (SystemTime::now() + Duration::from_secs(600)).into();
    });
    assert_both(refusals(&ca, early), "valid only in");

    let two = ca.issue(&[&name, &service("payment")], |_| {});
    assert_both(refusals(&ca, two), "has 2 URI names");

    let twice = ca.issue(&[&name], |p| p.subject_alt_names.push(uri(&name)));
    assert_both(refusals(&ca, twice), "has 2 URI names");

    let none = ca.issue(&[], |p| {
        p.subject_alt_names = vec![SanType::DnsName("user-service".try_into().unwrap())];
    });
    assert_both(refusals(&ca, none), "has 0 URI names");

    let bare = ca.issue(&[], |_| {});
    assert_both(refusals(&ca, bare), "has 0 URI names");

    let not_spiffe = ca.leaf("https://test.mesh/ns/default/dc/dc1/svc/user-service");
    assert_both(refusals(&ca, not_spiffe), "does not begin with spiffe://");

    let authority = ca.issue(&[&name], |p| {
        p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        p.key_usages.push(KeyUsagePurpose::KeyCertSign);
    });
    assert_both(refusals(&ca, authority), "CA certificate where a leaf must");

    let mail = ca.issue(&[&name], |p| {
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection];
    });
    assert_both(refusals(&ca, mail), "extended key usage");

    // A leaf cannot sign: what it signed leads to the root only through it.
    let stranger = Ca::root("not known");
    let mut chain = stranger.leaf(&name).leaf().chain.clone();
    chain.extend(ca.leaf(&name).leaf().chain.clone());
    assert!(ca.trust().verify(&chain, SystemTime::now()).is_err());
}

#[test]
fn a_name_that_is_not_text_still_counts() {
    // webpki skips URI names that are not UTF-8; the certificate must be refused all the same.
    let ca = Ca::root("root");
    let name = service("user-service");
    let san: Vec<u8> = [name.as_bytes(), &[0xff, 0xfe]]
        .iter()
        .flat_map(|uri| [&[0x86, uri.len() as u8], *uri].concat())
        .collect();
    let content = [&[0x30, san.len() as u8], san.as_slice()].concat();
    assert!(san.len() < 128, "a one-byte length");
    let shown = ca.issue(&[], |p| {
        let san = rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 17], content);
        p.custom_extensions = vec![san];
    });
    assert_both(refusals(&ca, shown), "not well formed");
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let ca = Ca::root("root");
    let user = mesh(&ca, &ca, "user-service");
    let mut config = (*user.client_config(&id("user-service"), &[])).clone();
    config.client_auth_cert_resolver = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
        .client_auth_cert_resolver;
    let (side, error) = handshake(Arc::new(config), user.server_config(&[])).unwrap_err();
    assert_eq!(side, Side::Server);
    assert_eq!(explain(&error), "the peer gave no certificate");
}

#[test]
fn tls_1_2_is_not_spoken() {
    let ca = Ca::root("root");
    let user = mesh(&ca, &ca, "user-service");
    let old = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let (side, error) = handshake(Arc::new(old), user.server_config(&[])).unwrap_err();
    assert_eq!(side, Side::Server);
    assert!(explain(&error).contains("speaks no TLS 1.3"), "{error}");
}

#[test]
fn a_new_leaf_is_shown_on_the_next_handshake_and_live_ones_go_on() {
    let ca = Ca::root("root");
    let front = mesh(&ca, &ca, "frontend");
    let user = mesh(&ca, &ca, "user-service");
    let client = front.client_config(&id("user-service"), &[]);
    let server = user.server_config(&[]);
    let serial = |connection: &rustls::CommonState| peer_leaf(connection).unwrap().serial;

    let (mut first, mut first_server) = handshake(client.clone(), server.clone()).unwrap();
    let next = ca.leaf(&service("user-service"));
    user.swap_leaf(next.clone()).unwrap();
    let (second, _) = handshake(client, server).unwrap();
    assert_ne!(serial(&first), serial(&second));
    assert_eq!(serial(&second), next.leaf().serial);
    assert_eq!(user.leaf().unwrap(), *next.leaf());

    // The connection of before still carries bytes.
    use std::io::{Read, Write};
    first.writer().write_all(b"still here").unwrap();
    let mut bytes = Vec::new();
    first.write_tls(&mut bytes).unwrap();
    first_server.read_tls(&mut bytes.as_slice()).unwrap();
    first_server.process_new_packets().unwrap();
    let mut read = [0; 10];
    first_server.reader().read_exact(&mut read).unwrap();
    assert_eq!(&read, b"still here");
}

#[test]
fn a_leaf_that_names_no_service_does_not_replace_one_that_does() {
    let ca = Ca::root("root");
    let user = mesh(&ca, &ca, "user-service");
    let before = user.leaf().unwrap();
    assert!(user.swap_leaf(ca.issue(&[], |_| {})).is_err());
    assert!(
        user.swap_leaf(ca.leaf("spiffe://meshctl.internal/server/a"))
            .is_err()
    );
    assert_eq!(user.leaf().unwrap(), before);
}

#[test]
fn a_root_rotation_passes_through_both_roots() {
    let (old, new) = (Ca::root("old"), Ca::root("new"));
    let front = mesh(&old, &old, "frontend");
    let user = mesh(&old, &old, "user-service");
    let client = front.client_config(&id("user-service"), &[]);
    let server = user.server_config(&[]);
    let domain = crate::testing::DOMAIN
        .parse::<crate::TrustDomain>()
        .unwrap();
    let both = Trust::new(domain, "both", &[old.cert.clone(), new.cert.clone()]).unwrap();

    // A new leaf before its root is trusted is refused; after that it is not.
    user.swap_leaf(new.leaf(&service("user-service"))).unwrap();
    assert!(handshake(client.clone(), server.clone()).is_err());
    front.swap_roots(both.clone());
    assert_eq!(front.trust().len(), 2);
    handshake(client.clone(), server.clone()).unwrap();

    user.swap_roots(both);
    front.swap_leaf(new.leaf(&service("frontend"))).unwrap();
    front.swap_roots(new.trust());
    user.swap_roots(new.trust());
    handshake(client.clone(), server.clone()).unwrap();

    // The old root is gone: what it signed counts no more.
    user.swap_leaf(old.leaf(&service("user-service"))).unwrap();
    assert!(handshake(client, server).is_err());
}

#[test]
fn the_trust_domain_goes_with_the_roots() {
    let ca = Ca::root("root");
    let front = mesh(&ca, &ca, "frontend");
    let user = mesh(&ca, &ca, "user-service");
    let (client, server) = (
        front.client_config(&id("user-service"), &[]),
        user.server_config(&[]),
    );
    handshake(client.clone(), server.clone()).unwrap();
    let other = "other.mesh".parse().unwrap();
    user.swap_roots(Trust::new(other, "roots", std::slice::from_ref(&ca.cert)).unwrap());
    let (side, error) = handshake(client, server).unwrap_err();
    assert_eq!(side, Side::Server);
    assert!(explain(&error).contains("trust domain other.mesh"));
}

#[test]
fn a_stale_identity_cannot_resume() {
    let ca = Ca::root("root");
    let front = mesh(&ca, &ca, "frontend");
    let user = mesh(&ca, &ca, "user-service");

    // A server that gives tickets, as ours never does, and later becomes another service.
    let mut config = (*user.server_config(&[])).clone();
    config.session_storage = ServerSessionMemoryCache::new(32);
    config.send_tls13_tickets = 2;
    let tickets = Arc::new(config);
    let client = front.client_config(&id("user-service"), &[]);
    for _ in 0..2 {
        let (seen, _) = handshake(client.clone(), tickets.clone()).unwrap();
        assert_eq!(seen.handshake_kind(), Some(HandshakeKind::Full));
    }
    // (Such a server and a client that keeps sessions do resume: the test can fail.)
    let mut eager = (*client).clone();
    eager.resumption = Resumption::in_memory_sessions(32);
    let eager = Arc::new(eager);
    let kinds = [0; 2].map(|_| handshake(eager.clone(), tickets.clone()).unwrap().0);
    assert_eq!(kinds[1].handshake_kind(), Some(HandshakeKind::Resumed));

    user.swap_leaf(ca.leaf(&service("payment"))).unwrap();
    let (_, error) = handshake(client, tickets).unwrap_err();
    assert!(explain(&error).contains("svc/payment came"));

    // A client that would resume, against ours.
    user.swap_leaf(ca.leaf(&service("user-service"))).unwrap();
    let mut eager = (*front.client_config(&id("user-service"), &[])).clone();
    eager.resumption = Resumption::in_memory_sessions(32);
    let eager = Arc::new(eager);
    for _ in 0..2 {
        let (seen, _) = handshake(eager.clone(), user.server_config(&[])).unwrap();
        assert_eq!(seen.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(seen.tls13_tickets_received(), 0);
    }
}

#[test]
fn client_configurations_are_cached_and_bounded() {
    let ca = Ca::root("root");
    let front = mesh(&ca, &ca, "frontend");
    let first = front.client_config(&id("a"), &[b"h2"]);
    assert!(Arc::ptr_eq(
        &first,
        &front.client_config(&id("a"), &[b"h2"])
    ));
    assert!(!Arc::ptr_eq(
        &first,
        &front.client_config(&id("a"), &[b"mesh/1"])
    ));
    assert!(!Arc::ptr_eq(
        &first,
        &front.client_config(&id("b"), &[b"h2"])
    ));
    for n in 0..5000 {
        let _ = front.client_config(&id(&format!("s{n}")), &[]);
    }
    assert!(front.cached_clients() <= 1024);
}

#[test]
fn a_chain_without_a_handshake_gives_its_service() {
    let root = Ca::root("root");
    let leaf = root.intermediate("i").leaf(&service("user-service"));
    let chain = &leaf.leaf().chain;
    let (trust, now) = (root.trust(), SystemTime::now());
    assert_eq!(trust.verify(chain, now).unwrap(), id("user-service"));
    let late = now + Duration::from_secs(7200);
    assert!(trust.verify(chain, late).unwrap_err().is_expired());
    assert!(trust.verify(&chain[..1], now).is_err(), "no intermediate");
    assert!(trust.verify(&[], now).is_err());
}

#[test]
fn a_leaf_is_renewed_at_half_of_what_is_left() {
    let leaf = Ca::root("root").leaf(&service("a"));
    let leaf = leaf.leaf();
    let received = leaf.not_after - Duration::from_secs(1000);
    let after = |jitter| {
        leaf.renew_at(received, jitter)
            .duration_since(received)
            .unwrap()
    };
    assert_eq!(after(0.0).as_secs(), 450);
    assert_eq!(after(1.0).as_secs(), 550);
    assert_eq!(after(f64::NAN).as_secs(), 500);
    let late = leaf.not_after + Duration::from_secs(5);
    assert_eq!(leaf.renew_at(late, 0.5), late);
}

#[test]
fn a_chain_for_another_key_is_refused() {
    let ca = Ca::root("root");
    let (one, other) = (LeafKey::generate().unwrap(), LeafKey::generate().unwrap());
    let chain = ca.chain(&one, &[&service("a")], |_| {});
    let error = Credential::from_leaf_key(chain, &other).unwrap_err();
    assert!(
        error.to_string().contains("its key is not the one"),
        "{error}"
    );
    assert!(Credential::from_leaf_key(Vec::new(), &other).is_err());
}

#[test]
fn no_key_is_ever_printed() {
    let ca = Ca::root("root");
    let key = LeafKey::generate().unwrap();
    let credential =
        Credential::from_leaf_key(ca.chain(&key, &[&service("a")], |_| {}), &key).unwrap();
    let mesh = MeshTls::new(credential.clone(), ca.trust()).unwrap();
    let _ = mesh.client_config(&id("b"), &[]);
    let (_, key_pem) = ca.pem_pair(&service("a"));
    let private = crate::pem::private_key("k", key_pem.as_bytes()).unwrap();
    let shown = format!("{key:?} {credential:?} {mesh:?} {private:?}");
    assert!(shown.contains("hidden"));
    let secret: String = key_pem.lines().nth(1).unwrap().chars().take(24).collect();
    assert!(!shown.contains(&secret));
    assert!(!shown.to_lowercase().contains("begin"), "{shown}");
    assert!(shown.len() < 4000, "{shown}");
}

#[test]
fn what_is_agreed_on_by_default_withstands_a_quantum_computer() {
    let ca = Ca::root("root");
    let user = mesh(&ca, &ca, "user-service");
    let client = user.client_config(&id("user-service"), &[]);
    let (client, server) = handshake(client, user.server_config(&[])).unwrap();
    for side in [&*client as &rustls::CommonState, &*server] {
        let group = side.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, NamedGroup::X25519MLKEM768);
        let suite = side.negotiated_cipher_suite().unwrap().suite();
        assert_eq!(suite, rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    }
}

#[test]
fn two_policies_speak_with_what_both_have_and_else_not() {
    let ca = Ca::root("root");
    let (front, user) = (mesh(&ca, &ca, "frontend"), mesh(&ca, &ca, "user-service"));
    let policy = |suites: &[&'static str], exchanges: &[&'static str]| {
        Handshakes::new(suites.iter().copied(), exchanges.iter().copied()).unwrap()
    };
    let tried = |client: Handshakes, server: Handshakes| {
        front.swap_handshakes(client);
        user.swap_handshakes(server);
        let config = front.client_config(&id("user-service"), &[]);
        let (client, _) = handshake(config, user.server_config(&[]))?;
        let group = client.negotiated_key_exchange_group().unwrap().name();
        let suite = client.negotiated_cipher_suite().unwrap().suite();
        Ok::<_, (Side, rustls::Error)>((suite, group))
    };
    let (aes128, aes256) = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384");
    let all = Handshakes::default;

    let agreed = tried(policy(&[aes256, aes128], &["P-384", "X25519"]), all()).unwrap();
    let wanted = rustls::CipherSuite::TLS13_AES_256_GCM_SHA384;
    assert_eq!(
        agreed,
        (wanted, NamedGroup::secp384r1),
        "the caller's order"
    );
    let agreed = tried(all(), policy(&[aes256], &["P-384"])).unwrap();
    assert_eq!(agreed, (wanted, NamedGroup::secp384r1));

    let aes128_only = || policy(&[aes128], &["X25519"]);
    let (side, error) = tried(aes128_only(), policy(&[aes256], &["X25519"])).unwrap_err();
    assert_eq!(side, Side::Server);
    assert!(explain(&error).contains("no cipher suite that is allowed here"));
    let (side, error) = tried(aes128_only(), policy(&[aes128], &["P-384"])).unwrap_err();
    assert_eq!(side, Side::Server);
    assert!(explain(&error).contains("no key exchange that is allowed here"));

    // A configuration is made anew only where the policy is another.
    let before = user.handshakes();
    user.swap_handshakes(policy(&[aes128], &["P-384"]));
    assert!(Arc::ptr_eq(&before, &user.handshakes()));
    let first = user.client_config(&id("a"), &[]);
    assert!(Arc::ptr_eq(&first, &user.client_config(&id("a"), &[])));
    user.swap_handshakes(all());
    assert!(!Arc::ptr_eq(&first, &user.client_config(&id("a"), &[])));

    for (suites, exchanges, words) in [
        (vec![aes128], vec!["X448"], "key exchange X448"),
        (
            vec!["TLS_AES_128_CCM_SHA256"],
            vec!["X25519"],
            "cipher suite TLS_AES_128_CCM_SHA256",
        ),
        (vec![], vec!["X25519"], "the list of cipher suites"),
    ] {
        let error = Handshakes::new(suites, exchanges).unwrap_err().to_string();
        assert!(error.starts_with(words), "{error}");
    }
}
