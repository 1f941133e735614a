//! `/v1/config…`: Consul's config entries, as the servers keep them. Writes are not taken: the agent
//! has its own authority only, which is not the caller's, and does not lend it.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{Method, StatusCode, Uri};
use mesh_consul::config::Row;
use serde_json::{Value, json};

use super::answer::Answer;
use super::query::{Asked, Pairs};
use super::{Door, Failure};

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
