//! Instances, as Consul's agent has them.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use bytes::Bytes;
use mesh_consul::register as consul;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::answer::{Answer, done, json, read};
use super::{Caller, Door, Failure};

/// What a listing may be asked with. Namespace and partition are Consul's, and there is one.
#[derive(Debug, Deserialize)]
pub(super) struct Listing {
    filter: Option<String>,
}

impl Listing {
    /// An answer to another question than was asked would be worse than none.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match self.filter.as_deref() {
            None | Some("") => Ok(()),
            Some(_) => Err(Failure::bad("filter: not supported; leave it out")),
        }
    }
}

/// `GET /v1/agent/services`
pub(super) async fn list(State(door): State<Arc<Door>>, Query(asked): Query<Listing>) -> Answer {
    asked.check()?;
    let datacenter = door.datacenter();
    let view = door.view();
    let all: Map<String, Value> = view
        .iter()
        .flat_map(|entry| entry.services(&datacenter))
        .collect();
    json(Value::Object(all))
}

/// `GET /v1/agent/service/:id`, an instance's or a sidecar's.
pub(super) async fn one(State(door): State<Arc<Door>>, Path(id): Path<String>) -> Answer {
    let view = door.view();
    let by_sidecar = || view.sidecar(&id).map(|(entry, _)| entry);
    let entry = view.instance(&id).or_else(by_sidecar);
    let mut services = entry
        .map(|it| it.services(&door.datacenter()))
        .into_iter()
        .flatten();
    match services.find(|(other, _)| *other == id) {
        Some((_, service)) => json(service),
        None => Err(Failure::not_found(format!("unknown service ID: {id}"))),
    }
}

/// What a registration may be asked with.
#[derive(Debug, Deserialize)]
pub(super) struct Registering {
    #[serde(rename = "replace-existing-checks")]
    replace: Option<String>,
}

/// `PUT /v1/agent/service/register`
pub(super) async fn register(
    State(door): State<Arc<Door>>,
    Extension(peer): Caller,
    Query(asked): Query<Registering>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let replace = asked.replace.is_some_and(|value| value != "false");
    door.change(peer, headers, move |door, owner| {
        let body = read(&body)?;
        let registered = consul::parse(&body)?;
        let id = registered.registration.id.clone();
        for warning in &registered.warnings {
            tracing::warn!(
                instance = id,
                warning,
                "a registration asks for what is not done"
            );
        }
        door.catalog
            .register(registered.registration, Some(body), owner.clone(), replace)?;
        tracing::info!(instance = id, %owner, "registered");
        Ok(())
    })
    .await?;
    done()
}

/// `PUT /v1/agent/service/deregister/:id`. What is not there is deregistered: Nomad's whole sync
/// would fail otherwise.
pub(super) async fn deregister(
    State(door): State<Arc<Door>>,
    Extension(peer): Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer {
    door.change(peer, headers, move |door, owner| {
        door.catalog.deregister(&id, &owner)?;
        tracing::info!(id, %owner, "deregistered");
        Ok(())
    })
    .await?;
    done()
}
