//! What can be asked of the state: the entries of Raft's log.
//!
//! A command is JSON, `{"v":1,"time":ms,"cmd":{"put_ca":{…}}}`. It comes with
//! everything that is not a function of the state: time, ids, signatures.
//!
//! # How it may grow
//!
//! A server reads what servers of other versions proposed, and every server
//! must make the same state of it. Therefore:
//!
//! - A new command, and a new field of one, has a *level*:
//!   [`Command::required_level`] says it, [`LEVEL`] rises. A command above the
//!   cluster's level is refused before it is proposed ([`State::admits`]); the
//!   level is raised ([`Command::RaiseLevel`]) when every voter speaks it.
//! - A field that has its default is not written, so that those who do not use
//!   it are understood by all.
//! - A command or field that a server does not know stops it with
//!   [`CommandError`]; skipping it would make its state another one.
//! - What apply refuses is part of a command's meaning, validation included: a
//!   rule that refuses more, or less, than before asks for the cluster's level
//!   too. Warnings are not state and may differ.
//! - What was written at any level is read for ever.
//!
//! [`State::admits`]: crate::State::admits

use mesh_model::{Action, Check, Entry, EntryKey, Instance, Key, Node, NodeState};
use serde::{Deserialize, Serialize};

use crate::key::{ConfigKey, RowKey};
use crate::leaves::{Revoked, SignedLeaf};
use crate::stored::ConfigEntry;

/// The highest level that this build speaks.
pub const LEVEL: u32 = 1;

/// The version of the envelope.
const ENVELOPE: u32 = 1;

/// Longest command that we propose, in bytes.
pub const MAX_COMMAND: usize = 4 << 20;

/// A command and its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    v: u32,
    /// The proposer's clock, in milliseconds since the Unix epoch.
    pub time: u64,
    /// What is asked.
    #[serde(rename = "cmd")]
    pub command: Command,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Makes the cluster; the first command. Again with the same cluster id it
    /// changes nothing.
    Bootstrap {
        /// Random.
        cluster_id: String,
        /// The SPIFFE trust domain.
        trust_domain: String,
        /// The cluster's name.
        datacenter: String,
        /// The name of the first epoch, random.
        epoch: String,
        /// What holds without an intention and a `mesh` block.
        default_intention: Action,
    },
    /// Every voter speaks this level. It never goes down.
    RaiseLevel {
        /// The level.
        level: u32,
    },
    /// Changes the cluster's own settings.
    PutClusterConfig {
        /// As in [`Command::Bootstrap`].
        default_intention: Action,
        /// As in [`Op::Put`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cas: Option<u64>,
    },
    /// Entries, all of them or none, validated as a whole: their order does
    /// not matter, and check-and-set looks at the state before.
    Transaction {
        /// What to do, each key at most once.
        ops: Vec<Op>,
        /// Who writes; the owner of the rows that it makes.
        owner: String,
        /// Takes over rows of other owners.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        force: bool,
    },
    /// An agent says what its node is: a stream of it begins. The index that
    /// this takes is what the stream's other commands name; those of streams
    /// that began before are refused from here on, however late they come.
    RegisterNode {
        /// The node.
        node: Node,
    },
    /// All instances of a node: those that it has, and no others.
    SyncInstances {
        /// The node's id, as the agent proved it.
        node: String,
        /// The stream that it comes by: the index of its [`Command::RegisterNode`].
        stream: u64,
        /// All of them.
        instances: Vec<Instance>,
    },
    /// One instance, in place of the one with its id.
    PutInstance {
        /// The node's id, as the agent proved it.
        node: String,
        /// The stream that it comes by: the index of its [`Command::RegisterNode`].
        stream: u64,
        /// The instance.
        instance: Instance,
    },
    /// An instance is gone; fine when it already was.
    RemoveInstance {
        /// The node's id, as the agent proved it.
        node: String,
        /// The stream that it comes by: the index of its [`Command::RegisterNode`].
        stream: u64,
        /// The instance's id.
        id: String,
    },
    /// States of checks that the instances have. Those of instances that are
    /// gone are passed over: the agent's next sync says what is.
    SetChecks {
        /// The node's id, as the agent proved it.
        node: String,
        /// The stream that it comes by: the index of its [`Command::RegisterNode`].
        stream: u64,
        /// What changed.
        changes: Vec<CheckChange>,
    },
    /// Whether a node's agent is heard, by the leader's word.
    SetNodeState {
        /// The node's id.
        node: String,
        /// What holds now.
        state: NodeState,
    },
    /// A node is gone, with its instances; fine when it already was.
    RemoveNode {
        /// The node's id.
        node: String,
    },
    /// Nodes that have been silent for longer than this are gone.
    ReapNodes {
        /// In milliseconds, before the command's time.
        ttl: u64,
    },
    /// The CA's state.
    PutCa {
        /// Opaque; private keys in it are sealed.
        value: serde_json::Value,
        /// As in [`Op::Put`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cas: Option<u64>,
    },
    /// Nobody is to believe this any more. Of a leaf: neither any other leaf of
    /// its key.
    Revoke {
        /// What.
        what: Revoked,
        /// Why, for people.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
        /// Of a leaf: when no leaf of its key can be good any more, as far as
        /// the proposer knows; in seconds since the Unix epoch.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<u64>,
    },
    /// Leaves of this service are good again, those that live among them.
    Unrevoke {
        /// The service.
        service: Key,
    },
    /// Leaves that a server signed. They were given out already: this is for the
    /// record, and refuses nothing.
    RecordLeaves {
        /// Them.
        leaves: Vec<SignedLeaf>,
    },
    /// Forgets the leaves that have ended by the command's time, and the
    /// revocations of such.
    SweepLeaves {},
    /// A step of a restore; [`Command::restore`] makes them.
    Restore(Restore),
    /// Of the next level, for tests: makes the service `tomorrow`.
    #[cfg(feature = "tomorrow")]
    Tomorrow {},
}

/// A part of a transaction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Op {
    /// Writes an entry.
    Put {
        /// The entry.
        entry: Entry,
        /// Only when the row's modify index is this; 0: only when there is
        /// none. `None`: in any case.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cas: Option<u64>,
    },
    /// Deletes an entry.
    Delete {
        /// Its key.
        key: EntryKey,
        /// As in [`Op::Put`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cas: Option<u64>,
    },
    /// Writes a config entry. Its rows are put by the same transaction.
    PutConfig {
        /// The entry.
        entry: ConfigEntry,
        /// As in [`Op::Put`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cas: Option<u64>,
    },
    /// Deletes a config entry, and those of its rows that no other one claims
    /// and this transaction does not put.
    DeleteConfig {
        /// Its key.
        key: ConfigKey,
        /// As in [`Op::Put`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cas: Option<u64>,
    },
    /// Changes nothing; the rest holds only if this row's modify index is
    /// this (0: if there is none). For what was read to make the others.
    Require {
        /// The row.
        key: RowKey,
        /// The modify index.
        cas: u64,
    },
}

/// The new state of a check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckChange {
    /// The instance's id.
    pub instance: String,
    /// The check's id.
    pub id: String,
    /// The check as it is now; `None`: it is gone.
    pub check: Option<Check>,
}

/// A step of a restore. A snapshot is larger than a log entry may be, so it
/// comes in pieces that are part of the state until they are put together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Restore {
    /// Begins one; whatever was begun before is given up.
    Begin {
        /// Random; the other steps name it.
        id: String,
    },
    /// The next piece.
    Piece {
        /// As in `Begin`.
        id: String,
        /// 0, 1, 2, …; one that is there already is fine.
        number: u64,
        /// The piece.
        text: String,
    },
    /// All pieces are there: everything is replaced.
    Finish {
        /// As in `Begin`.
        id: String,
        /// How many pieces there are.
        pieces: u64,
        /// The name of the new epoch, random.
        epoch: String,
    },
    /// Gives up.
    Abort {
        /// As in `Begin`.
        id: String,
    },
}

/// Why a command cannot be read or proposed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// This build does not know it: the server must stop.
    #[error("the log has a command that this version does not know ({0})")]
    Unknown(String),
    /// Of a level that this server does not speak: it must stop.
    #[error("the log has a command of level {needs}, and this server speaks up to {level}")]
    Level {
        /// The command's.
        needs: u32,
        /// The server's.
        level: u32,
    },
    /// Not a command at all: the log is damaged, and the server must stop.
    #[error("the log has an entry that is no command: {0}")]
    Malformed(String),
    /// Too long to be proposed.
    #[error("the command has {0} bytes; at most {MAX_COMMAND} are taken: split it")]
    TooLong(usize),
    /// A text that is longer than a restore takes.
    #[error("the snapshot has {0} bytes; at most {limit} can be restored", limit = crate::apply::MAX_RESTORE)]
    RestoreTooLong(usize),
}

impl Envelope {
    /// A command at a time, in milliseconds since the Unix epoch.
    pub fn new(time: u64, command: Command) -> Self {
        Self {
            v: ENVELOPE,
            time,
            command,
        }
    }

    /// The bytes for the log.
    pub fn encode(&self) -> Result<Vec<u8>, CommandError> {
        let bytes = serde_json::to_vec(self).map_err(|e| CommandError::Malformed(e.to_string()))?;
        match bytes.len() {
            0..=MAX_COMMAND => Ok(bytes),
            length => Err(CommandError::TooLong(length)),
        }
    }

    /// Reads what [`Self::encode`] wrote, here or on another server, as one
    /// that speaks up to `level`: [`LEVEL`], or less where a server plays an
    /// older one. An error means that this server cannot go on.
    pub fn decode(bytes: &[u8], level: u32) -> Result<Self, CommandError> {
        let envelope: Self = serde_json::from_slice(bytes).map_err(|e| refuse(bytes, &e))?;
        if envelope.v != ENVELOPE {
            return Err(CommandError::Unknown(format!("version {}", envelope.v)));
        }
        let needs = match envelope.command {
            Command::RaiseLevel { level } => level,
            ref command => command.required_level(),
        };
        match needs > level {
            true => Err(CommandError::Level { needs, level }),
            false => Ok(envelope),
        }
    }
}

/// Tells what is unknown from what is damaged.
fn refuse(bytes: &[u8], error: &serde_json::Error) -> CommandError {
    #[derive(Deserialize)]
    struct Probe {
        v: u32,
    }
    match serde_json::from_slice::<Probe>(bytes) {
        Ok(probe) if probe.v != ENVELOPE => CommandError::Unknown(format!("version {}", probe.v)),
        Ok(_) => CommandError::Unknown(error.to_string()),
        Err(_) => CommandError::Malformed(error.to_string()),
    }
}

impl Command {
    /// The cluster level that it needs.
    pub fn required_level(&self) -> u32 {
        match self {
            Self::Bootstrap { .. }
            | Self::RaiseLevel { .. }
            | Self::PutClusterConfig { .. }
            | Self::Transaction { .. }
            | Self::RegisterNode { .. }
            | Self::SyncInstances { .. }
            | Self::PutInstance { .. }
            | Self::RemoveInstance { .. }
            | Self::SetChecks { .. }
            | Self::SetNodeState { .. }
            | Self::RemoveNode { .. }
            | Self::ReapNodes { .. }
            | Self::PutCa { .. }
            | Self::Revoke { .. }
            | Self::Unrevoke { .. }
            | Self::RecordLeaves { .. }
            | Self::SweepLeaves {}
            | Self::Restore(_) => 1,
            #[cfg(feature = "tomorrow")]
            Self::Tomorrow {} => LEVEL + 1,
        }
    }

    /// The commands that replace the state by a snapshot, to be proposed one
    /// after the other; on any refusal propose [`Restore::Abort`]. Check the
    /// snapshot first, with [`State::read_snapshot`](crate::State::read_snapshot).
    pub fn restore(snapshot: &str, id: &str, epoch: &str) -> Result<Vec<Self>, CommandError> {
        if snapshot.len() > crate::apply::MAX_RESTORE {
            return Err(CommandError::RestoreTooLong(snapshot.len()));
        }
        let mut steps = vec![Restore::Begin { id: id.to_owned() }];
        let mut rest = snapshot;
        while !rest.is_empty() {
            // Escaping makes a text of JSON longer, at worst six times.
            let mut end = rest.len().min(MAX_COMMAND / 8);
            while !rest.is_char_boundary(end) {
                end -= 1;
            }
            let (text, tail) = rest.split_at(end);
            steps.push(Restore::Piece {
                id: id.to_owned(),
                number: steps.len() as u64 - 1,
                text: text.to_owned(),
            });
            rest = tail;
        }
        steps.push(Restore::Finish {
            id: id.to_owned(),
            pieces: steps.len() as u64 - 1,
            epoch: epoch.to_owned(),
        });
        Ok(steps.into_iter().map(Self::Restore).collect())
    }
}
