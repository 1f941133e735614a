//! The server: HTTP API, feed to agents, peers, CA.
//!
//! The state is a value in [`mesh_state`], agreed on through [`mesh_raft`]; this crate is what
//! stands around it. Everything that changes anything is a command through consensus; everything
//! that reads is a function of the state. What is only so now (who is connected, who is heard, what
//! a proxy acked) lives in memory and starts anew with the process.
//!
//! | part | is |
//! |---|---|
//! | `api` | HTTP and JSON on 8700, made from one table of routes |
//! | `feed` | one stream an agent on 8701: facts down, catalog and acks up |
//! | `peers` | servers among themselves, beside Raft |
//! | `bootstrap` | how a server comes to a cluster |
//! | `leader` | what the leader does beside leading |
//! | `lease` | who is heard |
//! | `local` | what is registered with this server itself |
//! | `ca` | opening the CA, signing, renewing |
#![forbid(unsafe_code)]

mod api;
mod bootstrap;
mod ca;
mod clock;
mod core;
mod error;
mod feed;
pub mod fuzz;
mod leader;
mod lease;
mod listen;
mod local;
mod machine;
mod metrics;
mod options;
mod peers;
mod server;

pub use api::openapi;
pub use clock::{Clock, ManualClock, SystemClock};
pub use error::ServerError;
pub use local::{Local, LocalChange};
pub use mesh_raft::make_dir;
pub use options::{
    ApiListener, Formation, Limits, Listen, ServerOptions, Timing, aws_place, vault_place,
};
pub use server::{Addresses, Server};

#[cfg(test)]
mod tests;
