//! Connections that many share.
//!
//! One is enough until its streams are all in use; then there is another. Who
//! comes while one is being made waits for that one.

use std::cell::RefCell;
use std::future::Future;

use futures::future::{FutureExt, LocalBoxFuture, Shared};
use tokio::time::Instant;

use super::DialError;

/// Connections of a pool at most.
const MOST: usize = 8;

/// A connection that many share.
pub(crate) trait Warm: Clone {
    /// Nothing can begin on it any more.
    fn is_ended(&self) -> bool;
    /// Something can begin on it without waiting for an end.
    fn has_room(&self) -> bool;
    /// How much runs on it.
    fn load(&self) -> usize;
}

/// The connections to one place.
pub(crate) struct WarmPool<C> {
    ready: RefCell<Vec<Kept<C>>>,
    /// Wakes who waits for the one that is being made.
    making: RefCell<Option<Making>>,
}

struct Kept<C> {
    connection: C,
    used: Instant,
}

/// The result is the failure, if it was one.
type Making = Shared<LocalBoxFuture<'static, Option<DialError>>>;

impl<C> Default for WarmPool<C> {
    fn default() -> Self {
        Self {
            ready: RefCell::default(),
            making: RefCell::default(),
        }
    }
}

impl<C: Warm> WarmPool<C> {
    /// A connection with room, if there is one.
    pub(crate) fn ready(&self) -> Option<C> {
        self.take()
    }

    /// A connection with room; makes one where there is none.
    pub(crate) async fn get<F>(&self, dial: impl FnOnce() -> F) -> Result<C, DialError>
    where
        F: Future<Output = Result<C, DialError>>,
    {
        let mut dial = Some(dial);
        loop {
            if let Some(connection) = self.take() {
                return Ok(connection);
            }
            let making = self.making.borrow().clone();
            if let Some(making) = making {
                // `None`: it was made, or whoever made it went away.
                if let Some(error) = making.await {
                    return Err(error);
                }
                continue;
            }
            let Some(dial) = dial.take() else {
                return Err(DialError::other(
                    "its connections end as soon as they are made",
                ));
            };
            let (told, tells) = tokio::sync::oneshot::channel::<DialError>();
            let making = async move { tells.await.ok() }.boxed_local().shared();
            *self.making.borrow_mut() = Some(making);
            let forget = Forget(&self.making);
            let made = dial().await;
            drop(forget);
            match made {
                Ok(connection) => {
                    self.ready.borrow_mut().push(Kept {
                        connection: connection.clone(),
                        used: Instant::now(),
                    });
                    return Ok(connection);
                }
                Err(error) => {
                    let _ = told.send(error.clone());
                    return Err(error);
                }
            }
        }
    }

    fn take(&self) -> Option<C> {
        let mut ready = self.ready.borrow_mut();
        ready.retain(|kept| !kept.connection.is_ended());
        let full = ready.len() >= MOST;
        let found = match ready.iter_mut().position(|kept| kept.connection.has_room()) {
            Some(at) => ready.get_mut(at),
            None if full => ready.iter_mut().min_by_key(|kept| kept.connection.load()),
            None => None,
        }?;
        found.used = Instant::now();
        Some(found.connection.clone())
    }

    /// Lets go of what nobody used since then.
    pub(crate) fn close_idle_since(&self, before: Instant) {
        self.ready
            .borrow_mut()
            .retain(|kept| kept.used > before || kept.connection.load() > 0);
    }
}

/// Whoever makes a connection may be dropped while doing so.
struct Forget<'a>(&'a RefCell<Option<Making>>);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.borrow_mut().take();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::Cell;
    use std::rc::Rc;

    use super::super::DialKind;
    use super::*;

    #[derive(Clone, Default)]
    struct Fake(Rc<(Cell<usize>, Cell<bool>)>);

    impl Warm for Fake {
        fn is_ended(&self) -> bool {
            self.0.1.get()
        }
        fn has_room(&self) -> bool {
            self.0.0.get() < 2
        }
        fn load(&self) -> usize {
            self.0.0.get()
        }
    }

    #[tokio::test]
    async fn one_is_made_for_all_who_wait() {
        let pool = WarmPool::default();
        let made = Cell::new(0);
        let get = || {
            pool.get(|| async {
                tokio::task::yield_now().await;
                made.set(made.get() + 1);
                Ok(Fake::default())
            })
        };
        let (a, b, c) = tokio::join!(get(), get(), get());
        assert!(a.is_ok() && b.is_ok() && c.is_ok());
        assert_eq!(made.get(), 1);
        a.unwrap().0.0.set(2);
        get().await.unwrap();
        assert_eq!(made.get(), 2);
    }

    #[tokio::test]
    async fn a_failure_is_everybodys_and_an_end_is_noticed() {
        let pool = WarmPool::<Fake>::default();
        let made = Cell::new(0);
        let fail = || {
            pool.get(|| async {
                tokio::task::yield_now().await;
                made.set(made.get() + 1);
                Err(DialError {
                    kind: DialKind::Refused,
                    what: "no".into(),
                })
            })
        };
        let (a, b) = tokio::join!(fail(), fail());
        assert!(a.is_err() && b.is_err());
        assert_eq!(made.get(), 1);
        let first = pool.get(|| async { Ok(Fake::default()) }).await.unwrap();
        first.0.1.set(true);
        let second = pool.get(|| async { Ok(Fake::default()) }).await.unwrap();
        assert!(!second.is_ended());
    }

    #[tokio::test]
    async fn who_gives_up_does_not_hold_up_others() {
        let pool = WarmPool::<Fake>::default();
        let mut first = Box::pin(pool.get(std::future::pending));
        let mut second = Box::pin(pool.get(|| async { Ok(Fake::default()) }));
        assert!(futures::poll!(&mut first).is_pending());
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        assert!(second.await.is_ok());
    }
}
