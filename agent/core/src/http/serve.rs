//! HTTP connections: how many, how long, and whose.

use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::Peer;
use crate::feed::Listener;

/// How long a request's head may take.
const HEAD: Duration = Duration::from_secs(10);
/// The most of a head, in headers and in bytes.
const MAX_HEADERS: usize = 64;
const MAX_HEAD: usize = 32 * 1024;
/// How long open requests may go on at the end.
const DRAIN: Duration = Duration::from_secs(3);
/// After an error of `accept` (no descriptors left): time for some to be freed.
const AFTER_ERROR: Duration = Duration::from_millis(200);

/// Serves a listener, `limit` connections at once, until told to stop.
pub(crate) async fn serve(
    listener: Listener,
    router: Router,
    limit: usize,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(limit));
    let graceful = GracefulShutdown::new();
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HEAD)
        .keep_alive_timeout(HEAD)
        .max_header_list_size(MAX_HEAD as u32)
        .max_concurrent_streams(64);
    let accept = async {
        loop {
            let Ok(place) = places.clone().acquire_owned().await else {
                return;
            };
            let accepted = match &listener {
                Listener::Tcp(listener) => listener.accept().await.and_then(|(io, remote)| {
                    let local = io.local_addr()?;
                    let _ = io.set_nodelay(true);
                    let peer = Peer::Tcp { local, remote };
                    begin(io, peer, place, &router, &builder, &graceful);
                    Ok(())
                }),
                Listener::Unix { listener, .. } => listener.accept().await.and_then(|(io, _)| {
                    let peer = unix(&io)?;
                    begin(io, peer, place, &router, &builder, &graceful);
                    Ok(())
                }),
            };
            if let Err(error) = accepted {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(AFTER_ERROR).await;
            }
        }
    };
    tokio::select! { () = accept => {}, () = stop.cancelled() => {} }
    drop(listener);
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
}

fn unix(io: &UnixStream) -> std::io::Result<Peer> {
    let credentials = io.peer_cred()?;
    Ok(Peer::Unix {
        uid: credentials.uid(),
        pid: credentials.pid(),
    })
}

fn begin(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    place: OwnedSemaphorePermit,
    router: &Router,
    builder: &Builder<TokioExecutor>,
    graceful: &GracefulShutdown,
) {
    let router = router.clone().layer(Extension(peer));
    let service = TowerToHyperService::new(router);
    let connection = builder
        .serve_connection(TokioIo::new(io), service)
        .into_owned();
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        // What a caller does to its own connection is not ours to report.
        let _ = connection.await;
        drop(place);
    });
}
