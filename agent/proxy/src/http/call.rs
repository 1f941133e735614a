//! The seam between engines and the rest.
//!
//! An engine on the serving side reads a head, hands a [`Call`] to a
//! [`Handler`] and writes the [`Answer`]; on the calling side it takes a
//! `Call` and gives an `Answer`. Nothing of hyper or h2 is seen through it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;

use http::{StatusCode, request, response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::Body;

/// A request: its head, its body, and what it would become by an upgrade.
pub(crate) struct Call {
    pub(crate) head: request::Parts,
    pub(crate) body: Body,
    /// The connection, once an answer of 101 is written; only for a request
    /// that asks for it over HTTP/1.1.
    pub(crate) upgrade: Option<OnUpgrade>,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) head: response::Parts,
    pub(crate) body: Body,
    /// After 101, on the calling side: the connection.
    pub(crate) upgrade: Option<OnUpgrade>,
    /// When that connection must end.
    pub(crate) cut_at: Option<Instant>,
    /// It is certain that nobody has processed the request. An engine whose
    /// protocol can say so says that instead of the answer.
    pub(crate) refused: bool,
}

/// A connection that carried HTTP, and carries something else now.
pub(crate) type OnUpgrade = Pin<Box<dyn Future<Output = io::Result<Tunnel>>>>;

/// The bytes of an upgraded connection.
pub(crate) type Tunnel = Pin<Box<dyn Duplex>>;

/// Bytes both ways.
pub(crate) trait Duplex: AsyncRead + AsyncWrite {}

impl<T: AsyncRead + AsyncWrite> Duplex for T {}

/// What answers calls.
pub(crate) trait Handler: 'static {
    /// Answers one. When the future is dropped, the caller has gone.
    fn handle(self: Rc<Self>, call: Call) -> impl Future<Output = Answer> + 'static;

    /// What came was no request, and was answered with this status without
    /// asking: for who counts.
    fn refused(&self, _status: StatusCode) {}
}

impl Answer {
    pub(crate) fn new(head: response::Parts, body: Body) -> Self {
        Self {
            head,
            body,
            upgrade: None,
            cut_at: None,
            refused: false,
        }
    }
}
