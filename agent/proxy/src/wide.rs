//! A socket beneath TLS, read in large pieces.
//!
//! rustls asks for 4 KiB at a time, which would be a system call for each; here
//! what a socket has is read at once, and given out as it is asked for. Nothing
//! is held while there is nothing left.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::scratch;

/// Bytes that are read at once: eight of the largest records.
const READ: usize = 128 * 1024;

thread_local! {
    /// Not the worker's own read buffer, which whoever reads from TLS may hold.
    static BUFFER: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Wide {
    io: TcpStream,
    unread: Vec<u8>,
    used: usize,
}

impl Wide {
    pub(crate) fn new(io: TcpStream) -> Self {
        Self {
            io,
            unread: Vec::new(),
            used: 0,
        }
    }

    /// Gives out what was read before; `false` if there is nothing.
    fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let rest = self.unread.get(self.used..).unwrap_or_default();
        let now = rest.get(..buf.remaining()).unwrap_or(rest);
        if now.is_empty() {
            return false;
        }
        buf.put_slice(now);
        self.used += now.len();
        if self.used >= self.unread.len() {
            self.used = 0;
            scratch::recycle(std::mem::take(&mut self.unread));
        }
        true
    }

    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
        let filled = buffer.filled();
        let (now, later) = filled.split_at(filled.len().min(buf.remaining()));
        buf.put_slice(now);
        if !later.is_empty() {
            self.unread = scratch::write_buffer();
            self.unread.extend_from_slice(later);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Wide {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 || this.give(buf) {
            return Poll::Ready(Ok(()));
        }
        if buf.remaining() >= READ {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let mut buffer = BUFFER
            .take()
            .unwrap_or_else(|| vec![0; READ].into_boxed_slice());
        let polled = this.poll_fill(cx, &mut buffer, buf);
        BUFFER.set(Some(buffer));
        polled
    }
}

impl AsyncWrite for Wide {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn all_comes_in_order_and_nothing_is_held() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(at), listener.accept());
        let (mut near, mut far) = (near.unwrap(), Wide::new(far.unwrap().0));
        let sent: Vec<u8> = (0..400_000_u32).map(|it| (it % 251) as u8).collect();
        let mut got = vec![0; sent.len()];
        let reading = async {
            for piece in got.chunks_mut(4096 + 77) {
                far.read_exact(piece).await.unwrap();
            }
            assert_eq!(far.unread.capacity(), 0);
            assert_eq!(far.read(&mut [0; 10]).await.unwrap(), 0);
        };
        let writing = async {
            near.write_all(&sent).await.unwrap();
            near.shutdown().await.unwrap();
        };
        tokio::join!(reading, writing);
        assert_eq!(got, sent);
    }
}
