//! `/v1/status`, `/metrics`: how this server is. Always answered, with or without a leader.

use bytes::Bytes;
use futures::FutureExt;
use http::{Method, StatusCode};
use mesh_ca::{AwsHealth, AwsState, VaultHealth, VaultState};
use mesh_model::NodeState;
use mesh_raft::{Health, Peer};
use prometheus::IntCounterVec;
use serde_json::{Value, json};

use super::error::ApiError;
use super::route::{Access, Call, Content, Reply, Route, Shape};
use crate::core::Core;
use crate::metrics::Metrics;

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::act(
            Method::GET,
            "/v1/status",
            "readStatus",
            "How this server and its cluster are",
            Shape::One("Status"),
            |call| status(call).boxed(),
        )
        .access(Access::Read),
        Route::act(
            Method::GET,
            "/v1/status/ready",
            "readReady",
            "Whether this server serves: 200 or 503",
            Shape::One("Ready"),
            |call| ready(call).boxed(),
        )
        .access(Access::Open),
        Route::act(
            Method::GET,
            "/metrics",
            "readMetrics",
            "Metrics for Prometheus",
            Shape::Raw("text/plain; version=0.0.4"),
            |call| metrics(call).boxed(),
        )
        .access(Access::Open),
    ]
}

fn peer(peer: &Peer) -> Value {
    json!({"id": peer.id.to_string(), "name": peer.name, "address": peer.addr})
}

async fn status(call: Call) -> Result<Reply, ApiError> {
    let core = &call.core;
    let raft = core.raft.status();
    let state = core.store.state();
    let version = state.version();
    let mut server = peer(&core.me);
    server["version"] = env!("CARGO_PKG_VERSION").into();
    let cluster = state.cluster().map(|row| {
        json!({
            "id": row.value.cluster_id,
            "trust_domain": row.value.trust_domain,
            "datacenter": row.value.datacenter,
            "level": row.value.level,
        })
    });
    let (health, reason) = health(core);
    Ok(Reply::json(json!({
        "server": server,
        "cluster": cluster,
        "state": raft.role.to_string(),
        "leader": raft.leader.as_ref().map(peer),
        "term": raft.term,
        "index": version.index,
        "epoch": version.epoch,
        "last_contact_ms": raft.last_contact.map(|age| age.as_millis() as u64),
        "health": {"status": health, "reason": reason},
        "agents": core.registry.connected(),
    })))
}

/// Consensus first: without it nothing is written.
fn health(core: &Core) -> (&'static str, Option<String>) {
    match core.raft.health() {
        Health::Failed(reason) => return ("failed", Some(reason)),
        Health::Degraded(reason) => return ("degraded", Some(reason)),
        Health::Ok => {}
    }
    let state = core.store.state();
    match (&core.ca.of(&state).problem, state.ca()) {
        (Some(problem), Some(_)) => ("degraded", Some(problem.clone())),
        _ => ("ok", None),
    }
}

async fn ready(call: Call) -> Result<Reply, ApiError> {
    let core = &call.core;
    let reason = match health(core) {
        ("failed", reason) => reason,
        _ if core.store.state().is_empty() => Some("there is no cluster yet".to_owned()),
        _ if core.raft.leader().is_none() => Some("no leader is known".to_owned()),
        _ if core.is_cut_off() => Some("this server is cut off from the leader".to_owned()),
        _ => None,
    };
    let mut reply = Reply::json(json!({"ready": reason.is_none()}));
    if let (Some(reason), Content::Json(body)) = (reason, &mut reply.content) {
        body["reason"] = reason.into();
        reply.status = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(reply)
}

async fn metrics(call: Call) -> Result<Reply, ApiError> {
    refresh(&call.core);
    Ok(Reply {
        status: StatusCode::OK,
        content: Content::Text {
            media: "text/plain; version=0.0.4",
            bytes: Bytes::from(call.core.metrics.text()),
        },
        index: None,
    })
}

/// What is read off rather than counted.
fn refresh(core: &Core) {
    let metrics = &core.metrics;
    let raft = core.raft.status();
    let state = core.store.state();
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    metrics.raft_leader.set(core.raft.is_leader().into());
    metrics.raft_term.set(number(raft.term));
    metrics.raft_applied.set(number(raft.applied));
    metrics.raft_last_log.set(number(raft.last_log));
    metrics.raft_voters.set(raft.voters.len() as i64);
    let age = raft.last_contact.map(|age| number(age.as_millis() as u64));
    metrics.raft_last_contact.set(age.unwrap_or(-1));
    metrics.healthy.set((health(core).0 != "failed").into());
    metrics.state_index.set(number(state.version().index));
    metrics.watches.set(core.store.watch_count() as i64);
    metrics.feed_streams.set(core.registry.connected() as i64);
    metrics.leases.set(core.leases.held() as i64);
    if let Some(ca) = core.ca.of(&state).state.as_deref() {
        let root = ca.active_root().map_or(0, |root| root.not_after);
        let intermediate = ca.intermediate.as_ref().map_or(0, |one| one.not_after);
        metrics.ca_root_expiry.set(number(root));
        metrics.ca_intermediate_expiry.set(number(intermediate));
        metrics.ca_roots.set(ca.roots.len() as i64);
        metrics.ca_rotating.set(ca.rotation.is_some().into());
        metrics.ca_opens.set(core.ca.keyring.of(ca).is_ok().into());
    }
    if let Some(vault) = &core.ca.vault {
        vault_metrics(metrics, &vault.health());
    }
    aws_metrics(metrics, core.ca.aws.health().as_ref());
    let silent = state
        .nodes()
        .filter(|row| row.value.state != NodeState::Alive);
    let silent = silent.count() as i64;
    let alive = state.nodes().count() as i64 - silent;
    metrics.nodes.with_label_values(&["alive"]).set(alive);
    metrics.nodes.with_label_values(&["silent"]).set(silent);
}

fn aws_metrics(metrics: &Metrics, health: Option<&AwsHealth>) {
    // One CA, and none when the mesh's is elsewhere.
    metrics.ca_aws_up.reset();
    let Some(health) = health else { return };
    let up = health.state == AwsState::Ok;
    let arn = [health.arn.as_str()];
    metrics.ca_aws_up.with_label_values(&arn).set(up.into());
    let failures = &health.failures;
    count(
        &metrics.ca_aws_failures,
        [failures.unavailable, failures.limited, failures.denied],
    );
}

/// Failures by kind, of which there are so many by now.
fn count(counters: &IntCounterVec, found: [u64; 3]) {
    for (kind, count) in ["unavailable", "limited", "denied"].into_iter().zip(found) {
        let counter = counters.with_label_values(&[kind]);
        counter.inc_by(count.saturating_sub(counter.get()));
    }
}

fn vault_metrics(metrics: &Metrics, health: &VaultHealth) {
    let address = [health.address.as_str()];
    let up = health.state == VaultState::Ok;
    metrics
        .ca_vault_up
        .with_label_values(&address)
        .set(up.into());
    let token = &metrics.ca_vault_token_seconds;
    match health.token_seconds {
        Some(seconds) => token
            .with_label_values(&address)
            .set(i64::try_from(seconds).unwrap_or(i64::MAX)),
        None => drop(token.remove_label_values(&address)),
    }
    let failures = &health.failures;
    count(
        &metrics.ca_vault_failures,
        [failures.unavailable, failures.limited, failures.denied],
    );
}
