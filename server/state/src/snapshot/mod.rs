//! The state as a file: JSON, a row a line.
//!
//! The first line says what it is, the last how many lines there were and what
//! their SHA-256 is; between them each line is one row, tombstone or floor with
//! the name of its table. Two states that are equal make the same bytes. A
//! line with a table or field that this build does not know is an error that
//! names the line; what older builds wrote is read for ever.

mod line;
mod read;
mod write;

use std::collections::BTreeMap;
use std::io;

pub use read::{inspect, inspect_up_to};
use serde::Serialize;

/// The version of the snapshots that this build writes.
pub const SNAPSHOT_FORMAT: u32 = 1;

/// Longest line that is read, in bytes. A row came in a command, escaped.
const MAX_LINE: usize = 64 << 20;

/// Why a snapshot cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It cannot be read as a file.
    #[error("snapshot: {0}")]
    Io(#[from] io::Error),
    /// Something else.
    #[error("this is not a snapshot: {0}")]
    NotSnapshot(String),
    /// Of a version that we do not know.
    #[error(
        "snapshot: its format is version {0}, and this build reads up to {SNAPSHOT_FORMAT}; use a newer one"
    )]
    Newer(u32),
    /// Of a cluster whose level we do not speak.
    #[error(
        "snapshot: its cluster is at level {needs}, and level {level} is the highest that is taken here; use a newer build, or upgrade every server first"
    )]
    Level {
        /// The snapshot's.
        needs: u32,
        /// The highest that is taken.
        level: u32,
    },
    /// A line that cannot be read.
    #[error("snapshot: line {line}: {message}")]
    Line {
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        message: String,
    },
    /// It ends before its last line.
    #[error("snapshot: it ends after line {0}, before its trailer: it was cut off")]
    Truncated(u64),
    /// It is not what was written.
    #[error("snapshot: {0}: it is damaged")]
    Damaged(String),
}

/// What a snapshot is, without what is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The format's version.
    pub format: u32,
    /// The cluster's level.
    pub level: u32,
    /// The epoch.
    pub epoch: String,
    /// The state's index.
    pub index: u64,
    /// The state's clock, in milliseconds since the Unix epoch.
    pub now: u64,
    /// The cluster's id; empty when there is no cluster in it.
    pub cluster_id: String,
    /// The trust domain.
    pub trust_domain: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Of all lines but the last, in hex.
    pub sha256: String,
    /// What each table has; tables without anything are left out.
    pub tables: BTreeMap<String, TableSummary>,
}

/// What a table of a snapshot has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TableSummary {
    /// Rows.
    pub rows: u64,
    /// Deletions that are remembered.
    pub tombstones: u64,
    /// Bytes of all its lines.
    pub bytes: u64,
}
