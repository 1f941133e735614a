//! The state machine of the servers: tables, apply, watch.
//!
//! Why a crate of its own: what is replicated must be a pure function of the
//! log, so there is no I/O in here, no clock and no randomness. [`State`] is a
//! value: ordered persistent maps, so that a snapshot is a clone of a pointer,
//! a read takes no lock, and an order of iteration is the same everywhere.
//! [`State::apply`] makes the next one of [`Command`]s, and says what it
//! [`Touched`]; [`Store`] holds the present one and wakes who waits for that.
//!
//! **Indexes.** Every command that changes something gets the state's next
//! index; the rows that it changes carry it. It is the state's own count and
//! not Raft's: one log entry holds many commands, and two of them must not
//! share an index, since check-and-set could then not tell them apart. A
//! restore begins an epoch and goes on counting, so that an index never goes
//! back even for those who do not look at the epoch.
#![forbid(unsafe_code)]

mod apply;
mod check;
mod command;
mod facts;
pub mod fuzz;
mod key;
mod leaves;
mod outcome;
mod snapshot;
mod state;
mod store;
mod stored;
mod table;
mod touched;
mod virtuals;

pub use apply::{Commit, MAX_RESTORE};
pub use command::{CheckChange, Command, CommandError, Envelope, LEVEL, MAX_COMMAND, Op, Restore};
pub use facts::{Endpoint, Health, ServiceSummary};
pub use key::{ConfigKey, InstanceKey, Pair, Prefix, RowKey, TableName, Topic, Virtual, WatchKey};
pub use leaves::{MAX_LEAVES, MAX_REASON, MAX_REVOCATIONS, Revocation, Revoked, SignedLeaf};
pub use outcome::{Applied, Change, Dangling, Finding, OpResult, Outcome, Referrer, Refusal};
pub use snapshot::{SNAPSHOT_FORMAT, SnapshotError, Summary, TableSummary, inspect, inspect_up_to};
pub use state::State;
pub use store::{Store, Watch};
pub use stored::{Cluster, ConfigEntry, Registered};
pub use touched::Touched;
