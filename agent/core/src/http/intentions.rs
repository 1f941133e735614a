//! `/v1/connect/intentions…`: who may call whom, as the servers know it. Writes are not taken.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use mesh_consul::intentions::{INTENTION, Row};
use mesh_model::{Action, DEFAULT_NAMESPACE, Intention, Key};
use mesh_policy::Policy;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::Answer;
use super::query::{Asked, Found, Pairs};
use super::{Door, Failure};

/// `GET /v1/connect/intentions`
pub(super) async fn list(State(door): State<Arc<Door>>, pairs: Pairs) -> Answer {
    let asked = Asked::read(&door, pairs)?;
    let filter = asked.filter(INTENTION)?;
    let found = asked.ask(&door, "/v1/intentions").await?;
    let shown = rows(&found)?.into_iter().map(|row| row.json());
    let shown: Vec<Value> = shown.filter(|row| filter.keeps(row)).collect();
    found.answer(json!(shown))
}

/// `GET /v1/connect/intentions/exact?source=&destination=`
pub(super) async fn exact(State(door): State<Arc<Door>>, pairs: Pairs) -> Answer {
    let asked = Asked::read(&door, pairs)?;
    let (source, destination) = (side(&asked, "source")?, side(&asked, "destination")?);
    let found = asked.ask(&door, "/v1/intentions").await?;
    let mut rows = rows(&found)?.into_iter();
    match rows.find(|row| row.is_of(&source, &destination)) {
        Some(row) => found.answer(row.json()),
        None => found.none("Intention not found"),
    }
}

/// `GET /v1/connect/intentions/match?by=&name=`: those that can decide about a service's calls.
pub(super) async fn matching(State(door): State<Arc<Door>>, pairs: Pairs) -> Answer {
    let asked = Asked::read(&door, pairs)?;
    let by = match asked.text("by") {
        Some(by @ ("source" | "destination")) => by,
        _ => return Err(Failure::bad("by: write source or destination")),
    };
    let mut names = asked.all("name");
    let name = match (names.next(), names.next()) {
        (Some(name), None) => name,
        _ => return Err(Failure::bad("name: write one service")),
    };
    let of = key(&asked, "name", name)?;
    let path = format!("/v1/intentions/match?by={by}&name={}", target(&of));
    let found = asked.ask(&door, &path).await?;
    let shown: Vec<Value> = rows(&found)?.iter().map(Row::json).collect();
    found.answer(json!(BTreeMap::from([(name, shown)])))
}

#[derive(Deserialize)]
struct Mesh {
    effective: Effective,
}

#[derive(Deserialize)]
struct Effective {
    default_intention: Action,
}

/// `GET /v1/connect/intentions/check?source=&destination=`: whether a connection is allowed. The
/// sidecars' own evaluator answers; permissions, which look at requests, are not a yes.
pub(super) async fn check(State(door): State<Arc<Door>>, pairs: Pairs) -> Answer {
    let asked = Asked::read(&door, pairs)?;
    if asked.is_waiting() {
        return Err(Failure::bad("index: this cannot be waited for"));
    }
    let (source, destination) = (side(&asked, "source")?, side(&asked, "destination")?);
    let mesh: Mesh = asked.ask(&door, "/v1/mesh").await?.read()?;
    let of = target(&destination);
    let path = format!("/v1/intentions/match?by=destination&name={of}");
    let found = asked.ask(&door, &path).await?;
    let rows = rows(&found)?;
    let intentions = rows.iter().map(|row| -> &Intention { &row.intention });
    let policy = Policy::of(mesh.effective.default_intention, intentions)
        .map_err(|error| Failure::internal(format!("the policy cannot be read: {error}")))?;
    let allowed = policy.stream(&source).is_allowed();
    found.answer(json!({ "Allowed": allowed }))
}

fn rows(found: &Found) -> Result<Vec<Row>, Failure> {
    let rows: Vec<Value> = found.read()?;
    let rows = rows.into_iter().map(Row::read).collect::<Result<_, _>>();
    rows.map_err(|error| {
        Failure::internal(format!(
            "an intention cannot be shown, since a part of it is not known here; upgrade the agent: {error}"
        ))
    })
}

fn side(asked: &Asked, name: &str) -> Result<Key, Failure> {
    let text = asked.text(name);
    let text = text.ok_or_else(|| Failure::bad(format!("{name}: write a service")))?;
    key(asked, name, text)
}

/// `NAME`, or `NAMESPACE/NAME`.
fn key(asked: &Asked, name: &str, text: &str) -> Result<Key, Failure> {
    let key: Result<Key, _> = text.parse();
    let mut key = key.map_err(|error| Failure::bad(format!("{name}: {error}")))?;
    if key.namespace == DEFAULT_NAMESPACE && !text.contains('/') {
        key.namespace = asked.namespace().to_owned();
    }
    Ok(key)
}

/// As a part of a target; `*` is the only other character that a side has.
fn target(key: &Key) -> String {
    format!("{}%2F{}", key.namespace, key.name)
}
