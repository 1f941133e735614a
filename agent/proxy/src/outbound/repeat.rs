//! A request that may be sent more than once.
//!
//! Retries need it, and so does every request: an instance that drains may
//! turn one away that was on its way already (RFC 9113, 6.8), and then another
//! instance must get the same.

use http::request;

use crate::http::{Body, Call, Replay};

/// How much of a body is remembered for retries.
const FOR_RETRIES: usize = 64 * 1024;
/// How much for what an instance did not process.
const FOR_REFUSALS: usize = 16 * 1024;

/// A request that may be sent more than once.
pub(super) struct Repeatable<'a> {
    /// The head of each try.
    pub(super) head: &'a request::Parts,
    body: Option<Replay>,
}

impl<'a> Repeatable<'a> {
    /// Of a call; its body is taken out.
    pub(super) fn new(call: &'a mut Call, retries: bool) -> Self {
        let bound = if retries { FOR_RETRIES } else { FOR_REFUSALS };
        let body = std::mem::replace(&mut call.body, Body::empty());
        Self {
            head: &call.head,
            body: (!body.is_empty()).then(|| Replay::new(body, bound)),
        }
    }

    /// Whether another try would send the same.
    pub(super) fn is_whole(&self) -> bool {
        self.body.as_ref().is_none_or(Replay::is_possible)
    }

    /// The body for a try. `None`: its beginning is not known any more.
    pub(super) fn body(&self) -> Option<Body> {
        let body = || self.body.as_ref().map_or_else(Body::empty, Replay::body);
        self.is_whole().then(body)
    }

    /// A try is over, and there may be another: what still sends the one must
    /// not take what the other needs.
    pub(super) fn stop(&self) {
        if let Some(body) = &self.body {
            body.stop();
        }
    }

    /// There will be no other try.
    pub(super) fn forget(&self) {
        if let Some(body) = &self.body {
            body.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;
    use http_body::Frame;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;
    use crate::http::BodyError;

    fn posted(pieces: usize, size: usize) -> Call {
        let frames: Vec<Result<Frame<Bytes>, BodyError>> = (0..pieces)
            .map(|piece| Ok(Frame::data(vec![piece as u8; size].into())))
            .collect();
        let (head, ()) = http::Request::post("/").body(()).unwrap().into_parts();
        let body = Body::stream(StreamBody::new(futures::stream::iter(frames)));
        Call {
            head,
            body,
            upgrade: None,
        }
    }

    #[tokio::test]
    async fn what_a_try_that_is_over_would_read_is_the_next_ones() {
        let mut call = posted(3, FOR_RETRIES / 2);
        let request = Repeatable::new(&mut call, true);
        let mut first = request.body().unwrap();
        first.frame().await.unwrap().unwrap();
        request.stop();
        // It is asked once more before it is dropped.
        assert!(first.frame().await.unwrap().is_err());
        assert!(request.is_whole());
        let second = request.body().unwrap();
        let all = second.collect().await.unwrap().to_bytes();
        assert_eq!(all.len(), 3 * FOR_RETRIES / 2);
        assert_eq!(all[0], 0);
    }

    #[tokio::test]
    async fn without_its_beginning_nothing_is_sent() {
        let mut call = posted(3, FOR_RETRIES);
        let request = Repeatable::new(&mut call, true);
        let mut first = request.body().unwrap();
        for _ in 0..2 {
            first.frame().await.unwrap().unwrap();
        }
        request.stop();
        assert!(!request.is_whole());
        assert!(request.body().is_none());
    }
}
