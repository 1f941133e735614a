//! The function itself.

use std::collections::BTreeSet;

use mesh_model::{Key, ProxyMode, Registration, Service, Sidecar, Upstream};
use mesh_policy::PolicyForm;
use mesh_proto::config::{Bind, Inbound, Outbound, ProxyConfig, Rule, WeightedCluster};
use mesh_proto::fact::{MeshFact, Topic};

use crate::FactStore;
use crate::clusters::Clusters;

/// What a config is made of.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The instance.
    pub registration: &'a Registration,
    /// Its sidecar, which is the proxy to be wired.
    pub sidecar: &'a Sidecar,
    /// The node's name.
    pub node: &'a str,
    /// What the agent knows.
    pub facts: &'a FactStore,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Wired {
    /// What the proxy hangs on, as far as is known: a route that arrives may
    /// lead further.
    pub topics: BTreeSet<Topic>,
    /// Those that have had no answer yet. The config is there when it is empty.
    pub missing: Vec<Topic>,
    /// The config.
    pub config: Option<ProxyConfig>,
    /// What the proxy does not run as it should, for its status: a fact that
    /// this build cannot read, a mode that it does not have.
    pub problems: Vec<String>,
}

/// Wires one proxy.
pub fn wire(input: &Input<'_>) -> Wired {
    let topics = topics(input);
    let facts = input.facts;
    let missing: Vec<Topic> = topics
        .iter()
        .filter(|one| !facts.has(one))
        .cloned()
        .collect();
    let mut problems: Vec<String> = topics
        .iter()
        .filter_map(|topic| Some(format!("{topic}: {}", facts.unread(topic)?)))
        .collect();
    if input.sidecar.proxy.mode == ProxyMode::Transparent {
        problems.push(format!(
            "instance {}: mode transparent is not supported yet; calls are taken at its upstreams only",
            input.registration.id
        ));
    }
    if let Some(mesh) = facts.mesh() {
        let elsewhere = input.sidecar.proxy.upstreams.iter();
        problems.extend(elsewhere.filter(|it| !is_here(it, mesh)).map(|it| {
            let dc = it.datacenter.as_deref().unwrap_or_default();
            format!(
                "upstream {}: it is in datacenter {dc}, and this mesh is {}; it is not wired",
                it.destination_name, mesh.datacenter
            )
        }));
    }
    let config = match (missing.is_empty(), facts.mesh()) {
        (true, Some(mesh)) => Some(config(input, mesh)),
        _ => None,
    };
    Wired {
        topics,
        missing,
        config,
        problems,
    }
}

/// What the proxy hangs on. A service that is called needs its row, route and
/// instances; one that a route leads to, its row and instances (routes do not
/// chain: the rule that matched decides).
fn topics(input: &Input<'_>) -> BTreeSet<Topic> {
    let own = input.registration.key();
    let mut topics = BTreeSet::from([
        Topic::Mesh,
        Topic::Roots,
        Topic::Service(own.clone()),
        Topic::Intentions(own),
    ]);
    // Before the mesh is known nothing is wired, so all may be asked for.
    let mesh = input.facts.mesh();
    let upstreams = input.sidecar.proxy.upstreams.iter();
    for upstream in upstreams.filter(|it| mesh.is_none_or(|mesh| is_here(it, mesh))) {
        let called = destination(input.registration, upstream);
        if let Some(Some(route)) = input.facts.route(&called) {
            for to in route.rules.iter().flat_map(|rule| &rule.to) {
                let key = to.service.clone().unwrap_or_else(|| called.clone());
                topics.insert(Topic::Service(key.clone()));
                topics.insert(Topic::Endpoints(key));
            }
        }
        topics.insert(Topic::Service(called.clone()));
        topics.insert(Topic::Endpoints(called.clone()));
        topics.insert(Topic::Route(called));
    }
    topics
}

/// Whether an upstream is of this mesh's own datacenter.
fn is_here(upstream: &Upstream, mesh: &MeshFact) -> bool {
    let wanted = upstream.datacenter.as_ref();
    wanted.is_none_or(|wanted| *wanted == mesh.datacenter)
}

fn destination(registration: &Registration, upstream: &Upstream) -> Key {
    let namespace = upstream.destination_namespace.as_deref();
    Key::new(
        namespace.unwrap_or(&registration.namespace),
        &upstream.destination_name,
    )
}

fn config(input: &Input<'_>, mesh: &MeshFact) -> ProxyConfig {
    let (registration, sidecar) = (input.registration, input.sidecar);
    let own = registration.key();
    let mut clusters = Clusters::new(input.facts, mesh);
    let outbound = sidecar
        .proxy
        .upstreams
        .iter()
        .filter(|upstream| is_here(upstream, mesh))
        .filter_map(|upstream| outbound(input, upstream, &mut clusters))
        .collect();
    ProxyConfig {
        proxy: sidecar.id.clone(),
        identity: mesh.identity(&own),
        trust_domain: mesh.trust_domain.clone(),
        node: input.node.to_owned(),
        policy: PolicyForm {
            default: mesh.default_intention.as_str().to_owned(),
            intentions: input.facts.intentions(&own).unwrap_or_default().to_vec(),
        },
        inbound: inbound(input),
        outbound,
        transparent: None,
        expose: sidecar.proxy.expose.clone(),
        clusters: clusters.into_map(),
        service: own,
    }
}

/// `None` for an instance without a port: it calls and is not called.
fn inbound(input: &Input<'_>) -> Option<Inbound> {
    let (registration, sidecar) = (input.registration, input.sidecar);
    let proxy = &sidecar.proxy;
    let port = proxy.local_service_port.unwrap_or(registration.port);
    if port == 0 {
        return None;
    }
    let host = proxy.local_service_address.as_deref();
    let service = input.facts.service(&registration.key())?;
    Some(Inbound {
        address: proxy.bind_address.clone().unwrap_or("0.0.0.0".to_owned()),
        port: proxy.bind_port.unwrap_or(sidecar.port),
        protocol: service.protocol,
        application: host_port(host.unwrap_or("127.0.0.1"), port),
        connect_timeout: service.connect_timeout(),
    })
}

fn host_port(host: &str, port: u16) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

fn outbound(
    input: &Input<'_>,
    upstream: &Upstream,
    clusters: &mut Clusters<'_>,
) -> Option<Outbound> {
    let called = destination(input.registration, upstream);
    let service = input.facts.service(&called)?;
    let bind = match &upstream.local_bind_socket_path {
        Some(path) => Bind::Unix {
            path: path.clone(),
            mode: upstream.local_bind_socket_mode.clone().unwrap_or_default(),
        },
        None => Bind::Tcp {
            address: upstream
                .local_bind_address
                .clone()
                .unwrap_or("127.0.0.1".to_owned()),
            port: upstream.local_bind_port,
        },
    };
    Some(Outbound {
        bind,
        protocol: service.protocol,
        rules: rules(input, &service, clusters),
        cluster: clusters.name_of(&service, None),
        timeout: service.request_timeout(),
        service: called,
    })
}

fn rules(input: &Input<'_>, service: &Service, clusters: &mut Clusters<'_>) -> Vec<Rule> {
    // Requests cannot be seen in a byte stream; the servers refuse such a
    // route, but the protocol may have changed under it.
    let route = input.facts.route(&service.key()).flatten();
    let Some(route) = route.filter(|_| service.protocol.is_http()) else {
        return Vec::new();
    };
    route
        .rules
        .iter()
        .map(|rule| Rule {
            name: rule.name.clone(),
            matches: rule.matches.clone(),
            to: destinations(input, service, rule, clusters),
            timeout: rule.timeout.unwrap_or_else(|| service.request_timeout()),
            retries: rule.retries.clone(),
        })
        .collect()
}

fn destinations(
    input: &Input<'_>,
    service: &Service,
    rule: &mesh_model::Rule,
    clusters: &mut Clusters<'_>,
) -> Vec<WeightedCluster> {
    if rule.to.is_empty() {
        return vec![WeightedCluster {
            cluster: clusters.name_of(service, None),
            weight: 1,
        }];
    }
    rule.to
        .iter()
        .filter_map(|to| {
            let other = to.service.as_ref().filter(|key| **key != service.key());
            let target = match other {
                Some(key) => input.facts.service(key)?,
                None => service.clone(),
            };
            Some(WeightedCluster {
                cluster: clusters.name_of(&target, to.subset.as_deref()),
                weight: to.weight.hundredths(),
            })
        })
        .collect()
}
