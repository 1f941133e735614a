//! What an operator writes: one entry of policy or configuration.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Gateway, Intention, Key, Mesh, Route, Service};

/// The kinds of entry, in the order in which people read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// [`Mesh`].
    Mesh,
    /// [`Service`].
    Service,
    /// [`Route`].
    Route,
    /// [`Intention`].
    Intention,
    /// [`Gateway`].
    Gateway,
}

/// A kind that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("kind `{0}` is not known; use mesh, service, route, intention or gateway")]
pub struct UnknownKind(String);

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Mesh,
        Self::Service,
        Self::Route,
        Self::Intention,
        Self::Gateway,
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mesh => "mesh",
            Self::Service => "service",
            Self::Route => "route",
            Self::Intention => "intention",
            Self::Gateway => "gateway",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

/// What an entry is found by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum EntryKey {
    /// The one mesh.
    Mesh,
    /// A service.
    Service(Key),
    /// A service's route.
    Route(Key),
    /// The intention of a pair.
    Intention {
        /// Who calls.
        source: Key,
        /// Who is called.
        destination: Key,
    },
    /// A gateway.
    Gateway(Key),
}

impl EntryKey {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Mesh => Kind::Mesh,
            Self::Service(_) => Kind::Service,
            Self::Route(_) => Kind::Route,
            Self::Intention { .. } => Kind::Intention,
            Self::Gateway(_) => Kind::Gateway,
        }
    }
}

/// As errors and plans name it: `mesh`, `service web`, `intention web => db`.
impl fmt::Display for EntryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mesh => f.write_str("mesh"),
            Self::Service(key) => write!(f, "service {key}"),
            Self::Route(key) => write!(f, "route {key}"),
            Self::Intention {
                source,
                destination,
            } => write!(f, "intention {source} => {destination}"),
            Self::Gateway(key) => write!(f, "gateway {key}"),
        }
    }
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "snake_case",
    tag = "kind",
    content = "value",
    deny_unknown_fields
)]
pub enum Entry {
    /// The defaults of the mesh.
    Mesh(Mesh),
    /// A service.
    Service(Service),
    /// A route.
    Route(Route),
    /// An intention.
    Intention(Intention),
    /// A gateway.
    Gateway(Gateway),
}

impl Entry {
    /// What it is found by.
    pub fn key(&self) -> EntryKey {
        match self {
            Self::Mesh(_) => EntryKey::Mesh,
            Self::Service(service) => EntryKey::Service(service.key()),
            Self::Route(route) => EntryKey::Route(route.key()),
            Self::Intention(intention) => EntryKey::Intention {
                source: intention.source.clone(),
                destination: intention.destination.clone(),
            },
            Self::Gateway(gateway) => EntryKey::Gateway(gateway.key()),
        }
    }
}
