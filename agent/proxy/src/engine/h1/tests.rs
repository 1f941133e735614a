//! What is read here is read by hyper, and by a strict reading of the rules, in
//! the same way, or it is refused.

#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::watch;
use tokio::task::LocalSet;

use super::client::{H1Client, IdlePool};
use super::framing::{Decoder, Encoder, Length};
use super::{Malformed, head, server};
use crate::engine::{SendError, SendErrorKind, ServeLimits};
use crate::http::{Answer, Body, BodyError, Call, Handler};
use crate::lifecycle::Phase;

/// What an engine made of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    method: Method,
    target: String,
    headers: BTreeMap<String, Vec<Vec<u8>>>,
    /// `None`: it broke off.
    body: Option<Bytes>,
}

#[derive(Clone, Default)]
struct Notes(Rc<RefCell<Vec<Seen>>>);

impl Notes {
    async fn note<B>(&self, head: http::request::Parts, body: B)
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let mut headers: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (name, value) in &head.headers {
            let of_name = headers.entry(name.to_string()).or_default();
            of_name.push(value.as_bytes().to_vec());
        }
        let collected = body.collect().await.ok();
        self.0.borrow_mut().push(Seen {
            method: head.method,
            target: head.uri.to_string(),
            headers,
            body: collected.map(|body| body.to_bytes()),
        });
    }
}

impl Handler for Notes {
    async fn handle(self: Rc<Self>, call: Call) -> Answer {
        self.note(call.head, call.body).await;
        let (head, ()) = Response::new(()).into_parts();
        Answer::new(head, Body::full("ok"))
    }
}

fn limits() -> ServeLimits {
    ServeLimits {
        streams: 1,
        headers: 100,
        header_bytes: 16 * 1024,
        head: None,
        strangers: true,
        until: None,
    }
}

/// Runs it on a connection to which these bytes come, in pieces of this size.
/// Gives back what was answered.
async fn talk<F>(bytes: &[u8], piece: usize, serve: impl FnOnce(DuplexStream) -> F) -> Vec<u8>
where
    F: Future<Output = ()> + 'static,
{
    let (near, far) = duplex(256 * 1024);
    let serving = tokio::task::spawn_local(serve(far));
    let (mut reads, mut writes) = tokio::io::split(near);
    let mut got = Vec::new();
    for piece in bytes.chunks(piece.max(1)) {
        if writes.write_all(piece).await.is_err() {
            break; // it was refused
        }
        tokio::task::yield_now().await;
    }
    // Not its end, since that would cut what is being answered.
    let all = async {
        let _ = reads.read_to_end(&mut got).await;
    };
    let _ = tokio::time::timeout(Duration::from_millis(1), all).await;
    serving.abort();
    let _ = serving.await;
    got
}

/// What came of it here, and with hyper.
fn both(bytes: &[u8], piece: usize) -> (Vec<Seen>, Vec<Seen>, Vec<u8>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let (ours, theirs) = (Notes::default(), Notes::default());
        let handler = Rc::new(ours.clone());
        let answered = talk(bytes, piece, |io| async move {
            let (_phase, phases) = watch::channel(Phase::Running);
            let _ = server::serve(io, handler, &limits(), phases).await;
        })
        .await;
        let notes = theirs.clone();
        talk(bytes, piece, |io| async move {
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let notes = notes.clone();
                async move {
                    let (head, body) = request.into_parts();
                    notes.note(head, body).await;
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("ok"))))
                }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(io), service)
                .await;
        })
        .await;
        (ours.0.take(), theirs.0.take(), answered)
    })
}

/// What hyper saw is what was seen here, as far as that went.
fn agree(bytes: &[u8], piece: usize) -> Result<(), TestCaseError> {
    let (ours, theirs, _) = both(bytes, piece);
    let shown = String::from_utf8_lossy(bytes);
    // hyper may still wait for more of a body that is refused here.
    let whole = ours.iter().filter(|seen| seen.body.is_some()).count();
    prop_assert!(whole <= theirs.len(), "{shown:?}: {ours:?} {theirs:?}");
    for (one, other) in ours.iter().zip(&theirs) {
        let mut other = other.clone();
        // What is refused here within a body breaks off.
        if one.body.is_none() {
            other.body = None;
        }
        prop_assert_eq!(one, &other, "{:?}", shown);
    }
    Ok(())
}

fn line() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "host: a\r\n",
        "host: b\r\n",
        "content-length: 3\r\n",
        "content-length: 0\r\n",
        "Content-Length: 3, 3\r\n",
        "content-length: +3\r\n",
        "content-length: 99999999999999999999999\r\n",
        "transfer-encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "transfer-encoding: identity\r\n",
        "transfer-encoding:\tchunked \r\n",
        "transfer-encoding : chunked\r\n",
        "connection: close\r\n",
        "connection: keep-alive, X-A\r\n",
        "expect: 100-continue\r\n",
        "x-a: 1\r\n",
        "x-a: 1\n",
        "x-a:\r\n",
        "x-a: a\r\n b\r\n",
        "x a: 1\r\n",
        "x-\u{e9}: 1\r\n",
        "x-a: \u{e9}\r\n",
        ": none\r\n",
        "none\r\n",
        "x-nul: a\0b\r\n",
        "x-cr: a\rb\r\n",
    ])
    .prop_map(str::to_owned)
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    let first = prop::sample::select(vec![
        "GET / HTTP/1.1\r\n",
        "POST /a?b#c HTTP/1.1\r\n",
        "POST / HTTP/1.0\r\n",
        "HEAD http://h:1/p HTTP/1.1\r\n",
        "OPTIONS * HTTP/1.1\r\n",
        "\r\nGET / HTTP/1.1\r\n",
        "GET  / HTTP/1.1\r\n",
        "GET / HTTP/1.1\n",
        "GET / HTTP/2.0\r\n",
        "GET /\r\n",
        "G\u{e9}T / HTTP/1.1\r\n",
        "GET /\u{e9} HTTP/1.1\r\n",
    ]);
    let body = prop::sample::select(vec![
        "",
        "abc",
        "3\r\nabc\r\n0\r\n\r\n",
        "3;ext=\"x\"\r\nabc\r\n0\r\nx-t: 1\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "3\nabc\n0\n\n",
        "03\r\nabc\r\n00\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nabc",
        "-3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\r\nbad\r\n\r\n",
    ]);
    (first, prop::collection::vec(line(), 0..5), body).prop_map(|(first, lines, body)| {
        let head = format!("{first}{}\r\n{body}", lines.concat());
        head.into_bytes()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Requests of every kind, good and hostile, one after the other.
    #[test]
    fn what_is_taken_hyper_takes_as_the_same(
        messages in prop::collection::vec(message(), 1..4),
        piece in prop::sample::select(vec![1_usize, 7, 4096]),
    ) {
        agree(&messages.concat(), piece)?;
    }

    /// Bytes changed anywhere.
    #[test]
    fn also_when_bytes_are_changed(
        messages in prop::collection::vec(message(), 1..3),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = messages.concat();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        agree(&bytes, 4096)?;
    }

    /// A body is the same whatever the reads are.
    #[test]
    fn chunks_are_read_as_they_were_written(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6),
        cut in 1_usize..64,
    ) {
        let mut written = Vec::new();
        let mut encoder = Encoder::new(Length::Chunked, false);
        for piece in &pieces {
            encoder.put(&mut written, piece).unwrap();
        }
        encoder.finish(&mut written, None).unwrap();
        written.extend_from_slice(b"next");
        let mut decoder = Decoder::new(Length::Chunked);
        let (mut got, mut left) = (Vec::new(), Vec::new());
        for piece in written.chunks(cut) {
            let mut rest = piece;
            got.extend_from_slice(&decoder.take(&mut rest).unwrap());
            left.extend_from_slice(rest);
        }
        prop_assert!(decoder.is_done());
        prop_assert_eq!(got, pieces.concat());
        prop_assert_eq!(left, b"next");
    }

    #[test]
    fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        head::fuzz(&bytes);
        super::framing::fuzz(&bytes);
    }
}

#[test]
fn what_is_good_is_taken() {
    let bytes = b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\n\
        POST /2 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: Chunked\r\n\r\n\
        3;x\r\nabc\r\n1\r\nd\r\n0\r\n\r\n\
        PUT http://h/3 HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nok\
        GET /4 HTTP/1.1\r\nhost: a\r\nconnection: x, close\r\n\r\n\
        GET /5 HTTP/1.1\r\nhost: a\r\n\r\n";
    for piece in [1, 5, 4096] {
        let (ours, theirs, answered) = both(bytes, piece);
        assert_eq!(ours, theirs);
        let bodies: Vec<_> = ours.iter().map(|seen| seen.body.clone().unwrap()).collect();
        assert_eq!(bodies, ["", "abcd", "ok", ""]);
        let answered = String::from_utf8(answered).unwrap();
        assert_eq!(
            answered
                .matches("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n")
                .count(),
            4
        );
        assert_eq!(answered.matches("connection: close\r\n").count(), 1);
    }
}

#[test]
fn what_two_could_read_in_two_ways_is_refused() {
    for (rule, bytes) in [
        ("a bare LF", "GET / HTTP/1.1\nhost: a\r\n\r\n"),
        ("a folded line", "GET / HTTP/1.1\r\nx: a\r\n b\r\n\r\n"),
        ("two hosts", "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n"),
        (
            "two lengths",
            "POST / HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc",
        ),
        (
            "a length of two",
            "POST / HTTP/1.1\r\ncontent-length: 3, 3\r\n\r\nabc",
        ),
        (
            "a length with a sign",
            "POST / HTTP/1.1\r\ncontent-length: +3\r\n\r\nabc",
        ),
        (
            "a length of too many digits",
            "POST / HTTP/1.1\r\ncontent-length: 00000000000000000003\r\n\r\nabc",
        ),
        (
            "a length beside chunks",
            "POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "two codings",
            "POST / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunks in HTTP/1.0",
            "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "a space before a colon",
            "POST / HTTP/1.1\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        ),
    ] {
        let (ours, _, answered) = both(bytes.as_bytes(), 4096);
        assert!(ours.is_empty(), "{rule}: {ours:?}");
        let answered = String::from_utf8_lossy(&answered);
        assert!(answered.starts_with("HTTP/1.1 400 "), "{rule}: {answered}");
        assert!(
            answered.contains("connection: close\r\n"),
            "{rule}: {answered}"
        );
    }
}

#[test]
fn chunks_that_are_none_break_off() {
    for bytes in [
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        ";\r\n0\r\n\r\n",
        "-1\r\n\r\n",
        "5 6\r\nhello\r\n0\r\n\r\n",
        "1000000000000000\r\n",
        "0\r\nx: 1\n\r\n",
        "0\r\nno trailer\r\n\r\n",
    ] {
        let mut decoder = Decoder::new(Length::Chunked);
        let mut rest = bytes.as_bytes();
        let taken = decoder.take(&mut rest);
        assert!(
            matches!(taken, Err(Malformed::Rule(_))),
            "{bytes:?}: {taken:?}"
        );
    }
    let mut decoder = Decoder::new(Length::Chunked);
    for blanks in ["3 \t\r\nabc\r\n0\r\n\r\n", "3 ;x\r\nabc\r\n0\r\n\r\n"] {
        let mut decoder = Decoder::new(Length::Chunked);
        assert_eq!(decoder.take(&mut blanks.as_bytes()), Ok("abc".into()));
        assert!(decoder.is_done());
    }
    let much = format!("1;{}\r\n", "x".repeat(20_000));
    assert!(decoder.take(&mut much.as_bytes()).is_err());
}

#[test]
fn nothing_follows_a_body_that_broke() {
    let bytes = b"GET /1 HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n\
        GET /2 HTTP/1.1\r\n\r\n";
    for piece in [1, 4096] {
        let (ours, _, _) = both(bytes, piece);
        let bodies: Vec<_> = ours.into_iter().map(|seen| seen.body).collect();
        assert_eq!(bodies, [None]);
    }
}

#[test]
fn answers_say_what_follows() {
    let read = |text: &str, method: &Method| {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        head::response(&bytes, 100, method).map(|head| (head.length, head.keep))
    };
    let (exact, get) = (Length::Exact, Method::GET);
    for (text, expected) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n",
            Ok((exact(3), true)),
        ),
        ("HTTP/1.1 200 OK\r\n\r\n", Ok((Length::UntilEnd, false))),
        (
            "HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\n",
            Ok((exact(3), false)),
        ),
        (
            "HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\ncontent-length: 3\r\n\r\n",
            Ok((exact(3), true)),
        ),
        (
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\n",
            Ok((exact(3), false)),
        ),
        (
            "HTTP/1.0 200 OK\r\nconnection: close, keep-alive\r\ncontent-length: 3\r\n\r\n",
            Ok((exact(3), false)),
        ),
        (
            "HTTP/1.1 200 OK\r\nconnection: \u{e9}, close\r\ncontent-length: 3\r\n\r\n",
            Ok((exact(3), false)),
        ),
        (
            "HTTP/1.1 204 No Content\r\ncontent-length: 3\r\n\r\n",
            Ok((exact(0), true)),
        ),
        (
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 3\r\n\r\n",
            Ok((exact(0), true)),
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n",
            Ok((Length::Chunked, false)),
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
            Err(Malformed::Rule("a coding that is not chunked")),
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            Err(Malformed::Rule("a coding that is not chunked")),
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked\r\n\r\n",
            Err(Malformed::Rule("a coding that is not chunked")),
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: Identity\r\ncontent-length: 3\r\n\r\n",
            Ok((exact(3), true)),
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n",
            Err(Malformed::Rule("more than one length")),
        ),
    ] {
        assert_eq!(read(text, &get), expected, "{text:?}");
    }
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 42\r\n\r\n";
    assert_eq!(read(head, &Method::HEAD), Ok((exact(0), true)));
}

/// A call over a connection whose other side has said this already.
async fn call(
    said: &[u8],
    body: Body,
    pool: &Rc<IdlePool>,
) -> (Result<Answer, SendError>, DuplexStream) {
    let (near, mut far) = duplex(64 * 1024);
    far.write_all(said).await.unwrap();
    let head = Request::post("/").header("host", "a").body(()).unwrap();
    let call = Call {
        head: head.into_parts().0,
        body,
        upgrade: None,
    };
    // What was said before a call would be taken for the answer to another.
    let client = H1Client::new(Late::new(near), 100, 16 * 1024, None);
    (client.send(call, pool.clone()).await, far)
}

/// A connection on which nothing has come at the first look.
struct Late(DuplexStream, bool);

impl Late {
    fn new(io: DuplexStream) -> Self {
        Self(io, false)
    }
}

impl tokio::io::AsyncRead for Late {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if !std::mem::replace(&mut self.1, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl tokio::io::AsyncWrite for Late {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A body of which nothing comes.
struct Never;

impl http_body::Body for Never {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        Poll::Pending
    }
}

#[tokio::test]
async fn an_answer_may_come_before_the_request_is_sent() {
    let local = LocalSet::new();
    let whole = local.run_until(async {
        let pool = Rc::<IdlePool>::default();
        let said =
            b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno";
        let (answer, _far) = call(said, Body::stream(Never), &pool).await;
        let answer = answer.ok().unwrap();
        assert_eq!(answer.head.status, 413);
        let body = answer.body.collect().await.unwrap().to_bytes();
        assert_eq!(body, "no");
        // The rest of the request would be the next one's beginning.
        assert!(pool.take().is_none());
    });
    whole.await;
}

#[tokio::test]
async fn a_connection_is_used_again_only_while_it_is_quiet() {
    let local = LocalSet::new();
    let whole = local.run_until(async {
        let pool = Rc::<IdlePool>::default();
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        let (got, far) = call(answer, Body::empty(), &pool).await;
        assert_eq!(
            got.ok().unwrap().body.collect().await.unwrap().to_bytes(),
            "ok"
        );
        let client = pool.take().unwrap();
        pool.put(client);
        drop(far);
        assert!(pool.take().is_none(), "its other side has ended");
        // More than the answer is the answer to nothing.
        let more = [&answer[..], b"HTTP/1.1 200 OK\r\n"].concat();
        let (got, _far) = call(&more, Body::empty(), &pool).await;
        assert_eq!(
            got.ok().unwrap().body.collect().await.unwrap().to_bytes(),
            "ok"
        );
        assert!(pool.take().is_none());
    });
    whole.await;
}

#[tokio::test]
async fn a_call_is_made_again_only_where_that_does_no_harm() {
    for (method, body, expected) in [
        ("GET", Body::empty(), true),
        ("POST", Body::empty(), false),
        ("PUT", Body::full("x"), false),
    ] {
        let (near, mut far) = duplex(64 * 1024);
        let client = H1Client::new(near, 100, 16 * 1024, None);
        let head = Request::builder().method(method).header("host", "a");
        let call = Call {
            head: head.body(()).unwrap().into_parts().0,
            body,
            upgrade: None,
        };
        let mut underway = client.begin(call, Rc::default(), false).ok().unwrap();
        let ending = async {
            assert!(far.read(&mut [0; 1024]).await.unwrap() > 0);
            drop(far);
        };
        let (ended, ()) = tokio::join!(poll_fn(|cx| underway.poll(cx)), ending);
        assert_eq!(ended.err().unwrap().kind, SendErrorKind::Reset);
        let again = underway.again();
        assert_eq!(again.is_some(), expected, "{method}");
        assert!(again.is_none_or(|again| again.head.headers["host"] == "a"));
    }
}

#[tokio::test]
async fn what_is_no_answer_is_an_error() {
    let local = LocalSet::new();
    let whole = local.run_until(async {
        let pool = Rc::<IdlePool>::default();
        for (said, kind) in [
            (
                &b"HTTP/1.1 101 Switching Protocols\r\n\r\n"[..],
                SendErrorKind::Malformed,
            ),
            (b"HTTP/1.1 200 OK\n\n", SendErrorKind::Malformed),
            (b"220 smtp\r\n\r\n", SendErrorKind::Malformed),
        ] {
            let (answer, _far) = call(said, Body::empty(), &pool).await;
            assert_eq!(answer.err().unwrap().kind, kind, "{said:?}");
        }
        let interim = b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100);
        let (answer, _far) = call(&interim, Body::empty(), &pool).await;
        assert_eq!(answer.err().unwrap().kind, SendErrorKind::Malformed);
    });
    whole.await;
}

/// Answers with more than a connection holds.
struct Large;

impl Handler for Large {
    async fn handle(self: Rc<Self>, _: Call) -> Answer {
        let (head, ()) = Response::new(()).into_parts();
        Answer::new(head, Body::full(vec![b'x'; 1 << 20]))
    }
}

/// How long, in seconds, a caller is served who takes a little `times` times,
/// once in 20 s, and then nothing.
fn served(head: Option<Duration>, times: usize) -> Option<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let (mut near, far) = duplex(1024);
        near.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        let (_phase, phases) = watch::channel(Phase::Running);
        let limits = ServeLimits { head, ..limits() };
        let begin = tokio::time::Instant::now();
        let serving = server::serve(far, Rc::new(Large), &limits, phases);
        let reading = async {
            for _ in 0..times {
                tokio::time::sleep(Duration::from_secs(20)).await;
                near.read_exact(&mut [0; 100]).await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        let hour = tokio::time::sleep(Duration::from_secs(3600));
        tokio::select! {
            _ = serving => Some(begin.elapsed().as_secs()),
            () = reading => None,
            () = hour => None,
        }
    })
}

#[test]
fn a_caller_who_takes_nothing_is_left() {
    let limit = Some(Duration::from_secs(30));
    assert_eq!(served(limit, 0), Some(30));
    assert_eq!(served(limit, 5), Some(130), "he takes some of it");
    assert_eq!(served(None, 0), None);
}
