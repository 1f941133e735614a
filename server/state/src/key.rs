//! What rows are found by, across all tables: the words of outcomes, of
//! watches and of what a commit touched.

use std::fmt;

use mesh_model::{EntryKey, Key, VirtualAddress};
use serde::{Deserialize, Serialize};

use crate::leaves::Revoked;

/// The tables, in the order in which a snapshot has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableName {
    /// What the cluster is; one row.
    Cluster,
    /// The mesh's defaults; no row or one.
    Mesh,
    /// `service` blocks.
    Service,
    /// `route` blocks.
    Route,
    /// Intentions, by destination, then source.
    Intention,
    /// `gateway` blocks.
    Gateway,
    /// Consul's config entries as they were written.
    Config,
    /// Machines with an agent.
    Node,
    /// Registered instances, by node.
    Instance,
    /// For each service with instances: how many, and when anything of their
    /// endpoints last changed.
    Endpoints,
    /// The virtual address of each service that has a block or instances.
    Virtual,
    /// The certificate authority; no row or one.
    Ca,
    /// Services and leaves that nobody is to believe any more.
    Revocation,
}

impl TableName {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Cluster,
        Self::Mesh,
        Self::Service,
        Self::Route,
        Self::Intention,
        Self::Gateway,
        Self::Config,
        Self::Node,
        Self::Instance,
        Self::Endpoints,
        Self::Virtual,
        Self::Ca,
        Self::Revocation,
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Mesh => "mesh",
            Self::Service => "service",
            Self::Route => "route",
            Self::Intention => "intention",
            Self::Gateway => "gateway",
            Self::Config => "config",
            Self::Node => "node",
            Self::Instance => "instance",
            Self::Endpoints => "endpoints",
            Self::Virtual => "virtual",
            Self::Ca => "ca",
            Self::Revocation => "revocation",
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An intention's key. The destination comes first, so that those of one
/// destination stand together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// Who is called; may be a pattern.
    pub destination: Key,
    /// Who calls; may be a pattern.
    pub source: Key,
}

/// A config entry's key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigKey {
    /// Consul's kind: `service-defaults`, …
    pub kind: String,
    /// Namespace and name.
    pub key: Key,
}

impl fmt::Display for ConfigKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "config entry {} {}", self.kind, self.key)
    }
}

/// An instance's key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceKey {
    /// The node's id.
    pub node: String,
    /// The instance's id, unique on the node.
    pub id: String,
}

/// That a service has an address: a row that is its own key, the address
/// first. So a row and the memory of one both say which service and which
/// address they are about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Virtual {
    /// The address; no other service has it.
    pub address: VirtualAddress,
    /// The service; it has no other address.
    pub service: Key,
}

/// What any row is found by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowKey {
    /// The one row of [`TableName::Cluster`].
    Cluster,
    /// The one row of [`TableName::Mesh`].
    Mesh,
    /// A service's block.
    Service(Key),
    /// A service's route.
    Route(Key),
    /// The intention of a pair.
    Intention(Pair),
    /// A gateway.
    Gateway(Key),
    /// A config entry.
    Config(ConfigKey),
    /// A node, by its id.
    Node(String),
    /// An instance.
    Instance(InstanceKey),
    /// The endpoints of a service: changes whenever an instance of it, or the
    /// node of one, does.
    Endpoints(Key),
    /// The virtual address of a service.
    Virtual(Virtual),
    /// The one row of [`TableName::Ca`].
    Ca,
    /// What is revoked.
    Revocation(Revoked),
}

impl RowKey {
    /// The table that it is in.
    pub fn table(&self) -> TableName {
        match self {
            Self::Cluster => TableName::Cluster,
            Self::Mesh => TableName::Mesh,
            Self::Service(_) => TableName::Service,
            Self::Route(_) => TableName::Route,
            Self::Intention(_) => TableName::Intention,
            Self::Gateway(_) => TableName::Gateway,
            Self::Config(_) => TableName::Config,
            Self::Node(_) => TableName::Node,
            Self::Instance(_) => TableName::Instance,
            Self::Endpoints(_) => TableName::Endpoints,
            Self::Virtual(_) => TableName::Virtual,
            Self::Ca => TableName::Ca,
            Self::Revocation(_) => TableName::Revocation,
        }
    }

    /// As the key of an entry, where it is one.
    pub fn entry(&self) -> Option<EntryKey> {
        match self {
            Self::Mesh => Some(EntryKey::Mesh),
            Self::Service(key) => Some(EntryKey::Service(key.clone())),
            Self::Route(key) => Some(EntryKey::Route(key.clone())),
            Self::Intention(pair) => Some(EntryKey::Intention {
                source: pair.source.clone(),
                destination: pair.destination.clone(),
            }),
            Self::Gateway(key) => Some(EntryKey::Gateway(key.clone())),
            _ => None,
        }
    }
}

impl From<EntryKey> for RowKey {
    fn from(key: EntryKey) -> Self {
        match key {
            EntryKey::Mesh => Self::Mesh,
            EntryKey::Service(key) => Self::Service(key),
            EntryKey::Route(key) => Self::Route(key),
            EntryKey::Gateway(key) => Self::Gateway(key),
            EntryKey::Intention {
                source,
                destination,
            } => Self::Intention(Pair {
                destination,
                source,
            }),
        }
    }
}

/// As errors name it: `service web`, `intention web => db`, `instance n1/web-1`.
impl fmt::Display for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("cluster"),
            Self::Mesh => f.write_str("mesh"),
            Self::Service(key) => write!(f, "service {key}"),
            Self::Route(key) => write!(f, "route {key}"),
            Self::Intention(pair) => {
                write!(f, "intention {} => {}", pair.source, pair.destination)
            }
            Self::Gateway(key) => write!(f, "gateway {key}"),
            Self::Config(key) => key.fmt(f),
            Self::Node(id) => write!(f, "node {id}"),
            Self::Instance(key) => write!(f, "instance {}/{}", key.node, key.id),
            Self::Endpoints(key) => write!(f, "endpoints of {key}"),
            Self::Virtual(key) => write!(f, "virtual address {} of {}", key.address, key.service),
            Self::Ca => f.write_str("ca"),
            Self::Revocation(Revoked::Service(key)) => write!(f, "revocation of service {key}"),
            Self::Revocation(Revoked::Serial(serial)) => write!(f, "revocation of leaf {serial}"),
        }
    }
}

/// A part of a table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Prefix {
    /// The services of a namespace.
    Services(String),
    /// The routes of a namespace.
    Routes(String),
    /// The intentions whose destination is in a namespace (`*` is the pattern
    /// of all namespaces, not every intention).
    IntentionsIn(String),
    /// The intentions with exactly this destination, which may be a pattern.
    IntentionsTo(Key),
    /// The config entries of a kind.
    ConfigEntries(String),
    /// The instances on a node.
    InstancesOn(String),
}

impl Prefix {
    /// The table that it is a part of.
    pub fn table(&self) -> TableName {
        match self {
            Self::Services(_) => TableName::Service,
            Self::Routes(_) => TableName::Route,
            Self::IntentionsIn(_) | Self::IntentionsTo(_) => TableName::Intention,
            Self::ConfigEntries(_) => TableName::Config,
            Self::InstancesOn(_) => TableName::Instance,
        }
    }

    fn covers(&self, row: &RowKey) -> bool {
        match (self, row) {
            (Self::Services(namespace), RowKey::Service(key))
            | (Self::Routes(namespace), RowKey::Route(key)) => *namespace == key.namespace,
            (Self::IntentionsIn(namespace), RowKey::Intention(pair)) => {
                *namespace == pair.destination.namespace
            }
            (Self::IntentionsTo(destination), RowKey::Intention(pair)) => {
                *destination == pair.destination
            }
            (Self::ConfigEntries(kind), RowKey::Config(key)) => *kind == key.kind,
            (Self::InstancesOn(node), RowKey::Instance(key)) => *node == key.node,
            _ => false,
        }
    }
}

/// A fact that the feed answers with, each at a version of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// The mesh's defaults: [`State::default_intention`](crate::State::default_intention).
    Mesh,
    /// How a service is called: [`State::service_or_default`](crate::State::service_or_default).
    Service(Key),
    /// A service's route.
    Route(Key),
    /// [`State::endpoints`](crate::State::endpoints).
    Endpoints(Key),
    /// Every intention that may decide about a call to this service:
    /// [`State::intentions_for`](crate::State::intentions_for).
    Intentions(Key),
    /// The virtual address of a service:
    /// [`State::virtual_of`](crate::State::virtual_of).
    Virtual(Key),
    /// Whose virtual address this is:
    /// [`State::service_at`](crate::State::service_at).
    Address(VirtualAddress),
    /// A gateway.
    Gateway(Key),
    /// The instances of a service that have no sidecar:
    /// [`State::outside`](crate::State::outside).
    Outside(Key),
    /// Which services there are:
    /// [`State::service_list`](crate::State::service_list).
    Services,
    /// Trust domain, roots and what signs.
    Roots,
    /// What is revoked: [`State::revocations`](crate::State::revocations).
    Revocations,
}

impl Topic {
    /// Whether a change of this row changes the fact.
    pub fn covers(&self, row: &RowKey) -> bool {
        match (self, row) {
            (Self::Mesh, RowKey::Mesh | RowKey::Cluster)
            | (Self::Roots, RowKey::Ca | RowKey::Cluster)
            | (Self::Revocations, RowKey::Revocation(_) | RowKey::Cluster) => true,
            (Self::Service(topic), RowKey::Service(key))
            | (Self::Route(topic), RowKey::Route(key))
            | (Self::Gateway(topic), RowKey::Gateway(key))
            | (Self::Endpoints(topic) | Self::Outside(topic), RowKey::Endpoints(key)) => {
                topic == key
            }
            (Self::Services, RowKey::Virtual(_)) => true,
            (Self::Intentions(topic), RowKey::Intention(pair)) => pair.destination.covers(topic),
            (Self::Virtual(topic), RowKey::Virtual(key)) => *topic == key.service,
            (Self::Address(topic), RowKey::Virtual(key)) => *topic == key.address,
            _ => false,
        }
    }
}

/// What a watch waits for, and what a blocking query reads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WatchKey {
    /// Anything in a table.
    Table(TableName),
    /// Anything in a part of a table.
    Prefix(Prefix),
    /// One row, there or not.
    Key(RowKey),
    /// A fact of the feed.
    Topic(Topic),
}

impl WatchKey {
    /// Whether a change of this row is a change of what this names.
    pub fn covers(&self, row: &RowKey) -> bool {
        match self {
            Self::Table(table) => *table == row.table(),
            Self::Prefix(prefix) => prefix.covers(row),
            Self::Key(key) => key == row,
            Self::Topic(topic) => topic.covers(row),
        }
    }

    /// Every watch key that covers `row`, except topics of intentions whose
    /// row has a pattern as its destination: those are found by looking.
    pub(crate) fn of_row(row: &RowKey) -> Vec<Self> {
        let mut keys = vec![Self::Table(row.table()), Self::Key(row.clone())];
        let mut prefix = |prefix| keys.push(Self::Prefix(prefix));
        match row {
            RowKey::Service(key) => prefix(Prefix::Services(key.namespace.clone())),
            RowKey::Route(key) => prefix(Prefix::Routes(key.namespace.clone())),
            RowKey::Intention(pair) => {
                prefix(Prefix::IntentionsIn(pair.destination.namespace.clone()));
                prefix(Prefix::IntentionsTo(pair.destination.clone()));
            }
            RowKey::Config(key) => prefix(Prefix::ConfigEntries(key.kind.clone())),
            RowKey::Instance(key) => prefix(Prefix::InstancesOn(key.node.clone())),
            RowKey::Cluster
            | RowKey::Mesh
            | RowKey::Gateway(_)
            | RowKey::Node(_)
            | RowKey::Endpoints(_)
            | RowKey::Virtual(_)
            | RowKey::Ca
            | RowKey::Revocation(_) => {}
        }
        let mut topic = |topic| keys.push(Self::Topic(topic));
        match row {
            RowKey::Cluster => {
                topic(Topic::Mesh);
                topic(Topic::Roots);
                topic(Topic::Revocations);
            }
            RowKey::Mesh => topic(Topic::Mesh),
            RowKey::Ca => topic(Topic::Roots),
            RowKey::Revocation(_) => topic(Topic::Revocations),
            RowKey::Service(key) => topic(Topic::Service(key.clone())),
            RowKey::Route(key) => topic(Topic::Route(key.clone())),
            RowKey::Endpoints(key) => {
                topic(Topic::Endpoints(key.clone()));
                topic(Topic::Outside(key.clone()));
            }
            RowKey::Gateway(key) => topic(Topic::Gateway(key.clone())),
            RowKey::Intention(pair) => topic(Topic::Intentions(pair.destination.clone())),
            RowKey::Virtual(key) => {
                topic(Topic::Virtual(key.service.clone()));
                topic(Topic::Address(key.address));
                topic(Topic::Services);
            }
            RowKey::Config(_) | RowKey::Node(_) | RowKey::Instance(_) => {}
        }
        keys
    }
}
