//! The policy of handshakes between sidecars: on both sides, and changed under load.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use mesh_model::{CipherSuite, KeyExchange, Protocol, TlsPolicy};
use mesh_proxy::DataPlane;
use mesh_tls::{Credential, Handshakes, MeshTls};
use rcgen::{KeyUsagePurpose, SanType};
use rustls::NamedGroup;
use serde_json::json;
use tokio::net::TcpStream;

use crate::change::Load;
use crate::support::*;

fn exchanges(list: &[KeyExchange]) -> TlsPolicy {
    TlsPolicy {
        key_exchange: list.to_vec(),
        ..TlsPolicy::default()
    }
}

/// What a caller that offers all agrees on with a sidecar, or what the sidecar says to it.
async fn agreed(
    tls: &Arc<MeshTls>,
    address: SocketAddr,
) -> Result<(NamedGroup, String), std::io::Error> {
    let config = tls.client_config(&identity("api").parse().unwrap(), &[b"h2"]);
    let name = format!("api.default.dc1.internal.{DOMAIN}");
    let socket = TcpStream::connect(address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(config);
    let mut connection = connector.connect(name.try_into().unwrap(), socket).await?;
    // In TLS 1.3 the caller's certificate is judged after its handshake is done.
    let _ = tokio::io::AsyncReadExt::read(&mut connection, &mut [0]).await?;
    let session = connection.get_ref().1;
    let suite = session.negotiated_cipher_suite().unwrap().suite();
    let group = session.negotiated_key_exchange_group().unwrap().name();
    Ok((group, format!("{suite:?}")))
}

async fn takes(plane: &DataPlane, config: &mut mesh_proto::config::ProxyConfig, tls: TlsPolicy) {
    config.tls = tls;
    plane.apply(config.clone()).await.unwrap();
}

#[tokio::test]
async fn sidecars_agree_on_keys_that_withstand_a_quantum_computer_unless_told_otherwise() {
    let mut pair = Pair::new(Protocol::Http, telling("api").await).await;
    let inbound = inbound_of(&pair.api);
    let all = pair.ca.tls("web");
    let (group, suite) = agreed(&all, inbound).await.unwrap();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
    assert_eq!(suite, "TLS13_AES_128_GCM_SHA256");
    let policy = TlsPolicy {
        cipher_suites: vec![CipherSuite::Aes256Gcm],
        ..exchanges(&[KeyExchange::P384])
    };
    takes(&pair.api, &mut pair.api_config, policy).await;
    let (group, suite) = agreed(&all, inbound).await.unwrap();
    assert_eq!(group, NamedGroup::secp384r1, "after a second hello");
    assert_eq!(suite, "TLS13_AES_256_GCM_SHA384");
}

#[tokio::test]
async fn a_policy_holds_on_both_sides() {
    let mut pair = Pair::new(Protocol::Http, telling("api").await).await;
    // The one who is called: a caller that has nothing of it is refused.
    let inbound = inbound_of(&pair.api);
    takes(
        &pair.api,
        &mut pair.api_config,
        exchanges(&[KeyExchange::P384]),
    )
    .await;
    let other = pair.ca.tls("web");
    let suites = CipherSuite::ALL.map(|one| one.as_str());
    other.swap_handshakes(Handshakes::new(suites, ["X25519", "P-256"]).unwrap());
    let refused = agreed(&other, inbound).await.unwrap_err().to_string();
    assert!(refused.contains("HandshakeFailure"), "{refused}");
    until("it is counted", || {
        let name = "mesh_tls_handshake_failures_total";
        metric(&pair.api, name, &["reason=\"nothing_in_common\""]) == 1
    })
    .await;
    // The caller: it offers nothing else.
    takes(
        &pair.web,
        &mut pair.web_config,
        exchanges(&[KeyExchange::X25519]),
    )
    .await;
    let got = once(pair.address, "/").await;
    assert_eq!(got.status, 503, "{got:?}");
    takes(
        &pair.web,
        &mut pair.web_config,
        exchanges(&[KeyExchange::X25519, KeyExchange::P384]),
    )
    .await;
    assert_eq!(once(pair.address, "/").await.status, 200);
}

#[tokio::test]
async fn policies_change_under_load_and_no_request_fails() {
    let mut pair = Pair::new(Protocol::Http, telling("api").await).await;
    let kept = Client::h1(pair.address).await;
    let load = Load::start(pair.address);
    load.more(100).await;
    let both = exchanges(&[KeyExchange::X25519, KeyExchange::P384]);
    for policy in [
        exchanges(&[KeyExchange::X25519]),
        both.clone(),
        exchanges(&[KeyExchange::P384]),
        TlsPolicy {
            cipher_suites: vec![CipherSuite::Chacha20Poly1305, CipherSuite::Aes256Gcm],
            ..TlsPolicy::default()
        },
        TlsPolicy {
            cipher_suites: vec![CipherSuite::Aes256Gcm],
            ..exchanges(&[KeyExchange::P384, KeyExchange::Secp256r1MlKem768])
        },
    ] {
        // For a while one side has it and the other has not; and each makes new connections.
        takes(&pair.api, &mut pair.api_config, policy.clone()).await;
        drop_connections(&mut pair).await;
        load.more(100).await;
        takes(&pair.web, &mut pair.web_config, policy).await;
        drop_connections(&mut pair).await;
        load.more(100).await;
    }
    load.stop().await;
    let mut kept = kept;
    assert_eq!(kept.get("/").await.status, 200, "a live connection goes on");
}

/// Another instance in front of the same application, so that there are new handshakes.
async fn drop_connections(pair: &mut Pair) {
    let api = pair.ca.plane("api");
    api.apply(pair.api_config.clone()).await.unwrap();
    let new = cluster("api", Protocol::Http, &[inbound_of(&api)]);
    pair.web_config.clusters.insert("api".to_owned(), new);
    pair.web.apply(pair.web_config.clone()).await.unwrap();
    let old = std::mem::replace(&mut pair.api, api);
    tokio::spawn(async move { old.drain(LONG).await });
}

#[tokio::test]
async fn a_name_of_tomorrow_is_refused_and_the_last_config_stays() {
    let pair = Pair::new(Protocol::Http, telling("api").await).await;
    let mut config = serde_json::to_value(&pair.api_config).unwrap();
    config["tls"] = json!({ "key_exchange": ["X25519MLKEM1024"] });
    let read = serde_json::from_value::<mesh_proto::config::ProxyConfig>(config);
    let refused = read.unwrap_err().to_string();
    assert!(
        refused.contains("key exchange `X25519MLKEM1024` is not known"),
        "{refused}"
    );
    assert_eq!(once(pair.address, "/").await.status, 200);
}

/// What the sidecars of this process log.
fn logged() -> &'static Mutex<Vec<u8>> {
    static LOG: OnceLock<Mutex<Vec<u8>>> = OnceLock::new();
    LOG.get_or_init(|| {
        struct Lines;
        impl std::io::Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                logged().lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let subscriber = tracing_subscriber::fmt().with_ansi(false);
        subscriber.with_writer(|| Lines).init();
        Mutex::default()
    })
}

/// Waits for a line with all of this.
async fn says(words: &[&str]) {
    let has = || {
        let log = logged().lock().unwrap();
        let text = String::from_utf8_lossy(&log);
        text.lines()
            .any(|line| words.iter().all(|one| line.contains(one)))
    };
    until(&format!("a line with {words:?}"), has).await;
}

#[tokio::test]
async fn what_is_refused_is_logged_with_the_rule_the_address_and_the_identity() {
    logged();
    let (ca, stranger) = (Ca::new(), Ca::new());
    let hour = Duration::from_secs(3600);
    let other = "spiffe://other.mesh/ns/default/dc/dc1/svc/SERVICE";
    type Make<'a> = Box<dyn Fn(&str) -> Credential + 'a>;
    let cases: Vec<(Make<'_>, &str, bool)> = vec![
        (
            Box::new(|name| stranger.leaf(name)),
            "not signed by a root of trust domain",
            true,
        ),
        (
            Box::new(|name| {
                ca.leaf_with(name, |p| {
                    p.not_after = (SystemTime::now() - Duration::from_secs(5)).into();
                })
            }),
            "expired",
            true,
        ),
        (
            Box::new(|name| {
                ca.leaf_with(name, |p| {
                    p.not_before = (SystemTime::now() + hour / 2).into()
                })
            }),
            "valid only in",
            true,
        ),
        (
            Box::new(|name| {
                let uri = other.replace("SERVICE", name);
                ca.leaf_with(name, |p| {
                    p.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().unwrap())];
                })
            }),
            "spiffe://other.mesh/ns/default/dc/dc1/svc/",
            false,
        ),
        (
            Box::new(|name| ca.leaf_with(name, |p| p.key_usages.push(KeyUsagePurpose::CrlSign))),
            "may not sign certificates or revocation lists",
            true,
        ),
    ];
    for (make, rule, has_id) in cases {
        // A caller that shows it.
        let pair = Pair::new(Protocol::Http, telling("api").await).await;
        let api = DataPlane::new(ca.tls("api"), options());
        api.apply(pair.api_config.clone()).await.unwrap();
        let mut config = (*ca
            .tls("web")
            .client_config(&identity("api").parse().unwrap(), &[b"h2"]))
        .clone();
        config.client_auth_cert_resolver = shown(&make("web"));
        let socket = TcpStream::connect(inbound_of(&api)).await.unwrap();
        let from = socket.local_addr().unwrap().to_string();
        let name = format!("api.default.dc1.internal.{DOMAIN}")
            .try_into()
            .unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        if let Ok(mut tls) = connector.connect(name, socket).await {
            let _ = tokio::io::AsyncReadExt::read(&mut tls, &mut [0]).await;
        }
        let id = identity("web");
        let id = if has_id { id.as_str() } else { "web" };
        says(&[&from, rule, id]).await;

        // And one who is called.
        let mut config = (*ca.tls("api").server_config(&[b"h2"])).clone();
        config.cert_resolver = shown(&make("api"));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let peer = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let _ = acceptor.accept(socket).await;
            }
        });
        let web = crate::foreign::calling_it(&ca, Protocol::Http, address).await;
        assert_eq!(once(upstream_of(&web, "api"), "/").await.status, 503);
        let id = identity("api");
        let id = if has_id { id.as_str() } else { "api" };
        says(&[&address.to_string(), rule, id]).await;
        peer.abort();
    }
}

fn shown(credential: &Credential) -> Arc<rustls::sign::SingleCertAndKey> {
    Arc::new(rustls::sign::SingleCertAndKey::from(
        credential.certified_key(),
    ))
}
