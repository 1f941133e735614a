//! The agent: what runs on every Nomad client.
//!
//! It answers Nomad as Consul's agent would, runs the checks, tells the servers what runs here,
//! and keeps the proxies of this node supplied: with certificates, and with the config that it
//! compiles of what the servers know. It keeps all of this on disk and answers from there, so
//! that neither its own restart nor the servers' absence is felt by what runs on the node.
#![forbid(unsafe_code)]

mod agent;
mod catalog;
mod checks;
mod clock;
mod compiler;
mod disk;
mod dns;
mod error;
mod facts;
mod feed;
pub mod fuzz;
mod http;
mod identity;
mod leaves;
mod local;
mod options;
mod revoked;
mod uplink;
mod wants;

#[cfg(test)]
mod testing;

pub use agent::{Addresses, Agent, AgentStatus};
pub use clock::{Clock, SystemClock};
pub use dns::DnsOptions;
pub use error::AgentError;
pub use local::{LocalCatalog, LocalRefusal};
pub use mesh_proto::bootstrap::BootstrapRequest;
pub use options::AgentOptions;

/// This build's version.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
