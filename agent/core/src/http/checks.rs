//! Checks, as Consul's agent has them.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use bytes::Bytes;
use mesh_consul::{agent, check};
use mesh_model::{CheckKind, Status};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::answer::{Answer, done, json, read};
use super::services::{Listing, may_change, may_remove};
use super::{Caller, Door, Failure, Peer, access, is_trusted};
use crate::catalog::{CatalogError, Owner};

/// `GET /v1/agent/checks`
pub(super) async fn list(State(door): State<Arc<Door>>, Query(asked): Query<Listing>) -> Answer {
    let filter = asked.filter(agent::CHECKS)?;
    let view = door.view();
    let mut all = Map::new();
    for entry in view.iter() {
        for (of_sidecar, check) in entry.checks() {
            let (status, output) = door.board.state(check);
            let (node, registration) = (&door.node_name, &entry.registration);
            let shown = agent::check_json(node, registration, of_sidecar, check, status, &output);
            if filter.keeps(&shown) {
                all.insert(check.id.clone(), shown);
            }
        }
    }
    json(Value::Object(all))
}

/// `PUT /v1/agent/check/register`
pub(super) async fn register(
    State(door): State<Arc<Door>>,
    Extension(peer): Caller,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let sent = door.identity.judge(access::token(&headers));
    door.change(peer, headers, move |door, owner| {
        let registered = check::parse(&read(&body)?)?;
        if let Some(entry) = door.view().instance(&registered.instance) {
            may_change(&sent, entry)?;
        }
        door.catalog
            .add_check(&registered.instance, registered.check, &owner)?;
        Ok(())
    })
    .await?;
    done()
}

/// `PUT /v1/agent/check/deregister/:id`
pub(super) async fn deregister(
    State(door): State<Arc<Door>>,
    Extension(peer): Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let sent = door.identity.judge(access::token(&headers));
    door.change(peer, headers, move |door, owner| {
        if let Some((entry, _)) = door.view().check(&id) {
            may_remove(&sent, entry)?;
        }
        door.catalog.remove_check(&id, &owner)?;
        Ok(())
    })
    .await?;
    done()
}

/// `PUT /v1/agent/check/update/:id`
pub(super) async fn update(
    State(door): State<Arc<Door>>,
    Extension(peer): Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let update = check::parse_update(&read(&body)?)?;
    set(door, peer, headers, id, update.status, update.output).await
}

/// What the short forms may be asked with.
#[derive(Debug, Deserialize)]
pub(super) struct Note {
    note: Option<String>,
}

/// `PUT /v1/agent/check/pass/:id`
pub(super) async fn pass(
    State(door): State<Arc<Door>>,
    Extension(peer): Caller,
    Path(id): Path<String>,
    Query(asked): Query<Note>,
    headers: HeaderMap,
) -> Answer {
    let note = asked.note.unwrap_or_default();
    set(door, peer, headers, id, Status::Passing, note).await
}

/// `PUT /v1/agent/check/warn/:id`
pub(super) async fn warn(
    State(door): State<Arc<Door>>,
    Extension(peer): Caller,
    Path(id): Path<String>,
    Query(asked): Query<Note>,
    headers: HeaderMap,
) -> Answer {
    let note = asked.note.unwrap_or_default();
    set(door, peer, headers, id, Status::Warning, note).await
}

/// `PUT /v1/agent/check/fail/:id`
pub(super) async fn fail(
    State(door): State<Arc<Door>>,
    Extension(peer): Caller,
    Path(id): Path<String>,
    Query(asked): Query<Note>,
    headers: HeaderMap,
) -> Answer {
    let note = asked.note.unwrap_or_default();
    set(door, peer, headers, id, Status::Critical, note).await
}

async fn set(
    door: Arc<Door>,
    peer: Peer,
    headers: HeaderMap,
    id: String,
    status: Status,
    output: String,
) -> Answer {
    let sent = door.identity.judge(access::token(&headers));
    door.change(peer, headers, move |door, by| {
        let view = door.view();
        let Some((entry, check)) = view.check(&id) else {
            return Err(Failure::not_found(format!("unknown check ID: {id}")));
        };
        may_change(&sent, entry)?;
        let trusted = matches!(by, Owner::Uid(uid) if is_trusted(uid));
        if !trusted && !entry.owner.may_be_checked_by(&by) {
            return Err(CatalogError::not_owner(entry, "check").into());
        }
        if !matches!(check.kind, CheckKind::Ttl { .. }) {
            return Err(Failure::bad(format!(
                "check {id} is not a TTL check: the agent runs it and says what it is"
            )));
        }
        door.board.update(&id, status, &output);
        Ok(())
    })
    .await?;
    done()
}
