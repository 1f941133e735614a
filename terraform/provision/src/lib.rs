//! The mesh's servers and agents as jobs of Nomad: what is wanted, what is, and the next safe step.
//!
//! **One job for each server.** A job of three groups, or of three allocations, is changed as a
//! whole by whoever runs it again, reverts or stops it by hand, and Nomad then takes its groups all
//! at once: the quorum goes with one mistake. With a job for each server a mistake costs one server,
//! which is within the quorum, and the order of changes is this crate's alone. A server's machine is
//! chosen once and stands in its job as a constraint, since its data are there; the folder of its
//! data has a name made with the server, so that one that was taken out of the cluster, and comes
//! back, never begins with what it was.
//!
//! **Nothing is remembered.** What to do next is decided from what Nomad and the servers say at that
//! moment ([`plan`]), one step at a time; whoever is killed between two steps, or within one, goes
//! on the next time as if nothing had been. Every write to Nomad says which version of the job it
//! replaces, so two at once do not undo each other.
//!
//! **No secret is in a job.** Keys and tokens are variables of Nomad that only the job's own tasks
//! can read, and reach them as files in their secrets folder. Whether they changed is told by the
//! variable's index, which stands in the job's meta.
//!
//! This crate knows nothing of Terraform.
#![forbid(unsafe_code)]

mod agents;
mod certs;
mod converge;
mod describe;
mod ending;
mod error;
mod job;
mod machines;
mod mesh;
mod nomad;
mod permission;
pub mod plan;
mod progress;
mod say;
mod secret;
mod world;

pub use agents::{AgentsInForce, apply_agents, destroy_agents, read_agents};
pub use converge::apply_servers;
pub use describe::{
    Agents, AgentsTls, Binary, MAX_SERVERS, Machine, Sealing, Servers, ServersTls, Timeouts,
};
pub use ending::destroy_servers;
pub use error::ProvisionError;
pub use mesh::MeshAccess;
pub use nomad::Cluster;
pub use progress::{Control, Progress};
pub use secret::Secret;
pub use world::{ServerInForce, ServersInForce, read_servers};
