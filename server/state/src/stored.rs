//! What stands in the tables beside the nouns, and where each kind of row is.

use mesh_model::{Action, EntryKey, Gateway, Instance, Intention, Key, Mesh, Node, Route, Service};
use serde::{Deserialize, Serialize};

use crate::key::{ConfigKey, InstanceKey, Pair, RowKey, Virtual};
use crate::leaves::{Revocation, Revoked};
use crate::state::State;
use crate::table::{Stored, Table};

/// What the cluster is. Made once; id and trust domain come back with a
/// restore, whatever cluster it is restored into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Random; agents refuse a cluster with another one than they first joined.
    pub cluster_id: String,
    /// The SPIFFE trust domain.
    pub trust_domain: String,
    /// The name of the server cluster, never Nomad's datacenter.
    pub datacenter: String,
    /// What holds without an intention when no `mesh` block says otherwise.
    pub default_intention: Action,
    /// What every voter speaks: no command above it is proposed.
    pub level: u32,
}

/// One of Consul's config entries, beside the rows that were made of it.
///
/// Whoever writes it makes the rows and sends them in the same transaction.
/// The state only remembers which they are: a row that no entry claims any
/// more, because the entry was deleted or claims others now, goes with it,
/// unless the same transaction writes the row itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigEntry {
    /// Its key.
    pub key: ConfigKey,
    /// It, word for word as it was written.
    pub text: String,
    /// The rows that it is a source of. A row may have several: a service has
    /// `service-defaults` and `service-resolver`.
    pub rows: Vec<EntryKey>,
}

/// That a service has instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registered {
    /// The service.
    pub service: Key,
    /// How many instances it has; 1 or more.
    pub instances: u64,
}

macro_rules! stored {
    ($type:ty, $field:ident, $key:ty, $value:ident => $make:expr, $k:pat => $row:expr) => {
        impl Stored for $type {
            type Key = $key;

            fn key(&self) -> $key {
                let $value = self;
                $make
            }

            fn row_key(key: &$key) -> RowKey {
                let $k = key;
                $row
            }

            fn of(state: &State) -> &Table<Self> {
                &state.$field
            }

            fn of_mut(state: &mut State) -> &mut Table<Self> {
                &mut state.$field
            }
        }
    };
}

stored!(Cluster, cluster, (), _v => (), () => RowKey::Cluster);
stored!(Mesh, mesh, (), _v => (), () => RowKey::Mesh);
stored!(Service, services, Key, v => v.key(), key => RowKey::Service(key.clone()));
stored!(Route, routes, Key, v => v.key(), key => RowKey::Route(key.clone()));
stored!(Intention, intentions, Pair,
    v => Pair { destination: v.destination.clone(), source: v.source.clone() },
    key => RowKey::Intention(key.clone()));
stored!(Gateway, gateways, Key, v => v.key(), key => RowKey::Gateway(key.clone()));
stored!(ConfigEntry, config, ConfigKey,
    v => v.key.clone(), key => RowKey::Config(key.clone()));
stored!(Node, nodes, String, v => v.id.clone(), key => RowKey::Node(key.clone()));
stored!(Instance, instances, InstanceKey,
    v => InstanceKey { node: v.node.clone(), id: v.id.clone() },
    key => RowKey::Instance(key.clone()));
stored!(Registered, endpoints, Key,
    v => v.service.clone(), key => RowKey::Endpoints(key.clone()));
stored!(Virtual, virtuals, Virtual, v => v.clone(), key => RowKey::Virtual(key.clone()));
stored!(Revocation, revocations, Revoked,
    v => v.what.clone(), key => RowKey::Revocation(key.clone()));
// The CA's state is mesh-ca's own: opaque here, with its keys sealed.
stored!(serde_json::Value, ca, (), _v => (), () => RowKey::Ca);
