//! What a config says about names and virtual addresses.

use std::collections::{HashMap, HashSet};

use mesh_model::{Key, VirtualAddress};

/// What is known of what was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answers {
    /// This mesh's datacenter, as names say it.
    pub(crate) dc: String,
    /// Services: their address, or that they are not there.
    pub(crate) names: HashMap<Key, Option<VirtualAddress>>,
    /// Addresses that no service has.
    pub(crate) absent: HashSet<VirtualAddress>,
}
