//! Listeners: TCP, TLS, HTTP, and who is at the other end.
//!
//! Both ports are served by this one loop, so that limits, time limits and the way to say who
//! calls are the same: a [`Caller`] stands in each request's extensions.

mod guests;
mod idle;

use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use mesh_tls::{ClusterId, explain, peer_cluster_id};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::error::ServerError;
use crate::options::Listen;
use guests::Guests;
use idle::Activity;

const HANDSHAKE: Duration = Duration::from_secs(10);
const HEAD_BYTES: u32 = 32 * 1024;
const PING: Duration = Duration::from_secs(15);
const DRAIN: Duration = Duration::from_secs(5);
/// What a connection that is told to end may take, of someone without a certificate.
const LEAVE: Duration = Duration::from_secs(10);
/// What anybody's may take: of a stream that a client reads for long.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Who has a certificate, or is on this machine, may ask nothing for so many times longer.
const TRUSTED_IDLE: u32 = 10;
/// After an accept that failed: out of file descriptors, mostly.
const PAUSE: Duration = Duration::from_millis(100);

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Someone on this machine, over plaintext.
    Local,
    /// Someone without a certificate, over TLS.
    Anonymous,
    /// A part of the cluster, by its certificate.
    Cluster(ClusterId),
}

/// What a listener serves.
pub(crate) struct Serving {
    pub(crate) router: Router,
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// HTTP/2 only, with room for large messages.
    pub(crate) grpc: bool,
    pub(crate) max_connections: usize,
    /// How long the head of a request may take.
    pub(crate) head: Duration,
    /// How long someone without a certificate may ask nothing. `None`: the services see to it.
    pub(crate) idle: Option<Duration>,
}

/// Binds, and says where.
pub(crate) fn bind(listen: Listen) -> Result<(TcpListener, SocketAddr), ServerError> {
    let (listener, name) = match listen {
        Listen::Address(address) => {
            let name = address.to_string();
            let bound = StdListener::bind(address);
            let listener = bound.map_err(|source| ServerError::Listen {
                address: name.clone(),
                source,
            })?;
            (listener, name)
        }
        Listen::Bound(listener) => (listener, "a given listener".to_owned()),
    };
    let make = || {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    make().map_err(|source| ServerError::Listen {
        address: name,
        source,
    })
}

/// Those who have not shown a certificate: one address has a share of the room, not all of it.
/// Who shows one is let in by an address that has used its share up.
#[derive(Clone)]
struct Strangers {
    /// In their TLS handshake.
    arriving: Arc<Guests>,
    /// Without a certificate after it.
    staying: Arc<Guests>,
}

/// Serves until `stop`; then no more is accepted, and what is under way may
/// take a few seconds.
pub(crate) async fn serve(listener: TcpListener, serving: Serving, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(serving.max_connections));
    let share = (serving.max_connections / 4).max(1);
    let strangers = Strangers {
        arriving: Guests::new(share),
        staying: Guests::new(share),
    };
    let serving = Arc::new(serving);
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = accept(&listener, &room) => {
                let Some((stream, permit)) = accepted else {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                };
                let (serving, strangers) = (serving.clone(), strangers.clone());
                let stop = stop.clone();
                connections.spawn(async move {
                    connection(stream, &serving, &strangers, stop).await;
                    drop(permit);
                });
            }
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, ended).await.is_err() {
        tracing::debug!("connections were cut at shutdown");
    }
    connections.shutdown().await;
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let permit = room.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, permit)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            None
        }
    }
}

async fn connection(
    stream: TcpStream,
    serving: &Serving,
    strangers: &Strangers,
    stop: CancellationToken,
) {
    let Ok(peer) = stream.peer_addr() else {
        return; // gone already
    };
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Some(tls) = &serving.tls else {
        let http2 = serving.grpc;
        return http(stream, Caller::Local, http2, serving, stop).await;
    };
    let Some(arriving) = strangers.arriving.enter(peer.ip()) else {
        tracing::debug!(%peer, "too many TLS handshakes at once come from there");
        return;
    };
    let handshake = TlsAcceptor::from(tls.clone()).accept(stream);
    let stream = match tokio::time::timeout(HANDSHAKE, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let reason = explain(&error);
            tracing::info!(%peer, %reason, "a connection was refused in its TLS handshake");
            return;
        }
        Err(_) => return,
    };
    let session = stream.get_ref().1;
    let caller = peer_cluster_id(session).map_or(Caller::Anonymous, Caller::Cluster);
    drop(arriving);
    let _guest = match caller {
        Caller::Anonymous => match strangers.staying.enter(peer.ip()) {
            Some(guest) => Some(guest),
            None => {
                tracing::debug!(%peer, "too many connections without a certificate come from there");
                return;
            }
        },
        _ => None,
    };
    let http2 = serving.grpc || session.alpn_protocol() == Some(b"h2");
    http(stream, caller, http2, serving, stop).await;
}

async fn http<S>(stream: S, caller: Caller, http2: bool, serving: &Serving, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let is_guest = caller == Caller::Anonymous;
    let router = serving.router.clone();
    let activity = Activity::default();
    let counting = activity.clone();
    let service = tower::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(caller.clone());
        let answer = router.clone().oneshot(request);
        let asked = counting.begin();
        async move {
            let answer = answer.await;
            drop(asked);
            answer
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // The form is known, so that a client cannot hold a connection by saying nothing.
    builder = match http2 {
        true => builder.http2_only(),
        false => builder.http1_only(),
    };
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(serving.head)
        .max_buf_size(HEAD_BYTES as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEAD_BYTES)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_concurrent_streams(256);
    if serving.grpc {
        builder
            .http2()
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20);
    }
    let io = TokioIo::new(stream);
    let connection = builder.serve_connection(io, TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection.into_owned());
    let idle = async {
        match serving.idle {
            Some(limit) if is_guest => activity.idle(limit).await,
            Some(limit) => activity.idle(limit * TRUSTED_IDLE).await,
            None => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = idle => {
            connection.as_mut().graceful_shutdown();
            // What is still on its way may be one who does not read.
            let limit = if is_guest { LEAVE } else { DAY };
            match tokio::time::timeout(limit, connection).await {
                Ok(ended) => ended,
                Err(_) => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}
