//! Which leaves the servers signed, and which of them, or of whom, nobody is to
//! believe any more.
//!
//! The two are kept apart. A *revocation* is a row like any other: somebody
//! decided it, and every sidecar hears of it. What was *signed* is a record for
//! people, so that a leaf can be found by its service and revoked by its serial
//! number. There are tens of thousands, nobody waits for a change of one, and no
//! part decides by them; so they take no index, wake nobody, and are not
//! remembered when they are gone.

use imbl::OrdMap;
use std::sync::Arc;

use mesh_model::Key;
use serde::{Deserialize, Serialize};

use crate::state::State;

/// Signed leaves that are remembered at most; beyond, those that end first are
/// forgotten. Three for each sidecar of a mesh of 20,000. Part of what is
/// replicated: it may only change with the cluster's level.
pub const MAX_LEAVES: usize = 65_536;

/// Revocations that may stand at once: all of them go to every sidecar. As
/// [`MAX_LEAVES`].
pub const MAX_REVOCATIONS: usize = 1024;

/// The longest reason of a revocation, in bytes.
pub const MAX_REASON: usize = 512;

/// A leaf that a server signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedLeaf {
    /// Its serial number, as [`mesh_model::serial_number`] writes it.
    pub serial: String,
    /// SHA-256 of its public key (a DER SubjectPublicKeyInfo), in hex.
    pub key: String,
    /// The service that it names.
    pub service: Key,
    /// The node whose agent asked for it.
    pub node: String,
    /// The proxy that it is for, or the native instance.
    pub proxy: String,
    /// When it was signed, in seconds since the Unix epoch.
    pub signed: u64,
    /// When it ends, in the same.
    pub not_after: u64,
}

/// What is revoked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Revoked {
    /// All leaves of a service, and those that would be signed.
    Service(Key),
    /// One leaf, by its serial number as [`mesh_model::serial_number`] writes it.
    Serial(String),
}

/// That something is revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// What.
    pub what: Revoked,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Of a leaf: when the row goes, in seconds since the Unix epoch. No leaf of
    /// its key is good then, by its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// Of a leaf: what was signed; none: no server has recorded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaf: Option<SignedLeaf>,
}

/// The leaves that were signed, by their end.
pub(crate) type Leaves = OrdMap<(u64, String), Arc<SignedLeaf>>;

impl SignedLeaf {
    pub(crate) fn place(&self) -> (u64, String) {
        (self.not_after, self.serial.clone())
    }
}

impl State {
    /// The leaves that were signed and have not ended, by their end.
    pub fn leaves(&self) -> impl Iterator<Item = &Arc<SignedLeaf>> {
        self.leaves.values()
    }

    /// The leaf with this serial number.
    pub fn leaf(&self, serial: &str) -> Option<&Arc<SignedLeaf>> {
        self.leaves.values().find(|leaf| leaf.serial == serial)
    }

    /// Whether a leaf has ended that is still remembered, or a revocation of one,
    /// at a time in seconds since the Unix epoch.
    pub fn has_ended_leaves(&self, now: u64) -> bool {
        let first = self.leaves.get_min();
        let over = |row: &mesh_model::Row<Revocation>| row.value.until.is_some_and(|end| end < now);
        first.is_some_and(|((end, _), _)| *end < now) || self.revocations().any(|row| over(row))
    }

    /// Whether a service's identity is revoked, and why.
    pub fn revoked_service(&self, service: &Key) -> Option<&Revocation> {
        let row = self.revocations.get(&Revoked::Service(service.clone()));
        row.map(|row| &row.value)
    }

    /// Whether a key is one of a revoked leaf: SHA-256 in hex.
    pub fn revoked_key(&self, key: &str) -> Option<&Revocation> {
        let mut rows = self.revocations();
        let of = |row: &mesh_model::Row<Revocation>| {
            let leaf = row.value.leaf.as_ref();
            leaf.is_some_and(|leaf| leaf.key == key)
        };
        rows.find(|row| of(row)).map(|row| &row.value)
    }
}
