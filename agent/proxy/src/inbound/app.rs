//! The application behind the sidecar.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::uri::Authority;
use mesh_proto::config::OriginTls;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::origin;
use crate::Limits;
use crate::config::{Address, Host};
use crate::engine::SendErrorKind;
use crate::engine::h1::client::{H1Client, IdlePool};
use crate::engine::h2_client::H2Client;
use crate::exchange::Exchange;
use crate::http::{Answer, Body, Call, Trouble};
use crate::net::{self, Socket};
use crate::peer::{Carried, DialError, H2, HTTP_1, WarmPool, in_time};
use crate::transparent::Transparency;

/// From when on an idle connection may well be closing. Under load connections
/// are not idle for so long, and no head is copied.
const STALE: Duration = Duration::from_millis(10);

/// The application, and the connections to it.
pub(crate) struct Application {
    address: Address,
    /// TLS, to a service outside the mesh.
    origin: Option<Origin>,
    transparent: Arc<Transparency>,
    h1: Rc<IdlePool>,
    h2: WarmPool<H2Client>,
}

impl Application {
    pub(crate) fn new(
        address: Address,
        tls: Option<Arc<OriginTls>>,
        transparent: Arc<Transparency>,
    ) -> Self {
        Self {
            origin: tls.map(|form| Origin {
                form,
                read: RefCell::default(),
            }),
            address,
            transparent,
            h1: Rc::default(),
            h2: WarmPool::default(),
        }
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// The authority by which a service outside is asked for that is known by a
    /// name: its own, not the one that the mesh has for it.
    pub(crate) fn authority(&self) -> Option<Authority> {
        let Host::Name(name) = &self.address.host else {
            return None;
        };
        let usual = if self.origin.is_some() { 443 } else { 80 };
        let text = match self.address.port == usual {
            true => name.to_string(),
            false => format!("{name}:{}", self.address.port),
        };
        text.parse().ok()
    }

    /// A new connection.
    pub(crate) async fn connect(&self, limit: Duration) -> Result<Socket, DialError> {
        self.connect_as(limit, &[]).await
    }

    async fn connect_as(&self, limit: Duration, alpn: &[&[u8]]) -> Result<Socket, DialError> {
        let began = Instant::now();
        let connected = net::connect(&self.address, &self.transparent, limit).await;
        let socket = connected.map_err(|error| DialError::io(&error))?;
        let Some(origin) = &self.origin else {
            return Ok(Socket::Tcp(socket));
        };
        let handshake = origin.handshake(&self.address, socket, alpn);
        Box::pin(in_time(began, limit, handshake)).await
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
        let socket = self
            .connect_as(limit, &[HTTP_1])
            .await
            .map_err(unreachable)?;
        let client = H1Client::new(socket, limits.headers, limits.header_bytes, None);
        let sent = client.send(call, self.h1.clone()).await;
        sent.map_err(|error| self.ended_early(error.kind, &error.what))
    }

    /// Makes a call over HTTP/2; of which exchange, where what passes is counted.
    pub(crate) async fn send_h2(
        &self,
        call: Call,
        exchange: Option<&Exchange>,
        limit: Duration,
        limits: &Limits,
    ) -> Result<Answer, Trouble> {
        let bulk = call.body.is_bulk();
        let (client, carried) = match self.h2.ready(bulk) {
            Some(ready) => ready,
            None => Box::pin(self.connect_h2(bulk, limit, limits)).await?,
        };
        if let Some(exchange) = exchange {
            exchange.set_carried(carried);
        }
        let error = match client.send(call).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let Some(call) = error.call else {
            return Err(self.ended_early(error.kind, &error.what));
        };
        // The connection had ended without our knowing.
        let again = async {
            let (client, carried) = self.connect_h2(bulk, limit, limits).await?;
            if let Some(exchange) = exchange {
                exchange.set_carried(carried);
            }
            let sent = client.send(*call).await;
            sent.map_err(|error| self.ended_early(error.kind, &error.what))
        };
        Box::pin(again).await
    }

    async fn connect_h2(
        &self,
        bulk: bool,
        limit: Duration,
        limits: &Limits,
    ) -> Result<(H2Client, Carried), Trouble> {
        let dial = || async {
            let began = Instant::now();
            let socket = self.connect_as(limit, &[H2]).await?;
            let begin = H2Client::begin(socket, limits.header_bytes, None);
            in_time(began, limit, begin).await
        };
        let connected = self.h2.get(bulk, dial).await;
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

/// TLS to a service outside.
struct Origin {
    form: Arc<OriginTls>,
    /// What its files hold, by the ALPN; what cannot be read is read again with the
    /// next connection.
    read: RefCell<HashMap<Vec<Vec<u8>>, Arc<ClientConfig>>>,
}

impl Origin {
    async fn handshake(
        &self,
        address: &Address,
        socket: TcpStream,
        alpn: &[&[u8]],
    ) -> io::Result<Socket> {
        let config = self.config(alpn).map_err(io::Error::other)?;
        let name = match (self.form.sni.as_str(), &address.host) {
            ("", Host::Ip(ip)) => ServerName::from(*ip),
            ("", Host::Name(name)) => server_name(name)?,
            (sni, _) => server_name(sni)?,
        };
        let tls = TlsConnector::from(config).connect(name, socket).await?;
        Ok(Socket::Origin(Box::new(tls)))
    }

    fn config(&self, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, String> {
        let key: Vec<Vec<u8>> = alpn.iter().map(|token| token.to_vec()).collect();
        if let Some(config) = self.read.borrow().get(&key) {
            return Ok(config.clone());
        }
        let config = Arc::new(origin::read(&self.form, alpn)?);
        self.read.borrow_mut().insert(key, config.clone());
        Ok(config)
    }
}

fn server_name(name: &str) -> io::Result<ServerName<'static>> {
    ServerName::try_from(name.to_owned()).map_err(io::Error::other)
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
