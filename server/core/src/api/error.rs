//! Errors as callers see them: a code for programs, a message that says what to do, details.
//!
//! What is only for the log goes to the log, under the same request id.

use http::StatusCode;
use mesh_model::EntryKey;
use mesh_raft::{MemberError, ReadError, WriteError};
use mesh_state::{CommandError, Refusal, RowKey};
use serde_json::{Map, Value, json};

use crate::error::WriteFailure;

/// An answer that is an error.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// Further fields of `error`.
    pub(crate) details: Map<String, Value>,
}

impl ApiError {
    pub(crate) fn new(
        status: StatusCode,
        code: &'static str,
        message: impl std::fmt::Display,
    ) -> Self {
        Self {
            status,
            code,
            message: message.to_string(),
            details: Map::new(),
        }
    }

    /// Something that came with the request is wrong.
    pub(crate) fn request(message: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    /// What was written is wrong.
    pub(crate) fn invalid(message: impl std::fmt::Display) -> Self {
        let message = message.to_string();
        let findings = json!([{"key": null, "message": message}]);
        Self::new(StatusCode::BAD_REQUEST, "invalid", message).with("findings", findings)
    }

    /// There is no such thing.
    pub(crate) fn not_found(what: impl std::fmt::Display) -> Self {
        let message = format!("{what}: does not exist");
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// It may work later.
    pub(crate) fn unavailable(code: &'static str, message: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    /// Our fault.
    pub(crate) fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    fn conflict(code: &'static str, message: String) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    pub(crate) fn with(mut self, name: &str, value: Value) -> Self {
        self.details.insert(name.to_owned(), value);
        self
    }

    /// The body.
    pub(crate) fn body(&self, request_id: &str) -> Value {
        let mut error = Map::new();
        error.insert("code".into(), self.code.into());
        error.insert("message".into(), self.message.clone().into());
        error.insert("request_id".into(), request_id.into());
        error.extend(self.details.clone());
        json!({ "error": error })
    }
}

/// A row's key, as the API writes keys of entries; others in words.
fn key_of(row: &RowKey) -> Value {
    match row.entry() {
        Some(entry) => json!(entry),
        None => row.to_string().into(),
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::NotBootstrapped => Self::unavailable("not_ready", message),
            Refusal::AlreadyBootstrapped { .. } => Self::conflict("conflict", message),
            Refusal::Level { .. } => Self::conflict("level", message),
            Refusal::Superseded { .. } => Self::conflict("conflict", message),
            Refusal::Conflict {
                key,
                expected,
                actual,
            } => Self::conflict("conflict", message)
                .with("key", key_of(&key))
                .with("expected", expected.into())
                .with("actual", actual.into()),
            Refusal::OwnedBy { key, owner } => Self::conflict("owned_by_another", message)
                .with("key", key_of(&key))
                .with("owner", owner.into()),
            Refusal::Dangling { entries } => {
                let referrers = entries.iter().flat_map(|one| &one.referrers);
                let mut references: Vec<&EntryKey> = referrers.map(|one| &one.by).collect();
                references.sort();
                references.dedup();
                Self::conflict("dangling_reference", message)
                    .with("references", json!(references))
                    .with("dangling", json!(entries))
            }
            Refusal::Invalid { findings } => Self::new(StatusCode::BAD_REQUEST, "invalid", message)
                .with("findings", json!(findings)),
            Refusal::NotFound { key } => Self::not_found(key),
            Refusal::Restore { .. } | Refusal::NoOwner => Self::invalid(message),
        }
    }
}

impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> Self {
        match &error {
            WriteError::NotLeader { .. } | WriteError::NoLeader { .. } | WriteError::NoQuorum => {
                Self::unavailable("no_leader", error)
            }
            WriteError::TimedOut { .. } | WriteError::Overloaded => {
                Self::unavailable("overloaded", error)
            }
            WriteError::TooLarge { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", error)
            }
            WriteError::Refused { .. } => Self::unavailable("not_ready", error),
            WriteError::Stopped { .. } => Self::unavailable("storage", error),
            WriteError::Unknown { .. } => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "unknown_outcome", error)
            }
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        let code = match &error {
            ReadError::NoLeader { .. } | ReadError::NoQuorum => "no_leader",
            ReadError::Behind { .. } => "behind",
            ReadError::Stopped { .. } => "storage",
        };
        Self::unavailable(
            code,
            format!("{error}; ?stale answers with what this server has"),
        )
    }
}

impl From<WriteFailure> for ApiError {
    fn from(failure: WriteFailure) -> Self {
        match failure {
            WriteFailure::Refused(refusal) => refusal.into(),
            WriteFailure::Raft(error) => error.into(),
            WriteFailure::Command(
                error @ (CommandError::TooLong(_) | CommandError::RestoreTooLong(_)),
            ) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", error),
            WriteFailure::Command(error) => Self::internal(error),
            error @ WriteFailure::Answer(_) => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "unknown_outcome", error)
            }
        }
    }
}

impl From<MemberError> for ApiError {
    fn from(error: MemberError) -> Self {
        match &error {
            MemberError::NotLeader { .. } | MemberError::NoLeader { .. } => {
                Self::unavailable("no_leader", error)
            }
            MemberError::NotMember(id) => Self::not_found(format!("server {id}")),
            MemberError::LastVoter(_) | MemberError::AlreadyInitialized => {
                Self::conflict("conflict", error.to_string())
            }
            MemberError::Busy => Self::unavailable("overloaded", error),
            MemberError::Invalid(_) => Self::request(error),
            MemberError::Failed(_) => Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout", error),
            MemberError::Stopped { .. } => Self::unavailable("storage", error),
        }
    }
}
