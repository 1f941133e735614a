//! The log: votes and entries, on disk before anything is acknowledged.
//!
//! One thread does all writing. It takes whatever waits, commits it at once, and
//! then tells each that waited: one fsync for all of them. Its first error is its
//! last act: after a failed fsync nobody knows what is on the disk, so the node
//! stops, says so, and recovers from the disk when it is started again.
//!
//! What was committed is also written, but waits for the next commit, or for a
//! moment of quiet: losing it costs a restarted node nothing but hearing it from
//! the leader again.

mod db;
mod recent;
mod record;

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, EntryPayload, LogState, RaftLogReader};
use tokio::sync::oneshot;

pub use db::LogBackend;
pub(crate) use db::panic_text;

use crate::error::LogError;
use crate::health::Reporter;
use crate::types::{Entry, LogId, StorageError, StorageIOError, TypeConfig, Vote};
use db::{Change, LogDb, LogMeta};
use recent::Recent;

/// How long the committed index waits for another commit to go along with.
const QUIET: Duration = Duration::from_millis(50);
/// Changes in one commit.
const GROUP: usize = 1024;

/// The log of one node.
#[derive(Clone)]
pub(crate) struct LogStore {
    shared: Arc<Shared>,
    io: mpsc::Sender<Job>,
}

struct Shared {
    /// None once the log is closed.
    db: RwLock<Option<LogDb>>,
    state: Mutex<State>,
    file: PathBuf,
    append_bytes: usize,
}

#[derive(Default)]
struct State {
    meta: LogMeta,
    recent: Recent,
}

struct Job {
    change: Change,
    done: Option<oneshot::Sender<Result<(), LogError>>>,
}

/// How much a log keeps and gives at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogLimits {
    /// Bytes of recent entries in memory.
    pub(crate) cache_bytes: usize,
    /// Bytes of entries in one append message.
    pub(crate) append_bytes: usize,
}

impl LogStore {
    pub(crate) fn open(
        dir: &Path,
        node: u64,
        limits: LogLimits,
        health: Reporter,
    ) -> Result<Self, LogError> {
        let (db, meta) = LogDb::open(dir, node)?;
        Self::run(db, meta, dir.join("log.redb"), limits, health)
    }

    /// The vote and the last entry that it has.
    pub(crate) fn ends_with(&self) -> (Option<Vote>, Option<LogId>) {
        let state = self.shared.state();
        (state.meta.vote, state.meta.last)
    }

    /// A log on a storage backend that the caller gives.
    pub(crate) fn open_backend(
        backend: LogBackend,
        name: PathBuf,
        node: u64,
        limits: LogLimits,
        health: Reporter,
    ) -> Result<Self, LogError> {
        let (db, meta) = LogDb::open_backend(backend, name.clone(), node)?;
        Self::run(db, meta, name, limits, health)
    }

    fn run(
        db: LogDb,
        meta: LogMeta,
        file: PathBuf,
        limits: LogLimits,
        health: Reporter,
    ) -> Result<Self, LogError> {
        let shared = Arc::new(Shared {
            db: RwLock::new(Some(db)),
            state: Mutex::new(State {
                meta,
                recent: Recent::new(limits.cache_bytes),
            }),
            file,
            append_bytes: limits.append_bytes,
        });
        let (io, jobs) = mpsc::channel();
        let writer = Writer {
            shared: Arc::clone(&shared),
            health,
            failure: None,
            committed: None,
        };
        thread::Builder::new()
            .name("raft-log".to_owned())
            .spawn(move || writer.run(&jobs))
            .map_err(|e| shared.io_error(e.to_string()))?;
        Ok(Self { shared, io })
    }

    /// Closes the file when all that was begun is done. What is asked of the log
    /// afterwards fails.
    pub(crate) async fn close(&self) {
        let shared = Arc::clone(&self.shared);
        // A job that is answered comes after all before it.
        let committed = self.shared.state().meta.committed;
        let _ = self.change(Change::Committed(committed)).await;
        let _ = tokio::task::spawn_blocking(move || {
            *shared.db.write().unwrap_or_else(PoisonError::into_inner) = None;
        })
        .await;
    }

    async fn change(&self, change: Change) -> Result<(), LogError> {
        let (done, answer) = oneshot::channel();
        let job = Job {
            change,
            done: Some(done),
        };
        let closed = || self.shared.io_error("it is closed".to_owned());
        self.io.send(job).map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }
}

/// The I/O thread.
struct Writer {
    shared: Arc<Shared>,
    health: Reporter,
    failure: Option<LogError>,
    /// A committed index that is not yet on disk.
    committed: Option<Change>,
}

impl Writer {
    fn run(mut self, jobs: &mpsc::Receiver<Job>) {
        loop {
            let first = if self.committed.is_some() {
                jobs.recv_timeout(QUIET)
            } else {
                jobs.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            let mut group: Vec<Job> = Vec::new();
            match first {
                Ok(job) => group.push(job),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.commit(Vec::new());
                    return;
                }
            }
            let quiet = group.is_empty();
            while group.len() < GROUP {
                let Ok(job) = jobs.try_recv() else { break };
                group.push(job);
            }
            // Only the last committed index counts, and nobody waits for it.
            let (later, now): (Vec<Job>, Vec<Job>) = group
                .into_iter()
                .partition(|job| job.done.is_none() && matches!(job.change, Change::Committed(_)));
            if let Some(job) = later.into_iter().next_back() {
                self.committed = Some(job.change);
            }
            if quiet || !now.is_empty() {
                self.commit(now);
            }
        }
    }

    fn commit(&mut self, group: Vec<Job>) {
        let mut changes: Vec<Change> = self.committed.take().into_iter().collect();
        let mut waiting = Vec::new();
        for job in group {
            changes.push(job.change);
            waiting.extend(job.done);
        }
        if changes.is_empty() {
            return;
        }
        let result = match &self.failure {
            Some(e) => Err(e.clone()),
            None => self.shared.with_db(|db| db.commit(changes.iter())),
        };
        match &result {
            Ok(()) => self.shared.state().take(changes),
            Err(e) => {
                if self.failure.is_none() {
                    self.health.failed(&format!(
                        "{e}; it takes no writes until it is started again"
                    ));
                }
                self.failure = Some(e.clone());
            }
        }
        for done in waiting {
            let _ = done.send(result.clone());
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_db<T>(&self, f: impl FnOnce(&LogDb) -> Result<T, LogError>) -> Result<T, LogError> {
        match &*self.db.read().unwrap_or_else(PoisonError::into_inner) {
            Some(db) => f(db),
            None => Err(self.io_error("it is closed".to_owned())),
        }
    }

    fn io_error(&self, reason: String) -> LogError {
        LogError::Io {
            file: self.file.clone(),
            reason,
        }
    }

    async fn read(
        self: &Arc<Self>,
        start: u64,
        end: u64,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        let recent = {
            let state = self.state();
            let end = end.min(state.meta.last.map_or(0, |id| id.index.saturating_add(1)));
            if start >= end {
                return Ok(Vec::new());
            }
            state.recent.read(start, end, max_bytes)
        };
        if let Some(entries) = recent {
            return Ok(entries);
        }
        let this = Arc::clone(self);
        let read = move || this.with_db(|db| db.read(start, end, max_bytes));
        match tokio::task::spawn_blocking(read).await {
            Ok(Ok(entries)) => Ok(entries),
            Ok(Err(e)) => Err(StorageIOError::read_log_at_index(start, AnyError::new(&e)).into()),
            Err(e) => Err(StorageIOError::read_logs(AnyError::new(&e)).into()),
        }
    }
}

impl State {
    /// Follows what is now on disk.
    fn take(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Append(entries) => {
                    if let Some(entry) = entries.last() {
                        self.meta.last = Some(entry.log_id);
                    }
                    for entry in entries {
                        self.recent.push(entry);
                    }
                }
                Change::Vote(vote) => self.meta.vote = Some(vote),
                // Kept by `save_committed`, ahead of the disk.
                Change::Committed(_) => {}
                // `last` was moved by `truncate`, which knows the id before.
                Change::Truncate(from) => self.recent.truncate(from),
                Change::Purge(id) => {
                    self.recent.purge(id.index);
                    self.meta.purged = Some(id);
                    if self.meta.last < Some(id) {
                        self.meta.last = Some(id);
                    }
                }
            }
        }
    }
}

/// Reads the log while it is written.
#[derive(Clone)]
pub(crate) struct LogReader(Arc<Shared>);

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let (start, end) = bounds(&range);
        self.0.read(start, end, usize::MAX).await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        self.0.read(start, end, self.0.append_bytes).await
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let (start, end) = bounds(&range);
        self.shared.read(start, end, usize::MAX).await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        self.shared.read(start, end, self.shared.append_bytes).await
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let state = self.shared.state();
        Ok(LogState {
            last_purged_log_id: state.meta.purged,
            last_log_id: state.meta.last,
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader(Arc::clone(&self.shared))
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        self.change(Change::Vote(*vote))
            .await
            .map_err(|e| StorageIOError::write_vote(AnyError::new(&e)).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.shared.state().meta.vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.shared.state().meta.committed = committed;
        // A writer that is gone is found by the next append.
        let _ = self.io.send(Job {
            change: Change::Committed(committed),
            done: None,
        });
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.shared.state().meta.committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<TypeConfig>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        for entry in &entries {
            if let EntryPayload::Normal(batch) = &entry.payload {
                batch.proposed.raise();
            }
        }
        // openraft 0.9 waits for the callback before it goes on, so nothing is lost
        // by waiting here; and what is readable is then also durable.
        match self.change(Change::Append(entries)).await {
            Ok(()) => {
                callback.log_io_completed(Ok(()));
                Ok(())
            }
            Err(e) => Err(StorageIOError::write_logs(AnyError::new(&e)).into()),
        }
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let before = match log_id.index.checked_sub(1) {
            None => None,
            Some(index) => match self.shared.read(index, log_id.index, 1).await?.first() {
                Some(entry) => Some(entry.log_id),
                None => self.shared.state().meta.purged,
            },
        };
        self.change(Change::Truncate(log_id.index))
            .await
            .map_err(|e| StorageError::from(StorageIOError::write_logs(AnyError::new(&e))))?;
        self.shared.state().meta.last = before;
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.change(Change::Purge(log_id))
            .await
            .map_err(|e| StorageIOError::write_logs(AnyError::new(&e)).into())
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(&i) => i,
        Bound::Excluded(&i) => i.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&i) => i.saturating_add(1),
        Bound::Excluded(&i) => i,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

#[cfg(test)]
mod tests;
