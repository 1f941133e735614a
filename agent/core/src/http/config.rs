//! `/v1/config…`: Consul's config entries, as the servers keep them. Writes are not taken: the agent
//! has its own authority only, which is not the caller's, and does not lend it. But for the entries of
//! gateways: Nomad's servers write them where Nomad's clients register, when one Nomad agent is both.
//! They are passed on for whoever may register here, and the servers decide whether an agent may.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use bytes::Bytes;
use mesh_consul::config::Row;
use mesh_model::consul::parse_config_entry;
use serde_json::{Value, json};

use super::answer::{Answer, json as json_answer};
use super::query::{Asked, Pairs, failure};
use super::{Caller, Door, Failure};

/// `GET /v1/config/:kind`
pub(super) async fn list(
    State(door): State<Arc<Door>>,
    Path(kind): Path<String>,
    pairs: Pairs,
) -> Answer {
    let asked = Asked::read(&door, pairs)?;
    if asked.text("filter").is_some() {
        return Err(Failure::bad("filter: not supported here; leave it out"));
    }
    let found = asked
        .ask(&door, &format!("/v1/config/{}", word(&kind)?))
        .await?;
    let rows: Vec<Row> = found.read()?;
    let shown = rows.iter().map(shown).collect::<Result<Vec<_>, _>>()?;
    found.answer(json!(shown))
}

/// `GET /v1/config/:kind/:name`
pub(super) async fn one(
    State(door): State<Arc<Door>>,
    Path((kind, name)): Path<(String, String)>,
    pairs: Pairs,
) -> Answer {
    let asked = Asked::read(&door, pairs)?;
    let (kind, name) = (word(&kind)?, word(&name)?);
    let path = format!("/v1/config/{kind}/{}%2F{name}", word(asked.namespace())?);
    match asked.ask_if(&door, &path).await? {
        Some(found) => {
            let row: Row = found.read()?;
            found.answer(shown(&row)?)
        }
        None => Err(Failure::not_found(format!(
            "Config entry not found for \"{kind}\" / \"{name}\""
        ))),
    }
}

/// `PUT /v1/config`, of a gateway's entry.
pub(super) async fn write(
    State(door): State<Arc<Door>>,
    Extension(peer): Caller,
    headers: HeaderMap,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Answer {
    let text = String::from_utf8(body.into());
    let text = text.map_err(|_| Failure::bad("the body is not UTF-8"))?;
    let entry = match parse_config_entry("body", &text) {
        Ok(entry) if entry.kind.is_gateway() => entry,
        Err(wrong) if text.contains("-gateway") => return Err(Failure::bad(wrong.to_string())),
        _ => return Err(no_write(method, uri).await),
    };
    let owner = door
        .clone()
        .change(peer, headers, |_, owner| Ok(owner))
        .await?;
    let answer = door.servers.write_config(text).await.map_err(failure)?;
    let status = u16::try_from(answer.status).ok();
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    match status {
        Some(StatusCode::OK) => {
            tracing::info!(%entry, %owner, "a gateway was written");
            // As Consul answers.
            json_answer(json!(true))
        }
        status => {
            let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let message = body["error"]["message"].as_str();
            let message = message.unwrap_or("the server refused the write");
            tracing::warn!(%entry, %owner, message, "a gateway was not written");
            let status = status.unwrap_or(StatusCode::BAD_GATEWAY);
            Err(Failure::new(status, message))
        }
    }
}

/// A write of policy, through whatever route.
pub(super) async fn no_write(method: Method, uri: Uri) -> Failure {
    Failure::forbidden(format!(
        "{method} {}: an agent does not change the mesh's policy; use meshctl, or the HTTP API of \
         the servers with an operator's certificate (`meshctl tls cert create -cli`)",
        uri.path()
    ))
}

fn shown(row: &Row) -> Result<Value, Failure> {
    let shown = row.json();
    shown.map_err(|error| Failure::new(StatusCode::NOT_IMPLEMENTED, error.to_string()))
}

/// A part of a path that needs no escapes in another one.
fn word(text: &str) -> Result<&str, Failure> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.*".contains(c);
    match text.chars().all(fine) && !text.is_empty() {
        true => Ok(text),
        false => Err(Failure::bad(format!(
            "`{text}` is neither a kind nor a name"
        ))),
    }
}
