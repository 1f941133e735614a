//! `/v1/agent/self` and `/v1/agent/checks`: the agent and its checks as Consul shows them.

use std::net::SocketAddr;

use mesh_model::{CheckDefinition, CheckKind, Registration, Status};

use serde_json::{Value, json};

use crate::filter::{Kind, Selectors};

/// The version of Consul whose API this is: what Nomad's constraints compare. No `+ent` in it,
/// since Nomad then asks for namespaces.
pub const CONSUL_VERSION: &str = "1.20.0";

/// Envoy's version, newest first, for images that name it by a variable.
const ENVOY_VERSIONS: [&str; 1] = ["1.31.0"];

/// What the agent says of itself.
#[derive(Clone, Debug)]
pub struct SelfInfo<'a> {
    /// The mesh's datacenter.
    pub datacenter: &'a str,
    /// The node's name.
    pub node_name: &'a str,
    /// The node's id.
    pub node_id: &'a str,
    /// Our own version.
    pub version: &'a str,
    /// The port of the feed to proxies; Nomad finds it by this.
    pub grpc_port: u16,
    /// Where DNS answers; `None` where it does not.
    pub dns: Option<SocketAddr>,
    /// Further facts of ours, under the key `Mesh`.
    pub mesh: Value,
}

/// The answer of `GET /v1/agent/self`. Every top-level value is an object: Nomad decodes it as a
/// map of maps, and anything else would break all of it.
#[must_use]
pub fn self_json(info: &SelfInfo<'_>) -> Value {
    let dns_addresses = info.dns.map_or_else(Vec::new, |at| {
        vec![format!("udp://{at}"), format!("tcp://{at}")]
    });
    json!({
        "Config": {
            "Datacenter": info.datacenter,
            "NodeName": info.node_name,
            "NodeID": info.node_id,
            "Revision": info.version,
            "Server": false,
            "Version": CONSUL_VERSION,
        },
        "DebugConfig": {
            "ConnectEnabled": true,
            "GRPCPort": info.grpc_port,
            "GRPCTLSPort": -1,
            "DNSPort": info.dns.map_or(-1, |at| i32::from(at.port())),
            "DNSAddrs": dns_addresses,
        },
        "Member": {
            "Name": info.node_name,
            "Tags": {
                "build": format!("{CONSUL_VERSION}:{}", info.version.replace(':', "-")),
                "dc": info.datacenter,
                "role": "node",
                "segment": "",
            },
        },
        "Stats": {},
        "Meta": {},
        "Coord": {},
        "xDS": {
            "SupportedProxies": { "envoy": ENVOY_VERSIONS },
            "Port": info.grpc_port,
            "Ports": { "Plaintext": info.grpc_port, "TLS": -1 },
        },
        "Mesh": info.mesh.as_object().map_or_else(|| json!({}), |_| info.mesh.clone()),
    })
}

/// Selectors of an entry of `GET /v1/agent/services`.
pub const SERVICES: Selectors = &[
    ("Address", Kind::Text),
    ("Connect.Native", Kind::Flag),
    ("Datacenter", Kind::Text),
    ("EnableTagOverride", Kind::Flag),
    ("ID", Kind::Text),
    ("Kind", Kind::Text),
    ("Meta", Kind::Map),
    ("Port", Kind::Number),
    ("Proxy.DestinationServiceID", Kind::Text),
    ("Proxy.DestinationServiceName", Kind::Text),
    ("Proxy.LocalServiceAddress", Kind::Text),
    ("Proxy.LocalServicePort", Kind::Number),
    ("Proxy.Mode", Kind::Text),
    ("Proxy.Upstreams", Kind::Objects),
    ("Proxy.Upstreams.DestinationName", Kind::Text),
    ("Proxy.Upstreams.LocalBindPort", Kind::Number),
    ("Service", Kind::Text),
    ("SocketPath", Kind::Text),
    ("Tags", Kind::List),
    ("Weights.Passing", Kind::Number),
    ("Weights.Warning", Kind::Number),
];

/// Selectors of an entry of `GET /v1/agent/checks`.
pub const CHECKS: Selectors = &[
    ("CheckID", Kind::Text),
    ("Interval", Kind::Text),
    ("Name", Kind::Text),
    ("Node", Kind::Text),
    ("Notes", Kind::Text),
    ("Output", Kind::Text),
    ("ServiceID", Kind::Text),
    ("ServiceName", Kind::Text),
    ("ServiceTags", Kind::List),
    ("Status", Kind::Text),
    ("Timeout", Kind::Text),
    ("Type", Kind::Text),
];

/// A check as `GET /v1/agent/checks` shows it. With `sidecar` it is one of the sidecar's, which
/// is a service of its own for Consul.
#[must_use]
pub fn check_json(
    node: &str,
    registration: &Registration,
    sidecar: bool,
    check: &CheckDefinition,
    status: Status,
    output: &str,
) -> Value {
    let of_sidecar = registration.sidecar.as_ref().filter(|_| sidecar);
    let (id, name) = match of_sidecar {
        Some(sidecar) => (
            sidecar.id.clone(),
            format!("{}-sidecar-proxy", registration.service),
        ),
        None => (registration.id.clone(), registration.service.clone()),
    };
    let runs = !matches!(check.kind, CheckKind::Ttl { .. } | CheckKind::Alias { .. });
    let shown = |duration: mesh_model::Duration| match runs {
        true => duration.to_string(),
        false => String::new(),
    };
    json!({
        "Node": node,
        "CheckID": check.id,
        "Name": check.name,
        "Status": status.as_str(),
        "Notes": "",
        "Output": output,
        "ServiceID": id,
        "ServiceName": name,
        "ServiceTags": registration.tags,
        "Type": check_type(&check.kind),
        "Interval": shown(check.interval),
        "Timeout": shown(check.timeout),
        "Definition": {},
    })
}

/// Consul's word for a kind of check.
#[must_use]
pub fn check_type(kind: &CheckKind) -> &'static str {
    match kind {
        CheckKind::Http { .. } => "http",
        CheckKind::Tcp { .. } => "tcp",
        CheckKind::Grpc { .. } => "grpc",
        CheckKind::Ttl { .. } => "ttl",
        CheckKind::Alias { .. } => "alias",
    }
}
