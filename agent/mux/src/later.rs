//! A task's next turn, after everybody else's.
//!
//! A task that has more to do and wakes itself runs again as soon as the others that are ready
//! have run; but who is woken by it runs then, too, and wakes it, and so on: some fifty turns, in
//! which nobody looks for what has come on other connections meanwhile. Whoever moves much stops
//! after a bounded part, and goes on when that look was had.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use tokio::task::yield_now;

/// See the module. It holds nothing until it is first used.
#[derive(Default)]
pub struct Later(Option<Arc<Turn>>);

struct Turn {
    task: Waker,
    waits: AtomicBool,
}

impl Later {
    /// Whether that turn has yet to come: until then its task is woken for other things only.
    pub fn waits(&self) -> bool {
        let turn = self.0.as_ref();
        turn.is_some_and(|turn| turn.waits.load(Ordering::Relaxed))
    }

    /// Has the task run again when the runtime has looked for what came.
    pub fn call(&mut self, cx: &Context<'_>) {
        let task = cx.waker();
        let turn = match self.0.take() {
            Some(turn) if turn.task.will_wake(task) => turn,
            _ => Arc::new(Turn {
                task: task.clone(),
                waits: AtomicBool::new(false),
            }),
        };
        turn.waits.store(true, Ordering::Relaxed);
        let waker = Waker::from(turn.clone());
        self.0 = Some(turn);
        // It only leaves the waker with the runtime, which calls it in time (or, without
        // a runtime, now).
        let left = pin!(yield_now()).poll(&mut Context::from_waker(&waker));
        debug_assert!(left.is_pending());
    }
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.waits.store(false, Ordering::Relaxed);
        self.task.wake_by_ref();
    }
}

impl fmt::Debug for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Later").field(&self.waits()).finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;
    use std::task::Poll;

    use tokio::io::AsyncReadExt;

    use super::*;

    /// Two tasks that wake each other without end do not keep a third from what has come for it.
    #[tokio::test]
    async fn what_came_is_looked_for_before_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        far.set_nonblocking(true).unwrap();
        let mut far = tokio::net::TcpStream::from_std(far).unwrap();
        let reading = tokio::spawn(async move {
            let mut byte = [0];
            far.read_exact(&mut byte).await.unwrap();
        });
        yield_now().await; // it reads, and waits
        near.write_all(b"x").unwrap();

        let (woken, turns) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let tasks: Arc<Mutex<Vec<Waker>>> = Arc::default();
        for works in [true, false] {
            let (woken, turns, tasks) = (woken.clone(), turns.clone(), tasks.clone());
            let mut later = Later::default();
            tokio::spawn(poll_fn(move |cx| -> Poll<()> {
                woken.fetch_add(1, Ordering::Relaxed);
                if works && !later.waits() {
                    turns.fetch_add(1, Ordering::Relaxed);
                    later.call(cx);
                }
                let mut tasks = tasks.lock().unwrap();
                tasks.drain(..).for_each(Waker::wake);
                tasks.push(cx.waker().clone());
                Poll::Pending
            }));
        }
        reading.await.unwrap();
        assert!(woken.load(Ordering::Relaxed) > 10);
        assert!(turns.load(Ordering::Relaxed) <= 2);
    }
}
