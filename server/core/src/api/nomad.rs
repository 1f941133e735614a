//! What Nomad's servers ask at their own `consul.address` when that is this API, as Consul answers:
//! what it is, registrations of themselves with their checks, and where the other Nomad servers are.
//! They write a job's gateways with `PUT /v1/config`.

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, StatusCode};
use mesh_model::Key;
use mesh_state::{Endpoint, RowKey, State, WatchKey};
use serde_json::{Value, json};

use super::args::Args;
use super::error::ApiError;
use super::route::{Access, Body, Call, Content, Reply, Route, Shape};
use super::rows;
use crate::local::LocalChange;

/// The version of Consul whose API Nomad may take for granted.
const CONSUL_VERSION: &str = "1.20.0";

pub(crate) fn routes() -> Vec<Route> {
    let mut all = reads();
    all.extend(changes());
    all.extend(catalog());
    all
}

type Answered = BoxFuture<'static, Result<Reply, ApiError>>;

fn reads() -> Vec<Route> {
    let read = |path, id, summary, shape, act: fn(Call) -> Answered| {
        Route::act(Method::GET, path, id, summary, shape, act).access(Access::Read)
    };
    vec![
        read(
            "/v1/agent/self",
            "nomadSelf",
            "What this server is, in the form in which Nomad's servers ask",
            Shape::One("NomadSelf"),
            |call| async move { Ok(Reply::json(own(&call))) }.boxed(),
        ),
        read(
            "/v1/agent/services",
            "nomadServices",
            "What is registered with this server itself, by id, as Consul's agent has it",
            Shape::One("ById"),
            |call| async move { Ok(Reply::json(services(&call))) }.boxed(),
        ),
        read(
            "/v1/agent/checks",
            "nomadChecks",
            "The checks of that, by id, as Consul's agent has them",
            Shape::One("ById"),
            |call| async move { Ok(Reply::json(checks(&call))) }.boxed(),
        ),
        read(
            "/v1/catalog/datacenters",
            "nomadDatacenters",
            "The name of this datacenter, as Consul lists them",
            Shape::List("Text"),
            |call| {
                async move {
                    let name = datacenter(&call.core.store.state());
                    Ok(Reply::json(json!(name.into_iter().collect::<Vec<_>>())))
                }
                .boxed()
            },
        ),
        read(
            "/v1/status/leader",
            "nomadLeader",
            "Where the leader is, as `host:port`; empty where none is known",
            Shape::One("Text"),
            |call| {
                async move {
                    let leader = call.core.raft.leader().map(|leader| leader.addr);
                    Ok(Reply::json(json!(leader.unwrap_or_default())))
                }
                .boxed()
            },
        ),
    ]
}

fn changes() -> Vec<Route> {
    let put = |path, id, summary, act: fn(Call) -> Answered| {
        Route::act(Method::PUT, path, id, summary, Shape::One("Nothing"), act).body(Body::Raw)
    };
    vec![
        put(
            "/v1/agent/service/register",
            "nomadRegister",
            "Registers a Nomad server with this server itself, as with Consul's agent",
            |call| {
                async move {
                    let replace = call.args.text("replace-existing-checks");
                    let replace_checks = replace.is_some_and(|value| value != "false");
                    let body = rows::body(&call.body)?;
                    change(
                        call,
                        LocalChange::Register {
                            body,
                            replace_checks,
                        },
                    )
                    .await
                }
                .boxed()
            },
        )
        .query(
            "replace-existing-checks",
            "Checks that were added one by one go",
        ),
        put(
            "/v1/agent/service/deregister/{id}",
            "nomadDeregister",
            "Deregisters it; what is not there is as good as deregistered",
            |call| {
                let id = call.args.segment("id").to_owned();
                change(call, LocalChange::Deregister { id }).boxed()
            },
        ),
        put(
            "/v1/agent/check/register",
            "nomadAddCheck",
            "Adds a check to what is registered with this server itself",
            |call| {
                async move {
                    let body = rows::body(&call.body)?;
                    change(call, LocalChange::AddCheck { body }).await
                }
                .boxed()
            },
        ),
        put(
            "/v1/agent/check/deregister/{id}",
            "nomadRemoveCheck",
            "Removes it; one that is not there is as good as removed",
            |call| {
                let id = call.args.segment("id").to_owned();
                change(call, LocalChange::RemoveCheck { id }).boxed()
            },
        ),
        put(
            "/v1/agent/check/update/{id}",
            "nomadUpdateCheck",
            "Says what a TTL check is",
            |call| {
                async move {
                    let id = call.args.segment("id").to_owned();
                    let body = rows::body(&call.body)?;
                    change(call, LocalChange::UpdateCheck { id, body }).await
                }
                .boxed()
            },
        ),
    ]
}

fn catalog() -> Vec<Route> {
    vec![
        Route::read(
            "/v1/catalog/service/{name}",
            "nomadService",
            "The instances of a service, as Consul's catalog has them",
            Shape::List("NomadInstance"),
            |args| Ok(vec![WatchKey::Key(RowKey::Endpoints(args.key("name")?))]),
            instances,
        )
        .query("tag", "Only those with this tag")
        .query("dc", "The datacenter; there is only this one")
        .query("near", "Ignored: the order is the best first"),
    ]
}

fn own(call: &Call) -> Value {
    let state = call.core.store.state();
    let datacenter = datacenter(&state);
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

fn datacenter(state: &State) -> Option<String> {
    state.cluster().map(|row| row.value.datacenter.clone())
}

fn services(call: &Call) -> Value {
    let datacenter = datacenter(&call.core.store.state()).unwrap_or_default();
    let local = call.core.local.as_ref();
    local.map_or_else(|| json!({}), |local| local.services(&datacenter))
}

fn checks(call: &Call) -> Value {
    let local = call.core.local.as_ref();
    local.map_or_else(|| json!({}), |local| local.checks(&call.core.me.name))
}

async fn change(call: Call, change: LocalChange) -> Result<Reply, ApiError> {
    let local = call.core.local.as_ref().ok_or_else(|| {
        ApiError::new(
            StatusCode::NOT_IMPLEMENTED,
            "not_supported",
            "this server keeps no instances; register with the agent, or set auto_advertise = false \
             in the consul block of Nomad's servers",
        )
    })?;
    match local.change(change).await {
        Ok(()) => Ok(Reply::json(json!({}))),
        Err((status, message)) => {
            let status = StatusCode::from_u16(status);
            let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let code = match status {
                StatusCode::BAD_REQUEST => "invalid_request",
                StatusCode::NOT_FOUND => "not_found",
                StatusCode::CONFLICT => "conflict",
                StatusCode::INSUFFICIENT_STORAGE => "too_large",
                _ => "internal",
            };
            Err(ApiError::new(status, code, message))
        }
    }
}

fn instances(state: &State, args: &Args) -> Result<Content, ApiError> {
    let datacenter = datacenter(state).unwrap_or_default();
    if let Some(asked) = args.text("dc").filter(|asked| !asked.is_empty())
        && asked != datacenter
    {
        let message = format!("dc: there is no datacenter {asked} here, only {datacenter}");
        return Err(ApiError::request(message));
    }
    let key: Key = args.key("name")?;
    let tag = args.text("tag").filter(|tag| !tag.is_empty());
    let tagged = |endpoint: &&Endpoint| {
        tag.is_none_or(|tag| endpoint.instance.value.tags.iter().any(|has| has == tag))
    };
    let found = super::catalog::best_first(state, &key);
    let found = found.iter().filter(tagged);
    let shown = found.map(|endpoint| instance(endpoint, &datacenter));
    Ok(json!(shown.collect::<Vec<_>>()).into())
}

fn instance(endpoint: &Endpoint, datacenter: &str) -> Value {
    let (one, node) = (&endpoint.instance.value, &endpoint.node.value);
    json!({
        "Node": node.name,
        "Address": node.address,
        "Datacenter": datacenter,
        "ServiceID": one.id,
        "ServiceName": one.service,
        "ServiceAddress": one.address,
        "ServicePort": one.port,
        "ServiceTags": one.tags,
        "ServiceMeta": one.meta,
        "CreateIndex": endpoint.instance.create_index,
        "ModifyIndex": endpoint.instance.modify_index,
    })
}
