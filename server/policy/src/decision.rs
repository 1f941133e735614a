//! What was decided, and by what.

use std::fmt;

use mesh_model::{Action, Key};

/// What was decided of a request, or of a connection as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Allowed or denied.
    pub action: Action,
    /// By what. Prints as the reason that logs, headers and `-explain` give.
    pub by: Decider,
}

impl Decision {
    /// Whether the call goes on.
    pub fn is_allowed(&self) -> bool {
        self.action == Action::Allow
    }
}

/// What was decided of a connection before any request on it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionDecision {
    /// The same for all that happens on it.
    Whole(Decision),
    /// Permissions decide request by request. A byte stream, in which no
    /// request can be seen, is denied.
    ByRequest {
        /// The intention that has the permissions.
        source: Key,
        /// Its destination.
        destination: Key,
        /// How many permissions it has.
        permissions: usize,
    },
}

/// What decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decider {
    /// No intention covers the pair.
    Default {
        /// The mesh's default.
        action: Action,
    },
    /// An intention for the whole pair.
    Intention {
        /// Its source, as it is written (it may be a pattern).
        source: Key,
        /// Its destination, likewise.
        destination: Key,
        /// What it says.
        action: Action,
    },
    /// One of an intention's permissions.
    Permission {
        /// The intention's source.
        source: Key,
        /// The intention's destination.
        destination: Key,
        /// Which permission, counted from 1.
        number: usize,
        /// What it says.
        action: Action,
    },
    /// The intention has permissions and none matches.
    NoPermission {
        /// The intention's source.
        source: Key,
        /// The intention's destination.
        destination: Key,
        /// The mesh's default, which then holds.
        default: Action,
    },
    /// The intention has permissions, and this is a byte stream.
    ByteStream {
        /// The intention's source.
        source: Key,
        /// The intention's destination.
        destination: Key,
    },
    /// The policy has a part that this build does not understand.
    NotUnderstood {
        /// The intention, if that much could be read.
        pair: Option<(Key, Key)>,
    },
}

impl fmt::Display for Decider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default { action } => {
                write!(f, "no intention matches; the mesh's default is {action}")
            }
            Self::Intention {
                source,
                destination,
                action,
            } => write!(f, "intention {source} => {destination} ({action})"),
            Self::Permission {
                source,
                destination,
                number,
                action,
            } => write!(
                f,
                "intention {source} => {destination}, permission {number} ({action})"
            ),
            Self::NoPermission {
                source,
                destination,
                default,
            } => write!(
                f,
                "intention {source} => {destination}: no permission matches; the mesh's default is {default}"
            ),
            Self::ByteStream {
                source,
                destination,
            } => write!(
                f,
                "intention {source} => {destination} has permissions, which need HTTP; this is a byte stream (deny)"
            ),
            Self::NotUnderstood { pair: Some((s, d)) } => write!(
                f,
                "intention {s} => {d} has a condition that this version does not know (deny); upgrade the sidecar"
            ),
            Self::NotUnderstood { pair: None } => f.write_str(
                "the policy has an intention that this version cannot read (deny); upgrade the sidecar",
            ),
        }
    }
}
