//! A way to end something that is under way, from elsewhere on the worker.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll, Waker};

/// Why something was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// An intention denies it now.
    Denied,
    /// The drain's time is over.
    Drained,
    /// The peer's certificate has expired.
    Expired,
    /// This proxy's own certificate has expired.
    OwnExpired,
    /// The peer's certificate is revoked.
    Revoked,
}

impl Cut {
    pub(crate) fn why(self) -> &'static str {
        match self {
            Self::Denied => "cut: an intention denies it now",
            Self::Drained => "cut: the proxy's drain was over",
            Self::Expired => "cut: the peer's certificate has expired",
            Self::OwnExpired => "cut: this proxy's own certificate has expired",
            Self::Revoked => "cut: the peer's certificate is revoked",
        }
    }
}

/// Set once, and waited for by at most one task.
#[derive(Debug, Default)]
pub(crate) struct CutCell {
    cut: Cell<Option<Cut>>,
    waker: RefCell<Option<Waker>>,
}

impl CutCell {
    /// Ends it; the first reason stays.
    pub(crate) fn cut(&self, why: Cut) {
        if self.cut.get().is_none() {
            self.cut.set(Some(why));
        }
        self.wake();
    }

    /// Has who waits for it look at everything again.
    pub(crate) fn wake(&self) {
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn get(&self) -> Option<Cut> {
        self.cut.get()
    }

    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<Cut> {
        if let Some(why) = self.cut.get() {
            return Poll::Ready(why);
        }
        let mut waker = self.waker.borrow_mut();
        match &mut *waker {
            Some(known) if known.will_wake(cx.waker()) => {}
            other => *other = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}
