//! `/v1/gateways`: the edges of the mesh.

use mesh_model::{Entry, EntryKey, Gateway, Key};
use mesh_state::{RowKey, State, TableName, WatchKey};
use serde_json::{Map, Value};

use super::named::{Named, Words};
use super::rows;

impl Named for Gateway {
    const WORDS: Words = Words {
        what: "gateway",
        all: "/v1/gateways",
        one: "/v1/gateways/{name}",
        schema: "Gateway",
        row: "GatewayRow",
        operations: [
            ("listGateways", "Every gateway"),
            ("readGateway", "One gateway"),
            ("writeGateway", "Writes a gateway"),
            ("deleteGateway", "Deletes a gateway"),
        ],
    };

    fn entry(self) -> Entry {
        Entry::Gateway(self)
    }

    fn key(key: Key) -> EntryKey {
        EntryKey::Gateway(key)
    }

    fn all_keys() -> Vec<WatchKey> {
        vec![WatchKey::Table(TableName::Gateway)]
    }

    fn keys(key: Key) -> Vec<WatchKey> {
        vec![WatchKey::Key(RowKey::Gateway(key))]
    }

    fn rows(state: &State) -> Vec<Map<String, Value>> {
        state.gateways().map(|row| rows::row(row)).collect()
    }

    fn row(state: &State, key: &Key) -> Option<Map<String, Value>> {
        state.gateway(key).map(|row| rows::row(row))
    }
}
