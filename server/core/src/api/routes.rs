//! `/v1/routes`: where a service's requests go.

use futures::FutureExt;
use http::Method;
use mesh_model::{Entry, EntryKey, Route as RouteNoun};
use mesh_state::{Op, RowKey, State, TableName, WatchKey};
use serde_json::{Value, json};

use super::args::Args;
use super::error::ApiError;
use super::route::{Body, Call, Content, Reply, Route, Shape};
use super::rows;

const ONE: &str = "/v1/routes/{name}";

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::read(
            "/v1/routes",
            "listRoutes",
            "Every route",
            Shape::List("RouteRow"),
            |_| Ok(vec![WatchKey::Table(TableName::Route)]),
            |state, _| {
                let rows = state.routes().map(|row| rows::row(row));
                Ok(json!(rows.collect::<Vec<_>>()).into())
            },
        ),
        Route::read(
            ONE,
            "readRoute",
            "One route",
            Shape::One("RouteRow"),
            |args| Ok(vec![WatchKey::Key(RowKey::Route(args.key("name")?))]),
            read,
        ),
        Route::act(
            Method::PUT,
            ONE,
            "writeRoute",
            "Writes a route",
            Shape::One("Written"),
            |call| put(call).boxed(),
        )
        .body(Body::Json("Route"))
        .writes(),
        Route::act(
            Method::DELETE,
            ONE,
            "deleteRoute",
            "Deletes a route",
            Shape::One("Written"),
            |call| delete(call).boxed(),
        )
        .writes(),
    ]
}

fn read(state: &State, args: &Args) -> Result<Content, ApiError> {
    let key = args.key("name")?;
    let row = state.route(&key);
    let row = row.ok_or_else(|| ApiError::not_found(format!("route {key}")))?;
    Ok(Value::Object(rows::row(row)).into())
}

async fn put(call: Call) -> Result<Reply, ApiError> {
    let key = call.args.key("name")?;
    let fixed = [
        ("namespace", json!(key.namespace)),
        ("name", json!(key.name)),
    ];
    let what = format!("route {key}");
    let value: RouteNoun = rows::noun(&what, rows::body(&call.body)?, &fixed)?;
    let op = Op::Put {
        entry: Entry::Route(value),
        cas: call.args.number("cas")?,
    };
    let applied = rows::commit(&call, vec![op]).await?;
    let row = call
        .core
        .store
        .state()
        .route(&key)
        .map(|row| rows::row(row));
    Ok(Reply::json(rows::written(&applied, row)).at(rows::index(&applied)))
}

async fn delete(call: Call) -> Result<Reply, ApiError> {
    let op = Op::Delete {
        key: EntryKey::Route(call.args.key("name")?),
        cas: call.args.number("cas")?,
    };
    let applied = rows::commit(&call, vec![op]).await?;
    Ok(Reply::json(rows::written(&applied, None)).at(rows::index(&applied)))
}
