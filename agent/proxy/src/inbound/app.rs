//! The application behind the sidecar.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::Limits;
use crate::config::Address;
use crate::engine::SendErrorKind;
use crate::engine::h1::client::{H1Client, IdlePool};
use crate::engine::h2_client::H2Client;
use crate::http::{Answer, Body, Call, Trouble};
use crate::net;
use crate::peer::{DialError, WarmPool, in_time};
use crate::transparent::Transparency;

/// From when on an idle connection may well be closing. Under load connections
/// are not idle for so long, and no head is copied.
const STALE: Duration = Duration::from_millis(10);

/// The application, and the connections to it.
pub(crate) struct Application {
    address: Address,
    transparent: Arc<Transparency>,
    h1: Rc<IdlePool>,
    h2: WarmPool<H2Client>,
}

impl Application {
    pub(crate) fn new(address: Address, transparent: Arc<Transparency>) -> Self {
        Self {
            address,
            transparent,
            h1: Rc::default(),
            h2: WarmPool::default(),
        }
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// A new connection.
    pub(crate) async fn connect(&self, limit: Duration) -> Result<TcpStream, DialError> {
        let connected = net::connect(&self.address, &self.transparent, limit).await;
        connected.map_err(|error| DialError::io(&error))
    }

    /// Makes a call over HTTP/1.1.
    pub(crate) async fn send_h1(
        &self,
        call: Call,
        limit: Duration,
        limits: &Limits,
    ) -> Result<Answer, Trouble> {
        let Some((client, idle)) = self.h1.take() else {
            return Box::pin(self.send_fresh(call, limit, limits)).await;
        };
        let copy = match idle > STALE {
            true => copy(&call),
            false => None,
        };
        // An application may close an idle connection at any time, also while
        // a request is on its way.
        let error = match client.send(call, self.h1.clone()).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        match (error.call, error.kind, copy) {
            (Some(call), ..) => Box::pin(self.send_fresh(*call, limit, limits)).await,
            (None, SendErrorKind::Reset, Some(copy)) => {
                Box::pin(self.send_fresh(copy, limit, limits)).await
            }
            (None, kind, _) => Err(self.ended_early(kind, &error.what)),
        }
    }

    async fn send_fresh(
        &self,
        call: Call,
        limit: Duration,
        limits: &Limits,
    ) -> Result<Answer, Trouble> {
        let unreachable = |error: DialError| self.unreachable(&error);
        let socket = self.connect(limit).await.map_err(unreachable)?;
        let client = H1Client::new(socket, limits.headers, limits.header_bytes, None);
        let sent = client.send(call, self.h1.clone()).await;
        sent.map_err(|error| self.ended_early(error.kind, &error.what))
    }

    /// Makes a call over HTTP/2.
    pub(crate) async fn send_h2(
        &self,
        call: Call,
        limit: Duration,
        limits: &Limits,
    ) -> Result<Answer, Trouble> {
        let client = match self.h2.ready() {
            Some(client) => client,
            None => Box::pin(self.connect_h2(limit, limits)).await?,
        };
        let error = match client.send(call).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let Some(call) = error.call else {
            return Err(self.ended_early(error.kind, &error.what));
        };
        // The connection had ended without our knowing.
        let again = async {
            let client = self.connect_h2(limit, limits).await?;
            let sent = client.send(*call).await;
            sent.map_err(|error| self.ended_early(error.kind, &error.what))
        };
        Box::pin(again).await
    }

    async fn connect_h2(&self, limit: Duration, limits: &Limits) -> Result<H2Client, Trouble> {
        let dial = || async {
            let began = Instant::now();
            let socket = self.connect(limit).await?;
            let begin = H2Client::begin(socket, limits.header_bytes, None);
            in_time(began, limit, begin).await
        };
        let connected = self.h2.get(dial).await;
        connected.map_err(|error| self.unreachable(&error))
    }

    pub(crate) fn close_idle_since(&self, before: Instant) {
        self.h1.close_idle_since(before);
        self.h2.close_idle_since(before);
    }

    fn unreachable(&self, error: &DialError) -> Trouble {
        Trouble::unavailable(format!(
            "the application at {} cannot be reached: {error}; does it listen there?",
            self.address
        ))
    }

    fn ended_early(&self, kind: SendErrorKind, what: &str) -> Trouble {
        match kind {
            SendErrorKind::Body => Trouble::bad_request("the request's body broke off"),
            SendErrorKind::Malformed => Trouble::new(
                StatusCode::BAD_GATEWAY,
                format!(
                    "the application at {} does not answer in HTTP as its protocol says: {what}",
                    self.address
                ),
            ),
            SendErrorKind::Refused => Trouble::unavailable(format!(
                "the application at {} did not take the request: {what}",
                self.address
            ))
            .refused(),
            SendErrorKind::Reset => Trouble::new(
                StatusCode::BAD_GATEWAY,
                format!(
                    "the application at {} ended the connection before it answered: {what}",
                    self.address
                ),
            ),
        }
    }
}

/// The same call once more, if making it twice does no harm (RFC 9110, 9.2.2)
/// and it has no body.
fn copy(call: &Call) -> Option<Call> {
    if !call.head.method.is_idempotent() || !call.body.is_empty() || call.upgrade.is_some() {
        return None;
    }
    Some(Call {
        head: call.head.clone(),
        body: Body::empty(),
        upgrade: None,
    })
}
