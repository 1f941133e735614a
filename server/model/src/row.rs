//! What the state adds to a noun, and versions.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A noun as it stands in state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row<T> {
    /// The noun itself.
    pub value: T,
    /// Who wrote it: `cli`, an apply's name, `terraform`, `dev`.
    pub owner: String,
    /// The state's index when the row was made.
    pub create_index: u64,
    /// The state's index when the row was last changed; what check-and-set
    /// compares.
    pub modify_index: u64,
    /// When the row was made, by the state's clock, in milliseconds since the
    /// Unix epoch.
    pub created_at: u64,
    /// When the row was last changed, as `created_at`; never before it.
    pub modified_at: u64,
}

/// A version of the state: an index within an epoch.
///
/// A restore and a new cluster begin an epoch. Whoever holds a version of
/// another epoch gets everything again, so that an index never goes back
/// unseen. Versions of different epochs are not comparable, hence no `Ord`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// The epoch's name, random; empty before there is any state.
    pub epoch: String,
    /// The state's own count of changes, growing within the epoch.
    pub index: u64,
}

impl Version {
    /// Whether what this version says is at least as new as `other`.
    /// `false` across epochs: nothing is known then.
    pub fn covers(&self, other: &Self) -> bool {
        self.epoch == other.epoch && self.index >= other.index
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let epoch: String = self.epoch.chars().take(8).collect();
        write!(f, "{epoch}:{}", self.index)
    }
}
