//! Consensus for the servers: a replicated log of opaque commands, applied in the
//! same order everywhere.
//!
//! It is openraft inside, and nothing of openraft outside: what the rest of the
//! server sees is a [`RaftNode`] that writes commands, and a [`Machine`] that
//! applies them. What openraft 0.9 leaves to its user, or leaves out, is here:
//!
//! - a write answers exactly one of: written, not written, not known ([`WriteError`]);
//! - many commands in one log entry, since an append waits for its fsync;
//! - a log whose single writer commits once for all that wait, and stops at its
//!   first error;
//! - snapshots that are whole or not there;
//! - messages in our own, growing encoding, over a [`Transport`] that is not ours.
//!
//! What is not here: what commands mean, TLS, who may call (a hook checks it), and
//! any decision about which servers there should be.

#![forbid(unsafe_code)]

mod batch;
mod codec;
mod config;
mod contact;
mod disk;
mod error;
mod folder;
pub mod grpc;
mod handle;
mod health;
mod log;
mod machine;
mod members;
mod net;
mod node;
mod pb;
mod read;
mod receive;
mod route;
mod sm;
mod snapshot;
mod status;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod transport;
mod types;

pub use batch::Written;
pub use config::{Limits, Peer, RaftConfig};
pub use error::{LogError, MemberError, RaftError, ReadError, SnapshotError, WriteError};
pub use folder::make_dir;
pub use health::Health;
pub use log::LogBackend;
pub use machine::{Machine, MachineError, SnapshotSource};
pub use node::RaftNode;
pub use snapshot::{SnapshotInfo, inspect};
pub use status::{Leadership, PeerInfo, Role, Status};
pub use transport::{Lane, Refusal, Request, Transport, TransportError};

#[cfg(test)]
mod tests;
