//! What keeps an agent from starting, or a reload from being taken.

use std::path::PathBuf;

use mesh_model::Diagnostics;

/// Why the agent did not start, or a reload changed nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// A file or folder of its own could not be used.
    #[error("{}: {source}", path.display())]
    Disk {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Another agent runs on the same data.
    #[error(
        "data_dir {}: another agent uses it; stop that one, or give this one another data_dir",
        .0.display()
    )]
    Locked(PathBuf),
    /// An address or socket could not be bound.
    #[error("{what} {address}: {source}")]
    Bind {
        /// `http_addr`, `grpc_addr` or `socket`.
        what: &'static str,
        /// Where.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// Instance files have mistakes; nothing was changed.
    #[error("instance files: {0}")]
    Files(Diagnostics),
    /// An instance of a file cannot be registered; nothing was changed.
    #[error("instance files: {0}")]
    Instance(String),
    /// An option is missing or wrong.
    #[error("{0}")]
    Option(String),
    /// The certificates could not be read again; the ones before stay.
    #[error(transparent)]
    Tls(#[from] mesh_tls::TlsError),
}

impl AgentError {
    pub(crate) fn disk(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Disk { path, source }
    }
}
