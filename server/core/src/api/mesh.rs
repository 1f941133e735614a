//! `/v1/mesh`: the defaults of the whole mesh.

use futures::FutureExt;
use http::Method;
use mesh_model::{Entry, EntryKey, Mesh};
use mesh_state::{Op, RowKey, State, WatchKey};
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::route::{Body, Call, Reply, Route, Shape};
use super::rows;

const PATH: &str = "/v1/mesh";

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::read(
            PATH,
            "readMesh",
            "The mesh's defaults, and what holds",
            Shape::One("MeshRow"),
            |_| {
                Ok(vec![
                    WatchKey::Key(RowKey::Mesh),
                    WatchKey::Key(RowKey::Cluster),
                ])
            },
            |state, _| Ok(Value::Object(row(state)).into()),
        ),
        Route::act(
            Method::PUT,
            PATH,
            "writeMesh",
            "Writes the mesh's defaults",
            Shape::One("Written"),
            |call| put(call).boxed(),
        )
        .body(Body::Json("Mesh"))
        .writes(),
        Route::act(
            Method::DELETE,
            PATH,
            "deleteMesh",
            "Deletes the mesh's defaults: those that the cluster was started with hold then",
            Shape::One("Written"),
            |call| delete(call).boxed(),
        )
        .writes(),
    ]
}

fn row(state: &State) -> Map<String, Value> {
    let mut fields = match state.mesh() {
        Some(row) => rows::row(row),
        None => Map::new(),
    };
    fields.insert("defined".into(), state.mesh().is_some().into());
    let effective = json!({
        "default_intention": state.default_intention(),
        "outbound": state.outbound(),
        "tls": state.tls().effective(),
    });
    fields.insert("effective".into(), effective);
    fields
}

async fn put(call: Call) -> Result<Reply, ApiError> {
    let value: Mesh = rows::noun(&"mesh", rows::body(&call.body)?, &[])?;
    let op = Op::Put {
        entry: Entry::Mesh(value),
        cas: call.args.number("cas")?,
    };
    let applied = rows::commit(&call, vec![op]).await?;
    let row = row(&call.core.store.state());
    Ok(Reply::json(rows::written(&applied, Some(row))).at(rows::index(&applied)))
}

async fn delete(call: Call) -> Result<Reply, ApiError> {
    let op = Op::Delete {
        key: EntryKey::Mesh,
        cas: call.args.number("cas")?,
    };
    let applied = rows::commit(&call, vec![op]).await?;
    Ok(Reply::json(rows::written(&applied, None)).at(rows::index(&applied)))
}
