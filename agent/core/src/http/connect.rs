//! `/v1/agent/connect/…`: for applications that are in the mesh without a sidecar.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use mesh_consul::connect::{Question, authorized, question};
use mesh_model::{DEFAULT_NAMESPACE, Key};
use mesh_policy::{ConnectionDecision, Features, Policy, PolicyForm};
use mesh_proto::fact::{MeshFact, Topic};
use mesh_tls::SpiffeId;

use super::answer::{Answer, json, read};
use super::{Door, Failure, access};
use crate::identity::Sent;

/// `POST /v1/agent/connect/authorize`: may this caller call a service that is registered here? The
/// sidecars' own evaluator answers, by the intentions that this agent holds; what it does not know
/// is not authorized.
pub(super) async fn authorize(State(door): State<Arc<Door>>, body: Bytes) -> Answer {
    let question = question(&read(&body)?)?;
    let (yes, reason) = match judge(&door, &question) {
        Ok(decision) => decision,
        Err(reason) => (false, reason),
    };
    json(authorized(yes, &reason))
}

/// `GET /v1/agent/connect/ca/leaf/:service`. A key is given out to nobody but a workload of that
/// service; and none is made here so far, since servers sign for sidecars only, whose keys never
/// leave them.
pub(super) async fn leaf(
    State(door): State<Arc<Door>>,
    Path(service): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let sent = door.identity.judge(access::token(&headers));
    Err(match sent {
        Sent::Of(workload) if workload.service.as_deref() == Some(&service) => Failure::new(
            StatusCode::NOT_IMPLEMENTED,
            format!(
                "service {service}: keys are made by sidecars only, and never given out; register it \
                 with Connect.SidecarService in place of Connect.Native"
            ),
        ),
        _ => Failure::forbidden(format!(
            "service {service}: a certificate needs the token of a workload of this service in the \
             header X-Consul-Token"
        )),
    })
}

/// Whether, and why. An error is why it cannot be told.
fn judge(door: &Door, question: &Question) -> Result<(bool, String), String> {
    let namespace = question.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let target = Key::new(namespace, &question.target);
    let view = door.view();
    if !view.iter().any(|entry| entry.registration.key() == target) {
        return Err(format!("service {target} is not registered on this node"));
    }
    let mesh = door.facts.with(|facts| facts.mesh().cloned());
    let mesh =
        mesh.ok_or("the mesh is not known here yet; the agent has not heard from a server")?;
    let source = caller(&question.client, &mesh)?;
    let intentions = door.facts.body(&Topic::Intentions(target.clone()));
    let intentions = intentions.ok_or_else(|| {
        format!(
            "the intentions for {target} are not known here; the agent holds those of services \
             with a sidecar on this node"
        )
    })?;
    let intentions = serde_json::from_slice(&intentions)
        .map_err(|error| format!("the intentions for {target} cannot be read: {error}"))?;
    let form = PolicyForm {
        default: mesh.default_intention.as_str().to_owned(),
        intentions,
    };
    let (policy, _) = Policy::compile(&form, &Features::default());
    Ok(match policy.connection(&source) {
        ConnectionDecision::Whole(decision) => (decision.is_allowed(), decision.by.to_string()),
        ConnectionDecision::ByRequest {
            source,
            destination,
            ..
        } => {
            let pair = format!("intention {source} => {destination}");
            let why = "decides request by request, which cannot be asked here";
            (false, format!("{pair} {why}"))
        }
    })
}

/// The caller, if it is of this mesh.
fn caller(uri: &str, mesh: &MeshFact) -> Result<Key, String> {
    let id: SpiffeId = uri
        .parse()
        .map_err(|error| format!("ClientCertURI: {error}"))?;
    let key = Key::new(id.namespace(), id.service());
    match id.as_str() == mesh.identity(&key) {
        true => Ok(key),
        false => Err(format!(
            "ClientCertURI: {uri} is not of this mesh; its trust domain is {}, its datacenter {}",
            mesh.trust_domain, mesh.datacenter
        )),
    }
}
