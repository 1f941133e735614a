//! A body that flows through the proxy, whoever reads it at the other end.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::clean_trailers;
use crate::peer::BULK;

/// A body. Small ones and empty ones need no allocation.
pub(crate) struct Body {
    kind: Kind,
    watcher: Option<(Rc<dyn Watcher>, Side)>,
}

enum Kind {
    Empty,
    Full(Bytes),
    Stream(Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError>>>),
}

/// Whose body it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Request,
    Response,
}

/// How a body ended.
#[derive(Debug)]
pub(crate) enum End<'a> {
    /// All of it was read.
    Complete,
    /// It broke.
    Failed(&'a BodyError),
    /// Its reader had no more use for it.
    Dropped,
}

/// Sees what flows, and may end it.
pub(crate) trait Watcher {
    /// Bytes went by.
    fn data(&self, side: Side, bytes: usize);
    /// Trailers went by.
    fn trailers(&self, side: Side, trailers: &http::HeaderMap);
    /// It is over; called once.
    fn ended(&self, side: Side, end: End<'_>);
    /// Ready when the body must break off.
    fn poll_cut(&self, side: Side, cx: &mut Context<'_>) -> Poll<BodyError>;
}

/// Why a body broke off.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// Whoever sends it broke off.
    Source(Box<dyn Error + Send + Sync>),
    /// The proxy broke it off.
    Cut(&'static str),
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(error) => write!(f, "the sender broke off: {error}"),
            Self::Cut(why) => f.write_str(why),
        }
    }
}

impl Error for BodyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Source(error) => Some(error.as_ref()),
            Self::Cut(_) => None,
        }
    }
}

impl Body {
    pub(crate) fn empty() -> Self {
        Self::of(Kind::Empty)
    }

    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::of(match bytes.is_empty() {
            true => Kind::Empty,
            false => Kind::Full(bytes),
        })
    }

    /// A body from an engine. One that is over already becomes empty.
    pub(crate) fn stream(
        body: impl http_body::Body<Data = Bytes, Error = BodyError> + 'static,
    ) -> Self {
        Self::of(match body.is_end_stream() {
            true => Kind::Empty,
            false => Kind::Stream(Box::pin(body)),
        })
    }

    fn of(kind: Kind) -> Self {
        Self {
            kind,
            watcher: None,
        }
    }

    /// Has it watched. There is one watcher at most.
    pub(crate) fn watch(&mut self, watcher: Rc<dyn Watcher>, side: Side) {
        self.watcher = Some((watcher, side));
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.kind, Kind::Empty)
    }

    /// Whether it is known to be long.
    pub(crate) fn is_bulk(&self) -> bool {
        http_body::Body::size_hint(self).lower() >= BULK
    }

    /// All of it, if it is here and is one piece: then it is read.
    pub(crate) fn take_whole(&mut self) -> Option<Bytes> {
        let Kind::Full(bytes) = &mut self.kind else {
            return None;
        };
        let bytes = std::mem::take(bytes);
        self.kind = Kind::Empty;
        if let Some((watcher, side)) = &self.watcher {
            watcher.data(*side, bytes.len());
        }
        self.end(End::Complete);
        Some(bytes)
    }

    fn poll_kind(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.kind = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Stream(body) => body.as_mut().poll_frame(cx),
        }
    }

    /// Ready when it must break off now; then it is over. For who cannot ask for
    /// its next piece because the one before is not taken.
    pub(crate) fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let Some((watcher, side)) = &self.watcher else {
            return Poll::Pending;
        };
        let error = ready!(watcher.poll_cut(*side, cx));
        self.kind = Kind::Empty;
        self.end(End::Failed(&error));
        Poll::Ready(error)
    }

    fn end(&mut self, end: End<'_>) {
        if let Some((watcher, side)) = self.watcher.take() {
            watcher.ended(side, end);
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Poll::Ready(error) = this.poll_cut(cx) {
            return Poll::Ready(Some(Err(error)));
        }
        let mut polled = this.poll_kind(cx);
        match &mut polled {
            Poll::Pending => {}
            Poll::Ready(None) => {
                this.kind = Kind::Empty;
                this.end(End::Complete);
            }
            Poll::Ready(Some(Err(error))) => {
                this.kind = Kind::Empty;
                this.end(End::Failed(error));
            }
            Poll::Ready(Some(Ok(frame))) => {
                if let Some((watcher, side)) = &this.watcher {
                    if let Some(trailers) = frame.trailers_mut() {
                        clean_trailers(trailers);
                    }
                    if let Some(data) = frame.data_ref() {
                        watcher.data(*side, data.len());
                    } else if let Some(trailers) = frame.trailers_ref() {
                        watcher.trailers(*side, trailers);
                    }
                    // An engine that is told of the end does not poll again.
                    if this.is_end_stream() {
                        this.end(End::Complete);
                    }
                }
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(_) => false,
            Kind::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(body) => body.size_hint(),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let end = match self.is_empty() {
            true => End::Complete,
            false => End::Dropped,
        };
        self.end(end);
    }
}
