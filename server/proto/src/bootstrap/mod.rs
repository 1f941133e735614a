//! What a sidecar is started with: an Envoy bootstrap, of which few facts are ours.
//!
//! Nomad writes the file that its `consul connect envoy … -bootstrap` printed and hands it to
//! whatever the sidecar's image is, so the file must be one that Envoy itself would take
//! (envoy.config.bootstrap.v3.Bootstrap, in protobuf's JSON). The agent makes it, the proxy reads
//! from it: who it is, where its agent is, where its admin listener binds, and the ticket of its
//! first hello. Everything else is Envoy's and is not looked at.
//!
//! The ticket is good once, for minutes and for this proxy; nothing else in the file is secret,
//! and no token ever stands in it.

mod address;
mod place;
mod request;
mod ticket;

use std::net::IpAddr;

pub use address::{AgentAddress, HostPort};
pub use request::BootstrapRequest;
pub use ticket::Ticket;

use address::check_host;
use place::Place;

use mesh_model::{DEFAULT_NAMESPACE, Key};
use serde_json::{Value, json};

/// The longest bootstrap that is read, in bytes.
pub const MAX_BOOTSTRAP: usize = 1024 * 1024;

/// The longest id of a proxy, in bytes. Nomad's ids are made of its allocation's, group's and
/// service's names.
pub const MAX_PROXY_ID: usize = 512;

/// The cluster of the agent, by the name that Consul's own bootstrap gives it.
const AGENT_CLUSTER: &str = "local_agent";

/// What a sidecar is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// Who it is.
    pub proxy_id: String,
    /// The service whose sidecar it is.
    pub service: Key,
    /// Where its agent is.
    pub agent: AgentAddress,
    /// Where its admin listener binds; `None`: nowhere.
    pub admin: Option<HostPort>,
    /// Where it also says whether it is ready, and nothing else; `None`: nowhere.
    pub ready: Option<HostPort>,
    /// The proof of its first hello; `None` when it was taken out.
    pub ticket: Option<Ticket>,
}

/// Why a bootstrap, or a part of one, is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BootstrapError {
    /// Longer than [`MAX_BOOTSTRAP`].
    #[error("bootstrap: {0} bytes, more than the {MAX_BOOTSTRAP} allowed")]
    TooLong(usize),
    /// Not JSON.
    #[error("bootstrap: not JSON: {0}")]
    Json(String),
    /// A field is missing or is not what it should be.
    #[error("bootstrap: {place}: {reason}")]
    Field {
        /// The field, by its path in the JSON.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Bootstrap {
    /// The bootstrap as Envoy takes it, with the ticket in `node.metadata.mesh.ticket`.
    #[must_use]
    pub fn to_envoy_json(&self) -> Value {
        let (kind, address) = match &self.agent {
            AgentAddress::Tcp(at) if at.host.parse::<IpAddr>().is_ok() => ("STATIC", at.to_envoy()),
            AgentAddress::Tcp(at) => ("STRICT_DNS", at.to_envoy()),
            AgentAddress::Unix(path) => (
                "STATIC",
                json!({ "pipe": { "path": path.to_string_lossy() } }),
            ),
        };
        let mut mesh = serde_json::Map::new();
        mesh.insert("namespace".into(), json!(self.service.namespace));
        if let Some(ready) = &self.ready {
            mesh.insert("ready".into(), json!(ready.to_string()));
        }
        if let Some(ticket) = &self.ticket {
            mesh.insert("ticket".into(), json!(ticket.to_text()));
        }
        let mut out = json!({
            "node": {
                "id": self.proxy_id,
                "cluster": self.service.name,
                "metadata": { "mesh": mesh },
            },
            "static_resources": {
                "clusters": [{
                    "name": AGENT_CLUSTER,
                    "type": kind,
                    "connect_timeout": "1s",
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                            "explicit_http_config": { "http2_protocol_options": {} },
                        },
                    },
                    "load_assignment": {
                        "cluster_name": AGENT_CLUSTER,
                        "endpoints": [{
                            "lb_endpoints": [{ "endpoint": { "address": address } }],
                        }],
                    },
                }],
            },
            "dynamic_resources": {
                "lds_config": { "ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3" },
                "cds_config": { "ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3" },
                "ads_config": {
                    "api_type": "DELTA_GRPC",
                    "transport_api_version": "V3",
                    "grpc_services": [{ "envoy_grpc": { "cluster_name": AGENT_CLUSTER } }],
                },
            },
        });
        if let (Some(admin), Some(out)) = (&self.admin, out.as_object_mut()) {
            out.insert("admin".into(), json!({ "address": admin.to_envoy() }));
        }
        out
    }

    /// Reads a bootstrap.
    ///
    /// # Errors
    /// When it is too long, is not JSON, or a field that is read here is missing or wrong.
    pub fn parse(text: &str) -> Result<Self, BootstrapError> {
        if text.len() > MAX_BOOTSTRAP {
            return Err(BootstrapError::TooLong(text.len()));
        }
        let value: Value =
            serde_json::from_str(text).map_err(|e| BootstrapError::Json(e.to_string()))?;
        let root = Place::root(&value);
        let node = root.object("node")?;
        let proxy_id = node.text("id")?;
        check_proxy_id(&proxy_id).map_err(|reason| node.at("id").error(reason))?;
        let mesh = node.optional("metadata")?.map(|it| it.optional("mesh"));
        let mesh = mesh.transpose()?.flatten();
        let namespace = match &mesh {
            Some(mesh) => mesh.optional_text("namespace")?,
            None => None,
        };
        let service = Key::new(
            namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
            node.text("cluster")?,
        );
        service
            .check()
            .map_err(|e| node.at("cluster").error(e.to_string()))?;
        let ticket = match &mesh {
            Some(mesh) => match mesh.optional_text("ticket")? {
                Some(text) => Some(
                    Ticket::parse(&text)
                        .ok_or_else(|| mesh.at("ticket").error("not 64 hexadecimal digits"))?,
                ),
                None => None,
            },
            None => None,
        };
        let ready = match &mesh {
            Some(mesh) => mesh.optional_text("ready")?,
            None => None,
        };
        let ready = ready.map(|text| text.parse::<HostPort>()).transpose()?;
        Ok(Self {
            proxy_id,
            service,
            ready,
            agent: agent_address(&root)?,
            admin: admin_address(&root)?,
            ticket,
        })
    }
}

/// Checks a proxy's id: not empty, at most [`MAX_PROXY_ID`] bytes, no control characters.
///
/// # Errors
/// What is wrong with it, in words.
pub fn check_proxy_id(id: &str) -> Result<(), &'static str> {
    if id.is_empty() {
        return Err("it is empty");
    }
    if id.len() > MAX_PROXY_ID {
        return Err("it is longer than 512 bytes");
    }
    if id.chars().any(char::is_control) {
        return Err("it has a control character in it");
    }
    Ok(())
}

/// For fuzzing: any bytes are refused or read, and what is read is written and read again alike.
///
/// # Panics
/// When what was read comes back as something else: a bug.
pub fn fuzz(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(read) = Bootstrap::parse(text) {
        let again = Bootstrap::parse(&read.to_envoy_json().to_string());
        assert_eq!(again.as_ref(), Ok(&read), "a bootstrap changed on its way");
    }
    if let Ok(address) = text.parse::<AgentAddress>() {
        let again = address.to_string().parse::<AgentAddress>();
        assert_eq!(again.as_ref(), Ok(&address), "an address changed");
    }
}

/// The first endpoint of the cluster that the stream goes to.
fn agent_address(root: &Place<'_>) -> Result<AgentAddress, BootstrapError> {
    let name = stream_cluster(root)?;
    let clusters = root.object("static_resources")?.list("clusters")?;
    let mut found = None;
    for cluster in clusters {
        if cluster.optional_text("name")?.as_deref() == Some(name.as_str()) {
            found = Some(cluster);
            break;
        }
    }
    let Some(cluster) = found else {
        let clusters = root.at("static_resources").at("clusters");
        return Err(clusters.error(format!("there is none with the name {name:?}")));
    };
    let address = cluster
        .object("load_assignment")?
        .first("endpoints")?
        .first("lb_endpoints")?
        .object("endpoint")?
        .object("address")?;
    if let Some(pipe) = address.optional("pipe")? {
        let path = pipe.text("path")?;
        if path.is_empty() {
            return Err(pipe.at("path").error("it is empty"));
        }
        return Ok(AgentAddress::Unix(path.into()));
    }
    Ok(AgentAddress::Tcp(socket_address(&address)?))
}

/// The name of the cluster that the stream goes to.
fn stream_cluster(root: &Place<'_>) -> Result<String, BootstrapError> {
    let Some(dynamic) = root.optional("dynamic_resources")? else {
        return Ok(AGENT_CLUSTER.to_owned());
    };
    let Some(ads) = dynamic.optional("ads_config")? else {
        return Ok(AGENT_CLUSTER.to_owned());
    };
    // Consul's bootstrap has one object here, Envoy's own form a list.
    let service = match ads.at("grpc_services").value {
        Some(Value::Object(_)) => ads.object("grpc_services")?,
        _ => ads.first("grpc_services")?,
    };
    service.object("envoy_grpc")?.text("cluster_name")
}

fn admin_address(root: &Place<'_>) -> Result<Option<HostPort>, BootstrapError> {
    match root.optional("admin")? {
        Some(admin) => Ok(Some(socket_address(&admin.object("address")?)?)),
        None => Ok(None),
    }
}

fn socket_address(address: &Place<'_>) -> Result<HostPort, BootstrapError> {
    let socket = address.object("socket_address")?;
    let host = socket.text("address")?;
    check_host(&host).map_err(|reason| socket.at("address").error(reason))?;
    let place = socket.at("port_value");
    let port = place
        .value
        .and_then(Value::as_u64)
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port != 0)
        .ok_or_else(|| place.error("not a port from 1 to 65535"))?;
    Ok(HostPort { host, port })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Bootstrap {
        Bootstrap {
            proxy_id: "web-1-sidecar-proxy".into(),
            service: Key::of("web"),
            agent: "127.0.0.1:8502".parse().unwrap(),
            admin: Some("127.0.0.2:19001".parse().unwrap()),
            ready: Some("127.0.0.1:19101".parse().unwrap()),
            ticket: Some(Ticket::new([7; 32])),
        }
    }

    fn read(value: &Value) -> Result<Bootstrap, BootstrapError> {
        Bootstrap::parse(&value.to_string())
    }

    #[test]
    fn comes_back_as_it_went() {
        for agent in [
            "127.0.0.1:8502",
            "[::1]:8502",
            "agent.local:8502",
            "unix://alloc/tmp/consul_grpc.sock",
        ] {
            let all = [
                (None, None, None),
                (sample().admin, sample().ready, sample().ticket),
            ];
            for (admin, ready, ticket) in all {
                let it = Bootstrap {
                    agent: agent.parse().unwrap(),
                    service: Key::new("team", "web"),
                    admin,
                    ready,
                    ticket,
                    ..sample()
                };
                assert_eq!(it.agent.to_string(), agent);
                assert_eq!(read(&it.to_envoy_json()), Ok(it));
            }
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases: [(&str, Value, &str); 9] = [
            ("/node/id", json!(null), "bootstrap: node.id: missing"),
            ("/node/id", json!(""), "bootstrap: node.id: it is empty"),
            ("/node/id", json!(7), "bootstrap: node.id: not a string"),
            ("/node", json!([]), "bootstrap: node: not an object"),
            (
                "/node/metadata/mesh/ticket",
                json!("abc"),
                "bootstrap: node.metadata.mesh.ticket: not 64 hexadecimal digits",
            ),
            (
                "/static_resources/clusters/0/name",
                json!("other"),
                "bootstrap: static_resources.clusters: there is none with the name \"local_agent\"",
            ),
            (
                "/static_resources/clusters/0/load_assignment/endpoints",
                json!([]),
                "bootstrap: static_resources.clusters[0].load_assignment.endpoints: it is empty",
            ),
            (
                "/admin/address/socket_address/port_value",
                json!(70000),
                "bootstrap: admin.address.socket_address.port_value: not a port from 1 to 65535",
            ),
            (
                "/admin/address/socket_address/address",
                json!("a b"),
                "bootstrap: admin.address.socket_address.address: it is neither an address nor a name",
            ),
        ];
        for (place, value, error) in cases {
            let mut json = sample().to_envoy_json();
            *json.pointer_mut(place).unwrap() = value;
            assert_eq!(read(&json).unwrap_err().to_string(), error);
        }
        let long = " ".repeat(MAX_BOOTSTRAP + 1);
        assert!(Bootstrap::parse(&long).is_err());
        assert!(Bootstrap::parse("{").is_err());
    }

    #[test]
    fn what_is_envoys_is_not_looked_at() {
        let mut json = sample().to_envoy_json();
        json["layered_runtime"] = json!({ "layers": [1, 2] });
        json["node"]["locality"] = json!({ "zone": "a" });
        json["dynamic_resources"]["ads_config"]["grpc_services"] =
            json!({ "envoy_grpc": { "cluster_name": "local_agent" } });
        assert_eq!(read(&json), Ok(sample()));
        json["dynamic_resources"] = json!(null);
        assert_eq!(read(&json), Ok(sample()));
    }

    #[test]
    fn a_ticket_prints_nothing_of_itself() {
        let shown = format!("{:?}", sample());
        assert!(shown.contains("Ticket(hidden)") && !shown.contains("0707"));
    }

    #[test]
    fn addresses() {
        for bad in [
            "", ":1", "a:", "a:0", "a:+1", "a:65536", "::1:80", "[a:1", "unix://", "[zz:1]:2",
        ] {
            assert!(bad.parse::<AgentAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_corpus_is_replayed() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/bootstrap");
        let mut count = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            let data = std::fs::read(file.unwrap().path()).unwrap();
            fuzz(&data);
            count += 1;
        }
        assert!(count >= 6, "{count} files in {folder}");
    }

    proptest! {
        #[test]
        fn damaged_ones_never_panic(at in 0usize..3000, with in any::<u8>()) {
            let mut data = sample().to_envoy_json().to_string().into_bytes();
            let at = at % data.len();
            data[at] = with;
            fuzz(&data);
        }

        #[test]
        fn no_text_panics(text in ".{0,80}") {
            fuzz(text.as_bytes());
        }
    }
}
