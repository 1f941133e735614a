//! What Nomad's servers ask at their own `consul.address` when that is this API: enough to write a
//! job's gateways, which they do with `PUT /v1/config`. They have nothing else to say here: a server
//! keeps no instances of its own.

use futures::FutureExt;
use http::{Method, StatusCode};
use serde_json::json;

use super::error::ApiError;
use super::route::{Access, Body, Call, Reply, Route, Shape};

/// The version of Consul whose API Nomad may take for granted.
const CONSUL_VERSION: &str = "1.20.0";

pub(crate) fn routes() -> Vec<Route> {
    let empty = |path, id, summary| {
        Route::act(
            Method::GET,
            path,
            id,
            summary,
            Shape::One("Nothing"),
            |_| async { Ok(Reply::json(json!({}))) }.boxed(),
        )
        .access(Access::Read)
    };
    vec![
        Route::act(
            Method::GET,
            "/v1/agent/self",
            "nomadSelf",
            "What this server is, in the form in which Nomad's servers ask",
            Shape::One("NomadSelf"),
            |call| async move { Ok(Reply::json(own(&call))) }.boxed(),
        )
        .access(Access::Read),
        empty(
            "/v1/agent/services",
            "nomadServices",
            "The instances of this server, for Nomad's servers: none",
        ),
        empty("/v1/agent/checks", "nomadChecks", "Their checks: none"),
        Route::act(
            Method::PUT,
            "/v1/agent/service/register",
            "nomadRegister",
            "Refused, with what to change in Nomad's configuration",
            Shape::One("Nothing"),
            |_| async { Err(refused()) }.boxed(),
        )
        .access(Access::Read)
        .body(Body::Raw),
    ]
}

fn own(call: &Call) -> serde_json::Value {
    let state = call.core.store.state();
    let datacenter = state.cluster().map(|row| row.value.datacenter.clone());
    let name = &call.core.me.name;
    // Every value at the top must be an object, or Nomad reads none of them.
    json!({
        "Config": {
            "Datacenter": datacenter,
            "NodeName": name,
            "Server": true,
            "Version": CONSUL_VERSION,
            "Revision": "",
        },
        "DebugConfig": {"ConnectEnabled": true},
        "Member": {"Name": name, "Tags": {
            "build": format!("{CONSUL_VERSION}:meshctl"), "dc": datacenter, "role": "consul",
        }},
        "Meta": {},
        "Stats": {},
    })
}

fn refused() -> ApiError {
    ApiError::new(
        StatusCode::NOT_IMPLEMENTED,
        "not_supported",
        "a mesh server keeps no instances; set auto_advertise = false in the consul block of Nomad's \
         servers",
    )
}
