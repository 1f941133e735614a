//! Instances, as Consul's agent has them.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use bytes::Bytes;
use mesh_consul::agent::SERVICES;
use mesh_consul::filter::{Filter, Selectors};
use mesh_consul::register as consul;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::answer::{Answer, done, json, read};
use super::{Caller, Door, Failure, access};
use crate::catalog::Entry;
use crate::identity::Sent;

/// What a listing may be asked with. Namespace and partition are Consul's, and there is one.
#[derive(Debug, Deserialize)]
pub(super) struct Listing {
    filter: Option<String>,
}

impl Listing {
    /// Which of the rows with these selectors are wanted.
    pub(super) fn filter(&self, selectors: Selectors) -> Result<Filter, Failure> {
        Ok(Filter::parse(
            self.filter.as_deref().unwrap_or_default(),
            selectors,
        )?)
    }
}

/// `GET /v1/agent/services`
pub(super) async fn list(State(door): State<Arc<Door>>, Query(asked): Query<Listing>) -> Answer {
    let filter = asked.filter(SERVICES)?;
    let datacenter = door.datacenter();
    let view = door.view();
    let all: Map<String, Value> = view
        .iter()
        .flat_map(|entry| entry.services(&datacenter))
        .filter(|(_, service)| filter.keeps(service))
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
    let sent = door.identity.judge(access::token(&headers));
    door.change(peer, headers, move |door, owner| {
        let body = read(&body)?;
        let registered = consul::parse(&body)?;
        let id = registered.registration.id.clone();
        // What needs proof is what gets a ticket, and by it a leaf.
        let registration = &registered.registration;
        let in_mesh = registration.sidecar.is_some() || registration.native;
        let required = in_mesh && door.identity.is_required();
        if let Some(reason) = sent.refusal(&registered.registration, required) {
            tracing::warn!(instance = id, reason, "a registration was refused");
            return Err(Failure::forbidden(reason));
        }
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
    let sent = door.identity.judge(access::token(&headers));
    door.change(peer, headers, move |door, owner| {
        let view = door.view();
        let by_sidecar = || view.sidecar(&id).map(|(entry, _)| entry);
        if let Some(entry) = view.instance(&id).or_else(by_sidecar) {
            may_remove(&sent, entry)?;
        }
        door.catalog.deregister(&id, &owner)?;
        tracing::info!(id, %owner, "deregistered");
        Ok(())
    })
    .await?;
    done()
}

/// Whether what came with a request may take something away from this instance.
pub(super) fn may_remove(sent: &Sent, entry: &Entry) -> Result<(), Failure> {
    refused(sent.misfit(&entry.registration))
}

/// Whether it may add to it, or speak for it.
pub(super) fn may_change(sent: &Sent, entry: &Entry) -> Result<(), Failure> {
    refused(sent.refusal(&entry.registration, false))
}

fn refused(reason: Option<String>) -> Result<(), Failure> {
    match reason {
        Some(reason) => Err(Failure::forbidden(reason)),
        None => Ok(()),
    }
}
