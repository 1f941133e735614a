//! Why a server does not start, and why a write or a read was not done.

use std::net::SocketAddr;
use std::path::PathBuf;

use mesh_raft::{RaftError, ReadError, WriteError};
use mesh_state::{CommandError, Refusal};
use mesh_tls::TlsError;

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// An option makes no sense.
    #[error("server: {0}")]
    Options(String),
    /// Plaintext would leave the machine.
    #[error(
        "server: the HTTP API would be in plaintext on {0}, which others reach; give tls files, or a loopback address"
    )]
    Plaintext(SocketAddr),
    /// An address cannot be listened on.
    #[error("server: cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The data folder cannot be used.
    #[error("server: {}: {source}", path.display())]
    Data {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file that holds the server's id is not what it should be.
    #[error(
        "server: {}: does not hold a server's id; restore it, or remove the whole folder and join as a new server",
        path.display()
    )]
    ServerId {
        /// The file.
        path: PathBuf,
    },
    /// The log or a snapshot cannot be used.
    #[error("server: {0}")]
    Raft(#[from] RaftError),
    /// The certificates cannot be used.
    #[error("server: {0}")]
    Tls(#[from] TlsError),
    /// Something else.
    #[error("server: {0}")]
    Internal(String),
}

/// Why a write was not done.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum WriteFailure {
    /// The state refused it.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// It was not agreed on.
    #[error("{0}")]
    Raft(#[from] WriteError),
    /// It cannot be written down.
    #[error("{0}")]
    Command(#[from] CommandError),
    /// The leader's answer cannot be read.
    #[error("the write was made, but its answer cannot be read: {0}; read before writing again")]
    Answer(String),
}

impl WriteFailure {
    /// Whether the same write may do later what it did not do now, and doing
    /// it again does no harm to an idempotent one.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Refused(Refusal::NotBootstrapped) => true,
            Self::Refused(_) | Self::Command(_) => false,
            Self::Raft(WriteError::TooLarge { .. }) => false,
            Self::Raft(_) | Self::Answer(_) => true,
        }
    }
}

/// Why a read as fresh as it was asked for cannot be given.
pub(crate) type ReadFailure = ReadError;
