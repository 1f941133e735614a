//! Listeners: TCP, TLS, HTTP, and who is at the other end.
//!
//! Both ports are served by this one loop, so that limits, time limits and the way to say who
//! calls are the same: a [`Caller`] stands in each request's extensions.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
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

const HANDSHAKE: Duration = Duration::from_secs(10);
const HEAD: Duration = Duration::from_secs(10);
const HEAD_BYTES: u32 = 32 * 1024;
const PING: Duration = Duration::from_secs(15);
const DRAIN: Duration = Duration::from_secs(5);
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

/// Serves until `stop`; then no more is accepted, and what is under way may
/// take a few seconds.
pub(crate) async fn serve(listener: TcpListener, serving: Serving, stop: CancellationToken) {
    let serving = Arc::new(serving);
    let graceful = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(serving.max_connections));
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
                let (serving, watcher) = (serving.clone(), graceful.watcher());
                connections.spawn(async move {
                    connection(stream, &serving, watcher).await;
                    drop(permit);
                });
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown())
        .await
        .is_err()
    {
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

async fn connection(stream: TcpStream, serving: &Serving, watcher: Watcher) {
    let peer = stream.peer_addr();
    if stream.set_nodelay(true).is_err() {
        return; // gone already
    }
    let Some(tls) = &serving.tls else {
        let http2 = serving.grpc;
        return http(stream, Caller::Local, http2, serving, watcher).await;
    };
    let handshake = TlsAcceptor::from(tls.clone()).accept(stream);
    let stream = match tokio::time::timeout(HANDSHAKE, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let reason = explain(&error);
            tracing::info!(?peer, %reason, "a connection was refused in its TLS handshake");
            return;
        }
        Err(_) => return,
    };
    let session = stream.get_ref().1;
    let caller = peer_cluster_id(session).map_or(Caller::Anonymous, Caller::Cluster);
    let http2 = serving.grpc || session.alpn_protocol() == Some(b"h2");
    http(stream, caller, http2, serving, watcher).await;
}

async fn http<S>(stream: S, caller: Caller, http2: bool, serving: &Serving, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let router = serving.router.clone();
    let service = tower::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(caller.clone());
        router.clone().oneshot(request)
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
        .header_read_timeout(HEAD)
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
    let connection = builder
        .serve_connection(io, TowerToHyperService::new(service))
        .into_owned();
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection ended");
    }
}
