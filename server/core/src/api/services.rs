//! `/v1/services`: how services are called. One that is registered exists without a block.

use futures::FutureExt;
use http::Method;
use mesh_model::{Entry, EntryKey, Key, Service};
use mesh_proto::fact::VirtualFact;
use mesh_state::{Op, RowKey, State, TableName, WatchKey};
use serde_json::{Map, Value, json};

use super::args::Args;
use super::error::ApiError;
use super::route::{Body, Call, Content, Reply, Route, Shape};
use super::rows;

const ONE: &str = "/v1/services/{name}";

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::read(
            "/v1/services",
            "listServices",
            "Every service that is written or registered",
            Shape::List("ServiceRow"),
            |_| {
                Ok(vec![
                    WatchKey::Table(TableName::Service),
                    WatchKey::Table(TableName::Endpoints),
                ])
            },
            |state, _| {
                let list = state.service_list();
                let rows = list.iter().map(|one| row(state, &one.key));
                Ok(json!(rows.collect::<Vec<_>>()).into())
            },
        ),
        Route::read(
            ONE,
            "readService",
            "One service",
            Shape::One("ServiceRow"),
            |args| {
                let key = args.key("name")?;
                Ok(vec![
                    WatchKey::Key(RowKey::Service(key.clone())),
                    WatchKey::Key(RowKey::Endpoints(key)),
                ])
            },
            read,
        ),
        Route::act(
            Method::PUT,
            ONE,
            "writeService",
            "Writes a service",
            Shape::One("Written"),
            |call| put(call).boxed(),
        )
        .body(Body::Json("Service"))
        .writes(),
        Route::act(
            Method::DELETE,
            ONE,
            "deleteService",
            "Deletes a service's block; one that is registered has the defaults then",
            Shape::One("Written"),
            |call| delete(call).boxed(),
        )
        .writes(),
    ]
}

/// A service, written or not.
fn row(state: &State, key: &Key) -> Map<String, Value> {
    let written = state.service(key);
    let mut fields = match written {
        Some(row) => rows::row(row),
        None => rows::object(&Service::named(key)),
    };
    fields.insert("defined".into(), written.is_some().into());
    fields.insert("instances".into(), counts(state, key));
    fields.insert("virtual".into(), addresses(state, key));
    fields
}

/// A service's virtual addresses; each that is written or registered has them.
pub(crate) fn addresses(state: &State, key: &Key) -> Value {
    json!(state.virtual_of(key).map(VirtualFact::from))
}

/// How a service's instances are.
pub(crate) fn counts(state: &State, key: &Key) -> Value {
    let health = state.health_of(key);
    json!({
        "total": health.passing + health.warning + health.critical + health.unknown,
        "passing": health.passing,
        "warning": health.warning,
        "critical": health.critical,
        "silent": health.unknown,
    })
}

fn read(state: &State, args: &Args) -> Result<Content, ApiError> {
    let key = args.key("name")?;
    let known = state.service(&key).is_some() || state.instance_count(&key) > 0;
    match known {
        true => Ok(Value::Object(row(state, &key)).into()),
        false => Err(ApiError::not_found(format!("service {key}"))),
    }
}

async fn put(call: Call) -> Result<Reply, ApiError> {
    let key = call.args.key("name")?;
    let fixed = [
        ("namespace", json!(key.namespace)),
        ("name", json!(key.name)),
    ];
    let what = format!("service {key}");
    let value: Service = rows::noun(&what, rows::body(&call.body)?, &fixed)?;
    let op = Op::Put {
        entry: Entry::Service(value),
        cas: call.args.number("cas")?,
    };
    let applied = rows::commit(&call, vec![op]).await?;
    let state = call.core.store.state();
    let row = state.service(&key).map(|_| row(&state, &key));
    Ok(Reply::json(rows::written(&applied, row)).at(rows::index(&applied)))
}

async fn delete(call: Call) -> Result<Reply, ApiError> {
    let op = Op::Delete {
        key: EntryKey::Service(call.args.key("name")?),
        cas: call.args.number("cas")?,
    };
    let applied = rows::commit(&call, vec![op]).await?;
    Ok(Reply::json(rows::written(&applied, None)).at(rows::index(&applied)))
}
