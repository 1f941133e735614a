//! How a node is set up: who it is, where its files are, how fast it beats, and
//! the limits on everything that comes to it from outside.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::RaftError;

/// One server of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Unique in the cluster and for ever; never 0. A server whose data is gone
    /// comes back under a new one.
    pub id: u64,
    /// For people: what lists and logs show.
    pub name: String,
    /// `host:port`, as the transport's connector takes it.
    pub addr: String,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.name.is_empty(), self.addr.is_empty()) {
            (false, false) => write!(f, "{} ({})", self.name, self.addr),
            (false, true) => f.write_str(&self.name),
            (true, false) => f.write_str(&self.addr),
            (true, true) => write!(f, "node {}", self.id),
        }
    }
}

/// What [`crate::RaftNode::start`] needs to know.
#[derive(Debug, Clone)]
pub struct RaftConfig {
    /// This node.
    pub me: Peer,
    /// Folder of `log.redb` and `snapshots/`; made if it is not there.
    pub dir: PathBuf,
    /// Time between two heartbeats of the leader. Also the time that one append
    /// and one proof of leadership may take before they are tried again.
    pub heartbeat: Duration,
    /// A follower waits at least this long beyond the leader's lease before it
    /// stands for election.
    pub election_min: Duration,
    /// ... and at most this long. Also the length of the leader's lease.
    pub election_max: Duration,
    /// A snapshot is made each time that so many entries were committed.
    pub snapshot_every: u64,
    /// So many entries stay in the log behind a snapshot, for followers that lag
    /// a little.
    pub log_tail: u64,
    /// How long a write waits for its commit before its outcome is unknown.
    pub write_timeout: Duration,
    /// How long one message with a payload (entries, a piece of a snapshot) may
    /// take.
    pub transfer_timeout: Duration,
    /// Limits on what comes from outside.
    pub limits: Limits,
}

impl RaftConfig {
    /// The defaults, for `me` with its files in `dir`.
    pub fn new(me: Peer, dir: impl Into<PathBuf>) -> Self {
        Self {
            me,
            dir: dir.into(),
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(400),
            election_max: Duration::from_millis(800),
            snapshot_every: 10_000,
            log_tail: 2_000,
            write_timeout: Duration::from_secs(10),
            transfer_timeout: Duration::from_secs(10),
            limits: Limits::default(),
        }
    }

    /// How long a leader may go without hearing from a majority before it counts
    /// as cut off: by then the others may have elected another.
    pub(crate) fn quorum_lost_after(&self) -> Duration {
        self.election_max * 2
    }

    pub(crate) fn check(&self) -> Result<(), RaftError> {
        let wrong = |what: &str| Err(RaftError::Config(what.to_owned()));
        if self.me.id == 0 {
            return wrong("the node id is 0: give each server its own id");
        }
        if self.heartbeat < Duration::from_millis(1) {
            return wrong("heartbeat is under 1ms");
        }
        if self.election_min <= self.heartbeat {
            return wrong("election_min must be longer than heartbeat");
        }
        if self.election_max <= self.election_min {
            return wrong("election_max must be longer than election_min");
        }
        if self.snapshot_every == 0 {
            return wrong("snapshot_every is 0: at least 1 entry lies between two snapshots");
        }
        let l = &self.limits;
        for (name, limit) in [
            ("batch_commands", l.batch_commands),
            ("queue_commands", l.queue_commands),
            ("snapshot_chunk_bytes", l.snapshot_chunk_bytes),
        ] {
            if limit == 0 {
                return wrong(&format!("{name} is 0: at least 1 is needed"));
            }
        }
        if l.append_entries == 0 {
            return wrong("append_entries is 0: at least 1 is needed");
        }
        Ok(())
    }
}

/// Bounds on memory and on message sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Commands in one log entry.
    pub batch_commands: usize,
    /// Bytes of commands in one log entry, beyond which no further command is
    /// added (one command may be larger).
    pub batch_bytes: usize,
    /// Bytes of one command.
    pub command_bytes: usize,
    /// Commands that wait to be proposed; beyond it a write is refused.
    pub queue_commands: usize,
    /// Bytes of entries in one append message, beyond which no further entry is
    /// added.
    pub append_bytes: usize,
    /// Entries in one append message.
    pub append_entries: u64,
    /// Bytes of recent entries that are kept in memory.
    pub cache_bytes: usize,
    /// Bytes of a snapshot in one message.
    pub snapshot_chunk_bytes: usize,
    /// Bytes of a whole snapshot that is taken from a leader.
    pub snapshot_bytes: u64,
}

impl Limits {
    /// The largest message that a node sends or takes.
    pub fn message_bytes(&self) -> usize {
        let entries = self.append_bytes + self.batch_bytes + self.command_bytes;
        // Ids and lengths: under 64 bytes for each of the few thousand commands.
        entries.max(self.snapshot_chunk_bytes) + (1 << 20)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_commands: 512,
            batch_bytes: 1 << 20,
            command_bytes: 8 << 20,
            queue_commands: 16_384,
            append_bytes: 1 << 20,
            append_entries: 300,
            cache_bytes: 32 << 20,
            snapshot_chunk_bytes: 1 << 20,
            snapshot_bytes: 4 << 30,
        }
    }
}
