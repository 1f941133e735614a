//! What anybody may do to the HTTP API without asking anything of use.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mesh_tls::{Expect, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::harness::{Client, ok, one, options, pki, soon, start};
use crate::{ApiListener, Listen, Server, ServerOptions};

/// A server with its API over TLS, and where that is.
async fn tls(change: impl FnOnce(&mut ServerOptions)) -> (Server, SocketAddr) {
    let mut options = options("s1");
    options.api = vec![ApiListener {
        listen: Listen::Address(([127, 0, 0, 1], 0).into()),
        tls: true,
    }];
    change(&mut options);
    let (server, _) = start(options).await;
    let (address, _) = server.addresses().api[0];
    (server, address)
}

/// A connection without a certificate. `None`: it was turned away.
async fn stranger(address: SocketAddr) -> Option<impl AsyncReadExt + AsyncWriteExt + Unpin> {
    let trusting = pki().trusting();
    let expect = Expect::Roles(vec![Role::Server]);
    let name = address.to_string();
    let connecting = trusting.connect(&name, expect, &[b"h2"]);
    let mut stream = soon(connecting).await.ok()?;
    // In TLS 1.3 the client is done before the server has judged it: the server's first words, its
    // session tickets aside, are its HTTP/2 settings.
    stream.write_all(PREFACE).await.ok()?;
    let mut byte = [0];
    let first = soon(stream.read(&mut byte)).await;
    matches!(first, Ok(1)).then_some(stream)
}

/// HTTP/2's, and empty settings (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

/// Reads until the connection ends.
async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut bytes = Vec::new();
    // It may end by a reset.
    let _ = soon(stream.read_to_end(&mut bytes)).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn one_address_does_not_take_all_the_room() {
    let (server, address) = tls(|options| options.limits.http_connections = 8).await;
    let first = stranger(address).await.unwrap();
    let _second = stranger(address).await.unwrap();
    assert!(stranger(address).await.is_none());
    // With a certificate there is room.
    let known = Client::tls(address, &pki().tls(Role::Cli, "someone"));
    ok(&known.get("/v1/services").await);
    drop(first);
    soon(async { while stranger(address).await.is_none() {} }).await;
    server.shutdown().await;
}

#[tokio::test]
async fn who_asks_nothing_does_not_stay() {
    let idle = Duration::from_millis(200);
    let (server, address) = tls(|options| options.timing.http_idle = idle).await;
    let mut silent = stranger(address).await.unwrap();
    rest(&mut silent).await;
    // And one that says nothing at all.
    let expect = Expect::Roles(vec![Role::Server]);
    let trusting = pki().trusting();
    let name = address.to_string();
    let mut mute = trusting.connect(&name, expect, &[b"h2"]).await.unwrap();
    rest(&mut mute).await;
    server.shutdown().await;
}

#[tokio::test]
async fn to_wait_needs_a_certificate() {
    let (server, address) = tls(|_| {}).await;
    let nobody = Client::tls(address, &pki().trusting());
    let roots = nobody.get("/v1/ca/roots").await;
    assert_eq!(roots.status, 200);
    let path = format!("/v1/ca/roots?index={}&wait=10m", roots.index());
    let refused = nobody.get(&path).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (403, "forbidden")
    );
    let agent = Client::tls(address, &pki().tls(Role::Agent, "n1"));
    let path = format!("/v1/ca/roots?index={}&wait=1ms", roots.index());
    assert_eq!(agent.get(&path).await.status, 200);
    server.shutdown().await;
}

#[tokio::test]
async fn a_head_that_drips_is_not_waited_for() {
    let mut options = options("s1");
    options.timing.http_head = Duration::from_millis(500);
    let (server, _) = start(options).await;
    let (address, _) = server.addresses().api[0];
    let begin = Instant::now();
    let (mut from, mut to) = TcpStream::connect(address).await.unwrap().into_split();
    let drip = tokio::spawn(async move {
        let head = b"GET /v1/status HTTP/1.1\r\nhost: localhost\r\nx-long: ";
        let mut left = head.iter().copied().chain(std::iter::repeat(b'x'));
        while let Some(byte) = left.next()
            && to.write_all(&[byte]).await.is_ok()
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    rest(&mut from).await;
    assert!(begin.elapsed() >= Duration::from_millis(500));
    drip.abort();
    server.shutdown().await;
}

#[tokio::test]
async fn a_head_has_a_longest() {
    let (server, address) = tls(|options| {
        options.api.push(ApiListener {
            listen: Listen::Address(([127, 0, 0, 1], 0).into()),
            tls: false,
        });
    })
    .await;
    let (plain, _) = server.addresses().api[1];
    let head = |length: usize| {
        let long = "x".repeat(length);
        format!(
            "GET /v1/status HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx-long: {long}\r\n\r\n"
        )
    };
    // A head that came at one read may be longer than the buffer that it was read into.
    for (length, status) in [(16 << 10, "200"), (256 << 10, "431")] {
        let mut stream = TcpStream::connect(plain).await.unwrap();
        let _ = stream.write_all(head(length).as_bytes()).await;
        let answer = rest(&mut stream).await;
        assert_eq!(answer.get(9..12), Some(status), "{length}: {answer}");
    }
    // HTTP/2 counts what the head is, not what it is packed in.
    let known = Client::tls(address, &pki().tls(Role::Cli, "someone"));
    let ask = async |length: usize| {
        let request = known.request(reqwest::Method::GET, "/v1/status");
        let answer = soon(request.header("x-long", "x".repeat(length)).send()).await;
        answer.is_ok_and(|answer| answer.status() == 200)
    };
    assert!(ask(16 << 10).await);
    assert!(!ask(33 << 10).await);
    server.shutdown().await;
}

#[tokio::test]
async fn a_body_that_drips_is_not_waited_for() {
    let (server, client) = one().await;
    let (address, _) = server.addresses().api[0];
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = "PUT /v1/services/web HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut from, mut to) = stream.into_split();
    let drip = tokio::spawn(async move {
        while to.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let mut answer = [0; 12];
    soon(from.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 504");
    drip.abort();
    assert_eq!(client.get("/v1/services/web").await.status, 404);
    server.shutdown().await;
}
