//! `/v1/catalog`: what runs where, as the agents say it.

use std::collections::BTreeSet;

use futures::FutureExt;
use http::Method;
use mesh_model::{Instance, Key, Node, NodeState, Row};
use mesh_state::{Command, Endpoint, Prefix, RowKey, State, TableName, WatchKey};
use serde_json::{Map, Value, json};

use super::args::Args;
use super::error::ApiError;
use super::route::{Call, Content, Reply, Route, Shape};
use super::rows;
use super::services::{addresses, counts};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::read(
            "/v1/catalog/nodes",
            "listNodes",
            "Machines with an agent",
            Shape::List("Node"),
            |_| {
                Ok(vec![
                    WatchKey::Table(TableName::Node),
                    WatchKey::Table(TableName::Instance),
                ])
            },
            |state, _| {
                let rows = state.nodes().map(|row| {
                    let count = state.instances_on(&row.value.id).len();
                    node(row, json!(count))
                });
                Ok(json!(rows.collect::<Vec<_>>()).into())
            },
        ),
        Route::read(
            "/v1/catalog/nodes/{id}",
            "readNode",
            "One node, with its instances",
            Shape::One("NodeDetail"),
            |args| {
                let id = args.segment("id").to_owned();
                Ok(vec![
                    WatchKey::Key(RowKey::Node(id.clone())),
                    WatchKey::Prefix(Prefix::InstancesOn(id)),
                ])
            },
            read_node,
        ),
        Route::act(
            Method::DELETE,
            "/v1/catalog/nodes/{id}",
            "forceLeave",
            "Removes a node and its instances, until its agent comes again",
            Shape::One("Written"),
            |call| leave(call).boxed(),
        ),
        Route::read(
            "/v1/catalog/services",
            "listRegisteredServices",
            "Services with instances",
            Shape::List("Registered"),
            |_| {
                Ok(vec![
                    WatchKey::Table(TableName::Endpoints),
                    WatchKey::Table(TableName::Instance),
                ])
            },
            |state, _| {
                let rows = state.registered();
                let rows = rows.map(|row| registered(state, &row.value.service));
                Ok(json!(rows.collect::<Vec<_>>()).into())
            },
        ),
        Route::read(
            "/v1/catalog/instances",
            "listAllInstances",
            "The instances of all services, by service",
            Shape::List("Instance"),
            |_| {
                Ok(vec![
                    WatchKey::Table(TableName::Endpoints),
                    WatchKey::Table(TableName::Instance),
                    WatchKey::Table(TableName::Node),
                ])
            },
            |state, _| {
                let services = state.registered().map(|row| &row.value.service);
                let all = services.flat_map(|service| state.instances_of(service));
                let rows = all.map(|one| instance(&one.instance, &one.node.value));
                Ok(json!(rows.collect::<Vec<_>>()).into())
            },
        ),
        Route::read(
            "/v1/catalog/services/{name}",
            "listInstances",
            "A service's instances, best first",
            Shape::List("Instance"),
            |args| Ok(vec![WatchKey::Key(RowKey::Endpoints(args.key("name")?))]),
            instances,
        ),
    ]
}

fn node(row: &Row<Node>, instances: Value) -> Map<String, Value> {
    let node = &row.value;
    let (state, since) = state_of(node.state);
    let mut fields = Map::new();
    fields.insert("id".into(), node.id.clone().into());
    fields.insert("name".into(), node.name.clone().into());
    fields.insert("address".into(), node.address.clone().into());
    fields.insert("version".into(), node.version.clone().into());
    fields.insert("meta".into(), json!(node.meta));
    fields.insert("state".into(), state.into());
    fields.insert("silent_since".into(), json!(since));
    fields.insert("instances".into(), instances);
    rows::stamp(&mut fields, row);
    fields
}

fn state_of(state: NodeState) -> (&'static str, Option<u64>) {
    match state {
        NodeState::Alive => ("alive", None),
        NodeState::Silent { since } => ("silent", Some(since)),
    }
}

/// Every field, default or not: this is for reading.
fn instance(row: &Row<Instance>, node: &Node) -> Map<String, Value> {
    let one = &row.value;
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    put("namespace", one.namespace.clone().into());
    put("service", one.service.clone().into());
    put("id", one.id.clone().into());
    put("node", one.node.clone().into());
    put("node_name", node.name.clone().into());
    put("node_address", node.address.clone().into());
    put("node_state", state_of(node.state).0.into());
    put("address", one.address.clone().into());
    put("port", one.port.into());
    put("tags", json!(one.tags));
    put("meta", json!(one.meta));
    put("weights", json!(one.weights));
    put("proxy", json!(one.proxy));
    if let Some(kind) = one.gateway {
        put("gateway", json!(kind));
    }
    put("checks", json!(one.checks));
    put("status", json!(one.status()));
    rows::stamp(&mut fields, row);
    fields
}

fn read_node(state: &State, args: &Args) -> Result<Content, ApiError> {
    let id = args.segment("id");
    let row = state.node(id);
    let row = row.ok_or_else(|| ApiError::not_found(format!("node {id}")))?;
    let instances = state.instances_on(id);
    let instances = instances.iter().map(|one| instance(one, &row.value));
    let instances = json!(instances.collect::<Vec<_>>());
    Ok(Value::Object(node(row, instances)).into())
}

fn registered(state: &State, key: &mesh_model::Key) -> Value {
    let endpoints = state.instances_of(key);
    let tags: BTreeSet<&String> = endpoints
        .iter()
        .flat_map(|endpoint| &endpoint.instance.value.tags)
        .collect();
    json!({
        "namespace": key.namespace,
        "name": key.name,
        "tags": tags,
        "instances": counts(state, key),
        "virtual": addresses(state, key),
    })
}

fn instances(state: &State, args: &Args) -> Result<Content, ApiError> {
    let endpoints = best_first(state, &args.key("name")?);
    let rows = endpoints
        .iter()
        .map(|endpoint| instance(&endpoint.instance, &endpoint.node.value));
    Ok(json!(rows.collect::<Vec<_>>()).into())
}

/// A service's instances: those that pass and whose node is heard before the others.
pub(crate) fn best_first(state: &State, service: &Key) -> Vec<Endpoint> {
    let mut endpoints = state.instances_of(service);
    let silent = |endpoint: &Endpoint| endpoint.node.value.state != NodeState::Alive;
    endpoints.sort_by_key(|endpoint| (silent(endpoint), endpoint.instance.value.status()));
    endpoints
}

async fn leave(call: Call) -> Result<Reply, ApiError> {
    let node = call.args.segment("id").to_owned();
    let applied = call
        .core
        .write(Command::RemoveNode { node: node.clone() })
        .await?;
    // Its lease goes with it: only its agent brings it back.
    call.core.leases.forget(&node);
    let mut answer = rows::written(&applied, None);
    let of_node = applied
        .results
        .iter()
        .find(|one| one.key == RowKey::Node(node.clone()));
    if let Some(result) = of_node {
        answer["change"] = json!(result.change);
    }
    Ok(Reply::json(answer).at(rows::index(&applied)))
}
