//! The catalog: what runs where, as the servers hold it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::default_namespace;
use crate::{GatewayKind, Key, is_default};

/// A machine with an agent on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// The id in the agent's certificate.
    pub id: String,
    /// The host's name.
    pub name: String,
    /// The address at which other nodes reach it.
    pub address: String,
    /// The agent's version, for people.
    #[serde(default, skip_serializing_if = "is_default")]
    pub version: String,
    /// Facts for locality and filters: Nomad's datacenter, region, …
    #[serde(default, skip_serializing_if = "is_default")]
    pub meta: BTreeMap<String, String>,
    /// Whether its agent is heard.
    #[serde(default, skip_serializing_if = "is_default")]
    pub state: NodeState,
    /// Which of its agent's streams speaks for it: the index at which that
    /// began. It is the servers' to say; an agent leaves it 0.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stream: u64,
}

/// Whether a node's agent is heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum NodeState {
    /// It is.
    #[default]
    Alive,
    /// Not since then: its instances are "unknown", and used when no passing
    /// one is left.
    Silent {
        /// Seconds since the Unix epoch, by the clock of the leader that said so.
        since: u64,
    },
}

/// One registered endpoint of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// The service's namespace.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// The service's name.
    pub service: String,
    /// Unique on its node.
    pub id: String,
    /// The id of its node.
    pub node: String,
    /// Where the application itself listens; not reachable from other nodes
    /// where it has a network namespace of its own.
    pub address: String,
    /// The application's port; 0 when it has none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub port: u16,
    /// Its tags.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tags: Vec<String>,
    /// Its meta.
    #[serde(default, skip_serializing_if = "is_default")]
    pub meta: BTreeMap<String, String>,
    /// Its part of the requests.
    #[serde(default, skip_serializing_if = "is_default")]
    pub weights: Weights,
    /// The sidecar in front of it, or itself where it is native; without it is
    /// not called through the mesh.
    #[serde(default, skip_serializing_if = "is_default")]
    pub proxy: Option<ProxyEndpoint>,
    /// Which edge of the mesh it is, if it is a gateway; its `proxy` is it
    /// itself then, and nobody's sidecar.
    #[serde(default, skip_serializing_if = "is_default")]
    pub gateway: Option<GatewayKind>,
    /// The checks of the instance and of its sidecar, by id.
    #[serde(default, skip_serializing_if = "is_default")]
    pub checks: BTreeMap<String, Check>,
}

impl Instance {
    /// The key of its service.
    pub fn key(&self) -> Key {
        Key::new(&self.namespace, &self.service)
    }

    /// The worst state of its checks; passing when it has none.
    pub fn status(&self) -> Status {
        self.checks
            .values()
            .map(|check| check.status)
            .max()
            .unwrap_or(Status::Passing)
    }

    /// Its part of the requests in its present state.
    pub fn weight(&self) -> u32 {
        match self.status() {
            Status::Passing => self.weights.passing,
            Status::Warning => self.weights.warning,
            Status::Critical => 0,
        }
    }
}

/// An instance's part of the requests, relative to the others'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weights {
    /// While all its checks pass.
    pub passing: u32,
    /// While one warns.
    pub warning: u32,
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            passing: 1,
            warning: 1,
        }
    }
}

/// What stands for an instance in the mesh, as others call it: the sidecar in
/// front of it or, of a native one, the application itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyEndpoint {
    /// The proxy's id, unique on its node; of a native instance its own.
    pub id: String,
    /// The address of its inbound port, reachable from other nodes.
    pub address: String,
    /// Its inbound port. 0 only where it is native: it calls and is not called.
    pub port: u16,
    /// There is no sidecar: the application speaks mTLS itself, and shows the
    /// service's certificate.
    #[serde(default, skip_serializing_if = "is_default")]
    pub native: bool,
}

/// A check's state. What it printed stays with the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Its name, for people.
    pub name: String,
    /// Its state.
    pub status: Status,
}

/// The state of a check, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// All is well.
    Passing,
    /// It works, with less weight.
    Warning,
    /// It gets no requests.
    Critical,
}

impl Status {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// Reads what [`Self::as_str`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Passing, Self::Warning, Self::Critical]
            .into_iter()
            .find(|status| status.as_str() == text)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
