//! The sidecar: what stands in front of every instance of the mesh.
//!
//! It runs thousands of times, beside applications whose requests it may never
//! drop, so the parts keep apart what changes at different speeds:
//!
//! - [`DataPlane`] is the whole of it for whoever feeds it: it takes a config,
//!   a policy and certificates, and swaps each without dropping a request.
//! - Inside are *workers*: threads with a single-threaded runtime each. A
//!   connection lives and dies on one worker, with that worker's pools,
//!   balancers and counters, so that nothing on a request's path waits for
//!   another worker.
//! - *Engines* read and write HTTP. They know bytes, not the mesh: they hand a
//!   [`call`](crate) to a handler and write what comes back. Routing, policy
//!   and telemetry are on the handler's side, so that an engine can be replaced.
mod admin;
mod blocks;
pub mod cli;
mod config;
mod control;
mod cut;
mod doors;
mod engine;
mod exchange;
mod feed;
mod fixed;
mod flow;
pub mod fuzz;
mod http;
mod inbound;
mod ingress;
mod keys;
mod lifecycle;
mod link;
mod listen;
mod listening;
mod live;
mod memory;
mod net;
mod outbound;
mod peer;
mod plane;
mod relay;
mod renewal;
mod revoked;
mod run;
mod scratch;
mod seldom;
#[cfg(test)]
mod sizes;
mod slots;
mod status;
mod stderr;
mod target;
mod telemetry;
mod through;
mod transparent;
mod tunnel;
mod wide;
mod worker;

pub use config::ConfigText;
pub use plane::{
    AccessLog, Applied, ApplyError, Bound, BoundAddress, BoundTo, DataPlane, Drained, Limits,
    LogSink, Options, Snapshot,
};

pub use transparent::{Ask, OriginalDestination, Want};

pub use run::{Ended, raise_open_files, run};
pub use stderr::StandardError;

/// The file that `mesh-proxy -static-example` prints: a [`StaticFile`] that
/// shows every part.
///
/// [`StaticFile`]: mesh_proto::config::StaticFile
pub fn static_example() -> String {
    serde_json::to_string_pretty(&fixed::example()).unwrap_or_default()
}
