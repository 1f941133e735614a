//! What a commit touched: who waits for one of it must look again, and nobody
//! else.

use std::collections::BTreeSet;

use mesh_model::Version;

use crate::key::{RowKey, Topic, WatchKey};

/// The rows that a commit touched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// The version after it.
    pub version: Version,
    pub(crate) rows: BTreeSet<RowKey>,
    pub(crate) everything: bool,
}

impl Touched {
    /// That everything may be different: another state took its place.
    pub fn everything(version: Version) -> Self {
        Self {
            version,
            rows: BTreeSet::new(),
            everything: true,
        }
    }

    /// Whether nothing was touched.
    pub fn is_empty(&self) -> bool {
        !self.everything && self.rows.is_empty()
    }

    /// Whether everything was, and [`Self::rows`] does not matter.
    pub fn is_everything(&self) -> bool {
        self.everything
    }

    /// The rows, each with what follows from it: a change of an instance or of
    /// its node is one of its service's endpoints too.
    pub fn rows(&self) -> impl Iterator<Item = &RowKey> {
        self.rows.iter()
    }

    /// Whether a fact of the feed may be another one now.
    pub fn affects(&self, topic: &Topic) -> bool {
        self.everything || self.rows.iter().any(|row| topic.covers(row))
    }

    /// Whether a watch of this key wakes.
    pub fn wakes(&self, key: &WatchKey) -> bool {
        self.everything || self.rows.iter().any(|row| key.covers(row))
    }
}
