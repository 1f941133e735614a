//! `/v1/intentions`: who may call whom. Asking is in `check`.

use futures::FutureExt;
use http::Method;
use mesh_model::{Entry, EntryKey, Intention, Key, Row};
use mesh_state::{Op, RowKey, State, TableName, WatchKey};
use serde_json::{Map, Value, json};

use super::args::Args;
use super::error::ApiError;
use super::route::{Body, Call, Content, Reply, Route, Shape};
use super::rows;

const ONE: &str = "/v1/intentions/{source}/{destination}";

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::read(
            "/v1/intentions",
            "listIntentions",
            "Every intention, in evaluation order",
            Shape::List("IntentionRow"),
            all,
            list,
        )
        .query("source", "Keeps those written with exactly this source")
        .query(
            "destination",
            "Keeps those written with exactly this destination",
        ),
        Route::read(
            "/v1/intentions/match",
            "matchIntentions",
            "The intentions that can decide about a service's calls, in evaluation order",
            Shape::List("IntentionRow"),
            all,
            matching,
        )
        .query(
            "by",
            "`source`: calls by the service; `destination`: calls to it",
        )
        .query("name", "The service"),
        Route::read(
            ONE,
            "readIntention",
            "One intention",
            Shape::One("IntentionRow"),
            one,
            read,
        ),
        Route::act(
            Method::PUT,
            ONE,
            "writeIntention",
            "Writes an intention",
            Shape::One("Written"),
            |call| put(call).boxed(),
        )
        .body(Body::Json("Intention"))
        .writes(),
        Route::act(
            Method::DELETE,
            ONE,
            "deleteIntention",
            "Deletes an intention",
            Shape::One("Written"),
            |call| delete(call).boxed(),
        )
        .writes(),
    ]
}

/// An intention's row, with its precedence.
pub(crate) fn intention(row: &Row<Intention>) -> Map<String, Value> {
    let mut fields = rows::row(row);
    fields.insert("precedence".into(), row.value.precedence().into());
    fields
}

fn all(_: &Args) -> Result<Vec<WatchKey>, ApiError> {
    Ok(vec![WatchKey::Table(TableName::Intention)])
}

fn list(state: &State, args: &Args) -> Result<Content, ApiError> {
    let source = args.query_key("source")?;
    let destination = args.query_key("destination")?;
    let wanted = |row: &Row<Intention>| {
        let fits = |wanted: &Option<Key>, side: &Key| wanted.as_ref().is_none_or(|key| key == side);
        fits(&source, &row.value.source) && fits(&destination, &row.value.destination)
    };
    let rows = state.intentions();
    let rows = rows.iter().filter(|row| wanted(row));
    Ok(json!(rows.map(|row| intention(row)).collect::<Vec<_>>()).into())
}

fn matching(state: &State, args: &Args) -> Result<Content, ApiError> {
    let name = args.query_key("name")?;
    let name = name.ok_or_else(|| ApiError::request("name: is missing"))?;
    let rows = match args.text("by") {
        Some("source") => state.intentions_matching_source(&name),
        Some("destination") => state.intentions_for(&name),
        _ => return Err(ApiError::request("by: write source or destination")),
    };
    Ok(json!(rows.iter().map(|row| intention(row)).collect::<Vec<_>>()).into())
}

fn sides(args: &Args) -> Result<(Key, Key), ApiError> {
    Ok((args.pattern("source")?, args.pattern("destination")?))
}

fn one(args: &Args) -> Result<Vec<WatchKey>, ApiError> {
    Ok(vec![WatchKey::Key(RowKey::from(key(args)?))])
}

fn key(args: &Args) -> Result<EntryKey, ApiError> {
    let (source, destination) = sides(args)?;
    Ok(EntryKey::Intention {
        source,
        destination,
    })
}

fn read(state: &State, args: &Args) -> Result<Content, ApiError> {
    let (source, destination) = sides(args)?;
    let row = state.intention(&source, &destination);
    let row =
        row.ok_or_else(|| ApiError::not_found(format!("intention {source} => {destination}")))?;
    Ok(Value::Object(intention(row)).into())
}

async fn put(call: Call) -> Result<Reply, ApiError> {
    let (source, destination) = sides(&call.args)?;
    let fixed = [
        ("source", json!(source)),
        ("destination", json!(destination)),
    ];
    let what = format!("intention {source} => {destination}");
    let value: Intention = rows::noun(&what, rows::body(&call.body)?, &fixed)?;
    let op = Op::Put {
        entry: Entry::Intention(value),
        cas: call.args.number("cas")?,
    };
    let applied = rows::commit(&call, vec![op]).await?;
    let state = call.core.store.state();
    let row = state.intention(&source, &destination);
    let row = row.map(|row| intention(row));
    Ok(Reply::json(rows::written(&applied, row)).at(rows::index(&applied)))
}

async fn delete(call: Call) -> Result<Reply, ApiError> {
    let op = Op::Delete {
        key: key(&call.args)?,
        cas: call.args.number("cas")?,
    };
    let applied = rows::commit(&call, vec![op]).await?;
    Ok(Reply::json(rows::written(&applied, None)).at(rows::index(&applied)))
}
