//! `/v1/ca/leaves`, `/v1/ca/revocations`: what was signed, and what nobody is to believe any more.

use futures::FutureExt;
use http::Method;
use mesh_model::{Key, serial_number};
use mesh_state::{Command, Finding, Revocation, Revoked, SignedLeaf, State, TableName, WatchKey};
use serde::Deserialize;
use serde_json::{Value, json};

use super::args::Args;
use super::ca::time_text;
use super::error::ApiError;
use super::route::{Body, Call, Content, Reply, Route, Shape};
use super::rows;
use crate::ca::revoke::revoke;

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::read(
            "/v1/ca/leaves",
            "listLeaves",
            "The leaves that were signed and have not ended; with `index` it waits for a revocation",
            Shape::List("Leaf"),
            |_| Ok(vec![WatchKey::Table(TableName::Revocation)]),
            leaves,
        )
        .query("service", "Keeps the leaves of this service")
        .query("node", "Keeps the leaves that this node asked for"),
        Route::read(
            "/v1/ca/revocations",
            "listRevocations",
            "The services and leaves that are revoked",
            Shape::List("Revocation"),
            |_| Ok(vec![WatchKey::Table(TableName::Revocation)]),
            |state, _| {
                let rows = state.revocations().map(|row| {
                    let mut shown = rows::object(&revocation(&row.value));
                    rows::stamp(&mut shown, row);
                    shown
                });
                Ok(json!(rows.collect::<Vec<_>>()).into())
            },
        ),
        Route::act(
            Method::POST,
            "/v1/ca/revoke",
            "revoke",
            "Revokes a service, or a leaf and all others of its key",
            Shape::One("Written"),
            |call| write(call).boxed(),
        )
        .body(Body::Json("Revoke")),
        Route::act(
            Method::POST,
            "/v1/ca/unrevoke",
            "unrevoke",
            "Makes the leaves of a service good again",
            Shape::One("Written"),
            |call| undo(call).boxed(),
        )
        .body(Body::Json("Unrevoke")),
    ]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    service: Option<Key>,
    serial: Option<String>,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedBack {
    service: Key,
}

fn leaves(state: &State, args: &Args) -> Result<Content, ApiError> {
    let (service, node) = (args.query_key("service")?, args.text("node"));
    let wanted = state.leaves().filter(|leaf| {
        service.as_ref().is_none_or(|key| *key == leaf.service)
            && node.is_none_or(|node| node == leaf.node)
    });
    let shown = wanted.map(|leaf| {
        let revoked = state.revoked_service(&leaf.service).is_some()
            || state.revoked_key(&leaf.key).is_some();
        let mut shown = leaf_json(leaf);
        shown["revoked"] = revoked.into();
        shown
    });
    Ok(json!(shown.collect::<Vec<_>>()).into())
}

fn leaf_json(leaf: &SignedLeaf) -> Value {
    json!({
        "serial": leaf.serial,
        "namespace": leaf.service.namespace,
        "service": leaf.service.name,
        "node": leaf.node,
        "proxy": leaf.proxy,
        "signed": time_text(leaf.signed),
        "not_after": time_text(leaf.not_after),
    })
}

/// A revocation: of a leaf, what is known of that stands beside it.
fn revocation(of: &Revocation) -> Value {
    let mut shown = match (&of.what, &of.leaf) {
        (Revoked::Service(key), _) => json!({
            "kind": "service",
            "namespace": key.namespace,
            "service": key.name,
        }),
        (Revoked::Serial(_), Some(leaf)) => leaf_json(leaf),
        (Revoked::Serial(serial), None) => json!({ "serial": serial }),
    };
    if let (Revoked::Serial(_), Some(until)) = (&of.what, of.until) {
        shown["kind"] = "leaf".into();
        shown["until"] = time_text(until);
    }
    shown["reason"] = of.reason.as_str().into();
    shown
}

async fn write(call: Call) -> Result<Reply, ApiError> {
    let asked: Asked = rows::noun(&"revoke", rows::body(&call.body)?, &[])?;
    let what = match (asked.service, asked.serial) {
        (Some(service), None) => {
            let checked = service.check();
            checked.map_err(|error| ApiError::invalid(format!("service: {error}")))?;
            Revoked::Service(service)
        }
        (None, Some(text)) => Revoked::Serial(serial_number(&text).ok_or_else(|| {
            ApiError::invalid(format!(
                "serial: {text} is no serial number; write its hex digits, as `meshctl ca leaves` does"
            ))
        })?),
        _ => return Err(ApiError::invalid("write either a service or a serial")),
    };
    let (named, reason) = (name(&what), asked.reason.clone());
    let service = match &what {
        Revoked::Service(key) => Some(key.clone()),
        Revoked::Serial(_) => None,
    };
    let mut applied = revoke(&call.core, what, asked.reason).await?;
    if let Some(key) = service
        && call.core.store.state().instance_count(&key) == 0
    {
        let message = format!("service {key}: no instance of it is registered; is the name right?");
        applied.warnings.push(Finding { key: None, message });
    }
    tracing::warn!(by = ?call.caller, owner = %call.owner, what = %named, reason, "revoked");
    Ok(Reply::json(rows::written(&applied, None)).at(rows::index(&applied)))
}

async fn undo(call: Call) -> Result<Reply, ApiError> {
    let asked: AskedBack = rows::noun(&"unrevoke", rows::body(&call.body)?, &[])?;
    let named = name(&Revoked::Service(asked.service.clone()));
    let command = Command::Unrevoke {
        service: asked.service,
    };
    let applied = call.core.write(command).await?;
    tracing::warn!(by = ?call.caller, owner = %call.owner, what = %named, "revoked no longer");
    Ok(Reply::json(rows::written(&applied, None)).at(rows::index(&applied)))
}

fn name(what: &Revoked) -> String {
    match what {
        Revoked::Service(key) => format!("service {key}"),
        Revoked::Serial(serial) => format!("leaf {serial}"),
    }
}
