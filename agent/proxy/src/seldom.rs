//! A future that is polled only when it was woken.
//!
//! A connection's task waits for its end beside all that it does. Who polls that with each request
//! asks a watch and a timer each time for what has not changed in hours.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::task::AtomicWaker;

/// See the module. Once it is ready it is not polled any more, and stays pending.
pub(crate) struct Seldom<F> {
    future: F,
    woken: Arc<Woken>,
    waker: Waker,
    /// The task that is woken.
    task: Option<Waker>,
}

#[derive(Default)]
struct Woken {
    is: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl<F: Future + Unpin> Seldom<F> {
    pub(crate) fn new(future: F) -> Self {
        let woken = Arc::new(Woken {
            is: AtomicBool::new(true),
            task: AtomicWaker::new(),
        });
        Self {
            future,
            waker: woken.clone().into(),
            woken,
            task: None,
        }
    }

    /// Polls it if it was woken, and has the task woken when it is.
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<F::Output> {
        let is_known = (self.task.as_ref()).is_some_and(|task| task.will_wake(cx.waker()));
        if is_known && !self.woken.is.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        // Who is woken takes the waker out, so it is put there before it is asked who was.
        self.woken.task.register(cx.waker());
        self.task = Some(cx.waker().clone());
        if !self.woken.is.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        Pin::new(&mut self.future).poll(&mut Context::from_waker(&self.waker))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn it_is_polled_when_it_was_woken_and_only_then() {
        let (notify, mut polls) = (Notify::new(), 0);
        let mut inner = pin!(async {
            notify.notified().await;
            notify.notified().await;
        });
        let counted = poll_fn(|cx| {
            polls += 1;
            inner.as_mut().poll(cx)
        });
        let mut seldom = Seldom::new(counted);
        let cx = Context::from_waker(Waker::noop());
        for _ in 0..10 {
            assert!(seldom.poll(&cx).is_pending());
        }
        notify.notify_one();
        for _ in 0..10 {
            assert!(seldom.poll(&cx).is_pending());
        }
        notify.notify_one();
        assert!(seldom.poll(&cx).is_ready());
        drop(seldom);
        assert_eq!(polls, 3);
    }

    #[tokio::test]
    async fn its_task_is_woken_also_when_that_is_another() {
        let notify = Arc::new(Notify::new());
        let waits = notify.clone();
        let mut seldom = Seldom::new(Box::pin(async move { waits.notified().await }));
        let first = poll_fn(|cx| Poll::Ready(seldom.poll(cx).is_pending())).await;
        assert!(first);
        let task = tokio::spawn(poll_fn(move |cx| seldom.poll(cx)));
        tokio::task::yield_now().await;
        notify.notify_one();
        assert!(task.await.is_ok());
    }
}
