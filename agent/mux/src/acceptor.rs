//! The server's handle.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;

use crate::connection::{Control, Shared, Stats};
use crate::state::State;
use crate::stream::Stream;

/// Accepts streams. When it goes, the connection drains, and what it has not
/// accepted is refused.
#[derive(Debug)]
pub struct Acceptor {
    shared: Arc<Shared>,
}

/// A stream that the other side opened. To turn it away, use
/// [`Stream::reset`].
#[derive(Debug)]
pub struct Incoming {
    /// What the opener said about it: bytes from outside.
    pub metadata: Bytes,
    /// The stream.
    pub stream: Stream,
}

impl Acceptor {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The next stream, or `None` when none will come any more. Cancel safe.
    pub async fn accept(&mut self) -> Option<Incoming> {
        let (id, metadata) =
            poll_fn(|cx| self.shared.with(|state| state.accept(cx.waker()))).await?;
        Some(Incoming {
            metadata,
            stream: Stream::new(self.shared.clone(), id),
        })
    }

    /// How many streams are open (their handles live, or they wait here).
    pub fn active_streams(&self) -> usize {
        self.stats().streams
    }

    /// What the connection holds now.
    pub fn stats(&self) -> Stats {
        self.control().stats()
    }

    /// Begins to drain: see [`Control::drain`]. [`Acceptor::accept`] still gives
    /// the streams that came before, then `None`.
    pub fn drain(&self) {
        self.shared.with(State::drain);
    }

    /// A handle that does not keep the connection open.
    pub fn control(&self) -> Control {
        Control::new(self.shared.clone())
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.shared.with(State::acceptor_gone);
    }
}
