//! `/v1/agent/health/service/…`: how an instance is, by its checks on this node.

use mesh_model::Status;
use serde_json::{Value, json};

/// A service of this node, which for Consul a sidecar is as well, with its checks.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// The worst of its checks; passing when it has none.
    pub status: Status,
    /// As `GET /v1/agent/services` shows it.
    pub service: Value,
    /// Each as `GET /v1/agent/checks` shows it.
    pub checks: Vec<Value>,
}

impl Health {
    /// Consul's answer about one.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "AggregatedStatus": self.status.as_str(),
            "Service": self.service,
            "Checks": self.checks,
        })
    }
}

/// The worst of several; `None` where there is none.
#[must_use]
pub fn worst(all: &[Health]) -> Option<Status> {
    all.iter().map(|one| one.status).max()
}

/// The HTTP status by which Consul says how something is, for load balancers that read no body.
#[must_use]
pub fn code(status: Status) -> u16 {
    match status {
        Status::Passing => 200,
        Status::Warning => 429,
        Status::Critical => 503,
    }
}
