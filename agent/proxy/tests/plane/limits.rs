//! Bounds, several workers, and paths that are open without mTLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::Response;
use hyper::body::Frame;
use mesh_model::{ExposePath, Protocol};
use mesh_proxy::{BoundTo, DataPlane, Options};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
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
    let refused = ["outbound", "destination=\"api\"", "code=\"431\""];
    assert_eq!(metric(&pair.web, "mesh_requests_total", &refused), 2);
    assert_eq!(once(pair.address, "/").await.status, 200);
}

#[tokio::test]
async fn a_listener_that_is_full_takes_more_when_one_ends() {
    let mut options = options();
    options.limits.connections = 2;
    let pair = Pair::with(Protocol::Tcp, echo().await, options, |_| {}).await;
    let round = async |socket: &mut TcpStream| {
        socket.write_all(b"x").await.unwrap();
        in_time(socket.read_exact(&mut [0])).await.unwrap();
    };
    let connect = || async { TcpStream::connect(pair.address).await.unwrap() };
    let (mut first, mut second) = (connect().await, connect().await);
    round(&mut first).await;
    round(&mut second).await;
    let mut third = connect().await;
    third.write_all(b"x").await.unwrap();
    for _ in 0..100 {
        round(&mut second).await;
    }
    let taken = || metric(&pair.web, "mesh_connections_total", &["outbound"]);
    assert_eq!(taken(), 2);
    drop(first);
    in_time(third.read_exact(&mut [0])).await.unwrap();
    // And again, each time that there is room.
    for _ in 0..20 {
        let mut next = connect().await;
        drop(third);
        round(&mut next).await;
        third = next;
    }
    assert_eq!(taken(), 23);
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
    // Who only looks whether the port is open is no failure.
    drop(TcpStream::connect(inbound_of(&pair.api)).await.unwrap());
    // Nor does noise do harm.
    let mut socket = TcpStream::connect(inbound_of(&pair.api)).await.unwrap();
    let _ = socket.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
    let _ = in_time(socket.read_to_end(&mut rest)).await;
    assert_eq!(once(pair.address, "/").await.status, 200);
    let failures = metric(&pair.api, "mesh_tls_handshake_failures_total", &[]);
    assert_eq!(failures, 2);
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

/// A sidecar of `api` with an exposed path, and these limits.
async fn exposing(ca: &Ca, application: SocketAddr, options: Options) -> Arc<DataPlane> {
    let api = DataPlane::new(ca.tls("api"), options);
    let mut config = serving("api", Protocol::Http, application);
    config.expose = vec![ExposePath {
        path: "/healthz".into(),
        local_path_port: application.port(),
        listener_port: 0,
        protocol: "http".into(),
    }];
    api.apply(config).await.unwrap();
    api
}

/// Waits until a connection that says only this was closed.
async fn closes(mut io: impl AsyncRead + AsyncWrite + Unpin, says: &[u8]) {
    io.write_all(says).await.unwrap();
    let _ = in_time(io.read_to_end(&mut Vec::new())).await;
}

#[tokio::test]
async fn who_says_nothing_is_not_waited_for() {
    let mut options = options();
    options.limits.head = Duration::from_millis(150);
    options.limits.idle = Duration::from_millis(150);
    let ca = Ca::new();
    let slow = application(|_| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Response::new(full("slow"))
    })
    .await;
    let api = exposing(&ca, slow, options).await;
    let (exposed, inbound) = (bound(&api, &BoundTo::Expose), inbound_of(&api));
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let half_a_head = b"GET /healthz HTTP/1.1\r\nhost: ";
    for says in [&b""[..], &preface[..8], preface, half_a_head] {
        closes(TcpStream::connect(exposed).await.unwrap(), says).await;
    }
    for says in [&b""[..], &preface[..8], preface] {
        closes(as_web(&ca, inbound, &[b"h2"]).await, says).await;
    }
    for says in [&b""[..], half_a_head] {
        closes(as_web(&ca, inbound, &[b"http/1.1"]).await, says).await;
    }
    // Who answers pings, and asks for nothing.
    let socket = TcpStream::connect(exposed).await.unwrap();
    idles(socket, "http://api/healthz").await;
    idles(as_web(&ca, inbound, &[b"h2"]).await, "http://api/x").await;
}

/// A request that takes longer than a connection may be idle, and then nothing:
/// the one is answered, and the connection ends.
async fn idles<T>(io: T, uri: &str)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut client, connection) = h2::client::handshake(io).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = hyper::Request::get(uri).body(()).unwrap();
    let (answer, _) = client.send_request(request, true).unwrap();
    let mut body = in_time(answer).await.unwrap().into_body();
    assert_eq!(in_time(body.data()).await.unwrap().unwrap(), "slow");
    drop(body);
    // How it ends does not matter: its own farewell may come too late.
    let _ = in_time(connection).await.unwrap();
    drop(client);
}

#[tokio::test]
async fn no_request_is_lost_with_an_idle_connection() {
    let mut options = options();
    options.limits.head = Duration::from_millis(10);
    options.limits.idle = Duration::from_millis(10);
    let ca = Ca::new();
    let api = exposing(&ca, telling("api").await, options).await;
    let web = ca.plane("web");
    let clusters = vec![("api", cluster("api", Protocol::Http, &[inbound_of(&api)]))];
    web.apply(calling(
        "web",
        vec![upstream("api", Protocol::Http)],
        clusters,
    ))
    .await
    .unwrap();
    let mut client = Client::h1(upstream_of(&web, "api")).await;
    for pause in 0..60 {
        let got = read(client.send(request("POST", "/", "body")).await).await;
        assert_eq!(got.status, 200, "{got:?}");
        // About as long as the connection may be idle.
        tokio::time::sleep(Duration::from_millis(15 + pause % 10)).await;
    }
    let series = ["inbound", "source=\"web\""];
    assert!(metric(&api, "mesh_connections_total", &series) > 1);
}

#[tokio::test]
async fn what_is_exposed_has_a_time() {
    let mut options = options();
    options.limits.exposed = Duration::from_millis(300);
    let application = application(|request| async move {
        if request.method() == "POST" {
            let _ = request.into_body().collect().await;
            return Response::new(full("all of it came"));
        }
        let begun = futures::stream::once(async { Ok(Frame::data(Bytes::from_static(b"begun"))) });
        let never = futures::stream::pending();
        Response::new(StreamBody::new(futures::StreamExt::chain(begun, never)).boxed())
    })
    .await;
    let ca = Ca::new();
    let api = exposing(&ca, application, options).await;
    let address = bound(&api, &BoundTo::Expose);
    for mut client in [Client::h1(address).await, Client::h2(address).await] {
        let answer = client.send(get("/healthz")).await;
        assert!(in_time(answer.into_body().collect()).await.is_err());
    }
    let mut socket = TcpStream::connect(address).await.unwrap();
    let head = b"POST /healthz HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n1";
    socket.write_all(head).await.unwrap();
    let mut answer = Vec::new();
    let _ = in_time(socket.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(!answer.contains("all of it came"), "{answer}");
}
