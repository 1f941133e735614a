//! The streams: server to agent, agent to proxy, server to server.
//!
//! [`servers`] and [`proxies`] are the messages (protobuf; the `.proto` files
//! say how they grow). [`fact`] is what a server tells an agent, [`config`]
//! what an agent tells a proxy: JSON bodies within those messages, strict as
//! mesh_model's forms are.
#![forbid(unsafe_code)]

pub mod bootstrap;
pub mod config;
pub mod fact;

/// Messages between servers and agents, and among servers.
pub mod servers {
    /// The longest message of an agent that a server takes, in bytes.
    pub const MAX_FROM_AGENT: usize = 4 << 20;
    /// The longest catalog of one node, in bytes of its JSON: it must go in one message, with room
    /// for what stands around it.
    pub const MAX_CATALOG: usize = MAX_FROM_AGENT - (64 << 10);
    /// The longest answer to a read through an agent, in bytes.
    pub const MAX_READ: usize = 32 << 20;
    /// Topics that one agent may ask for.
    pub const MAX_TOPICS: usize = 8192;

    /// Version 1.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)] // generated
    pub mod v1 {
        tonic::include_proto!("meshctl.servers.v1");
    }
}

/// Messages between an agent and a proxy.
pub mod proxies {
    /// Version 1.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)] // generated
    pub mod v1 {
        tonic::include_proto!("meshctl.proxies.v1");
    }
}

impl From<servers::v1::Version> for mesh_model::Version {
    fn from(value: servers::v1::Version) -> Self {
        Self {
            epoch: value.epoch,
            index: value.index,
        }
    }
}

impl From<mesh_model::Version> for servers::v1::Version {
    fn from(value: mesh_model::Version) -> Self {
        Self {
            epoch: value.epoch,
            index: value.index,
        }
    }
}
