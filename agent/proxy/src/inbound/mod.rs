//! Calls from other sidecars.
//!
//! One port: TLS with a certificate on both sides, the name in the hello says
//! which service is meant, and the ALPN what the bytes are. The destination
//! goes by that and not by its own config, so that a change of protocol never
//! finds the two ends at odds. One thing is refused: byte streams to a service
//! whose protocol is HTTP, since permissions could not see what is in them.
//! (HTTP to a service that is said to be TCP is served as HTTP: its requests
//! are decided one by one, which is never less strict.)
//!
//! A caller may also be an application that is in the mesh by itself: with a
//! leaf of its own, and a TLS library that knows nothing of all this. Who it is
//! its certificate says, as of any caller. It need not name us: there is one
//! service behind this port, and it checks itself whom it has reached. Where it
//! does not say what its bytes are, the service's protocol does; to one of HTTP
//! they are read as HTTP, request by request.

mod app;
mod caller;
mod expose;
mod http;
mod origin;
mod stream;
mod terminating;

use std::rc::Rc;
use std::time::Duration;

use mesh_tls::{VerifyError, peer_identity};
use rand::Rng;
use rustls::server::{Acceptor, ClientHello};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

pub(crate) use app::Application;
pub(crate) use caller::{Caller, Verdict};
pub(crate) use expose::serve as serve_exposed;
#[cfg(test)]
pub(crate) use stream::carry;
pub(crate) use terminating::TerminatingView;

use crate::config::Inbound;
use crate::engine::h1::server as h1_server;
use crate::engine::sniff::{Spoken, sniff};
use crate::engine::{ServeLimits, h2_server};
use crate::http::Trouble;
use crate::lifecycle::{Member, drains};
use crate::listening::Listening;
use crate::net::Socket;
use crate::peer::{H2, HTTP_1, until};
use crate::telemetry::{Direction, HttpSeries, StreamSeries};
use crate::wide::{self, Wide};
use crate::worker::Worker;

/// What a worker has for the inbound listener.
pub(crate) struct InboundView {
    pub(crate) config: std::sync::Arc<Inbound>,
    /// The application; of a service outside its instances, each with the sum of
    /// the weights up to it.
    behind: Vec<(Rc<Application>, u64)>,
}

impl InboundView {
    pub(crate) fn new(worker: &Worker, config: std::sync::Arc<Inbound>) -> Self {
        let tls = config.outside.as_ref().and_then(|it| it.tls.as_ref());
        let behind = config.behind.iter();
        let behind = behind.map(|(address, sum)| (worker.application(address, tls), *sum));
        Self {
            behind: behind.collect(),
            config,
        }
    }

    /// Who gets the next request, or stream.
    fn application(&self, worker: &Worker) -> Result<Rc<Application>, Trouble> {
        if let [(only, _)] = self.behind.as_slice() {
            return Ok(only.clone());
        }
        let sum = self.behind.last().map_or(0, |(_, sum)| *sum);
        if sum == 0 {
            return Err(Trouble::unavailable(format!(
                "{}: no instance outside the mesh can be called; register one without a sidecar",
                self.config.service
            )));
        }
        let drawn = worker.random.borrow_mut().random_range(0..sum);
        let found = self.behind.iter().find(|(_, below)| drawn < *below);
        let gone = || Trouble::unavailable("no instance".to_owned());
        found.map(|(one, _)| one.clone()).ok_or_else(gone)
    }
}

/// A connection whose caller is known.
pub(crate) struct Connection {
    pub(crate) worker: Rc<Worker>,
    pub(crate) listening: Rc<Listening>,
    pub(crate) caller: Rc<Caller>,
    pub(crate) http: Rc<HttpSeries>,
    pub(crate) streams: Rc<StreamSeries>,
    /// From when on it takes nothing new, and when it is cut.
    pub(crate) until: Option<(Instant, Instant)>,
}

/// Serves a connection from another sidecar.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    listening: Rc<Listening>,
    socket: Socket,
    member: Member,
) {
    // Boxed, since it comes once: what it needs is not held by all.
    let Some(tls) = Box::pin(accept(&worker, &listening, socket)).await else {
        return;
    };
    let (listening, member, _gateway) = match listening.terminating() {
        None => (listening, member, None),
        Some(view) => {
            let asked = tls.get_ref().1.server_name().unwrap_or_default();
            let Some(service) = view.meant(asked) else {
                return not_here(&worker, &tls, "no service of this gateway");
            };
            let joined = service.life.join();
            (service, joined, Some(member))
        }
    };
    let Some(view) = listening.inbound() else {
        return;
    };
    let is_http = view.config.protocol.is_http();
    let Some((connection, alpn)) = identify(&worker, &listening, &view, &tls) else {
        return;
    };
    let until = connection.until;
    match alpn.as_deref() {
        Some(H2) => {
            let limits = serve_limits(&connection);
            let _opened = connection.http_connections().opened();
            let handler = Rc::new(connection);
            if let Err(error) = h2_server::serve(tls, handler, &limits, member.watch()).await {
                tracing::debug!(%error, "h2 connection from a peer");
            }
        }
        Some(HTTP_1) => {
            let limits = serve_limits(&connection);
            let _opened = connection.http_connections().opened();
            let handler = Rc::new(connection);
            // Boxed, since it is rare.
            let serving = Box::pin(h1_server::serve(tls, handler, &limits, member.watch()));
            if let Err(error) = serving.await {
                tracing::debug!(%error, "http/1.1 connection from a peer");
            }
        }
        Some(_) if is_http => refuse_bytes(&connection, tls).await,
        Some(_) => stream::serve_mux(connection, tls, until, &member).await,
        None if is_http => Box::pin(serve_wordless(connection, tls, &member)).await,
        None => stream::serve_plain(connection, tls, until, &member).await,
    }
    drop(member);
}

/// A caller that does not say which HTTP it speaks.
async fn serve_wordless(connection: Connection, tls: TlsStream<Wide>, member: &Member) {
    let limits = serve_limits(&connection);
    let mut watch = member.watch();
    let sniffed = tokio::select! {
        sniffed = timeout(limits.head.unwrap_or(Duration::MAX), sniff(tls)) => sniffed,
        () = drains(&mut watch) => return,
    };
    let Ok(Ok((spoken, io))) = sniffed else {
        return;
    };
    let _opened = connection.http_connections().opened();
    let handler = Rc::new(connection);
    let ended = match spoken {
        Spoken::Http1 => h1_server::serve(io, handler, &limits, watch)
            .await
            .map_err(|error| error.to_string()),
        Spoken::Http2 => h2_server::serve(io, handler, &limits, watch)
            .await
            .map_err(|error| error.to_string()),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection from a peer that named no protocol");
    }
}

impl Connection {
    fn http_connections(&self) -> Rc<StreamSeries> {
        let (source, destination) = (self.http.source(), self.http.destination());
        let protocol = self.http.protocol();
        let metrics = &self.worker.metrics;
        metrics.streams(Direction::Inbound, source, destination, protocol)
    }
}

fn serve_limits(connection: &Connection) -> ServeLimits {
    let limits = &connection.worker.shared.options.limits;
    ServeLimits {
        streams: limits.streams,
        headers: limits.headers,
        header_bytes: limits.header_bytes,
        // Of a peer's kept-alive connection, which it closes first.
        head: Some(limits.idle + limits.head),
        strangers: false,
        until: connection.until,
    }
}

async fn accept(worker: &Worker, listening: &Listening, socket: Socket) -> Option<TlsStream<Wide>> {
    let Socket::Tcp(socket) = socket else {
        return None;
    };
    let from = socket.peer_addr().ok();
    let from = || from.map(|from| from.to_string()).unwrap_or_default();
    let handshake = async {
        // Who connects and goes without a word checks whether the port is open.
        match socket.peek(&mut [0]).await {
            Ok(0) => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
            _ => {}
        }
        let hello = LazyConfigAcceptor::new(Acceptor::default(), Wide::new(socket)).await?;
        let config = match is_always_h2(&hello.client_hello())
            && is_for_bytes(listening, &hello.client_hello())
        {
            true => worker.wordless_config(),
            false => worker.server_config(),
        };
        hello.into_stream(config).await.map(Some)
    };
    let limit = worker.shared.options.limits.handshake;
    let (label, why) = match timeout(limit, handshake).await {
        Ok(Ok(Some(mut tls))) => {
            tls.get_mut().1.set_buffer_limit(Some(wide::WRITE));
            return worker.link(&mut tls).then_some(tls);
        }
        Ok(Ok(None)) => {
            tracing::debug!(from = from(), "somebody connected, and said nothing");
            return None;
        }
        Ok(Err(error)) => (failure_label(&error), mesh_tls::explain_here(&error)),
        Err(_) => ("timeout", "it took too long".to_owned()),
    };
    worker.metrics.handshake_failed(label);
    if let Some(kept_back) = worker.handshakes.may_say(std::time::Instant::now()) {
        tracing::info!(from = from(), reason = %why, kept_back, "TLS handshake with a caller failed");
    }
    None
}

/// Whether the service that a caller means takes byte streams.
fn is_for_bytes(listening: &Listening, hello: &ClientHello<'_>) -> bool {
    let view = match listening.terminating() {
        None => listening.inbound(),
        Some(view) => {
            let meant = view.meant(hello.server_name().unwrap_or_default());
            meant.and_then(|service| service.inbound())
        }
    };
    view.is_some_and(|view| !view.config.protocol.is_http())
}

/// Whether a caller offers HTTP/2 and nothing else. No sidecar does; the library that native
/// applications in Go use does it for byte streams as well, and does not mean it then.
fn is_always_h2(hello: &ClientHello<'_>) -> bool {
    let offered = hello.alpn();
    offered.is_some_and(|mut offered| offered.next() == Some(H2) && offered.next().is_none())
}

/// Why a handshake failed, as a label.
fn failure_label(error: &std::io::Error) -> &'static str {
    use rustls::{CertificateError, Error};
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        None => "connection",
        Some(Error::NoCertificatesPresented) => "no_certificate",
        Some(Error::NoApplicationProtocol) => "protocol",
        Some(Error::AlertReceived(_)) => "refused_by_peer",
        Some(it @ Error::InvalidCertificate(certificate)) => match certificate {
            CertificateError::UnknownIssuer => "unknown_issuer",
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "expired",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "not_valid_yet"
            }
            CertificateError::Other(_) if VerifyError::is_revoked(it) => "revoked",
            CertificateError::Other(_) => "identity",
            _ => "certificate",
        },
        Some(Error::PeerIncompatible(_)) => "nothing_in_common",
        Some(_) => "tls",
    }
}

/// Who calls, and whether it means us.
fn identify(
    worker: &Rc<Worker>,
    listening: &Rc<Listening>,
    view: &InboundView,
    tls: &TlsStream<Wide>,
) -> Option<(Connection, Option<Vec<u8>>)> {
    let (_, session) = tls.get_ref();
    // The handshake saw to it; were it not so, nobody is served.
    let identity = peer_identity(session)?;
    let named = session.server_name();
    let name = named.unwrap_or_default();
    if named.is_some() && !view.config.name.is(name) {
        not_here(worker, tls, view.config.name.as_str());
        return None;
    }
    let own_policy = view.config.outside.as_ref();
    let own_policy = own_policy.map(|_| view.config.service.clone());
    let link = tls.get_ref().0.linked().map(|it| it.link().clone());
    let caller = Caller::new(&identity, link, own_policy);
    let destination = view.config.service.to_string();
    let (metrics, source) = (&worker.metrics, caller.name.as_str());
    let alpn = session.alpn_protocol().map(<[u8]>::to_vec);
    let http = match view.config.protocol.is_http() {
        true => view.config.protocol.as_str(),
        false => "http",
    };
    let connection = Connection {
        worker: worker.clone(),
        listening: listening.clone(),
        http: metrics.http(Direction::Inbound, source, &destination, http),
        streams: metrics.streams(Direction::Inbound, source, &destination, "tcp"),
        caller: Rc::new(caller),
        until: until(session, &worker.shared.options.limits),
    };
    Some((connection, alpn))
}

/// Says that a caller means a service that is not here.
fn not_here(worker: &Worker, tls: &TlsStream<Wide>, here: &str) {
    let (_, session) = tls.get_ref();
    worker.metrics.handshake_failed("other_service");
    if let Some(kept_back) = worker.handshakes.may_say(std::time::Instant::now()) {
        let source = peer_identity(session).map(|it| it.to_string());
        let asked = session.server_name().unwrap_or_default();
        tracing::warn!(
            source,
            asked,
            here,
            kept_back,
            "a caller wants another service; its list of instances is wrong"
        );
    }
}

/// Ends a connection of byte streams to a service whose protocol is HTTP.
async fn refuse_bytes(connection: &Connection, mut tls: TlsStream<Wide>) {
    let flow = crate::flow::Flow::begin(&connection.worker, connection.streams.clone(), None);
    flow.set_reason(
        "refused: the service's protocol is HTTP, and byte streams would go past its \
         permissions; the caller's config is older, or names another protocol",
    );
    let _ = timeout(Duration::from_secs(1), tls.shutdown()).await;
}
