//! What the feed and the API answer with: pure functions of the state.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_model::{
    Action, GatewayKind, Instance, Intention, IntentionRule, Key, Node, NodeState, Row, Service,
    Status, WILDCARD,
};

use crate::key::{InstanceKey, Pair};
use crate::state::State;

/// An instance and where it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// The instance.
    pub instance: Arc<Row<Instance>>,
    /// Its node, with its state.
    pub node: Arc<Row<Node>>,
}

/// A service in a list: it has a block, or instances, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSummary {
    /// The service.
    pub key: Key,
    /// Whether there is a `service` block.
    pub block: bool,
    /// How many instances it has, with a sidecar or without.
    pub instances: u64,
}

/// How a service's instances are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// All their checks pass.
    pub passing: u64,
    /// A check warns.
    pub warning: u64,
    /// A check is critical.
    pub critical: u64,
    /// Their node is silent.
    pub unknown: u64,
}

impl State {
    /// Where the service can be called through the mesh: its instances with a
    /// sidecar and native ones with a port, by node and id; then, where it has
    /// instances that are neither, those of the gateways that stand for it.
    pub fn endpoints(&self, service: &Key) -> Vec<Endpoint> {
        let is_called = |instance: &Instance| {
            let proxy = instance.proxy.as_ref();
            proxy.is_some_and(|proxy| proxy.port != 0)
        };
        let mut endpoints = self.instances_of(service);
        let outside = endpoints.iter().any(|one| is_outside(&one.instance.value));
        endpoints.retain(|endpoint| {
            let instance = &endpoint.instance.value;
            is_called(instance) && instance.gateway.is_none()
        });
        if outside {
            let gateways = self.gateways().filter(|row| row.value.links(service));
            let instances = gateways.flat_map(|row| self.instances_of(&row.value.key()));
            endpoints.extend(instances.filter(|one| {
                let instance = &one.instance.value;
                is_called(instance) && instance.gateway == Some(GatewayKind::Terminating)
            }));
        }
        endpoints
    }

    /// The service's instances that have no sidecar, by node and id: those that
    /// a terminating gateway calls.
    pub fn outside(&self, service: &Key) -> Vec<Endpoint> {
        let mut instances = self.instances_of(service);
        instances.retain(|one| is_outside(&one.instance.value));
        instances
    }

    /// All instances of a service, by node and id.
    pub fn instances_of(&self, service: &Key) -> Vec<Endpoint> {
        self.keys_of(service)
            .filter_map(|key| {
                Some(Endpoint {
                    instance: self.instances.get(key)?.clone(),
                    node: self.nodes.get(&key.node)?.clone(),
                })
            })
            .collect()
    }

    fn keys_of(&self, service: &Key) -> impl Iterator<Item = &InstanceKey> {
        let start = InstanceKey {
            node: String::new(),
            id: String::new(),
        };
        self.by_service
            .range((service.clone(), start)..)
            .take_while(move |(key, _)| key == service)
            .map(|(_, instance)| instance)
    }

    /// All instances on a node, by id.
    pub fn instances_on(&self, node: &str) -> Vec<Arc<Row<Instance>>> {
        let start = InstanceKey {
            node: node.to_owned(),
            id: String::new(),
        };
        self.instances
            .range(start..)
            .take_while(|(key, _)| key.node == node)
            .map(|(_, row)| row.clone())
            .collect()
    }

    /// How a service's instances are.
    pub fn health_of(&self, service: &Key) -> Health {
        let mut health = Health::default();
        for endpoint in self.instances_of(service) {
            let count = match (endpoint.node.value.state, endpoint.instance.value.status()) {
                (NodeState::Silent { .. }, _) => &mut health.unknown,
                (NodeState::Alive, Status::Passing) => &mut health.passing,
                (NodeState::Alive, Status::Warning) => &mut health.warning,
                (NodeState::Alive, Status::Critical) => &mut health.critical,
            };
            *count += 1;
        }
        health
    }

    /// How a service is called: its block, or the defaults.
    pub fn service_or_default(&self, key: &Key) -> Service {
        self.service(key)
            .map_or_else(|| Service::named(key), |row| row.value.clone())
    }

    /// Every service that has a block or instances, by key.
    pub fn service_list(&self) -> Vec<ServiceSummary> {
        let blocks: BTreeSet<Key> = self.services().map(|row| row.value.key()).collect();
        let instances: BTreeMap<Key, u64> = self
            .registered()
            .map(|row| (row.value.service.clone(), row.value.instances))
            .collect();
        let keys: BTreeSet<&Key> = blocks.iter().chain(instances.keys()).collect();
        keys.into_iter()
            .map(|key| ServiceSummary {
                key: key.clone(),
                block: blocks.contains(key),
                instances: instances.get(key).copied().unwrap_or(0),
            })
            .collect()
    }

    /// Every intention that may decide about a call to this service, those
    /// with a pattern included, in the order in which they are asked.
    pub fn intentions_for(&self, destination: &Key) -> Vec<Arc<Row<Intention>>> {
        in_order(
            covering(destination)
                .into_iter()
                .flat_map(|pattern| self.intentions_to(&pattern))
                .collect(),
        )
    }

    /// The intentions with exactly this destination, which may be a pattern.
    fn intentions_to(&self, destination: &Key) -> Vec<Arc<Row<Intention>>> {
        let start = Pair {
            destination: destination.clone(),
            source: Key::new("", ""),
        };
        self.intentions
            .range(start..)
            .take_while(|(key, _)| key.destination == *destination)
            .map(|(_, row)| row.clone())
            .collect()
    }

    /// Every intention that may decide about a call by this service, in the
    /// order in which they are asked.
    pub fn intentions_matching_source(&self, source: &Key) -> Vec<Arc<Row<Intention>>> {
        in_order(
            self.intentions
                .rows()
                .filter(|row| row.value.source.covers(source))
                .cloned()
                .collect(),
        )
    }

    /// Every intention, in the order in which they are asked.
    pub fn intentions(&self) -> Vec<Arc<Row<Intention>>> {
        in_order(self.intentions.rows().cloned().collect())
    }
}

/// Whether an instance has neither a sidecar nor is a gateway, and can be called.
fn is_outside(instance: &Instance) -> bool {
    instance.proxy.is_none() && instance.gateway.is_none() && instance.port != 0
}

/// The patterns that cover a service, itself first.
pub(crate) fn covering(service: &Key) -> Vec<Key> {
    let mut patterns = vec![
        service.clone(),
        Key::new(&service.namespace, WILDCARD),
        Key::new(WILDCARD, WILDCARD),
    ];
    patterns.dedup();
    patterns
}

/// By precedence; then denials first; then by destination and source.
fn in_order(mut rows: Vec<Arc<Row<Intention>>>) -> Vec<Arc<Row<Intention>>> {
    fn rank(rule: &IntentionRule) -> u8 {
        match rule {
            IntentionRule::Action(Action::Deny) => 0,
            IntentionRule::Permissions(_) => 1,
            IntentionRule::Action(Action::Allow) => 2,
        }
    }
    rows.sort_by(|a, b| {
        let order = |row: &Row<Intention>| (Reverse(row.value.precedence()), rank(&row.value.rule));
        order(a)
            .cmp(&order(b))
            .then_with(|| a.value.destination.cmp(&b.value.destination))
            .then_with(|| a.value.source.cmp(&b.value.source))
    });
    rows
}
