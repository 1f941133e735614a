//! Peers and applications that are not ours: they speak less, or badly.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use mesh_model::Protocol;
use mesh_proxy::{DataPlane, Options};
use mesh_tls::MeshTls;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::support::*;

/// A peer that is no sidecar of ours: it selects one of these protocols or none.
async fn peer<F, S>(ca: &Ca, alpn: &[&[u8]], serve: F) -> SocketAddr
where
    F: Fn(TlsStream<TcpStream>) -> S + Send + 'static,
    S: Future<Output = ()> + Send + 'static,
{
    peer_with(&ca.tls("api"), alpn, serve).await
}

pub(crate) async fn peer_with<F, S>(tls: &MeshTls, alpn: &[&[u8]], serve: F) -> SocketAddr
where
    F: Fn(TlsStream<TcpStream>) -> S + Send + 'static,
    S: Future<Output = ()> + Send + 'static,
{
    let acceptor = TlsAcceptor::from(tls.server_config(alpn));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            if let Ok(tls) = acceptor.accept(socket).await {
                tokio::spawn(serve(tls));
            }
        }
    });
    address
}

/// For the tests in which a certificate ends.
pub(crate) fn short_grace() -> Options {
    let mut options = options();
    options.limits.expiry_grace = Duration::from_millis(300);
    options
}

pub(crate) async fn calling_it(ca: &Ca, protocol: Protocol, address: SocketAddr) -> Arc<DataPlane> {
    let web = DataPlane::new(ca.tls("web"), short_grace());
    let clusters = vec![("api", cluster("api", protocol, &[address]))];
    web.apply(calling("web", vec![upstream("api", protocol)], clusters))
        .await
        .unwrap();
    web
}

#[tokio::test]
async fn a_peer_of_http_1_only() {
    let ca = Ca::new();
    let address = peer(&ca, &[b"http/1.1"], |tls| async move {
        let service = service_fn(|request: Request<hyper::body::Incoming>| async move {
            let host = request.headers()["host"].to_str().unwrap().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            Ok::<_, hyper::Error>(Response::new(full(format!("{host} {}", body.len()))))
        });
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(tls), service)
            .await;
    })
    .await;
    let web = calling_it(&ca, Protocol::Http, address).await;
    for mut client in [
        Client::h1(upstream_of(&web, "api")).await,
        Client::h2(upstream_of(&web, "api")).await,
    ] {
        for _ in 0..3 {
            let got = read(client.send(request("POST", "/", "four")).await).await;
            assert_eq!(
                (got.status, got.text().as_str()),
                (200, "api.local 4"),
                "{got:?}"
            );
        }
    }
}

#[tokio::test]
async fn peers_of_one_byte_stream_a_connection() {
    // One that selects no protocol, and one that refuses ours.
    for alpn in [&[] as &[&[u8]], &[b"other"]] {
        let ca = Ca::new();
        let address = peer(&ca, alpn, |tls| async move {
            let (mut read, mut write) = tokio::io::split(tls);
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        })
        .await;
        let web = calling_it(&ca, Protocol::Tcp, address).await;
        for _ in 0..3 {
            let mut socket = TcpStream::connect(upstream_of(&web, "api")).await.unwrap();
            socket.write_all(b"hello").await.unwrap();
            socket.shutdown().await.unwrap();
            let mut got = Vec::new();
            in_time(socket.read_to_end(&mut got)).await.unwrap();
            assert_eq!(got, b"hello", "{alpn:?}");
        }
    }
}

#[tokio::test]
async fn an_instance_that_turns_streams_away_is_no_failure() {
    let ca = Ca::new();
    let full = peer(&ca, &[mesh_mux::ALPN], |tls| async move {
        let config = mesh_mux::Config {
            accept_backlog: 0, // each stream is refused
            ..Default::default()
        };
        let (_acceptor, driver) = mesh_mux::Connection::server(tls, config);
        driver.await;
    })
    .await;
    let api = ca.plane("api");
    api.apply(serving("api", Protocol::Tcp, echo().await))
        .await
        .unwrap();
    let web = ca.plane("web");
    let instances = [full, inbound_of(&api), full];
    let clusters = vec![("api", cluster("api", Protocol::Tcp, &instances))];
    web.apply(calling(
        "web",
        vec![upstream("api", Protocol::Tcp)],
        clusters,
    ))
    .await
    .unwrap();
    for _ in 0..12 {
        let mut socket = TcpStream::connect(upstream_of(&web, "api")).await.unwrap();
        socket.write_all(b"hello").await.unwrap();
        socket.shutdown().await.unwrap();
        let mut got = Vec::new();
        in_time(socket.read_to_end(&mut got)).await.unwrap();
        assert_eq!(got, b"hello");
    }
    let sent = metric(&web, "mesh_request_bytes_total", &["outbound"]);
    assert_eq!(sent, 12 * 5, "what is said again is not counted again");
    // Where all do, the application hears of it.
    let clusters = vec![("api", cluster("api", Protocol::Tcp, &[full]))];
    web.apply(calling(
        "web",
        vec![upstream("api", Protocol::Tcp)],
        clusters,
    ))
    .await
    .unwrap();
    let mut socket = TcpStream::connect(upstream_of(&web, "api")).await.unwrap();
    let _ = socket.write_all(b"hello").await;
    assert!(in_time(socket.read_to_end(&mut Vec::new())).await.is_err());
}

/// An application that answers each request of a connection with these bytes.
async fn raw_application(answer: &'static [u8], close: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut seen = Vec::new();
                loop {
                    while !seen.ends_with(b"\r\n\r\n") {
                        match socket.read_u8().await {
                            Ok(byte) => seen.push(byte),
                            Err(_) => return,
                        }
                    }
                    seen.clear();
                    socket.write_all(answer).await.unwrap();
                    if close {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn applications_of_all_kinds() {
    for (answer, close, expected) in [
        (&b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"[..], false, "ok"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", true, "until the end"),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nold", true, "old"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nrude", true, "rude"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nch\r\n0\r\n\r\n", false, "ch"),
    ] {
        let pair = Pair::new(Protocol::Http, raw_application(answer, close).await).await;
        let mut client = Client::h1(pair.address).await;
        for _ in 0..5 {
            let got = client.get("/").await;
            assert_eq!((got.status, got.text().as_str()), (200, expected), "{got:?}");
            // An application may end an idle connection without a word.
            tokio::time::sleep(std::time::Duration::from_millis(15)).await;
        }
    }
}

#[tokio::test]
async fn what_is_not_http_is_502() {
    for answer in [
        &b"what?\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"",
    ] {
        let pair = Pair::new(Protocol::Http, raw_application(answer, true).await).await;
        let got = once(pair.address, "/").await;
        assert_eq!(got.status, 502, "{got:?}");
        assert!(
            got.header("x-mesh-error").contains("the application at"),
            "{got:?}"
        );
    }
}
