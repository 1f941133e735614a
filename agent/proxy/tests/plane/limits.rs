//! Bounds, several workers, and paths that are open without mTLS.

use std::time::Duration;

use mesh_model::{ExposePath, Protocol};
use mesh_proxy::BoundTo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

#[tokio::test]
async fn heads_are_bounded() {
    let mut options = options();
    options.limits.headers = 20;
    options.limits.header_bytes = 4096;
    let pair = Pair::with(Protocol::Http, telling("api").await, options, |_| {}).await;
    let many: String = (0..30).map(|index| format!("x-{index}: y\r\n")).collect();
    let long = format!("x-long: {}\r\n", "y".repeat(10_000));
    for headers in [many, long] {
        let mut socket = TcpStream::connect(pair.address).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nhost: a\r\n{headers}\r\n");
        let _ = socket.write_all(request.as_bytes()).await;
        let mut text = String::new();
        let _ = in_time(socket.read_to_string(&mut text)).await;
        assert!(text.starts_with("HTTP/1.1 431"), "{text}");
    }
    assert_eq!(once(pair.address, "/").await.status, 200);
}

#[tokio::test]
async fn a_handshake_that_stalls_ends() {
    let mut options = options();
    options.limits.handshake = Duration::from_millis(100);
    let pair = Pair::with(Protocol::Http, telling("api").await, options, |_| {}).await;
    let mut socket = TcpStream::connect(inbound_of(&pair.api)).await.unwrap();
    let mut rest = Vec::new();
    let _ = in_time(socket.read_to_end(&mut rest)).await;
    until("it is counted", || {
        metric(&pair.api, "mesh_tls_handshake_failures_total", &["timeout"]) == 1
    })
    .await;
    // Nor does noise do harm.
    let mut socket = TcpStream::connect(inbound_of(&pair.api)).await.unwrap();
    let _ = socket.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
    let _ = in_time(socket.read_to_end(&mut rest)).await;
    assert_eq!(once(pair.address, "/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_workers_share_the_ports() {
    let mut options = options();
    options.concurrency = 3;
    let pair = Pair::with(Protocol::Http, telling("api").await, options, |_| {}).await;
    let clients = (0..40).map(|_| {
        let address = pair.address;
        async move { once(address, "/").await.status }
    });
    let statuses = futures::future::join_all(clients).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert_eq!(
        metric(&pair.web, "mesh_requests_total", &["code=\"200\""]),
        40
    );
    // A port that somebody else has is not shared with him.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = pair.web_config.clone();
    config.outbound[0].bind = mesh_proto::config::Bind::Tcp {
        address: "127.0.0.1".into(),
        port: taken.local_addr().unwrap().port(),
    };
    assert!(pair.web.apply(config).await.is_err());
    assert!(in_time(pair.web.drain(LONG)).await.is_clean());
}

#[tokio::test]
async fn exposed_paths_and_nothing_else() {
    let application = telling("api").await;
    let ca = Ca::new();
    let api = ca.plane("api");
    let mut config = serving("api", Protocol::Http, application);
    config.policy = policy("deny", &[]);
    config.expose = vec![ExposePath {
        path: "/healthz".into(),
        local_path_port: application.port(),
        listener_port: 0,
        protocol: "http".into(),
    }];
    api.apply(config).await.unwrap();
    let address = bound(&api, &BoundTo::Expose);
    assert_eq!(once(address, "/healthz").await.status, 200);
    assert_eq!(once(address, "/x/../healthz?y").await.status, 200);
    for path in ["/", "/healthz/", "/healthz/x", "/healthz%2f"] {
        assert_ne!(once(address, path).await.status, 200, "{path}");
    }
}
