//! Bodies into and out of HTTP/2 streams.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use mesh_h2::{Reason, ResetBy};

use super::h2_link::{Broken, Half};
use crate::http::{Body, BodyError};

/// What a stream receives.
struct Received {
    half: Half,
    done: bool,
    /// What is missing yet, where the head said how long it is.
    length: Option<u64>,
    is_answer: bool,
}

/// The body of a stream: what is here already, or what comes.
pub(super) fn received(half: Half, headers: &http::HeaderMap, is_answer: bool) -> Body {
    let whole = half.link.ends(half.key, |ends| ends.take_whole());
    if let Some(whole) = whole.flatten() {
        half.link.release(half.key, whole.len());
        return Body::full(whole);
    }
    let length = headers
        .get(http::header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    Body::stream(Received {
        half,
        done: false,
        length,
        is_answer,
    })
}

/// What a stream has for its reader.
enum Next {
    Piece(Bytes),
    Trailers(http::HeaderMap),
    End,
    Broken(Broken),
}

impl Received {
    fn poll_next(&self, cx: &Context<'_>) -> Poll<Next> {
        let next = self.half.link.ends(self.half.key, |ends| {
            if let Some(piece) = ends.pop() {
                return Some(Next::Piece(piece));
            }
            if let Some(trailers) = ends.trailers.take() {
                return Some(Next::Trailers(trailers));
            }
            if ends.whole {
                return Some(Next::End);
            }
            if let Some(broken) = ends.broken {
                return Some(Next::Broken(broken));
            }
            ends.wait_to_read(cx);
            None
        });
        match next {
            None => Poll::Ready(Next::Broken(Broken::Lost)),
            Some(None) => Poll::Pending,
            Some(Some(next)) => Poll::Ready(next),
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
        if this.done {
            return Poll::Ready(None);
        }
        let next = ready!(this.poll_next(cx));
        if let Next::Piece(piece) = next {
            let half = &this.half;
            half.link.release(half.key, piece.len());
            if let Some(length) = &mut this.length {
                *length = length.saturating_sub(piece.len() as u64);
            }
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        this.done = true;
        Poll::Ready(match next {
            Next::Trailers(trailers) => Some(Ok(Frame::trailers(trailers))),
            Next::Piece(_) | Next::End => None,
            // After a whole answer the other side may say that it needs no more
            // of the request (RFC 9113, 8.1).
            Next::Broken(Broken::By(ResetBy::Peer(Reason::NO_ERROR)))
                if this.is_answer && this.length.is_none_or(|missing| missing == 0) =>
            {
                None
            }
            Next::Broken(broken) => Some(Err(BodyError::Source(broken.into()))),
        })
    }

    fn is_end_stream(&self) -> bool {
        let is_over = self.half.link.ends(self.half.key, |ends| {
            ends.whole && !ends.has_piece() && ends.trailers.is_none()
        });
        self.done || is_over == Some(true)
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

/// A body that is being sent.
pub(super) struct Sending {
    body: Body,
    half: Half,
}

impl Sending {
    pub(super) fn new(body: Body, half: Half) -> Self {
        Self { body, half }
    }

    /// Sends as much as the other side takes. When the body breaks the stream is
    /// reset.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Sent> {
        let (link, key) = (&self.half.link, self.half.key);
        loop {
            // Also while nothing is taken: a deny must not wait for a reader.
            if self.body.poll_cut(cx).is_ready() {
                self.half.break_off(Reason::INTERNAL_ERROR, Broken::Body);
                return Poll::Ready(Sent::Broken);
            }
            // Some room before the next piece is asked for; the rest of the piece
            // waits in the stream.
            if !ready!(self.half.poll_room(cx)) {
                return Poll::Ready(Sent::Stopped);
            }
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    return self.half.poll_broken(cx).map(|()| Sent::Stopped);
                }
            };
            let frame = match frame {
                Some(Ok(frame)) => frame,
                Some(Err(_)) => {
                    self.half.break_off(Reason::INTERNAL_ERROR, Broken::Body);
                    return Poll::Ready(Sent::Broken);
                }
                None => {
                    link.with(|it| it.send(key, Bytes::new(), true));
                    return Poll::Ready(Sent::Whole);
                }
            };
            let (sent, last) = match frame.into_data() {
                Ok(data) => {
                    let last = self.body.is_end_stream();
                    (link.with(|it| it.send(key, data, last)), last)
                }
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => (link.with(|it| it.send_trailers(key, trailers)), true),
                    Err(_) => continue, // a kind of frame that we do not know
                },
            };
            match (sent, last) {
                (false, _) => return Poll::Ready(Sent::Stopped),
                (true, true) => return Poll::Ready(Sent::Whole),
                (true, false) => {}
            }
        }
    }
}
