//! Errors at this crate's edge. Those of a write say whether it may have been made:
//! a caller may only send a command again when it certainly was not.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::Peer;
use crate::machine::MachineError;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum RaftError {
    /// The configuration makes no sense.
    #[error("raft: {0}")]
    Config(String),
    /// The log cannot be opened or read.
    #[error("raft: {0}")]
    Log(#[from] LogError),
    /// A snapshot cannot be read.
    #[error("raft: {0}")]
    Snapshot(#[from] SnapshotError),
    /// The state machine refuses a snapshot or an entry.
    #[error("raft: {0}")]
    Machine(#[from] MachineError),
    /// The node stopped while it started.
    #[error("raft: {0}")]
    Stopped(String),
}

/// What is wrong with the log file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The file, or its folder, cannot be opened, read or written.
    #[error("log {}: {reason}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// Another process has it open.
    #[error("log {}: another process has it open", file.display())]
    InUse {
        /// The file.
        file: PathBuf,
    },
    /// It is gone, although this folder was in use.
    #[error(
        "log {}: it is gone, though this folder has served node {node}; \
         restore the file, or remove the whole folder and join as a new server", file.display()
    )]
    Missing {
        /// The file.
        file: PathBuf,
        /// The node that the folder belongs to.
        node: u64,
    },
    /// It belongs to another node.
    #[error("log {}: it belongs to node {found}, not to node {expected}", file.display())]
    OtherNode {
        /// The file.
        file: PathBuf,
        /// The id in the file.
        found: u64,
        /// This node's id.
        expected: u64,
    },
    /// It was written by a newer version of this program.
    #[error(
        "log {}: {place} has version {found}, this server reads up to {known}; \
         run a newer version of it", file.display()
    )]
    Version {
        /// The file.
        file: PathBuf,
        /// Which record: `entry 17`, `vote`, ...
        place: String,
        /// What the record says.
        found: u8,
        /// The highest that is known here.
        known: u8,
    },
    /// A record cannot be read.
    #[error(
        "log {}: {place} is corrupt: {reason}; remove this server from the cluster, \
         empty its folder and let it join again", file.display()
    )]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Which record: `entry 17`, `vote`, `the file`, ...
        place: String,
        /// What is wrong.
        reason: String,
    },
}

/// What is wrong with a snapshot file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// It cannot be opened, read or written.
    #[error("snapshot {}: {reason}", file.display())]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// It is not a snapshot, or not a whole one, or its bytes changed.
    #[error("snapshot {}: {reason}", file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It was written by a newer version of this program.
    #[error(
        "snapshot {}: version {found}, this server reads up to {known}; run a newer version of it",
        file.display()
    )]
    Version {
        /// The file.
        file: PathBuf,
        /// What the file says.
        found: u32,
        /// The highest that is known here.
        known: u32,
    },
    /// The machine does not take it.
    #[error("snapshot {}: {source}", file.display())]
    Machine {
        /// The file.
        file: PathBuf,
        /// The machine's reason.
        source: MachineError,
    },
}

/// Why a write was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Not written: this server is not the leader.
    #[error("not the leader{}", hint(leader))]
    NotLeader {
        /// Who is, if that is known.
        leader: Option<Peer>,
    },
    /// Not written: no leader was found in time.
    #[error(
        "the cluster has no leader (waited {waited:?}); a majority of the servers must be up and \
         reach each other"
    )]
    NoLeader {
        /// How long it was looked for.
        waited: Duration,
    },
    /// Not written: this leader is cut off from the majority.
    #[error("this server leads, but does not reach a majority of the servers")]
    NoQuorum,
    /// Not written: it waited in the queue until its time was over.
    #[error("the write was not started in time (waited {waited:?}); try again")]
    TimedOut {
        /// How long it waited.
        waited: Duration,
    },
    /// Not written: too many writes wait.
    #[error("too many writes wait; try again later")]
    Overloaded,
    /// Not written: larger than a command may be.
    #[error("the command has {bytes} bytes; at most {limit} are taken")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Not written: the leader refused it.
    #[error("the leader refused the write: {reason}")]
    Refused {
        /// Its words.
        reason: String,
    },
    /// Not written: this node has stopped.
    #[error("this server takes no writes: {reason}")]
    Stopped {
        /// Why it stopped.
        reason: String,
    },
    /// It may be written, or not, or will be later. It was not sent again, and must
    /// not be unless doing it twice does no harm.
    #[error("it is not known whether the write was made: {reason}; read before writing again")]
    Unknown {
        /// What happened.
        reason: String,
    },
}

impl WriteError {
    /// Whether the command certainly was not, and will not be, written.
    pub fn not_written(&self) -> bool {
        !matches!(self, Self::Unknown { .. })
    }
}

/// Why a linearizable read cannot be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No leader was found in time.
    #[error(
        "the cluster has no leader (waited {waited:?}); a majority of the servers must be up and \
         reach each other"
    )]
    NoLeader {
        /// How long it was looked for.
        waited: Duration,
    },
    /// This server leads, but cannot prove it: a majority does not answer.
    #[error("this server leads, but does not reach a majority of the servers")]
    NoQuorum,
    /// The leader answered, but this server did not catch up in time.
    #[error("this server is behind the leader (has {applied}, needs {needed}; waited {waited:?})")]
    Behind {
        /// The last applied index here.
        applied: u64,
        /// The index that the read needs.
        needed: u64,
        /// How long it waited.
        waited: Duration,
    },
    /// This node has stopped.
    #[error("this server has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

/// Why the set of servers was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// This server is not the leader.
    #[error("not the leader{}", hint(leader))]
    NotLeader {
        /// Who is, if that is known.
        leader: Option<Peer>,
    },
    /// No leader was found in time.
    #[error("the cluster has no leader (waited {waited:?})")]
    NoLeader {
        /// How long it was looked for.
        waited: Duration,
    },
    /// The cluster already exists.
    #[error("the cluster is already there: a server is bootstrapped once, and never again")]
    AlreadyInitialized,
    /// The list of servers makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// Another change is under way.
    #[error("another change of the servers is under way; try again when it is done")]
    Busy,
    /// There is no such server.
    #[error("no server has the id {0}")]
    NotMember(u64),
    /// It is the only voter.
    #[error("server {0} is the only voter: without it there is no cluster")]
    LastVoter(u64),
    /// The leader refused it, or it was not done in time.
    #[error("{0}")]
    Failed(String),
    /// This node has stopped.
    #[error("this server has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

fn hint(leader: &Option<Peer>) -> String {
    match leader {
        Some(peer) => format!("; {peer} is"),
        None => "; at the moment none is known".to_owned(),
    }
}
