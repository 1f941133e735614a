//! `/v1/gateways`: the edges of the mesh.

use futures::FutureExt;
use http::Method;
use mesh_model::{Entry, EntryKey, Gateway};
use mesh_state::{Op, RowKey, State, TableName, WatchKey};
use serde_json::{Value, json};

use super::args::Args;
use super::error::ApiError;
use super::route::{Body, Call, Content, Reply, Route, Shape};
use super::rows;

const ONE: &str = "/v1/gateways/{name}";

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::read(
            "/v1/gateways",
            "listGateways",
            "Every gateway",
            Shape::List("GatewayRow"),
            |_| Ok(vec![WatchKey::Table(TableName::Gateway)]),
            |state, _| {
                let rows = state.gateways().map(|row| rows::row(row));
                Ok(json!(rows.collect::<Vec<_>>()).into())
            },
        ),
        Route::read(
            ONE,
            "readGateway",
            "One gateway",
            Shape::One("GatewayRow"),
            |args| Ok(vec![WatchKey::Key(RowKey::Gateway(args.key("name")?))]),
            read,
        ),
        Route::act(
            Method::PUT,
            ONE,
            "writeGateway",
            "Writes a gateway",
            Shape::One("Written"),
            |call| put(call).boxed(),
        )
        .body(Body::Json("Gateway"))
        .writes(),
        Route::act(
            Method::DELETE,
            ONE,
            "deleteGateway",
            "Deletes a gateway",
            Shape::One("Written"),
            |call| delete(call).boxed(),
        )
        .writes(),
    ]
}

fn read(state: &State, args: &Args) -> Result<Content, ApiError> {
    let key = args.key("name")?;
    let row = state.gateway(&key);
    let row = row.ok_or_else(|| ApiError::not_found(format!("gateway {key}")))?;
    Ok(Value::Object(rows::row(row)).into())
}

async fn put(call: Call) -> Result<Reply, ApiError> {
    let key = call.args.key("name")?;
    let fixed = [
        ("namespace", json!(key.namespace)),
        ("name", json!(key.name)),
    ];
    let what = format!("gateway {key}");
    let value: Gateway = rows::noun(&what, rows::body(&call.body)?, &fixed)?;
    let op = Op::Put {
        entry: Entry::Gateway(value),
        cas: call.args.number("cas")?,
    };
    let applied = rows::commit(&call, vec![op]).await?;
    let row = call
        .core
        .store
        .state()
        .gateway(&key)
        .map(|row| rows::row(row));
    Ok(Reply::json(rows::written(&applied, row)).at(rows::index(&applied)))
}

async fn delete(call: Call) -> Result<Reply, ApiError> {
    let op = Op::Delete {
        key: EntryKey::Gateway(call.args.key("name")?),
        cas: call.args.number("cas")?,
    };
    let applied = rows::commit(&call, vec![op]).await?;
    Ok(Reply::json(rows::written(&applied, None)).at(rows::index(&applied)))
}
