//! Bytes both ways between two connections.
//!
//! An idle relay holds no buffer: it reads into the worker's, no more than the
//! other side says that it takes, and keeps only what it then would not take.
//! An end in one direction is passed on and the other direction goes on; an
//! error in one ends both.

mod side;

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mesh_mux::Later;
use tokio::io::AsyncWrite;
use tokio::time::{Instant, sleep};

use crate::cut::{Cut, CutCell};
use crate::scratch;

pub(crate) use side::Side;

/// How a relay ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Both directions came to their end.
    Whole,
    /// Nothing came for too long.
    Idle,
    /// It was cut from elsewhere.
    Cut(Cut),
    /// One side failed; the one who called it, or the other.
    Failed { caller: bool, error: io::Error },
}

/// Sees what goes by: bytes from the caller, bytes to it.
pub(crate) trait Meter {
    fn caller_sent(&self, bytes: usize);
    fn caller_got(&self, bytes: usize);
}

/// Copies until both directions have ended, or something ends it.
pub(crate) async fn relay<A, B>(
    caller: &mut A,
    other: &mut B,
    idle: Duration,
    cut: &CutCell,
    meter: &impl Meter,
) -> Ended
where
    A: Side,
    B: Side,
{
    let mut up = Half::default();
    let mut down = Half::default();
    let mut timer = pin!(sleep(idle));
    let mut last = Instant::now();
    poll_fn(|cx| {
        if let Poll::Ready(why) = cut.poll(cx) {
            return Poll::Ready(Ended::Cut(why));
        }
        let before = up.moved + down.moved;
        let to_other = up.poll(cx, caller, other, |bytes| meter.caller_sent(bytes));
        let to_caller = down.poll(cx, other, caller, |bytes| meter.caller_got(bytes));
        let whole = to_other.is_ready() && to_caller.is_ready();
        for (polled, caller_reads) in [(to_other, true), (to_caller, false)] {
            if let Poll::Ready(Err((reading, error))) = polled {
                let caller = reading == caller_reads;
                return Poll::Ready(Ended::Failed { caller, error });
            }
        }
        if whole {
            return Poll::Ready(Ended::Whole);
        }
        if up.moved + down.moved != before {
            last = Instant::now();
        }
        while timer.as_mut().poll(cx).is_ready() {
            if last.elapsed() >= idle {
                return Poll::Ready(Ended::Idle);
            }
            timer.as_mut().reset(last + idle);
        }
        Poll::Pending
    })
    .await
}

/// One direction.
#[derive(Default)]
struct Half {
    state: State,
    /// What was read and not taken yet.
    left: Vec<u8>,
    taken: usize,
    must_flush: bool,
    moved: u64,
    /// When there was more than one turn may move.
    later: Later,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Copying,
    Closing,
    Done,
}

/// Bytes of one direction before others have their turn.
const TURN: u64 = 512 * 1024;

/// Whether reading failed (else writing), and how.
type Failure = (bool, io::Error);

impl Half {
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        count: impl Fn(usize),
    ) -> Poll<Result<(), Failure>>
    where
        R: Side,
        W: Side,
    {
        let writing = |error| (false, error);
        let before = self.moved;
        loop {
            ready!(self.poll_left(cx, to)).map_err(writing)?;
            match self.state {
                State::Done => return Poll::Ready(Ok(())),
                State::Closing => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(writing)?;
                    self.state = State::Done;
                    return Poll::Ready(Ok(()));
                }
                State::Copying => {}
            }
            if !self.later.waits() && self.moved - before >= TURN {
                self.later.call(cx);
            }
            if self.later.waits() || self.poll_piece(cx, from, to, &count)?.is_pending() {
                if self.must_flush {
                    ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(writing)?;
                    self.must_flush = false;
                }
                return Poll::Pending;
            }
        }
    }

    /// Writes what is left of the last read.
    fn poll_left<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
    ) -> Poll<io::Result<()>> {
        while let Some(rest) = self.left.get(self.taken..).filter(|rest| !rest.is_empty()) {
            let bytes = ready!(Pin::new(&mut *to).poll_write(cx, rest))?;
            if bytes == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.taken += bytes;
            self.moved += bytes as u64;
            self.must_flush = true;
        }
        if !self.left.is_empty() {
            self.taken = 0;
            scratch::recycle(std::mem::take(&mut self.left));
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once what there is room for, and writes as much of it as is taken.
    fn poll_piece<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        count: &impl Fn(usize),
    ) -> Poll<Result<(), Failure>>
    where
        R: Side,
        W: Side,
    {
        // In this order: who waits for room without need takes others' turn.
        ready!(from.poll_readable(cx));
        let room = ready!(to.poll_room(cx)).map_err(|error| (false, error))?;
        let mut outcome = Poll::Ready(Ok(()));
        let polled = from.poll_piece(cx, room, &mut |cx, piece| {
            if piece.is_empty() {
                self.state = State::Closing;
                return 0;
            }
            let written = write_all(cx, to, piece);
            self.moved += written.bytes as u64;
            self.must_flush |= written.bytes > 0;
            let rest = piece.get(written.bytes..).unwrap_or_default();
            let taken = if R::KEEPS || written.error.is_some() {
                written.bytes
            } else {
                if !rest.is_empty() {
                    self.left = scratch::write_buffer();
                    self.left.extend_from_slice(rest);
                }
                piece.len()
            };
            count(taken);
            outcome = match written.error {
                Some(error) => Poll::Ready(Err((false, error))),
                None if taken < piece.len() => Poll::Pending,
                None => Poll::Ready(Ok(())),
            };
            taken
        });
        ready!(polled).map_err(|error| (true, error))?;
        outcome
    }
}

/// What became of a piece.
struct Written {
    bytes: usize,
    error: Option<io::Error>,
}

/// Writes until all is written, or waits, or fails.
fn write_all<W: AsyncWrite + Unpin>(cx: &mut Context<'_>, to: &mut W, piece: &[u8]) -> Written {
    let mut bytes = 0;
    let error = loop {
        let Some(rest) = piece.get(bytes..).filter(|rest| !rest.is_empty()) else {
            break None;
        };
        match Pin::new(&mut *to).poll_write(cx, rest) {
            Poll::Ready(Ok(0)) => break Some(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(more)) => bytes += more,
            Poll::Ready(Err(error)) => break Some(error),
            Poll::Pending => break None,
        }
    };
    Written { bytes, error }
}

use std::future::Future as _;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::Cell;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, duplex};

    use super::*;

    #[derive(Default)]
    struct Counts(Cell<usize>, Cell<usize>);

    impl Meter for Counts {
        fn caller_sent(&self, bytes: usize) {
            self.0.set(self.0.get() + bytes);
        }
        fn caller_got(&self, bytes: usize) {
            self.1.set(self.1.get() + bytes);
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn half_close_and_slow_readers() {
        let (mut near, mut caller) = duplex(64);
        let (mut other, mut far) = duplex(16);
        let counts = Counts::default();
        let cut = CutCell::default();
        let sent: Vec<u8> = (0..10_000_u32).map(|it| it as u8).collect();
        let (ended, (), ()) = tokio::join!(
            async {
                let ended = relay(&mut caller, &mut other, LONG, &cut, &counts).await;
                drop((caller, other));
                ended
            },
            async {
                near.write_all(&sent).await.unwrap();
                near.shutdown().await.unwrap();
                let mut answer = String::new();
                near.read_to_string(&mut answer).await.unwrap();
                assert_eq!(answer, "thanks");
            },
            async {
                let mut got = Vec::new();
                far.read_to_end(&mut got).await.unwrap();
                assert_eq!(got, sent);
                far.write_all(b"thanks").await.unwrap();
                far.shutdown().await.unwrap();
            }
        );
        assert!(matches!(ended, Ended::Whole), "{ended:?}");
        assert_eq!((counts.0.get(), counts.1.get()), (10_000, 6));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it() {
        let (mut near, mut caller) = duplex(64);
        let (mut other, _far) = duplex(64);
        let cut = CutCell::default();
        let counts = Counts::default();
        let began = Instant::now();
        let (ended, ()) =
            tokio::join!(relay(&mut caller, &mut other, LONG, &cut, &counts), async {
                tokio::time::sleep(LONG / 2).await;
                near.write_all(b"x").await.unwrap();
            });
        assert!(matches!(ended, Ended::Idle), "{ended:?}");
        assert_eq!(began.elapsed().as_secs(), 90);
    }

    #[tokio::test]
    async fn a_cut_ends_it() {
        let (_near, mut caller) = duplex(64);
        let (mut other, _far) = duplex(64);
        let cut = CutCell::default();
        let counts = Counts::default();
        let (ended, ()) =
            tokio::join!(relay(&mut caller, &mut other, LONG, &cut, &counts), async {
                cut.cut(Cut::Denied)
            });
        assert!(matches!(ended, Ended::Cut(Cut::Denied)), "{ended:?}");
    }

    /// Two ends of one stream.
    async fn streams() -> (mesh_mux::Stream, mesh_mux::Stream) {
        let (near, far) = duplex(1 << 20);
        let config = mesh_mux::Config {
            keepalive_interval: None, // no end of quiet
            ..mesh_mux::Config::default()
        };
        let (opener, client) = mesh_mux::Connection::client(BufReader::new(near), config.clone());
        let (mut acceptor, server) = mesh_mux::Connection::server(BufReader::new(far), config);
        tokio::spawn(client);
        tokio::spawn(server);
        let stream = opener.open("".into()).await.unwrap();
        let incoming = acceptor.accept().await.unwrap();
        tokio::spawn(async move {
            let _open = (opener, acceptor);
            std::future::pending::<()>().await
        });
        (stream, incoming.stream)
    }

    /// What a stream has no room for stays with the application; what the
    /// application does not take stays in the stream.
    #[tokio::test(start_paused = true)]
    async fn nothing_is_put_aside_for_a_stream() {
        const SIZE: usize = 300_000;
        let (mut near, mut caller) = duplex(SIZE);
        let (mut stream, mut far) = streams().await;
        let counts = Counts::default();
        let cut = CutCell::default();
        let sent: Vec<u8> = (0..SIZE).map(|it| (it % 251) as u8).collect();
        let (ended, ()) = tokio::join!(
            async {
                let ended = relay(&mut caller, &mut stream, LONG, &cut, &counts).await;
                drop((caller, stream));
                ended
            },
            async {
                near.write_all(&sent).await.unwrap();
                near.shutdown().await.unwrap();
                far.write_all(&sent[..20_000]).await.unwrap();
                far.shutdown().await.unwrap();
                // Time goes on when everything else waits.
                tokio::time::sleep(LONG / 2).await;
                assert_eq!(counts.0.get(), 32 * 1024, "a new stream's window");
                let mut got = Vec::new();
                far.read_to_end(&mut got).await.unwrap();
                assert_eq!(got, sent);
                let mut answer = Vec::new();
                near.read_to_end(&mut answer).await.unwrap();
                assert_eq!(answer, &sent[..20_000]);
            }
        );
        assert!(matches!(ended, Ended::Whole), "{ended:?}");
        assert_eq!((counts.0.get(), counts.1.get()), (SIZE, 20_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_application_holds_only_its_stream_up() {
        let (mut near, mut caller) = duplex(1000);
        let (mut stream, mut far) = streams().await;
        let counts = Counts::default();
        let cut = CutCell::default();
        let sent = vec![7; 30_000];
        let (ended, ()) = tokio::join!(
            async {
                let ended = relay(&mut caller, &mut stream, LONG, &cut, &counts).await;
                drop((caller, stream));
                ended
            },
            async {
                far.write_all(&sent).await.unwrap();
                far.shutdown().await.unwrap();
                near.shutdown().await.unwrap();
                tokio::time::sleep(LONG / 2).await;
                assert_eq!(counts.1.get(), 1000, "what it has taken");
                let mut got = Vec::new();
                near.read_to_end(&mut got).await.unwrap();
                assert_eq!(got, sent);
            }
        );
        assert!(matches!(ended, Ended::Whole), "{ended:?}");
    }
}
