//! `/v1/catalog/…` and `/v1/health/…`: what runs anywhere in the mesh, as the servers know it.

use std::sync::Arc;

use axum::extract::{Path, State};
use mesh_consul::catalog::{
    CATALOG, HEALTH, Instance, NODE, Node, Part, SIDECAR, Service, services, services_of,
};
use mesh_consul::filter::Selectors;
use serde_json::{Value, json};

use super::answer::Answer;
use super::query::{Asked, Pairs};
use super::{Door, Failure};

/// `GET /v1/catalog/services`
pub(super) async fn list(State(door): State<Arc<Door>>, pairs: Pairs) -> Answer {
    let asked = Asked::read(&door, pairs)?;
    let filter = asked.filter(CATALOG)?;
    if asked.text("filter").is_some() {
        // It is asked of the instances; what is left of them is told.
        let found = asked.ask(&door, "/v1/catalog/instances").await?;
        let all: Vec<Instance> = found.read()?;
        let datacenter = door.datacenter();
        let kept = |one: &&Instance| filter.keeps(&one.catalog(Part::Application, &datacenter));
        let kept = all.iter().filter(kept);
        return found.answer(services_of(kept, asked.namespace()));
    }
    let found = asked.ask(&door, "/v1/catalog/services").await?;
    let rows: Vec<Service> = found.read()?;
    found.answer(services(&rows, asked.namespace()))
}

/// `GET /v1/catalog/nodes`
pub(super) async fn nodes(State(door): State<Arc<Door>>, pairs: Pairs) -> Answer {
    let asked = Asked::read(&door, pairs)?;
    let filter = asked.filter(NODE)?;
    let found = asked.ask(&door, "/v1/catalog/nodes").await?;
    let rows: Vec<Node> = found.read()?;
    let datacenter = door.datacenter();
    let shown = rows.iter().map(|row| row.json(&datacenter));
    let shown: Vec<Value> = shown.filter(|row| filter.keeps(row)).collect();
    found.answer(json!(shown))
}

/// `GET /v1/catalog/service/:name`
pub(super) async fn service(
    State(door): State<Arc<Door>>,
    Path(name): Path<String>,
    pairs: Pairs,
) -> Answer {
    rows(&door, &name, pairs, CATALOG, Instance::catalog).await
}

/// `GET /v1/catalog/connect/:name`: what is called of a service through the mesh.
pub(super) async fn service_in_mesh(
    State(door): State<Arc<Door>>,
    Path(name): Path<String>,
    pairs: Pairs,
) -> Answer {
    let part = Instance::in_mesh;
    rows_of(&door, &name, pairs, CATALOG, part, Instance::catalog).await
}

/// `GET /v1/health/service/:name`
pub(super) async fn health(
    State(door): State<Arc<Door>>,
    Path(name): Path<String>,
    pairs: Pairs,
) -> Answer {
    rows(&door, &name, pairs, HEALTH, Instance::health).await
}

/// `GET /v1/health/connect/:name`: what is called of a service through the mesh.
pub(super) async fn health_in_mesh(
    State(door): State<Arc<Door>>,
    Path(name): Path<String>,
    pairs: Pairs,
) -> Answer {
    let part = Instance::in_mesh;
    rows_of(&door, &name, pairs, HEALTH, part, Instance::health).await
}

type Show = fn(&Instance, Part, &str) -> Value;

/// A service, or the sidecars of one by their own name.
async fn rows(door: &Door, name: &str, pairs: Pairs, selectors: Selectors, show: Show) -> Answer {
    let (name, part) = match name.strip_suffix(SIDECAR) {
        Some(of) => (of, Part::Sidecar),
        None => (name, Part::Application),
    };
    let part = |one: &Instance| Some(part).filter(|part| one.has(*part));
    rows_of(door, name, pairs, selectors, part, show).await
}

/// Of each instance the part that is asked for, if it has one.
async fn rows_of(
    door: &Door,
    name: &str,
    pairs: Pairs,
    selectors: Selectors,
    part: impl Fn(&Instance) -> Option<Part>,
    show: Show,
) -> Answer {
    let asked = Asked::read(door, pairs)?;
    let filter = asked.filter(selectors)?;
    let tags: Vec<String> = asked.all("tag").map(str::to_owned).collect();
    let key = asked.key(name);
    let key = key.ok_or_else(|| Failure::bad(format!("`{name}` can be no service's name")))?;
    let path = format!("/v1/catalog/services/{}%2F{}", key.namespace, key.name);
    let found = asked.ask(door, &path).await?;
    let datacenter = door.datacenter();
    let all: Vec<Instance> = found.read()?;
    let wanted = all.iter().filter_map(|one| {
        let part = part(one)?;
        let passes = !asked.flag("passing") || one.is_passing(part);
        (one.has_tags(&tags) && passes).then(|| show(one, part, &datacenter))
    });
    let shown: Vec<Value> = wanted.filter(|row| filter.keeps(row)).collect();
    found.answer(json!(shown))
}
