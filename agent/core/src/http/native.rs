//! `/v1/agent/connect/ca/leaf/:service`: a certificate, with its key, for an application that is in
//! the mesh by itself.
//!
//! It is the one answer of this door with a secret in it. It is given to whoever brings the token
//! that this agent gave to the workload: of this service, and of an allocation that registered a
//! native instance of it here. No user of the machine, root or Nomad's own among them, gets it
//! without; and who has a sidecar gets none at all, since that makes its key itself.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, HeaderValue};
use axum::{Extension, Json};
use mesh_consul::connect::{self, Certificate};
use mesh_model::Registration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;

use super::answer::{Answer, blocking};
use super::query::{Asked, Pairs};
use super::{Caller, Door, Failure, access};
use crate::identity::{Sent, Workload};
use crate::leaves::Given;

/// How long the registration, and the first certificate, are waited for. Nomad registers a service
/// while its tasks start.
const PATIENCE: Duration = Duration::from_secs(20);

/// `GET /v1/agent/connect/ca/leaf/:service`
pub(super) async fn leaf(
    State(door): State<Arc<Door>>,
    Extension(peer): Caller,
    Path(service): Path<String>,
    pairs: Pairs,
    headers: HeaderMap,
) -> Answer {
    // The key goes over this connection.
    let takes_own = door.takes_own_writes;
    blocking(move || access::local(peer, takes_own)).await?;
    let asked = Asked::read(&door, pairs)?;
    let token = access::token(&headers);
    let workload = workload(&door, &service, token)?;
    let instance = registered(&door, &workload, &service).await?;
    let (known, wait) = match asked.index() {
        Some(index) => (Some(index), asked.wait().max(PATIENCE)),
        None => (None, PATIENCE),
    };
    let given = door.leaves.of(&instance, known, wait).await;
    let given = given.map_err(|error| Failure::internal(format!("service {service}: {error}")))?;
    // While it was waited for, the workload may have ended.
    self::workload(&door, &service, token)?;
    if !door.view().iter().any(|it| it.registration.id == instance) {
        return Err(gone(&service, &workload));
    }
    answer(&service, &given)
}

/// Whose token came, if it is of a workload of this service.
fn workload(door: &Door, service: &str, token: Option<&[u8]>) -> Result<Workload, Failure> {
    let why = match door.identity.judge(token) {
        Sent::Of(workload) if workload.service.as_deref() == Some(service) => return Ok(workload),
        Sent::Of(workload) => {
            let own = workload.service.or(workload.task).unwrap_or_default();
            format!("the token is that of {own}")
        }
        Sent::Ended => "the token was logged out; its allocation has ended".to_owned(),
        Sent::Foreign => "the token is not one that this agent gave to a workload".to_owned(),
        Sent::Nothing => "no token came".to_owned(),
    };
    Err(Failure::forbidden(format!(
        "service {service}: {why}. A certificate is for who brings the token of a workload of the \
         service in the header X-Consul-Token: give the service an identity in Nomad, and Nomad's \
         client a consul {{ token }}, and the task finds it in CONSUL_HTTP_TOKEN"
    )))
}

/// The id of the workload's own instance, which may come yet.
async fn registered(door: &Door, workload: &Workload, service: &str) -> Result<String, Failure> {
    let deadline = Instant::now() + PATIENCE;
    let mut catalog = door.catalog.watch();
    let is_own = |it: &Registration| workload.misfit(it).is_none();
    loop {
        let view = catalog.borrow_and_update().clone();
        let own = || {
            view.iter()
                .map(|it| &it.registration)
                .filter(|it| is_own(it))
        };
        if let Some(native) = own().find(|it| it.native) {
            return Ok(native.id.clone());
        }
        if own().next().is_some() {
            return Err(Failure::forbidden(format!(
                "service {service}: its instance is not native; the key of a sidecar never leaves \
                 it. Write connect {{ native = true }} in place of sidecar_service {{}}"
            )));
        }
        let changed = tokio::time::timeout_at(deadline, catalog.changed()).await;
        if !matches!(changed, Ok(Ok(()))) {
            return Err(gone(service, workload));
        }
    }
}

fn gone(service: &str, workload: &Workload) -> Failure {
    Failure::not_found(format!(
        "service {service}: no instance of allocation {} is registered on this node",
        workload.allocation
    ))
}

fn answer(service: &str, given: &Given) -> Answer {
    let date = |time: std::time::SystemTime| {
        let shown = OffsetDateTime::from(time).format(&Rfc3339);
        shown.unwrap_or_default()
    };
    let leaf = &given.leaf;
    let shown = connect::leaf(&Certificate {
        chain: &leaf.chain.iter().map(AsRef::as_ref).collect::<Vec<_>>(),
        key: &given.key.pem(),
        serial: &leaf.serial,
        service,
        uri: leaf.uri.as_deref().unwrap_or_default(),
        valid: (&date(leaf.not_before), &date(leaf.not_after)),
        index: given.index,
    });
    let mut answer = axum::response::IntoResponse::into_response(Json(shown));
    let headers = answer.headers_mut();
    headers.insert("x-consul-index", HeaderValue::from(given.index));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer)
}
