//! Who may call, and when that changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::{Request, Response};
use mesh_model::Protocol;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::grpc::{fed, grpc, streaming};
use crate::support::*;

/// The promise: a deny cuts what is live within a second.
const PROMISED: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_denied_request_gets_403_and_the_reason() {
    let pair = Pair::new(Protocol::Http, telling("api").await).await;
    pair.api
        .apply_policy(&policy("allow", &[intention("web", "api", "deny")]));
    for mut client in [
        Client::h1(pair.address).await,
        Client::h2(pair.address).await,
    ] {
        let got = client.get("/").await;
        assert_eq!(got.status, 403);
        assert_eq!(
            got.header("x-mesh-denied"),
            "denied by intention web => api (deny)"
        );
        assert_eq!(got.text(), "denied by intention web => api (deny)\n");
    }
    assert_eq!(
        metric(
            &pair.api,
            "mesh_denied_total",
            &["intention=\"web => api\""]
        ),
        2
    );
    // And again allowed, on the connections that there are.
    pair.api.apply_policy(&allow_all());
    assert_eq!(once(pair.address, "/").await.status, 200);
}

#[tokio::test]
async fn permissions_look_at_the_normal_form() {
    let pair = Pair::new(Protocol::Http, telling("api").await).await;
    let list = json!([
        { "action": "deny", "path_prefix": "/admin" },
        { "action": "allow", "path_prefix": "/public/", "methods": ["GET"] },
        { "action": "allow", "path_exact": "/h", "headers": [{ "name": "x-key", "exact": "a" }] },
    ]);
    pair.api
        .apply_policy(&policy("deny", &[permissions("web", "api", list)]));
    let mut client = Client::h1(pair.address).await;
    for (path, status) in [
        ("/public/x", 200),
        ("/public/../admin", 403),
        ("/public/%2e%2e/admin", 403),
        ("/public/%2e%2E/%61dmin/x", 403),
        ("//admin", 403),
        ("/public//x", 200),
        ("/%70ublic/x", 200),
        ("/public%2f..%2fadmin", 400),
        ("/other", 403),
        ("/h", 403),
    ] {
        assert_eq!(client.get(path).await.status, status, "{path}");
    }
    let mut with_key = get("/h");
    with_key.headers_mut().insert("x-key", "a".parse().unwrap());
    assert_eq!(client.send(with_key).await.status(), 200);
    let got = read(client.send(request("POST", "/public/x", "")).await).await;
    assert_eq!(got.status, 403);
    assert!(
        got.header("x-mesh-denied")
            .contains("no permission matches")
    );
}

#[tokio::test]
async fn permissions_see_what_the_application_sees() {
    let pair = Pair::new(Protocol::Http, telling("api").await).await;
    let list = json!([
        { "action": "deny", "headers": [{ "name": "x-tenant", "present": true, "invert": true }] },
        { "action": "allow", "headers": [{ "name": "host", "exact": "api.local" }] },
    ]);
    pair.api
        .apply_policy(&policy("deny", &[permissions("web", "api", list)]));
    for mut client in [
        Client::h1(pair.address).await,
        Client::h2(pair.address).await,
    ] {
        assert_eq!(client.get("/").await.status, 403);
        let mut with = get("/");
        with.headers_mut().insert("x-tenant", "a".parse().unwrap());
        assert_eq!(client.send(with).await.status(), 200);
    }
    // A header that a connection option takes away is not there for either.
    let mut hidden = get("/");
    hidden
        .headers_mut()
        .insert("x-tenant", "a".parse().unwrap());
    hidden
        .headers_mut()
        .insert("connection", "x-tenant".parse().unwrap());
    assert_eq!(
        Client::h1(pair.address).await.send(hidden).await.status(),
        403
    );
}

#[tokio::test]
async fn before_a_policy_and_with_one_that_cannot_be_read_nobody_may() {
    let ca = Ca::new();
    let api = ca.plane("api");
    let mut config = serving("api", Protocol::Http, telling("api").await);
    config.policy = Default::default();
    api.apply(config).await.unwrap();
    let web = ca.plane("web");
    let clusters = vec![("api", cluster("api", Protocol::Http, &[inbound_of(&api)]))];
    web.apply(calling(
        "web",
        vec![upstream("api", Protocol::Http)],
        clusters,
    ))
    .await
    .unwrap();
    let address = upstream_of(&web, "api");
    assert_eq!(once(address, "/").await.status, 403);
    let denied = api.apply_policy(&policy(
        "allow",
        &[json!({ "action": "allow", "moon": "full" })],
    ));
    assert_eq!(denied.len(), 1);
    assert_eq!(once(address, "/").await.status, 403);
    // Of a pair that can be read only that pair is denied.
    let mut unknown = intention("web", "api", "allow");
    unknown["moon"] = json!("full");
    let denied = api.apply_policy(&policy("allow", &[unknown]));
    assert_eq!(denied.len(), 1);
    let got = once(address, "/").await;
    assert!(
        got.header("x-mesh-denied").contains("upgrade the sidecar"),
        "{got:?}"
    );
    assert_eq!(api.snapshot().not_understood.len(), 1);
}

#[tokio::test]
async fn a_bad_config_leaves_the_good_one_and_its_policy_counts() {
    let pair = Pair::new(Protocol::Http, telling("api").await).await;
    assert_eq!(once(pair.address, "/").await.status, 200);
    let mut bad = pair.api_config.clone();
    bad.policy = policy("deny", &[]);
    bad.inbound.as_mut().unwrap().application = "nonsense".to_owned();
    let error = pair.api.apply(bad).await.unwrap_err().to_string();
    assert!(error.contains("inbound: application"), "{error}");
    assert!(pair.api.is_listening());
    assert_eq!(once(pair.address, "/").await.status, 403);
    pair.api.apply_policy(&allow_all());
    assert_eq!(once(pair.address, "/").await.status, 200);
}

#[tokio::test]
async fn a_deny_cuts_live_byte_streams() {
    let pair = Pair::new(Protocol::Tcp, echo().await).await;
    let mut sockets = Vec::new();
    for _ in 0..20 {
        let mut socket = TcpStream::connect(pair.address).await.unwrap();
        socket.write_all(b"x").await.unwrap();
        let mut got = [0];
        in_time(socket.read_exact(&mut got)).await.unwrap();
        sockets.push(socket);
    }
    // A policy that does not touch them leaves them.
    pair.api
        .apply_policy(&policy("allow", &[intention("other", "api", "deny")]));
    sockets[0].write_all(b"y").await.unwrap();
    in_time(sockets[0].read_exact(&mut [0])).await.unwrap();

    let denied = Instant::now();
    pair.api
        .apply_policy(&policy("allow", &[intention("web", "api", "deny")]));
    for mut socket in sockets {
        let mut rest = Vec::new();
        let _ = in_time(socket.read_to_end(&mut rest)).await;
        assert!(rest.is_empty());
    }
    assert!(denied.elapsed() < PROMISED, "{:?}", denied.elapsed());
    // New ones are not begun; a quick reset may be seen as early as by who connects.
    let mut rest = Vec::new();
    if let Ok(mut socket) = TcpStream::connect(pair.address).await {
        let _ = socket.write_all(b"x").await;
        let _ = in_time(socket.read_to_end(&mut rest)).await;
    }
    assert!(rest.is_empty());
}

#[tokio::test]
async fn a_deny_cuts_live_calls_and_leaves_the_others() {
    let pair = Pair::new(Protocol::Grpc, streaming().await).await;
    let mut client = Client::h2(pair.address).await;
    let mut calls = Vec::new();
    for path in ["/keep", "/cut"] {
        let (feed, body) = fed();
        let mut answer = client.send(grpc(path, body)).await.into_body();
        feed.send("a").await.unwrap();
        assert!(in_time(answer.frame()).await.unwrap().is_ok());
        calls.push((feed, answer));
    }
    let denied = Instant::now();
    let list = json!([{ "action": "allow", "path_exact": "/keep" }]);
    pair.api
        .apply_policy(&policy("deny", &[permissions("web", "api", list)]));
    let (_feed, mut cut) = calls.pop().unwrap();
    assert!(
        in_time(cut.frame()).await.unwrap().is_err(),
        "a cut call is an error"
    );
    assert!(denied.elapsed() < PROMISED, "{:?}", denied.elapsed());
    let (feed, mut kept) = calls.pop().unwrap();
    feed.send("b").await.unwrap();
    assert!(in_time(kept.frame()).await.unwrap().is_ok());
    // A condition on a header, of which nothing is known any more: no.
    let list = json!([{ "action": "allow", "headers": [{ "name": "x-absent", "present": true, "invert": true }] }]);
    let (feed2, body) = fed();
    pair.api.apply_policy(&allow_all());
    let mut unknown = client.send(grpc("/new", body)).await.into_body();
    feed2.send("a").await.unwrap();
    assert!(in_time(unknown.frame()).await.unwrap().is_ok());
    pair.api
        .apply_policy(&policy("deny", &[permissions("web", "api", list)]));
    assert!(in_time(unknown.frame()).await.unwrap().is_err());
}

#[tokio::test]
async fn a_deny_before_the_answer_is_a_403() {
    let application = application(|_| std::future::pending()).await;
    let pair = Pair::new(Protocol::Http, application).await;
    let mut client = Client::h1(pair.address).await;
    let waiting = tokio::spawn(async move { client.get("/").await });
    until("the request is under way", || {
        pair.api.metrics().contains("mesh_request_duration")
    })
    .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    pair.api.apply_policy(&policy("deny", &[]));
    let got = in_time(waiting).await.unwrap();
    assert_eq!(got.status, 403, "{got:?}");
}

/// What an application saw of a call that never ends, either way.
#[derive(Default)]
struct Seen {
    /// Pieces of the request's body.
    got: AtomicUsize,
    /// Pieces of its own answer that were taken from it.
    given: AtomicUsize,
    broke: AtomicBool,
}

async fn endless() -> (std::net::SocketAddr, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let sees = seen.clone();
    let address = application(move |request: Request<hyper::body::Incoming>| {
        let seen = sees.clone();
        async move {
            let reads = seen.clone();
            let mut body = request.into_body();
            tokio::spawn(async move {
                while let Some(Ok(_)) = body.frame().await {
                    reads.got.fetch_add(1, SeqCst);
                }
                reads.broke.store(true, SeqCst);
            });
            let frames = futures::stream::repeat_with(move || {
                seen.given.fetch_add(1, SeqCst);
                Ok(Frame::data(Bytes::from_static(&[7; 16 * 1024])))
            });
            Response::new(StreamBody::new(frames).boxed())
        }
    })
    .await;
    (address, seen)
}

/// Waits until nobody takes any more of the answer.
async fn stuck(seen: &Seen) {
    let mut last = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = seen.given.load(SeqCst);
        if now > 0 && now == last {
            return;
        }
        last = now;
    }
}

async fn deny_cuts(pair: &Pair, seen: &Seen) {
    until("it is uploaded", || seen.got.load(SeqCst) > 3).await;
    in_time(stuck(seen)).await;
    let denied = Instant::now();
    pair.api.apply_policy(&policy("deny", &[]));
    until("the upload breaks", || seen.broke.load(SeqCst)).await;
    assert!(denied.elapsed() < PROMISED, "{:?}", denied.elapsed());
}

#[tokio::test]
async fn a_deny_cuts_a_caller_that_does_not_read() {
    for protocol in [Protocol::Http, Protocol::Http2] {
        // HTTP/2 that gives no room for the answer.
        let (application, seen) = endless().await;
        let pair = Pair::new(protocol, application).await;
        let tls = as_web(&pair.ca, inbound_of(&pair.api), &[b"h2"]).await;
        let (mut client, connection) = h2::client::Builder::new()
            .initial_window_size(0)
            .handshake::<_, Bytes>(tls)
            .await
            .unwrap();
        tokio::spawn(connection);
        let request = Request::post("http://api/").body(()).unwrap();
        let (_answer, mut upload) = client.send_request(request, false).unwrap();
        let uploading = tokio::spawn(async move {
            while upload.send_data(Bytes::from_static(b"x"), false).is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        deny_cuts(&pair, &seen).await;
        uploading.abort();

        // HTTP/1.1 that never looks.
        let (application, seen) = endless().await;
        let pair = Pair::new(protocol, application).await;
        let tls = as_web(&pair.ca, inbound_of(&pair.api), &[b"http/1.1"]).await;
        let (_unread, mut upload) = tokio::io::split(tls);
        let head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        upload.write_all(head).await.unwrap();
        let uploading = tokio::spawn(async move {
            while upload.write_all(b"1\r\nx\r\n").await.is_ok() {
                let _ = upload.flush().await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        deny_cuts(&pair, &seen).await;
        in_time(uploading).await.unwrap(); // its connection has ended
    }
}

#[tokio::test]
async fn the_time_of_a_request_holds_for_a_caller_that_does_not_read() {
    let (application, seen) = endless().await;
    let pair = Pair::with(Protocol::Http, application, options(), |config| {
        config.outbound[0].timeout = "1s".parse().unwrap();
    })
    .await;
    let socket = TcpStream::connect(pair.address).await.unwrap();
    let (mut client, connection) = h2::client::Builder::new()
        .initial_window_size(0)
        .handshake::<_, Bytes>(socket)
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::post("http://api/").body(()).unwrap();
    let (_answer, mut upload) = client.send_request(request, false).unwrap();
    upload.send_data(Bytes::from_static(b"x"), false).unwrap();
    until("the upload breaks", || seen.broke.load(SeqCst)).await;

    let (application, seen) = endless().await;
    let pair = Pair::with(Protocol::Http, application, options(), |config| {
        config.outbound[0].timeout = "1s".parse().unwrap();
    })
    .await;
    let mut socket = TcpStream::connect(pair.address).await.unwrap();
    let head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n";
    socket.write_all(head).await.unwrap();
    until("the upload breaks", || seen.broke.load(SeqCst)).await;
}

#[tokio::test]
async fn nothing_is_upgraded_to_what_this_hop_speaks_itself() {
    let pair = Pair::new(Protocol::Http, telling("api").await).await;
    for protocols in ["h2c", "h2c, foo", "foo, H2C"] {
        let mut asks = get("/");
        let headers = asks.headers_mut();
        headers.insert("connection", "upgrade, http2-settings".parse().unwrap());
        headers.insert("upgrade", protocols.parse().unwrap());
        headers.insert("http2-settings", "AAMAAABk".parse().unwrap());
        let mut client = Client::h1(pair.address).await;
        let told = read(client.send(asks).await).await.json();
        for header in ["upgrade", "connection", "http2-settings"] {
            assert!(told["headers"][header].is_null(), "{protocols}: {told}");
        }
    }
}

#[tokio::test]
async fn bytes_do_not_go_past_permissions() {
    let application = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = application.local_addr().unwrap();
    let pair = Pair::new(Protocol::Http, address).await;
    let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    // What is not named is read as HTTP, and must be it.
    for (alpn, sent, answer) in [
        (&[mesh_mux::ALPN] as &[&[u8]], &request[..], ""),
        (&[], b"HELO a\r\n\r\n", "HTTP/1.1 400"),
        (&[], b"\x16\x03\x01\r\n\r\n", "HTTP/1.1 400"),
    ] {
        let mut tls = as_web(&pair.ca, inbound_of(&pair.api), alpn).await;
        let _ = tls.write_all(sent).await;
        let mut got = Vec::new();
        let _ = in_time(tls.read_to_end(&mut got)).await;
        let got = String::from_utf8_lossy(&got).into_owned();
        assert!(got.starts_with(answer), "{got}");
        assert_eq!(got.is_empty(), answer.is_empty(), "{got}");
    }
    let nobody = tokio::time::timeout(Duration::from_millis(50), application.accept()).await;
    assert!(nobody.is_err(), "the application was connected to");
}
