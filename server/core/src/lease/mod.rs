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
    /// While this server leads, and in which term: one that lost its lead for a moment did not
    /// hear what another one heard in that.
    tracker: Option<(u64, Tracker)>,
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
        if let Some((_, tracker)) = &mut inner.tracker {
            tracker.forget(node);
        }
    }

    /// How many leases are held.
    pub(crate) fn held(&self) -> usize {
        let inner = self.lock();
        inner.tracker.as_ref().map_or(0, |(_, held)| held.len())
    }

    /// Whether this server takes heartbeats as the leader.
    pub(crate) fn leads(&self) -> bool {
        self.lock().tracker.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
