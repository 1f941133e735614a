//! Connections to the feed, over TCP and Unix sockets alike, and no more than allowed.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::Connected;

/// After an error of `accept` (no descriptors left): time for some to be freed.
const AFTER_ERROR: Duration = Duration::from_millis(200);

/// A bound listener.
pub(crate) enum Listener {
    Tcp(TcpListener),
    /// With its path, which goes when the listener does.
    Unix(UnixListener, SocketFile),
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
    _place: OwnedSemaphorePermit,
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
                Listener::Unix(listener, _) => listener.accept().await.map(|(io, _)| Io::Unix(io)),
            };
            match accepted {
                Ok(io) => break io,
                Err(error) => {
                    tracing::warn!(%error, "a proxy's connection could not be accepted");
                    tokio::time::sleep(AFTER_ERROR).await;
                }
            }
        };
        let connection = Connection { io, _place: place };
        Some((Ok(connection), (listener, places)))
    })
}

impl Listener {
    /// The bound TCP address.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
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
