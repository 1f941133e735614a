//! A registration: what an agent is told of one instance and its sidecar.
//!
//! It comes from an `instance` block or from Consul's JSON, stays with the
//! agent, and is what wiring reads. The servers get only an
//! [`Instance`](crate::Instance) of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::name::default_namespace;
use crate::{Duration, GatewayKind, Key, Status, Weights, is_default};

/// One instance, as it was registered, with every default of Consul's filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// Unique on the node. In a file the default is the service's name.
    pub id: String,
    /// The service's namespace.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// The service's name.
    pub service: String,
    /// Where the application listens; `None` is the node's address.
    #[serde(default, skip_serializing_if = "is_default")]
    pub address: Option<String>,
    /// The application's port; 0 when it has none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub port: u16,
    /// Further addresses by name (`lan`, `virtual`, …); kept and echoed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tagged_addresses: BTreeMap<String, TaggedAddress>,
    /// Its tags.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tags: Vec<String>,
    /// Its meta.
    #[serde(default, skip_serializing_if = "is_default")]
    pub meta: BTreeMap<String, String>,
    /// Its part of the requests.
    #[serde(default, skip_serializing_if = "is_default")]
    pub weights: Weights,
    /// Its checks; ids are unique on the node.
    #[serde(default, skip_serializing_if = "is_default")]
    pub checks: Vec<CheckDefinition>,
    /// Which edge of the mesh it is, if it is a gateway: its `sidecar` is it
    /// itself then, under its own id.
    #[serde(default, skip_serializing_if = "is_default")]
    pub gateway: Option<GatewayRegistration>,
    /// The sidecar in front of it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sidecar: Option<Sidecar>,
    /// Its application is in the mesh by itself: it speaks mTLS, with a
    /// certificate that it asks the agent for. It then has no sidecar.
    #[serde(default, skip_serializing_if = "is_default")]
    pub native: bool,
}

impl Registration {
    /// The key of its service.
    pub fn key(&self) -> Key {
        Key::new(&self.namespace, &self.service)
    }

    /// The id that the sidecar of instance `id` has when none is given.
    pub fn sidecar_id(id: &str) -> String {
        format!("{id}-sidecar-proxy")
    }
}

/// A gateway, as it was registered. What it does is said by the
/// [`Gateway`](crate::Gateway) of its service's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayRegistration {
    /// Which edge.
    pub kind: GatewayKind,
    /// The addresses that it binds; never empty. Of a terminating gateway the
    /// ports as well; an ingress has a port of its own at each listener.
    pub bind: Vec<TaggedAddress>,
}

/// A further address of an instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaggedAddress {
    /// The address.
    pub address: String,
    /// The port.
    pub port: u16,
}

/// The sidecar of an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sidecar {
    /// The proxy's id, unique on the node; by default the instance's id with
    /// `-sidecar-proxy`.
    pub id: String,
    /// Its inbound address as others reach it; `None` is the node's address.
    #[serde(default, skip_serializing_if = "is_default")]
    pub address: Option<String>,
    /// Its inbound port as others reach it. The agent picks one (21000 to
    /// 21255, as Consul does) when a registration has none: 0 until then.
    pub port: u16,
    /// Its own tags; empty: the instance's.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tags: Vec<String>,
    /// Its own meta; empty: the instance's.
    #[serde(default, skip_serializing_if = "is_default")]
    pub meta: BTreeMap<String, String>,
    /// Its checks, of the sidecar itself.
    #[serde(default, skip_serializing_if = "is_default")]
    pub checks: Vec<CheckDefinition>,
    /// How it is wired.
    #[serde(default, skip_serializing_if = "is_default")]
    pub proxy: ProxyRegistration,
}

/// How a sidecar is wired to its application.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyRegistration {
    /// How the application's own calls reach the sidecar.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: ProxyMode,
    /// Where the application listens; `None` is 127.0.0.1.
    #[serde(default, skip_serializing_if = "is_default")]
    pub local_service_address: Option<String>,
    /// The application's port; `None` is the instance's.
    #[serde(default, skip_serializing_if = "is_default")]
    pub local_service_port: Option<u16>,
    /// Where the sidecar listens for other sidecars; `None` is every address
    /// (`0.0.0.0`). From `bind_address` of the `config`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub bind_address: Option<String>,
    /// The port of the same; `None` is the sidecar's. From `bind_port` of the
    /// `config`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub bind_port: Option<u16>,
    /// The services that the application calls, each at a local port.
    #[serde(default, skip_serializing_if = "is_default")]
    pub upstreams: Vec<Upstream>,
    /// Paths that are open to everyone, without mTLS, for checks from outside.
    #[serde(default, skip_serializing_if = "is_default")]
    pub expose: Vec<ExposePath>,
    /// Further keys that the user wrote under `config`, as written.
    #[serde(default, skip_serializing_if = "is_default")]
    pub config: BTreeMap<String, serde_json::Value>,
}

/// How the application's own calls reach the sidecar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyMode {
    /// At the local port of an upstream.
    #[default]
    Direct,
    /// At any address: the kernel redirects them.
    Transparent,
}

/// A service that the application calls at a local port or socket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// The service's namespace; `None` is the instance's own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub destination_namespace: Option<String>,
    /// The service's name.
    pub destination_name: String,
    /// The mesh's datacenter that is meant; `None` is this one. Another one's
    /// services are not called: whoever wires knows which this is.
    #[serde(default, skip_serializing_if = "is_default")]
    pub datacenter: Option<String>,
    /// The address that the application calls; `None` is 127.0.0.1.
    #[serde(default, skip_serializing_if = "is_default")]
    pub local_bind_address: Option<String>,
    /// The port that the application calls; 0 when a socket is given.
    #[serde(default, skip_serializing_if = "is_default")]
    pub local_bind_port: u16,
    /// A Unix socket in place of the port.
    #[serde(default, skip_serializing_if = "is_default")]
    pub local_bind_socket_path: Option<String>,
    /// The socket's mode, octal: `0660`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub local_bind_socket_mode: Option<String>,
    /// Keys that the user wrote under `config`, as written.
    #[serde(default, skip_serializing_if = "is_default")]
    pub config: BTreeMap<String, serde_json::Value>,
}

/// A path of the application that is open without mTLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExposePath {
    /// The path, exactly.
    pub path: String,
    /// The application's port for it.
    pub local_path_port: u16,
    /// Where the sidecar listens for it.
    pub listener_port: u16,
    /// `http` (default) or `http2`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub protocol: String,
}

/// A check: what the agent does to learn how an instance is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckDefinition {
    /// Unique on the node.
    pub id: String,
    /// Its name, for people.
    pub name: String,
    /// What is done.
    pub kind: CheckKind,
    /// How often; 1 s or more. Not used by TTL and alias checks.
    pub interval: Duration,
    /// How long it may take.
    pub timeout: Duration,
    /// Its state before the first run; `None` is critical.
    #[serde(default, skip_serializing_if = "is_default")]
    pub initial: Option<Status>,
    /// It passes after so many successes in a row; 0 and 1: at once.
    #[serde(default, skip_serializing_if = "is_default")]
    pub success_before_passing: u32,
    /// It warns after so many failures in a row; 0: as critical.
    #[serde(default, skip_serializing_if = "is_default")]
    pub failures_before_warning: u32,
    /// It is critical after so many failures in a row; 0 and 1: at once.
    #[serde(default, skip_serializing_if = "is_default")]
    pub failures_before_critical: u32,
}

/// What a check does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CheckKind {
    /// Asks for a URL: 2xx passes, 429 warns, all else is critical.
    Http {
        /// `http://` or `https://`.
        url: String,
        /// `GET` when empty.
        #[serde(default, skip_serializing_if = "is_default")]
        method: String,
        /// Headers to send.
        #[serde(default, skip_serializing_if = "is_default")]
        headers: BTreeMap<String, Vec<String>>,
        /// Body to send.
        #[serde(default, skip_serializing_if = "is_default")]
        body: String,
        /// The name that the certificate must have; empty: the URL's host.
        #[serde(default, skip_serializing_if = "is_default")]
        tls_server_name: String,
        /// The certificate is not verified.
        #[serde(default, skip_serializing_if = "is_default")]
        tls_skip_verify: bool,
    },
    /// Makes a connection to `host:port`.
    Tcp {
        /// `host:port`.
        address: String,
    },
    /// Asks `grpc.health.v1.Health/Check`.
    Grpc {
        /// `host:port`.
        address: String,
        /// The service that is asked for; empty: the server as a whole.
        #[serde(default, skip_serializing_if = "is_default")]
        service: String,
        /// Over TLS.
        #[serde(default, skip_serializing_if = "is_default")]
        tls: bool,
        /// The name that the certificate must have; empty: the host.
        #[serde(default, skip_serializing_if = "is_default")]
        tls_server_name: String,
        /// The certificate is not verified.
        #[serde(default, skip_serializing_if = "is_default")]
        tls_skip_verify: bool,
    },
    /// Critical when not updated for so long.
    Ttl {
        /// How long an update holds.
        ttl: Duration,
    },
    /// As the other instance of this node is; passing when that has no checks.
    Alias {
        /// The other's id.
        instance: String,
    },
}
