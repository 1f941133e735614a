//! Bodies into and out of HTTP/2 streams.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http_body::{Body as _, Frame, SizeHint};

use crate::http::{Body, BodyError};

/// What a stream receives.
pub(super) struct Received {
    stream: RecvStream,
    data_done: bool,
    done: bool,
    /// What is missing yet, where the head said how long it is.
    length: Option<u64>,
    is_answer: bool,
    /// What ends with the body; see [`StreamGuard`].
    _guard: Option<StreamGuard>,
}

impl Received {
    pub(super) fn new(
        stream: RecvStream,
        headers: &http::HeaderMap,
        guard: Option<StreamGuard>,
    ) -> Self {
        let done = stream.is_end_stream();
        let length = headers
            .get(http::header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        Self {
            stream,
            data_done: done,
            done,
            length,
            is_answer: guard.is_some(),
            _guard: guard,
        }
    }
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if !this.data_done {
            match ready!(this.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    let released = this.stream.flow_control().release_capacity(data.len());
                    if let Some(length) = &mut this.length {
                        *length = length.saturating_sub(data.len() as u64);
                    }
                    return Poll::Ready(Some(match released {
                        Ok(()) => Ok(Frame::data(data)),
                        Err(error) => Err(BodyError::Source(error.into())),
                    }));
                }
                // After a whole answer the other side may say that it needs no
                // more of the request (RFC 9113, 8.1).
                Some(Err(error))
                    if this.is_answer
                        && error.is_reset()
                        && error.reason() == Some(Reason::NO_ERROR)
                        && this.length.is_none_or(|missing| missing == 0) =>
                {
                    this.done = true;
                    this.data_done = true;
                }
                Some(Err(error)) => {
                    this.done = true;
                    this.data_done = true;
                    return Poll::Ready(Some(Err(BodyError::Source(error.into()))));
                }
                None => this.data_done = true,
            }
        }
        if this.done {
            return Poll::Ready(None);
        }
        let trailers = ready!(this.stream.poll_trailers(cx));
        this.done = true;
        Poll::Ready(match trailers {
            Ok(Some(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Ok(None) => None,
            Err(error) => Some(Err(BodyError::Source(error.into()))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.done || self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match (self.is_end_stream(), self.length) {
            (true, _) => SizeHint::with_exact(0),
            (false, Some(length)) => SizeHint::with_exact(length),
            (false, None) => SizeHint::default(),
        }
    }
}

/// How sending a body ended.
pub(super) enum Sent {
    /// All of it was handed to the stream.
    Whole,
    /// The other side wants no more, or has gone.
    Stopped,
    /// It broke itself.
    Broken,
}

/// Sends a body, as fast as the other side takes it. When the body breaks the
/// stream is reset.
pub(super) async fn send(mut body: Body, stream: &mut SendStream<Bytes>) -> Sent {
    poll_fn(|cx| poll_send(&mut body, stream, cx)).await
}

fn poll_send(body: &mut Body, stream: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<Sent> {
    loop {
        // Also while nothing is taken: a deny must not wait for a reader.
        if body.poll_cut(cx).is_ready() {
            stream.send_reset(Reason::INTERNAL_ERROR);
            return Poll::Ready(Sent::Broken);
        }
        // At least one byte of room before the next piece is asked for; the
        // rest of the piece waits in the stream.
        stream.reserve_capacity(1);
        if stream.capacity() == 0 {
            match ready!(stream.poll_capacity(cx)) {
                Some(Ok(0)) => continue,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Sent::Stopped),
            }
        } else if stream.poll_reset(cx).is_ready() {
            return Poll::Ready(Sent::Stopped);
        }
        let frame = match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(_)) => {
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Poll::Ready(Sent::Broken);
            }
            None => {
                let _ = stream.send_data(Bytes::new(), true);
                return Poll::Ready(Sent::Whole);
            }
        };
        let (sent, last) = match frame.into_data() {
            Ok(data) => {
                let last = body.is_end_stream();
                (stream.send_data(data, last), last)
            }
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => {
                    stream.reserve_capacity(0);
                    let sent = match trailers.is_empty() {
                        true => stream.send_data(Bytes::new(), true),
                        false => stream.send_trailers(trailers),
                    };
                    (sent, true)
                }
                Err(_) => continue, // a kind of frame that we do not know
            },
        };
        match (sent, last) {
            (Err(_), _) => {
                // Nothing when it has ended; else nobody would learn of it.
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Poll::Ready(Sent::Stopped);
            }
            (Ok(()), true) => return Poll::Ready(Sent::Whole),
            (Ok(()), false) => {}
        }
    }
}

/// Lives as long as somebody wants the answer. When it goes, the sending of the
/// request's body ends, and the stream no longer counts.
pub(super) struct StreamGuard {
    pub(super) count: Rc<Cell<usize>>,
    pub(super) abort: Option<Rc<Abort>>,
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.count.set(self.count.get().saturating_sub(1));
        if let Some(abort) = &self.abort {
            abort.fire();
        }
    }
}

/// Ends a task that sends a body.
#[derive(Default)]
pub(super) struct Abort {
    fired: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Abort {
    pub(super) fn fire(&self) {
        self.fired.set(true);
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if self.fired.get() {
            return Poll::Ready(());
        }
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}
