//! The servers and the agents of the mesh on Nomad: between Terraform's values and `mesh-provision`,
//! which does it.

mod agent;
mod place;
mod server;
mod words;

pub(crate) use agent::AgentResource;
pub(crate) use place::Place;
pub(crate) use server::ServerResource;
