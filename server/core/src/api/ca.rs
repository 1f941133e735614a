//! `/v1/ca`: what the mesh trusts, and how the CA does.

use bytes::Bytes;
use futures::FutureExt;
use http::Method;
use mesh_ca::{CaState, VaultHealth};
use mesh_state::{RowKey, State, WatchKey};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::args::Args;
use super::error::ApiError;
use super::route::{Access, Call, Content, Reply, Route, Shape};
use crate::ca::read_state;

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::read(
            "/v1/ca/roots",
            "readRoots",
            "What the mesh trusts",
            Shape::One("Roots"),
            |_| Ok(vec![WatchKey::Key(RowKey::Ca)]),
            roots,
        )
        .query("pem", "The certificates only, as PEM")
        .access(Access::Open),
        Route::act(
            Method::GET,
            "/v1/ca/status",
            "readCaStatus",
            "How the CA does on this server",
            Shape::One("CaStatus"),
            |call| status(call).boxed(),
        )
        .access(Access::Read),
    ]
}

fn ca(state: &State) -> Result<CaState, ApiError> {
    let row = state.ca();
    let row = row.ok_or_else(|| {
        ApiError::unavailable(
            "not_ready",
            "there is no CA yet; the leader makes it: try again",
        )
    })?;
    read_state(&row.value).map_err(ApiError::internal)
}

fn roots(state: &State, args: &Args) -> Result<Content, ApiError> {
    let ca = ca(state)?;
    if args.flag("pem")? {
        return Ok(Content::Text {
            media: "application/pem-certificate-chain",
            bytes: Bytes::from(ca.roots_pem()),
        });
    }
    let roots = ca.roots.iter().map(|root| {
        json!({
            "id": root.id,
            "pem": root.pem,
            "not_before": time_text(root.not_before),
            "not_after": time_text(root.not_after),
            "active": root.active,
        })
    });
    Ok(json!({
        "trust_domain": ca.trust_domain,
        "active_root": ca.active_root().map(|root| &root.id),
        "roots": roots.collect::<Vec<_>>(),
    })
    .into())
}

async fn status(call: Call) -> Result<Reply, ApiError> {
    let state = call.core.store.state();
    let opening = call.core.ca.of(&state);
    let ca = opening.state.as_deref();
    let (ready, mut problem) = match &opening.authority {
        Some(authority) => {
            let status = authority.status().await;
            (status.healthy, status.reason)
        }
        None => (false, opening.problem.clone()),
    };
    if let Some(trouble) = call.core.ca.trouble() {
        let before = problem.map_or(String::new(), |problem| format!("{problem}; "));
        problem = Some(format!("{before}{trouble}"));
    }
    let intermediate = ca.and_then(|ca| ca.intermediate.as_ref());
    let ttl = ca.map(|ca| mesh_model::Duration::from_secs(ca.config.leaf_ttl().as_secs()));
    Ok(Reply::json(json!({
        "provider": ca.map(|ca| &ca.provider),
        "ready": ready,
        "problem": problem,
        "leaf_ttl": ttl,
        "leaf_signing": leaf_signing(ca),
        "vault": call.core.ca.vault.as_ref().map(|vault| vault_json(&vault.health())),
        "root_not_after": ca.and_then(CaState::active_root).map(|root| time_text(root.not_after)),
        "intermediate_not_after": intermediate.map(|one| time_text(one.not_after)),
    })))
}

/// Who signs leaves, where the CA is in Vault.
fn leaf_signing(ca: Option<&CaState>) -> Option<&'static str> {
    let place = ca?.config.vault.as_ref()?;
    Some(place.leaf_signing.as_str())
}

fn vault_json(health: &VaultHealth) -> Value {
    json!({
        "address": health.address,
        "state": health.state,
        "reason": health.reason,
        "since": time_text(health.since),
        "token_seconds": health.token_seconds,
    })
}

/// Seconds since 1970 as RFC 3339.
fn time_text(seconds: u64) -> Value {
    let time = i64::try_from(seconds).ok();
    let time = time.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    let text = time.and_then(|time| time.format(&Rfc3339).ok());
    json!(text)
}
