//! Connections to other sidecars.
//!
//! A [`Peer`] is one instance at one address with the one identity that it must
//! prove; all connections to it are in there and are shared by nobody else. A
//! new leaf of ours is used by the connections that are made from then on;
//! those that live go on.

mod carried;
mod dial;
mod mux;
mod warm;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use mesh_tls::SpiffeId;
use rustls_pki_types::ServerName;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

pub(crate) use carried::{BULK, Carried};
pub(crate) use dial::{DialError, DialKind, in_time, until};
pub(crate) use mux::MuxClient;
pub(crate) use warm::{Warm, WarmPool};

use crate::config::Address;
use crate::engine::h1::client::{H1Client, IdlePool};
use crate::engine::h2_client::H2Client;
use crate::wide::Wide;
use crate::worker::Worker;

pub(crate) const H2: &[u8] = b"h2";
pub(crate) const HTTP_1: &[u8] = b"http/1.1";

/// How long a peer that speaks less than we would like is taken at its word.
const REMEMBER: Duration = Duration::from_secs(60);

/// An instance's sidecar, and the connections to it.
pub(crate) struct Peer {
    address: Address,
    identity: SpiffeId,
    /// It is an application itself, to which no protocol of ours is offered: one that knows others
    /// would refuse the handshake, and one that knows none would see it end.
    native: Cell<bool>,
    h2: WarmPool<H2Client>,
    mux: WarmPool<MuxClient>,
    h1: Rc<IdlePool>,
    /// Until when it is known to speak HTTP/1.1 only.
    only_h1: Cell<Option<Instant>>,
    /// Until when it is known to take one byte stream a connection.
    only_plain: Cell<Option<Instant>>,
}

/// A connection to call on.
pub(crate) enum HttpClient {
    H2(H2Client, Carried),
    H1(H1Client, Rc<IdlePool>),
}

/// A byte stream.
pub(crate) enum ByteStream {
    Mux(mesh_mux::Stream),
    /// One connection, and when it is cut.
    Plain(Box<TlsStream<Wide>>, Option<Instant>),
}

/// What a connection is made with.
pub(crate) struct Dialing<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) name: &'a ServerName<'static>,
    pub(crate) limit: Duration,
}

impl Peer {
    pub(crate) fn new(address: Address, identity: SpiffeId) -> Self {
        Self {
            address,
            identity,
            native: Cell::new(false),
            h2: WarmPool::default(),
            mux: WarmPool::default(),
            h1: Rc::default(),
            only_h1: Cell::new(None),
            only_plain: Cell::new(None),
        }
    }

    /// Whether it is an application itself.
    pub(crate) fn set_native(&self, native: bool) {
        self.native.set(native);
    }

    /// A warm connection for a call, if there is one. `bulk`: its body is known to be that.
    pub(crate) fn warm(&self, bulk: bool) -> Option<HttpClient> {
        let (client, carried) = self.h2.ready(bulk)?;
        Some(HttpClient::H2(client, carried))
    }

    /// A connection for a call, warm if there is one.
    pub(crate) async fn http(
        &self,
        dialing: &Dialing<'_>,
        bulk: bool,
    ) -> Result<HttpClient, DialError> {
        if let Some(client) = self.warm(bulk) {
            return Ok(client);
        }
        // Boxed, as each rare way below: what it needs is not held by all.
        Box::pin(self.new_http(dialing, bulk)).await
    }

    /// A connection for a call that only HTTP/1.1 can carry.
    pub(crate) async fn http1(&self, dialing: &Dialing<'_>) -> Result<HttpClient, DialError> {
        match self.h1.take() {
            Some(client) => Ok(HttpClient::H1(client, self.h1.clone())),
            None => Box::pin(self.new_http1(dialing)).await,
        }
    }

    /// A byte stream, and in the cell its part in a connection that others share.
    pub(crate) async fn stream(
        &self,
        dialing: &Dialing<'_>,
        part: &RefCell<Option<Carried>>,
    ) -> Result<ByteStream, DialError> {
        if let Some((client, carried)) = self.mux.ready(false) {
            *part.borrow_mut() = Some(carried);
            if let Ok(stream) = client.open().await {
                return Ok(ByteStream::Mux(stream));
            }
        }
        Box::pin(self.new_stream(dialing, part)).await
    }

    async fn new_http(&self, dialing: &Dialing<'_>, bulk: bool) -> Result<HttpClient, DialError> {
        if !is_still(&self.only_h1) {
            match self.h2.get(bulk, || self.dial_h2(dialing)).await {
                Ok((client, carried)) => return Ok(HttpClient::H2(client, carried)),
                Err(error) if error.kind == DialKind::OtherProtocol => {
                    self.only_h1.set(Some(Instant::now() + REMEMBER));
                }
                Err(error) => return Err(error),
            }
        }
        self.http1(dialing).await
    }

    async fn new_http1(&self, dialing: &Dialing<'_>) -> Result<HttpClient, DialError> {
        let tls = self.dial(dialing, &[HTTP_1]).await?;
        Ok(HttpClient::H1(begin_http1(tls, dialing), self.h1.clone()))
    }

    async fn new_stream(
        &self,
        dialing: &Dialing<'_>,
        part: &RefCell<Option<Carried>>,
    ) -> Result<ByteStream, DialError> {
        // The second time another connection is open, unless that one ends too.
        for _ in 0..2 {
            if self.native.get() || is_still(&self.only_plain) {
                let tls = self.dial(dialing, &[]).await?;
                let until = until(tls.get_ref().1, &dialing.worker.shared.options.limits);
                let cut_at = until.map(|(_, cut)| cut);
                part.borrow_mut().take();
                return Ok(ByteStream::Plain(Box::new(tls), cut_at));
            }
            match self.mux.get(false, || self.dial_mux(dialing)).await {
                Ok((client, carried)) => {
                    *part.borrow_mut() = Some(carried);
                    match client.open().await {
                        Ok(stream) => return Ok(ByteStream::Mux(stream)),
                        Err(error) if error.is_safe_to_retry() => {}
                        Err(error) => return Err(DialError::other(error.to_string())),
                    }
                }
                Err(error) if error.kind == DialKind::OtherProtocol => {
                    self.only_plain.set(Some(Instant::now() + REMEMBER));
                }
                Err(error) => return Err(error),
            }
        }
        Err(DialError::other(
            "its connections end as soon as they are made",
        ))
    }

    /// Closes the idle connections of HTTP/1.1.
    pub(crate) fn close_idle_http1(&self) {
        self.h1.close_idle_since(Instant::now());
    }

    /// Closes what nobody used since then.
    pub(crate) fn close_idle_since(&self, before: Instant) {
        self.h2.close_idle_since(before);
        self.mux.close_idle_since(before);
        self.h1.close_idle_since(before);
    }

    async fn dial(
        &self,
        dialing: &Dialing<'_>,
        alpn: &[&[u8]],
    ) -> Result<TlsStream<Wide>, DialError> {
        dial::tls(&self.address, &self.identity, dialing, alpn).await
    }

    async fn dial_h2(&self, dialing: &Dialing<'_>) -> Result<H2Client, DialError> {
        let began = Instant::now();
        let tls = self.dial(dialing, &[H2, HTTP_1]).await?;
        if tls.get_ref().1.alpn_protocol() != Some(H2) {
            // The connection is of use all the same.
            self.h1.put(begin_http1(tls, dialing));
            return Err(DialError::other_protocol());
        }
        let until = until(tls.get_ref().1, &dialing.worker.shared.options.limits);
        let limits = &dialing.worker.shared.options.limits;
        let begin = H2Client::begin(tls, limits.header_bytes, until);
        dial::in_time(began, dialing.limit, begin).await
    }

    async fn dial_mux(&self, dialing: &Dialing<'_>) -> Result<MuxClient, DialError> {
        let began = Instant::now();
        let tls = self.dial(dialing, &[mesh_mux::ALPN]).await?;
        if tls.get_ref().1.alpn_protocol() != Some(mesh_mux::ALPN) {
            return Err(DialError::other_protocol());
        }
        let until = until(tls.get_ref().1, &dialing.worker.shared.options.limits);
        let begin = MuxClient::begin(tls, until);
        dial::in_time(began, dialing.limit, begin).await
    }
}

fn begin_http1(tls: TlsStream<Wide>, dialing: &Dialing<'_>) -> H1Client {
    let limits = &dialing.worker.shared.options.limits;
    let until = until(tls.get_ref().1, limits);
    H1Client::new(tls, limits.headers, limits.header_bytes, until)
}

fn is_still(until: &Cell<Option<Instant>>) -> bool {
    until.get().is_some_and(|until| Instant::now() < until)
}
