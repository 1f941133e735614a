//! An ingress gateway: ports at which calls come from outside, each wired to the
//! services behind it as an upstream is.

use std::collections::{BTreeMap, BTreeSet};

use mesh_model::{
    Edge, ExposedService, Gateway, GatewayKind, GatewayRegistration, Ingress, Key, Listener,
    WILDCARD,
};
use mesh_proto::config::{Bind, IngressListener, Outbound};
use mesh_proto::fact::Topic;

use crate::clusters::Clusters;
use crate::wire::Input;
use crate::{FactStore, called};

/// What the gateway is to do, if it is an ingress and its row is known and says
/// so too.
pub(crate) fn of<'a>(input: &Input<'a>) -> Option<(&'a GatewayRegistration, &'a Ingress)> {
    let registration = input.registration.gateway.as_ref();
    let registration = registration.filter(|it| it.kind == GatewayKind::Ingress)?;
    let gateway = input.facts.gateway(&input.registration.key())??;
    Some((registration, gateway.ingress()?))
}

/// What the wiring of its services hangs on.
pub(crate) fn topics(input: &Input<'_>) -> BTreeSet<Topic> {
    let mut topics = BTreeSet::new();
    let Some((_, ingress)) = of(input) else {
        return topics;
    };
    for exposed in ingress.listeners.iter().flat_map(|it| &it.services) {
        if exposed.service.name != WILDCARD {
            topics.extend(called::topics(input.facts, &exposed.service));
            continue;
        }
        topics.insert(Topic::Services);
        for key in every(input, &exposed.service) {
            topics.insert(Topic::Service(key.clone()));
            if is_http(input.facts, key) == Some(true) {
                topics.extend(called::topics(input.facts, key));
            }
        }
    }
    topics
}

/// The services that a `*` is, as far as they are known.
fn every<'a>(input: &Input<'a>, pattern: &Key) -> impl Iterator<Item = &'a Key> {
    let (own, namespace) = (input.registration.key(), pattern.namespace.clone());
    let all = input.facts.all_services().unwrap_or_default().iter();
    all.filter(move |key| key.namespace == namespace && **key != own)
}

fn is_http(facts: &FactStore, key: &Key) -> Option<bool> {
    facts.service(key).map(|service| service.protocol.is_http())
}

/// The listeners, and the calls behind them.
pub(crate) fn wire(
    input: &Input<'_>,
    clusters: &mut Clusters<'_>,
) -> (Vec<IngressListener>, Vec<Outbound>) {
    let Some((registration, ingress)) = of(input) else {
        return (Vec::new(), Vec::new());
    };
    let addresses: BTreeSet<&str> = registration.bind.iter().map(|it| &*it.address).collect();
    let addresses = without_covered(&addresses);
    let mut listeners = Vec::new();
    let mut outbound = Vec::new();
    for listener in &ingress.listeners {
        let behind = behind(input, listener, clusters);
        // Byte streams without a service would be taken and lead nowhere.
        if behind.is_empty() && !listener.protocol.is_http() {
            continue;
        }
        outbound.extend(behind);
        listeners.push(IngressListener {
            addresses: addresses.clone(),
            port: listener.port,
            protocol: listener.protocol,
            tls: ingress.tls.enabled,
        });
    }
    (listeners, outbound)
}

/// An address that stands for all others of its family is enough.
fn without_covered(addresses: &BTreeSet<&str>) -> Vec<String> {
    let is_any = |any: &str| addresses.contains(any);
    let kept = addresses.iter().filter(|one| match one.contains(':') {
        // `::` takes IPv4 as well.
        true => **one == "::" || !is_any("::"),
        false => !is_any("::") && (**one == "0.0.0.0" || !is_any("0.0.0.0")),
    });
    kept.map(|one| (*one).to_owned()).collect()
}

fn behind(input: &Input<'_>, listener: &Listener, clusters: &mut Clusters<'_>) -> Vec<Outbound> {
    // A service that is named has its own hosts, also where there is a `*`.
    let mut hosts: BTreeMap<Key, Vec<String>> = BTreeMap::new();
    for exposed in &listener.services {
        let ExposedService {
            service,
            hosts: own,
        } = exposed;
        match service.name == WILDCARD {
            false => drop(hosts.insert(service.clone(), hosts_of(service, own, listener))),
            true => {
                for key in every(input, service) {
                    let default = || hosts_of(key, &[], listener);
                    hosts.entry(key.clone()).or_insert_with(default);
                }
            }
        }
    }
    let mut all = Vec::new();
    for (key, hosts) in hosts {
        // Both see requests, or neither does: what is in a byte stream would go
        // past the service's permissions.
        if is_http(input.facts, &key) != Some(listener.protocol.is_http()) {
            continue;
        }
        let bind = Bind::Ingress {
            port: listener.port,
            hosts,
        };
        all.extend(called::outbound(input.facts, &key, bind, clusters));
    }
    all
}

/// Consul's own default is `<service>.ingress.` and anything.
fn hosts_of(service: &Key, hosts: &[String], listener: &Listener) -> Vec<String> {
    match (listener.protocol.is_http(), hosts) {
        (false, _) => Vec::new(),
        (true, []) => vec![format!("{}.ingress.*", service.name.to_ascii_lowercase())],
        (true, hosts) => hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
    }
}

/// What of it is not wired, and why.
pub(crate) fn problems(input: &Input<'_>) -> Vec<String> {
    let Some(registration) = &input.registration.gateway else {
        return Vec::new();
    };
    let own = input.registration.key();
    let (kind, row) = (registration.kind, input.facts.gateway(&own));
    match row {
        None => Vec::new(),
        Some(None) => vec![format!(
            "gateway {own}: there is no such gateway, so it does nothing; a job's is written by \
             Nomad's servers, or write gateway \"{own}\" {{ {kind} {{ … }} }}"
        )],
        Some(Some(gateway)) if gateway.kind() != kind => vec![format!(
            "gateway {own}: is registered as {kind}, and written as {}; it does nothing",
            gateway.kind()
        )],
        Some(Some(Gateway {
            edge: Edge::Ingress(ingress),
            ..
        })) => {
            let listeners = ingress.listeners.iter();
            listeners
                .flat_map(|it| unfit(input.facts, &own, it))
                .collect()
        }
        Some(Some(_)) => Vec::new(),
    }
}

/// Services that speak otherwise than their listener: the servers refuse such a
/// gateway, but the protocol may have changed under it.
fn unfit(facts: &FactStore, own: &Key, listener: &Listener) -> Vec<String> {
    let named = listener.services.iter().map(|it| &it.service);
    let named = named.filter(|key| key.name != WILDCARD);
    named
        .filter_map(|key| {
            let service = facts.service(key)?;
            (service.protocol.is_http() != listener.protocol.is_http()).then(|| {
                format!(
                    "gateway {own}: listener {}: service {key} speaks {}, and the listener {}; it \
                     is left out",
                    listener.port, service.protocol, listener.protocol
                )
            })
        })
        .collect()
}
