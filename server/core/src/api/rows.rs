//! Rows in and out: the noun's JSON with the row's own fields beside it.

use mesh_model::Row;
use mesh_state::{Applied, Change, Command, Finding, Op, OpResult, State};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::macros::format_description;

use super::error::ApiError;
use super::route::Call;
use crate::core::Freshness;

/// The fields that a row adds. In a body they may stand, and are ignored.
const ROW_FIELDS: [&str; 5] = [
    "owner",
    "create_index",
    "modify_index",
    "created_at",
    "modified_at",
];

/// Fields that answers add beyond that, by what they compute.
const READ_ONLY: [&str; 5] = ["precedence", "defined", "instances", "effective", "virtual"];

/// A noun as a JSON object.
pub(crate) fn object(noun: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(noun) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// A row: the noun, and what the row adds.
pub(crate) fn row<T: Serialize>(row: &Row<T>) -> Map<String, Value> {
    let mut fields = object(&row.value);
    fields.insert("owner".into(), row.owner.clone().into());
    stamp(&mut fields, row);
    fields
}

/// When a row was made and changed: indexes and times.
pub(crate) fn stamp<T>(fields: &mut Map<String, Value>, row: &Row<T>) {
    fields.insert("create_index".into(), row.create_index.into());
    fields.insert("modify_index".into(), row.modify_index.into());
    fields.insert("created_at".into(), time_text(row.created_at));
    fields.insert("modified_at".into(), time_text(row.modified_at));
}

/// Milliseconds since 1970 as RFC 3339, in UTC; what is later than it can say is the last
/// that it can.
fn time_text(millis: u64) -> Value {
    const LAST: u64 = 253_402_300_799_999;
    let format =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis.min(LAST)) * 1_000_000);
    json!(time.ok().and_then(|time| time.format(format).ok()))
}

/// The body as JSON.
pub(crate) fn body(bytes: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(bytes).map_err(|error| {
        let mut refused = ApiError::request(format!("the body is not JSON: {error}"));
        refused.code = "invalid_json";
        refused
    })
}

/// A noun out of a body. What the path says (`fixed`) need not stand in it,
/// and must agree if it does.
pub(crate) fn noun<T: DeserializeOwned>(
    what: &impl std::fmt::Display,
    value: Value,
    fixed: &[(&str, Value)],
) -> Result<T, ApiError> {
    let Value::Object(mut fields) = value else {
        return Err(ApiError::invalid(format!(
            "{what}: write an object, `{{…}}`"
        )));
    };
    for name in ROW_FIELDS.iter().chain(&READ_ONLY) {
        fields.remove(*name);
    }
    for (name, wanted) in fixed {
        let given = fields.insert((*name).to_owned(), wanted.clone());
        if let Some(given) = given
            && !agrees(&given, wanted)
        {
            let message = format!("{what}: the body's {name} is another one than the path's");
            return Err(ApiError::request(message));
        }
    }
    T::deserialize(Value::Object(fields))
        .map_err(|error| ApiError::invalid(format!("{what}: {error}")))
}

/// Keys may come without their namespace.
fn agrees(given: &Value, wanted: &Value) -> bool {
    use mesh_model::Key;
    use serde::Deserialize;
    given == wanted
        || match (Key::deserialize(given), Key::deserialize(wanted)) {
            (Ok(given), Ok(wanted)) => given == wanted,
            _ => false,
        }
}

/// Writes rows, all or none; only tries it with `?dry_run`.
pub(crate) async fn commit(call: &Call, ops: Vec<Op>) -> Result<Applied, ApiError> {
    let command = Command::Transaction {
        ops,
        owner: call.owner.clone(),
        force: call.args.flag("force")?,
    };
    match call.args.flag("dry_run")? {
        false => Ok(call.core.write(command).await?),
        true => dry_run(call, command).await,
    }
}

async fn dry_run(call: &Call, command: Command) -> Result<Applied, ApiError> {
    call.core.fresh(Freshness::Default).await?;
    let mut state = State::clone(&call.core.store.state());
    let before = state.version();
    let now = call.core.clock.unix_millis();
    let commit = state.apply(&[mesh_state::Envelope::new(now, command)]);
    let outcome = commit.outcomes.into_iter().next();
    let outcome = outcome.ok_or_else(|| ApiError::internal("a dry run gave nothing"))?;
    let mut applied = outcome.into_result()?;
    // What would be has no version yet.
    applied.version = before;
    Ok(applied)
}

/// The answer to the write of one row, with the row as it is here. One that is older than the
/// write, since this server lags or it was a dry run, is not shown.
pub(crate) fn written(applied: &Applied, row: Option<Map<String, Value>>) -> Value {
    let first = applied.results.first();
    let wrote = first.map_or(0, |result| result.index);
    let of_then = |row: &Map<String, Value>| {
        let index = row.get("modify_index").and_then(Value::as_u64);
        index.is_some_and(|index| index >= wrote)
    };
    let row = row.filter(of_then);
    let mut answer = json!({
        "change": first.map_or(Change::Unchanged, |result| result.change),
        "index": index(applied),
        "epoch": applied.version.epoch,
        "warnings": findings(&applied.warnings),
    });
    if let (Some(row), Value::Object(fields)) = (row, &mut answer) {
        fields.insert("row".into(), Value::Object(row));
    }
    answer
}

/// The index to wait for.
pub(crate) fn index(applied: &Applied) -> u64 {
    let highest = applied.results.iter().map(|result| result.index).max();
    highest.unwrap_or(applied.version.index).max(1)
}

pub(crate) fn findings(findings: &[Finding]) -> Value {
    json!(findings)
}

/// What became of each entry.
pub(crate) fn results(results: &[OpResult]) -> Vec<Value> {
    results
        .iter()
        .filter_map(|result| {
            let key = result.key.entry()?;
            Some(json!({"key": key, "change": result.change, "index": result.index}))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mesh_model::Key;
    use mesh_state::RowKey;

    use super::*;

    #[test]
    fn times_are_in_utc_with_milliseconds() {
        assert_eq!(time_text(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time_text(1_700_000_000_050), "2023-11-14T22:13:20.050Z");
        assert_eq!(time_text(1 << 53), "9999-12-31T23:59:59.999Z");
        assert_eq!(time_text(u64::MAX), time_text(1 << 53));
    }

    #[test]
    fn a_row_that_is_older_than_the_write_is_not_shown() {
        let applied = Applied {
            results: vec![OpResult {
                key: RowKey::Service(Key::of("web")),
                change: Change::Updated,
                index: 7,
            }],
            ..Applied::default()
        };
        let shown = |row: Value| {
            let row = row.as_object().cloned();
            written(&applied, row).get("row").is_some()
        };
        assert!(shown(json!({"modify_index": 7})));
        assert!(
            shown(json!({"modify_index": 8})),
            "somebody else wrote since"
        );
        assert!(!shown(json!({"modify_index": 6})));
        assert!(!shown(json!({"defined": false})), "it is not here yet");
        assert!(!shown(Value::Null));
    }
}
