//! The defaults of the whole mesh.

use serde::{Deserialize, Serialize};

use crate::{Action, is_default};

/// The `mesh` block: there is at most one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mesh {
    /// What holds for a pair that no intention covers, and for a request that
    /// no permission of its intention matches. `None`: as the cluster was
    /// started (deny on a server, allow under `meshctl dev`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub default_intention: Option<Action>,
}
