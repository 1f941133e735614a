//! Bodies that break, and framings that are none, on the way through.

use std::net::SocketAddr;

use mesh_model::{ExposePath, Protocol};
use mesh_proxy::BoundTo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::support::*;

/// An application that says this when a head has come, and tells when a
/// connection to it has ended.
async fn saying(answer: &'static str) -> (SocketAddr, mpsc::UnboundedReceiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ends, ended) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let ends = ends.clone();
            tokio::spawn(async move {
                let (mut got, mut piece) = (Vec::new(), [0; 4096]);
                let mut said = false;
                while let Ok(read @ 1..) = socket.read(&mut piece).await {
                    got.extend_from_slice(&piece[..read]);
                    if !said && got.windows(4).any(|end| end == b"\r\n\r\n") {
                        said = true;
                        let _ = socket.write_all(answer.as_bytes()).await;
                    }
                }
                let _ = ends.send(());
            });
        }
    });
    (address, ended)
}

const BEGUN: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n";
const UPLOAD: &[u8] = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\nabc";

#[tokio::test]
async fn the_application_learns_that_a_caller_has_gone_within_its_body() {
    async fn goes(
        mut socket: impl AsyncRead + AsyncWrite + Unpin,
        ended: &mut mpsc::UnboundedReceiver<()>,
    ) {
        socket.write_all(UPLOAD).await.unwrap();
        let mut got = Vec::new();
        while !got.ends_with(b"hi\r\n") {
            assert_ne!(in_time(socket.read_buf(&mut got)).await.unwrap(), 0);
        }
        drop(socket);
        in_time(ended.recv()).await.unwrap();
    }
    let (application, mut ended) = saying(BEGUN).await;
    let pair = Pair::new(Protocol::Http, application).await;
    let inbound = inbound_of(&pair.api);
    goes(as_web(&pair.ca, inbound, &[b"http/1.1"]).await, &mut ended).await;
    goes(TcpStream::connect(pair.address).await.unwrap(), &mut ended).await;
}

async fn raw(address: SocketAddr, request: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    in_time(socket.read_to_string(&mut text)).await.unwrap();
    text
}

#[tokio::test]
async fn a_broken_upload_is_the_callers() {
    let (application, _ended) = saying("").await;
    let pair = Pair::new(Protocol::Http, application).await;
    let bad = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nno size\r\n";
    let text = raw(pair.address, bad).await;
    assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
    assert!(text.contains("body broke off"), "{text}");
    let mut gone = TcpStream::connect(pair.address).await.unwrap();
    gone.write_all(UPLOAD).await.unwrap();
    drop(gone);
    until("both are counted as the caller's", || {
        metric(&pair.web, "mesh_requests_total", &["outbound", "code=\"4"]) == 2
    })
    .await;
    assert_eq!(
        metric(
            &pair.web,
            "mesh_requests_total",
            &["outbound", "code=\"502\""]
        ),
        0
    );
}

#[tokio::test]
async fn a_trailer_for_a_connection_hinders_nothing() {
    let pair = Pair::new(Protocol::Http, telling("api").await).await;
    for name in [
        "Connection",
        "TE",
        "Upgrade",
        "Keep-Alive",
        "Transfer-Encoding",
        "Proxy-Connection",
    ] {
        let request = format!(
            "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
             3\r\nabc\r\n0\r\n{name}: x\r\n\r\n"
        );
        let text = raw(pair.address, &request).await;
        assert!(text.starts_with("HTTP/1.1 200 "), "{name}: {text}");
        assert!(text.contains("\"body\":\"abc\""), "{name}: {text}");
    }
    let answer = "HTTP/1.1 200 OK\r\ntrailer: connection\r\ntransfer-encoding: chunked\r\n\r\n\
                  3\r\nabc\r\n0\r\nconnection: x\r\n\r\n";
    let (application, _ended) = saying(answer).await;
    let pair = Pair::new(Protocol::Http, application).await;
    assert_eq!(once(pair.address, "/").await.text(), "abc");
}

#[tokio::test]
async fn answers_in_a_coding_that_is_not_known() {
    for (answer, status, body) in [
        ("transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 502, ""),
        ("transfer-encoding: gzip\r\n\r\nxyz", 502, ""),
        (
            "transfer-encoding: identity\r\ncontent-length: 3\r\n\r\nxyz",
            200,
            "xyz",
        ),
        (
            "connection: transfer-encoding\r\ncontent-length: 30\r\ntransfer-encoding: chunked\r\n\r\n\
             3\r\nxyz\r\n0\r\n\r\n",
            200,
            "xyz",
        ),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{answer}").leak();
        let (application, _ended) = saying(answer).await;
        let pair = Pair::new(Protocol::Http, application).await;
        let got = once(pair.address, "/").await;
        assert_eq!(got.status, status, "{answer}: {got:?}");
        if status == 200 {
            assert_eq!(got.text(), body, "{answer}");
        }
    }
}

#[tokio::test]
async fn a_target_that_begins_with_its_query() {
    let pair = Pair::new(Protocol::Http, telling("api").await).await;
    let text = raw(
        pair.address,
        "GET http://evil?q=1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert!(text.contains("\"uri\":\"/?q=1\""), "{text}");
}

#[tokio::test]
async fn whoever_is_not_read_to_the_end_is_told() {
    let pair = Pair::new(Protocol::Http, telling("api").await).await;
    let cut = "CONNECT a:1 HTTP/1.1\r\nhost: a\r\ncontent-length: 40\r\n\r\nabc";
    let text = raw(pair.address, cut).await;
    assert!(text.starts_with("HTTP/1.1 405 "), "{text}");
    assert!(text.contains("connection: close\r\n"), "{text}");
    // What is there already is read over, and another may follow.
    let whole = "CONNECT a:1 HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc\
                 GET /next HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let text = raw(pair.address, whole).await;
    assert!(text.contains("\"uri\":\"/next\""), "{text}");
    assert_eq!(text.matches("connection: close\r\n").count(), 1, "{text}");
}

#[tokio::test]
async fn no_length_where_there_is_no_body() {
    let answer = "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n";
    let (application, _ended) = saying(answer).await;
    let pair = Pair::new(Protocol::Http, application).await;
    let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let text = raw(pair.address, request).await;
    assert!(text.starts_with("HTTP/1.1 204 "), "{text}");
    assert!(!text.contains("content-length"), "{text}");
}

#[tokio::test]
async fn an_application_speaks_for_no_sidecar_on_exposed_paths() {
    let answer = "HTTP/1.1 200 OK\r\nx-mesh-denied: x\r\nx-mesh-error: x\r\n\
                  x-own: 1\r\ncontent-length: 0\r\n\r\n";
    let (application, _ended) = saying(answer).await;
    let ca = Ca::new();
    let api = ca.plane("api");
    let mut config = serving("api", Protocol::Http, application);
    config.expose = vec![ExposePath {
        path: "/healthz".into(),
        local_path_port: application.port(),
        listener_port: 0,
        protocol: "http".into(),
    }];
    api.apply(config).await.unwrap();
    let got = once(bound(&api, &BoundTo::Expose), "/healthz").await;
    assert_eq!((got.status, got.header("x-own")), (200, "1"));
    for name in ["x-mesh-denied", "x-mesh-error"] {
        assert_eq!(got.header(name), "", "{name}");
    }
}

#[tokio::test]
async fn what_is_refused_has_a_reason() {
    let pair = Pair::new(Protocol::Http, telling("api").await).await;
    for (request, status, reason) in [
        ("GET / HTTP/1.1\r\n\r\n", 400, "has no host header"),
        (
            "GET / HTTP/1.1\r\nhost: me@a\r\n\r\n",
            400,
            "a user before it",
        ),
        ("GET / HTTP/1.1\nhost: a\r\n\r\n", 400, "LF alone"),
    ] {
        let mut socket = TcpStream::connect(pair.address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut got = Vec::new();
        while !got.ends_with(b"\n") || got.ends_with(b"\r\n") {
            assert_ne!(in_time(socket.read_buf(&mut got)).await.unwrap(), 0);
        }
        let text = String::from_utf8(got).unwrap();
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
        assert_eq!(text.matches(reason).count(), 2, "header and body: {text}");
    }
}
