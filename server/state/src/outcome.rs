//! What became of a command.
//!
//! It is not part of the log: it goes from the server that applied the command
//! to the one that proposed it, as JSON.

use std::collections::BTreeSet;
use std::fmt;

use mesh_model::{EntryKey, Version};
use serde::{Deserialize, Serialize};

use crate::key::RowKey;
pub use crate::table::Change;

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It holds.
    Applied(Applied),
    /// The state is as it was.
    Refused(Refusal),
}

/// What a command did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// The first version at which it holds.
    pub version: Version,
    /// For a transaction: each operation's in its order, without `Require`,
    /// then the rows that went with a config entry. For other commands: the
    /// rows that changed.
    pub results: Vec<OpResult>,
    /// What is allowed but looks wrong.
    #[serde(default)]
    pub warnings: Vec<Finding>,
}

/// What became of one row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpResult {
    /// The row.
    pub key: RowKey,
    /// What was done to it.
    pub change: Change,
    /// Its modify index now; of a deleted one, the index of its deletion.
    pub index: u64,
}

/// Something that validation found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The entry that it is about.
    pub key: Option<EntryKey>,
    /// What it is, as a path: `route web: rule canary: …`.
    pub message: String,
}

/// An entry that others need as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dangling {
    /// The entry that the write changes or deletes.
    pub key: EntryKey,
    /// Who needs what it was.
    pub referrers: Vec<Referrer>,
}

/// An entry that would be left without what it needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Referrer {
    /// The entry.
    pub by: EntryKey,
    /// What it needs, with the place: `route web: rule canary: to v2: …`.
    pub message: String,
}

impl fmt::Display for Dangling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: BTreeSet<String> = self.referrers.iter().map(|r| r.by.to_string()).collect();
        let names: Vec<String> = names.into_iter().collect();
        write!(
            f,
            "{}: is still referred to by {}; change or delete that first, or in the same write",
            self.key,
            names.join(", ")
        )
    }
}

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The first command of a cluster was not yet applied.
    #[error("the cluster is not bootstrapped yet; try again when it has a leader")]
    NotBootstrapped,
    /// There is a cluster already, another one.
    #[error("this cluster is bootstrapped already, as {cluster_id}")]
    AlreadyBootstrapped {
        /// Its id.
        cluster_id: String,
    },
    /// Not every server speaks it yet.
    #[error(
        "this needs cluster level {needs}, and the cluster is at {has}; upgrade every server first"
    )]
    Level {
        /// The command's.
        needs: u32,
        /// The cluster's.
        has: u32,
    },
    /// A check-and-set that did not hold.
    #[error(
        "{key}: has changed (index {actual}, expected {expected}; 0 is \"not there\"); read it again and retry"
    )]
    Conflict {
        /// The row.
        key: RowKey,
        /// As the caller thought.
        expected: u64,
        /// As it is; 0 when there is none.
        actual: u64,
    },
    /// Another owner's row.
    #[error("{key}: belongs to {owner}; change it there, or force")]
    OwnedBy {
        /// The row.
        key: RowKey,
        /// Who wrote it.
        owner: String,
    },
    /// Every row has an owner.
    #[error("the write names no owner; give it one, such as `cli`")]
    NoOwner,
    /// Others refer to what would be gone.
    #[error("{}", dangling(entries))]
    Dangling {
        /// What would be gone, and who needs it.
        entries: Vec<Dangling>,
    },
    /// What was written is wrong, in itself or with the rest.
    #[error("{}", lines(findings))]
    Invalid {
        /// What is wrong.
        findings: Vec<Finding>,
    },
    /// There is no such row.
    #[error("{key}: does not exist")]
    NotFound {
        /// The row.
        key: RowKey,
    },
    /// An agent's change that came by another stream than the node's last.
    #[error("node {node}: another stream of its agent began; this one's changes are not taken")]
    Superseded {
        /// The node.
        node: String,
    },
    /// A restore that cannot go on.
    #[error("restore: {reason}")]
    Restore {
        /// Why.
        reason: String,
    },
}

impl Refusal {
    /// A refusal for one reason, of one row.
    pub(crate) fn invalid(key: impl Into<RowKey>, message: impl std::fmt::Display) -> Self {
        let key = key.into();
        Self::Invalid {
            findings: vec![Finding {
                message: format!("{key}: {message}"),
                key: key.entry(),
            }],
        }
    }
}

fn dangling(entries: &[Dangling]) -> String {
    let lines: Vec<String> = entries.iter().map(Dangling::to_string).collect();
    lines.join("\n")
}

fn lines(findings: &[Finding]) -> String {
    let lines: Vec<&str> = findings.iter().map(|f| f.message.as_str()).collect();
    lines.join("\n")
}

impl Outcome {
    /// As the proposer wants it.
    pub fn into_result(self) -> Result<Applied, Refusal> {
        match self {
            Self::Applied(applied) => Ok(applied),
            Self::Refused(refusal) => Err(refusal),
        }
    }

    /// The bytes for the proposer.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}
