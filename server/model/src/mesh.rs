//! The defaults of the whole mesh.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Action, TlsPolicy, is_default};

/// The `mesh` block: there is at most one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mesh {
    /// What holds for a pair that no intention covers, and for a request that
    /// no permission of its intention matches. `None`: as the cluster was
    /// started (deny on a server, allow under `meshctl dev`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub default_intention: Option<Action>,
    /// Where an intercepted application may go beside the mesh.
    #[serde(default, skip_serializing_if = "is_default")]
    pub outbound: Outbound,
    /// With what sidecars make connections to each other.
    #[serde(default, skip_serializing_if = "TlsPolicy::is_default")]
    pub tls: TlsPolicy,
}

/// What a sidecar that intercepts its application's connections does with an
/// address that is none of the mesh's. A word that a reader does not know is
/// refused, so that a stricter one of tomorrow is never taken for `any`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outbound {
    /// The connection goes on to where it was meant to go.
    #[default]
    Any,
    /// The connection is refused.
    MeshOnly,
}

impl Outbound {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Any, Self::MeshOnly];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::MeshOnly => "mesh_only",
        }
    }

    /// Reads what [`Self::as_str`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == text)
    }

    /// Whether this is what holds when nothing is said.
    pub fn is_any(&self) -> bool {
        *self == Self::Any
    }
}

impl fmt::Display for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_default_is_not_written_and_an_unknown_word_is_refused() {
        let mesh = |outbound| Mesh {
            outbound,
            ..Mesh::default()
        };
        for (outbound, text) in [
            (Outbound::Any, "{}"),
            (Outbound::MeshOnly, r#"{"outbound":"mesh_only"}"#),
        ] {
            assert_eq!(serde_json::to_string(&mesh(outbound)).unwrap(), text);
            assert_eq!(
                serde_json::from_str::<Mesh>(text).unwrap(),
                mesh(outbound),
                "{text}"
            );
            assert_eq!(Outbound::parse(outbound.as_str()), Some(outbound));
        }
        for text in [
            r#"{"outbound":"nothing"}"#,
            r#"{"outbound":null}"#,
            r#"{"out":"any"}"#,
        ] {
            assert!(serde_json::from_str::<Mesh>(text).is_err(), "{text}");
        }
    }
}
