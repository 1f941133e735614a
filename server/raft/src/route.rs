//! Writes and linearizable reads on any node: they find the leader, and know what
//! may be done twice.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::batch::{Written, leader_of, refusal};
use crate::codec;
use crate::config::Peer;
use crate::error::{ReadError, WriteError};
use crate::node::{Inner, RaftNode, millis};
use crate::pb;
use crate::read::Proof;
use crate::transport::TransportError;

/// Between two looks for a leader.
const PAUSE: Duration = Duration::from_millis(20);
/// A time that can be added to any other.
const FOREVER: Duration = Duration::from_secs(365 * 86_400);

impl RaftNode {
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
            let refused = refusal(
                &self.inner.config,
                &self.inner.metrics(),
                &self.inner.contacts,
            );
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
}

impl Inner {
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

    /// Waits for news of a leader, but not long: news may be on another node.
    pub(crate) async fn pause(&self, left: Duration) {
        let mut leadership = self.leadership.clone();
        leadership.mark_unchanged();
        let _ = tokio::time::timeout(left.min(PAUSE), leadership.changed()).await;
    }
}
