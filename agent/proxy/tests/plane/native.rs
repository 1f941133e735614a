//! Applications that are in the mesh by themselves: plain TLS with the mesh's certificates, as
//! called and as caller.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_model::Protocol;
use mesh_proxy::DataPlane;
use mesh_tls::MeshTls;
use rustls_pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::support::*;

/// Calls a sidecar of `api` as a library does that knows nothing of names: none is sent.
async fn nameless(
    tls: &MeshTls,
    address: SocketAddr,
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let config = tls.client_config(&identity("api").parse().unwrap(), alpn);
    let name = ServerName::from(address.ip());
    let socket = TcpStream::connect(address).await.unwrap();
    TlsConnector::from(config).connect(name, socket).await
}

async fn echoed(mut stream: TlsStream<TcpStream>, sent: &[u8]) -> Vec<u8> {
    stream.write_all(sent).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut got = Vec::new();
    in_time(stream.read_to_end(&mut got)).await.unwrap();
    got
}

#[tokio::test]
async fn a_native_caller_of_byte_streams() {
    let ca = Ca::new();
    let api = ca.plane("api");
    let mut config = serving("api", Protocol::Tcp, echo().await);
    config.policy = policy("deny", &[intention("web", "api", "allow")]);
    api.apply(config).await.unwrap();
    let (web, bad) = (ca.tls("web"), ca.tls("bad"));
    // None, and what the usual library in Go always offers, whatever the bytes are.
    for alpn in [&[] as &[&[u8]], &[b"h2"]] {
        let stream = nameless(&web, inbound_of(&api), alpn).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), None, "{alpn:?}");
        assert_eq!(echoed(stream, b"hello").await, b"hello", "{alpn:?}");

        // Who it is its certificate says.
        let mut stream = nameless(&bad, inbound_of(&api), alpn).await.unwrap();
        let mut got = Vec::new();
        let _ = in_time(stream.read_to_end(&mut got)).await;
        assert_eq!(got, b"");
    }
    // A sidecar offers more, and is answered as ever.
    let stream = nameless(&web, inbound_of(&api), &[b"h2", b"http/1.1"]);
    let stream = stream.await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let foreign = Ca::new().tls("web");
    let mut got = Vec::new();
    if let Ok(mut stream) = nameless(&foreign, inbound_of(&api), &[]).await {
        let _ = in_time(stream.read_to_end(&mut got)).await;
    }
    assert_eq!(got, b"", "of another CA");
}

#[tokio::test]
async fn a_native_caller_of_http_is_decided_request_by_request() {
    let ca = Ca::new();
    let api = ca.plane("api");
    let mut config = serving("api", Protocol::Http, telling("api").await);
    let only_public = json!([{"action": "allow", "path_prefix": "/public/"}]);
    config.policy = policy("deny", &[permissions("web", "api", only_public)]);
    api.apply(config).await.unwrap();
    let web = ca.tls("web");
    for http2 in [false, true] {
        let stream = nameless(&web, inbound_of(&api), &[]).await.unwrap();
        let mut client = match http2 {
            false => {
                let io = TokioIo::new(stream);
                let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
                tokio::spawn(connection);
                Client::H1(sender)
            }
            true => {
                let (io, executor) = (TokioIo::new(stream), TokioExecutor::new());
                let begun = hyper::client::conn::http2::handshake(executor, io).await;
                let (sender, connection) = begun.unwrap();
                tokio::spawn(connection);
                Client::H2(sender)
            }
        };
        let got = client.get("/public/a").await;
        assert_eq!(got.status, 200, "{got:?}");
        let caller = &got.json()["headers"]["x-mesh-source"];
        assert_eq!(*caller, json!(identity("web")), "{got:?}");
        assert_eq!(client.get("/private").await.status, 403);
        assert_eq!(client.get("/public/../private").await.status, 403);
    }
    // What is not HTTP reaches nobody.
    let mut stream = nameless(&web, inbound_of(&api), &[]).await.unwrap();
    stream.write_all(b"\x00\x01\x02\r\n\r\n").await.unwrap();
    let mut got = Vec::new();
    let _ = in_time(stream.read_to_end(&mut got)).await;
    let got = String::from_utf8_lossy(&got).into_owned();
    assert!(got.is_empty() || got.starts_with("HTTP/1.1 400"), "{got}");
}

/// A native application of `api` that takes one of these protocols, or one that is not named.
/// Counts connections, and handshakes that failed.
async fn native(ca: &Ca, alpn: &[&[u8]]) -> (SocketAddr, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let acceptor = TlsAcceptor::from(ca.tls("api").server_config(alpn));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let counts = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (all, failed) = counts.clone();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            all.fetch_add(1, Ordering::SeqCst);
            match acceptor.accept(socket).await {
                Err(_) => {
                    failed.fetch_add(1, Ordering::SeqCst);
                }
                Ok(tls) => {
                    tokio::spawn(async move {
                        let (mut read, mut write) = tokio::io::split(tls);
                        let _ = tokio::io::copy(&mut read, &mut write).await;
                        let _ = write.shutdown().await;
                    });
                }
            }
        }
    });
    (address, counts.0, counts.1)
}

#[tokio::test]
async fn a_native_instance_sees_no_connection_but_those_for_it() {
    let ca = Ca::new();
    for alpn in [&[] as &[&[u8]], &[b"h2"]] {
        let (address, all, failed) = native(&ca, alpn).await;
        let web = DataPlane::new(ca.tls("web"), options());
        let mut api = cluster("api", Protocol::Tcp, &[address]);
        api.endpoints[0].native = true;
        let upstreams = vec![upstream("api", Protocol::Tcp)];
        web.apply(calling("web", upstreams, vec![("api", api)]))
            .await
            .unwrap();
        for _ in 0..3 {
            let mut socket = TcpStream::connect(upstream_of(&web, "api")).await.unwrap();
            socket.write_all(b"hello").await.unwrap();
            socket.shutdown().await.unwrap();
            let mut got = Vec::new();
            in_time(socket.read_to_end(&mut got)).await.unwrap();
            assert_eq!(got, b"hello", "{alpn:?}");
        }
        let seen = (all.load(Ordering::SeqCst), failed.load(Ordering::SeqCst));
        assert_eq!(seen, (3, 0), "{alpn:?}");
    }
}
