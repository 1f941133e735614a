//! The function itself.

use std::collections::BTreeSet;

use mesh_model::{Key, ProxyMode, Registration, Sidecar, Upstream};
use mesh_policy::PolicyForm;
use mesh_proto::config::{Bind, Inbound, Outbound, ProxyConfig};
use mesh_proto::fact::{MeshFact, Topic};

use crate::clusters::Clusters;
use crate::transparent::{self, Wants};
use crate::{FactStore, called, ingress, terminating};

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
    /// What the proxy was asked for; it counts for nothing where it is not
    /// transparent.
    pub wants: &'a Wants,
    /// What the proxy was wired to before. Where a route of a wanted service
    /// has just turned to another of which nothing is known yet, its calls go
    /// on as they did.
    pub before: Option<&'a ProxyConfig>,
}

impl Input<'_> {
    pub(crate) fn is_transparent(&self) -> bool {
        self.sidecar.proxy.mode == ProxyMode::Transparent
    }

    /// The services that the registration names as upstreams of this mesh.
    pub(crate) fn declared(&self) -> impl Iterator<Item = (&Upstream, Key)> {
        // Before the mesh is known nothing is wired, so all may be asked for.
        let mesh = self.facts.mesh();
        let upstreams = self.sidecar.proxy.upstreams.iter();
        upstreams
            .filter(move |it| mesh.is_none_or(|mesh| is_here(it, mesh)))
            .map(|it| (it, destination(self.registration, it)))
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Wired {
    /// What the proxy hangs on, as far as is known: a route that arrives may
    /// lead further.
    pub topics: BTreeSet<Topic>,
    /// Those that hold the config back because they have had no answer yet: it
    /// is there when this is empty. What was only asked for (the wants) does not.
    pub missing: Vec<Topic>,
    /// The config.
    pub config: Option<ProxyConfig>,
    /// What the proxy does not run as it should, for its status: a fact that
    /// this build cannot read, a mode that it does not have.
    pub problems: Vec<String>,
}

/// Wires one proxy.
pub fn wire(input: &Input<'_>) -> Wired {
    let facts = input.facts;
    let mut topics = needed(input);
    let missing: Vec<Topic> = topics
        .iter()
        .filter(|one| !facts.has(one))
        .cloned()
        .collect();
    if input.is_transparent() {
        topics.extend(transparent::asked(input));
    }
    let mut problems: Vec<String> = topics
        .iter()
        .filter_map(|topic| Some(format!("{topic}: {}", facts.unread(topic)?)))
        .collect();
    problems.extend(topics.iter().filter_map(|topic| {
        match topic {
            Topic::Virtual(key) => transparent::mistake(facts.virtual_of(key)??)
                .map(|mistake| format!("{topic}: {mistake}; upgrade this agent")),
            _ => None,
        }
    }));
    problems.extend(ingress::problems(input));
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

/// What the proxy cannot be without.
fn needed(input: &Input<'_>) -> BTreeSet<Topic> {
    let own = input.registration.key();
    let mut topics = BTreeSet::from([Topic::Mesh, Topic::Roots, Topic::Revocations]);
    if input.registration.gateway.is_some() {
        // Nobody calls it through the mesh: there are no intentions to hang on.
        topics.insert(Topic::Gateway(own));
        topics.extend(ingress::topics(input));
        topics.extend(terminating::topics(input));
        return topics;
    }
    topics.extend([Topic::Service(own.clone()), Topic::Intentions(own)]);
    for (_, called) in input.declared() {
        topics.extend(called::topics(input.facts, &called));
        if input.is_transparent() {
            topics.insert(Topic::Virtual(called));
        }
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
    let mut outbound: Vec<Outbound> = input
        .declared()
        .filter_map(|(upstream, called)| {
            called::outbound(input.facts, &called, bind(upstream), &mut clusters)
        })
        .collect();
    let (listeners, exposed) = ingress::wire(input, &mut clusters);
    outbound.extend(exposed);
    let (terminating, policies) = terminating::wire(input, mesh);
    let transparent = input.is_transparent().then(|| {
        let (transparent, more) = transparent::wire(input, mesh, &mut clusters);
        outbound.extend(more);
        transparent
    });
    ProxyConfig {
        proxy: sidecar.id.clone(),
        identity: mesh.identity(&own),
        trust_domain: mesh.trust_domain.clone(),
        node: input.node.to_owned(),
        tls: mesh.tls.clone(),
        policy: PolicyForm {
            default: mesh.default_intention.as_str().to_owned(),
            intentions: input.facts.intentions(&own).unwrap_or_default().to_vec(),
        },
        policies,
        inbound: inbound(input),
        outbound,
        terminating,
        ingress: listeners,
        dns_names: ingress::of(input)
            .map(|(_, ingress)| ingress.dns_names(&mesh.datacenter))
            .unwrap_or_default(),
        transparent,
        expose: sidecar.proxy.expose.clone(),
        clusters: clusters.into_map(),
        service: own,
    }
}

/// `None` for an instance without a port: it calls and is not called. But where
/// its sidecar is checked, somebody dials its port to learn that it is there
/// (Nomad's deployments wait for that), so it is open, with nothing behind it.
fn inbound(input: &Input<'_>) -> Option<Inbound> {
    let (registration, sidecar) = (input.registration, input.sidecar);
    let proxy = &sidecar.proxy;
    if registration.gateway.is_some() {
        return None;
    }
    let port = proxy.local_service_port.unwrap_or(registration.port);
    if port == 0 && sidecar.checks.is_empty() {
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

fn bind(upstream: &Upstream) -> Bind {
    match &upstream.local_bind_socket_path {
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
    }
}
