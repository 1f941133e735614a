//! Gathers what one turn of the loop writes into one write.
//!
//! A `send` costs more than all else that a sidecar does to a small request,
//! and TLS makes a record of each write. So a flush first lets the tasks that
//! are ready now have their turn, and what they all wrote leaves together. No
//! buffer is held between turns.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::scratch;

/// Beyond this nothing is gained by waiting.
const ENOUGH: usize = 64 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Coalesce<T> {
    io: T,
    out: Vec<u8>,
    written: usize,
    /// Whether the tasks of this turn had their chance to add to the write.
    gathered: bool,
    must_flush: bool,
    heard: Option<Rc<Cell<bool>>>,
}

impl<T> Coalesce<T> {
    /// Marks `heard` whenever something was read.
    pub(crate) fn hearing(io: T, heard: Rc<Cell<bool>>) -> Self {
        let mut new = Self::new(io);
        new.heard = Some(heard);
        new
    }

    pub(crate) fn new(io: T) -> Self {
        Self {
            io,
            heard: None,
            out: Vec::new(),
            written: 0,
            gathered: false,
            must_flush: false,
        }
    }

    fn append(&mut self, pieces: &[IoSlice<'_>]) -> usize {
        if self.out.capacity() == 0 {
            self.out = scratch::write_buffer();
        }
        let before = self.out.len();
        for piece in pieces {
            self.out.extend_from_slice(piece);
        }
        self.out.len() - before
    }
}

impl<T: AsyncWrite + Unpin> Coalesce<T> {
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            let bytes = ready!(Pin::new(&mut self.io).poll_write(cx, rest))?;
            if bytes == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += bytes;
            self.must_flush = true;
        }
        self.written = 0;
        scratch::recycle(std::mem::take(&mut self.out));
        Poll::Ready(Ok(()))
    }

    fn is_enough(&self) -> bool {
        self.out.len() - self.written >= ENOUGH
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Coalesce<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if buf.filled().len() > before
            && let Some(heard) = &self.heard
        {
            heard.set(true);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Coalesce<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_enough() {
            ready!(this.poll_out(cx))?;
        }
        Poll::Ready(Ok(this.append(pieces)))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.out.is_empty() && !this.must_flush {
            return Poll::Ready(Ok(()));
        }
        if !this.gathered && this.written == 0 && !this.must_flush && !this.is_enough() {
            this.gathered = true;
            cx.waker().wake_by_ref(); // behind all that is ready now
            return Poll::Pending;
        }
        ready!(this.poll_out(cx))?;
        ready!(Pin::new(&mut this.io).poll_flush(cx))?;
        this.must_flush = false;
        this.gathered = false;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_out(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::RefCell;
    use std::future::poll_fn;
    use std::rc::Rc;

    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Remembers each write.
    #[derive(Clone, Default)]
    struct Writes(Rc<RefCell<Vec<Vec<u8>>>>);

    impl AsyncWrite for Writes {
        fn poll_write(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.borrow_mut().push(buf.to_vec());
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_turn_is_one_write() {
        let writes = Writes::default();
        let mut io = Coalesce::new(writes.clone());
        io.write_all(b"a").await.unwrap();
        let first = poll_fn(|cx| Poll::Ready(Pin::new(&mut io).poll_flush(cx).is_pending())).await;
        assert!(first && writes.0.borrow().is_empty());
        io.write_all(b"b").await.unwrap();
        io.flush().await.unwrap();
        assert_eq!(*writes.0.borrow(), [b"ab"]);
        assert_eq!(io.out.capacity(), 0);
        io.write_all(b"c").await.unwrap();
        io.flush().await.unwrap();
        assert_eq!(writes.0.borrow().len(), 2);
    }

    #[tokio::test]
    async fn much_does_not_wait() {
        let writes = Writes::default();
        let mut io = Coalesce::new(writes.clone());
        let much = vec![7; ENOUGH];
        io.write_all(&much).await.unwrap();
        io.write_all(b"x").await.unwrap();
        assert_eq!(writes.0.borrow().len(), 1);
        io.shutdown().await.unwrap();
        assert_eq!(writes.0.borrow().concat().len(), ENOUGH + 1);
    }
}
