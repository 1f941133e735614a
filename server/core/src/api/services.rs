//! `/v1/services`: how services are called. One that is registered exists without a block.

use mesh_model::{Entry, EntryKey, Key, Service};
use mesh_proto::fact::VirtualFact;
use mesh_state::{RowKey, State, TableName, WatchKey};
use serde_json::{Map, Value, json};

use super::named::{Named, Words};
use super::rows;

impl Named for Service {
    const WORDS: Words = Words {
        what: "service",
        all: "/v1/services",
        one: "/v1/services/{name}",
        schema: "Service",
        row: "ServiceRow",
        operations: [
            (
                "listServices",
                "Every service that is written or registered",
            ),
            ("readService", "One service"),
            ("writeService", "Writes a service"),
            (
                "deleteService",
                "Deletes a service's block; one that is registered has the defaults then",
            ),
        ],
    };

    fn entry(self) -> Entry {
        Entry::Service(self)
    }

    fn key(key: Key) -> EntryKey {
        EntryKey::Service(key)
    }

    fn all_keys() -> Vec<WatchKey> {
        vec![
            WatchKey::Table(TableName::Service),
            WatchKey::Table(TableName::Endpoints),
        ]
    }

    fn keys(key: Key) -> Vec<WatchKey> {
        vec![
            WatchKey::Key(RowKey::Service(key.clone())),
            WatchKey::Key(RowKey::Endpoints(key)),
        ]
    }

    fn rows(state: &State) -> Vec<Map<String, Value>> {
        let list = state.service_list();
        list.iter().map(|one| row(state, &one.key)).collect()
    }

    fn row(state: &State, key: &Key) -> Option<Map<String, Value>> {
        let known = state.service(key).is_some() || state.instance_count(key) > 0;
        known.then(|| row(state, key))
    }
}

/// A service, written or not.
fn row(state: &State, key: &Key) -> Map<String, Value> {
    let written = state.service(key);
    let mut fields = match written {
        Some(row) => rows::row(row),
        None => rows::object(&Service::named(key)),
    };
    fields.insert("defined".into(), written.is_some().into());
    fields.insert("instances".into(), counts(state, key));
    fields.insert("virtual".into(), addresses(state, key));
    fields
}

/// A service's virtual addresses; each that is written or registered has them.
pub(crate) fn addresses(state: &State, key: &Key) -> Value {
    json!(state.virtual_of(key).map(VirtualFact::from))
}

/// How a service's instances are.
pub(crate) fn counts(state: &State, key: &Key) -> Value {
    let health = state.health_of(key);
    json!({
        "total": health.passing + health.warning + health.critical + health.unknown,
        "passing": health.passing,
        "warning": health.warning,
        "critical": health.critical,
        "silent": health.unknown,
    })
}
