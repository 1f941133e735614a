//! A node: what the rest of the server sees of consensus.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use openraft::SnapshotPolicy;
use tokio::sync::{mpsc, oneshot, watch};

use crate::batch::{Batcher, Claim, PendingWrite, Written, fatal_text, leader_of, refusal};
use crate::codec;
use crate::config::{Peer, RaftConfig};
use crate::error::{RaftError, ReadError, SnapshotError, WriteError};
use crate::health::{Health, Reporter};
use crate::log::{LogBackend, LogLimits, LogStore};
use crate::machine::Machine;
use crate::net::Network;
use crate::pb;
use crate::read::{Proof, Prover};
use crate::receive::Receiver;
use crate::sm::{StateMachine, stopped};
use crate::snapshot::{SnapshotInfo, SnapshotStore};
use crate::status::{self, Leadership, Status};
use crate::transport::{Request, Transport, TransportError};
use crate::types::{Metrics, Raft};

/// Between two looks for a leader.
const PAUSE: Duration = Duration::from_millis(20);
/// A time that can be added to any other.
const FOREVER: Duration = Duration::from_secs(365 * 86_400);

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
    writes: mpsc::Sender<PendingWrite>,
    proofs: mpsc::Sender<oneshot::Sender<Proof>>,
    applied: watch::Receiver<u64>,
    leadership: watch::Receiver<Leadership>,
    health: Reporter,
    contact: Mutex<Option<Instant>>,
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

        let network = Network {
            config: Arc::clone(&config),
            transport: Arc::clone(&transport),
        };
        let id = config.me.id;
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
            queue,
            stop: stopping.clone(),
        };
        tokio::spawn(batcher.run());
        let (proofs, queue) = mpsc::channel(config.limits.queue_commands);
        let prover = Prover {
            raft: raft.clone(),
            queue,
            stop: stopping.clone(),
        };
        tokio::spawn(prover.run());
        let (leading, leadership) = watch::channel(Leadership::default());
        tokio::spawn(follow(
            Arc::clone(&config),
            raft.metrics(),
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
                contact: Mutex::new(None),
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

    /// Writes a command through whichever node leads, and looks for it until
    /// `timeout` is over. A command is never sent a second time when the first may
    /// have arrived.
    ///
    /// # Errors
    /// [`WriteError`], never `NotLeader`.
    pub async fn write_anywhere(
        &self,
        command: impl Into<Bytes>,
        timeout: Duration,
    ) -> Result<Written, WriteError> {
        let command = command.into();
        self.inner.check_size(&command)?;
        let begin = Instant::now();
        let mut hint = None;
        let mut last = None;
        loop {
            let waited = begin.elapsed();
            let Some(left) = timeout.checked_sub(waited).filter(|left| !left.is_zero()) else {
                return Err(last.unwrap_or(WriteError::NoLeader { waited }));
            };
            let refused = refusal(&self.inner.config, &self.inner.metrics());
            let failed = match refused {
                None => self.inner.write(command.clone(), left).await,
                Some(WriteError::NotLeader { leader }) => match hint.take().or(leader) {
                    Some(leader) => self.inner.forward(&leader, command.clone(), left).await,
                    None => Err(WriteError::NotLeader { leader: None }),
                },
                Some(e) => Err(e),
            };
            match failed {
                Err(WriteError::NotLeader { leader }) => {
                    hint = leader.filter(|peer| peer.id != self.inner.config.me.id);
                    last = None;
                }
                Err(e @ (WriteError::NoQuorum | WriteError::Refused { .. })) => last = Some(e),
                other => return other,
            }
            self.inner.pause(left).await;
        }
    }

    /// Waits until this node has applied every write that was acknowledged before
    /// the call, anywhere; then a read of its state is linearizable. Returns the
    /// index that it has applied at least.
    ///
    /// # Errors
    /// [`ReadError`]: a node that is cut off from the majority refuses.
    pub async fn linearize(&self, timeout: Duration) -> Result<u64, ReadError> {
        let begin = Instant::now();
        let mut hint: Option<Peer> = None;
        let mut last = None;
        loop {
            let waited = begin.elapsed();
            let Some(left) = timeout.checked_sub(waited).filter(|left| !left.is_zero()) else {
                return Err(last.unwrap_or(ReadError::NoLeader { waited }));
            };
            let metrics = self.inner.metrics();
            if metrics.running_state.is_err() {
                let reason = self.inner.why_stopped();
                return Err(ReadError::Stopped { reason });
            }
            let proof = if metrics.state.is_leader() {
                self.inner.prove(left).await
            } else {
                match hint.take().or_else(|| leader_of(&metrics)) {
                    Some(leader) => self.inner.ask_index(&leader, left).await,
                    None => Proof::NotLeader(None),
                }
            };
            match proof {
                Proof::Index(index) => {
                    let deadline = begin + timeout.min(FOREVER);
                    return self.inner.wait_applied(index, begin, deadline).await;
                }
                Proof::NotLeader(leader) => {
                    hint = leader.filter(|peer| peer.id != self.inner.config.me.id);
                    last = None;
                }
                Proof::NoQuorum => last = Some(ReadError::NoQuorum),
                Proof::Stopped(reason) => return Err(ReadError::Stopped { reason }),
            }
            self.inner.pause(left).await;
        }
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
    /// leader, or, on the leader, of the majority's. None if there was none yet.
    pub fn last_contact(&self) -> Option<Duration> {
        let metrics = self.inner.metrics();
        if metrics.state.is_leader() {
            return metrics.millis_since_quorum_ack.map(Duration::from_millis);
        }
        let contact = self.inner.contact.lock();
        contact
            .unwrap_or_else(PoisonError::into_inner)
            .map(|at| at.elapsed())
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
        let mut contact = self.contact.lock().unwrap_or_else(PoisonError::into_inner);
        *contact = Some(Instant::now());
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

    async fn forward(
        &self,
        leader: &Peer,
        command: Bytes,
        left: Duration,
    ) -> Result<Written, WriteError> {
        use pb::write_reply::Outcome;
        let message = pb::WriteRequest {
            command,
            deadline_ms: millis(left),
        };
        let unknown = |reason: String| Err(WriteError::Unknown { reason });
        let reply = match self.call(leader, pb::Kind::Write, &message, left).await {
            Ok(reply) => reply,
            Err(TransportError::NotSent(_)) => {
                return Err(WriteError::NotLeader { leader: None });
            }
            Err(TransportError::Refused(reason)) => return Err(WriteError::Refused { reason }),
            Err(e @ TransportError::Lost(_)) => return unknown(format!("leader {leader}: {e}")),
        };
        let reply: pb::WriteReply = match codec::decode(&reply) {
            Ok(reply) => reply,
            Err(e) => return unknown(format!("leader {leader}: {e}")),
        };
        match reply.outcome {
            Some(Outcome::Written(w)) => Ok(Written {
                index: w.index,
                answer: w.answer,
            }),
            Some(Outcome::NotLeader(n)) => Err(WriteError::NotLeader {
                leader: n.leader.map(codec::peer_in),
            }),
            Some(Outcome::Refused(r)) => Err(WriteError::Refused { reason: r.reason }),
            Some(Outcome::Unknown(u)) => unknown(u.reason),
            None => unknown(format!("leader {leader}: its answer is not known here")),
        }
    }

    pub(crate) async fn prove(&self, timeout: Duration) -> Proof {
        let (sender, answer) = oneshot::channel();
        if self.proofs.try_send(sender).is_err() {
            return Proof::NoQuorum;
        }
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(proof)) => proof,
            Ok(Err(_)) => Proof::Stopped(self.why_stopped()),
            Err(_) => Proof::NoQuorum,
        }
    }

    async fn ask_index(&self, leader: &Peer, left: Duration) -> Proof {
        use pb::read_index_reply::Outcome;
        let message = pb::ReadIndexRequest {
            deadline_ms: millis(left),
        };
        let reply = self.call(leader, pb::Kind::ReadIndex, &message, left).await;
        let Ok(reply) = reply else {
            return Proof::NotLeader(None);
        };
        match codec::decode::<pb::ReadIndexReply>(&reply).map(|r| r.outcome) {
            Ok(Some(Outcome::Index(index))) => Proof::Index(index),
            Ok(Some(Outcome::NotLeader(n))) => Proof::NotLeader(n.leader.map(codec::peer_in)),
            _ => Proof::NotLeader(None),
        }
    }

    async fn wait_applied(
        &self,
        needed: u64,
        begin: Instant,
        deadline: Instant,
    ) -> Result<u64, ReadError> {
        let mut applied = self.applied.clone();
        let caught_up = async {
            let got = applied.wait_for(|applied| *applied >= needed).await;
            got.map(|applied| *applied).ok()
        };
        let reached = tokio::time::timeout_at(deadline.into(), caught_up).await;
        match reached {
            Ok(Some(applied)) => Ok(applied),
            Ok(None) => Err(ReadError::Stopped {
                reason: self.why_stopped(),
            }),
            Err(_) => Err(ReadError::Behind {
                applied: *self.applied.borrow(),
                needed,
                waited: begin.elapsed(),
            }),
        }
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

    /// Waits for news of a leader, but not long: news may be on another node.
    pub(crate) async fn pause(&self, left: Duration) {
        let mut leadership = self.leadership.clone();
        leadership.mark_unchanged();
        let _ = tokio::time::timeout(left.min(PAUSE), leadership.changed()).await;
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
            let mut new = status::leadership(&config, &metrics);
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
            () = stopped(&mut stop) => break,
        }
    }
    leading.send_modify(|last| {
        last.leader = None;
        last.is_leader = false;
    });
}
