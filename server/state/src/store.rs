//! The present state, and who waits for the next.
//!
//! A watch is registered by table, part of a table, row or fact, together with
//! the version that its holder has read. Registering looks at the state under
//! the lock that a commit takes too: a change between the read and the
//! registration wakes the watch at once, so none is missed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll};

use mesh_model::Version;
use tokio::sync::oneshot;

use crate::apply::Commit;
use crate::command::Envelope;
use crate::key::{RowKey, Topic, WatchKey};
use crate::outcome::Outcome;
use crate::state::State;
use crate::touched::Touched;

/// Holds the present state; clones are the same store.
#[derive(Clone, Debug, Default)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: RwLock<Arc<State>>,
    /// Held while the next state is made: one after the other. Taken first.
    commit: Mutex<()>,
    /// Held while a state is published and while a watch is registered.
    watches: Mutex<Watches>,
}

#[derive(Debug, Default)]
struct Watches {
    next: u64,
    waiting: HashMap<u64, Waiting>,
    by_key: BTreeMap<WatchKey, HashSet<u64>>,
}

#[derive(Debug)]
struct Waiting {
    keys: Vec<WatchKey>,
    /// Only a later version wakes it: this server may be behind the one that
    /// the version was read on.
    since: u64,
    wake: oneshot::Sender<Version>,
}

impl Store {
    /// A store that begins with this state.
    pub fn new(state: State) -> Self {
        let store = Self::default();
        *write(&store.shared.state) = Arc::new(state);
        store
    }

    /// The present state.
    pub fn state(&self) -> Arc<State> {
        self.shared.present()
    }

    /// Applies commands in their order, publishes the state that they make,
    /// and wakes who waits for what they touched.
    pub fn apply(&self, commands: &[Envelope]) -> Vec<Outcome> {
        let _commit = self.shared.commit_lock();
        let mut state = State::clone(&self.shared.present());
        let Commit { outcomes, touched } = state.apply(commands);
        self.shared.publish(state, &touched);
        outcomes
    }

    /// Puts another state in the place of this one, as a snapshot that came
    /// from the leader, and wakes everyone.
    pub fn install(&self, state: State) {
        let _commit = self.shared.commit_lock();
        let touched = Touched::everything(state.version());
        self.shared.publish(state, &touched);
    }

    /// Waits until something of this changes after `since`: a version that was
    /// read, or an index that [`State::index`] gave for the same keys. Ready at
    /// once when it has already, and when `since` is of another epoch. A
    /// version that this server has not reached yet is waited for.
    ///
    /// Without a key it waits until everything is replaced.
    pub fn watch(&self, keys: &[WatchKey], since: &Version) -> Watch {
        let mut watches = self.shared.lock();
        let state = self.shared.present();
        let (wake, woken) = oneshot::channel();
        let newer = !keys.is_empty() && state.index(keys) > since.index.max(1);
        if newer || state.epoch != since.epoch {
            let _ = wake.send(state.version());
            return Watch {
                woken,
                registered: None,
            };
        }
        let id = watches.register(keys, since.index, wake);
        Watch {
            woken,
            registered: Some((id, self.shared.clone())),
        }
    }

    /// How many watches wait: for metrics and tests.
    pub fn watch_count(&self) -> usize {
        self.shared.lock().waiting.len()
    }
}

impl Shared {
    fn present(&self) -> Arc<State> {
        self.state
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn publish(&self, state: State, touched: &Touched) {
        let mut watches = self.lock();
        let before = std::mem::replace(&mut *write(&self.state), Arc::new(state));
        let woken = watches.wake(touched);
        drop(watches);
        for waiting in woken {
            // It may be a watch that nobody awaits any more.
            let _ = waiting.wake.send(touched.version.clone());
        }
        // What nobody reads any more is freed here, outside of the locks.
        drop(before);
    }

    fn commit_lock(&self) -> MutexGuard<'_, ()> {
        self.commit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Watches> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(state: &RwLock<Arc<State>>) -> impl std::ops::DerefMut<Target = Arc<State>> + '_ {
    state.write().unwrap_or_else(PoisonError::into_inner)
}

impl Watches {
    fn register(&mut self, keys: &[WatchKey], since: u64, wake: oneshot::Sender<Version>) -> u64 {
        let id = self.next;
        self.next += 1;
        for key in keys {
            self.by_key.entry(key.clone()).or_default().insert(id);
        }
        let keys = keys.to_vec();
        self.waiting.insert(id, Waiting { keys, since, wake });
        id
    }

    fn remove(&mut self, id: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&id)?;
        for key in &waiting.keys {
            if let Some(ids) = self.by_key.get_mut(key) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.by_key.remove(key);
                }
            }
        }
        Some(waiting)
    }

    /// Takes out the watches that wake. The work grows with what was touched
    /// and who waits for it, not with who waits.
    fn wake(&mut self, touched: &Touched) -> Vec<Waiting> {
        let mut ids = BTreeSet::new();
        if touched.is_everything() {
            ids.extend(self.waiting.keys().copied());
            return ids.into_iter().filter_map(|id| self.remove(id)).collect();
        }
        for row in touched.rows() {
            for key in WatchKey::of_row(row) {
                ids.extend(self.by_key.get(&key).into_iter().flatten());
            }
            if let RowKey::Intention(pair) = row
                && !pair.destination.is_exact()
            {
                ids.extend(self.watching_intentions(row));
            }
        }
        ids.retain(|id| {
            self.waiting
                .get(id)
                .is_some_and(|waiting| waiting.since < touched.version.index)
        });
        ids.into_iter().filter_map(|id| self.remove(id)).collect()
    }

    /// Those who wait for the intentions of a service that `row` covers.
    fn watching_intentions(&self, row: &RowKey) -> Vec<u64> {
        let first = WatchKey::Topic(Topic::Intentions(mesh_model::Key::new("", "")));
        self.by_key
            .range(first..)
            .take_while(|(key, _)| matches!(key, WatchKey::Topic(Topic::Intentions(_))))
            .filter(|(key, _)| key.covers(row))
            .flat_map(|(_, ids)| ids.iter().copied())
            .collect()
    }
}

/// A change that is waited for; dropping it ends the wait.
#[derive(Debug)]
#[must_use = "a watch does nothing unless it is awaited"]
pub struct Watch {
    woken: oneshot::Receiver<Version>,
    /// Holds what has the sender, so that it cannot go away unsent.
    registered: Option<(u64, Arc<Shared>)>,
}

impl Future for Watch {
    /// The version that has the change.
    type Output = Version;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Version> {
        match Pin::new(&mut self.woken).poll(cx) {
            Poll::Ready(Ok(version)) => Poll::Ready(version),
            // Not sent: cannot be, since this holds the registry. Look again.
            Poll::Ready(Err(_)) => Poll::Ready(Version::default()),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some((id, shared)) = self.registered.take() {
            shared.lock().remove(id);
        }
    }
}
