//! Who is heard. Heartbeats live in the leader's memory; only a change of a node's state is
//! committed.

mod tick;
mod tracker;

pub(crate) use tick::tick;
pub(crate) use tracker::Tracker;

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Nodes that wait to be passed on; more are dropped, and come again with their next heartbeat.
const MAX_HEARD: usize = 100_000;

/// What this server hears, and, while it leads, whose lease it holds.
#[derive(Debug, Default)]
pub(crate) struct Leases(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Heard since the last tick.
    heard: BTreeSet<String>,
    /// While this server leads.
    tracker: Option<Tracker>,
}

impl Leases {
    /// A node was heard, here or by another server.
    pub(crate) fn heard(&self, node: &str) {
        let mut inner = self.lock();
        if inner.heard.len() < MAX_HEARD && !inner.heard.contains(node) {
            inner.heard.insert(node.to_owned());
        }
    }

    /// A node is gone.
    pub(crate) fn forget(&self, node: &str) {
        let mut inner = self.lock();
        inner.heard.remove(node);
        if let Some(tracker) = &mut inner.tracker {
            tracker.forget(node);
        }
    }

    /// How many leases are held.
    pub(crate) fn held(&self) -> usize {
        self.lock().tracker.as_ref().map_or(0, Tracker::len)
    }

    /// Whether this server takes heartbeats as the leader.
    pub(crate) fn leads(&self) -> bool {
        self.lock().tracker.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
