//! Why a request in Consul's form is not taken.

use serde_json::Value;

/// A field of a request that is missing or is not what it should be. Answered with status 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct ConsulError {
    /// The field, by its path: `Connect.SidecarService.Port`.
    pub place: String,
    /// What is wrong with it, and what to write.
    pub reason: String,
}

impl ConsulError {
    pub(crate) fn new(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            reason: reason.into(),
        }
    }

    /// `expected …, found …`, with the found value in short.
    pub(crate) fn expected(place: impl Into<String>, what: &str, found: &Value) -> Self {
        let found = match found {
            Value::Object(_) => "an object".to_owned(),
            Value::Array(_) => "a list".to_owned(),
            other => other.to_string().chars().take(60).collect(),
        };
        Self::new(place, format!("expected {what}, found {found}"))
    }
}
