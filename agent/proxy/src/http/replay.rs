//! A request's body that can be sent again.
//!
//! What a try sends is remembered until it is more than the bound; from then
//! on nothing is, and there is no other try. So a body goes out as it comes
//! in, is never waited for, and a try that is made again has every byte that
//! the one before had.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::{Body, BodyError};

/// A body, and what was read of it.
#[derive(Clone)]
pub(crate) struct Replay {
    shared: Rc<RefCell<Shared>>,
}

struct Shared {
    source: Body,
    read: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    /// How many more bytes are remembered.
    room: usize,
    /// All of the source was read.
    complete: bool,
    /// Something was forgotten, or the source broke: what a new try would send
    /// would not be the request.
    lost: bool,
    /// Which try reads the source. An earlier one that still lives gets nothing.
    current: u32,
}

impl Replay {
    /// Remembers up to `bound` bytes.
    pub(crate) fn new(source: Body, bound: usize) -> Self {
        let complete = source.is_empty();
        Self {
            shared: Rc::new(RefCell::new(Shared {
                source,
                read: Vec::new(),
                trailers: None,
                room: bound,
                complete,
                lost: false,
                current: 0,
            })),
        }
    }

    /// Whether another try would send the same request.
    pub(crate) fn is_possible(&self) -> bool {
        !self.shared.borrow().lost
    }

    /// Forgets what was read, since there will be no other try.
    pub(crate) fn forget(&self) {
        let mut shared = self.shared.borrow_mut();
        // The try in flight reads on from the source; what it has not taken of
        // the memory yet must stay.
        shared.room = 0;
        shared.lost = true;
    }

    /// Ends the try in flight: it reads nothing of the source any more, also
    /// when it does not know yet that it is over.
    pub(crate) fn stop(&self) {
        self.shared.borrow_mut().current += 1;
    }

    /// The body of the next try, from its beginning.
    pub(crate) fn body(&self) -> Body {
        let mut shared = self.shared.borrow_mut();
        shared.current += 1;
        if shared.complete && shared.read.is_empty() && shared.trailers.is_none() {
            return Body::empty();
        }
        let turn = shared.current;
        drop(shared);
        Body::stream(Try {
            shared: self.shared.clone(),
            turn,
            at: 0,
            done: false,
        })
    }
}

/// The body of one try.
struct Try {
    shared: Rc<RefCell<Shared>>,
    turn: u32,
    /// How many remembered pieces it has sent.
    at: usize,
    done: bool,
}

impl http_body::Body for Try {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let shared = self.shared.clone();
        let mut shared = shared.borrow_mut();
        if shared.current != self.turn {
            self.done = true;
            return Poll::Ready(Some(Err(BodyError::Cut("the request is tried again"))));
        }
        if let Some(piece) = shared.read.get(self.at) {
            self.at += 1;
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        if shared.complete {
            self.done = true;
            let trailers = shared.trailers.clone();
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let polled = std::task::ready!(Pin::new(&mut shared.source).poll_frame(cx));
        let frame = match polled {
            None => {
                shared.complete = true;
                self.done = true;
                return Poll::Ready(None);
            }
            Some(Err(error)) => {
                shared.lost = true;
                self.done = true;
                return Poll::Ready(Some(Err(error)));
            }
            Some(Ok(frame)) => frame,
        };
        if let Some(data) = frame.data_ref() {
            if shared.lost {
                // Nothing is remembered any more.
            } else if let Some(room) = shared.room.checked_sub(data.len()) {
                shared.room = room;
                shared.read.push(data.clone());
                self.at += 1;
            } else {
                shared.lost = true;
                shared.read.clear();
                self.at = 0;
            }
            shared.complete = shared.source.is_end_stream();
        } else if let Some(trailers) = frame.trailers_ref() {
            shared.trailers = Some(trailers.clone());
            shared.complete = true;
            self.done = true;
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.shared.borrow();
        self.done
            || shared.current == self.turn
                && shared.complete
                && self.at >= shared.read.len()
                && shared.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let shared = self.shared.borrow();
        let remembered: usize = shared.read.iter().skip(self.at).map(Bytes::len).sum();
        let rest = shared.source.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + remembered as u64);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + remembered as u64);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::StreamExt;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn body(pieces: &[&'static str]) -> Body {
        let frames: Vec<Result<Frame<Bytes>, BodyError>> = pieces
            .iter()
            .map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))))
            .collect();
        Body::stream(StreamBody::new(futures::stream::iter(frames)))
    }

    async fn read(body: Body, frames: usize) -> String {
        let mut stream = body.into_data_stream().take(frames);
        let mut text = String::new();
        while let Some(piece) = stream.next().await {
            text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
        }
        text
    }

    #[tokio::test]
    async fn every_try_has_the_whole() {
        let replay = Replay::new(body(&["ab", "cd", "ef"]), 6);
        assert_eq!(read(replay.body(), 2).await, "abcd");
        assert!(replay.is_possible());
        assert_eq!(read(replay.body(), 9).await, "abcdef");
        assert_eq!(read(replay.body(), 9).await, "abcdef");
    }

    #[tokio::test]
    async fn beyond_the_bound_there_is_one_try() {
        let replay = Replay::new(body(&["ab", "cd", "ef"]), 3);
        assert_eq!(read(replay.body(), 9).await, "abcdef");
        assert!(!replay.is_possible());
    }

    #[tokio::test]
    async fn forgetting_loses_nothing_of_the_try_in_flight() {
        let replay = Replay::new(body(&["ab", "cd", "ef"]), 6);
        assert_eq!(read(replay.body(), 1).await, "ab");
        let again = replay.body();
        replay.forget();
        assert!(!replay.is_possible());
        assert_eq!(read(again, 9).await, "abcdef");
    }

    #[tokio::test]
    async fn an_empty_body_stays_one() {
        let replay = Replay::new(Body::empty(), 0);
        assert!(replay.body().is_empty() && replay.body().is_empty());
    }
}
