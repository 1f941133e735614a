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
