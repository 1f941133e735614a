//! Which HTTP an application speaks, by its first bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What an HTTP/2 client with prior knowledge says first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Which HTTP it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    Http1,
    Http2,
}

/// Reads until it is known; what was read is read again from what is given
/// back. An end before it is known is HTTP/1.1, whose engine knows what to say.
pub(crate) async fn sniff<T: AsyncRead + Unpin>(mut io: T) -> io::Result<(Spoken, Rewind<T>)> {
    let mut seen = BytesMut::new();
    let spoken = loop {
        if io.read_buf(&mut seen).await? == 0 {
            break Spoken::Http1;
        }
        let length = seen.len().min(PREFACE.len());
        match (seen.get(..length), PREFACE.get(..length)) {
            (Some(seen), Some(preface)) if seen != preface => break Spoken::Http1,
            _ if length == PREFACE.len() => break Spoken::Http2,
            _ => {}
        }
    };
    let seen = seen.freeze();
    Ok((spoken, Rewind { seen, io }))
}

/// A connection of which the beginning was read already.
#[derive(Debug)]
pub(crate) struct Rewind<T> {
    seen: Bytes,
    io: T,
}

impl<T> Rewind<T> {
    /// A connection of which this was read already.
    pub(crate) fn new(seen: Bytes, io: T) -> Self {
        Self { seen, io }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Rewind<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.seen.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let length = self.seen.len().min(buf.remaining());
        buf.put_slice(self.seen.get(..length).unwrap_or_default());
        self.seen.advance(length);
        if self.seen.is_empty() {
            self.seen = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Rewind<T> {
    crate::through::writes_through!(io);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn spoken(pieces: &[&[u8]]) -> Spoken {
        let (mut near, far) = tokio::io::duplex(1);
        let (found, ()) = tokio::join!(
            async {
                let (spoken, mut again) = sniff(far).await.unwrap();
                let mut all = Vec::new();
                again.read_to_end(&mut all).await.unwrap();
                assert_eq!(all, pieces.concat());
                spoken
            },
            async {
                for piece in pieces {
                    near.write_all(piece).await.unwrap();
                }
                drop(near);
            }
        );
        found
    }

    #[tokio::test]
    async fn by_the_preface() {
        assert_eq!(spoken(&[PREFACE, b"rest"]).await, Spoken::Http2);
        assert_eq!(spoken(&[b"GET / HTTP/1.1\r\n\r\n"]).await, Spoken::Http1);
        assert_eq!(
            spoken(&[b"PRI", b" / HTTP/1.1\r\n\r\n"]).await,
            Spoken::Http1
        );
        assert_eq!(spoken(&[]).await, Spoken::Http1);
        assert_eq!(spoken(&[b"PRI"]).await, Spoken::Http1);
    }
}
