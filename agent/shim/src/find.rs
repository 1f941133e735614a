//! Where the agent's own socket is.
//!
//! Nomad gives the address of the agent's HTTP API, where `/v1/agent/self` names
//! the socket. That port is open to whoever takes it first, and what comes out
//! of the socket is what a sidecar believes; so a socket elsewhere than where
//! only root can put one must be held by root or by the user that asks.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use mesh_attach::ExchangeError;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::Fault;

/// How long the API may take to answer.
const LIMIT: Duration = Duration::from_secs(5);
/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 256 * 1024;

/// Finds the socket of the agent whose API is there.
pub(crate) async fn socket(http_addr: &str) -> Result<PathBuf, Fault> {
    let about = tokio::time::timeout(LIMIT, about(http_addr))
        .await
        .map_err(|_| Fault::Down {
            at: http_addr.to_owned(),
            reason: format!("no answer in {} s", LIMIT.as_secs()),
        })??;
    let Some(mesh) = about.get("Mesh").and_then(Value::as_object) else {
        return Err(Fault::Version(format!(
            "at {http_addr} is something else, perhaps Consul's own agent"
        )));
    };
    let named = mesh.get("socket").and_then(Value::as_str);
    let Some(named) = named.filter(|path| path.starts_with('/')) else {
        return Err(Fault::Other(format!(
            "the agent at {http_addr} has no socket of its own, from which bootstraps come; \
             leave `socket` out of its configuration, or give it a path"
        )));
    };
    let path = PathBuf::from(named);
    trusted(&path).await?;
    Ok(path)
}

async fn trusted(path: &Path) -> Result<(), Fault> {
    if path == Path::new(mesh_attach::AGENT_SOCKET) {
        return Ok(());
    }
    let down = |reason: String| Fault::Down {
        at: path.display().to_string(),
        reason,
    };
    let stream = UnixStream::connect(path).await;
    let stream = stream.map_err(|error| down(error.to_string()))?;
    let holder = stream
        .peer_cred()
        .map_err(|error| down(error.to_string()))?;
    let own = nix::unistd::geteuid().as_raw();
    match holder.uid() {
        0 => Ok(()),
        uid if uid == own => Ok(()),
        uid => Err(Fault::Token(format!(
            "the socket {} is held by uid {uid}, not by root or uid {own}; put the agent's socket \
             at {}, or run the agent as root",
            path.display(),
            mesh_attach::AGENT_SOCKET
        ))),
    }
}

/// The answer of `/v1/agent/self`.
async fn about(http_addr: &str) -> Result<Value, Fault> {
    let down = |reason: String| Fault::Down {
        at: http_addr.to_owned(),
        reason,
    };
    if let Some(path) = http_addr.strip_prefix("unix://") {
        let stream = UnixStream::connect(path).await;
        return ask(stream.map_err(|error| down(error.to_string()))?, http_addr).await;
    }
    if http_addr.starts_with("https://") {
        return Err(Fault::Tls(format!("{http_addr} asks for TLS")));
    }
    let address = http_addr.strip_prefix("http://").unwrap_or(http_addr);
    let address = address.trim_end_matches('/');
    let stream = TcpStream::connect(address).await;
    ask(stream.map_err(|error| down(error.to_string()))?, http_addr).await
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    http_addr: &str,
) -> Result<Value, Fault> {
    let down = |reason: String| Fault::Down {
        at: http_addr.to_owned(),
        reason,
    };
    let request = Request::get("/v1/agent/self")
        .body(Full::<Bytes>::default())
        .map_err(|error| down(error.to_string()))?;
    let answer = mesh_attach::exchange(stream, request, MAX_ANSWER).await;
    // A port that speaks TLS answers plaintext with an alert, which is no HTTP.
    let (status, body) = answer.map_err(|error| match error {
        ExchangeError::NotHttp(_) => {
            Fault::Tls(format!("what answers at {http_addr} is not plaintext HTTP"))
        }
        ExchangeError::Broken(reason) => down(reason),
    })?;
    if status != StatusCode::OK {
        let text = String::from_utf8_lossy(&body);
        let text: String = text.trim().chars().take(200).collect();
        return Err(match text.contains("HTTPS") {
            true => Fault::Tls(format!("{http_addr} says: {text}")),
            false => Fault::Version(format!("{http_addr} answers {status}: {text}")),
        });
    }
    serde_json::from_slice(&body)
        .map_err(|error| Fault::Version(format!("{http_addr} answers what is not JSON: {error}")))
}
