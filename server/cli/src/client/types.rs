//! What the API sends and takes, as far as meshctl looks into it.

use std::collections::BTreeMap;
use std::fmt;

use mesh_model::{Action, Entry, EntryKey, Key, Version};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One operation of an apply.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Operation {
    #[serde(flatten)]
    pub(crate) what: What,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cas: Option<u64>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    Put(Entry),
    Delete(EntryKey),
    Require(EntryKey),
}

impl Operation {
    pub(crate) fn put(entry: Entry, cas: Option<u64>) -> Self {
        Self {
            what: What::Put(entry),
            cas,
        }
    }

    pub(crate) fn delete(key: EntryKey, cas: Option<u64>) -> Self {
        Self {
            what: What::Delete(key),
            cas,
        }
    }

    pub(crate) fn require(key: EntryKey, cas: u64) -> Self {
        Self {
            what: What::Require(key),
            cas: Some(cas),
        }
    }
}

/// The answer to a write.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Applied {
    pub(crate) index: u64,
    /// Of an apply.
    pub(crate) results: Vec<Written>,
    /// Of the write of one row: `created`, `updated`, …
    pub(crate) change: String,
    pub(crate) warnings: Vec<Finding>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Written {
    pub(crate) key: EntryKey,
    pub(crate) change: String,
}

/// Something that is said of an entry.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Finding {
    pub(crate) key: Value,
    pub(crate) message: String,
}

/// An intention's row. Permissions are not looked into: they may have
/// conditions that this meshctl does not know.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Intention {
    pub(crate) source: Key,
    pub(crate) destination: Key,
    #[serde(default)]
    pub(crate) action: Option<Action>,
    #[serde(default)]
    pub(crate) permissions: Vec<Value>,
    #[serde(default)]
    pub(crate) description: String,
    #[serde(default)]
    pub(crate) meta: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) precedence: u32,
    #[serde(default)]
    pub(crate) owner: String,
    #[serde(default)]
    pub(crate) create_index: u64,
    #[serde(default)]
    pub(crate) modify_index: u64,
    /// RFC 3339, as `modified_at`; empty when the server does not tell.
    #[serde(default)]
    pub(crate) created_at: String,
    #[serde(default)]
    pub(crate) modified_at: String,
}

impl Intention {
    /// `allow`, `deny` or `2 permissions`.
    pub(crate) fn says(&self) -> String {
        says(self.action, self.permissions.len())
    }
}

/// `web => db (allow)`.
impl fmt::Display for Intention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let says = self.says();
        write!(f, "{} => {} ({says})", self.source, self.destination)
    }
}

pub(crate) fn says(action: Option<Action>, permissions: usize) -> String {
    match action {
        Some(action) => action.to_string(),
        None => crate::error::count(permissions, "permission", "permissions"),
    }
}

/// The answer of a check.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Checked {
    pub(crate) allowed: bool,
    #[serde(default)]
    pub(crate) decided_by_request: bool,
    #[serde(default)]
    pub(crate) permissions: usize,
    #[serde(default)]
    pub(crate) reason: String,
    #[serde(default)]
    pub(crate) default_intention: String,
    #[serde(default)]
    pub(crate) protocol: String,
    #[serde(default)]
    pub(crate) explain: Vec<Explained>,
}

/// One intention that covers the pair.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Explained {
    pub(crate) source: Key,
    pub(crate) destination: Key,
    #[serde(default)]
    pub(crate) precedence: u32,
    #[serde(default)]
    pub(crate) says: String,
    #[serde(default)]
    pub(crate) governs: bool,
    #[serde(default)]
    pub(crate) permissions: Vec<ExplainedPermission>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ExplainedPermission {
    pub(crate) number: usize,
    pub(crate) action: String,
    #[serde(default)]
    pub(crate) matches: Option<bool>,
    #[serde(default)]
    pub(crate) note: String,
}

/// A node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) version: String,
    pub(crate) state: String,
    pub(crate) silent_since: Option<i64>,
    pub(crate) instances: u64,
}

/// How many instances are in which state.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Tally {
    pub(crate) total: u64,
    pub(crate) passing: u64,
    pub(crate) warning: u64,
    pub(crate) critical: u64,
    pub(crate) silent: u64,
}

/// A service that is registered.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ServiceRow {
    #[serde(default = "default_namespace")]
    pub(crate) namespace: String,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) tags: Vec<String>,
    #[serde(default)]
    pub(crate) instances: Tally,
}

fn default_namespace() -> String {
    mesh_model::DEFAULT_NAMESPACE.to_owned()
}

/// An instance.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) node: String,
    pub(crate) node_name: String,
    pub(crate) node_state: String,
    pub(crate) node_address: String,
    pub(crate) address: String,
    pub(crate) port: u16,
    pub(crate) tags: Vec<String>,
    pub(crate) status: String,
    pub(crate) proxy: Option<Value>,
    pub(crate) checks: BTreeMap<String, CheckState>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CheckState {
    pub(crate) name: String,
    pub(crate) status: String,
}

/// Every proxy.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Proxies {
    pub(crate) version: Version,
    pub(crate) unreachable_servers: Vec<Value>,
    pub(crate) proxies: Vec<Proxy>,
}

/// One proxy.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Proxy {
    pub(crate) proxy: String,
    pub(crate) namespace: String,
    pub(crate) service: String,
    pub(crate) node: String,
    pub(crate) connected: bool,
    pub(crate) in_sync: bool,
    pub(crate) acked: Option<Version>,
    pub(crate) sent: Option<Version>,
    pub(crate) leaf_not_after: Option<i64>,
    pub(crate) problem: String,
    pub(crate) not_understood: Vec<Value>,
}

/// The answer of a wait.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Waited {
    pub(crate) live: bool,
    pub(crate) index: u64,
    pub(crate) agents: u64,
    pub(crate) proxies: u64,
    pub(crate) lagging: Vec<Lagging>,
    pub(crate) not_connected: Vec<String>,
    pub(crate) unreachable_servers: Vec<Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Lagging {
    pub(crate) node: String,
    pub(crate) proxy: Option<String>,
    pub(crate) reason: String,
}

/// What the mesh trusts.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Roots {
    pub(crate) trust_domain: String,
    pub(crate) roots: Vec<Root>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Root {
    pub(crate) id: String,
    pub(crate) not_before: String,
    pub(crate) not_after: String,
    pub(crate) active: bool,
}

/// A member of the cluster.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Peer {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) version: String,
    pub(crate) voter: bool,
    pub(crate) leader: bool,
}

/// What a server says of itself.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    pub(crate) server: Peer,
    pub(crate) cluster: Option<Cluster>,
    pub(crate) state: String,
    pub(crate) leader: Option<Peer>,
    pub(crate) term: u64,
    pub(crate) index: u64,
    pub(crate) epoch: String,
    pub(crate) last_contact_ms: Option<u64>,
    pub(crate) health: Health,
    pub(crate) agents: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Cluster {
    pub(crate) id: String,
    pub(crate) trust_domain: String,
    pub(crate) datacenter: String,
    pub(crate) level: u32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Health {
    pub(crate) status: String,
    pub(crate) reason: Option<String>,
}

/// A row without what the row adds to the noun, so that it compares with one.
pub(crate) fn unrow(row: &Value) -> Value {
    let mut noun = row.clone();
    if let Value::Object(fields) = &mut noun {
        for name in [
            "owner",
            "create_index",
            "modify_index",
            "created_at",
            "modified_at",
            "precedence",
            "defined",
            "instances",
            "effective",
            "virtual",
        ] {
            fields.remove(name);
        }
    }
    noun
}
