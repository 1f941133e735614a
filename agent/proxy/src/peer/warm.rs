//! Connections that many share.
//!
//! One is enough until its streams are all in use; then there is another. Who
//! comes while one is being made waits for that one. What is bulk has
//! connections apart from all else, as far as it is known, and as many as the
//! bound allows (see [`Carried`]).

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;

use futures::future::{FutureExt, LocalBoxFuture, Shared};
use tokio::time::Instant;

use super::DialError;
use super::carried::{BulkCount, Carried};

/// Connections of a pool at most.
const MOST: usize = 8;
/// Those of them that bulk may have to itself.
const MOST_BULK: usize = 6;
/// Bulk streams of a connection before another is made: fewer than could hold
/// all that a connection may have unread, if nobody reads them.
const BULK_TOGETHER: usize = 7;

/// A connection that many share.
pub(crate) trait Warm: Clone {
    /// Nothing can begin on it any more.
    fn is_ended(&self) -> bool;
    /// Something can begin on it without waiting for an end.
    fn has_room(&self) -> bool;
    /// How much runs on it.
    fn load(&self) -> usize;
    /// So much of it is held by what nobody reads that others should go elsewhere.
    fn is_clogged(&self) -> bool {
        false
    }
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
    bulk: BulkCount,
}

impl<C: Warm> Kept<C> {
    fn new(connection: C) -> Self {
        Self {
            connection,
            used: Instant::now(),
            bulk: Rc::default(),
        }
    }

    /// Nobody who begins on it waits for bulk.
    fn is_light(&self) -> bool {
        self.bulk.get() == 0 && !self.connection.is_clogged()
    }

    /// Bulk may begin on it, and disturbs none but bulk.
    fn takes_bulk(&self) -> bool {
        let apart = self.bulk.get() > 0 || self.connection.load() == 0;
        apart && self.bulk.get() < BULK_TOGETHER && !self.connection.is_clogged()
    }
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
    /// A connection that suits, if there is one. `bulk`: it is known that much will pass.
    pub(crate) fn ready(&self, bulk: bool) -> Option<(C, Carried)> {
        let mut ready = self.ready.borrow_mut();
        ready.retain(|kept| !kept.connection.is_ended());
        let suits = |kept: &Kept<C>| match bulk {
            true => kept.takes_bulk(),
            false => kept.is_light(),
        };
        let found = (ready.iter_mut()).find(|kept| kept.connection.has_room() && suits(kept));
        if let Some(kept) = found {
            return Some(lend(kept, bulk));
        }
        let apart = ready.iter().filter(|kept| kept.bulk.get() > 0).count();
        let full = ready.len() >= MOST || bulk && apart >= MOST_BULK;
        match full {
            true => least(&mut ready, bulk),
            false => None,
        }
    }

    /// A connection that suits; makes one where there is none.
    pub(crate) async fn get<F>(
        &self,
        bulk: bool,
        dial: impl FnOnce() -> F,
    ) -> Result<(C, Carried), DialError>
    where
        F: Future<Output = Result<C, DialError>>,
    {
        let mut dial = Some(dial);
        loop {
            if let Some(found) = self.ready(bulk) {
                return Ok(found);
            }
            let making = self.making.borrow().clone();
            if let Some(making) = making {
                // `None`: it was made, or whoever made it went away.
                match making.await {
                    Some(error) => return self.least(bulk).ok_or(error),
                    None => continue,
                }
            }
            let Some(dial) = dial.take() else {
                // What was made has become another's.
                return self.least(bulk).ok_or_else(|| {
                    DialError::other("its connections end as soon as they are made")
                });
            };
            let (told, tells) = tokio::sync::oneshot::channel::<DialError>();
            let making = async move { tells.await.ok() }.boxed_local().shared();
            *self.making.borrow_mut() = Some(making);
            let forget = Forget(&self.making);
            let made = dial().await;
            drop(forget);
            match made {
                Ok(connection) => {
                    let mut kept = Kept::new(connection);
                    let lent = lend(&mut kept, bulk);
                    self.ready.borrow_mut().push(kept);
                    return Ok(lent);
                }
                Err(error) => {
                    let _ = told.send(error.clone());
                    // One that does not suit is better than none.
                    return self.least(bulk).ok_or(error);
                }
            }
        }
    }

    fn least(&self, bulk: bool) -> Option<(C, Carried)> {
        let mut ready = self.ready.borrow_mut();
        ready.retain(|kept| !kept.connection.is_ended());
        least(&mut ready, bulk)
    }

    /// Lets go of what nobody used since then.
    pub(crate) fn close_idle_since(&self, before: Instant) {
        self.ready
            .borrow_mut()
            .retain(|kept| kept.used > before || kept.connection.load() > 0);
    }
}

fn lend<C: Warm>(kept: &mut Kept<C>, bulk: bool) -> (C, Carried) {
    kept.used = Instant::now();
    let carried = Carried::new(&kept.bulk, bulk, kept.used);
    (kept.connection.clone(), carried)
}

/// The one where whoever comes disturbs, and is disturbed, least: of those with room, if any has.
fn least<C: Warm>(ready: &mut [Kept<C>], bulk: bool) -> Option<(C, Carried)> {
    let order = |kept: &Kept<C>| {
        let connection = &kept.connection;
        let count = kept.bulk.get();
        // Bulk goes to bulk, but not to all of it.
        let shared = bulk && count == 0;
        (!connection.has_room(), shared, count, connection.load())
    };
    let least = ready.iter_mut().min_by_key(|kept| order(kept))?;
    Some(lend(least, bulk))
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
            pool.get(false, || async {
                tokio::task::yield_now().await;
                made.set(made.get() + 1);
                Ok(Fake::default())
            })
        };
        let (a, b, c) = tokio::join!(get(), get(), get());
        assert!(a.is_ok() && b.is_ok() && c.is_ok());
        assert_eq!(made.get(), 1);
        a.unwrap().0.0.0.set(2);
        get().await.unwrap();
        assert_eq!(made.get(), 2);
    }

    #[tokio::test]
    async fn a_failure_is_everybodys_and_an_end_is_noticed() {
        let pool = WarmPool::<Fake>::default();
        let made = Cell::new(0);
        let fail = || {
            pool.get(false, || async {
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
        let get = || pool.get(false, || async { Ok(Fake::default()) });
        let (first, _) = get().await.unwrap();
        first.0.1.set(true);
        let (second, _) = get().await.unwrap();
        assert!(!second.is_ended());
    }

    #[tokio::test]
    async fn who_gives_up_does_not_hold_up_others() {
        let pool = WarmPool::<Fake>::default();
        let mut first = Box::pin(pool.get(false, std::future::pending));
        let mut second = Box::pin(pool.get(false, || async { Ok(Fake::default()) }));
        assert!(futures::poll!(&mut first).is_pending());
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        assert!(second.await.is_ok());
    }

    /// A stream on a connection of the pool, which is begun there; bulk if it is known.
    async fn begin(pool: &WarmPool<Fake>, bulk: bool) -> (Fake, Carried) {
        let got = pool.get(bulk, || async { Ok(Fake::default()) }).await;
        let (connection, carried) = got.unwrap();
        connection.0.0.set(connection.0.0.get() + 1);
        (connection, carried)
    }

    fn is_same(a: &Fake, b: &Fake) -> bool {
        Rc::ptr_eq(&a.0, &b.0)
    }

    #[tokio::test]
    async fn bulk_is_apart() {
        let pool = WarmPool::<Fake>::default();
        let (first, small) = begin(&pool, false).await;
        // Something runs there: bulk gets another.
        let (second, bulk) = begin(&pool, true).await;
        assert!(!is_same(&first, &second));
        let (third, _more) = begin(&pool, false).await;
        assert!(is_same(&first, &third));
        first.0.0.set(0);
        // What shows to be bulk where others began keeps it, and they go.
        small.passed(4 * 1024 * 1024);
        let (fourth, _) = begin(&pool, false).await;
        assert!(!is_same(&first, &fourth) && !is_same(&second, &fourth));
        let (fifth, _) = begin(&pool, true).await;
        assert!(is_same(&first, &fifth));
        // When it is over, they come back to the first.
        drop((small, bulk));
        first.0.0.set(0);
        let (sixth, _) = begin(&pool, false).await;
        assert!(is_same(&first, &sixth));
        assert_eq!(pool.ready.borrow().len(), 3);
    }

    #[tokio::test]
    async fn one_that_follows_the_other_needs_one() {
        let pool = WarmPool::<Fake>::default();
        for bulk in [true, false, true, true, false] {
            let (connection, carried) = begin(&pool, bulk).await;
            connection.0.0.set(0);
            drop(carried);
        }
        assert_eq!(pool.ready.borrow().len(), 1);
    }

    #[tokio::test]
    async fn bulk_leaves_connections_to_others() {
        let pool = WarmPool::<Fake>::default();
        let mut held = Vec::new();
        for _ in 0..100 {
            let (connection, carried) = begin(&pool, true).await;
            connection.0.0.set(1); // there is always room
            held.push(carried);
        }
        assert_eq!(pool.ready.borrow().len(), MOST_BULK);
        let most = pool.ready.borrow().iter().map(|kept| kept.bulk.get()).max();
        assert_eq!(most, Some(100_usize.div_ceil(MOST_BULK)));
        let (connection, small) = begin(&pool, false).await;
        assert_eq!(connection.load(), 1);
        assert_eq!(small_count(&pool), 1);
        // And where there are no more, what there is must do.
        small.set_bulk(true);
        for _ in 0..3 {
            let (_, carried) = begin(&pool, false).await;
            carried.set_bulk(true);
            held.push(carried);
        }
        assert_eq!(pool.ready.borrow().len(), MOST);
    }

    fn small_count(pool: &WarmPool<Fake>) -> usize {
        let ready = pool.ready.borrow();
        ready.iter().filter(|kept| kept.bulk.get() == 0).count()
    }

    #[tokio::test]
    async fn without_another_what_is_there_must_do() {
        let pool = WarmPool::<Fake>::default();
        let (first, bulk) = begin(&pool, true).await;
        let refuse = || async {
            let what = "no".into();
            let kind = DialKind::Refused;
            Err(DialError { kind, what })
        };
        let (got, _) = pool.get(false, refuse).await.unwrap();
        assert!(is_same(&first, &got));
        drop(bulk);
    }
}
