//! The one task of a connection: it alone reads and writes.
//!
//! A turn: hand out what can be read, from where the transport has it; then, if
//! there is something to write, let the tasks that were just woken run first
//! (the driver wakes itself, behind them), and write all of it at once. Where
//! there is much to read some of it is left until all others have run, and what
//! came for them was looked for.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep};

use crate::config::Config;
use crate::connection::Shared;
use crate::decode::Decoder;
use crate::error::CloseReason;
use crate::later::Later;
use crate::scratch;

/// Bytes that are read before others have their turn.
const TURN: usize = 512 * 1024;

/// Does the I/O of a connection. Spawn it; it ends with the connection, and
/// says why. Dropping it earlier cuts all streams.
#[must_use = "nothing happens on a connection whose driver is not polled"]
pub struct Driver<T> {
    io: T,
    shared: Arc<Shared>,
    decoder: Decoder,
    /// What is being written, and how much of it is done.
    writing: Vec<u8>,
    written: usize,
    must_flush: bool,
    /// Whether the tasks of this turn had their chance to add to the write.
    gathered: bool,
    /// When there was more than one turn may read.
    later: Later,
    keepalive: Option<Keepalive>,
    close_timeout: Duration,
    phase: Phase,
    wakes: Vec<Waker>,
}

/// What is left to do.
enum Phase {
    Running,
    Ending {
        step: Step,
        deadline: Pin<Box<Sleep>>,
        reason: CloseReason,
    },
}

/// The steps of an orderly end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The last frames go out, a GOAWAY among them.
    Flush,
    /// We say that no more bytes come.
    Shutdown,
    /// The other side's end is awaited: to close with bytes unread would reset
    /// the connection, and take our last words from it.
    Linger,
    Done,
}

impl<T> Driver<T> {
    pub(crate) fn new(io: T, shared: Arc<Shared>, config: &Config) -> Self {
        Self {
            io,
            shared,
            decoder: Decoder::default(),
            writing: Vec::new(),
            written: 0,
            must_flush: false,
            gathered: false,
            later: Later::default(),
            keepalive: config.keepalive_interval.map(|interval| Keepalive {
                interval,
                timeout: config.keepalive_timeout,
                timer: None,
                heard: false,
                asked: false,
            }),
            close_timeout: config.close_timeout,
            phase: Phase::Running,
            wakes: Vec::new(),
        }
    }
}

impl<T: AsyncBufRead + AsyncWrite + Unpin> Future for Driver<T> {
    type Output = CloseReason;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let this = &mut *self;
        if matches!(this.phase, Phase::Running) {
            let reason = ready!(this.run(cx));
            let reason = this.shared.close(reason);
            tracing::debug!(%reason, "mesh/1 connection ends");
            this.phase = Phase::Ending {
                step: match reason {
                    CloseReason::Io(_) | CloseReason::KeepaliveTimeout | CloseReason::Dropped => {
                        Step::Done
                    }
                    _ => Step::Flush,
                },
                deadline: Box::pin(sleep(this.close_timeout)),
                reason,
            };
        }
        this.end(cx)
    }
}

impl<T: AsyncBufRead + AsyncWrite + Unpin> Driver<T> {
    /// One turn. Ready when the connection is to end.
    fn run(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        self.shared.lock().driver_runs();
        if let Some(keepalive) = &mut self.keepalive {
            match keepalive.poll(cx) {
                Alive::Quiet => {}
                Alive::Ask => self.shared.lock().ping(),
                Alive::Dead => return Poll::Ready(CloseReason::KeepaliveTimeout),
            }
        }
        if !self.later.waits() {
            match self.read(cx) {
                Ok(true) => self.later.call(cx),
                Ok(false) => {}
                Err(reason) => return Poll::Ready(reason),
            }
        }
        if let Err(error) = self.write(cx) {
            return Poll::Ready(CloseReason::Io(Arc::new(error)));
        }
        let mut state = self.shared.lock();
        if let Some(reason) = state.closed() {
            return Poll::Ready(reason.clone());
        }
        if state.is_finished() && !self.must_flush {
            return Poll::Ready(CloseReason::Drained);
        }
        state.driver_sleeps(cx.waker());
        let unwritten = self.writing.is_empty() && state.has_output();
        if unwritten || state.is_round_due() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Reads what is there, at most so much as others can wait for, and hands it
    /// out. Says whether there may be more.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        let mut left = TURN;
        let more = loop {
            if left == 0 {
                break Ok(true);
            }
            let bytes = match Pin::new(&mut self.io).poll_fill_buf(cx) {
                Poll::Pending => break Ok(false),
                Poll::Ready(Err(error)) => break Err(CloseReason::Io(Arc::new(error))),
                Poll::Ready(Ok([])) => break Err(self.at_end()),
                Poll::Ready(Ok(bytes)) => bytes,
            };
            if let Some(keepalive) = &mut self.keepalive {
                keepalive.heard = true;
            }
            let length = bytes.len();
            let mut state = self.shared.lock();
            let fed = self.decoder.feed(bytes, |frame| state.frame(frame));
            drop(state);
            Pin::new(&mut self.io).consume(length);
            if let Err(violation) = fed {
                break Err(CloseReason::Violation(violation));
            }
            left = left.saturating_sub(length);
        };
        // Once, so that what came for one stream is one chunk.
        self.shared.lock().take_wakes(&mut self.wakes);
        self.wake();
        more
    }

    /// Why it ends when no more bytes come.
    fn at_end(&self) -> CloseReason {
        let state = self.shared.lock();
        match self.decoder.is_between_frames() && state.is_at_rest() {
            true if state.is_draining() => CloseReason::Drained,
            true => CloseReason::PeerClosed,
            false => CloseReason::Lost,
        }
    }

    /// Writes what is ready, once.
    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.writing.is_empty() {
            let mut state = self.shared.lock();
            if !state.has_output() {
                self.gathered = false;
            } else if !self.gathered && !state.is_heavy() {
                self.gathered = true;
            } else {
                self.gathered = false;
                self.writing = state.take_output();
            }
            if state.is_round_due() {
                state.call_waiting();
            }
            state.take_wakes(&mut self.wakes);
            drop(state);
            self.wake();
        }
        match self.write_out(cx) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    /// Gets what was taken out; ready when it is out and flushed.
    fn write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.writing.is_empty() {
            let rest = &self.writing[self.written..];
            let bytes = ready!(Pin::new(&mut self.io).poll_write(cx, rest))?;
            if bytes == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += bytes;
            self.must_flush = true;
            let done = self.written == self.writing.len();
            if done {
                self.written = 0;
                scratch::recycle(std::mem::take(&mut self.writing));
            }
            let mut state = self.shared.lock();
            state.sent(bytes);
            if done {
                state.call_waiting();
                state.take_wakes(&mut self.wakes);
                drop(state);
                self.wake();
            }
        }
        if self.must_flush {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.must_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Ends the transport in order, and in time.
    fn end(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        loop {
            let Phase::Ending {
                step,
                deadline,
                reason,
            } = &mut self.phase
            else {
                return Poll::Pending;
            };
            if *step == Step::Done || deadline.as_mut().poll(cx).is_ready() {
                *step = Step::Done;
                return Poll::Ready(reason.clone());
            }
            let heard_end = matches!(reason, CloseReason::PeerClosed | CloseReason::Lost);
            let next = match *step {
                Step::Flush => self.flush_all(cx).map_ok(|()| Step::Shutdown),
                Step::Shutdown => Pin::new(&mut self.io)
                    .poll_shutdown(cx)
                    .map_ok(|()| if heard_end { Step::Done } else { Step::Linger }),
                Step::Linger => self.skip_input(cx).map_ok(|()| Step::Done),
                Step::Done => Poll::Ready(Ok(Step::Done)),
            };
            let next = ready!(next).unwrap_or(Step::Done);
            if let Phase::Ending { step, .. } = &mut self.phase {
                *step = next;
            }
        }
    }

    fn flush_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.write_out(cx))?;
            self.writing = self.shared.lock().take_output();
            if self.writing.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn skip_input(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let length = ready!(Pin::new(&mut self.io).poll_fill_buf(cx))?.len();
            if length == 0 {
                return Poll::Ready(Ok(()));
            }
            Pin::new(&mut self.io).consume(length);
        }
    }
}

impl<T> Driver<T> {
    fn wake(&mut self) {
        self.wakes.drain(..).for_each(Waker::wake);
        if self.wakes.capacity() > 256 {
            self.wakes = Vec::new();
        }
    }
}

impl<T> Drop for Driver<T> {
    fn drop(&mut self) {
        self.shared.close(CloseReason::Dropped);
    }
}

impl<T> fmt::Debug for Driver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Driver").field(&self.shared).finish()
    }
}

/// Watches for a side that is gone without a word.
struct Keepalive {
    interval: Duration,
    timeout: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether anything came since the timer was set.
    heard: bool,
    /// Whether the timer waits for an answer.
    asked: bool,
}

enum Alive {
    Quiet,
    Ask,
    Dead,
}

impl Keepalive {
    fn poll(&mut self, cx: &mut Context<'_>) -> Alive {
        let interval = self.interval;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(interval)));
        if timer.as_mut().poll(cx).is_pending() {
            return Alive::Quiet;
        }
        if self.asked && !self.heard {
            return Alive::Dead;
        }
        self.asked = !self.heard;
        self.heard = false;
        let (next, what) = match self.asked {
            true => (self.timeout, Alive::Ask),
            false => (self.interval, Alive::Quiet),
        };
        timer.as_mut().reset(Instant::now() + next);
        let _ = timer.as_mut().poll(cx); // registers it; it cannot be over yet
        what
    }
}
