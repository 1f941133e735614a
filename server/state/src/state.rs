//! The state as a value.

use std::fmt;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use mesh_model::{
    Action, EntryKey, Gateway, Instance, Intention, Key, Mesh, Node, Outbound, Route, Row, Service,
    TlsPolicy, Version, VirtualAddress,
};
use serde_json::Value;

use crate::apply::Staging;
use crate::command::Command;
use crate::key::{
    ConfigKey, InstanceKey, Pair, Prefix, RowKey, TableName, Topic, Virtual, WatchKey,
};
use crate::leaves::{Leaves, Revocation};
use crate::outcome::Refusal;
use crate::stored::{Cluster, ConfigEntry, Registered};
use crate::table::{Stored, Table};

/// Largest index and time: what every reader of JSON has exactly.
pub(crate) const MAX_NUMBER: u64 = 1 << 53;

/// Everything that is replicated. Clones share what they have in common.
#[derive(Clone, Default, PartialEq)]
pub struct State {
    pub(crate) epoch: String,
    pub(crate) index: u64,
    pub(crate) now: u64,
    pub(crate) cluster: Table<Cluster>,
    pub(crate) mesh: Table<Mesh>,
    pub(crate) services: Table<Service>,
    pub(crate) routes: Table<Route>,
    pub(crate) intentions: Table<Intention>,
    pub(crate) gateways: Table<Gateway>,
    pub(crate) config: Table<ConfigEntry>,
    pub(crate) nodes: Table<Node>,
    pub(crate) instances: Table<Instance>,
    pub(crate) endpoints: Table<Registered>,
    pub(crate) virtuals: Table<Virtual>,
    pub(crate) ca: Table<Value>,
    pub(crate) revocations: Table<Revocation>,
    /// The leaves that were signed: a record, and no rows.
    pub(crate) leaves: Leaves,
    /// A restore that has begun.
    pub(crate) staging: Option<Arc<Staging>>,
    /// The instances by service; follows from `instances`.
    pub(crate) by_service: OrdSet<(Key, InstanceKey)>,
    /// The virtual addresses by service; follows from `virtuals`.
    pub(crate) addresses: OrdMap<Key, VirtualAddress>,
    /// The rows that config entries claim; follows from `config`.
    pub(crate) claims: OrdSet<(EntryKey, ConfigKey)>,
}

/// Only how much there is: the CA's row is nobody's to print.
impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("State");
        out.field("version", &self.version())
            .field("now", &self.now);
        for table in TableName::ALL {
            out.field(table.as_str(), &self.len(table));
        }
        out.field("leaf", &self.leaves.len());
        out.finish_non_exhaustive()
    }
}

/// Runs `$body` with `$table` as the table of that name.
macro_rules! with_table {
    ($state:expr, $name:expr, $table:ident => $body:expr) => {
        match $name {
            $crate::key::TableName::Cluster => {
                let $table = &$state.cluster;
                $body
            }
            $crate::key::TableName::Mesh => {
                let $table = &$state.mesh;
                $body
            }
            $crate::key::TableName::Service => {
                let $table = &$state.services;
                $body
            }
            $crate::key::TableName::Route => {
                let $table = &$state.routes;
                $body
            }
            $crate::key::TableName::Intention => {
                let $table = &$state.intentions;
                $body
            }
            $crate::key::TableName::Gateway => {
                let $table = &$state.gateways;
                $body
            }
            $crate::key::TableName::Config => {
                let $table = &$state.config;
                $body
            }
            $crate::key::TableName::Node => {
                let $table = &$state.nodes;
                $body
            }
            $crate::key::TableName::Instance => {
                let $table = &$state.instances;
                $body
            }
            $crate::key::TableName::Endpoints => {
                let $table = &$state.endpoints;
                $body
            }
            $crate::key::TableName::Virtual => {
                let $table = &$state.virtuals;
                $body
            }
            $crate::key::TableName::Ca => {
                let $table = &$state.ca;
                $body
            }
            $crate::key::TableName::Revocation => {
                let $table = &$state.revocations;
                $body
            }
        }
    };
}

/// Runs `$body` with `$table` as each table in turn, for writing.
macro_rules! each_table_mut {
    ($state:expr, $table:ident => $body:expr) => {{
        {
            let $table = &mut $state.cluster;
            $body
        }
        {
            let $table = &mut $state.mesh;
            $body
        }
        {
            let $table = &mut $state.services;
            $body
        }
        {
            let $table = &mut $state.routes;
            $body
        }
        {
            let $table = &mut $state.intentions;
            $body
        }
        {
            let $table = &mut $state.gateways;
            $body
        }
        {
            let $table = &mut $state.config;
            $body
        }
        {
            let $table = &mut $state.nodes;
            $body
        }
        {
            let $table = &mut $state.instances;
            $body
        }
        {
            let $table = &mut $state.endpoints;
            $body
        }
        {
            let $table = &mut $state.virtuals;
            $body
        }
        {
            let $table = &mut $state.ca;
            $body
        }
        {
            let $table = &mut $state.revocations;
            $body
        }
    }};
}
pub(crate) use each_table_mut;

impl State {
    /// Nothing, not even a cluster.
    pub fn new() -> Self {
        Self::default()
    }

    /// The version that this is.
    pub fn version(&self) -> Version {
        Version {
            epoch: self.epoch.clone(),
            index: self.index,
        }
    }

    /// The state's clock, in milliseconds since the Unix epoch: the latest
    /// time that a command came with. It never runs back.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// What the cluster is; `None` before it is bootstrapped.
    pub fn cluster(&self) -> Option<&Arc<Row<Cluster>>> {
        self.cluster.get(&())
    }

    /// The cluster's level: what every voter speaks.
    pub fn level(&self) -> u32 {
        self.cluster().map_or(1, |row| row.value.level)
    }

    /// Whether the cluster's level lets this command be proposed.
    pub fn admits(&self, command: &Command) -> Result<(), Refusal> {
        let (needs, has) = (command.required_level(), self.level());
        match needs <= has {
            true => Ok(()),
            false => Err(Refusal::Level { needs, has }),
        }
    }

    /// A restore that has begun: its id, and how many pieces are there.
    pub fn restoring(&self) -> Option<(&str, usize)> {
        let staging = self.staging.as_ref()?;
        Some((&staging.id, staging.pieces.len()))
    }

    /// The `mesh` block.
    pub fn mesh(&self) -> Option<&Arc<Row<Mesh>>> {
        self.mesh.get(&())
    }

    /// What holds for a pair without an intention.
    pub fn default_intention(&self) -> Action {
        self.mesh()
            .and_then(|row| row.value.default_intention)
            .or_else(|| self.cluster().map(|row| row.value.default_intention))
            .unwrap_or(Action::Deny)
    }

    /// What an intercepted application may call beside the mesh.
    pub fn outbound(&self) -> Outbound {
        self.mesh()
            .map_or_else(Outbound::default, |row| row.value.outbound)
    }

    /// With what sidecars make connections to each other.
    pub fn tls(&self) -> TlsPolicy {
        self.mesh()
            .map_or_else(TlsPolicy::default, |row| row.value.tls.clone())
    }

    /// A service's block.
    pub fn service(&self, key: &Key) -> Option<&Arc<Row<Service>>> {
        self.services.get(key)
    }

    /// A route.
    pub fn route(&self, key: &Key) -> Option<&Arc<Row<Route>>> {
        self.routes.get(key)
    }

    /// The intention with exactly these sides, which may be patterns.
    pub fn intention(&self, source: &Key, destination: &Key) -> Option<&Arc<Row<Intention>>> {
        self.intentions.get(&Pair {
            destination: destination.clone(),
            source: source.clone(),
        })
    }

    /// A gateway.
    pub fn gateway(&self, key: &Key) -> Option<&Arc<Row<Gateway>>> {
        self.gateways.get(key)
    }

    /// A config entry as it was written.
    pub fn config_entry(&self, key: &ConfigKey) -> Option<&Arc<Row<ConfigEntry>>> {
        self.config.get(key)
    }

    /// A node, by its id.
    pub fn node(&self, id: &str) -> Option<&Arc<Row<Node>>> {
        self.nodes.get(&id.to_owned())
    }

    /// An instance.
    pub fn instance(&self, node: &str, id: &str) -> Option<&Arc<Row<Instance>>> {
        self.instances.get(&InstanceKey {
            node: node.to_owned(),
            id: id.to_owned(),
        })
    }

    /// The CA's state, opaque.
    pub fn ca(&self) -> Option<&Arc<Row<Value>>> {
        self.ca.get(&())
    }

    /// What is revoked: services, by key, then leaves, by serial number.
    pub fn revocations(&self) -> impl Iterator<Item = &Arc<Row<Revocation>>> {
        self.revocations.rows()
    }

    /// Every service block, by key.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Row<Service>>> {
        self.services.rows()
    }

    /// Every route, by key.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Row<Route>>> {
        self.routes.rows()
    }

    /// Every gateway, by key.
    pub fn gateways(&self) -> impl Iterator<Item = &Arc<Row<Gateway>>> {
        self.gateways.rows()
    }

    /// Every config entry, by kind, then key.
    pub fn config_entries(&self) -> impl Iterator<Item = &Arc<Row<ConfigEntry>>> {
        self.config.rows()
    }

    /// Every node, by id.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Row<Node>>> {
        self.nodes.rows()
    }

    /// Every instance, by node.
    pub fn instances(&self) -> impl Iterator<Item = &Arc<Row<Instance>>> {
        self.instances.rows()
    }

    /// The services with instances.
    pub fn registered(&self) -> impl Iterator<Item = &Arc<Row<Registered>>> {
        self.endpoints.rows()
    }

    /// How many instances a service has, with a sidecar or without.
    pub fn instance_count(&self, service: &Key) -> u64 {
        self.endpoints
            .get(service)
            .map_or(0, |row| row.value.instances)
    }

    /// How many rows a table has.
    pub fn len(&self, table: TableName) -> usize {
        with_table!(self, table, table => table.len())
    }

    /// Whether there is no cluster yet.
    pub fn is_empty(&self) -> bool {
        self.cluster().is_none()
    }

    /// A row's modify index and owner, whatever it is.
    pub fn row(&self, key: &RowKey) -> Option<(u64, &str)> {
        fn of<'a, T: Stored>(table: &'a Table<T>, key: &T::Key) -> Option<(u64, &'a str)> {
            table
                .get(key)
                .map(|row| (row.modify_index, row.owner.as_str()))
        }
        match key {
            RowKey::Cluster => of(&self.cluster, &()),
            RowKey::Mesh => of(&self.mesh, &()),
            RowKey::Service(key) => of(&self.services, key),
            RowKey::Route(key) => of(&self.routes, key),
            RowKey::Intention(key) => of(&self.intentions, key),
            RowKey::Gateway(key) => of(&self.gateways, key),
            RowKey::Config(key) => of(&self.config, key),
            RowKey::Node(key) => of(&self.nodes, key),
            RowKey::Instance(key) => of(&self.instances, key),
            RowKey::Endpoints(key) => of(&self.endpoints, key),
            RowKey::Virtual(key) => of(&self.virtuals, key),
            RowKey::Ca => of(&self.ca, &()),
            RowKey::Revocation(key) => of(&self.revocations, key),
        }
    }

    /// The index of what a query reads, for a blocking query: that of the last
    /// change to any of it, deletions included. Never 0; within an epoch it
    /// never goes back. It may rise without a change, when the memory of
    /// deletions is pruned.
    pub fn index(&self, keys: &[WatchKey]) -> u64 {
        let indexes = keys.iter().map(|key| self.index_of(key));
        indexes.max().unwrap_or(0).max(1)
    }

    fn index_of(&self, key: &WatchKey) -> u64 {
        match key {
            WatchKey::Table(table) => with_table!(self, *table, table => table.index()),
            WatchKey::Prefix(prefix) => self.prefix_index(prefix),
            WatchKey::Key(key) => self.row_index(key),
            WatchKey::Topic(topic) => self.topic_index(topic),
        }
    }

    fn row_index(&self, key: &RowKey) -> u64 {
        match key {
            RowKey::Cluster => self.cluster.index_of(&()),
            RowKey::Mesh => self.mesh.index_of(&()),
            RowKey::Service(key) => self.services.index_of(key),
            RowKey::Route(key) => self.routes.index_of(key),
            RowKey::Intention(key) => self.intentions.index_of(key),
            RowKey::Gateway(key) => self.gateways.index_of(key),
            RowKey::Config(key) => self.config.index_of(key),
            RowKey::Node(key) => self.nodes.index_of(key),
            RowKey::Instance(key) => self.instances.index_of(key),
            RowKey::Endpoints(key) => self.endpoints.index_of(key),
            RowKey::Virtual(key) => self.virtuals.index_of(key),
            RowKey::Ca => self.ca.index_of(&()),
            RowKey::Revocation(key) => self.revocations.index_of(key),
        }
    }

    fn prefix_index(&self, prefix: &Prefix) -> u64 {
        let none = || Key::new("", "");
        match prefix {
            Prefix::Services(namespace) => self
                .services
                .index_from(&Key::new(namespace, ""), |key| key.namespace == *namespace),
            Prefix::Routes(namespace) => self
                .routes
                .index_from(&Key::new(namespace, ""), |key| key.namespace == *namespace),
            Prefix::IntentionsIn(namespace) => {
                let start = Pair {
                    destination: Key::new(namespace, ""),
                    source: none(),
                };
                self.intentions
                    .index_from(&start, |key| key.destination.namespace == *namespace)
            }
            Prefix::IntentionsTo(destination) => {
                let start = Pair {
                    destination: destination.clone(),
                    source: none(),
                };
                self.intentions
                    .index_from(&start, |key| key.destination == *destination)
            }
            Prefix::ConfigEntries(kind) => {
                let start = ConfigKey {
                    kind: kind.clone(),
                    key: none(),
                };
                self.config.index_from(&start, |key| key.kind == *kind)
            }
            Prefix::InstancesOn(node) => {
                let start = InstanceKey {
                    node: node.clone(),
                    id: String::new(),
                };
                self.instances.index_from(&start, |key| key.node == *node)
            }
        }
    }

    /// The index of the last change of a fact of the feed; as [`Self::index`].
    pub fn topic_index(&self, topic: &Topic) -> u64 {
        let cluster = || self.cluster.index_of(&());
        let index = match topic {
            Topic::Mesh => self.mesh.index_of(&()).max(cluster()),
            Topic::Roots => self.ca.index_of(&()).max(cluster()),
            Topic::Revocations => self.revocations.index().max(cluster()),
            Topic::Service(key) => self.services.index_of(key),
            Topic::Route(key) => self.routes.index_of(key),
            Topic::Endpoints(key) | Topic::Outside(key) => self.endpoints.index_of(key),
            Topic::Gateway(key) => self.gateways.index_of(key),
            Topic::Services => self.virtuals.index(),
            Topic::Intentions(key) => crate::facts::covering(key)
                .into_iter()
                .map(|pattern| self.prefix_index(&Prefix::IntentionsTo(pattern)))
                .max()
                .unwrap_or(0),
            Topic::Virtual(key) => self.virtual_index(key),
            Topic::Address(address) => self.address_index(*address),
        };
        index.max(1)
    }
}
