//! Proof of leadership, for reads that must see every acknowledged write. It costs
//! a round of heartbeats; reads that come while one is under way share the next.

use openraft::error::{CheckIsLeaderError, RaftError};
use tokio::sync::{mpsc, oneshot, watch};

use crate::batch::fatal_text;
use crate::config::Peer;
use crate::sm::stopped;
use crate::types::Raft;

/// What one round of proof gave.
#[derive(Debug, Clone)]
pub(crate) enum Proof {
    /// It leads; all that was acknowledged before is at or below this index.
    Index(u64),
    NotLeader(Option<Peer>),
    NoQuorum,
    Stopped(String),
}

/// Answers those that wait for proof.
pub(crate) struct Prover {
    pub(crate) raft: Raft,
    pub(crate) queue: mpsc::Receiver<oneshot::Sender<Proof>>,
    pub(crate) stop: watch::Receiver<bool>,
}

impl Prover {
    pub(crate) async fn run(mut self) {
        loop {
            let first = tokio::select! {
                first = self.queue.recv() => first,
                () = stopped(&mut self.stop) => return,
            };
            let Some(first) = first else { return };
            let mut waiting = vec![first];
            while let Ok(next) = self.queue.try_recv() {
                waiting.push(next);
            }
            let proof = self.prove().await;
            for reader in waiting {
                let _ = reader.send(proof.clone());
            }
        }
    }

    async fn prove(&self) -> Proof {
        match self.raft.get_read_log_id().await {
            Ok((read, _)) => Proof::Index(read.map_or(0, |id| id.index)),
            Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to))) => Proof::NotLeader(
                to.leader_id
                    .and_then(|id| to.leader_node.map(|n| n.peer(id))),
            ),
            Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) => Proof::NoQuorum,
            Err(RaftError::Fatal(e)) => Proof::Stopped(fatal_text(&e)),
        }
    }
}
