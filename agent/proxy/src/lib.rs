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
#![forbid(unsafe_code)]

mod config;
mod listen;
mod plane;
mod telemetry;
mod worker;

pub use plane::{
    AccessLog, Applied, ApplyError, Bound, BoundAddress, BoundTo, DataPlane, Drained, Limits, Options, Snapshot,
};
