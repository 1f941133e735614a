//! What the agent says of itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use mesh_consul::agent::{SelfInfo, self_json};
use mesh_model::Status;
use prometheus::{Encoder, Gauge, GaugeVec, Opts, Registry, TextEncoder};
use serde_json::json;

use super::answer::{Answer, blocking, json};
use super::{Caller, Door, Failure, is_trusted};

/// `GET /v1/agent/self`
pub(super) async fn own(State(door): State<Arc<Door>>) -> Answer {
    let info = SelfInfo {
        datacenter: &door.datacenter(),
        node_name: &door.node_name,
        node_id: &door.node_id,
        version: crate::VERSION,
        grpc_port: door.grpc.port(),
        dns: door.dns,
        mesh: mesh(&door),
    };
    json(self_json(&info))
}

/// `GET /ready`: the agent answers from its disk, so it is ready as soon as it answers at all.
pub(super) async fn ready(State(door): State<Arc<Door>>) -> Answer {
    json(mesh(&door))
}

/// `GET /v1/catalog/datacenters`
pub(super) async fn datacenters(State(door): State<Arc<Door>>) -> Answer {
    json(json!([door.datacenter()]))
}

/// `GET /v1/status/leader`: the server that the agent speaks with.
pub(super) async fn leader(State(door): State<Arc<Door>>) -> Answer {
    let server = door.link.borrow().server.clone();
    json(json!(server.unwrap_or_default()))
}

/// `PUT /v1/agent/reload`: reads the instance files and the register token again.
pub(super) async fn reload(State(door): State<Arc<Door>>, Extension(peer): Caller) -> Answer {
    blocking(move || {
        let uid = peer.uid().ok().flatten();
        if !uid.is_some_and(is_trusted) {
            return Err(Failure::forbidden(
                "only root and the agent's own user may have it reload",
            ));
        }
        let instances = door.reload().map_err(|e| Failure::bad(e.to_string()))?;
        Ok(instances)
    })
    .await
    .and_then(|instances| json(json!({ "instances": instances })))
}

/// `GET /metrics`, in Prometheus' text form.
pub(super) async fn metrics(State(door): State<Arc<Door>>) -> Answer {
    let text = gather(&door).map_err(|e| Failure::internal(e.to_string()))?;
    let kind = [(CONTENT_TYPE, "text/plain; version=0.0.4")];
    Ok((kind, text).into_response())
}

fn mesh(door: &Door) -> serde_json::Value {
    let cluster = door.membership.cluster();
    let link = door.link.borrow().clone();
    json!({
        "cluster_id": cluster.id,
        "trust_domain": cluster.trust_domain,
        "server": link.server,
        "server_error": link.error,
        "socket": door.socket,
        "instance_files_error": door.files.load().as_deref(),
        "proxies": door.view().sidecars().count(),
        "proxies_connected": door.records.connected(),
    })
}

/// Made when asked for: these are states, not counts.
fn gather(door: &Door) -> Result<Vec<u8>, prometheus::Error> {
    let registry = Registry::new();
    let gauge = |name: &str, help: &str, value: f64| -> Result<(), prometheus::Error> {
        let gauge = Gauge::new(name, help)?;
        gauge.set(value);
        registry.register(Box::new(gauge))
    };
    let view = door.view();
    let count = |n: usize| n as f64;
    gauge(
        "mesh_agent_instances",
        "Instances that are registered on this node.",
        count(view.len()),
    )?;
    gauge(
        "mesh_agent_proxies",
        "Sidecars that are registered on this node.",
        count(view.sidecars().count()),
    )?;
    gauge(
        "mesh_agent_proxies_connected",
        "Sidecars whose stream is open.",
        count(door.records.connected()),
    )?;
    gauge(
        "mesh_agent_server_connected",
        "1 while the stream to a server is open.",
        f64::from(u8::from(door.link.borrow().server.is_some())),
    )?;
    gauge(
        "mesh_agent_instance_files_ok",
        "0 when the instance files have mistakes and were not taken.",
        f64::from(u8::from(door.files.load().is_none())),
    )?;
    gauge(
        "mesh_agent_state_index",
        "The index of the servers' state as of which everything is compiled.",
        door.compiler.done().borrow().index as f64,
    )?;
    let mut states = BTreeMap::new();
    for status in [Status::Passing, Status::Warning, Status::Critical] {
        states.insert(status, 0.0);
    }
    for (_, check) in view.iter().flat_map(|entry| entry.checks()) {
        *states.entry(door.board.status(check)).or_default() += 1.0;
    }
    let options = Opts::new("mesh_agent_checks", "Checks of this node by their state.");
    let checks = GaugeVec::new(options, &["status"])?;
    for (status, number) in states {
        checks.with_label_values(&[status.as_str()]).set(number);
    }
    registry.register(Box::new(checks))?;
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    Ok(text)
}
