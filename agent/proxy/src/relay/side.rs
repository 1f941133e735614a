//! What a relay needs to know of a connection beside its bytes.
//!
//! A piece that the other side would not take has to lie somewhere. A `mesh/1`
//! stream can say how much it takes before the piece is read, and keeps what
//! arrived until it is taken: then nothing is copied to be put aside.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use mesh_mux::Stream;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::http::Tunnel;
use crate::net::Socket;
use crate::scratch;
use crate::wide::Wide;

/// One end of a relay.
pub(crate) trait Side: AsyncRead + AsyncWrite + Unpin {
    /// Whether what is not taken of a piece comes again.
    const KEEPS: bool = false;

    /// Waits until there may be something to read, if that can be told.
    fn poll_readable(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// How many bytes are worth reading for it; waits while that is none.
    fn poll_room(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(usize::MAX))
    }

    /// Gives the next piece, of `most` bytes at most and empty at the end, to
    /// `take`, which says how much of it was taken.
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
        take: &mut dyn FnMut(&mut Context<'_>, &[u8]) -> usize,
    ) -> Poll<io::Result<()>> {
        scratch::with_read_buffer(|buffer| {
            let most = most.min(buffer.len());
            let mut buffer = ReadBuf::new(buffer.get_mut(..most).unwrap_or_default());
            ready!(Pin::new(self).poll_read(cx, &mut buffer))?;
            scratch::was_read(buffer.filled().len());
            take(cx, buffer.filled());
            Poll::Ready(Ok(()))
        })
    }
}

impl Side for Stream {
    const KEEPS: bool = true;

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        Self::poll_room(self, cx)
    }

    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
        take: &mut dyn FnMut(&mut Context<'_>, &[u8]) -> usize,
    ) -> Poll<io::Result<()>> {
        let mut this = Pin::new(self);
        let piece = ready!(this.as_mut().poll_fill_buf(cx))?;
        let taken = take(cx, piece.get(..most).unwrap_or(piece));
        this.consume(taken);
        Poll::Ready(Ok(()))
    }
}

impl Side for Socket {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // An error is one that reading tells, too.
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx).map(drop),
            Self::Unix(stream) => stream.poll_read_ready(cx).map(drop),
            // TLS may hold what the socket has given already.
            Self::Tls(_) | Self::Origin(_) => Poll::Ready(()),
        }
    }
}

impl Side for TcpStream {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_read_ready(cx).map(drop)
    }
}

impl Side for tokio_rustls::client::TlsStream<Wide> {}

impl Side for tokio_rustls::server::TlsStream<Wide> {}

impl Side for Tunnel {}

#[cfg(test)]
impl Side for tokio::io::DuplexStream {}
