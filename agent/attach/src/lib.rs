//! Asks an agent, at its own socket, for a sidecar's bootstrap.
//!
//! The agent sees by the kernel who asks: root and its own user may ask for
//! every sidecar, another user for those whose instances it registered. A
//! sidecar that starts by itself (`mesh-proxy -sidecar-for`) comes this way, and
//! so does the shim that Nomad runs before each start of one.
#![forbid(unsafe_code)]

mod exchange;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use mesh_proto::bootstrap::{Bootstrap, BootstrapRequest, MAX_BOOTSTRAP};

pub use exchange::{ExchangeError, exchange};

/// Where an agent's own socket is when nothing else is said.
pub const AGENT_SOCKET: &str = "/run/meshctl/agent.sock";

/// How much longer than it was asked to wait the agent may take.
const GRACE: Duration = Duration::from_secs(20);

/// Why there is no bootstrap.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// There is nobody at the socket, or it may not be reached.
    #[error("agent's socket {path}: {reason}; is `meshctl agent` running, and is this its socket?")]
    Socket {
        /// Its path.
        path: String,
        /// What happened.
        reason: String,
    },
    /// The agent said no.
    #[error("the agent gives no bootstrap for {wanted}: {reason}")]
    Refused {
        /// The sidecar, or the instance whose sidecar it is.
        wanted: String,
        /// The answer's status.
        status: StatusCode,
        /// Its words.
        reason: String,
    },
    /// What came is no bootstrap.
    #[error(transparent)]
    Bootstrap(#[from] mesh_proto::bootstrap::BootstrapError),
}

impl AttachError {
    /// Whether another try may end differently: the agent is not up yet, or the
    /// instance is not registered yet.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Socket { .. } => true,
            Self::Refused { status, .. } => {
                *status == StatusCode::NOT_FOUND || status.is_server_error()
            }
            Self::Bootstrap(_) => false,
        }
    }
}

/// Asks once; the agent itself waits so long for the registration.
///
/// # Errors
/// When the agent cannot be reached, refuses, or answers with something else.
pub async fn bootstrap(
    socket: &Path,
    request: &BootstrapRequest,
    wait: Duration,
) -> Result<Bootstrap, AttachError> {
    let failed = |reason: String| AttachError::Socket {
        path: socket.display().to_string(),
        reason,
    };
    let limit = wait + GRACE;
    let (status, body) = tokio::time::timeout(limit, ask(socket, request, wait))
        .await
        .map_err(|_| failed(format!("no answer in {} s", limit.as_secs())))?
        .map_err(failed)?;
    let text = String::from_utf8_lossy(&body);
    if status == StatusCode::OK {
        return Ok(Bootstrap::parse(&text)?);
    }
    let wanted = request.proxy_id.as_ref().or(request.sidecar_for.as_ref());
    Err(AttachError::Refused {
        wanted: wanted.cloned().unwrap_or_default(),
        status,
        reason: reason(&text),
    })
}

async fn ask(
    socket: &Path,
    request: &BootstrapRequest,
    wait: Duration,
) -> Result<(StatusCode, Bytes), String> {
    let stream = tokio::net::UnixStream::connect(socket)
        .await
        .map_err(|error| error.to_string())?;
    let body = serde_json::to_vec(request).map_err(|error| error.to_string())?;
    let path = format!("/v1/proxy/bootstrap?wait={}s", wait.as_secs());
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| error.to_string())?;
    let answer = exchange(stream, request, MAX_BOOTSTRAP).await;
    answer.map_err(|error| error.to_string())
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
