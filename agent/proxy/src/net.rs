//! Sockets, as the proxy wants them.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::timeout;

use crate::config::Address;
use crate::transparent::{Marking, Own, Transparency};

/// How long bytes may stay unacknowledged before a peer counts as gone.
const USER_TIMEOUT: Duration = Duration::from_secs(20);

/// Connects to the first address that takes it.
pub(crate) async fn connect(
    address: &Address,
    transparent: &Transparency,
    limit: Duration,
) -> io::Result<TcpStream> {
    let connecting = async {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for one in address.resolve(transparent).await? {
            let marking = &transparent.marking;
            let connected = match marking.is_on() {
                false => TcpStream::connect(one).await,
                true => Box::pin(connect_marked(one, marking)).await,
            };
            match connected {
                Ok(stream) => {
                    tune(&stream);
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    match timeout(limit, connecting).await {
        Ok(result) => result,
        Err(_) => Err(too_late(limit)),
    }
}

async fn connect_marked(to: SocketAddr, marking: &Marking) -> io::Result<TcpStream> {
    let socket = socket(to)?;
    marking.mark(&socket)?;
    socket.connect(to).await
}

/// Connects to where the application was going, so that it is not redirected
/// here again; the second is kept while the connection lives.
pub(crate) async fn connect_outside(
    to: SocketAddr,
    marking: &Marking,
    limit: Duration,
) -> io::Result<(TcpStream, Option<Own<'_>>)> {
    let socket = socket(to)?;
    marking.mark(&socket)?;
    let own = marking.remember(&socket, to)?;
    let connecting = timeout(limit, socket.connect(to)).await;
    let stream = connecting.map_err(|_| too_late(limit))??;
    tune(&stream);
    Ok((stream, own))
}

fn socket(to: SocketAddr) -> io::Result<TcpSocket> {
    match to {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }
}

fn too_late(limit: Duration) -> io::Error {
    let what = format!("no connection within {} ms", limit.as_millis());
    io::Error::new(io::ErrorKind::TimedOut, what)
}

/// Small writes leave at once, and a peer that is gone without a word is found
/// out. A socket that refuses an option works without it.
pub(crate) fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    let _ = socket.set_tcp_keepalive(&keepalive);
    let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
}

/// A connection of the application or to it.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Of somebody outside the mesh, who called over TLS.
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    /// To a service outside the mesh, over TLS.
    Origin(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

/// A connection that can be ended so that the other side sees an error, never
/// an end: bytes that are missing must not look like bytes that were not there.
pub(crate) trait Break {
    fn break_off(&mut self);
}

impl Break for Socket {
    fn break_off(&mut self) {
        match self {
            Self::Tcp(stream) => {
                let _ = SockRef::from(&*stream).set_linger(Some(Duration::ZERO));
            }
            // A Unix socket has no such thing; unread bytes make it an error.
            Self::Unix(_) => {}
            Self::Tls(stream) => stream.break_off(),
            Self::Origin(stream) => stream.break_off(),
        }
    }
}

impl Break for TcpStream {
    fn break_off(&mut self) {
        let _ = SockRef::from(&*self).set_linger(Some(Duration::ZERO));
    }
}

/// Without a `close_notify` an end of TLS is an error by itself.
impl<T> Break for tokio_rustls::client::TlsStream<T> {
    fn break_off(&mut self) {}
}

impl<T> Break for tokio_rustls::server::TlsStream<T> {
    fn break_off(&mut self) {}
}

/// A stream that is dropped is reset.
impl Break for mesh_mux::Stream {
    fn break_off(&mut self) {}
}

impl Break for crate::http::Tunnel {
    fn break_off(&mut self) {}
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Origin(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Origin(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Origin(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Origin(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Origin(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
