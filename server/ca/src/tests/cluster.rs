//! `meshctl tls`.

use std::time::{Duration, SystemTime};

use mesh_tls::{ClusterId, ClusterTls, Role};

use super::{DAY, openssl, unix};
use crate::cluster::{CA_TTL, CERT_TTL, ClusterCa, Pair, create_ca, default_names};

fn id(role: Role, id: &str) -> ClusterId {
    ClusterId::new(role, id).unwrap()
}

fn ca() -> (Pair, ClusterCa) {
    let pair = create_ca("test", CA_TTL, SystemTime::now()).unwrap();
    let ca = ClusterCa::from_pem(&pair.certificate, pair.key.as_str()).unwrap();
    (pair, ca)
}

fn issue(ca: &ClusterCa, role: Role, name: &str) -> Pair {
    ca.issue(
        &id(role, name),
        &default_names(role),
        CERT_TTL,
        SystemTime::now(),
    )
    .unwrap()
}

#[tokio::test]
async fn server_and_agent_meet_with_what_was_issued() {
    let (root, ca) = ca();
    let tls = |pair: &Pair| {
        ClusterTls::from_pem(
            root.certificate.as_bytes(),
            pair.certificate.as_bytes(),
            pair.key.as_str().as_bytes(),
        )
        .unwrap()
    };
    let server = tls(&issue(&ca, Role::Server, "s1"));
    let agent = tls(&issue(&ca, Role::Agent, "node-1"));
    let cli = tls(&issue(&ca, Role::Cli, "ops"));
    assert_eq!(server.id(), Some(id(Role::Server, "s1")));

    let roles = [Role::Agent, Role::Cli];
    let config = server.server_config(&roles, true, &[b"h2"]).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let accepted = tokio::spawn(async move {
        let mut seen = Vec::new();
        for _ in 0..2 {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut tcp = tcp.into_std().unwrap();
            tcp.set_nonblocking(false).unwrap();
            seen.push(
                tokio::task::spawn_blocking(move || {
                    while connection.is_handshaking() {
                        connection.complete_io(&mut tcp).unwrap();
                    }
                    mesh_tls::peer_cluster_id(&connection)
                })
                .await
                .unwrap(),
            );
        }
        seen
    });
    for part in [&agent, &cli] {
        let expect = mesh_tls::Expect::Member(id(Role::Server, "s1"));
        part.connect(&address, expect, &[b"h2"]).await.unwrap();
    }
    assert_eq!(accepted.await.unwrap(), [agent.id(), cli.id()]);
}

#[test]
fn openssl_curl_and_browsers_take_a_server_by_its_names() {
    let (root, ca) = ca();
    let mut names = default_names(Role::Server);
    names.extend([
        "mesh.example.org".into(),
        "*.mesh.example.org".into(),
        "10.0.0.1".into(),
    ]);
    names.push("10.0.0.1".into());
    let server = ca.issue(&id(Role::Server, "s1"), &names, CERT_TTL, SystemTime::now());
    let server = server.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("ca.pem", &root.certificate);
    write("server.pem", &server.certificate);
    write("server.key", server.key.as_str());
    write("agent.pem", &issue(&ca, Role::Agent, "n1").certificate);
    for name in [
        "-verify_hostname localhost",
        "-verify_hostname a.mesh.example.org",
        "-verify_ip ::1",
        "-verify_ip 10.0.0.1",
    ] {
        let arguments =
            format!("verify -x509_strict -purpose sslserver {name} -CAfile ca.pem server.pem");
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        openssl(&arguments, folder.path());
    }
    openssl(
        &[
            "verify",
            "-purpose",
            "sslclient",
            "-CAfile",
            "ca.pem",
            "agent.pem",
        ],
        folder.path(),
    );
    openssl(
        &["pkey", "-in", "server.key", "-noout", "-check"],
        folder.path(),
    );
    let show = ["x509", "-in", "server.pem", "-noout", "-text"];
    if let Some(text) = openssl(&show, folder.path()) {
        assert!(
            text.contains("URI:spiffe://meshctl.internal/server/s1"),
            "{text}"
        );
        assert_eq!(text.matches("10.0.0.1").count(), 1, "named once");
    }
}

#[test]
fn a_certificate_never_outlives_its_ca() {
    let now = SystemTime::now();
    let root = create_ca("", 10 * DAY, now).unwrap();
    let ca = ClusterCa::from_pem(&root.certificate, root.key.as_str()).unwrap();
    let pair = ca.issue(&id(Role::Agent, "n"), &[], CERT_TTL, now).unwrap();
    assert_eq!(pair.not_after, root.not_after);
    let pair = ca.issue(&id(Role::Agent, "n"), &[], Duration::from_secs(5), now);
    assert_eq!(pair.unwrap().not_after, unix(now) + 5);
    let error = ca.issue(&id(Role::Agent, "n"), &[], CERT_TTL, now + 11 * DAY);
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("meshctl tls ca create")
    );
}

#[test]
fn what_is_wrong_is_said() {
    let (root, ca) = ca();
    let (other, _) = self::ca();
    let agent = issue(&ca, Role::Agent, "n1");
    let refused = |cert: &str, key: &str| ClusterCa::from_pem(cert, key).unwrap_err().to_string();
    let key = root.key.as_str();
    assert!(refused(&root.certificate, other.key.as_str()).contains("not the key of the CA"));
    assert!(refused(&agent.certificate, agent.key.as_str()).contains("certificate of a CA"));
    assert!(refused(key, key).contains("are the two files swapped"));
    assert!(refused(&root.certificate, &root.certificate).contains("swapped"));
    let two = format!("{}{}", root.certificate, other.certificate);
    assert!(refused(&two, key).contains("there are 2 certificates"));
    assert!(refused("", "").contains("it is empty"));

    for bad in [
        "",
        "two words",
        "-x",
        "a..b",
        "*.*.b",
        "http://a",
        "ü.example",
    ] {
        let names = [bad.to_owned()];
        let error = ca.issue(&id(Role::Server, "s"), &names, CERT_TTL, SystemTime::now());
        let error = error.unwrap_err().to_string();
        assert!(error.contains("neither a host name"), "{bad}: {error}");
    }
    let many = vec!["a.example".to_owned(); 65];
    assert!(
        ca.issue(&id(Role::Server, "s"), &many, CERT_TTL, SystemTime::now())
            .is_err()
    );
}

#[test]
fn keys_do_not_print() {
    let (root, ca) = ca();
    let shown = format!("{root:?} {ca:?} {:?}", root.key);
    assert!(
        !shown.contains("BEGIN") && shown.contains("hidden"),
        "{shown}"
    );
    let line = root.key.as_str().lines().nth(1).unwrap();
    assert!(!shown.contains(&line[..20]));
}

#[test]
fn a_ca_of_the_operators_own_will_do() {
    for algorithm in [
        &rcgen::PKCS_RSA_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
    ] {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let cert = params.self_signed(&key).unwrap().pem();
        let ca = ClusterCa::from_pem(&cert, &key.serialize_pem()).unwrap();
        let pair = issue(&ca, Role::Server, "s1");
        ClusterTls::from_pem(
            cert.as_bytes(),
            pair.certificate.as_bytes(),
            pair.key.as_str().as_bytes(),
        )
        .unwrap();
    }
}
