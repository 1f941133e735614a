//! What begins as HTTP and becomes something else, as WebSocket does.

use std::time::{Duration, Instant};

use hyper::Response;
use hyper_util::rt::TokioIo;
use mesh_model::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

/// Upgrades to an echo, if asked.
pub(crate) async fn upgrading() -> std::net::SocketAddr {
    application(|mut request| async move {
        if request
            .headers()
            .get("upgrade")
            .is_none_or(|value| value != "echo")
        {
            return Response::builder()
                .status(426)
                .body(full("upgrade!"))
                .unwrap();
        }
        assert_eq!(request.headers()["x-mesh-source"], identity("web"));
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let io = TokioIo::new(upgrade.await.unwrap());
            let (mut read, mut write) = tokio::io::split(io);
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        });
        let answer = Response::builder()
            .status(101)
            .header("connection", "upgrade");
        answer.header("upgrade", "echo").body(full("")).unwrap()
    })
    .await
}

pub(crate) async fn begin(address: std::net::SocketAddr) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    // The first bytes of what comes after go with the request.
    let request = b"GET /ws HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\nupgrade: echo\r\n\r\nfirst";
    socket.write_all(request).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(in_time(socket.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(
        head.contains("upgrade: echo") && head.contains("connection: upgrade"),
        "{head}"
    );
    let mut first = [0; 5];
    in_time(socket.read_exact(&mut first)).await.unwrap();
    assert_eq!(&first, b"first");
    socket
}

#[tokio::test]
async fn bytes_flow_both_ways_and_end() {
    let pair = Pair::new(Protocol::Http, upgrading().await).await;
    let mut socket = begin(pair.address).await;
    for _ in 0..3 {
        socket.write_all(b"hello").await.unwrap();
        let mut got = [0; 5];
        in_time(socket.read_exact(&mut got)).await.unwrap();
        assert_eq!(&got, b"hello");
    }
    socket.shutdown().await.unwrap();
    let mut rest = Vec::new();
    in_time(socket.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty());
    until("it is counted", || {
        metric(&pair.web, "mesh_requests_total", &["code=\"101\""]) == 1
    })
    .await;
    // Who does not upgrade is an ordinary answer.
    assert_eq!(once(pair.address, "/").await.status, 426);
}

#[tokio::test]
async fn a_deny_cuts_it() {
    let pair = Pair::new(Protocol::Http, upgrading().await).await;
    let mut socket = begin(pair.address).await;
    let denied = Instant::now();
    pair.api.apply_policy(&policy("deny", &[]));
    let mut rest = Vec::new();
    let _ = in_time(socket.read_to_end(&mut rest)).await;
    assert!(denied.elapsed() < Duration::from_secs(1));
}
