//! `/v1/agent/health/service/…`: how something on this node is, told by the status of the answer.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use mesh_consul::agent::check_json;
use mesh_consul::health::{Health, code, worst};
use mesh_model::Status;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::Answer;
use super::{Door, Failure};
use crate::catalog::Entry;

/// What may be asked with it.
#[derive(Debug, Deserialize)]
pub(super) struct Form {
    format: Option<String>,
}

impl Form {
    /// Whether only a word is wanted.
    fn is_text(&self) -> Result<bool, Failure> {
        match self.format.as_deref() {
            None | Some("" | "json") => Ok(false),
            Some("text") => Ok(true),
            Some(_) => Err(Failure::bad("format: write text or json")),
        }
    }
}

/// `GET /v1/agent/health/service/id/:id`, an instance's or a sidecar's.
pub(super) async fn by_id(
    State(door): State<Arc<Door>>,
    Path(id): Path<String>,
    Query(form): Query<Form>,
) -> Answer {
    let text = form.is_text()?;
    let all = of(&door, |it, _| *it == id);
    let one = all.first();
    let one = one.ok_or_else(|| Failure::not_found(format!("ServiceId {id} not found")))?;
    Ok(answer(one.status, text, one.json()))
}

/// `GET /v1/agent/health/service/name/:name`: all of that name on this node, and the worst of them.
pub(super) async fn by_name(
    State(door): State<Arc<Door>>,
    Path(name): Path<String>,
    Query(form): Query<Form>,
) -> Answer {
    let text = form.is_text()?;
    let all = of(&door, |_, service| {
        service.get("Service").and_then(Value::as_str) == Some(&name)
    });
    let status = worst(&all);
    let status =
        status.ok_or_else(|| Failure::not_found(format!("ServiceName {name} Not Found")))?;
    let shown = all.iter().map(Health::json).collect::<Vec<_>>();
    Ok(answer(status, text, json!(shown)))
}

fn answer(status: Status, text: bool, shown: Value) -> Response {
    let code = StatusCode::from_u16(code(status)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match text {
        true => {
            let kind = [(CONTENT_TYPE, "text/plain; charset=utf-8")];
            (code, kind, status.as_str()).into_response()
        }
        false => (code, Json(shown)).into_response(),
    }
}

/// Those that are meant, each under its id.
fn of(door: &Door, is: impl Fn(&String, &Value) -> bool) -> Vec<Health> {
    let datacenter = door.datacenter();
    let view = door.view();
    let mut all = Vec::new();
    for entry in view.iter() {
        for (id, service) in entry.services(&datacenter) {
            if is(&id, &service) {
                all.push(health(door, entry, &id, service));
            }
        }
    }
    all
}

fn health(door: &Door, entry: &Entry, id: &str, service: Value) -> Health {
    let registration = &entry.registration;
    let mut health = Health {
        status: Status::Passing,
        service,
        checks: Vec::new(),
    };
    let sidecar = registration.id != id;
    for (_, check) in entry.checks().filter(|(of, _)| *of == sidecar) {
        let (status, output) = door.board.state(check);
        health.status = health.status.max(status);
        let node = &door.node_name;
        let shown = check_json(node, registration, sidecar, check, status, &output);
        health.checks.push(shown);
    }
    health
}
