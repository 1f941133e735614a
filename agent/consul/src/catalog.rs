//! `/v1/catalog/…` and `/v1/health/…`: the servers' rows as Consul shows them.
//!
//! A sidecar is a service of its own for Consul, `<service>-sidecar-proxy`, and a part of its instance
//! for us. Of a row's checks those are the sidecar's that have the ids which Consul gives them. A
//! native instance stands for itself where others have a sidecar.

use std::collections::{BTreeMap, BTreeSet};

use mesh_model::{Check, GatewayKind, ProxyEndpoint, Status, Weights};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::filter::{Kind, Selectors};
use crate::gateway;

/// What the name of a sidecar's service ends with.
pub const SIDECAR: &str = "-sidecar-proxy";

/// An instance, as the servers' API has it; what else it has is not shown.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Instance {
    namespace: String,
    service: String,
    id: String,
    node: String,
    node_name: String,
    node_address: String,
    node_state: String,
    address: String,
    port: u16,
    tags: Vec<String>,
    meta: BTreeMap<String, String>,
    weights: Weights,
    proxy: Option<ProxyEndpoint>,
    #[serde(default)]
    gateway: Option<GatewayKind>,
    checks: BTreeMap<String, Check>,
    create_index: u64,
    modify_index: u64,
}

/// A node, likewise.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Node {
    id: String,
    name: String,
    address: String,
    meta: BTreeMap<String, String>,
    create_index: u64,
    modify_index: u64,
}

/// A service that has instances, likewise.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Service {
    namespace: String,
    name: String,
    tags: Vec<String>,
}

/// Which of the two that an instance is for Consul.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The application.
    Application,
    /// The sidecar in front of it.
    Sidecar,
}

/// Selectors of [`Instance::catalog`].
pub const CATALOG: Selectors = &[
    ("Address", Kind::Text),
    ("Datacenter", Kind::Text),
    ("ID", Kind::Text),
    ("Node", Kind::Text),
    ("ServiceAddress", Kind::Text),
    ("ServiceConnect.Native", Kind::Flag),
    ("ServiceID", Kind::Text),
    ("ServiceKind", Kind::Text),
    ("ServiceMeta", Kind::Map),
    ("ServiceName", Kind::Text),
    ("ServicePort", Kind::Number),
    ("ServiceTags", Kind::List),
    ("ServiceWeights.Passing", Kind::Number),
    ("ServiceWeights.Warning", Kind::Number),
];

/// Selectors of [`Instance::health`].
pub const HEALTH: Selectors = &[
    ("Checks", Kind::Objects),
    ("Checks.CheckID", Kind::Text),
    ("Checks.Name", Kind::Text),
    ("Checks.ServiceID", Kind::Text),
    ("Checks.ServiceName", Kind::Text),
    ("Checks.Status", Kind::Text),
    ("Node.Address", Kind::Text),
    ("Node.Datacenter", Kind::Text),
    ("Node.ID", Kind::Text),
    ("Node.Node", Kind::Text),
    ("Service.Address", Kind::Text),
    ("Service.Connect.Native", Kind::Flag),
    ("Service.ID", Kind::Text),
    ("Service.Kind", Kind::Text),
    ("Service.Meta", Kind::Map),
    ("Service.Port", Kind::Number),
    ("Service.Service", Kind::Text),
    ("Service.Tags", Kind::List),
    ("Service.Weights.Passing", Kind::Number),
    ("Service.Weights.Warning", Kind::Number),
];

/// Selectors of [`Node::json`].
pub const NODE: Selectors = &[
    ("Address", Kind::Text),
    ("Datacenter", Kind::Text),
    ("ID", Kind::Text),
    ("Meta", Kind::Map),
    ("Node", Kind::Text),
];

impl Instance {
    /// Whether it has this part.
    #[must_use]
    pub fn has(&self, part: Part) -> bool {
        part == Part::Application || self.sidecar().is_some()
    }

    /// Which part of it is in the mesh: what others call; none: it is not called through the mesh.
    #[must_use]
    pub fn in_mesh(&self) -> Option<Part> {
        self.proxy.as_ref().map(|_| match self.sidecar() {
            Some(_) => Part::Sidecar,
            None => Part::Application,
        })
    }

    fn is_native(&self) -> bool {
        self.proxy.as_ref().is_some_and(|proxy| proxy.native)
    }

    /// Whether it has all of these tags, in any case, as Consul compares them.
    #[must_use]
    pub fn has_tags(&self, tags: &[String]) -> bool {
        let has = |tag: &String| self.tags.iter().any(|own| own.eq_ignore_ascii_case(tag));
        tags.iter().all(has)
    }

    /// Whether its node is heard and all checks of this part pass.
    #[must_use]
    pub fn is_passing(&self, part: Part) -> bool {
        let mut checks = self.checks_of(part);
        self.is_heard() && checks.all(|(_, check)| check.status == Status::Passing)
    }

    /// Its part of the requests; `None` where it gets none: its node is not heard, or a check of
    /// this part is critical.
    #[must_use]
    pub fn weight(&self, part: Part) -> Option<u32> {
        let worst = self.checks_of(part).map(|(_, check)| check.status).max();
        match worst.unwrap_or(Status::Passing) {
            Status::Passing if self.is_heard() => Some(self.weights.passing),
            Status::Warning if self.is_heard() => Some(self.weights.warning),
            Status::Passing | Status::Warning | Status::Critical => None,
        }
    }

    /// Where this part is: its address, or its node's, and its port.
    #[must_use]
    pub fn place(&self, part: Part) -> (&str, u16) {
        let shown = self.shown(part);
        let address = Some(shown.address).filter(|it| !it.is_empty());
        (address.unwrap_or(&self.node_address), shown.port)
    }

    /// A row of `GET /v1/catalog/service/:name`.
    #[must_use]
    pub fn catalog(&self, part: Part, datacenter: &str) -> Value {
        let shown = self.shown(part);
        json!({
            "ID": self.node,
            "Node": self.node_name,
            "Address": self.node_address,
            "Datacenter": datacenter,
            "TaggedAddresses": addresses(&self.node_address),
            "NodeMeta": {},
            "ServiceKind": shown.kind,
            "ServiceID": shown.id,
            "ServiceName": shown.name,
            "ServiceTags": self.tags,
            "ServiceAddress": shown.address,
            "ServicePort": shown.port,
            "ServiceMeta": self.meta,
            "ServiceWeights": weights(self.weights),
            "ServiceEnableTagOverride": false,
            "ServiceProxy": self.proxied(part),
            "ServiceConnect": self.connect(),
            "CreateIndex": self.create_index,
            "ModifyIndex": self.modify_index,
        })
    }

    /// A row of `GET /v1/health/service/:name`.
    #[must_use]
    pub fn health(&self, part: Part, datacenter: &str) -> Value {
        let shown = self.shown(part);
        let heard = match self.is_heard() {
            true => (Status::Passing, "Agent alive and reachable"),
            false => (Status::Critical, "Agent not heard"),
        };
        let check = |id: &str, name: &str, status: Status, output: &str, of: Option<&Shown<'_>>| {
            json!({
                "Node": self.node_name,
                "CheckID": id,
                "Name": name,
                "Status": status.as_str(),
                "Notes": "",
                "Output": output,
                "ServiceID": of.map_or("", |of| of.id),
                "ServiceName": of.map_or("", |of| &of.name),
                "ServiceTags": of.map_or(&[][..], |_| &self.tags),
                "Type": "",
                "Definition": {},
                "CreateIndex": self.create_index,
                "ModifyIndex": self.modify_index,
            })
        };
        let mut checks = vec![check(
            "serfHealth",
            "Serf Health Status",
            heard.0,
            heard.1,
            None,
        )];
        for (id, one) in self.checks_of(part) {
            checks.push(check(id, &one.name, one.status, "", Some(&shown)));
        }
        json!({
            "Node": {
                "ID": self.node,
                "Node": self.node_name,
                "Address": self.node_address,
                "Datacenter": datacenter,
                "TaggedAddresses": addresses(&self.node_address),
                "Meta": {},
                "CreateIndex": self.create_index,
                "ModifyIndex": self.modify_index,
            },
            "Service": {
                "Kind": shown.kind,
                "ID": shown.id,
                "Service": shown.name,
                "Tags": self.tags,
                "Address": shown.address,
                "Port": shown.port,
                "Meta": self.meta,
                "Weights": weights(self.weights),
                "EnableTagOverride": false,
                "Proxy": self.proxied(part),
                "Connect": self.connect(),
                "CreateIndex": self.create_index,
                "ModifyIndex": self.modify_index,
            },
            "Checks": checks,
        })
    }

    fn connect(&self) -> Value {
        match self.is_native() {
            true => json!({"Native": true}),
            false => json!({}),
        }
    }

    /// The sidecar in front of it; a gateway and a native instance have none, being in the mesh
    /// themselves.
    fn sidecar(&self) -> Option<&ProxyEndpoint> {
        let proxy = self.proxy.as_ref().filter(|proxy| !proxy.native);
        proxy.filter(|_| self.gateway.is_none())
    }

    fn is_heard(&self) -> bool {
        self.node_state == "alive"
    }

    fn checks_of(&self, part: Part) -> impl Iterator<Item = (&String, &Check)> {
        let sidecar = self.sidecar().map(|proxy| format!("service:{}", proxy.id));
        let is_sidecars = move |id: &str| {
            let rest = sidecar.as_ref().and_then(|begin| id.strip_prefix(begin));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        };
        let wanted = move |id: &str| is_sidecars(id) == (part == Part::Sidecar);
        self.checks.iter().filter(move |(id, _)| wanted(id))
    }

    fn shown(&self, part: Part) -> Shown<'_> {
        match (part, self.sidecar()) {
            (Part::Sidecar, Some(proxy)) => Shown {
                kind: "connect-proxy",
                id: &proxy.id,
                name: format!("{}{SIDECAR}", self.service),
                address: &proxy.address,
                port: proxy.port,
            },
            _ => Shown {
                kind: self.gateway.map_or("", gateway::name),
                id: &self.id,
                name: self.service.clone(),
                address: &self.address,
                port: self.port,
            },
        }
    }

    fn proxied(&self, part: Part) -> Value {
        match part {
            Part::Application => json!({"MeshGateway": {}, "Expose": {}}),
            Part::Sidecar => json!({
                "DestinationServiceName": self.service,
                "DestinationServiceID": self.id,
                "MeshGateway": {},
                "Expose": {},
            }),
        }
    }
}

struct Shown<'a> {
    kind: &'static str,
    id: &'a str,
    name: String,
    address: &'a str,
    port: u16,
}

impl Node {
    /// A row of `GET /v1/catalog/nodes`.
    #[must_use]
    pub fn json(&self, datacenter: &str) -> Value {
        json!({
            "ID": self.id,
            "Node": self.name,
            "Address": self.address,
            "Datacenter": datacenter,
            "TaggedAddresses": addresses(&self.address),
            "Meta": self.meta,
            "CreateIndex": self.create_index,
            "ModifyIndex": self.modify_index,
        })
    }
}

/// The answer of `GET /v1/catalog/services`: the names of a namespace, with all their tags.
#[must_use]
pub fn services(all: &[Service], namespace: &str) -> Value {
    let own = all.iter().filter(|one| one.namespace == namespace);
    let named = own.map(|one| (one.name.clone(), json!(one.tags)));
    Value::Object(named.collect::<Map<_, _>>())
}

/// The same of those instances only.
#[must_use]
pub fn services_of<'a>(all: impl Iterator<Item = &'a Instance>, namespace: &str) -> Value {
    let mut named = BTreeMap::<&str, BTreeSet<&str>>::new();
    for one in all.filter(|one| one.namespace == namespace) {
        let tags = named.entry(&one.service).or_default();
        tags.extend(one.tags.iter().map(String::as_str));
    }
    json!(named)
}

fn addresses(address: &str) -> Value {
    json!({"lan": address, "wan": address})
}

fn weights(weights: Weights) -> Value {
    json!({"Passing": weights.passing, "Warning": weights.warning})
}
