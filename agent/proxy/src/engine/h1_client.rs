//! Calls over HTTP/1.1, on connections that are kept for the next call.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::h1_server::{Received, upgrade};
use super::local::TokioIo;
use super::{SendError, SendErrorKind};
use crate::http::{Answer, Body, BodyError, Call};
use crate::lifecycle::at;

/// Idle connections that are kept at most.
const MAX_IDLE: usize = 256;

/// A connection for one call at a time.
pub(crate) struct H1Client {
    sender: SendRequest<Body>,
    /// From when on it takes nothing new, and when it is cut.
    until: Option<(Instant, Instant)>,
}

/// Idle connections to one place; the most recently used is taken first, so
/// that the others can end.
#[derive(Default)]
pub(crate) struct IdlePool {
    idle: RefCell<VecDeque<(H1Client, Instant)>>,
}

impl IdlePool {
    /// An idle connection, if there is one, and how long it was idle.
    pub(crate) fn take(&self) -> Option<(H1Client, Duration)> {
        let mut idle = self.idle.borrow_mut();
        // One that is not ready yet is finishing its last call.
        let mut not_ready = Vec::new();
        let mut found = None;
        while let Some((client, since)) = idle.pop_back() {
            if client.is_over() {
                continue;
            }
            if client.sender.is_ready() {
                found = Some((client, since.elapsed()));
                break;
            }
            not_ready.push((client, since));
            if not_ready.len() >= 4 {
                break;
            }
        }
        idle.extend(not_ready.into_iter().rev());
        found
    }

    pub(crate) fn put(&self, client: H1Client) {
        if !client.is_over() {
            let mut idle = self.idle.borrow_mut();
            if idle.len() >= MAX_IDLE {
                idle.pop_front();
            }
            idle.push_back((client, Instant::now()));
        }
    }

    /// Closes what was idle since before.
    pub(crate) fn close_idle_since(&self, before: Instant) {
        self.idle
            .borrow_mut()
            .retain(|(client, since)| *since > before && !client.is_over());
    }
}

impl H1Client {
    /// Begins HTTP/1.1 on a connection.
    ///
    /// At the first of the times in `until` it takes nothing new any more, at
    /// the second it is cut.
    pub(crate) async fn begin<T>(
        io: T,
        headers: usize,
        header_bytes: usize,
        until: Option<(Instant, Instant)>,
    ) -> io::Result<Self>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = Builder::new()
            .max_headers(headers)
            .max_header_size(header_bytes)
            .handshake(TokioIo::new(io))
            .await
            .map_err(io::Error::other)?;
        tokio::task::spawn_local(async move {
            tokio::select! {
                _ = connection.with_upgrades() => {}
                () = at(until.map(|(_, cut)| cut)) => {}
            }
        });
        Ok(Self { sender, until })
    }

    /// Nothing can begin on it any more.
    fn is_over(&self) -> bool {
        self.sender.is_closed() || self.until.is_some_and(|(close, _)| close <= Instant::now())
    }

    /// Makes a call; the connection goes into `pool` when the answer is read.
    pub(crate) async fn send(
        mut self,
        call: Call,
        pool: Rc<IdlePool>,
    ) -> Result<Answer, SendError> {
        let Call { mut head, body, .. } = call;
        head.version = Version::HTTP_11;
        // hyper would take it that these methods have no body.
        let of_unknown_length = !body.is_end_stream() && body.size_hint().exact().is_none();
        if of_unknown_length && !head.headers.contains_key(CONTENT_LENGTH) {
            let chunked = HeaderValue::from_static("chunked");
            head.headers.insert(TRANSFER_ENCODING, chunked);
        }
        let sent = self
            .sender
            .try_send_request(Request::from_parts(head, body));
        let mut answer = match sent.await {
            Ok(answer) => answer,
            Err(mut error) => {
                let call = error.take_message().map(|request| {
                    let (head, body) = request.into_parts();
                    Box::new(Call {
                        head,
                        body,
                        upgrade: None,
                    })
                });
                return Err(failed(error.error(), call));
            }
        };
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let tunnel = upgrade(hyper::upgrade::on(&mut answer));
            let (head, _) = answer.into_parts();
            let mut answer = Answer::new(head, Body::empty());
            answer.upgrade = Some(tunnel);
            answer.cut_at = self.until.map(|(_, cut)| cut);
            return Ok(answer);
        }
        Ok(self.answer(answer, pool))
    }

    fn answer(self, answer: Response<Incoming>, pool: Rc<IdlePool>) -> Answer {
        let (head, body) = answer.into_parts();
        let received = Returning {
            body: Received(body),
            home: Some((self, pool)),
        };
        Answer::new(head, Body::stream(received))
    }
}

fn failed(error: &hyper::Error, call: Option<Box<Call>>) -> SendError {
    let kind = if call.is_some() {
        SendErrorKind::Refused
    } else if error.is_parse() {
        SendErrorKind::Malformed
    } else if error.is_user() {
        SendErrorKind::Body
    } else {
        SendErrorKind::Reset
    };
    let mut what = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        what = format!("{what}: {inner}");
        source = inner.source();
    }
    SendError { kind, what, call }
}

/// A body whose connection is idle when it has ended.
struct Returning {
    body: Received,
    home: Option<(H1Client, Rc<IdlePool>)>,
}

impl Returning {
    fn go_home(&mut self) {
        if let Some((client, pool)) = self.home.take() {
            pool.put(client);
        }
    }
}

impl http_body::Body for Returning {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            None => self.go_home(),
            Some(Ok(_)) if self.body.is_end_stream() => self.go_home(),
            Some(Ok(_)) => {}
            Some(Err(_)) => self.home = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Returning {
    fn drop(&mut self) {
        // An answer without a body has ended without being read.
        if self.body.is_end_stream() {
            self.go_home();
        }
    }
}
