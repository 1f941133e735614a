//! Tasks that are used again.
//!
//! To begin a task and to end it costs more than all that a small request has done in it. So
//! one that has done its work waits for the next, and those that were not needed for a while
//! end: whoever is idle has none.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::sleep;

/// Tasks that wait at most.
const MOST: usize = 64;
/// How long those wait that are not needed, at least; at most twice that.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tasks for work of one kind.
pub(super) struct Crew<W> {
    idle: RefCell<Vec<Rc<Seat<W>>>>,
    /// The fewest that were idle since the last look: so many were not needed.
    unneeded: Cell<usize>,
    /// Nobody gives work any more.
    over: Cell<bool>,
    looker: RefCell<Option<Waker>>,
}

/// Where a task waits.
struct Seat<W> {
    work: Cell<Option<W>>,
    dismissed: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl<W> Seat<W> {
    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    fn dismiss(&self) {
        self.dismissed.set(true);
        self.wake();
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<Option<W>> {
        if let Some(work) = self.work.take() {
            return Poll::Ready(Some(work));
        }
        if self.dismissed.get() {
            return Poll::Ready(None);
        }
        let mut waker = self.waker.borrow_mut();
        match &mut *waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl<W: 'static> Crew<W> {
    pub(super) fn new() -> Self {
        Self {
            idle: RefCell::default(),
            unneeded: Cell::new(0),
            over: Cell::new(false),
            looker: RefCell::default(),
        }
    }

    /// Has work done, by a task that waits or by a new one; each is told how when it begins.
    pub(super) fn give<D, F>(self: &Rc<Self>, work: W, how: &D)
    where
        D: Fn(W) -> F + Clone + 'static,
        F: Future<Output = ()> + 'static,
    {
        let mut idle = self.idle.borrow_mut();
        let Some(seat) = idle.pop() else {
            drop(idle);
            tokio::task::spawn_local(self.clone().run(work, how.clone()));
            return;
        };
        self.unneeded.set(self.unneeded.get().min(idle.len()));
        seat.work.set(Some(work));
        seat.wake();
    }

    /// Ends those that wait, now and later.
    pub(super) fn end(&self) {
        self.over.set(true);
        self.dismiss(usize::MAX);
    }

    /// Ends those that are not needed. Never ready.
    pub(super) async fn shrink(&self) {
        loop {
            poll_fn(|cx| self.poll_any(cx)).await;
            self.unneeded.set(self.idle.borrow().len());
            sleep(PATIENCE).await;
            self.dismiss(self.unneeded.get());
        }
    }

    async fn run<F>(self: Rc<Self>, mut work: W, how: impl Fn(W) -> F)
    where
        F: Future<Output = ()>,
    {
        let seat = Rc::new(Seat {
            work: Cell::new(None),
            dismissed: Cell::new(false),
            waker: RefCell::default(),
        });
        loop {
            how(work).await;
            if !self.take_seat(&seat) {
                return;
            }
            match poll_fn(|cx| seat.poll(cx)).await {
                Some(next) => work = next,
                None => return,
            }
        }
    }

    /// Lets a task wait; `false` if there are enough that do.
    fn take_seat(&self, seat: &Rc<Seat<W>>) -> bool {
        let mut idle = self.idle.borrow_mut();
        if self.over.get() || idle.len() >= MOST {
            return false;
        }
        idle.push(seat.clone());
        drop(idle);
        let looker = self.looker.borrow_mut().take();
        if let Some(looker) = looker {
            looker.wake();
        }
        true
    }

    /// Ready when there are some that wait.
    fn poll_any(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.idle.borrow().is_empty() {
            return Poll::Ready(());
        }
        let mut looker = self.looker.borrow_mut();
        if !(looker.as_ref()).is_some_and(|looker| looker.will_wake(cx.waker())) {
            *looker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Those that have waited longest end first.
    fn dismiss(&self, count: usize) {
        let mut idle = self.idle.borrow_mut();
        let count = count.min(idle.len());
        let gone: Vec<_> = idle.drain(..count).collect();
        drop(idle);
        gone.iter().for_each(|seat| seat.dismiss());
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::{LocalSet, yield_now};

    use super::*;

    /// Held by each task that lives.
    #[derive(Clone, Default)]
    struct Tasks(Rc<()>);

    impl Tasks {
        fn live(&self) -> usize {
            Rc::strong_count(&self.0) - 1
        }
    }

    type Work = tokio::sync::oneshot::Receiver<()>;

    /// Gives `count` pieces of work at once, and lets them be done.
    async fn do_all(
        crew: &Rc<Crew<Work>>,
        how: &(impl Fn(Work) -> std::pin::Pin<Box<dyn Future<Output = ()>>> + Clone + 'static),
        count: usize,
    ) {
        let mut done = Vec::new();
        for _ in 0..count {
            let (tell, told) = tokio::sync::oneshot::channel();
            crew.give(told, how);
            done.push(tell);
        }
        yield_now().await;
        drop(done);
        for _ in 0..20 {
            yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_are_used_again_and_end_when_they_are_not_needed() {
        let whole = LocalSet::new();
        let test = async {
            let crew = Rc::new(Crew::<Work>::new());
            let (tasks, worked) = (Tasks::default(), Rc::new(Cell::new(0)));
            let (held, count) = (tasks.clone(), worked.clone());
            let how = move |work: Work| {
                let (_held, count) = (held.clone(), count.clone());
                let future: std::pin::Pin<Box<dyn Future<Output = ()>>> = Box::pin(async move {
                    let _ = work.await;
                    count.set(count.get() + 1);
                });
                future
            };
            let shrinking = tokio::task::spawn_local({
                let crew = crew.clone();
                async move { crew.shrink().await }
            });
            let before = tasks.live(); // of `how` itself
            do_all(&crew, &how, 8).await;
            assert_eq!((worked.get(), tasks.live() - before), (8, 8));
            do_all(&crew, &how, 3).await;
            assert_eq!((worked.get(), tasks.live() - before), (11, 8));
            // Three of them are needed again and again.
            for _ in 0..8 {
                sleep(PATIENCE / 2).await;
                do_all(&crew, &how, 3).await;
            }
            assert_eq!((worked.get(), tasks.live() - before), (35, 3));
            sleep(PATIENCE * 3).await;
            assert_eq!(tasks.live(), before);
            do_all(&crew, &how, 2 * MOST).await;
            assert_eq!(tasks.live() - before, MOST);
            crew.end();
            do_all(&crew, &how, 0).await;
            assert_eq!(tasks.live(), before);
            shrinking.abort();
        };
        whole.run_until(test).await;
    }
}
