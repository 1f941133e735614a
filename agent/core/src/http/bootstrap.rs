//! Bootstraps with their tickets: the one place from which a proxy's first proof comes.
//!
//! The socket's file lets every user of the machine connect; who is asked for is decided by the
//! uid that the kernel gives of each connection. Root and the agent's own user may ask for every
//! proxy, another user for those that it registered itself. To everyone else a proxy that is not
//! theirs is the same as one that does not exist. A workload's token that comes with a request must
//! be that of the proxy's instance, and where the mesh asks for one, one must come.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use bytes::Bytes;
use mesh_model::Registration;
use mesh_proto::bootstrap::{AgentAddress, Bootstrap, BootstrapRequest, HostPort};
use serde::Deserialize;
use tokio::time::Instant;

use super::answer::{Answer, json};
use super::{Caller, Door, Failure, Peer, is_trusted};
use crate::catalog::{Owner, View};

/// How long a registration may be waited for.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(60);

/// What may be asked with it.
#[derive(Debug, Deserialize)]
pub(super) struct Waiting {
    wait: Option<String>,
}

/// `POST /v1/proxy/bootstrap?wait=20s`
pub(super) async fn post(
    State(door): State<Arc<Door>>,
    Extension(peer): Caller,
    Query(asked): Query<Waiting>,
    body: Bytes,
) -> Answer {
    let request: BootstrapRequest = serde_json::from_slice(&body)
        .map_err(|e| Failure::bad(format!("the body is not a request for a bootstrap: {e}")))?;
    let wait = match asked.wait {
        None => Duration::ZERO,
        Some(text) => text
            .parse::<mesh_model::Duration>()
            .map_err(|e| Failure::bad(format!("wait: {e}")))?
            .std()
            .min(MAX_WAIT),
    };
    let Peer::Unix { uid, .. } = peer else {
        return Err(Failure::forbidden("ask at the agent's own socket"));
    };
    let bootstrap = issue(&door, &request, Some(uid), wait).await?;
    json(bootstrap.to_envoy_json())
}

/// A bootstrap with a fresh ticket, once the proxy is registered. `uid` is who asks; none: the
/// process that the agent runs in.
pub(crate) async fn issue(
    door: &Door,
    request: &BootstrapRequest,
    uid: Option<u32>,
    wait: Duration,
) -> Result<Bootstrap, Failure> {
    let proxy_id = match (&request.proxy_id, &request.sidecar_for) {
        (Some(id), None) => id.clone(),
        (None, Some(instance)) => Registration::sidecar_id(instance),
        _ => return Err(Failure::bad("write either proxy_id or sidecar_for")),
    };
    let sidecar_for = request.sidecar_for.as_deref();
    let field = |name: &'static str| {
        move |e: mesh_proto::bootstrap::BootstrapError| Failure::bad(format!("{name}: {e}"))
    };
    let admin = request.admin.as_deref().map(str::parse::<HostPort>);
    let admin = admin.transpose().map_err(field("admin"))?;
    let ready = request.ready.as_deref().map(str::parse::<HostPort>);
    let ready = ready.transpose().map_err(field("ready"))?;
    let agent = request.grpc_addr.as_deref().map(str::parse::<AgentAddress>);
    let agent = agent.transpose().map_err(field("grpc_addr"))?;

    // It is judged here and goes nowhere else.
    let token = request.token.as_deref().filter(|token| !token.is_empty());
    let sent = door.identity.judge(token.map(str::as_bytes));

    let deadline = Instant::now() + wait;
    let mut catalog = door.catalog.watch();
    loop {
        let view = catalog.borrow_and_update().clone();
        // One that is another's is waited for as one that is not there: how long the answer takes
        // must not tell the two apart.
        let found = find(&view, sidecar_for, &proxy_id);
        if let Some((registration, owner, proxy_id)) =
            found.filter(|(_, owner, _)| may_start(uid, owner))
        {
            // One of an instance file is the administrator's: no allocation stands behind it.
            let required = door.identity.is_required() && !matches!(owner, Owner::File(_));
            if let Some(reason) = sent.refusal(&registration, required) {
                tracing::warn!(proxy = proxy_id, ?uid, reason, "a bootstrap was refused");
                return Err(Failure::forbidden(format!("proxy {proxy_id}: {reason}")));
            }
            let kind = registration.gateway.as_ref().map(|it| it.kind);
            if let Some(wanted) = request.gateway
                && kind != Some(wanted)
            {
                let is = kind.map_or("no gateway".to_owned(), |kind| format!("a {kind} gateway"));
                return Err(Failure::bad(format!(
                    "proxy {proxy_id}: is registered as {is}, and asked for as a {wanted} gateway"
                )));
            }
            let ticket = door
                .tickets
                .issue(&proxy_id, &owner)
                .ok_or_else(|| Failure::internal("the system gives no randomness"))?;
            tracing::info!(proxy = proxy_id, ?uid, "a ticket was given out");
            return Ok(Bootstrap {
                service: registration.key(),
                agent: agent.unwrap_or_else(|| door.feed.clone()),
                admin,
                ready,
                ticket: Some(ticket),
                proxy_id,
            });
        }
        let changed = tokio::time::timeout_at(deadline, catalog.changed()).await;
        if !matches!(changed, Ok(Ok(()))) {
            return Err(match uid.is_none_or(is_trusted) {
                true => Failure::new(
                    StatusCode::NOT_FOUND,
                    format!(
                        "proxy {proxy_id} is not registered on this node (yet); register its service with a sidecar"
                    ),
                ),
                false => refused(uid, &proxy_id),
            });
        }
    }
}

/// The proxy, with its instance's registration and owner.
fn find(
    view: &View,
    sidecar_for: Option<&str>,
    proxy_id: &str,
) -> Option<(Registration, Owner, String)> {
    // An instance's sidecar may have an id of its own.
    let entry = match sidecar_for {
        Some(instance) => view.instance(instance)?,
        None => view.sidecar(proxy_id)?.0,
    };
    let sidecar = entry.registration.sidecar.as_ref()?;
    Some((
        entry.registration.clone(),
        entry.owner.clone(),
        sidecar.id.clone(),
    ))
}

fn may_start(uid: Option<u32>, owner: &Owner) -> bool {
    uid.is_none_or(|uid| is_trusted(uid) || *owner == Owner::Uid(uid))
}

fn refused(uid: Option<u32>, proxy_id: &str) -> Failure {
    let uid = uid.map_or_else(String::new, |uid| format!("uid {uid}: "));
    Failure::forbidden(format!(
        "{uid}proxy {proxy_id} is not one that this user registered; ask as root, or as the user that registered it"
    ))
}
