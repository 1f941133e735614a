//! What agents say of their nodes, and the leader of the agents.
//!
//! Every command is for one node, whose id the caller has proved; what it says
//! of another node is refused, not believed. And it is of one stream: a write
//! that was held up somewhere, while the agent went to another server and said
//! everything again there, would undo that, and nothing would mend it. So the
//! node remembers which stream began last, and takes no other's word.

use std::collections::{BTreeMap, BTreeSet};

use mesh_model::instance::check_host;
use mesh_model::{Instance, Key, Node, NodeState, Status};
use serde::Serialize;

use super::{AGENT, Draft, OnNode, done};
use crate::command::CheckChange;
use crate::key::{InstanceKey, RowKey};
use crate::outcome::{Applied, Change, OpResult, Refusal};

/// Longest id of a node, instance or check, in bytes. Nomad's are about 100.
const MAX_ID: usize = 512;

/// Longest name of a check, in bytes.
const MAX_CHECK_NAME: usize = 512;

/// Most checks of one instance.
const MAX_CHECKS: usize = 256;

/// Largest row of an agent, as JSON, in bytes. No row may grow past what a
/// snapshot's line holds, whatever the number of commands that make it.
const MAX_ROW: usize = 256 << 10;

impl Draft {
    pub(super) fn register_node(&mut self, node: &Node) -> Result<Applied, Refusal> {
        let fits = check_id(&node.id)
            .and_then(|()| check_host(&node.address).map_err(|e| format!("address: {e}")))
            .and_then(|()| check_size(node));
        fits.map_err(|e| Refusal::invalid(RowKey::Node(node.id.clone()), e))?;
        let node = Node {
            stream: self.index,
            ..node.clone()
        };
        Ok(done(vec![self.put_node(node)]))
    }

    pub(super) fn set_node_state(
        &mut self,
        node: &str,
        state: NodeState,
    ) -> Result<Applied, Refusal> {
        let mut value = self.known_node(node)?;
        value.state = state;
        Ok(done(vec![self.put_node(value)]))
    }

    /// A node's address and state are part of its instances' endpoints.
    fn put_node(&mut self, node: Node) -> OpResult {
        let id = node.id.clone();
        let bare = |node: &Node| Node {
            stream: 0,
            ..node.clone()
        };
        let before = self.state.node(&id).map(|row| bare(&row.value));
        let differs = before.is_some_and(|before| before != bare(&node));
        let result = self.put(node, AGENT);
        if differs {
            let services: BTreeSet<Key> = self
                .state
                .instances_on(&id)
                .iter()
                .map(|row| row.value.key())
                .collect();
            for service in services {
                self.touch_endpoints(&service, 0);
            }
        }
        result
    }

    pub(super) fn sync_instances(
        &mut self,
        node: &str,
        stream: u64,
        instances: &[Instance],
    ) -> Result<Applied, Refusal> {
        self.speaks(node, stream)?;
        let mut named = BTreeSet::new();
        for instance in instances {
            check_instance(node, instance)?;
            if !named.insert(&instance.id) {
                let key = RowKey::Instance(instance.key_on_node());
                return Err(Refusal::invalid(key, "is named twice in one sync"));
            }
        }
        let mut results = Vec::new();
        for row in self.state.instances_on(node) {
            if !named.contains(&row.value.id) {
                results.push(self.delete_instance(&row.value.key_on_node()));
            }
        }
        for instance in instances {
            results.push(self.put_instance(instance.clone()));
        }
        results.retain(|result| result.change != Change::Unchanged);
        Ok(done(results))
    }

    pub(super) fn put_one_instance(
        &mut self,
        node: &str,
        stream: u64,
        instance: &Instance,
    ) -> Result<Applied, Refusal> {
        self.speaks(node, stream)?;
        check_instance(node, instance)?;
        Ok(done(vec![self.put_instance(instance.clone())]))
    }

    pub(super) fn remove_one_instance(
        &mut self,
        node: &str,
        stream: u64,
        id: &str,
    ) -> Result<Applied, Refusal> {
        self.speaks(node, stream)?;
        let key = InstanceKey {
            node: node.to_owned(),
            id: id.to_owned(),
        };
        Ok(done(vec![self.delete_instance(&key)]))
    }

    pub(super) fn set_checks(
        &mut self,
        node: &str,
        stream: u64,
        changes: &[CheckChange],
    ) -> Result<Applied, Refusal> {
        self.speaks(node, stream)?;
        let mut results = Vec::new();
        // Each once, however many of its checks changed.
        let mut changed: BTreeMap<InstanceKey, Instance> = BTreeMap::new();
        for change in changes {
            let key = InstanceKey {
                node: node.to_owned(),
                id: change.instance.clone(),
            };
            let instance = match (changed.get_mut(&key), self.state.instances.get(&key)) {
                (Some(instance), _) => instance,
                (None, Some(row)) => changed.entry(key.clone()).or_insert(row.value.clone()),
                (None, None) => {
                    results.push(OpResult {
                        index: self.state.instances.index_of(&key),
                        key: RowKey::Instance(key),
                        change: Change::Absent,
                    });
                    continue;
                }
            };
            match (&change.check, instance.checks.get_mut(&change.id)) {
                (None, _) => drop(instance.checks.remove(&change.id)),
                (Some(check), Some(known)) => known.clone_from(check),
                (Some(_), None) => {
                    let message = format_args!(
                        "has no check {:?}; send the instance with its checks first",
                        change.id
                    );
                    return Err(Refusal::invalid(RowKey::Instance(key), message));
                }
            }
        }
        for instance in changed.into_values() {
            check_instance(node, &instance)?;
            results.push(self.put_instance(instance));
        }
        Ok(done(results))
    }

    pub(super) fn remove_node(&mut self, node: &str) -> Result<Applied, Refusal> {
        Ok(done(self.delete_node(node)))
    }

    pub(super) fn reap_nodes(&mut self, ttl: u64) -> Result<Applied, Refusal> {
        let now = self.state.now;
        let gone: Vec<String> = self
            .state
            .nodes()
            .filter(|row| match row.value.state {
                NodeState::Alive => false,
                NodeState::Silent { since } => {
                    since.saturating_mul(1000).saturating_add(ttl) <= now
                }
            })
            .map(|row| row.value.id.clone())
            .collect();
        Ok(done(
            gone.iter().flat_map(|id| self.delete_node(id)).collect(),
        ))
    }

    fn delete_node(&mut self, node: &str) -> Vec<OpResult> {
        let instances = self.state.instances_on(node);
        let mut results: Vec<OpResult> = instances
            .iter()
            .map(|row| self.delete_instance(&row.value.key_on_node()))
            .collect();
        results.push(self.delete::<Node>(&node.to_owned()));
        results
    }

    /// Whether what comes by this stream counts for the node.
    fn speaks(&self, node: &str, stream: u64) -> Result<(), Refusal> {
        match self.known_node(node)?.stream == stream {
            true => Ok(()),
            false => Err(Refusal::Superseded {
                node: node.to_owned(),
            }),
        }
    }

    fn known_node(&self, node: &str) -> Result<Node, Refusal> {
        match self.state.node(node) {
            Some(row) => Ok(row.value.clone()),
            None => Err(Refusal::NotFound {
                key: RowKey::Node(node.to_owned()),
            }),
        }
    }
}

fn check_instance(node: &str, instance: &Instance) -> Result<(), Refusal> {
    let refuse = |message: String| {
        let key = RowKey::Instance(instance.key_on_node());
        Err(Refusal::invalid(key, message))
    };
    if instance.node != node {
        return refuse(format!(
            "is sent by node {node}, which may not speak for it"
        ));
    }
    if let Err(error) = instance.key().check() {
        return refuse(format!("service: {error}"));
    }
    for id in [&instance.id].into_iter().chain(instance.checks.keys()) {
        if let Err(error) = check_id(id) {
            return refuse(error);
        }
    }
    if instance.checks.len() > MAX_CHECKS {
        let count = instance.checks.len();
        return refuse(format!(
            "has {count} checks; at most {MAX_CHECKS} are taken"
        ));
    }
    for (id, check) in &instance.checks {
        let length = check.name.len();
        if length > MAX_CHECK_NAME {
            return refuse(format!(
                "check {id}: its name has {length} bytes; at most {MAX_CHECK_NAME} are taken"
            ));
        }
    }
    // With the longest word for each state: one that was taken once never has
    // too many bytes because a check fails.
    let mut longest = instance.clone();
    for check in longest.checks.values_mut() {
        check.status = Status::Critical;
    }
    check_size(&longest)
        .and_then(|()| check_addresses(instance))
        .or_else(refuse)
}

/// Whether a row is as small as it must be.
fn check_size(row: &impl Serialize) -> Result<(), String> {
    let length = serde_json::to_vec(row).map_err(|e| e.to_string())?.len();
    match length {
        0..=MAX_ROW => Ok(()),
        _ => Err(format!(
            "has {length} bytes; at most {MAX_ROW} are taken: say less in its tags and meta"
        )),
    }
}

/// What callers are told to connect to: one that cannot be read would be in all of their configs.
fn check_addresses(instance: &Instance) -> Result<(), String> {
    check_host(&instance.address).map_err(|e| format!("address: {e}"))?;
    let Some(proxy) = &instance.proxy else {
        return Ok(());
    };
    check_host(&proxy.address).map_err(|e| format!("proxy {}: address: {e}", proxy.id))?;
    match proxy.port {
        0 if !proxy.native => Err(format!(
            "proxy {}: port: it is 0; write where it listens",
            proxy.id
        )),
        _ => Ok(()),
    }
}

fn check_id(id: &str) -> Result<(), String> {
    if id.is_empty() {
        return Err("an id is empty".to_owned());
    }
    if id.len() > MAX_ID {
        return Err(format!(
            "an id has {} bytes; at most {MAX_ID} are taken",
            id.len()
        ));
    }
    match id.chars().find(|c| c.is_control()) {
        Some(c) => Err(format!("an id has the character {c:?}")),
        None => Ok(()),
    }
}
