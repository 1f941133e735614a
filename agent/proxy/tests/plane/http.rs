//! HTTP through two sidecars.

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::{Request, Response};
use mesh_model::Protocol;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

#[tokio::test]
async fn http1_to_http1() {
    let pair = Pair::new(Protocol::Http, telling("api").await).await;
    let mut client = Client::h1(pair.address).await;
    for turn in 0..3 {
        let mut request = request("POST", "/a/b?x=1", "hello");
        request.headers_mut().insert("x-turn", turn.into());
        request
            .headers_mut()
            .insert("x-mesh-source", "forged".parse().unwrap());
        request
            .headers_mut()
            .insert("x_mesh_source", "forged".parse().unwrap());
        let got = read(client.send(request).await).await;
        assert_eq!(got.status, 200, "{got:?}");
        let told = got.json();
        assert_eq!(told["uri"], "/a/b?x=1");
        assert_eq!(told["version"], "HTTP/1.1");
        assert_eq!(told["body"], "hello");
        assert_eq!(told["headers"]["host"], "api.local");
        assert_eq!(told["headers"]["x-turn"], turn.to_string());
        assert_eq!(told["headers"]["x-mesh-source"], identity("web"));
        assert!(told["headers"]["x_mesh_source"].is_null(), "{told}");
        assert_eq!(told["headers"]["traceparent"].as_str().unwrap().len(), 55);
    }
    // All of them over one connection between the two.
    let series = ["inbound", "source=\"web\"", "protocol=\"http\""];
    assert_eq!(metric(&pair.api, "mesh_connections_total", &series), 1);
}

#[tokio::test]
async fn http2_from_the_application_and_to_it() {
    for (protocol, version) in [(Protocol::Http, "HTTP/1.1"), (Protocol::Http2, "HTTP/2.0")] {
        let pair = Pair::new(protocol, telling("api").await).await;
        for mut client in [
            Client::h1(pair.address).await,
            Client::h2(pair.address).await,
        ] {
            let got = read(client.send(request("PUT", "/x", "body")).await).await;
            assert_eq!(
                (got.status, got.json()["version"].as_str()),
                (200, Some(version))
            );
            assert_eq!(got.json()["body"], "body");
        }
    }
}

#[tokio::test]
async fn paths_arrive_in_their_normal_form() {
    let pair = Pair::new(Protocol::Http, telling("api").await).await;
    for (path, normal) in [
        ("/public/../admin", "/admin"),
        ("/public/%2e%2e/admin?q=%2e", "/admin?q=%2e"),
        ("//admin//x/./y", "/admin/x/y"),
        ("/%61bc", "/abc"),
    ] {
        let text = raw(
            &pair,
            &format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"),
        )
        .await;
        assert!(
            text.contains(&format!("\"uri\":\"{normal}\"")),
            "{path}: {text}"
        );
    }
    for path in ["/a%2fb", "/a%5cb", "/a%00", "/a%zz"] {
        let text = raw(
            &pair,
            &format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"),
        )
        .await;
        assert!(text.starts_with("HTTP/1.1 400 "), "{path}: {text}");
        assert!(text.contains("x-mesh-error: "), "{path}: {text}");
    }
}

async fn raw(pair: &Pair, request: &str) -> String {
    in_time(async {
        let mut socket = TcpStream::connect(pair.address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).await.unwrap();
        text
    })
    .await
}

#[tokio::test]
async fn requests_of_every_framing() {
    let pair = Pair::new(Protocol::Http, telling("api").await).await;
    let chunked = "POST /c HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n\
                   3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    assert!(raw(&pair, chunked).await.contains("\"body\":\"abcde\""));
    // Rare, but allowed with every method (RFC 9110, 9.3.1).
    for method in ["GET", "DELETE"] {
        let chunked = chunked.replace("POST", method);
        let text = raw(&pair, &chunked).await;
        assert!(text.contains("\"body\":\"abcde\""), "{text}");
    }
    let expect = "POST /c HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nexpect: 100-continue\r\nconnection: close\r\n\r\nabc";
    let text = raw(&pair, expect).await;
    assert!(
        text.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK"),
        "{text}"
    );
    assert!(text.contains("\"body\":\"abc\""));
    let old = "GET /old HTTP/1.0\r\n\r\n";
    let text = raw(&pair, old).await;
    assert!(
        text.contains(" 200 OK") && text.contains("\"host\":\"api\""),
        "{text}"
    );
    let absolute = "GET http://other.host/p HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    assert!(
        raw(&pair, absolute)
            .await
            .contains("\"host\":\"other.host\"")
    );
    let pipelined =
        "GET /1 HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let text = raw(&pair, pipelined).await;
    let (first, second) = (
        text.find("\"uri\":\"/1\"").unwrap(),
        text.find("\"uri\":\"/2\"").unwrap(),
    );
    assert!(first < second);
    // Two framings in one request are what smuggling is made of.
    let both = "POST /c HTTP/1.1\r\nhost: a\r\ncontent-length: 30\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n\
                3\r\nabc\r\n0\r\n\r\n";
    let text = raw(&pair, both).await;
    assert!(
        text.contains("\"body\":\"abc\"") || text.starts_with("HTTP/1.1 400"),
        "{text}"
    );
    assert!(
        raw(
            &pair,
            "CONNECT a:1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
        )
        .await
        .starts_with("HTTP/1.1 405")
    );
    let text = raw(&pair, "no http at all\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 400"), "{text}");
}

#[tokio::test]
async fn answers_of_every_framing() {
    let application = application(|request| async move {
        let stream = |pieces: &[&'static str]| {
            let frames: Vec<_> = (pieces.iter())
                .map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))))
                .collect();
            StreamBody::new(futures::stream::iter(frames)).boxed()
        };
        let answer = Response::builder();
        match request.uri().path() {
            "/204" => answer.status(204).body(full("")).unwrap(),
            "/304" => answer
                .status(304)
                .header("etag", "x")
                .body(full(""))
                .unwrap(),
            "/chunked" => answer.body(stream(&["ab", "cd"])).unwrap(),
            "/head" => answer
                .header("content-length", "42")
                .body(full(""))
                .unwrap(),
            "/close" => answer
                .header("connection", "close, x-hop")
                .header("x-hop", "1")
                .body(full("bye"))
                .unwrap(),
            _ => answer.body(full("plain")).unwrap(),
        }
    })
    .await;
    let pair = Pair::new(Protocol::Http, application).await;
    for mut client in [
        Client::h1(pair.address).await,
        Client::h2(pair.address).await,
    ] {
        assert_eq!(client.get("/204").await.status, 204);
        let got = client.get("/304").await;
        assert_eq!((got.status, got.header("etag")), (304, "x"));
        let got = client.get("/chunked").await;
        assert_eq!(
            (
                got.text().as_str(),
                got.header("transfer-encoding").len() < 8
            ),
            ("abcd", true)
        );
        let got = read(client.send(request("HEAD", "/head", "")).await).await;
        assert_eq!((got.header("content-length"), got.body.len()), ("42", 0));
        let got = client.get("/close").await;
        assert_eq!((got.text().as_str(), got.header("x-hop")), ("bye", ""));
        // The application's `connection: close` was about its own connection.
        assert_eq!(client.get("/").await.text(), "plain");
    }
}

#[tokio::test]
async fn big_bodies_both_ways() {
    let application = application(|request| async move {
        // As it comes, so that both directions are under way together.
        let body = request.into_body().map_err(|_| unreachable!()).boxed();
        Response::new(body)
    })
    .await;
    let pair = Pair::new(Protocol::Http, application).await;
    for client in [
        Client::h1(pair.address).await,
        Client::h2(pair.address).await,
    ] {
        let mut client = client;
        const PIECES: u64 = 400;
        let piece = |index: u64| -> Bytes {
            (0..16_384_u64)
                .map(|at| (index.wrapping_mul(31).wrapping_add(at * at)) as u8)
                .collect()
        };
        let frames =
            futures::stream::iter((0..PIECES).map(move |index| Ok(Frame::data(piece(index)))));
        let request = Request::builder()
            .method("POST")
            .uri("http://api/big")
            .header("host", "api")
            .body(StreamBody::new(frames).boxed())
            .unwrap();
        let answer = client.send(request).await;
        let mut body = answer.into_body();
        let mut sum = 0_u64;
        let mut at = 0_u64;
        while let Some(frame) = in_time(body.frame()).await {
            for byte in frame.unwrap().into_data().unwrap_or_default() {
                let expected = ((at / 16_384)
                    .wrapping_mul(31)
                    .wrapping_add((at % 16_384) * (at % 16_384)))
                    as u8;
                assert_eq!(byte, expected, "at {at}");
                sum += u64::from(byte);
                at += 1;
            }
        }
        assert_eq!(at, PIECES * 16_384);
        assert!(sum > 0);
    }
}

#[tokio::test]
async fn a_thousand_at_once() {
    // As the program does: a user's soft limit is often 1024.
    mesh_proxy::raise_open_files();
    let application = application(|request| async move {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        Response::new(full(request.uri().path().to_owned()))
    })
    .await;
    let pair = Pair::new(Protocol::Http, application).await;
    let client = match Client::h2(pair.address).await {
        Client::H2(sender) => sender,
        Client::H1(_) => unreachable!(),
    };
    let requests = (0..1000).map(|index| {
        let mut client = Client::H2(client.clone());
        async move {
            let got = client.get(&format!("/{index}")).await;
            assert_eq!(
                (got.status, got.text()),
                (200, format!("/{index}")),
                "{got:?}"
            );
        }
    });
    futures::future::join_all(requests).await;
    let counted = metric(
        &pair.web,
        "mesh_requests_total",
        &["outbound", "code=\"200\""],
    );
    assert_eq!(counted, 1000);
}

#[tokio::test]
async fn errors_say_what_and_what_to_do() {
    let gone = nobody().await;
    let pair = Pair::new(Protocol::Http, gone).await;
    let got = once(pair.address, "/").await;
    assert_eq!(got.status, 503);
    let what = got.header("x-mesh-error").to_owned();
    assert!(
        what.contains(&gone.to_string()) && what.contains("refused"),
        "{what}"
    );
    assert_eq!(got.text(), format!("{what}\n"));

    let mut config = pair.web_config.clone();
    config.clusters.get_mut("api").unwrap().endpoints.clear();
    pair.web.apply(config.clone()).await.unwrap();
    let got = once(pair.address, "/").await;
    assert_eq!(got.status, 503);
    assert!(
        got.header("x-mesh-error")
            .starts_with("api: no instance is known"),
        "{got:?}"
    );

    config
        .clusters
        .insert("api".into(), cluster("api", Protocol::Http, &[gone]));
    pair.web.apply(config.clone()).await.unwrap();
    let got = once(pair.address, "/").await;
    assert_eq!(got.status, 503);
    let what = got.header("x-mesh-error");
    assert!(
        what.contains("no instance took the connection") && what.contains("connection refused"),
        "{what}"
    );

    let mut wrong = cluster("api", Protocol::Http, &[inbound_of(&pair.api)]);
    wrong.endpoints[0].identity = identity("other");
    config.clusters.insert("api".into(), wrong);
    pair.web.apply(config).await.unwrap();
    let got = once(pair.address, "/").await;
    assert_eq!(got.status, 503);
    let what = got.header("x-mesh-error");
    assert!(
        what.contains(&format!(
            "expected {}, but {} came",
            identity("other"),
            identity("api")
        )),
        "{what}"
    );
}

#[tokio::test]
async fn the_whole_of_a_request_has_a_time() {
    let application = application(|request| async move {
        if request.uri().path() == "/slow-body" {
            let frames =
                futures::stream::once(async { Ok(Frame::data(Bytes::from_static(b"begun"))) });
            let never = futures::stream::pending();
            return Response::new(
                StreamBody::new(futures::StreamExt::chain(frames, never)).boxed_unsync_sync(),
            );
        }
        std::future::pending().await
    })
    .await;
    let pair = Pair::with(Protocol::Http, application, options(), |config| {
        config.outbound[0].timeout = "300ms".parse().unwrap();
        config.outbound[0].rules = vec![rule(json!({
            "name": "quick", "match": [{ "path_prefix": "/quick" }],
            "to": [{ "cluster": "api", "weight": 1 }], "timeout": "100ms",
        }))];
    })
    .await;
    let got = once(pair.address, "/never").await;
    assert_eq!(got.status, 504);
    assert_eq!(
        got.header("x-mesh-error"),
        "api: no answer within 300 ms, the service's request_timeout"
    );
    let got = once(pair.address, "/quick").await;
    assert!(
        got.header("x-mesh-error")
            .contains("100 ms, the timeout of route rule quick")
    );
    let answer = Client::h1(pair.address).await.send(get("/slow-body")).await;
    assert_eq!(answer.status(), 200);
    assert!(
        in_time(answer.into_body().collect()).await.is_err(),
        "a cut body is an error"
    );
}

/// `BoxBody` wants `Sync`; a pending stream is.
trait BoxedSync {
    fn boxed_unsync_sync(self) -> TestBody;
}

impl<S> BoxedSync for StreamBody<S>
where
    S: futures::Stream<Item = Result<Frame<Bytes>, std::convert::Infallible>>
        + Send
        + Sync
        + 'static,
{
    fn boxed_unsync_sync(self) -> TestBody {
        self.boxed()
    }
}
