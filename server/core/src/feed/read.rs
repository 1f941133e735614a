//! Reads of the HTTP API over an agent's connection.
//!
//! An agent answers Consul's reads of catalog and policy, knows no server's HTTP address, and holds
//! only the facts of its own proxies. So it asks here, by the connection that it has. What comes is
//! given to the API's own router as a GET with the agent's certificate: which routes it may read,
//! how fresh they are, how a change is waited for and how many may wait are decided there, as for
//! whoever asks over HTTPS.

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use mesh_proto::servers::MAX_READ;
use mesh_proto::servers::v1 as wire;
use tonic::Status;
use tower::ServiceExt;

use crate::listen::Caller;

/// The longest target, in bytes.
const MAX_TARGET: usize = 8 * 1024;

/// The answer to a read that this caller asks for.
pub(super) async fn read(
    api: &Router,
    caller: Caller,
    target: &str,
) -> Result<wire::ReadResponse, Status> {
    let wrong = |reason: &str| Status::invalid_argument(format!("target: {reason}"));
    if target.len() > MAX_TARGET {
        return Err(wrong("too long"));
    }
    if !target.starts_with("/v1/") {
        return Err(wrong("not a path of the API, which begin with /v1/"));
    }
    let request = Request::builder()
        .method(Method::GET)
        .uri(target)
        .extension(caller)
        .body(Body::empty());
    let request = request.map_err(|error| wrong(&error.to_string()))?;
    let Ok(answer) = api.clone().oneshot(request).await;
    collect(answer).await
}

/// The answer to the write of a config entry by this caller; whether it may is decided by the API.
pub(super) async fn write_config(
    api: &Router,
    caller: Caller,
    text: String,
) -> Result<wire::ReadResponse, Status> {
    let request = Request::builder()
        .method(Method::PUT)
        .uri("/v1/config")
        .extension(caller)
        .body(Body::from(text));
    let request = request.map_err(|error| Status::internal(error.to_string()))?;
    let Ok(answer) = api.clone().oneshot(request).await;
    collect(answer).await
}

async fn collect(answer: Response) -> Result<wire::ReadResponse, Status> {
    let (parts, body) = answer.into_parts();
    let text = |name: &str| parts.headers.get(name).and_then(|it| it.to_str().ok());
    let number = |name: &str| text(name).and_then(|text| text.parse::<u64>().ok());
    let mut read = wire::ReadResponse {
        status: parts.status.as_u16().into(),
        body: Vec::new(),
        index: number("x-meshctl-index").unwrap_or_default(),
        epoch: text("x-meshctl-epoch").unwrap_or_default().to_owned(),
        known_leader: text("x-meshctl-known-leader") == Some("true"),
        last_contact_ms: number("x-meshctl-last-contact"),
    };
    match Limited::new(body, MAX_READ).collect().await {
        Ok(body) => read.body = body.to_bytes().to_vec(),
        Err(error) if error.is::<LengthLimitError>() => {
            let message = format!("the answer has more than {MAX_READ} bytes; ask for less");
            return Err(Status::resource_exhausted(message));
        }
        Err(error) => return Err(Status::internal(error.to_string())),
    }
    // A document has no use behind an agent, and its form is not JSON's.
    let is_json = text("content-type") == Some("application/json");
    match is_json || parts.status != StatusCode::OK {
        true => Ok(read),
        false => Err(Status::invalid_argument("target: the answer is not JSON")),
    }
}
