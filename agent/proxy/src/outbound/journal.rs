//! A connection of the application whose first words can be said again.
//!
//! An instance that drains or is full turns a stream away without looking at
//! it. By then the application's first bytes may have been sent; they are
//! remembered, up to a bound and until the first byte of an answer, so that
//! another instance can have them.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::{Break, Socket};
use crate::relay::Side;

/// How much is remembered.
const REMEMBERED: usize = 16 * 1024;

/// See the module.
pub(super) struct Journal<T = Socket> {
    socket: T,
    said: Vec<u8>,
    /// How much of it was read (again).
    at: usize,
    keeping: bool,
}

impl<T> Journal<T> {
    pub(super) fn new(socket: T) -> Self {
        Self {
            socket,
            said: Vec::new(),
            at: 0,
            keeping: true,
        }
    }

    /// Begins from the first byte again, if all is remembered. Gives back how
    /// many bytes come again.
    pub(super) fn rewind(&mut self) -> Option<usize> {
        self.keeping.then(|| {
            self.at = 0;
            self.said.len()
        })
    }

    fn stop_keeping(&mut self) {
        self.keeping = false;
        if self.at >= self.said.len() {
            self.said = Vec::new();
            self.at = 0;
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Journal<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(again) = this.said.get(this.at..).filter(|rest| !rest.is_empty()) {
            let length = again.len().min(buf.remaining());
            buf.put_slice(again.get(..length).unwrap_or_default());
            this.at += length;
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.socket).poll_read(cx, buf))?;
        let new = buf.filled().get(before..).unwrap_or_default();
        if this.keeping && this.said.len() + new.len() <= REMEMBERED {
            this.said.extend_from_slice(new);
            this.at = this.said.len();
        } else {
            this.stop_keeping();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Journal<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.stop_keeping();
        Pin::new(&mut this.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.stop_keeping();
        Pin::new(&mut this.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.stop_keeping();
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}

impl<T: Side> Side for Journal<T> {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.at < self.said.len() {
            return Poll::Ready(());
        }
        self.socket.poll_readable(cx)
    }
}

impl<T: Break> Break for Journal<T> {
    fn break_off(&mut self) {
        self.socket.break_off();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn until_the_answer_begins() {
        let (mut near, far) = duplex(64 * 1024);
        let mut journal = Journal::new(far);
        near.write_all(b"hello").await.unwrap();
        let mut got = [0; 5];
        journal.read_exact(&mut got).await.unwrap();
        assert_eq!(journal.rewind(), Some(5));
        near.write_all(b" you").await.unwrap();
        let mut got = [0; 9];
        journal.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"hello you");
        assert_eq!(journal.rewind(), Some(9));
        journal.write_all(b"hi").await.unwrap();
        assert_eq!(journal.rewind(), None);
        let mut got = [0; 9];
        journal.read_exact(&mut got).await.unwrap(); // what was to come again comes
        assert_eq!(&got, b"hello you");
    }

    #[tokio::test]
    async fn up_to_a_bound() {
        let (mut near, far) = duplex(64 * 1024);
        let mut journal = Journal::new(far);
        near.write_all(&vec![1; REMEMBERED + 1]).await.unwrap();
        let mut got = vec![0; REMEMBERED + 1];
        journal.read_exact(&mut got).await.unwrap();
        assert_eq!(journal.rewind(), None);
        assert_eq!(journal.said.capacity(), 0);
    }
}
