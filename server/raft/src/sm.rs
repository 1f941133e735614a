//! The machine as openraft sees it: applies committed entries, makes snapshots and
//! takes them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use openraft::storage::RaftStateMachine;
use openraft::{AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot};
use tokio::sync::watch;

use crate::error::{RaftError, SnapshotError};
use crate::health::Reporter;
use crate::log::panic_text;
use crate::machine::{Machine, SnapshotSource};
use crate::snapshot::{Header, SnapshotHandle, SnapshotStore, verify};
use crate::types::{
    Answers, Batch, Entry, LogId, SnapshotMeta, StorageError, StorageIOError, StoredMembership,
    TypeConfig,
};

/// How long a snapshot that could not be written waits before it is tried again.
const RETRY: Duration = Duration::from_secs(5);

pub(crate) struct StateMachine {
    machine: Arc<dyn Machine>,
    snapshots: Arc<SnapshotStore>,
    last: Option<LogId>,
    membership: StoredMembership,
    applied: watch::Sender<u64>,
    health: Reporter,
    stop: watch::Receiver<bool>,
}

impl StateMachine {
    /// Restores the machine from the newest snapshot in `dir`.
    pub(crate) fn open(
        dir: std::path::PathBuf,
        machine: Arc<dyn Machine>,
        applied: watch::Sender<u64>,
        health: Reporter,
        stop: watch::Receiver<bool>,
    ) -> Result<(Self, Arc<SnapshotStore>), RaftError> {
        let (store, newest) = SnapshotStore::open(dir)?;
        let snapshots = Arc::new(store);
        let mut this = Self {
            machine,
            snapshots: Arc::clone(&snapshots),
            last: None,
            membership: StoredMembership::default(),
            applied,
            health,
            stop,
        };
        if let Some((file, header, mut body)) = newest {
            this.machine
                .restore(header.machine_format, &mut body)
                .map_err(|source| SnapshotError::Machine { file, source })?;
            this.restored(&header);
        }
        Ok((this, snapshots))
    }

    fn restored(&mut self, header: &Header) {
        self.last = header.last;
        self.membership = header.membership.clone();
        self.tell();
    }

    fn tell(&self) {
        if let Some(last) = self.last {
            self.applied.send_replace(last.index);
        }
    }

    fn apply_batch(&self, log_id: LogId, batch: &Batch) -> Result<Answers, String> {
        let result = catch_unwind(AssertUnwindSafe(|| {
            self.machine.apply(log_id.index, &batch.commands)
        }));
        let reason = match result {
            Ok(Ok(answers)) if answers.len() == batch.commands.len() => {
                return Ok(Answers(answers));
            }
            Ok(Ok(answers)) => format!(
                "the state machine gave {} answers to {} commands",
                answers.len(),
                batch.commands.len()
            ),
            Ok(Err(e)) => e.to_string(),
            Err(panic) => format!("the state machine panicked: {}", panic_text(&*panic)),
        };
        let reason = format!("entry {}: {reason}", log_id.index);
        self.health.failed(&reason);
        Err(reason)
    }

    fn storage_error(&self, e: &SnapshotError) -> StorageError {
        self.health.failed(&e.to_string());
        StorageIOError::read_snapshot(None, AnyError::new(e)).into()
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Answers>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut answers = Vec::new();
        for entry in entries {
            let log_id = entry.log_id;
            answers.push(match entry.payload {
                EntryPayload::Blank => Answers::default(),
                EntryPayload::Normal(batch) => self
                    .apply_batch(log_id, &batch)
                    .map_err(|e| StorageIOError::apply(log_id, AnyError::error(e)))?,
                EntryPayload::Membership(m) => {
                    self.membership = StoredMembership::new(Some(log_id), m);
                    Answers::default()
                }
            });
            self.last = Some(log_id);
        }
        self.tell();
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let id = self.last.map_or_else(
            || "empty".to_owned(),
            |id| {
                format!(
                    "{}-{}-{}",
                    id.leader_id.term, id.leader_id.node_id, id.index
                )
            },
        );
        Builder {
            header: Header {
                id,
                last: self.last,
                membership: self.membership.clone(),
                machine_format: self.machine.format(),
            },
            source: self.machine.snapshot().into(),
            snapshots: Arc::clone(&self.snapshots),
            health: self.health.clone(),
            stop: self.stop.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotHandle>, StorageError> {
        let open = || -> Result<SnapshotHandle, SnapshotError> {
            let incoming = self.snapshots.incoming()?;
            let file = incoming.open()?;
            Ok(SnapshotHandle::received(incoming, file.into()))
        };
        Ok(Box::new(open().map_err(|e| self.storage_error(&e))?))
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta,
        mut snapshot: Box<SnapshotHandle>,
    ) -> Result<(), StorageError> {
        let machine = Arc::clone(&self.machine);
        let snapshots = Arc::clone(&self.snapshots);
        let install = move || -> Result<Header, SnapshotError> {
            let incoming = match snapshot.take_incoming() {
                Some(incoming) => incoming,
                None => snapshots.copy_in(snapshot.path())?,
            };
            let path = incoming.path().to_owned();
            let (header, mut body) = verify(&path, incoming.open()?)?;
            // First the machine: what it refuses must not be found at the next start.
            machine
                .restore(header.machine_format, &mut body)
                .map_err(|source| SnapshotError::Machine { file: path, source })?;
            snapshots.publish(incoming, header.clone(), body.bytes)?;
            Ok(header)
        };
        let header = match tokio::task::spawn_blocking(install).await {
            Ok(Ok(header)) => header,
            Ok(Err(e)) => return Err(self.storage_error(&e)),
            Err(e) => {
                self.health.failed(&format!("installing a snapshot: {e}"));
                return Err(StorageIOError::write_snapshot(None, AnyError::new(&e)).into());
            }
        };
        self.restored(&header);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let current = self.snapshots.open_current();
        let current = current.map_err(|e| self.storage_error(&e))?;
        Ok(current.map(|(header, handle)| snapshot(&header, handle)))
    }
}

/// Writes one state out, while entries go on being applied.
pub(crate) struct Builder {
    header: Header,
    source: Arc<dyn SnapshotSource>,
    snapshots: Arc<SnapshotStore>,
    health: Reporter,
    stop: watch::Receiver<bool>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        // An error here would stop the node. But a snapshot is only late: the log
        // still has everything. So it is said, and tried again.
        loop {
            let (header, source) = (self.header.clone(), Arc::clone(&self.source));
            let snapshots = Arc::clone(&self.snapshots);
            let build = move || {
                snapshots.build(&header, &*source)?;
                snapshots.open_current()
            };
            let reason = match tokio::task::spawn_blocking(build).await {
                Ok(Ok(Some((header, handle)))) => {
                    self.health.recovered();
                    return Ok(snapshot(&header, handle));
                }
                Ok(Ok(None)) => "the snapshot is gone".to_owned(),
                Ok(Err(e)) => e.to_string(),
                Err(e) => e.to_string(),
            };
            self.health
                .degraded(&format!("{reason}; it is tried again"));
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = stopped(&mut self.stop) => {
                    let e = AnyError::error(reason);
                    return Err(StorageIOError::write_snapshot(None, e).into());
                }
            }
        }
    }
}

/// Returns when the node stops.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn snapshot(header: &Header, handle: SnapshotHandle) -> Snapshot<TypeConfig> {
    Snapshot {
        meta: header.meta(),
        snapshot: Box::new(handle),
    }
}
