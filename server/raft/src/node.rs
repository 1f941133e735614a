//! A node: what the rest of the server sees of consensus.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use openraft::SnapshotPolicy;
use tokio::sync::{mpsc, oneshot, watch};

use crate::batch::{Batcher, Claim, PendingWrite, Written, fatal_text};
use crate::config::{Peer, RaftConfig};
use crate::contact::Contacts;
use crate::error::{RaftError, SnapshotError, WriteError};
use crate::health::{Health, Reporter};
use crate::log::{LogBackend, LogLimits, LogStore};
use crate::machine::Machine;
use crate::net::Network;
use crate::pb;
use crate::read::{Proof, Prover, Resumed};
use crate::receive::Receiver;
use crate::sm::{StateMachine, stopped};
use crate::snapshot::{SnapshotInfo, SnapshotStore};
use crate::status::{self, Leadership, Status};
use crate::transport::{Request, Transport, TransportError};
use crate::types::{Metrics, Raft};

/// One member of the cluster, in this process. Clones are the same node.
///
/// End it with [`RaftNode::shutdown`]; only then is its folder free again.
#[derive(Clone)]
pub struct RaftNode {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: Arc<RaftConfig>,
    pub(crate) raft: Raft,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) snapshots: Arc<SnapshotStore>,
    pub(crate) receiver: Receiver,
    log: LogStore,
    pub(crate) writes: mpsc::Sender<PendingWrite>,
    pub(crate) proofs: mpsc::Sender<oneshot::Sender<Proof>>,
    pub(crate) applied: watch::Receiver<u64>,
    pub(crate) leadership: watch::Receiver<Leadership>,
    health: Reporter,
    pub(crate) contacts: Arc<Contacts>,
    stop: watch::Sender<bool>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl std::fmt::Debug for RaftNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RaftNode({})", self.inner.config.me)
    }
}

impl RaftNode {
    /// Starts a node from what its folder holds; a new folder makes a node that
    /// belongs to no cluster, until it is bootstrapped or added to one.
    ///
    /// Its state may be a moment behind what it acknowledged before it stopped,
    /// until it hears from a leader (or is one): everything is in its log, but how
    /// much of the log is committed is written a little later. So
    /// [`RaftNode::linearize`] once before the first read is served.
    ///
    /// # Errors
    /// [`RaftError`]; those about files name the file and the place in it.
    pub async fn start(
        config: RaftConfig,
        machine: Arc<dyn Machine>,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, RaftError> {
        Self::start_with(config, None, machine, transport).await
    }

    /// As [`RaftNode::start`], with the log on `backend` instead of `log.redb` (the
    /// snapshots are in the folder all the same).
    ///
    /// # Errors
    /// As [`RaftNode::start`].
    pub async fn start_on(
        config: RaftConfig,
        backend: LogBackend,
        machine: Arc<dyn Machine>,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, RaftError> {
        Self::start_with(config, Some(backend), machine, transport).await
    }

    async fn start_with(
        config: RaftConfig,
        backend: Option<LogBackend>,
        machine: Arc<dyn Machine>,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, RaftError> {
        config.check()?;
        let raft_config = openraft_config(&config)?;
        let config = Arc::new(config);
        let health = Reporter::new();
        let (stop, stopping) = watch::channel(false);
        let (applied_sender, applied) = watch::channel(0);

        let opening = {
            let (config, health) = (Arc::clone(&config), health.clone());
            let stopping = stopping.clone();
            move || open(&config, backend, machine, applied_sender, health, stopping)
        };
        let opened = tokio::task::spawn_blocking(opening).await;
        let (log, state_machine, snapshots) =
            opened.map_err(|e| RaftError::Stopped(e.to_string()))??;

        let contacts = Arc::new(Contacts::default());
        let network = Network {
            config: Arc::clone(&config),
            transport: Arc::clone(&transport),
            contacts: Arc::clone(&contacts),
        };
        let id = config.me.id;
        let (vote, last) = log.ends_with();
        let resumed = Resumed::of(id, vote, last);
        let raft = Raft::new(id, raft_config, network, log.clone(), state_machine).await;
        let raft = match raft {
            Ok(raft) => raft,
            Err(e) => {
                log.close().await;
                let reason = health.failure().unwrap_or_else(|| fatal_text(&e));
                return Err(RaftError::Stopped(reason));
            }
        };

        let (writes, queue) = mpsc::channel(config.limits.queue_commands);
        let batcher = Batcher {
            config: Arc::clone(&config),
            raft: raft.clone(),
            metrics: raft.metrics(),
            contacts: Arc::clone(&contacts),
            queue,
            stop: stopping.clone(),
        };
        tokio::spawn(batcher.run());
        let (proofs, queue) = mpsc::channel(config.limits.queue_commands);
        let prover = Prover {
            raft: raft.clone(),
            resumed,
            queue,
            stop: stopping.clone(),
        };
        tokio::spawn(prover.run());
        let (leading, leadership) = watch::channel(Leadership::default());
        tokio::spawn(follow(
            Arc::clone(&config),
            raft.metrics(),
            Arc::clone(&contacts),
            leading,
            health.clone(),
            stopping,
        ));

        let receiver = Receiver::new(raft.clone(), Arc::clone(&snapshots), config.limits.clone());
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                raft,
                transport,
                snapshots,
                receiver,
                log,
                writes,
                proofs,
                applied,
                leadership,
                health,
                contacts,
                stop,
            }),
        })
    }

    /// Writes a command through this node, which must be the leader, and waits until
    /// it is on the disks of a majority and applied here.
    ///
    /// # Errors
    /// [`WriteError`]; [`WriteError::not_written`] says whether it may be sent again.
    pub async fn write(&self, command: impl Into<Bytes>) -> Result<Written, WriteError> {
        let timeout = self.inner.config.write_timeout;
        self.inner.write(command.into(), timeout).await
    }

    /// The leader, as far as this node knows.
    pub fn leader(&self) -> Option<Peer> {
        self.inner.leadership.borrow().leader.clone()
    }

    /// Whether this node leads; see [`Leadership::is_leader`].
    pub fn is_leader(&self) -> bool {
        self.inner.leadership.borrow().is_leader && self.inner.health.failure().is_none()
    }

    /// Tells of each change of leadership.
    pub fn watch_leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// The index of the last entry that was applied here; 0 if none was.
    pub fn applied_index(&self) -> u64 {
        *self.inner.applied.borrow()
    }

    /// Tells of each step of [`RaftNode::applied_index`].
    pub fn watch_applied(&self) -> watch::Receiver<u64> {
        self.inner.applied.clone()
    }

    /// How old this node's knowledge may be: the age of the last word from the
    /// leader, or, on the leader, the time since which a majority may follow another.
    /// None if there was none yet. Counted when it is asked for, but not while the
    /// whole machine is suspended.
    pub fn last_contact(&self) -> Option<Duration> {
        self.inner.contacts.age(&self.inner.metrics())
    }

    /// This node's view of the cluster.
    pub fn status(&self) -> Status {
        let metrics = self.inner.metrics();
        let (voters, learners) = status::members(&metrics);
        Status {
            me: self.inner.config.me.clone(),
            role: status::role(&metrics),
            term: metrics.current_term,
            leader: self.leader(),
            voters,
            learners,
            last_log: metrics.last_log_index.unwrap_or(0),
            applied: self.applied_index(),
            snapshot: metrics.snapshot.map(|id| id.index),
            purged: metrics.purged.map(|id| id.index),
            last_contact: self.last_contact(),
            health: self.health(),
        }
    }

    /// How this node is.
    pub fn health(&self) -> Health {
        self.watch_health().borrow().clone()
    }

    /// Tells of each change of [`RaftNode::health`].
    pub fn watch_health(&self) -> watch::Receiver<Health> {
        self.inner.health.watch()
    }

    /// Waits until this node fails for good, and says why. Never returns for one
    /// that was shut down.
    pub async fn fatal(&self) -> String {
        let mut health = self.watch_health();
        loop {
            if let Health::Failed(reason) = &*health.borrow_and_update() {
                return reason.clone();
            }
            if health.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Makes a snapshot of all that is applied now, and waits for it.
    ///
    /// # Errors
    /// When it is not there in time, or the node has stopped.
    pub async fn trigger_snapshot(&self, timeout: Duration) -> Result<SnapshotInfo, RaftError> {
        let inner = &self.inner;
        let wanted = inner.metrics().last_applied;
        let stopped = |e: String| RaftError::Stopped(e);
        let asked = inner.raft.trigger().snapshot().await;
        asked.map_err(|e| stopped(fatal_text(&e)))?;
        let wait = inner.raft.wait(Some(timeout));
        let made = wait.metrics(|m| m.snapshot >= wanted, "snapshot").await;
        if made.is_err() {
            let reason = match self.health() {
                Health::Ok => format!("no snapshot within {timeout:?}"),
                Health::Degraded(reason) | Health::Failed(reason) => reason,
            };
            return Err(stopped(reason));
        }
        self.latest_snapshot().ok_or_else(|| {
            RaftError::Snapshot(SnapshotError::Io {
                file: snapshot_dir(&inner.config),
                reason: "nothing was applied yet, so there is nothing to snapshot".to_owned(),
            })
        })
    }

    /// The newest snapshot on this node's disk. Its file may be opened, but goes
    /// when a newer one comes.
    pub fn latest_snapshot(&self) -> Option<SnapshotInfo> {
        self.inner.snapshots.info()
    }

    /// Stops the node: its writes get an answer, its files are closed.
    pub async fn shutdown(&self) {
        self.inner.stop.send_replace(true);
        if let Err(e) = self.inner.raft.shutdown().await {
            tracing::warn!(error = %e, "raft did not stop cleanly");
        }
        self.inner.log.close().await;
    }
}

impl Inner {
    pub(crate) fn metrics(&self) -> Metrics {
        self.raft.metrics().borrow().clone()
    }

    /// The leader was heard from.
    pub(crate) fn heard(&self) {
        self.contacts.leader();
    }

    pub(crate) fn check_size(&self, command: &Bytes) -> Result<(), WriteError> {
        let limit = self.config.limits.command_bytes;
        if command.len() > limit {
            let bytes = command.len();
            return Err(WriteError::TooLarge { bytes, limit });
        }
        Ok(())
    }

    pub(crate) async fn write(
        &self,
        command: Bytes,
        timeout: Duration,
    ) -> Result<Written, WriteError> {
        self.check_size(&command)?;
        // It is told before openraft has stopped.
        if let Some(reason) = self.health.failure() {
            return Err(WriteError::Stopped { reason });
        }
        let since = Instant::now();
        let deadline = since + timeout.min(self.config.write_timeout);
        let claim = Claim::default();
        let (sender, answer) = oneshot::channel();
        let pending = PendingWrite {
            command,
            answer: sender,
            since,
            deadline,
            claim: claim.clone(),
        };
        self.writes.try_send(pending).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => WriteError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => WriteError::Stopped {
                reason: self.why_stopped(),
            },
        })?;
        match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) if claim.take() => Err(WriteError::Stopped {
                reason: self.why_stopped(),
            }),
            Ok(Err(_)) => Err(WriteError::Unknown {
                reason: self.why_stopped(),
            }),
            Err(_) if claim.take() => Err(WriteError::TimedOut {
                waited: since.elapsed(),
            }),
            Err(_) => Err(WriteError::Unknown {
                reason: format!("no majority had it within {:?}", since.elapsed()),
            }),
        }
    }

    pub(crate) fn why_stopped(&self) -> String {
        let failure = self.health.failure();
        failure.unwrap_or_else(|| "it was shut down".to_owned())
    }

    pub(crate) async fn call(
        &self,
        peer: &Peer,
        kind: pb::Kind,
        message: &impl prost::Message,
        timeout: Duration,
    ) -> Result<Bytes, TransportError> {
        let request = Request::new(kind, self.config.me.id, peer.id, message);
        self.transport.call(peer, request, timeout).await
    }
}

pub(crate) fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

fn snapshot_dir(config: &RaftConfig) -> PathBuf {
    config.dir.join("snapshots")
}

fn openraft_config(config: &RaftConfig) -> Result<Arc<openraft::Config>, RaftError> {
    let raft = openraft::Config {
        cluster_name: "mesh".to_owned(),
        heartbeat_interval: millis(config.heartbeat),
        election_timeout_min: millis(config.election_min),
        election_timeout_max: millis(config.election_max),
        install_snapshot_timeout: millis(config.transfer_timeout),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_every),
        max_in_snapshot_log_to_keep: config.log_tail,
        max_payload_entries: config.limits.append_entries,
        replication_lag_threshold: config.snapshot_every,
        ..openraft::Config::default()
    };
    let raft = raft.validate();
    Ok(Arc::new(
        raft.map_err(|e| RaftError::Config(e.to_string()))?,
    ))
}

fn open(
    config: &RaftConfig,
    backend: Option<LogBackend>,
    machine: Arc<dyn Machine>,
    applied: watch::Sender<u64>,
    health: Reporter,
    stop: watch::Receiver<bool>,
) -> Result<(LogStore, StateMachine, Arc<SnapshotStore>), RaftError> {
    let limits = LogLimits {
        cache_bytes: config.limits.cache_bytes,
        append_bytes: config.limits.append_bytes,
    };
    let id = config.me.id;
    let log = match backend {
        None => LogStore::open(&config.dir, id, limits, health.clone())?,
        Some(backend) => {
            let name = config.dir.join("log.redb");
            LogStore::open_backend(backend, name, id, limits, health.clone())?
        }
    };
    let dir = snapshot_dir(config);
    let (state_machine, snapshots) = StateMachine::open(dir, machine, applied, health, stop)?;
    Ok((log, state_machine, snapshots))
}

/// Turns openraft's metrics into what others watch.
async fn follow(
    config: Arc<RaftConfig>,
    mut metrics: watch::Receiver<Metrics>,
    contacts: Arc<Contacts>,
    leading: watch::Sender<Leadership>,
    health: Reporter,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let (new, failure) = {
            let metrics = metrics.borrow_and_update();
            let failure = match &metrics.running_state {
                Err(openraft::error::Fatal::Stopped) | Ok(()) => None,
                Err(e) => Some(fatal_text(e)),
            };
            let mut new = status::leadership(&config, &metrics, &contacts);
            if metrics.running_state.is_err() {
                new.is_leader = false;
                new.leader = None;
            }
            (new, failure)
        };
        if let Some(reason) = failure {
            health.failed(&reason);
        }
        leading.send_if_modified(|old| {
            let changed = *old != new;
            *old = new;
            changed
        });
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() { break },
            // Nothing changes while openraft waits for the disk; but time passes.
            () = tokio::time::sleep(config.election_min) => {}
            () = stopped(&mut stop) => break,
        }
    }
    leading.send_modify(|last| {
        last.leader = None;
        last.is_leader = false;
    });
}
