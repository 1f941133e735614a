//! `-sidecar-for`: asks this node's agent, at its own socket, for a bootstrap.
//!
//! The agent sees by the kernel who asks, and gives a ticket to root and to the
//! uid that registered the instance.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use mesh_proto::bootstrap::{Bootstrap, MAX_BOOTSTRAP};

/// Why there is no bootstrap.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    /// There is nobody at the socket, or it may not be reached.
    #[error("agent's socket {path}: {reason}; is `meshctl agent` running, and is this its socket?")]
    Socket {
        /// Its path.
        path: String,
        /// What happened.
        reason: String,
    },
    /// The agent said no.
    #[error("the agent gives no bootstrap for {instance}: {reason}")]
    Refused {
        /// The instance.
        instance: String,
        /// Its words.
        reason: String,
        /// Whether another try may end differently.
        again: bool,
    },
    /// What came is no bootstrap.
    #[error(transparent)]
    Bootstrap(#[from] mesh_proto::bootstrap::BootstrapError),
}

impl AttachError {
    /// Whether another try may end differently: the agent is not up yet, or the
    /// instance is not registered yet.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Socket { .. } => true,
            Self::Refused { again, .. } => *again,
            Self::Bootstrap(_) => false,
        }
    }
}

/// Asks once; the agent itself waits some seconds for the registration.
pub(crate) async fn bootstrap(socket: &Path, instance: &str) -> Result<Bootstrap, AttachError> {
    let failed = |reason: String| AttachError::Socket {
        path: socket.display().to_string(),
        reason,
    };
    let exchange = tokio::time::timeout(Duration::from_secs(40), ask(socket, instance));
    let (status, body) = exchange
        .await
        .map_err(|_| failed("no answer in 40 s".to_owned()))?
        .map_err(failed)?;
    let text = String::from_utf8_lossy(&body);
    if status == StatusCode::OK {
        return Ok(Bootstrap::parse(&text)?);
    }
    Err(AttachError::Refused {
        instance: instance.to_owned(),
        reason: reason(&text),
        again: status == StatusCode::NOT_FOUND || status.is_server_error(),
    })
}

async fn ask(socket: &Path, instance: &str) -> Result<(StatusCode, Bytes), String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let stream = tokio::net::UnixStream::connect(socket)
        .await
        .map_err(|error| text(&error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| text(&error))?;
    let driver = tokio::spawn(connection);
    let body = serde_json::json!({"sidecar_for": instance}).to_string();
    let request = Request::post("/v1/proxy/bootstrap?wait=20s")
        .header(header::HOST, "agent")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| text(&error))?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| text(&error))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_BOOTSTRAP)
        .collect()
        .await
        .map_err(|error| error.to_string())?
        .to_bytes();
    driver.abort();
    Ok((status, body))
}

/// The message of the agent's JSON error, else its text.
fn reason(text: &str) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_str(text).ok();
    let message = parsed.as_ref().and_then(|value| {
        let error = value.get("error")?;
        error.get("message").unwrap_or(error).as_str()
    });
    message.unwrap_or(text.trim()).chars().take(500).collect()
}
