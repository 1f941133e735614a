//! Ends a task from elsewhere.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll, Waker};

/// Ends a task that sends a body.
#[derive(Default)]
pub(super) struct Abort {
    fired: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Abort {
    pub(super) fn fire(&self) {
        self.fired.set(true);
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if self.fired.get() {
            return Poll::Ready(());
        }
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}
