//! The two ends of a connection, and what their handles share.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use tokio::io::{AsyncBufRead, AsyncWrite};
use tokio::sync::Notify;

use crate::acceptor::Acceptor;
use crate::config::Config;
use crate::driver::Driver;
use crate::error::CloseReason;
use crate::opener::Opener;
use crate::state::{Role, State};

/// Makes the two halves of an endpoint: a handle, and the [`Driver`] that must
/// be polled (spawned) for anything to happen. The runtime needs tokio's timer.
#[derive(Debug)]
pub struct Connection;

impl Connection {
    /// The side that opens streams. It may open, and write, at once: nothing
    /// waits for the other side's greeting.
    pub fn client<T>(io: T, config: Config) -> (Opener, Driver<T>)
    where
        T: AsyncBufRead + AsyncWrite + Unpin,
    {
        let shared = Shared::new(Role::Client, config.clone());
        let driver = Driver::new(io, shared.clone(), &config);
        (Opener::new(shared), driver)
    }

    /// The side that accepts streams.
    pub fn server<T>(io: T, config: Config) -> (Acceptor, Driver<T>)
    where
        T: AsyncBufRead + AsyncWrite + Unpin,
    {
        let shared = Shared::new(Role::Server, config.clone());
        let driver = Driver::new(io, shared.clone(), &config);
        (Acceptor::new(shared), driver)
    }
}

/// Watches and drains a connection. It keeps nothing open.
#[derive(Clone, Debug)]
pub struct Control {
    shared: Arc<Shared>,
}

/// What a connection holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Streams whose handle lives (or that wait to be accepted).
    pub streams: usize,
    /// Bytes that arrived and were not read.
    pub unread: usize,
    /// Bytes that were written and not sent, with their frame headers.
    pub unsent: usize,
}

impl Control {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Begins to drain: no stream begins any more, those that live go on, and
    /// when the last one has ended the connection does. At a server, streams
    /// that were opened too late are not processed, and their client knows.
    pub fn drain(&self) {
        self.shared.with(State::drain);
    }

    /// Why the connection ended, if it did.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.shared.lock().closed().cloned()
    }

    /// Waits until the connection has ended.
    pub async fn closed(&self) -> CloseReason {
        loop {
            let ended = self.shared.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable(); // before the look, so that none is missed
            if let Some(reason) = self.close_reason() {
                return reason;
            }
            ended.await;
        }
    }

    /// What the connection holds now.
    pub fn stats(&self) -> Stats {
        let (streams, unread, unsent) = self.shared.lock().load();
        Stats {
            streams,
            unread,
            unsent,
        }
    }
}

/// What the driver and the handles of one connection share.
///
/// The lock is held for short copies only and, on a single-threaded runtime,
/// never contended.
pub(crate) struct Shared {
    state: Mutex<State>,
    ended: Notify,
}

impl Shared {
    fn new(role: Role, config: Config) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State::new(role, config)),
            ended: Notify::new(),
        })
    }

    /// The state. Who may have given reason to wake somebody uses
    /// [`Shared::with`].
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the state, then wakes whom that concerns, without the lock.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = work(&mut state);
        let (driver, others) = state.take_few_wakes();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        others.into_iter().for_each(Waker::wake);
        result
    }

    /// Ends the connection; the first reason stays, and is given back.
    pub(crate) fn close(&self, reason: CloseReason) -> CloseReason {
        let reason = self.with(|state| {
            state.close(reason.clone());
            state.closed().cloned().unwrap_or(reason)
        });
        self.ended.notify_waiters();
        reason
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        let (streams, unread, unsent) = state.load();
        f.debug_struct("Connection")
            .field("streams", &streams)
            .field("unread", &unread)
            .field("unsent", &unsent)
            .field("closed", &state.closed())
            .finish()
    }
}
