//! A socket beneath TLS, read in large pieces.
//!
//! rustls asks for 4 KiB at a time, which would be a system call for each; here
//! what a socket has is read at once, and given out as it is asked for. Nothing
//! is held while there is nothing left.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::cut::Cut;
use crate::link::Linked;
use crate::scratch;

/// Bytes that are read at once. The more there are, the seldomer one side sleeps and is woken by
/// the other, which is most of what can be saved on bulk.
const READ: usize = 512 * 1024;

/// Bytes that TLS takes and has not written; what one write of it may be. More than what is
/// gathered before it is written, so that its last few are no record and no write of their own.
pub(crate) const WRITE: usize = 576 * 1024;
/// Buffers that are kept for the next read.
const SPARE: usize = 4;

thread_local! {
    /// Not the worker's own read buffer, which whoever reads from TLS may hold.
    static SPARES: Cell<Vec<Box<[u8]>>> = const { Cell::new(Vec::new()) };
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Wide {
    io: TcpStream,
    /// What was read and not given out yet: the place of it in a buffer.
    unread: Option<(Box<[u8]>, Range<usize>)>,
    /// By which it is ended from elsewhere, once it is known who is at the other
    /// end.
    linked: Option<Linked>,
}

impl Wide {
    pub(crate) fn new(io: TcpStream) -> Self {
        Self {
            io,
            unread: None,
            linked: None,
        }
    }

    /// Lets it be ended from elsewhere.
    pub(crate) fn set_linked(&mut self, linked: Linked) {
        self.linked = Some(linked);
    }

    /// By what it is ended from elsewhere.
    pub(crate) fn linked(&self) -> Option<&Linked> {
        self.linked.as_ref()
    }

    /// Whether it was ended.
    fn check(&self) -> io::Result<()> {
        let cut = self.linked.as_ref().and_then(|it| it.cut_cell().get());
        cut.map_or(Ok(()), |why| Err(broken(why)))
    }

    /// What is read, or that it was ended; waits for both.
    fn or_cut(&self, polled: Poll<io::Result<()>>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match (&self.linked, polled) {
            (Some(linked), Poll::Pending) => linked.cut_cell().poll(cx).map(|why| Err(broken(why))),
            (_, polled) => polled,
        }
    }

    /// Gives out what was read before; `false` if there is nothing.
    fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let Some((buffer, rest)) = &mut self.unread else {
            return false;
        };
        let all = buffer.get(rest.clone()).unwrap_or_default();
        let now = all.get(..buf.remaining()).unwrap_or(all);
        buf.put_slice(now);
        rest.start += now.len();
        if rest.start >= rest.end
            && let Some((buffer, _)) = self.unread.take()
        {
            give_back(buffer);
        }
        true
    }
}

fn broken(why: Cut) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, why.why())
}

fn take_buffer() -> Box<[u8]> {
    let mut spares = SPARES.take();
    let buffer = spares.pop();
    SPARES.set(spares);
    buffer.unwrap_or_else(|| vec![0; READ].into_boxed_slice())
}

fn give_back(buffer: Box<[u8]>) {
    let mut spares = SPARES.take();
    if spares.len() < SPARE {
        spares.push(buffer);
    }
    SPARES.set(spares);
}

/// Lets go of the buffers that wait for the next read.
pub(crate) fn let_go() {
    SPARES.take();
}

impl AsyncRead for Wide {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check()?;
        if buf.remaining() == 0 || this.give(buf) {
            return Poll::Ready(Ok(()));
        }
        if buf.remaining() >= READ {
            let polled = Pin::new(&mut this.io).poll_read(cx, buf);
            return this.or_cut(polled, cx);
        }
        let mut buffer = take_buffer();
        let mut room = ReadBuf::new(&mut buffer);
        let polled = Pin::new(&mut this.io).poll_read(cx, &mut room);
        let read = room.filled().len();
        match polled {
            Poll::Ready(Ok(())) if read > 0 => {
                scratch::was_read(read);
                this.unread = Some((buffer, 0..read));
                this.give(buf);
                Poll::Ready(Ok(()))
            }
            other => {
                give_back(buffer);
                this.or_cut(other, cx)
            }
        }
    }
}

impl AsyncWrite for Wide {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
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
            assert!(far.unread.is_none());
            assert_eq!(far.read(&mut [0; 10]).await.unwrap(), 0);
            assert!(far.unread.is_none());
        };
        let writing = async {
            near.write_all(&sent).await.unwrap();
            near.shutdown().await.unwrap();
        };
        tokio::join!(reading, writing);
        assert_eq!(got, sent);
    }
}
