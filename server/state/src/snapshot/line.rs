//! The lines.

use std::sync::Arc;

use mesh_model::{Gateway, Instance, Intention, Mesh, Node, Route, Row, Service};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::apply::Piece;
use crate::key::Virtual;
use crate::leaves::{Revocation, SignedLeaf};
use crate::stored::{Cluster, ConfigEntry, Registered};
use crate::table::{Stored, Tombstone};

/// A line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    Snapshot(Header),
    Cluster(Item<Cluster>),
    Mesh(Item<Mesh>),
    Service(Item<Service>),
    Route(Item<Route>),
    Intention(Item<Intention>),
    Gateway(Item<Gateway>),
    Config(Item<ConfigEntry>),
    Node(Item<Node>),
    Instance(Item<Instance>),
    Endpoints(Item<Registered>),
    Virtual(Item<Virtual>),
    Ca(Item<Value>),
    Revocation(Item<Revocation>),
    Leaf(Arc<SignedLeaf>),
    Staging(Piece),
    End(Trailer),
}

/// The first line.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) v: u32,
    pub(super) level: u32,
    pub(super) epoch: String,
    pub(super) index: u64,
    pub(super) now: u64,
}

/// The last line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trailer {
    /// All before this one.
    pub(super) lines: u64,
    /// Of their bytes, in hex.
    pub(super) sha256: String,
}

/// What a table has.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", bound(serialize = "", deserialize = ""))]
pub(super) enum Item<T: Stored> {
    Row(Arc<Row<T>>),
    Gone(Arc<Tombstone<T::Key>>),
    Floor(u64),
}

impl Line {
    /// Why this kind of line cannot stand in the middle; its table otherwise.
    pub(super) fn table(&self) -> Result<&'static str, &'static str> {
        Ok(match self {
            Self::Snapshot(_) => return Err("a second header"),
            Self::End(_) => return Err("a trailer too early"),
            Self::Cluster(_) => "cluster",
            Self::Mesh(_) => "mesh",
            Self::Service(_) => "service",
            Self::Route(_) => "route",
            Self::Intention(_) => "intention",
            Self::Gateway(_) => "gateway",
            Self::Config(_) => "config",
            Self::Node(_) => "node",
            Self::Instance(_) => "instance",
            Self::Endpoints(_) => "endpoints",
            Self::Virtual(_) => "virtual",
            Self::Ca(_) => "ca",
            Self::Revocation(_) => "revocation",
            Self::Leaf(_) => "leaf",
            Self::Staging(_) => "staging",
        })
    }

    /// Whether it is a row, and whether it is a tombstone.
    pub(super) fn counts(&self) -> (bool, bool) {
        fn of<T: Stored>(item: &Item<T>) -> (bool, bool) {
            match item {
                Item::Row(_) => (true, false),
                Item::Gone(_) => (false, true),
                Item::Floor(_) => (false, false),
            }
        }
        match self {
            Self::Cluster(item) => of(item),
            Self::Mesh(item) => of(item),
            Self::Service(item) => of(item),
            Self::Route(item) => of(item),
            Self::Intention(item) => of(item),
            Self::Gateway(item) => of(item),
            Self::Config(item) => of(item),
            Self::Node(item) => of(item),
            Self::Instance(item) => of(item),
            Self::Endpoints(item) => of(item),
            Self::Virtual(item) => of(item),
            Self::Ca(item) => of(item),
            Self::Revocation(item) => of(item),
            Self::Leaf(_) | Self::Staging(_) => (true, false),
            Self::Snapshot(_) | Self::End(_) => (false, false),
        }
    }
}
