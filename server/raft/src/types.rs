//! openraft, instantiated. Nothing of this leaves the crate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::config::Peer;
use crate::snapshot::SnapshotHandle;

openraft::declare_raft_types!(
    /// Our types for openraft.
    pub(crate) TypeConfig:
        D = Batch,
        R = Answers,
        NodeId = u64,
        Node = PeerNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = SnapshotHandle,
        AsyncRuntime = openraft::TokioRuntime,
);

pub(crate) type Raft = openraft::Raft<TypeConfig>;
pub(crate) type Entry = openraft::Entry<TypeConfig>;
pub(crate) type LogId = openraft::LogId<u64>;
pub(crate) type Vote = openraft::Vote<u64>;
pub(crate) type Membership = openraft::Membership<u64, PeerNode>;
pub(crate) type StoredMembership = openraft::StoredMembership<u64, PeerNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<u64, PeerNode>;
pub(crate) type StorageError = openraft::StorageError<u64>;
pub(crate) type StorageIOError = openraft::StorageIOError<u64>;
pub(crate) type Metrics = openraft::RaftMetrics<u64, PeerNode>;

/// What membership says of a node, beside its id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PeerNode {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) addr: String,
}

impl PeerNode {
    pub(crate) fn peer(&self, id: u64) -> Peer {
        Peer {
            id,
            name: self.name.clone(),
            addr: self.addr.clone(),
        }
    }
}

impl From<&Peer> for PeerNode {
    fn from(peer: &Peer) -> Self {
        Self {
            name: peer.name.clone(),
            addr: peer.addr.clone(),
        }
    }
}

/// The commands of one entry.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Vec<u8>>", into = "Vec<Vec<u8>>")]
pub(crate) struct Batch {
    pub(crate) commands: Vec<Bytes>,
    /// Raised when the entry reaches this node's log. openraft gives the same error
    /// for a write that it refused and for one that it logged and later cut off;
    /// the second may yet be committed, from the log of another node.
    pub(crate) proposed: Flag,
}

impl PartialEq for Batch {
    fn eq(&self, other: &Self) -> bool {
        self.commands == other.commands
    }
}

impl From<Vec<Vec<u8>>> for Batch {
    fn from(commands: Vec<Vec<u8>>) -> Self {
        Self {
            commands: commands.into_iter().map(Bytes::from).collect(),
            proposed: Flag::default(),
        }
    }
}

impl From<Batch> for Vec<Vec<u8>> {
    fn from(batch: Batch) -> Self {
        batch.commands.iter().map(|c| c.to_vec()).collect()
    }
}

/// A flag that is raised once, and seen by every clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flag(Arc<AtomicBool>);

impl Flag {
    pub(crate) fn raise(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// One answer for each command of an entry.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<Vec<u8>>", into = "Vec<Vec<u8>>")]
pub(crate) struct Answers(pub(crate) Vec<Bytes>);

impl From<Vec<Vec<u8>>> for Answers {
    fn from(answers: Vec<Vec<u8>>) -> Self {
        Self(answers.into_iter().map(Bytes::from).collect())
    }
}

impl From<Answers> for Vec<Vec<u8>> {
    fn from(answers: Answers) -> Self {
        answers.0.iter().map(|a| a.to_vec()).collect()
    }
}
