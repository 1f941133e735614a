//! `/v1/ca`: what the mesh trusts, and how the CA does.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use http::{Method, StatusCode};
use mesh_ca::{AwsHealth, CaState, RootEntry, VaultHealth};
use mesh_state::{RowKey, State, WatchKey};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::args::Args;
use super::ca_settings;
use super::error::ApiError;
use super::route::{Access, Body, Call, Content, Reply, Route, Shape};
use crate::ca::reseal::seal_with;
use crate::ca::rotate::{
    Absent, CrossSignature, Plan, Refused, Standing, Wish, change, differences, look,
};
use crate::ca::{others, read_state, warnings};
use crate::core::Core;

/// How long a new CA may take to be made, where Vault takes its time.
const MAKING: Duration = Duration::from_secs(60);

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
        Route::read(
            "/v1/ca/config",
            "readCaConfig",
            "The CA's settings",
            Shape::One("CaConfig"),
            |_| Ok(vec![WatchKey::Key(RowKey::Ca)]),
            |state, _| Ok(ca_settings::json(&ca(state)?.config).into()),
        ),
        Route::act(
            Method::PUT,
            "/v1/ca/config",
            "writeCaConfig",
            "Changes the CA's settings; another provider or root is changed to step by step",
            Shape::One("CaChange"),
            |call| write_config(call).boxed(),
        )
        .body(Body::Json("CaConfig"))
        .time_limit(MAKING)
        .query("cas", "Only when the CA's modify index is this")
        .query("dry_run", "Says what it would do, changes nothing"),
        Route::act(
            Method::POST,
            "/v1/ca/rotate",
            "rotateCa",
            "Makes another root and changes to it, step by step",
            Shape::One("CaChange"),
            |call| rotate(call, Wish::NewRoot).boxed(),
        )
        .time_limit(MAKING)
        .query("dry_run", "Says what it would do, changes nothing"),
        Route::act(
            Method::POST,
            "/v1/ca/import",
            "importCa",
            "Changes to a root and an intermediate that somebody has, step by step",
            Shape::One("CaChange"),
            |call| take_over(call).boxed(),
        )
        .body(Body::Json("CaImport"))
        .query("cas", "Only when the CA's modify index is this")
        .query("dry_run", "Says what it would do, changes nothing"),
        Route::act(
            Method::POST,
            "/v1/ca/reseal",
            "resealCa",
            "Seals the CA's private keys with another key, once every server can open it",
            Shape::One("CaChange"),
            |call| seal_again(call).boxed(),
        )
        .body(Body::Json("CaSealing"))
        .time_limit(MAKING)
        .query("cas", "Only when the CA's modify index is this")
        .query("dry_run", "Says what it would do, changes nothing"),
        Route::act(
            Method::DELETE,
            "/v1/ca/rotation",
            "abortRotation",
            "Undoes a change of the root that has not come to the switch",
            Shape::One("CaChange"),
            |call| rotate(call, Wish::Abort).boxed(),
        )
        .query("dry_run", "Says what it would do, changes nothing"),
    ]
    .into_iter()
    .chain(super::ca_revoked::routes())
    .collect()
}

async fn write_config(call: Call) -> Result<Reply, ApiError> {
    let short = call.core.options.allow_short_ttl;
    let config = ca_settings::read(&call.body, short).map_err(ApiError::invalid)?;
    rotate(call, Wish::Config(config)).await
}

async fn take_over(mut call: Call) -> Result<Reply, ApiError> {
    let given = ca_settings::import(std::mem::take(&mut call.body)).map_err(ApiError::invalid)?;
    rotate(call, Wish::Import(Arc::new(given))).await
}

async fn rotate(call: Call, wish: Wish) -> Result<Reply, ApiError> {
    let (cas, dry_run) = (call.args.number("cas")?, call.args.flag("dry_run")?);
    answer(change(&call.core, wish, cas, dry_run).await)
}

async fn seal_again(call: Call) -> Result<Reply, ApiError> {
    let (cas, dry_run) = (call.args.number("cas")?, call.args.flag("dry_run")?);
    let by = ca_settings::sealing(&call.body).map_err(ApiError::invalid)?;
    answer(seal_with(&call.core, by, cas, dry_run).await)
}

fn answer(plan: Result<Plan, Refused>) -> Result<Reply, ApiError> {
    let plan = plan.map_err(|refused| match refused {
        Refused::NoCa => ApiError::unavailable("not_ready", refused),
        Refused::Wrong(reason) => ApiError::new(StatusCode::CONFLICT, "conflict", reason),
        Refused::Failed(reason) => ApiError::unavailable("ca", reason),
        Refused::Write(error) => error.into(),
    })?;
    let index = plan.index;
    let reply = Reply::json(serde_json::to_value(plan).map_err(ApiError::internal)?);
    Ok(match index {
        0 => reply,
        index => reply.at(index),
    })
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
    let now = call.core.clock.unix_millis() / 1000;
    let standing = match ca {
        Some(ca) => Some(look(&call.core, &state, ca, &mut Absent::new()).await),
        None => None,
    };
    let mut told = ca
        .map(|ca| warnings(ca, call.core.ca.aws.is_built(), now))
        .unwrap_or_default();
    if let Some(late) = standing
        .as_ref()
        .map(|one| one.late)
        .filter(|late| *late > 0)
    {
        told.push(format!(
            "{late} sidecars have a certificate in the last third of its life, which was not \
             renewed: `meshctl proxy status` names them"
        ));
    }
    if ca.is_some() && opening.authority.is_none() && !others(&call.core).is_empty() {
        told.push(
            "this server signs no certificates: it passes on to the other servers what its agents \
             ask for"
                .to_owned(),
        );
    }
    let rotation = ca.and_then(|ca| Some((ca.rotation.as_ref()?, standing.as_ref()?)));
    let intermediate = ca.and_then(|ca| ca.intermediate.as_ref());
    let ttl = ca.map(|ca| mesh_model::Duration::from_secs(ca.config.leaf_ttl().as_secs()));
    Ok(Reply::json(json!({
        "provider": ca.map(|ca| &ca.provider),
        "ready": ready,
        "problem": problem,
        "leaf_ttl": ttl,
        "warnings": told,
        "configured_otherwise":
            ca.map(|ca| differences(&ca.config, &call.core.options.ca)).unwrap_or_default(),
        "rotation": rotation.map(|(rotation, standing)| json!({
            "to": rotation.to,
            "provider": rotation.provider,
            "began": time_text(rotation.began),
            "proxies": standing.proxies,
            "trusting": standing.trusting,
            "waits": standing.waits,
            "waiting": standing.waiting,
        })),
        "roots": ca.map(|ca| roots_json(ca, standing.as_ref())),
        "leaf_signing": leaf_signing(ca),
        "root_key": ca.map(root_key),
        "sealing": ca.map(|ca| sealing_json(&call.core, ca)),
        "vault": call.core.ca.vault.as_ref().map(|vault| vault_json(&vault.health())),
        "aws_pca": call.core.ca.aws.health().map(|health| aws_json(&health)),
        "root_not_after": ca.and_then(CaState::active_root).map(|root| time_text(root.not_after)),
        "intermediate_not_after": intermediate.map(|one| time_text(one.not_after)),
    })))
}

/// The roots, and where leaves of one another are, how many hang on each.
fn roots_json(ca: &CaState, standing: Option<&Standing>) -> Vec<Value> {
    let comes = ca.rotation.as_ref();
    let cross = |root: &RootEntry| match comes.filter(|one| one.to == root.id) {
        Some(rotation) => rotation.cross.clone(),
        None => root.cross.clone(),
    };
    let root = |root: &RootEntry| {
        let state = match (root.active, root.retires) {
            (true, _) => "active",
            (false, Some(_)) => "retiring",
            (false, None) => "next",
        };
        json!({
            "id": root.id,
            "subject": root.subject,
            "key_type": root.key_type,
            "state": state,
            "not_after": time_text(root.not_after),
            "retires": root.retires.map(time_text),
            "leaves": standing.map(|standing| standing.leaves.get(&root.id).copied().unwrap_or(0)),
            "cross_signature": cross(root).as_ref().map(CrossSignature::of),
        })
    };
    ca.roots.iter().map(root).collect()
}

/// What the private keys are sealed with, and whether this server can open them.
fn sealing_json(core: &Core, ca: &CaState) -> Value {
    let transit = ca.sealing.transit.as_ref();
    let problem = core.ca.keyring.of(ca).err();
    json!({
        "by": ca.sealing.by().as_str(),
        "key_id": ca.sealing.id,
        "transit": transit.map(|one| format!("{}/{}", one.mount, one.key)),
        "opens": problem.is_none(),
        "problem": problem.map(|error| error.to_string()),
    })
}

/// Where the private key of the root is.
fn root_key(ca: &CaState) -> &'static str {
    match (&ca.root_key, ca.renews()) {
        (Some(_), _) => "sealed",
        (None, true) => "vault",
        (None, false) => "elsewhere",
    }
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

fn aws_json(health: &AwsHealth) -> Value {
    json!({
        "existing_arn": health.arn,
        "state": health.state,
        "reason": health.reason,
        "since": time_text(health.since),
    })
}

/// Seconds since 1970 as RFC 3339.
pub(super) fn time_text(seconds: u64) -> Value {
    let time = i64::try_from(seconds).ok();
    let time = time.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    let text = time.and_then(|time| time.format(&Rfc3339).ok());
    json!(text)
}
