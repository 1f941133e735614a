//! A policy on the wire, and what "unknown means no" does with it.

use std::collections::BTreeSet;
use std::fmt;

use mesh_model::{Action, Intention, IntentionRule, Key};
use serde::{Deserialize, Serialize};

/// The intentions for one destination, as the servers hand them out.
///
/// Each intention stays as the JSON that it came in until the evaluator reads
/// it: an agent that is older than the server passes on what it does not
/// understand, and a proxy that does not understand it denies what it covers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyForm {
    /// What holds where no intention does: `allow`; all else denies.
    #[serde(default)]
    pub default: String,
    /// [`Intention`]s, in any order.
    #[serde(default)]
    pub intentions: Vec<serde_json::Value>,
}

impl PolicyForm {
    /// The form of known intentions.
    pub fn new<'a>(default: Action, intentions: impl IntoIterator<Item = &'a Intention>) -> Self {
        Self {
            default: default.as_str().to_owned(),
            intentions: intentions
                .into_iter()
                .map(|one| serde_json::to_value(one).unwrap_or(serde_json::Value::Null))
                .collect(),
        }
    }
}

/// A thing that a part may not know yet. The names are wire forms: never
/// renamed, never used again for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// Intentions with permissions.
    Permissions,
    /// Permissions and routes that look at the query.
    Query,
    /// Retries in routes.
    Retries,
    /// Calls to any address, redirected by the kernel.
    Transparent,
    /// Calls from outside the mesh, at an ingress gateway.
    Ingress,
    /// Calls to the outside, at a terminating gateway.
    Terminating,
}

impl Feature {
    /// All that this build knows.
    pub const ALL: [Self; 6] = [
        Self::Permissions,
        Self::Query,
        Self::Retries,
        Self::Transparent,
        Self::Ingress,
        Self::Terminating,
    ];

    /// As it is written on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Permissions => "permissions",
            Self::Query => "query",
            Self::Retries => "retries",
            Self::Transparent => "transparent",
            Self::Ingress => "ingress",
            Self::Terminating => "terminating",
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The features that a part has, as it says when a stream opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features(BTreeSet<String>);

impl Default for Features {
    /// All that this build knows.
    fn default() -> Self {
        Self::named(Feature::ALL.iter().map(|feature| feature.as_str()))
    }
}

impl Features {
    /// The features of those names; unknown names are kept, they may be a
    /// newer peer's.
    pub fn named(names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(names.into_iter().map(Into::into).collect())
    }

    /// Without one: how a test plays an older part.
    pub fn without(mut self, name: &str) -> Self {
        self.0.remove(name);
        self
    }

    /// Whether it is there.
    pub fn has(&self, feature: Feature) -> bool {
        self.0.contains(feature.as_str())
    }

    /// Those of `needs` that are not there.
    pub fn missing<'a>(&self, needs: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        needs
            .into_iter()
            .filter(|need| !self.0.contains(*need))
            .map(str::to_owned)
            .collect()
    }

    /// Their names, in order.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().cloned().collect()
    }

    /// What an intention needs.
    pub fn needed_by(intention: &Intention) -> Vec<Feature> {
        let IntentionRule::Permissions(permissions) = &intention.rule else {
            return Vec::new();
        };
        let mut needs = vec![Feature::Permissions];
        if permissions.iter().any(|one| !one.request.query.is_empty()) {
            needs.push(Feature::Query);
        }
        needs
    }
}

/// A part of a policy that this build does not understand, and therefore
/// denies; it goes into the proxy's ack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotUnderstood {
    /// The intention, if that much could be read. `None`: everything is denied.
    pub pair: Option<(Key, Key)>,
    /// What was not understood.
    pub what: String,
}

impl fmt::Display for NotUnderstood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pair {
            Some((source, destination)) => {
                write!(f, "intention {source} => {destination}: {}", self.what)
            }
            None => write!(f, "an intention: {}", self.what),
        }
    }
}

/// One intention of a form, read as far as it can be.
pub(crate) enum Reading {
    Whole(Intention),
    Denied(NotUnderstood),
}

pub(crate) fn read(value: &serde_json::Value, features: &Features) -> Reading {
    let what = match Intention::deserialize(value) {
        Ok(intention) => {
            let missing: Vec<&str> = Features::needed_by(&intention)
                .into_iter()
                .filter(|feature| !features.has(*feature))
                .map(Feature::as_str)
                .collect();
            if missing.is_empty() {
                return Reading::Whole(intention);
            }
            format!("needs {}", missing.join(", "))
        }
        Err(error) => error.to_string(),
    };
    Reading::Denied(NotUnderstood {
        pair: pair(value),
        what,
    })
}

fn pair(value: &serde_json::Value) -> Option<(Key, Key)> {
    let side = |name: &str| {
        let key = Key::deserialize(value.get(name)?).ok()?;
        key.check_pattern().ok()?;
        Some(key)
    };
    Some((side("source")?, side("destination")?))
}
