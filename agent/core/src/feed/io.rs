//! Connections to the feed, over TCP and Unix sockets alike, and no more than allowed.
//!
//! Everyone on the node can connect, so a connection on which no proxy is proved ends by itself:
//! idle strangers must not take the places of proxies.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tonic::transport::server::Connected;

/// After an error of `accept` (no descriptors left): time for some to be freed.
const AFTER_ERROR: Duration = Duration::from_millis(200);

/// How long a connection may be open without a proved stream on it.
const UNPROVEN: Duration = Duration::from_secs(15);

/// A bound listener.
pub(crate) enum Listener {
    Tcp(TcpListener),
    /// With its file, which goes when the listener does.
    Unix {
        listener: UnixListener,
        _file: SocketFile,
    },
}

/// The file of a Unix socket.
pub(crate) struct SocketFile(pub(crate) PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A connection. It gives its place back when it ends.
pub(crate) struct Connection {
    io: Io,
    proved: Proved,
    /// Runs while no stream on it is proved.
    until: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

/// How many proved streams a connection has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proved(Arc<AtomicUsize>);

impl Proved {
    /// One more, until this is dropped.
    pub(crate) fn hold(&self) -> Held {
        self.0.fetch_add(1, Ordering::Relaxed);
        Held(self.0.clone())
    }

    fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

/// A proved stream of a connection.
pub(crate) struct Held(Arc<AtomicUsize>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection {
    fn new(io: Io, place: OwnedSemaphorePermit) -> Self {
        Self {
            io,
            proved: Proved::default(),
            until: None,
            _place: place,
        }
    }

    /// Whether the time for proving something is over.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        if self.proved.any() {
            self.until = None;
            return false;
        }
        let until = self
            .until
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(UNPROVEN)));
        until.as_mut().poll(cx).is_ready()
    }
}

enum Io {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Accepts connections, `limit` at once; the next wait in the kernel's queue.
pub(crate) fn accept(
    listener: Listener,
    limit: usize,
) -> impl Stream<Item = io::Result<Connection>> {
    let places = Arc::new(Semaphore::new(limit));
    futures::stream::unfold((listener, places), |(listener, places)| async move {
        let place = places.clone().acquire_owned().await.ok()?;
        let io = loop {
            let accepted = match &listener {
                Listener::Tcp(listener) => listener.accept().await.map(|(io, _)| {
                    let _ = io.set_nodelay(true);
                    Io::Tcp(io)
                }),
                Listener::Unix { listener, .. } => {
                    listener.accept().await.map(|(io, _)| Io::Unix(io))
                }
            };
            match accepted {
                Ok(io) => break io,
                Err(error) => {
                    tracing::warn!(%error, "a proxy's connection could not be accepted");
                    tokio::time::sleep(AFTER_ERROR).await;
                }
            }
        };
        Some((Ok(Connection::new(io, place)), (listener, places)))
    })
}

impl Listener {
    /// The bound TCP address.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix { .. } => None,
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Proved;

    fn connect_info(&self) -> Proved {
        self.proved.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_over(cx) {
            let reason = "no proxy proved itself on this connection in time";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, reason)));
        }
        match &mut self.io {
            Io::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            Io::Unix(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Tcp(io) => Pin::new(io).poll_write(cx, buf),
            Io::Unix(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tcp(io) => Pin::new(io).poll_flush(cx),
            Io::Unix(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tcp(io) => Pin::new(io).poll_shutdown(cx),
            Io::Unix(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_proves_nothing_ends() {
        let place = || Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let (io, _other) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(Io::Unix(io), place());
        let begin = Instant::now();
        let error = connection.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(Instant::now() - begin, UNPROVEN);

        // One with a proved stream goes on, and its time begins when that ends.
        let (io, mut other) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(Io::Unix(io), place());
        let held = connection.connect_info().hold();
        let read = tokio::time::timeout(UNPROVEN * 3, connection.read_u8()).await;
        assert!(read.is_err(), "it waits");
        drop(held);
        tokio::io::AsyncWriteExt::write_u8(&mut other, 7)
            .await
            .unwrap();
        assert_eq!(connection.read_u8().await.unwrap(), 7);
        assert!(connection.read_u8().await.is_err());
    }
}
