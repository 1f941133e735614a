//! What is replicated. This crate carries bytes: what a command means, and how it
//! is encoded, is the machine's alone.

use std::io::{self, Read, Write};

use bytes::Bytes;

/// A state machine. `apply` and `restore` are called by one task at a time, in the
/// order of the log; `snapshot` is called between two of them.
///
/// The state is in memory: after a restart it is restored from the last snapshot,
/// and the entries since then are applied again. So `apply` must be deterministic:
/// no clock, no randomness, no iteration over unordered maps.
pub trait Machine: Send + Sync + 'static {
    /// Version of the snapshot body that [`Machine::snapshot`] writes.
    fn format(&self) -> u32;

    /// Applies the commands of one log entry, in order, and gives one answer for
    /// each. `index` is the entry's: strictly rising, with gaps, and **the same for
    /// all commands of one entry**. A machine that gives each row a version of its
    /// own (for check-and-set) must count commands, not entries.
    ///
    /// A command that the state refuses (a failed check-and-set, say) is an answer,
    /// not an error.
    ///
    /// # Errors
    /// An error stops the node for good: it must mean that this server cannot go on
    /// without diverging from the others. A command of a kind or version that is not
    /// known is [`MachineError::Unknown`].
    fn apply(&self, index: u64, commands: &[Bytes]) -> Result<Vec<Bytes>, MachineError>;

    /// The state as it is now: cheap, a pointer into persistent maps. It is written
    /// out later, on another thread, while entries go on being applied.
    fn snapshot(&self) -> Box<dyn SnapshotSource>;

    /// Replaces the whole state by a snapshot's body, whose bytes were verified.
    /// On an error the state must be as it was.
    ///
    /// # Errors
    /// [`MachineError::Format`] for a format that is not known.
    fn restore(&self, format: u32, body: &mut dyn Read) -> Result<(), MachineError>;
}

/// A state that waits to be written out.
pub trait SnapshotSource: Send + Sync + 'static {
    /// Writes the body of a snapshot. It may be called again after an error of
    /// `out`, and must then write the same.
    ///
    /// # Errors
    /// What `out` returned.
    fn write_to(&self, out: &mut dyn Write) -> io::Result<()>;
}

/// Why a machine cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    /// A command that a newer server wrote.
    #[error("a command is not known here: {0}; run a version of this server that knows it")]
    Unknown(String),
    /// A snapshot that a newer server wrote.
    #[error(
        "the snapshot has format {found}, this server reads up to {known}; run a newer version of it"
    )]
    Format {
        /// What the snapshot says.
        found: u32,
        /// The highest that is known here.
        known: u32,
    },
    /// Bytes that cannot be read.
    #[error("{0}")]
    Corrupt(String),
}
