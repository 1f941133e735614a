//! The client's handle.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;

use crate::connection::{Control, Shared, Stats};
use crate::error::{CloseReason, OpenError};
use crate::state::State;
use crate::stream::Stream;

/// Opens streams. Clones are cheap; when the last one goes, the connection
/// drains.
#[derive(Clone, Debug)]
pub struct Opener {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
}

impl Opener {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            inner: Arc::new(Inner { shared }),
        }
    }

    /// Opens a stream, with what the other side must know about it: at most
    /// [`MAX_METADATA`](crate::MAX_METADATA) bytes. It does not wait for the
    /// other side, only for a free stream or room to write. A refusal of the
    /// other side shows on the stream, as
    /// [`StreamError::NotProcessed`](crate::StreamError::NotProcessed).
    ///
    /// # Errors
    /// [`OpenError`], which says whether another connection may be tried.
    pub async fn open(&self, metadata: Bytes) -> Result<Stream, OpenError> {
        let shared = &self.inner.shared;
        let mut place = Place {
            shared,
            ticket: None,
        };
        let id =
            poll_fn(|cx| shared.with(|state| state.open(&metadata, &mut place.ticket, cx.waker())))
                .await?;
        Ok(Stream::new(shared.clone(), id))
    }

    /// Whether [`Opener::open`] would give a stream at once.
    pub fn is_ready(&self) -> bool {
        self.inner.shared.lock().is_ready()
    }

    /// Whether no stream can be opened any more: it drains, or has ended.
    pub fn is_closed(&self) -> bool {
        let state = self.inner.shared.lock();
        state.closed().is_some() || state.is_draining()
    }

    /// Whether what nobody reads, at either end, holds most of what the connection may have under
    /// way: a new stream is better begun on another.
    pub fn is_clogged(&self) -> bool {
        self.inner.shared.lock().is_clogged()
    }

    /// Waits until the connection has ended.
    pub async fn closed(&self) -> CloseReason {
        self.control().closed().await
    }

    /// How many streams are open (their handles live).
    pub fn active_streams(&self) -> usize {
        self.stats().streams
    }

    /// What the connection holds now.
    pub fn stats(&self) -> Stats {
        self.control().stats()
    }

    /// Begins to drain: see [`Control::drain`].
    pub fn drain(&self) {
        self.inner.shared.with(State::drain);
    }

    /// A handle that does not keep the connection open.
    pub fn control(&self) -> Control {
        Control::new(self.inner.shared.clone())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.with(State::drain);
    }
}

/// A place in the line for a stream, given up when the caller does.
struct Place<'a> {
    shared: &'a Shared,
    ticket: Option<u64>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.shared.with(|state| state.leave_line(ticket));
        }
    }
}
