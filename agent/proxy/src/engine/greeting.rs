//! Tells when the other side's first bytes came.
//!
//! In TLS 1.3 a client is done before the server has looked at its
//! certificate; a refusal comes later, as the first thing that is read. Both
//! `h2` and `mesh/1` begin with a greeting of the server, so that a connection
//! counts as made when that has come.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// A connection that says when its first bytes came.
#[derive(Debug)]
pub(crate) struct Greeted<T> {
    io: T,
    greeted: Option<oneshot::Sender<()>>,
}

impl<T> Greeted<T> {
    pub(crate) fn new(io: T) -> (Self, oneshot::Receiver<()>) {
        let (greeted, is_greeted) = oneshot::channel();
        let io = Self {
            io,
            greeted: Some(greeted),
        };
        (io, is_greeted)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Greeted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if buf.filled().len() > before
            && let Some(greeted) = self.greeted.take()
        {
            let _ = greeted.send(());
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncBufRead + Unpin> AsyncBufRead for Greeted<T> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        let bytes = ready!(Pin::new(&mut this.io).poll_fill_buf(cx))?;
        if !bytes.is_empty()
            && let Some(greeted) = this.greeted.take()
        {
            let _ = greeted.send(());
        }
        Poll::Ready(Ok(bytes))
    }

    fn consume(mut self: Pin<&mut Self>, amount: usize) {
        Pin::new(&mut self.io).consume(amount);
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Greeted<T> {
    crate::through::writes_through!(io);
}
