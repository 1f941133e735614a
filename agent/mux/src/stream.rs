//! One byte stream: a handle on the connection's state, without a task.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use crate::connection::Shared;
use crate::error::ResetCode;
use crate::scratch;

/// A byte stream in a connection.
///
/// - `shutdown` ends our half; reading goes on until the other side ends its
///   own.
/// - Dropping it resets what has not ended in both directions.
/// - Errors carry a [`StreamError`](crate::StreamError), and one of four kinds:
///   `ConnectionReset` (the other side reset the stream), `ConnectionRefused`
///   (it did not process it), `ConnectionAborted` (the connection ended),
///   `BrokenPipe` (we write after our shutdown).
/// - A write is done when the connection's buffer has the bytes. `flush` adds
///   nothing: the driver writes once a turn whatever is there.
/// - `AsyncBufRead` gives what arrived without a copy.
pub struct Stream {
    shared: Arc<Shared>,
    id: u32,
    /// What was taken out of the connection and is not read yet.
    chunk: BytesMut,
    /// How much of it was read without telling the connection.
    untold: usize,
}

/// After how many bytes the connection learns what was read, in a large chunk.
const TELL: usize = 16 * 1024;

impl Stream {
    pub(crate) fn new(shared: Arc<Shared>, id: u32) -> Self {
        Self {
            shared,
            id,
            chunk: BytesMut::new(),
            untold: 0,
        }
    }

    /// Its number in the connection, as logs may show it.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// How many bytes the next write takes, at least one; waits while there is
    /// no room. Who asks first need not hold what was not taken. It takes the
    /// stream's turn: ask only when there is something to write.
    ///
    /// # Errors
    ///
    /// As those of a write.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let room = self.shared.with(|state| state.room(self.id, cx.waker()));
        room.map_err(io::Error::from)
    }

    /// Ends the stream at once, in both directions, with a reason for the other
    /// side.
    pub fn reset(self, code: ResetCode) {
        self.shared.with(|state| state.release(self.id, code));
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // After reset() the id is not known any more, and this does nothing.
        self.shared
            .with(|state| state.release(self.id, ResetCode::CANCELLED));
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let chunk = ready!(self.as_mut().poll_fill_buf(cx))?;
        let length = chunk.len().min(buf.remaining());
        buf.put_slice(&chunk[..length]);
        self.consume(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncBufRead for Stream {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        if this.chunk.is_empty() {
            let received = this.shared.lock().receive(this.id, cx.waker());
            this.chunk = ready!(received)?;
        }
        Poll::Ready(Ok(&this.chunk))
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        let this = self.get_mut();
        this.chunk.advance(amount);
        this.untold += amount;
        if this.chunk.is_empty() {
            // An idle stream holds no buffer.
            scratch::recycle_chunk(std::mem::take(&mut this.chunk));
        } else if this.untold < TELL {
            return;
        }
        let read = std::mem::take(&mut this.untold);
        if read > 0 {
            this.shared.with(|state| state.consumed(this.id, read));
        }
    }
}

impl AsyncWrite for Stream {
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
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self
            .shared
            .with(|state| state.write(self.id, bufs, cx.waker()));
        written.map_err(io::Error::from)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = self.shared.with(|state| state.finish(self.id));
        Poll::Ready(done.map_err(io::Error::from))
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("id", &self.id).finish()
    }
}
