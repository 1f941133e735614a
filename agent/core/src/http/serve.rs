//! HTTP connections: how many, how long, and whose.
//!
//! Every user of the machine can connect, so a connection that asks nothing ends by itself, and
//! when all places are taken there are some left for those who may change something: what Nomad
//! wants to say must not wait for what others leave open. Only HTTP/1.1 is spoken, as Consul's
//! agent does; its server counts the time from the first moment.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{Peer, is_trusted};
use crate::feed::Listener;

/// How long a request's head may take, and how long a connection may be idle.
const HEAD: Duration = Duration::from_secs(10);
/// The most of a head, in headers and in bytes.
const MAX_HEADERS: usize = 64;
const MAX_HEAD: usize = 32 * 1024;
/// Connections of root and the agent's own user beyond those for everyone.
const RESERVED: usize = 64;
/// How long open requests may go on at the end.
const DRAIN: Duration = Duration::from_secs(3);
/// After an error of `accept` (no descriptors left): time for some to be freed.
const AFTER_ERROR: Duration = Duration::from_millis(200);

/// Connections at once.
pub(crate) struct Places {
    all: Arc<Semaphore>,
    reserved: Arc<Semaphore>,
    /// Whose the reserved ones are.
    may_have_reserved: fn(u32) -> bool,
    /// It was said that there are none left.
    said: bool,
}

impl Places {
    /// So many for everyone, and beside them some for root and the agent's own user.
    pub(crate) fn new(all: usize) -> Self {
        Self::of(all, RESERVED, is_trusted)
    }

    fn of(all: usize, reserved: usize, may_have_reserved: fn(u32) -> bool) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            reserved: Arc::new(Semaphore::new(reserved)),
            may_have_reserved,
            said: false,
        }
    }

    /// A place for this one; none: it has to come again.
    async fn take(&mut self, peer: Peer) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = self.all.clone().try_acquire_owned() {
            self.said = false;
            return Some(place);
        }
        if !std::mem::replace(&mut self.said, true) {
            tracing::warn!(
                "all connections that limits.http_connections allows are open; only root and the \
                 agent's own user get more"
            );
        }
        // One at a time, since looking for a TCP caller's user reads the kernel's table.
        let uid = tokio::task::spawn_blocking(move || peer.uid()).await;
        let uid = uid.ok()?.ok()??;
        let reserved = self.reserved.clone();
        let reserved = (self.may_have_reserved)(uid).then(|| reserved.try_acquire_owned());
        reserved?.ok()
    }
}

/// Serves a listener until told to stop.
pub(crate) async fn serve(
    listener: Listener,
    router: Router,
    mut places: Places,
    stop: CancellationToken,
) {
    let graceful = GracefulShutdown::new();
    let mut builder = Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD);
    let accept = async {
        loop {
            let accepted = match &listener {
                Listener::Tcp(listener) => match listener.accept().await {
                    Ok((io, remote)) => tcp(&io, remote).map(|peer| (Io::Tcp(io), peer)),
                    Err(error) => Err(error),
                },
                Listener::Unix { listener, .. } => match listener.accept().await {
                    Ok((io, _)) => unix(&io).map(|peer| (Io::Unix(io), peer)),
                    Err(error) => Err(error),
                },
            };
            let (io, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(AFTER_ERROR).await;
                    continue;
                }
            };
            // Without a place it is closed: waiting here would keep out those who have one.
            let Some(place) = places.take(peer).await else {
                continue;
            };
            match io {
                Io::Tcp(io) => begin(io, peer, place, &router, &builder, &graceful),
                Io::Unix(io) => begin(io, peer, place, &router, &builder, &graceful),
            }
        }
    };
    tokio::select! { () = accept => {}, () = stop.cancelled() => {} }
    drop(listener);
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
}

enum Io {
    Tcp(TcpStream),
    Unix(UnixStream),
}

fn tcp(io: &TcpStream, remote: SocketAddr) -> io::Result<Peer> {
    let _ = io.set_nodelay(true);
    let local = io.local_addr()?;
    Ok(Peer::Tcp { local, remote })
}

fn unix(io: &UnixStream) -> io::Result<Peer> {
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
    builder: &Builder,
    graceful: &GracefulShutdown,
) {
    let router = router.clone().layer(Extension(peer));
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection(TokioIo::new(io), service);
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        // What a caller does to its own connection is not ours to report.
        let _ = connection.await;
        drop(place);
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn serving(places: Places) -> (SocketAddr, tokio_util::sync::DropGuard) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let router = Router::new().fallback(|| async { "answered" });
        let stop = CancellationToken::new();
        tokio::spawn(serve(Listener::Tcp(listener), router, places, stop.clone()));
        (at, stop.drop_guard())
    }

    /// What comes back before the connection ends.
    async fn sent(io: &mut TcpStream, text: &str) -> String {
        let _ = io.write_all(text.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = io.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    async fn is_answered(at: SocketAddr) -> bool {
        let mut io = TcpStream::connect(at).await.unwrap();
        let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        sent(&mut io, request).await.ends_with("answered")
    }

    /// Connections that say nothing, a part of HTTP/2's preface, and a part of a head.
    async fn silent(at: SocketAddr) -> Vec<TcpStream> {
        let mut all = Vec::new();
        for text in ["", "PRI * HT", "GET / HTT"] {
            let mut io = TcpStream::connect(at).await.unwrap();
            io.write_all(text.as_bytes()).await.unwrap();
            all.push(io);
        }
        all
    }

    #[tokio::test]
    async fn silent_connections_end_and_give_their_places_back() {
        let (at, _stop) = serving(Places::of(3, 0, is_trusted)).await;
        let mut silent = silent(at).await;
        assert!(!is_answered(at).await, "all places are taken");
        tokio::time::pause();
        for io in &mut silent {
            let mut rest = Vec::new();
            let _ = io.read_to_end(&mut rest).await; // ends, by the time that passes
        }
        tokio::time::resume();
        assert!(is_answered(at).await);
    }

    #[tokio::test]
    async fn who_may_change_something_finds_a_place_all_the_same() {
        let (at, _stop) = serving(Places::of(3, 1, |_| true)).await;
        let _silent = silent(at).await;
        assert!(is_answered(at).await);
        let (at, _stop) = serving(Places::of(3, 1, |_| false)).await;
        let _silent = self::silent(at).await;
        assert!(!is_answered(at).await);
    }
}
