//! `/openapi.json`: the table of routes, as OpenAPI 3.1.

use bytes::Bytes;
use futures::FutureExt;
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::route::{Access, Body, Call, Content, Param, Reply, Route, Shape};
use super::run::HEADERS;
use super::{schema, table};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::act(
            Method::GET,
            "/openapi.json",
            "readDocument",
            "This document",
            Shape::Document,
            |call| read(call).boxed(),
        )
        .access(Access::Open),
    ]
}

async fn read(_: Call) -> Result<Reply, ApiError> {
    Ok(Reply {
        status: StatusCode::OK,
        content: Content::Text {
            media: "application/json",
            bytes: Bytes::from(openapi().to_string()),
        },
        index: None,
    })
}

/// The OpenAPI document of the HTTP API. `docs/reference/openapi.json` is a copy, and a test
/// compares the two.
pub fn openapi() -> Value {
    let mut paths = Map::new();
    for route in table() {
        let path = paths
            .entry(route.path.to_owned())
            .or_insert_with(|| Value::Object(Map::new()));
        path[route.method.as_str().to_ascii_lowercase()] = operation(&route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "meshctl",
            "version": "v1",
            "description": "The HTTP API of a meshctl server. docs/reference/api.md says how to use it.",
        },
        "paths": paths,
        "components": {"schemas": schema::all()},
    })
}

fn operation(route: &Route) -> Value {
    let mut parameters: Vec<Value> = in_path(route.path).map(path_parameter).collect();
    parameters.extend(route.query.iter().map(query_parameter));
    let mut operation = json!({
        "operationId": route.id,
        "summary": route.summary,
        "parameters": parameters,
        "responses": {
            "200": {
                "description": "Done",
                "headers": headers(),
                "content": content(route.answer),
            },
            "default": {
                "description": "Not done: see `error.code`",
                "content": {"application/json": {"schema": schema_of("Error")}},
            },
        },
        "x-access": match route.access {
            Access::Open => "everyone",
            Access::Read => "every part of the cluster",
            Access::Gateways => "operators and servers; agents a gateway's, where servers let them",
            Access::Operator => "operators and servers",
        },
        "x-blocking": route.is_read(),
    });
    let media = match route.body {
        Body::None => None,
        Body::Json(name) => Some(("application/json", schema_of(name))),
        Body::Raw => Some(("application/octet-stream", json!({}))),
    };
    if let Some((media, schema)) = media {
        operation["requestBody"] = json!({
            "required": true,
            "content": {media: {"schema": schema}},
        });
    }
    operation
}

fn in_path(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn path_parameter(name: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
}

fn query_parameter(Param(name, meaning): &Param) -> Value {
    json!({"name": name, "in": "query", "description": meaning, "schema": {"type": "string"}})
}

fn headers() -> Value {
    let headers = HEADERS.iter().map(|Param(name, meaning)| {
        let value = json!({"description": meaning, "schema": {"type": "string"}});
        ((*name).to_owned(), value)
    });
    Value::Object(headers.collect())
}

fn content(shape: Shape) -> Value {
    match shape {
        Shape::One(name) => json!({"application/json": {"schema": schema_of(name)}}),
        Shape::List(name) => {
            let list = json!({"type": "array", "items": schema_of(name)});
            json!({"application/json": {"schema": list}})
        }
        Shape::Raw(media) => json!({media: {}}),
        Shape::Document => json!({"application/json": {"schema": {"type": "object"}}}),
    }
}

fn schema_of(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}
