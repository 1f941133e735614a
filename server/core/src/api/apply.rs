//! `/v1/apply`: many entries, all or none.

use futures::FutureExt;
use http::Method;
use mesh_model::{Entry, EntryKey};
use mesh_state::Op;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::route::{Body, Call, Reply, Route, Shape};
use super::rows;

/// The longest body: a command with it must fit into one log entry.
const BODY: usize = 3 << 20;
/// The most operations.
const MAX_OPS: usize = 10_000;

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::act(
            Method::POST,
            "/v1/apply",
            "apply",
            "Writes many entries: all of them, or none",
            Shape::One("Applied"),
            |call| apply(call).boxed(),
        )
        .body(Body::Json("Apply"))
        .body_limit(BODY)
        .query("force", "Takes over rows of other owners")
        .query("dry_run", "Validates, changes nothing"),
    ]
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    ops: Vec<Value>,
}

async fn apply(call: Call) -> Result<Reply, ApiError> {
    let request = Request::deserialize(rows::body(&call.body)?)
        .map_err(|error| ApiError::request(format!("the body: {error}")))?;
    if request.ops.len() > MAX_OPS {
        let count = request.ops.len();
        let message = format!("ops: {count} operations; at most {MAX_OPS} are taken: split them");
        return Err(ApiError::request(message));
    }
    let ops = operations(request.ops)?;
    let applied = rows::commit(&call, ops).await?;
    let index = rows::index(&applied);
    let answer = json!({
        "index": index,
        "epoch": applied.version.epoch,
        "dry_run": call.args.flag("dry_run")?,
        "warnings": rows::findings(&applied.warnings),
        "results": rows::results(&applied.results),
    });
    Ok(Reply::json(answer).at(index))
}

/// Reads them; for fuzzing.
pub(crate) fn read_any(body: &Value) {
    if let Ok(request) = Request::deserialize(body)
        && let Ok(ops) = operations(request.ops)
    {
        let owner = "api".to_owned();
        let force = false;
        let command = mesh_state::Command::Transaction { ops, owner, force };
        let bytes = mesh_state::Envelope::new(1, command).encode();
        assert!(bytes.is_ok(), "what was read cannot be proposed");
    }
}

fn operations(ops: Vec<Value>) -> Result<Vec<Op>, ApiError> {
    let ops = ops.into_iter().enumerate().map(|(place, op)| {
        operation(op).map_err(|mut error| {
            error.message = format!("ops[{place}]: {}", error.message);
            error
        })
    });
    ops.collect()
}

fn operation(value: Value) -> Result<Op, ApiError> {
    let form = "write {\"put\": …}, {\"delete\": …} or {\"require\": …, \"cas\": N}";
    let Value::Object(mut fields) = value else {
        return Err(ApiError::request(form));
    };
    let cas = cas(&mut fields)?;
    let mut verbs = fields.into_iter();
    let (Some((verb, what)), None) = (verbs.next(), verbs.next()) else {
        return Err(ApiError::request(form));
    };
    match (verb.as_str(), cas) {
        ("put", cas) => Ok(Op::Put {
            entry: entry(what)?,
            cas,
        }),
        ("delete", cas) => Ok(Op::Delete {
            key: key(what)?,
            cas,
        }),
        ("require", Some(cas)) => Ok(Op::Require {
            key: key(what)?.into(),
            cas,
        }),
        ("require", None) => Err(ApiError::request("require: cas is missing")),
        _ => Err(ApiError::request(form)),
    }
}

fn cas(fields: &mut Map<String, Value>) -> Result<Option<u64>, ApiError> {
    let Some(cas) = fields.remove("cas") else {
        return Ok(None);
    };
    let number = cas.as_u64();
    let wrong = || ApiError::request("cas: write a whole number");
    number.ok_or_else(wrong).map(Some)
}

fn key(value: Value) -> Result<EntryKey, ApiError> {
    let key = EntryKey::deserialize(value)
        .map_err(|error| ApiError::request(format!("the key: {error}")))?;
    let checked = match &key {
        EntryKey::Mesh => Ok(()),
        EntryKey::Service(key) | EntryKey::Route(key) | EntryKey::Gateway(key) => key.check(),
        EntryKey::Intention {
            source,
            destination,
        } => source.check_pattern().and(destination.check_pattern()),
    };
    checked.map_err(|error| ApiError::request(format!("the key: {error}")))?;
    Ok(key)
}

/// An entry: what it is stands in `kind`, and its fields in `value`.
fn entry(value: Value) -> Result<Entry, ApiError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Form {
        kind: String,
        value: Value,
    }
    let form = Form::deserialize(value)
        .map_err(|error| ApiError::request(format!("the entry: {error}")))?;
    let what = named(&form.kind, &form.value);
    match form.kind.as_str() {
        "mesh" => rows::noun(&what, form.value, &[]).map(Entry::Mesh),
        "service" => rows::noun(&what, form.value, &[]).map(Entry::Service),
        "route" => rows::noun(&what, form.value, &[]).map(Entry::Route),
        "intention" => rows::noun(&what, form.value, &[]).map(Entry::Intention),
        "gateway" => rows::noun(&what, form.value, &[]).map(Entry::Gateway),
        kind => Err(ApiError::request(format!(
            "kind `{kind}` is not known; use mesh, service, route, intention or gateway"
        ))),
    }
}

/// The entry as errors name it, as far as it can be read.
fn named(kind: &str, value: &Value) -> String {
    let name = |value: &Value| value["name"].as_str().unwrap_or("?").to_owned();
    match kind {
        "service" | "route" | "gateway" => format!("{kind} {}", name(value)),
        "intention" => {
            let (source, destination) = (name(&value["source"]), name(&value["destination"]));
            format!("{kind} {source} => {destination}")
        }
        _ => kind.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn operations_are_read_strictly() {
        let good = [
            json!({"put": {"kind": "service", "value": {"name": "web", "modify_index": 3}}, "cas": 0}),
            json!({"delete": "mesh"}),
            json!({"delete": {"service": {"name": "web"}}}),
            json!({"require": {"route": {"name": "web"}}, "cas": 4}),
        ];
        for value in good {
            assert!(operation(value.clone()).is_ok(), "{value}");
        }
        let bad = [
            json!(3),
            json!({}),
            json!({"put": {"kind": "service", "value": {"name": "web"}}, "delete": "mesh"}),
            json!({"put": {"kind": "gateway", "value": {}}}),
            json!({"put": {"kind": "service", "value": {"name": "web", "protocl": "http"}}}),
            json!({"put": {"kind": "service", "value": 7}}),
            json!({"delete": {"service": {"name": "*"}}}),
            json!({"delete": "mesh", "cas": -1}),
            json!({"require": "mesh"}),
        ];
        for value in bad {
            assert!(operation(value.clone()).is_err(), "{value}");
        }
    }

    #[test]
    fn an_error_names_its_entry() {
        let value = json!({"put": {"kind": "service", "value": {"name": "web", "protocl": 1}}});
        let error = operation(value).unwrap_err();
        assert!(
            error
                .message
                .starts_with("service web: unknown field `protocl`"),
            "{error:?}"
        );
    }
}
