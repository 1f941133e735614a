//! Certificates that are good, and that nobody is to believe any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_model::Protocol;
use mesh_proxy::DataPlane;
use mesh_tls::{Credential, MeshTls, PeerLeaf, Revocations};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

/// What is promised of a revocation.
const PROMISED: Duration = Duration::from_secs(1);

fn service(name: &str) -> Revocations {
    Revocations::new([identity(name)], [], [])
}

fn nobody_is() -> Revocations {
    Revocations::default()
}

fn leaf_of(credential: &Credential) -> PeerLeaf {
    PeerLeaf::read(&credential.leaf().chain[0]).unwrap()
}

/// Streams of the application that are in use.
async fn streams(pair: &Pair, count: usize) -> Vec<TcpStream> {
    let mut sockets = Vec::new();
    for _ in 0..count {
        let mut socket = TcpStream::connect(pair.address).await.unwrap();
        assert!(echoes(&mut socket).await);
        sockets.push(socket);
    }
    sockets
}

async fn echoes(socket: &mut TcpStream) -> bool {
    let mut got = [0];
    socket.write_all(b"x").await.is_ok() && in_time(socket.read_exact(&mut got)).await.is_ok()
}

async fn end(socket: &mut TcpStream) {
    let mut rest = Vec::new();
    let _ = in_time(socket.read_to_end(&mut rest)).await;
    assert!(rest.is_empty());
}

/// Whichever side hears of it cuts: the called one, and the calling one.
#[tokio::test]
async fn live_streams_are_cut_and_new_ones_refused_until_it_is_good_again() {
    for caller_hears in [false, true] {
        let pair = Pair::new(Protocol::Tcp, echo().await).await;
        let (hears, revoked): (&DataPlane, _) = match caller_hears {
            false => (&pair.api, service("web")),
            true => (&pair.web, service("api")),
        };
        let mut sockets = streams(&pair, 20).await;
        // Another's is nothing to them.
        hears.revoke(service("other"));
        assert!(echoes(&mut sockets[0]).await);

        let begin = Instant::now();
        hears.revoke(revoked);
        for socket in &mut sockets {
            end(socket).await;
        }
        assert!(begin.elapsed() < PROMISED, "{:?}", begin.elapsed());
        assert_eq!(
            metric(hears, "mesh_revoked_connections_cut_total", &[]),
            1,
            "one connection carried them all"
        );
        let mut socket = TcpStream::connect(pair.address).await.unwrap();
        assert!(!echoes(&mut socket).await);
        let refused = match caller_hears {
            false => "mesh_tls_handshake_failures_total",
            true => "mesh_upstream_connect_failures_total",
        };
        assert!(metric(hears, refused, &["reason=\"revoked\""]) > 0);

        hears.revoke(nobody_is());
        until_it_works(&pair).await;
    }
}

async fn until_it_works(pair: &Pair) {
    in_time(async {
        loop {
            if let Ok(mut socket) = TcpStream::connect(pair.address).await
                && echoes(&mut socket).await
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn live_calls_are_cut_whichever_side_hears() {
    for protocol in [Protocol::Http, Protocol::Http2] {
        for caller_hears in [false, true] {
            let application = application(|request: hyper::Request<_>| async move {
                match request.uri().path() {
                    "/" => hyper::Response::new(full("yes")),
                    _ => std::future::pending().await,
                }
            })
            .await;
            let pair = Pair::new(protocol, application).await;
            assert_eq!(once(pair.address, "/").await.status, 200);
            let address = pair.address;
            let waiting = tokio::spawn(async move { once(address, "/never").await });
            tokio::time::sleep(Duration::from_millis(100)).await;

            let begin = Instant::now();
            let hears = match caller_hears {
                false => &pair.api,
                true => &pair.web,
            };
            hears.revoke(service(if caller_hears { "api" } else { "web" }));
            let got = in_time(waiting).await.unwrap();
            assert!(got.status >= 400, "{got:?}");
            assert!(begin.elapsed() < PROMISED, "{:?}", begin.elapsed());
            answers(&pair, 503).await;
            hears.revoke(nobody_is());
            answers(&pair, 200).await;
        }
    }
}

/// Waits until a call is answered so: a connection that lives is cut a moment later.
async fn answers(pair: &Pair, status: u16) {
    in_time(async {
        while once(pair.address, "/").await.status != status {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// A connection that nobody uses at the moment ends too, whatever is spoken on it.
#[tokio::test]
async fn idle_connections_are_closed() {
    let pair = Pair::new(Protocol::Http, telling("api").await).await;
    for alpn in [&[&b"h2"[..]][..], &[&b"http/1.1"[..]], &[]] {
        let mut tls = as_web(&pair.ca, inbound_of(&pair.api), alpn).await;
        if alpn == [b"http/1.1"] {
            let request = b"GET / HTTP/1.1\r\nhost: api\r\n\r\n";
            tls.write_all(request).await.unwrap();
            in_time(tls.read(&mut [0; 4096])).await.unwrap();
        }
        let begin = Instant::now();
        pair.api.revoke(service("web"));
        let mut rest = Vec::new();
        let _ = in_time(tls.read_to_end(&mut rest)).await;
        assert!(
            begin.elapsed() < PROMISED,
            "{alpn:?}: {:?}",
            begin.elapsed()
        );
        pair.api.revoke(nobody_is());
    }
}

/// By its serial number or its key only that leaf is refused; with another key the same sidecar is
/// believed, and with an older leaf of the same key it is not.
#[tokio::test]
async fn one_leaf_is_refused_and_the_next_is_not() {
    for by_key in [false, true] {
        let ca = Ca::new();
        let (stolen, next) = (ca.leaf("web"), ca.leaf("web"));
        let api = ca.plane("api");
        api.apply(serving("api", Protocol::Http, telling("api").await))
            .await
            .unwrap();
        let tls = Arc::new(MeshTls::new(stolen.clone(), ca.trust(&[])).unwrap());
        let web = DataPlane::new(tls.clone(), options());
        let clusters = vec![("api", cluster("api", Protocol::Http, &[inbound_of(&api)]))];
        let upstreams = vec![upstream("api", Protocol::Http)];
        web.apply(calling("web", upstreams, clusters))
            .await
            .unwrap();
        let address = upstream_of(&web, "api");
        assert_eq!(once(address, "/").await.status, 200);
        let leaf = leaf_of(&stolen);
        api.revoke(match by_key {
            false => Revocations::new([], [leaf.serial], []),
            true => Revocations::new([], [], [leaf.key]),
        });
        in_time(async {
            while once(address, "/").await.status != 503 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        tls.swap_leaf(next).unwrap();
        in_time(async {
            while once(address, "/").await.status != 200 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

/// An instance whose leaf is revoked is passed over: the next one answers, and the application
/// hears nothing of it.
#[tokio::test]
async fn another_instance_is_chosen() {
    let ca = Ca::new();
    let mut instances = Vec::new();
    let bad = ca.leaf("api");
    for leaf in [bad.clone(), ca.leaf("api")] {
        let tls = Arc::new(MeshTls::new(leaf, ca.trust(&[])).unwrap());
        let api = DataPlane::new(tls, options());
        let config = serving("api", Protocol::Http, telling("api").await);
        api.apply(config).await.unwrap();
        instances.push(api);
    }
    let web = ca.plane("web");
    let addresses: Vec<_> = instances.iter().map(|one| inbound_of(one)).collect();
    let clusters = vec![("api", cluster("api", Protocol::Http, &addresses))];
    let config = calling("web", vec![upstream("api", Protocol::Http)], clusters);
    web.apply(config).await.unwrap();
    web.revoke(Revocations::new([], [leaf_of(&bad).serial], []));
    let address = upstream_of(&web, "api");
    for _ in 0..20 {
        assert_eq!(once(address, "/").await.status, 200);
    }
    let none = metric(&instances[0], "mesh_requests_total", &["inbound"]);
    assert_eq!(none, 0);
}

#[tokio::test]
async fn what_is_not_understood_may_be_anybody() {
    let pair = Pair::new(Protocol::Http, telling("api").await).await;
    assert_eq!(once(pair.address, "/").await.status, 200);
    pair.api.revoke(Revocations::everybody());
    answers(&pair, 503).await;
}
