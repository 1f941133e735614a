//! What gRPC needs: trailers, and streams both ways.

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::{HeaderMap, Request, Response};
use mesh_model::Protocol;
use tokio::sync::mpsc;

use crate::support::*;

pub(crate) fn grpc(path: &str, body: TestBody) -> Request<TestBody> {
    Request::builder()
        .method("POST")
        .uri(format!("http://api{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .unwrap()
}

/// Gives back each piece as it comes, and then a status.
pub(crate) async fn streaming() -> std::net::SocketAddr {
    application(|request| async move {
        assert_eq!(request.headers()["te"], "trailers");
        if request.uri().path() == "/fail" {
            let answer = Response::builder()
                .header("content-type", "application/grpc")
                .header("grpc-status", "14");
            return answer.body(full("")).unwrap();
        }
        let body = request.into_body();
        let frames = futures::stream::unfold(Some(body), |body| async move {
            let mut body = body?;
            match body.frame().await {
                Some(Ok(frame)) if frame.is_data() => Some((Ok(frame), Some(body))),
                _ => {
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", "0".parse().unwrap());
                    Some((Ok(Frame::trailers(trailers)), None))
                }
            }
        });
        let answer = Response::builder().header("content-type", "application/grpc");
        answer
            .body(StreamBody::new(Box::pin(frames) as SyncFrames).boxed())
            .unwrap()
    })
    .await
}

type SyncFrames = std::pin::Pin<
    Box<dyn futures::Stream<Item = Result<Frame<Bytes>, std::convert::Infallible>> + Send + Sync>,
>;

/// A body that is fed by the test.
pub(crate) fn fed() -> (mpsc::Sender<&'static str>, TestBody) {
    let (feed, fed) = mpsc::channel::<&'static str>(4);
    let frames = futures::stream::unfold(fed, |mut fed| async move {
        let piece = fed.recv().await?;
        Some((Ok(Frame::data(Bytes::from_static(piece.as_bytes()))), fed))
    });
    (
        feed,
        StreamBody::new(Box::pin(frames) as SyncFrames).boxed(),
    )
}

#[tokio::test]
async fn streams_both_ways_with_trailers() {
    let pair = Pair::new(Protocol::Grpc, streaming().await).await;
    let mut client = Client::h2(pair.address).await;
    let (feed, body) = fed();
    let answer = client.send(grpc("/chat", body)).await;
    assert_eq!(answer.headers()["content-type"], "application/grpc");
    let mut body = answer.into_body();
    for piece in ["one", "two", "three"] {
        // Each is answered before the next is sent.
        feed.send(piece).await.unwrap();
        let frame = in_time(body.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), piece);
    }
    drop(feed);
    let frame = in_time(body.frame()).await.unwrap().unwrap();
    assert_eq!(frame.into_trailers().unwrap()["grpc-status"], "0");
    assert!(in_time(body.frame()).await.is_none());
}

#[tokio::test]
async fn trailers_go_through_both_ways() {
    let application = application(|request| async move {
        let body = request.into_body().collect().await.unwrap();
        let trailers = body.trailers().unwrap();
        assert_eq!(trailers.len(), 1, "{trailers:?}");
        let mut back = HeaderMap::new();
        back.insert("x-sum", trailers["x-sum"].clone());
        back.insert("x-mesh-denied", "forged".parse().unwrap());
        let frames = [
            Ok(Frame::data(Bytes::from_static(b"y"))),
            Ok(Frame::trailers(back)),
        ];
        Response::new(StreamBody::new(futures::stream::iter(frames)).boxed())
    })
    .await;
    let pair = Pair::new(Protocol::Http2, application).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "42".parse().unwrap());
    // Only the mesh says these.
    trailers.insert("x-mesh-source", "forged".parse().unwrap());
    trailers.insert("x_mesh_source", "forged".parse().unwrap());
    trailers.insert("x-forwarded-client-cert", "forged".parse().unwrap());
    let frames = [
        Ok(Frame::data(Bytes::from_static(b"x"))),
        Ok(Frame::trailers(trailers)),
    ];
    let body = StreamBody::new(futures::stream::iter(frames)).boxed();
    let got = read(
        Client::h2(pair.address)
            .await
            .send(grpc("/sum", body))
            .await,
    )
    .await;
    let trailers = got.trailers.unwrap();
    assert_eq!(
        (trailers.len(), &trailers["x-sum"]),
        (1, &"42".parse().unwrap())
    );
}

#[tokio::test]
async fn trailers_of_an_answer_without_a_body() {
    let pair = Pair::new(Protocol::Grpc, streaming().await).await;
    let mut client = Client::h2(pair.address).await;
    let got = read(client.send(grpc("/x", full(""))).await).await;
    assert_eq!(got.trailers.unwrap()["grpc-status"], "0");
    let got = read(client.send(grpc("/fail", full("a"))).await).await;
    assert_eq!((got.header("grpc-status"), &got.trailers), ("14", &None));
}

#[tokio::test]
async fn errors_are_statuses() {
    let pair = Pair::new(Protocol::Grpc, nobody().await).await;
    let mut client = Client::h2(pair.address).await;
    let got = read(client.send(grpc("/x", full("a"))).await).await;
    assert_eq!((got.status, got.header("grpc-status")), (200, "14"));
    assert!(
        got.header("grpc-message").contains("cannot be reached"),
        "{got:?}"
    );
    pair.api.apply_policy(&policy("deny", &[]));
    let got = read(client.send(grpc("/x", full("a"))).await).await;
    assert_eq!((got.status, got.header("grpc-status")), (200, "7"));
    assert!(
        got.header("x-mesh-denied").contains("no intention matches"),
        "{got:?}"
    );
    assert_eq!(
        metric(&pair.api, "mesh_requests_total", &["code=\"403\""]),
        1
    );
}

#[tokio::test]
async fn a_client_that_goes_ends_the_call() {
    let (gone, mut is_gone) = mpsc::channel::<()>(1);
    let application = application(move |request| {
        let gone = gone.clone();
        async move {
            let (guard, body) = (DropGuard(gone), request.into_body());
            let frames = futures::stream::unfold((body, guard), |(mut body, guard)| async move {
                let frame = body.frame().await?.ok()?;
                Some((Ok(frame), (body, guard)))
            });
            Response::new(StreamBody::new(Box::pin(frames) as SyncFrames).boxed())
        }
    })
    .await;
    let pair = Pair::with(Protocol::Grpc, application, options(), |config| {
        config.outbound[0].timeout = "0s".parse().unwrap();
    })
    .await;
    for resets in [true, false] {
        let socket = tokio::net::TcpStream::connect(pair.address).await.unwrap();
        let (client, connection) = h2::client::handshake(socket).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut client = client.ready().await.unwrap();
        let (head, _) = grpc("/chat", full("")).into_parts();
        let request = Request::from_parts(head, ());
        let (answer, mut stream) = client.send_request(request, false).unwrap();
        stream.send_data(Bytes::from_static(b"x"), false).unwrap();
        let mut body = in_time(answer).await.unwrap().into_body();
        assert_eq!(in_time(body.data()).await.unwrap().unwrap(), "x");
        match resets {
            true => stream.send_reset(h2::Reason::CANCEL),
            false => connection.abort(),
        }
        in_time(is_gone.recv()).await.unwrap();
    }
}

struct DropGuard(mpsc::Sender<()>);

impl Drop for DropGuard {
    fn drop(&mut self) {
        let _ = self.0.try_send(());
    }
}
