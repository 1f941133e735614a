//! `/v1/routes`: where a service's requests go.

use mesh_model::{Entry, EntryKey, Key, Route};
use mesh_state::{RowKey, State, TableName, WatchKey};
use serde_json::{Map, Value};

use super::named::{Named, Words};
use super::rows;

impl Named for Route {
    const WORDS: Words = Words {
        what: "route",
        all: "/v1/routes",
        one: "/v1/routes/{name}",
        schema: "Route",
        row: "RouteRow",
        operations: [
            ("listRoutes", "Every route"),
            ("readRoute", "One route"),
            ("writeRoute", "Writes a route"),
            ("deleteRoute", "Deletes a route"),
        ],
    };

    fn entry(self) -> Entry {
        Entry::Route(self)
    }

    fn key(key: Key) -> EntryKey {
        EntryKey::Route(key)
    }

    fn all_keys() -> Vec<WatchKey> {
        vec![WatchKey::Table(TableName::Route)]
    }

    fn keys(key: Key) -> Vec<WatchKey> {
        vec![WatchKey::Key(RowKey::Route(key))]
    }

    fn rows(state: &State) -> Vec<Map<String, Value>> {
        state.routes().map(|row| rows::row(row)).collect()
    }

    fn row(state: &State, key: &Key) -> Option<Map<String, Value>> {
        state.route(key).map(|row| rows::row(row))
    }
}
