//! Gathers what one turn of the loop writes into one write.
//!
//! A `send` costs more than all else that a sidecar does to a small request,
//! and TLS makes a record of each write. So what is written, and flushed, is
//! only put together here; the [`Flusher`], which the connection's task polls
//! last, first lets the tasks that are ready now have their turn, and then
//! writes what they all gave. (h2 flushes after each piece of a body: a flush
//! that wrote, or that let others run, would do so for each.) No buffer is held
//! between turns.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::scratch;

/// Beyond this nothing is gained by waiting.
const ENOUGH: usize = 192 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Coalesce<T> {
    gathering: Rc<RefCell<Gathering<T>>>,
    heard: Option<Rc<Cell<bool>>>,
}

/// Writes what was gathered.
#[derive(Debug)]
pub(crate) struct Flusher<T>(Rc<RefCell<Gathering<T>>>);

#[derive(Debug)]
struct Gathering<T> {
    io: T,
    out: Vec<u8>,
    written: usize,
    /// Whether the tasks of this turn had their chance to add to the write.
    gathered: bool,
    must_flush: bool,
}

impl<T> Coalesce<T> {
    /// Marks `heard` whenever something was read.
    pub(crate) fn hearing(io: T, heard: Rc<Cell<bool>>) -> (Self, Flusher<T>) {
        let (mut new, flusher) = Self::new(io);
        new.heard = Some(heard);
        (new, flusher)
    }

    /// A connection whose writes wait for the flusher.
    pub(crate) fn new(io: T) -> (Self, Flusher<T>) {
        let gathering = Rc::new(RefCell::new(Gathering {
            io,
            out: Vec::new(),
            written: 0,
            gathered: false,
            must_flush: false,
        }));
        let new = Self {
            gathering: gathering.clone(),
            heard: None,
        };
        (new, Flusher(gathering))
    }
}

impl<T: AsyncWrite + Unpin> Flusher<T> {
    /// Writes whenever there is something, until that fails. It must be polled
    /// after the connection, in the same task.
    pub(crate) async fn run(&mut self) -> io::Error {
        let Err(error) = poll_fn(|cx| self.0.borrow_mut().poll_turn(cx)).await;
        error
    }
}

impl<T> Gathering<T> {
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

    fn is_enough(&self) -> bool {
        self.out.len() - self.written >= ENOUGH
    }
}

impl<T: AsyncWrite + Unpin> Gathering<T> {
    /// Ready only when writing failed.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<Infallible, io::Error>> {
        if self.out.is_empty() && !self.must_flush {
            return Poll::Pending;
        }
        let begins = self.written == 0 && !self.must_flush;
        if begins && !self.gathered && !self.is_enough() {
            self.gathered = true;
            cx.waker().wake_by_ref(); // behind all that is ready now
            return Poll::Pending;
        }
        ready!(self.poll_out(cx))?;
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.must_flush = false;
        self.gathered = false;
        Poll::Pending
    }

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
}

impl<T: AsyncRead + Unpin> AsyncRead for Coalesce<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let io = &mut self.gathering.borrow_mut().io;
        ready!(Pin::new(io).poll_read(cx, buf))?;
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
        let mut gathering = self.gathering.borrow_mut();
        if gathering.is_enough() {
            ready!(gathering.poll_out(cx))?;
        }
        Poll::Ready(Ok(gathering.append(pieces)))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The flusher writes.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathering = self.gathering.borrow_mut();
        ready!(gathering.poll_out(cx))?;
        Pin::new(&mut gathering.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::future::Future;
    use std::pin::pin;

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
        let (mut io, mut flusher) = Coalesce::new(writes.clone());
        let gathering = io.gathering.clone();
        let mut running = pin!(flusher.run());
        let mut turn = async || poll_fn(|cx| Poll::Ready(running.as_mut().poll(cx))).await;
        // Pieces that are each flushed.
        io.write_all(b"a").await.unwrap();
        io.flush().await.unwrap();
        assert!(turn().await.is_pending());
        io.write_all(b"b").await.unwrap();
        io.flush().await.unwrap();
        assert!(writes.0.borrow().is_empty());
        assert!(turn().await.is_pending());
        assert_eq!(*writes.0.borrow(), [b"ab"]);
        assert_eq!(gathering.borrow().out.capacity(), 0);
        io.write_all(b"c").await.unwrap();
        for _ in 0..2 {
            assert!(turn().await.is_pending());
        }
        assert_eq!(writes.0.borrow().len(), 2);
    }

    #[tokio::test]
    async fn much_does_not_wait() {
        let writes = Writes::default();
        let (mut io, _flusher) = Coalesce::new(writes.clone());
        let much = vec![7; ENOUGH];
        io.write_all(&much).await.unwrap();
        io.write_all(b"x").await.unwrap();
        assert_eq!(writes.0.borrow().len(), 1);
        io.shutdown().await.unwrap();
        assert_eq!(writes.0.borrow().concat().len(), ENOUGH + 1);
    }
}
