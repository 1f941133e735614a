//! Streams that share a connection do not hold each other up: what nobody reads
//! stops by itself, and what is bulk has connections of its own. Nothing here
//! looks at a clock: without it, what is asked for never comes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response};
use mesh_model::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::*;

const MIB: usize = 1024 * 1024;

/// Between the two sidecars; counts their connections, and what each carries.
struct Between {
    address: SocketAddr,
    carried: Arc<Mutex<Vec<Arc<AtomicUsize>>>>,
}

impl Between {
    fn new(to: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let address = listener.local_addr().unwrap();
        let carried = Arc::<Mutex<Vec<Arc<AtomicUsize>>>>::default();
        let each = carried.clone();
        tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let count = Arc::new(AtomicUsize::new(0));
                each.lock().unwrap().push(count.clone());
                tokio::spawn(async move {
                    let far = TcpStream::connect(to).await.unwrap();
                    let (near, far) = (near.into_split(), far.into_split());
                    tokio::spawn(carry(near.0, far.1, count.clone()));
                    carry(far.0, near.1, count).await;
                });
            }
        });
        Self { address, carried }
    }

    fn count(&self) -> usize {
        self.carried.lock().unwrap().len()
    }

    /// Bytes that each connection has carried.
    fn carried(&self) -> Vec<usize> {
        let each = self.carried.lock().unwrap();
        each.iter().map(|one| one.load(Ordering::Relaxed)).collect()
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, carried: Arc<AtomicUsize>) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        carried.fetch_add(length, Ordering::Relaxed);
        if to.write_all(&piece[..length]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

async fn pair(protocol: Protocol, application: SocketAddr) -> (Pair, Between) {
    let mut between = None;
    let pair = Pair::with(protocol, application, options(), |config| {
        let endpoint = &mut config.clusters.get_mut("api").unwrap().endpoints[0];
        let to = format!("{}:{}", endpoint.address, endpoint.port);
        let new = Between::new(to.parse().unwrap());
        endpoint.port = new.address.port();
        between = Some(new);
        // Else what is stuck would end by itself, and all go on.
        config.outbound[0].timeout = mesh_model::Duration::default();
    })
    .await;
    (pair, between.unwrap())
}

/// So many bytes in pieces; counts those that were taken.
fn pieces(size: usize, taken: Arc<AtomicUsize>) -> TestBody {
    const PIECE: Bytes = Bytes::from_static(&[7; 16 * 1024]);
    let whole = std::iter::repeat_n(PIECE, size / PIECE.len());
    let rest = PIECE.slice(..size % PIECE.len());
    let pieces = whole.chain(std::iter::once(rest)).map(move |piece| {
        taken.fetch_add(piece.len(), Ordering::Relaxed);
        Ok(Frame::data(piece))
    });
    StreamBody::new(futures::stream::iter(pieces)).boxed()
}

/// What the application was asked.
#[derive(Clone, Default)]
struct Asked {
    unread: Arc<AtomicUsize>,
    sent: Arc<AtomicUsize>,
}

/// Of `/big/N`: N bytes, and their length; of `/endless` bytes without one; of
/// `/unread` nothing until the end of time, and the body is not read; else the
/// body is sent back.
async fn big_and_small() -> (SocketAddr, Asked) {
    let asked = Asked::default();
    let counts = asked.clone();
    let address = application(move |request: Request<Incoming>| {
        let asked = counts.clone();
        async move {
            let path = request.uri().path().to_owned();
            if let Some(size) = path.strip_prefix("/big/") {
                let answer = Response::builder().header("content-length", size);
                let body = pieces(size.parse().unwrap(), asked.sent);
                return answer.body(body).unwrap();
            }
            match path.as_str() {
                "/endless" => Response::new(pieces(usize::MAX, asked.sent)),
                "/unread" => {
                    asked.unread.fetch_add(1, Ordering::Relaxed);
                    let _held = request;
                    std::future::pending().await
                }
                _ => {
                    let body = request.into_body().collect().await.unwrap();
                    Response::new(full(body.to_bytes()))
                }
            }
        }
    })
    .await;
    (address, asked)
}

/// A request with a body of some size.
fn upload(path: &str, size: usize, taken: Arc<AtomicUsize>) -> Request<TestBody> {
    let mut request = request("POST", path, "");
    let length = size.to_string().parse().unwrap();
    request.headers_mut().insert("content-length", length);
    *request.body_mut() = pieces(size, taken);
    request
}

/// An upload that comes back.
async fn whole_upload(address: SocketAddr, size: usize) {
    let mut client = Client::h1(address).await;
    let got = read(client.send(upload("/", size, Arc::default())).await).await;
    assert_eq!(got.body.len(), size);
}

/// Uploads that nobody reads, as far as they get; they end with what is given back.
async fn unread(address: SocketAddr, asked: &Asked, sizes: &[usize]) -> JoinSet<()> {
    let taken = Arc::new(AtomicUsize::new(0));
    let mut uploads = JoinSet::new();
    for size in sizes {
        let upload = upload("/unread", *size, taken.clone());
        uploads.spawn(async move {
            let _ = Client::h1(address).await.try_send(upload).await;
        });
    }
    let all = || asked.unread.load(Ordering::Relaxed) == sizes.len();
    until("all have begun", all).await;
    stuck(|| taken.load(Ordering::Relaxed)).await;
    uploads
}

/// Small requests with something in both directions, one after the other.
async fn small_ones(address: SocketAddr, count: usize) {
    let mut client = Client::h1(address).await;
    for _ in 0..count {
        let got = in_time(async { read(client.send(request("POST", "/", "small")).await).await });
        assert_eq!(got.await.text(), "small");
    }
}

/// The same, while what is bulk is stuck: they go over connections that carry nothing of it.
async fn small_ones_apart(pair: &Pair, between: &Between) {
    let before = between.carried();
    small_ones(pair.address, 500).await;
    let now = between.carried();
    let of = |at| {
        (
            now[at],
            now[at] - before.get(at).copied().unwrap_or_default(),
        )
    };
    // What is stuck says a little now and then; of the bulk there is far more than a window.
    let used: Vec<_> = (0..now.len())
        .map(of)
        .filter(|of| of.1 > 500 * 20)
        .collect();
    assert!(!used.is_empty());
    assert!(used.iter().all(|of| of.0 < MIB / 2), "{before:?}, {now:?}");
}

/// Waits until something grows no more. (If it only pauses, less is stuck.)
async fn stuck(now: impl Fn() -> usize) {
    let mut last = (usize::MAX, 0);
    until("it is stuck", || {
        let now = now();
        last = (now, if now == last.0 { last.1 + 1 } else { 0 });
        last.1 > 20
    })
    .await;
}

#[tokio::test]
async fn small_requests_are_apart_from_long_bodies() {
    let (application, asked) = big_and_small().await;
    let (pair, between) = pair(Protocol::Http, application).await;
    small_ones(pair.address, 1).await;
    let _held = unread(pair.address, &asked, &[16 * MIB; 3]).await;
    small_ones_apart(&pair, &between).await;
    assert_eq!(between.count(), 2);
}

#[tokio::test]
async fn small_requests_are_apart_from_long_answers() {
    let (application, asked) = big_and_small().await;
    let (pair, between) = pair(Protocol::Http, application).await;
    small_ones(pair.address, 1).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        // Where it begins nobody knows yet how long it is.
        let mut client = Client::h1(pair.address).await;
        held.push((client.send(get("/big/16777216")).await, client));
    }
    stuck(|| asked.sent.load(Ordering::Relaxed)).await;
    small_ones_apart(&pair, &between).await;
    assert_eq!(between.count(), 4);
}

#[tokio::test]
async fn answers_that_nobody_reads() {
    let (application, asked) = big_and_small().await;
    let (pair, between) = pair(Protocol::Http, application).await;
    small_ones(pair.address, 1).await;
    assert_eq!(between.count(), 1);
    // More than one connection may have under way unread, several times.
    let mut held = Vec::new();
    for path in ["/big/16777216", "/endless"].repeat(8) {
        let mut client = Client::h1(pair.address).await;
        held.push((client.send(get(path)).await, client));
    }
    stuck(|| asked.sent.load(Ordering::Relaxed)).await;
    small_ones(pair.address, 1000).await;
    assert!(between.count() <= 8, "{}", between.count());
    // One that is read comes whole, beside those that are not.
    let whole = once(pair.address, "/big/4194304").await;
    assert_eq!(whole.body.len(), 4 * MIB);
}

#[tokio::test]
async fn bodies_that_the_application_does_not_read() {
    let (application, asked) = big_and_small().await;
    let (pair, between) = pair(Protocol::Http, application).await;
    // Some whose length says what they are, and some of which it shows.
    let sizes = [MIB - 1, 16 * MIB].repeat(8);
    let _held = unread(pair.address, &asked, &sizes).await;
    small_ones(pair.address, 1000).await;
    assert!(between.count() <= 8, "{}", between.count());
}

#[tokio::test]
async fn small_bodies_that_the_application_does_not_read() {
    let (application, asked) = big_and_small().await;
    let (pair, between) = pair(Protocol::Http, application).await;
    // Too small to be bulk: they share a connection, and each has its own window.
    let _held = unread(pair.address, &asked, &[60 * 1024; 100]).await;
    small_ones(pair.address, 1000).await;
    assert_eq!(between.count(), 1);
}

#[tokio::test]
async fn a_download_keeps_its_connection_and_the_others_go() {
    let (application, _) = big_and_small().await;
    let (pair, between) = pair(Protocol::Http, application).await;
    let mut client = Client::h1(pair.address).await;
    let answer = client.send(get("/endless")).await;
    let mut body = answer.into_body();
    let mut got = 0;
    while got < 4 * MIB {
        got += in_time(body.frame())
            .await
            .unwrap()
            .unwrap()
            .into_data()
            .unwrap()
            .len();
    }
    assert_eq!(between.count(), 1);
    small_ones(pair.address, 100).await;
    assert_eq!(between.count(), 2);
    // Another that is known by its length shares with it; nothing is made for each.
    let whole = once(pair.address, "/big/4194304").await;
    assert_eq!(whole.body.len(), 4 * MIB);
    for _ in 0..3 {
        whole_upload(pair.address, 2 * MIB).await;
    }
    small_ones(pair.address, 100).await;
    assert_eq!(between.count(), 2);
    // When it is over they come back to the first.
    drop((body, client));
    until("it is over", || {
        metric(
            &pair.web,
            "mesh_request_duration_seconds_count",
            &["outbound"],
        ) == 205
    })
    .await;
    small_ones(pair.address, 100).await;
    assert_eq!(between.count(), 2);
}

#[tokio::test]
async fn bulk_alone_needs_one_connection() {
    let (application, _) = big_and_small().await;
    let (pair, between) = pair(Protocol::Http, application).await;
    for _ in 0..5 {
        whole_upload(pair.address, 2 * MIB).await;
        small_ones(pair.address, 2).await;
    }
    assert_eq!(between.count(), 1);
}

/// Sends back what comes, until the first byte is `!`: then it reads no more.
/// After `?` it sends without end.
async fn byte_streams() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let first = socket.read_u8().await.unwrap_or_default();
                match first {
                    b'!' => std::future::pending().await,
                    b'?' => while socket.write_all(&[7; 64 * 1024]).await.is_ok() {},
                    _ => {
                        let _ = socket.write_u8(first).await;
                        let (mut read, mut write) = socket.split();
                        let _ = tokio::io::copy(&mut read, &mut write).await;
                    }
                }
            });
        }
    });
    address
}

async fn echoes(address: SocketAddr, count: usize) {
    for _ in 0..count {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"small").await.unwrap();
        let mut got = [0; 5];
        in_time(socket.read_exact(&mut got)).await.unwrap();
        assert_eq!(&got, b"small");
    }
}

#[tokio::test]
async fn byte_streams_that_nobody_reads() {
    let (pair, between) = pair(Protocol::Tcp, byte_streams().await).await;
    let mut old = TcpStream::connect(pair.address).await.unwrap();
    old.write_all(b"old").await.unwrap();
    old.read_exact(&mut [0; 3]).await.unwrap();
    assert_eq!(between.count(), 1);
    let mut held = Vec::new();
    for _ in 0..12 {
        let mut down = TcpStream::connect(pair.address).await.unwrap();
        down.write_all(b"?").await.unwrap();
        let mut up = TcpStream::connect(pair.address).await.unwrap();
        up.write_all(b"!").await.unwrap();
        let filling =
            tokio::spawn(async move { while up.write_all(&[7; 64 * 1024]).await.is_ok() {} });
        held.push((down, filling));
    }
    stuck(|| {
        let passed = |name| metric(&pair.web, name, &[]) as usize;
        passed("mesh_request_bytes_total") + passed("mesh_response_bytes_total")
    })
    .await;
    echoes(pair.address, 200).await;
    // Also one that was there before, and stays where it is: far more than a window.
    let (mut read, mut write) = old.split();
    let mut got = vec![0; 20 * MIB];
    let sent = vec![9; 20 * MIB];
    let both = async { tokio::try_join!(write.write_all(&sent), read.read_exact(&mut got)) };
    in_time(both).await.unwrap();
    assert!(between.count() <= 8, "{}", between.count());
    held.iter().for_each(|(_, filling)| filling.abort());
}

#[tokio::test]
async fn a_bulk_byte_stream_keeps_its_connection_and_the_others_go() {
    let (pair, between) = pair(Protocol::Tcp, byte_streams().await).await;
    let mut bulk = TcpStream::connect(pair.address).await.unwrap();
    bulk.write_all(b"?").await.unwrap();
    in_time(bulk.read_exact(&mut vec![0; 4 * MIB]))
        .await
        .unwrap();
    assert_eq!(between.count(), 1);
    echoes(pair.address, 20).await;
    assert_eq!(between.count(), 2);
}
