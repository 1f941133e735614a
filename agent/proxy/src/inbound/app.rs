//! The application behind the sidecar.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
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
use crate::engine::h1::client::{H1Client, IdlePool, Underway};
use crate::engine::h2_client::H2Client;
use crate::exchange::Exchange;
use crate::http::{Answer, Call, Trouble};
use crate::net::{self, Socket};
use crate::peer::{Carried, DialError, H2, HTTP_1, WarmPool, in_time};
use crate::transparent::Transparency;

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

    /// A call over HTTP/1.1, to be polled. `fresh`: for a connection that has to be made.
    pub(crate) fn send_h1(self: Rc<Self>, call: Call, fresh: Fresh) -> SendingH1 {
        SendingH1 {
            application: self,
            fresh,
            call: Some(call),
            way: None,
        }
    }

    async fn send_fresh(self: Rc<Self>, call: Call, fresh: Fresh) -> Result<Answer, Trouble> {
        let socket = self
            .connect_as(fresh.limit, &[HTTP_1])
            .await
            .map_err(|error| self.unreachable(&error))?;
        let client = H1Client::new(socket, fresh.headers, fresh.header_bytes, None);
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

/// What a new connection to an application may take.
#[derive(Clone, Copy)]
pub(crate) struct Fresh {
    /// The time until it is there.
    pub(crate) limit: Duration,
    /// Headers of an answer, and their bytes.
    pub(crate) headers: usize,
    pub(crate) header_bytes: usize,
}

impl Fresh {
    pub(crate) fn new(limit: Duration, limits: &Limits) -> Self {
        Self {
            limit,
            headers: limits.headers,
            header_bytes: limits.header_bytes,
        }
    }
}

/// A call over HTTP/1.1.
pub(crate) struct SendingH1 {
    application: Rc<Application>,
    fresh: Fresh,
    /// Until it is on its way.
    call: Option<Call>,
    way: Option<H1Way>,
}

enum H1Way {
    /// On a connection that was idle.
    Idle(Underway),
    /// On a new one.
    Fresh(Pin<Box<dyn Future<Output = Result<Answer, Trouble>>>>),
}

impl SendingH1 {
    /// Ready once, with the answer.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answer, Trouble>> {
        loop {
            let failed = match &mut self.way {
                Some(H1Way::Fresh(sending)) => return sending.as_mut().poll(cx),
                Some(H1Way::Idle(underway)) => match ready!(underway.poll(cx)) {
                    Ok(answer) => return Poll::Ready(Ok(answer)),
                    // An application may close an idle connection at any time, also while a
                    // request is on its way.
                    Err(error) if error.kind == SendErrorKind::Reset => {
                        underway.again().ok_or(error)
                    }
                    Err(error) => Err(error),
                },
                None => {
                    let Some(call) = self.call.take() else {
                        return Poll::Pending; // it was refused
                    };
                    let idle = &self.application.h1;
                    match idle.take_and_wait(cx) {
                        None => Ok(call),
                        Some(client) => match client.begin(call, idle.clone(), true) {
                            Ok(underway) => {
                                self.way = Some(H1Way::Idle(underway));
                                continue;
                            }
                            Err(error) => Err(error),
                        },
                    }
                }
            };
            let application = &self.application;
            let call = match failed {
                Ok(call) => call,
                Err(error) => {
                    return Poll::Ready(Err(application.ended_early(error.kind, &error.what)));
                }
            };
            let sending = application.clone().send_fresh(call, self.fresh);
            self.way = Some(H1Way::Fresh(Box::pin(sending)));
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
