//! The nouns that have a name: read, listed, written and deleted in one way.

use futures::FutureExt;
use http::Method;
use mesh_model::{Entry, EntryKey, Key};
use mesh_state::{Op, State, WatchKey};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::args::Args;
use super::error::ApiError;
use super::route::{Body, Call, Content, Reply, Route, Shape};
use super::rows;

/// A noun of which each namespace has one of a name.
pub(crate) trait Named: DeserializeOwned + Send + 'static {
    /// How the API speaks of it.
    const WORDS: Words;

    fn entry(self) -> Entry;
    fn key(key: Key) -> EntryKey;
    /// What the list depends on.
    fn all_keys() -> Vec<WatchKey>;
    /// What one depends on, there or not.
    fn keys(key: Key) -> Vec<WatchKey>;
    fn rows(state: &State) -> Vec<Map<String, Value>>;
    fn row(state: &State, key: &Key) -> Option<Map<String, Value>>;
}

/// How the API speaks of a noun.
pub(crate) struct Words {
    /// In messages.
    pub(crate) what: &'static str,
    /// The path of all.
    pub(crate) all: &'static str,
    /// The path of one, with `{name}`.
    pub(crate) one: &'static str,
    /// The schema of what is written.
    pub(crate) schema: &'static str,
    /// The schema of what is read.
    pub(crate) row: &'static str,
    /// The operations' ids and summaries: list, read, write, delete.
    pub(crate) operations: [(&'static str, &'static str); 4],
}

/// Its routes.
pub(crate) fn routes<N: Named>() -> Vec<Route> {
    let words = N::WORDS;
    let [list, one, write, remove] = words.operations;
    vec![
        Route::read(
            words.all,
            list.0,
            list.1,
            Shape::List(words.row),
            |_| Ok(N::all_keys()),
            |state, _| Ok(json!(N::rows(state)).into()),
        ),
        Route::read(
            words.one,
            one.0,
            one.1,
            Shape::One(words.row),
            |args| Ok(N::keys(args.key("name")?)),
            read::<N>,
        ),
        Route::act(
            Method::PUT,
            words.one,
            write.0,
            write.1,
            Shape::One("Written"),
            |call| put::<N>(call).boxed(),
        )
        .body(Body::Json(words.schema))
        .writes(),
        Route::act(
            Method::DELETE,
            words.one,
            remove.0,
            remove.1,
            Shape::One("Written"),
            |call| delete::<N>(call).boxed(),
        )
        .writes(),
    ]
}

fn read<N: Named>(state: &State, args: &Args) -> Result<Content, ApiError> {
    let key = args.key("name")?;
    let row = N::row(state, &key);
    let row = row.ok_or_else(|| ApiError::not_found(format!("{} {key}", N::WORDS.what)))?;
    Ok(Value::Object(row).into())
}

async fn put<N: Named>(call: Call) -> Result<Reply, ApiError> {
    let key = call.args.key("name")?;
    let fixed = [
        ("namespace", json!(key.namespace)),
        ("name", json!(key.name)),
    ];
    let what = format!("{} {key}", N::WORDS.what);
    let value: N = rows::noun(&what, rows::body(&call.body)?, &fixed)?;
    let op = Op::Put {
        entry: value.entry(),
        cas: call.args.number("cas")?,
    };
    let applied = rows::commit(&call, vec![op]).await?;
    let row = N::row(&call.core.store.state(), &key);
    Ok(Reply::json(rows::written(&applied, row)).at(rows::index(&applied)))
}

async fn delete<N: Named>(call: Call) -> Result<Reply, ApiError> {
    let op = Op::Delete {
        key: N::key(call.args.key("name")?),
        cas: call.args.number("cas")?,
    };
    let applied = rows::commit(&call, vec![op]).await?;
    Ok(Reply::json(rows::written(&applied, None)).at(rows::index(&applied)))
}
