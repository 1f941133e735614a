//! A connection, and what was read of it and not used, or is to be written.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::Frame;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::Malformed;
use super::framing::Decoder;
use super::head::end_of_head;
use crate::http::BodyError;
use crate::scratch;

/// What is read ahead of its turn: of a caller that sends requests without
/// waiting for answers.
const AHEAD: usize = 64 * 1024;
/// From this on data is not copied to what is written with it.
const LARGE: usize = 8 * 1024;
/// What is gathered at most before it is written.
const ENOUGH: usize = 64 * 1024;
const ENOUGH_PIECES: usize = 512 * 1024;
/// Pieces of one write.
const PIECES: usize = 32;

/// See the module. It holds buffers only while there is something in them.
#[derive(Debug)]
pub(super) struct Link<T> {
    io: T,
    unread: Vec<u8>,
    used: usize,
    /// What came behind a head: then it is all that is unread.
    behind: Bytes,
    /// How far the end of a head was looked for.
    looked_at: usize,
    out: Vec<u8>,
    written: usize,
    /// Written after `out`, one after the other, and their sum.
    pieces: VecDeque<Bytes>,
    in_pieces: usize,
    must_flush: bool,
}

/// Why there is no head.
#[derive(Debug)]
pub(super) enum NoHead {
    /// The connection ended between two messages.
    End,
    /// It ended within a head.
    Early,
    Io(io::Error),
    Malformed(Malformed),
}

impl<T> Link<T> {
    pub(super) fn new(io: T) -> Self {
        Self {
            io,
            unread: Vec::new(),
            used: 0,
            behind: Bytes::new(),
            looked_at: 0,
            out: Vec::new(),
            written: 0,
            pieces: VecDeque::new(),
            in_pieces: 0,
            must_flush: false,
        }
    }

    /// The connection, and what was read of it.
    pub(super) fn into_parts(self) -> (T, Bytes) {
        let rest = Bytes::copy_from_slice(self.rest());
        (self.io, rest)
    }

    /// What was read and not used.
    pub(super) fn rest(&self) -> &[u8] {
        match self.behind.is_empty() {
            true => self.unread.get(self.used..).unwrap_or_default(),
            false => &self.behind,
        }
    }

    /// The same, which is used with that.
    pub(super) fn take_rest(&mut self) -> Bytes {
        if self.behind.is_empty() {
            self.behind = Bytes::copy_from_slice(self.rest());
            self.use_unread(self.behind.len());
        }
        self.looked_at = 0;
        std::mem::take(&mut self.behind)
    }

    /// What is to be written next.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        if self.out.capacity() == 0 {
            self.out = scratch::write_buffer();
        }
        &mut self.out
    }

    /// Data to be written after what is in [`Link::out`]. Nothing may be put
    /// there any more until all is written.
    pub(super) fn put_piece(&mut self, piece: Bytes) {
        if self.pieces.is_empty() && piece.len() < LARGE {
            self.out().extend_from_slice(&piece);
        } else if !piece.is_empty() {
            self.in_pieces += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// Bytes that wait to be written.
    pub(super) fn unwritten(&self) -> usize {
        self.out.len().saturating_sub(self.written) + self.in_pieces
    }

    /// There is enough to be written.
    pub(super) fn is_full(&self) -> bool {
        self.out.len() >= ENOUGH
            || self.in_pieces >= ENOUGH_PIECES
            || self.pieces.len() >= PIECES - 1
    }

    /// So much of what was read is used.
    pub(super) fn use_up(&mut self, bytes: usize) {
        self.looked_at = 0;
        if self.behind.is_empty() {
            self.use_unread(bytes);
        } else if bytes < self.behind.len() {
            self.behind.advance(bytes);
        } else {
            self.behind = Bytes::new(); // and nothing of it is held
        }
    }

    fn use_unread(&mut self, bytes: usize) {
        self.used += bytes;
        if self.used >= self.unread.len() {
            self.used = 0;
            scratch::recycle(std::mem::take(&mut self.unread));
        }
    }

    fn keep_for_later(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let behind = std::mem::take(&mut self.behind);
        self.keep_for_later(&behind);
        // Else one that always has a part of the next message behind what was
        // used would hold all that ever came.
        if self.used > 0 {
            self.unread.drain(..self.used);
            self.used = 0;
        }
        if self.unread.capacity() == 0 {
            self.unread = scratch::write_buffer();
        }
        self.unread.extend_from_slice(bytes);
    }
}

impl<T: AsyncRead + Unpin> Link<T> {
    /// Reads once, and keeps it; `false` is the connection's end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        scratch::with_read_buffer(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
            self.keep_for_later(buffer.filled());
            Poll::Ready(Ok(!buffer.filled().is_empty()))
        })
    }

    /// The bytes of a head.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
    ) -> Poll<Result<Bytes, NoHead>> {
        loop {
            // Empty lines before a request are nothing (RFC 9112, 2.2).
            while self.rest().starts_with(b"\r\n") {
                self.use_up(2);
            }
            if self.rest().is_empty() {
                match ready!(self.poll_new_head(cx, most)) {
                    Ok(None) => continue,
                    Ok(Some(head)) => return Poll::Ready(Ok(head)),
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            let rest = self.rest();
            let end = end_of_head(rest, self.looked_at).map_err(NoHead::Malformed)?;
            if end.unwrap_or(rest.len()) > most {
                return Poll::Ready(Err(NoHead::Malformed(Malformed::TooLarge)));
            }
            if let Some(head) = end.and_then(|end| rest.get(..end)) {
                let head = Bytes::copy_from_slice(head);
                self.use_up(head.len());
                return Poll::Ready(Ok(head));
            }
            // A line's end may be cut in two.
            self.looked_at = rest.len().saturating_sub(1);
            match ready!(self.poll_fill(cx)) {
                Ok(true) => {}
                Ok(false) => return Poll::Ready(Err(NoHead::Early)),
                Err(error) => return Poll::Ready(Err(NoHead::Io(error))),
            }
        }
    }

    /// Reads once, where nothing is unread. A head that is whole is given back at once; what is not
    /// as it mostly is, is kept, and looked at in its turn.
    fn poll_new_head(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
    ) -> Poll<Result<Option<Bytes>, NoHead>> {
        scratch::with_read_buffer(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            if let Err(error) = ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer)) {
                return Poll::Ready(Err(NoHead::Io(error)));
            }
            let read = buffer.filled();
            if read.is_empty() {
                return Poll::Ready(Err(NoHead::End));
            }
            let end = match read.starts_with(b"\r\n") {
                true => None,
                false => end_of_head(read, 0).ok().flatten(),
            };
            let whole = end.filter(|end| *end <= most);
            let Some((head, rest)) = whole.and_then(|end| read.split_at_checked(end)) else {
                self.keep_for_later(read);
                return Poll::Ready(Ok(None));
            };
            self.behind = Bytes::copy_from_slice(rest);
            Poll::Ready(Ok(Some(Bytes::copy_from_slice(head))))
        })
    }

    /// The next of a body.
    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        decoder: &mut Decoder,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let broken = |error: Malformed| Some(Err(BodyError::Source(error.into())));
        loop {
            if decoder.is_done() {
                let trailers = decoder.take_trailers();
                return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
            }
            let taken = match self.rest() {
                [] => match ready!(self.poll_body_read(cx, decoder)) {
                    Ok(taken) => taken,
                    Err(error) => return Poll::Ready(Some(Err(error))),
                },
                mut rest => {
                    let before = rest.len();
                    let taken = decoder.take(&mut rest);
                    let used = before - rest.len();
                    self.use_up(used);
                    match taken {
                        Ok(data) => Some(data),
                        Err(error) => return Poll::Ready(broken(error)),
                    }
                }
            };
            match taken {
                None => match decoder.end() {
                    Ok(()) => return Poll::Ready(None),
                    Err(error) => return Poll::Ready(broken(error)),
                },
                Some(data) if data.is_empty() => {}
                Some(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
            }
        }
    }

    /// Reads once, for a body; `None` is the connection's end.
    fn poll_body_read(
        &mut self,
        cx: &mut Context<'_>,
        decoder: &mut Decoder,
    ) -> Poll<Result<Option<Bytes>, BodyError>> {
        let io = Pin::new(&mut self.io);
        let (mut read, polled) = scratch::shared_read(|buffer| poll_read_buf(io, cx, buffer));
        if let Err(error) = ready!(polled) {
            decoder.fail();
            return Poll::Ready(Err(BodyError::Source(error.into())));
        }
        if read.is_empty() {
            return Poll::Ready(Ok(None));
        }
        let taken = decoder.take_shared(&mut read);
        self.keep_for_later(&read);
        Poll::Ready(match taken {
            Ok(data) => Ok(Some(data)),
            Err(error) => Err(BodyError::Source(error.into())),
        })
    }

    /// Ready when the other side has ended the connection, or it has failed.
    /// What comes instead is kept for later, as long as that is not much.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.rest().len() < AHEAD {
            match ready!(self.poll_fill(cx)) {
                Ok(true) => {}
                Ok(false) | Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    /// Whether an idle connection is one still: nothing came, and no end. It
    /// costs no system call where the runtime knows that nothing came.
    pub(super) fn is_quiet(&mut self, cx: &mut Context<'_>) -> bool {
        self.rest().is_empty() && self.poll_fill(cx).is_pending()
    }

    /// Reads over what still comes, and ends when it has ended.
    pub(super) fn poll_skip(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        scratch::with_read_buffer(|buffer| {
            loop {
                let mut buffer = ReadBuf::new(buffer);
                match ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer)) {
                    Ok(()) if !buffer.filled().is_empty() => {}
                    _ => return Poll::Ready(()),
                }
            }
        })
    }
}

impl<T: AsyncWrite + Unpin> Link<T> {
    /// Writes all that is to be written.
    pub(super) fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let first = self.out.get(self.written..).unwrap_or_default();
            let of_first = first.len();
            let written = match (self.pieces.front(), first.is_empty()) {
                (None, true) => break,
                (None, false) => Pin::new(&mut self.io).poll_write(cx, first),
                (Some(piece), true) if self.pieces.len() == 1 => {
                    Pin::new(&mut self.io).poll_write(cx, piece)
                }
                (Some(_), _) => {
                    let mut slices = [IoSlice::new(&[]); PIECES];
                    let all = std::iter::once(first).chain(self.pieces.iter().map(AsRef::as_ref));
                    for (slice, bytes) in slices.iter_mut().zip(all) {
                        *slice = IoSlice::new(bytes);
                    }
                    let used = slices.get(..=self.pieces.len()).unwrap_or(&slices);
                    let used = used.get(usize::from(of_first == 0)..).unwrap_or_default();
                    Pin::new(&mut self.io).poll_write_vectored(cx, used)
                }
            };
            let written = ready!(written)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.must_flush = true;
            self.written += written.min(of_first);
            self.pieces_written(written.saturating_sub(of_first));
        }
        if self.out.capacity() > 0 {
            self.written = 0;
            scratch::recycle(std::mem::take(&mut self.out));
        }
        if self.must_flush {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.must_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    fn pieces_written(&mut self, mut bytes: usize) {
        self.in_pieces = self.in_pieces.saturating_sub(bytes);
        while let Some(piece) = self.pieces.front_mut() {
            if bytes < piece.len() {
                piece.advance(bytes);
                return;
            }
            bytes -= piece.len();
            self.pieces.pop_front();
        }
        // An idle connection holds nothing.
        if self.pieces.capacity() > 0 {
            self.pieces = VecDeque::new();
        }
    }

    /// Says that nothing more comes.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncWriteExt, duplex};

    /// Each read ends within a request, so that something is always left.
    #[tokio::test]
    async fn what_was_used_is_not_held() {
        let request = b"GET /a HTTP/1.1\r\nhost: a\r\nx: some more bytes\r\n\r\n";
        let (first, second) = request.split_at(request.len() / 2);
        let turned = [second, first].concat();
        let (mut near, far) = duplex(1024);
        let mut link = Link::new(far);
        near.write_all(first).await.unwrap();
        for _ in 0..10_000 {
            near.write_all(&turned).await.unwrap();
            let head = poll_fn(|cx| link.poll_head(cx, 16 * 1024)).await.unwrap();
            assert_eq!(head, request.as_slice());
            assert!(!link.rest().is_empty());
        }
        let held = link.unread.capacity();
        assert!(held < 2 * AHEAD, "{held} bytes");
    }
}
