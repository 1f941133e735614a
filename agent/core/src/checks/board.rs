//! The state of every check on this node.
//!
//! What a check printed stays here; only a change of state goes on, to the servers and to disk.
//! States are kept on disk because an instance that was well before a restart of the agent is
//! well after it, until its check says otherwise: a restart must not take it out of the mesh.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_model::{CheckDefinition, CheckKind, Status};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::catalog::View;
use crate::{AgentError, disk};

/// The longest output that is kept, in bytes (Consul's `BufSize`).
const MAX_OUTPUT: usize = 4 * 1024;
/// Changes within this time are one write.
const WRITE_DELAY: Duration = Duration::from_millis(500);

/// The state of every check.
#[derive(Debug)]
pub(crate) struct Board {
    path: PathBuf,
    states: Mutex<HashMap<String, State>>,
    /// Counts the changes of state; outputs do not count.
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    status: Status,
    output: String,
    /// For a TTL check: it was updated.
    updated: Arc<Notify>,
}

impl State {
    fn new(status: Status) -> Self {
        Self {
            status,
            output: String::new(),
            updated: Arc::new(Notify::new()),
        }
    }
}

impl Board {
    /// Reads the states that stand on disk.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, AgentError> {
        let path = data_dir.join("checks.json");
        let kept: BTreeMap<String, Status> = disk::read(&path)?.unwrap_or_default();
        let states = kept
            .into_iter()
            .map(|(id, status)| (id, State::new(status)))
            .collect();
        Ok(Self {
            path,
            states: Mutex::new(states),
            changed: watch::Sender::new(0),
        })
    }

    /// What a check is, and what it printed.
    pub(crate) fn state(&self, check: &CheckDefinition) -> (Status, String) {
        match self.states().get(&check.id) {
            Some(state) => (state.status, state.output.clone()),
            None => (initial(check), String::new()),
        }
    }

    /// What a check is.
    pub(crate) fn status(&self, check: &CheckDefinition) -> Status {
        self.states()
            .get(&check.id)
            .map_or_else(|| initial(check), |state| state.status)
    }

    /// Says what a check is now, and what it printed.
    pub(crate) fn set(&self, id: &str, status: Status, output: &str) {
        let mut states = self.states();
        let state = states
            .entry(id.to_owned())
            .or_insert_with(|| State::new(Status::Critical));
        state.output = bounded(output);
        let changed = state.status != status;
        state.status = status;
        drop(states);
        if changed {
            tracing::info!(check = id, %status, "check changed");
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// Keeps what a check printed though its state stays.
    pub(super) fn set_output(&self, id: &str, output: &str) {
        if let Some(state) = self.states().get_mut(id) {
            state.output = bounded(output);
        }
    }

    /// A TTL check's owner says what it is; its time begins anew.
    pub(crate) fn update(&self, id: &str, status: Status, output: &str) {
        self.set(id, status, output);
        self.updated(id).notify_one();
    }

    /// Has checks run now and not at their next turn: what they ask is known to have just come or
    /// gone.
    pub(crate) fn rerun<'a>(&self, checks: impl IntoIterator<Item = &'a CheckDefinition>) {
        for check in checks {
            // For a TTL check the same word would mean that it was updated.
            if !matches!(check.kind, CheckKind::Ttl { .. }) {
                self.updated(&check.id).notify_one();
            }
        }
    }

    /// Told when a TTL check is updated, and when another is to be run at once.
    pub(super) fn updated(&self, id: &str) -> Arc<Notify> {
        self.states()
            .entry(id.to_owned())
            .or_insert_with(|| State::new(Status::Critical))
            .updated
            .clone()
    }

    /// Word of each change of state.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Begins the states of new checks and forgets those of checks that are gone.
    pub(super) fn follow(&self, view: &View) {
        let mut states = self.states();
        let before = states.len();
        let mut checks = HashMap::new();
        for (_, check) in view.iter().flat_map(|entry| entry.checks()) {
            checks.insert(check.id.as_str(), check);
        }
        states.retain(|id, _| checks.contains_key(id.as_str()));
        let mut changed = states.len() != before;
        for (id, check) in checks {
            if !states.contains_key(id) {
                states.insert(id.to_owned(), State::new(initial(check)));
                changed = true;
            }
        }
        drop(states);
        if changed {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// Writes the states to disk as they change, and once more at the end.
    pub(crate) async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let mut changed = self.watch();
        changed.mark_changed();
        loop {
            let stopped = tokio::select! {
                _ = changed.changed() => false,
                () = stop.cancelled() => true,
            };
            if !stopped {
                let delay = tokio::time::sleep(WRITE_DELAY);
                tokio::select! { () = delay => {}, () = stop.cancelled() => {} }
                changed.mark_unchanged();
            }
            let board = self.clone();
            let written = tokio::task::spawn_blocking(move || board.write()).await;
            if let Ok(Err(error)) = written {
                tracing::error!(file = %self.path.display(), %error, "states of checks cannot be kept");
            }
            if stopped {
                return;
            }
        }
    }

    fn write(&self) -> std::io::Result<()> {
        let states: BTreeMap<String, Status> = self
            .states()
            .iter()
            .map(|(id, state)| (id.clone(), state.status))
            .collect();
        disk::write(&self.path, &serde_json::to_vec(&states)?)
    }

    fn states(&self) -> MutexGuard<'_, HashMap<String, State>> {
        // Each change under the lock is whole, so a poisoned one is as good.
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn initial(check: &CheckDefinition) -> Status {
    check.initial.unwrap_or(Status::Critical)
}

/// At most [`MAX_OUTPUT`] bytes, cut at a character.
pub(super) fn bounded(output: &str) -> String {
    let mut end = output.len().min(MAX_OUTPUT);
    while !output.is_char_boundary(end) {
        end -= 1;
    }
    output.get(..end).unwrap_or_default().to_owned()
}
