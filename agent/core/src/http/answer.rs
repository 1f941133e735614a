//! Answers of the agent's doors: plain text for what went wrong, as Consul gives it.

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use mesh_consul::ConsulError;
use serde_json::Value;

use crate::catalog::CatalogError;

/// A refusal or failure.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let text = [(CONTENT_TYPE, "text/plain; charset=utf-8")];
        (self.status, text, self.message).into_response()
    }
}

impl From<ConsulError> for Failure {
    fn from(error: ConsulError) -> Self {
        Self::bad(error.to_string())
    }
}

impl From<CatalogError> for Failure {
    fn from(error: CatalogError) -> Self {
        let status = match &error {
            CatalogError::Owner { .. } => StatusCode::FORBIDDEN,
            CatalogError::NoInstance(_) => StatusCode::NOT_FOUND,
            CatalogError::Taken { .. } => StatusCode::CONFLICT,
            CatalogError::TooMany(_)
            | CatalogError::TooManyChecks(_)
            | CatalogError::TooLarge { .. }
            | CatalogError::NoPort { .. } => StatusCode::INSUFFICIENT_STORAGE,
            CatalogError::Disk { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

/// What a handler gives.
pub(crate) type Answer = Result<Response, Failure>;

/// JSON.
pub(crate) fn json(value: Value) -> Answer {
    Ok(Json(value).into_response())
}

/// Done, with nothing to say: an empty body, as Consul's.
pub(crate) fn done() -> Answer {
    Ok(StatusCode::OK.into_response())
}

/// Reads a body as JSON, whatever its content type.
pub(crate) fn read(body: &Bytes) -> Result<Value, Failure> {
    serde_json::from_slice(body).map_err(|e| Failure::bad(format!("the body is not JSON: {e}")))
}

/// Runs what waits for the disk.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Failure::internal("the request could not be worked off")))
}
