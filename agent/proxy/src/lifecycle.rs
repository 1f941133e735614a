//! How a group of connections begins and ends: those of a listener, a pool, a
//! worker.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};

/// Where a group is in its life; it only goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// All is as usual.
    Running,
    /// What runs is finished; nothing begins.
    Draining,
    /// What still runs is cut.
    Ended,
}

/// A group of connections.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    phase: Cell<Phase>,
    /// The same, for who waits. It is large, and not there before the first member: there may be a
    /// thousand listeners that nobody calls.
    told: OnceCell<watch::Sender<Phase>>,
    members: Cell<usize>,
    /// The most that there were since it was last asked.
    most: Cell<usize>,
    left: Notify,
}

impl Lifecycle {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            phase: Cell::new(Phase::Running),
            told: OnceCell::new(),
            members: Cell::new(0),
            most: Cell::new(0),
            left: Notify::new(),
        })
    }

    /// A connection joins.
    pub(crate) fn join(self: &Rc<Self>) -> Member {
        self.members.set(self.members.get() + 1);
        self.most.set(self.most.get().max(self.members.get()));
        Member(self.clone())
    }

    /// Goes on to a later phase; never back.
    pub(crate) fn enter(&self, phase: Phase) {
        if phase > self.phase.get() {
            self.phase.set(phase);
            if let Some(told) = self.told.get() {
                told.send_replace(phase);
            }
        }
    }

    /// Waits until no connection is left.
    pub(crate) async fn empty(&self) {
        while self.members.get() > 0 {
            self.left.notified().await;
        }
    }

    pub(crate) fn members(&self) -> usize {
        self.members.get()
    }

    /// The most that there were at once since this was last asked.
    pub(crate) fn take_most(&self) -> usize {
        self.most.replace(self.members.get())
    }
}

/// One connection of a group.
#[derive(Debug)]
pub(crate) struct Member(Rc<Lifecycle>);

impl Member {
    /// What phase the group is in, and when it changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Phase> {
        let lifecycle = &self.0;
        let make = || watch::Sender::new(lifecycle.phase.get());
        lifecycle.told.get_or_init(make).subscribe()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let members = self.0.members.get().saturating_sub(1);
        self.0.members.set(members);
        if members == 0 {
            // Whoever waits is on this thread: none can come between its look
            // and its wait.
            self.0.left.notify_waiters();
        }
    }
}

/// How long a connection that came just before the drain has for its first
/// bytes.
pub(crate) const FIRST_BYTES: Duration = Duration::from_millis(500);

/// Waits until a group drains, and what came just before has had its chance.
pub(crate) async fn drains(watch: &mut watch::Receiver<Phase>) {
    reaches(watch, Phase::Draining).await;
    // Boxed, since it comes once: what it needs is not held until then.
    Box::pin(sleep(FIRST_BYTES)).await;
}

/// Waits until then, if there is such a time. Boxed, since it is not for what is
/// made often.
pub(crate) async fn at(when: Option<Instant>) {
    match when {
        Some(when) => Box::pin(sleep_until(when)).await,
        None => std::future::pending().await,
    }
}

/// Waits until a group reaches a phase.
pub(crate) async fn reaches(watch: &mut watch::Receiver<Phase>, phase: Phase) {
    // When the group is gone nobody is left to end anything.
    if watch.wait_for(|now| *now >= phase).await.is_err() {
        std::future::pending::<()>().await;
    }
}
