//! `/v1/agent/connect/…`: for applications that are in the mesh without a sidecar.

use std::sync::Arc;

use axum::extract::State;
use bytes::Bytes;
use mesh_consul::connect::{self, Question, Root, authorized, question};
use mesh_model::{DEFAULT_NAMESPACE, Key, serial_number};
use mesh_policy::{ConnectionDecision, Features, Policy, PolicyForm};
use mesh_proto::fact::{MeshFact, RootsFact, Topic};
use mesh_tls::SpiffeId;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::Door;
use super::answer::{Answer, json, read};
use super::query::{Asked, Pairs};
use crate::revoked;

/// What `/v1/ca/roots` of the servers says.
#[derive(Deserialize)]
struct Roots {
    trust_domain: String,
    roots: Vec<ServersRoot>,
}

#[derive(Deserialize)]
struct ServersRoot {
    id: String,
    pem: String,
    active: bool,
    not_before: Option<String>,
    not_after: Option<String>,
}

/// `GET /v1/agent/connect/ca/roots` and `GET /v1/connect/ca/roots`: as a server has them, and where
/// none answers, as this agent's proxies have them. Which one signs is not known then: the last.
pub(super) async fn roots(State(door): State<Arc<Door>>, pairs: Pairs) -> Answer {
    let asked = Asked::read(&door, pairs)?;
    match asked.ask(&door, "/v1/ca/roots").await {
        Ok(found) => {
            let Roots {
                trust_domain,
                roots,
            } = found.read()?;
            let roots: Vec<Root> = roots
                .into_iter()
                .map(|root| Root {
                    id: root.id,
                    pem: root.pem,
                    active: root.active,
                    valid: root.not_before.zip(root.not_after),
                })
                .collect();
            found.answer(connect::roots(&trust_domain, &roots, found.index()))
        }
        // Who waits for a change would ask again at once.
        Err(failure) if asked.is_waiting() => Err(failure),
        Err(failure) => match door.facts.with(|facts| facts.roots().cloned()) {
            Some(fact) => json(of_fact(&fact)),
            None => Err(failure),
        },
    }
}

fn of_fact(fact: &RootsFact) -> serde_json::Value {
    let last = fact.roots.len().saturating_sub(1);
    let roots: Vec<Root> = fact
        .roots
        .iter()
        .enumerate()
        .map(|(at, pem)| Root {
            id: fingerprint(pem),
            pem: pem.clone(),
            active: at == last,
            valid: None,
        })
        .collect();
    connect::roots(&fact.trust_domain, &roots, 1)
}

/// As servers name a root.
fn fingerprint(pem: &str) -> String {
    let certificates = mesh_tls::pem::certificates("root", pem.as_bytes());
    let first = certificates.ok().and_then(|all| all.into_iter().next());
    let digest = first.map(|der| Sha256::digest(&der));
    let hex = |digest: &[u8]| digest.iter().map(|byte| format!("{byte:02x}")).collect();
    digest.map_or_else(String::new, |digest| hex(&digest))
}

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
    let revoked = revoked::of(&door.facts);
    let revoked = revoked.ok_or("what is revoked is not known here yet")?;
    if revoked.has_identity(&question.client) {
        return Ok((false, format!("the identity of {source} is revoked")));
    }
    let serial = question.serial.as_deref().and_then(serial_number);
    if serial.is_some_and(|serial| revoked.has_serial(&serial)) {
        return Ok((false, format!("this leaf of {source} is revoked")));
    }
    let intentions = door.facts.body(&Topic::Intentions(target.clone()));
    let intentions = intentions.ok_or_else(|| {
        format!(
            "the intentions for {target} are not known here; the agent holds those of services \
             that are in the mesh on this node"
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
