//! Between servers, agents and the command line.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::testing::{Ca, Side, handshake, service};
use crate::{
    ClusterFiles, ClusterId, ClusterTls, Expect, Role, TlsError, explain, peer_cluster_id,
    peer_identity,
};

fn uri(role: Role, id: &str) -> String {
    ClusterId::new(role, id).unwrap().to_string()
}

fn part(ca: &Ca, role: Role, id: &str) -> ClusterTls {
    let (cert, key) = ca.pem_pair(&uri(role, id));
    ClusterTls::from_pem(ca.pem.as_bytes(), cert.as_bytes(), key.as_bytes()).unwrap()
}

fn write(ca: &Ca, role: Role, id: &str, folder: &Path) -> ClusterFiles {
    let files = ClusterFiles {
        ca_file: folder.join("cluster-ca.pem"),
        cert_file: folder.join("server.pem"),
        key_file: folder.join("server.key"),
    };
    let (cert, key) = ca.pem_pair(&uri(role, id));
    std::fs::write(&files.ca_file, &ca.pem).unwrap();
    std::fs::write(&files.cert_file, cert).unwrap();
    std::fs::write(&files.key_file, key).unwrap();
    files
}

#[test]
fn roles_are_kept_apart() {
    let ca = Ca::root("cluster");
    let server = part(&ca, Role::Server, "s1");
    let agent = part(&ca, Role::Agent, "node-1");
    assert_eq!(agent.id().unwrap().id(), "node-1");

    let feed = server
        .server_config(&[Role::Agent], true, &[b"h2"])
        .unwrap();
    let (client, at_server) =
        handshake(agent.client_config(Role::Server, &[b"h2"]), feed.clone()).unwrap();
    assert_eq!(peer_cluster_id(&at_server), agent.id());
    assert_eq!(peer_cluster_id(&client), server.id());
    assert_eq!(peer_identity(&client), None);

    // Raft is taken from servers only.
    let raft = server
        .server_config(&[Role::Server], true, &[b"h2"])
        .unwrap();
    let (side, error) = handshake(agent.client_config(Role::Server, &[b"h2"]), raft).unwrap_err();
    assert_eq!(side, Side::Server);
    assert_eq!(
        explain(&error),
        "expected a certificate for server, but spiffe://meshctl.internal/agent/node-1 came"
    );

    // An agent's certificate cannot play the server.
    let impostor = agent.server_config(&[Role::Agent], true, &[b"h2"]).unwrap();
    let (side, _) = handshake(agent.client_config(Role::Server, &[b"h2"]), impostor).unwrap_err();
    assert_eq!(side, Side::Client);
}

#[test]
fn one_certain_server_can_be_asked_for() {
    let ca = Ca::root("cluster");
    let (one, two) = (part(&ca, Role::Server, "s1"), part(&ca, Role::Server, "s2"));
    let expect = |id: &str| Expect::Member(ClusterId::new(Role::Server, id).unwrap());
    let listener = two.server_config(&[Role::Server], true, &[]).unwrap();
    handshake(one.client_config_for(expect("s2"), &[]), listener.clone()).unwrap();
    let error = handshake(one.client_config_for(expect("s3"), &[]), listener).unwrap_err();
    assert!(explain(&error.1).contains("server/s2 came"));
}

#[test]
fn a_leaf_of_the_mesh_is_no_part_of_the_cluster() {
    // Even when one CA signed both.
    let ca = Ca::root("one for all");
    let server = part(&ca, Role::Server, "s1");
    let mesh = crate::MeshTls::new(ca.leaf(&service("a")), ca.trust()).unwrap();
    let client = mesh.client_config(&service("b").parse().unwrap(), &[]);
    let mut config = (*server.client_config(Role::Server, &[])).clone();
    config.client_auth_cert_resolver = client.client_auth_cert_resolver.clone();
    let listener = server.server_config(&[Role::Server, Role::Agent, Role::Cli], true, &[]);
    let (side, error) = handshake(Arc::new(config), listener.unwrap()).unwrap_err();
    assert_eq!(side, Side::Server);
    assert!(explain(&error).contains("a part of the cluster is"));
}

#[test]
fn a_client_may_come_without_a_certificate_where_that_is_said() {
    let ca = Ca::root("cluster");
    let server = part(&ca, Role::Server, "s1");
    let anyone = ClusterTls::trusting("ca", ca.pem.as_bytes()).unwrap();
    assert!(anyone.id().is_none());
    assert!(matches!(
        anyone.server_config(&[Role::Cli], true, &[]),
        Err(TlsError::NoCertificate)
    ));
    let https = Arc::new(anyone.https_config());
    assert_eq!(https.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);

    let open = server.server_config(&[Role::Cli], false, &[b"h2"]).unwrap();
    let (_, seen) = handshake(https.clone(), open.clone()).unwrap();
    assert_eq!(peer_cluster_id(&seen), None);
    let closed = server.server_config(&[Role::Cli], true, &[b"h2"]).unwrap();
    assert_eq!(handshake(https, closed).unwrap_err().0, Side::Server);

    // One that is shown must be good, also where none is needed.
    let stranger = part(&Ca::root("other"), Role::Cli, "eve");
    let mut config = anyone.https_config();
    config.client_auth_cert_resolver = stranger.https_config().client_auth_cert_resolver;
    assert_eq!(
        handshake(Arc::new(config), open).unwrap_err().0,
        Side::Server
    );
}

async fn listen(config: Arc<ServerConfig>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(config);
        while let Ok((tcp, _)) = listener.accept().await {
            // Keeps the connection until the other side is gone.
            if let Ok(mut tls) = acceptor.accept(tcp).await {
                let _ = tokio::io::copy(&mut tls, &mut tokio::io::sink()).await;
            }
        }
    });
    address
}

#[tokio::test]
async fn connect_says_why_not() {
    let ca = Ca::root("cluster");
    let server = part(&ca, Role::Server, "s1");
    let agent = part(&ca, Role::Agent, "n1");
    let config = server
        .server_config(&[Role::Agent], true, &[b"h2"])
        .unwrap();
    let address = listen(config).await;
    let to = |role| Expect::Roles(vec![role]);

    let tls = agent
        .connect(&address.to_string(), to(Role::Server), &[b"h2"])
        .await
        .unwrap();
    assert_eq!(peer_cluster_id(tls.get_ref().1), server.id());
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    drop(tls);

    // By name as well as by address.
    let named = format!("localhost:{}", address.port());
    agent
        .connect(&named, to(Role::Server), &[b"h2"])
        .await
        .unwrap();

    let error = agent
        .connect(&address.to_string(), to(Role::Cli), &[b"h2"])
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "connection to {address}: expected a certificate for cli, \
             but spiffe://meshctl.internal/server/s1 came"
        )
    );

    let stranger = part(&Ca::root("other"), Role::Agent, "n1");
    let error = stranger
        .connect(&address.to_string(), to(Role::Server), &[b"h2"])
        .await
        .unwrap_err();
    assert!(error.to_string().contains("not signed by a CA"), "{error}");

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = closed.local_addr().unwrap().to_string();
    drop(closed);
    let error = agent
        .connect(&nobody, to(Role::Server), &[])
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with(&format!("connection to {nobody}: "))
    );
}

#[test]
fn files_are_read_again_all_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let old = Ca::root("old");
    let files = write(&old, Role::Server, "s1", folder.path());
    let server = ClusterTls::from_files(files.clone()).unwrap();
    assert!(!server.reload().unwrap());
    let before = server.leaf().unwrap();

    // Half written: the certificate is there, its key is not yet.
    let new = Ca::root("new");
    let (cert, key) = new.pem_pair(&uri(Role::Server, "s1"));
    std::fs::write(&files.cert_file, &cert).unwrap();
    let error = server.reload().unwrap_err();
    assert!(matches!(error, TlsError::KeyMismatch { .. }), "{error}");
    assert_eq!(server.leaf().unwrap(), before);

    // The key fits now, but nobody would trust it.
    std::fs::write(&files.key_file, &key).unwrap();
    let error = server.reload().unwrap_err().to_string();
    assert!(
        error.contains("server.pem") && error.contains("not signed by a root"),
        "{error}"
    );
    assert_eq!(server.leaf().unwrap(), before);

    let listener = server.server_config(&[Role::Server], true, &[]).unwrap();
    std::fs::write(&files.ca_file, format!("{}{}", old.pem, new.pem)).unwrap();
    assert!(server.reload().unwrap());
    assert_ne!(server.leaf().unwrap(), before);
    // The listener of before takes part in it.
    let other = part(&new, Role::Server, "s2");
    handshake(other.client_config(Role::Server, &[]), listener).unwrap();
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Ca::root("cluster");
    let good = write(&ca, Role::Server, "s1", folder.path());
    let message = |files: &ClusterFiles| {
        ClusterTls::from_files(files.clone())
            .unwrap_err()
            .to_string()
    };
    let swapped = ClusterFiles {
        cert_file: good.key_file.clone(),
        key_file: good.cert_file.clone(),
        ..good.clone()
    };
    assert!(message(&swapped).contains("server.key: it holds a private key, not a certificate"));
    let missing = ClusterFiles {
        ca_file: folder.path().join("none.pem"),
        ..good.clone()
    };
    assert!(message(&missing).contains("certificate file"));
    assert!(message(&missing).contains("none.pem"));

    let (expected, key) = ca.pem_pair(&service("a"));
    std::fs::write(&good.cert_file, expected).unwrap();
    std::fs::write(&good.key_file, key).unwrap();
    assert!(
        message(&good).contains("a part of the cluster is"),
        "{}",
        message(&good)
    );

    for (text, words) in [
        ("", "it is empty"),
        ("hello", "no -----BEGIN CERTIFICATE----- line"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n", "END line is missing"),
        (
            "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n",
            "not base64",
        ),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "certificate 1: not an",
        ),
        (
            "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
            "holds a certificate request",
        ),
    ] {
        std::fs::write(&good.cert_file, text).unwrap();
        assert!(
            message(&good).contains(words),
            "{text:?}: {}",
            message(&good)
        );
        assert!(message(&good).contains("server.pem"));
    }
    let (cert, _) = ca.pem_pair(&uri(Role::Server, "s1"));
    std::fs::write(&good.cert_file, cert).unwrap();
    std::fs::write(
        &good.key_file,
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .unwrap();
    assert!(
        message(&good).contains("is encrypted"),
        "{}",
        message(&good)
    );
    std::fs::write(&good.key_file, vec![b'x'; 1024 * 1024 + 1]).unwrap();
    assert!(message(&good).contains("larger than"), "{}", message(&good));
}
