//! The HTTP API on 8700: JSON, made from one table of routes.
//!
//! A read is a function of the state ([`route::Work::Read`]), so that freshness, blocking queries
//! and headers are the same everywhere and written once, in [`run`]. Everything else is an async
//! function of a [`route::Call`].

mod access;
mod apply;
mod args;
mod ca;
mod ca_revoked;
mod ca_settings;
mod catalog;
mod check;
mod config;
mod document;
mod error;
mod gateways;
mod intentions;
mod mesh;
mod named;
mod nomad;
mod operator;
mod proxies;
mod route;
mod routes;
mod rows;
mod run;
mod schema;
mod services;
mod snapshot;
mod status;
#[cfg(feature = "tomorrow")]
mod tomorrow;

pub use document::openapi;
#[cfg(test)]
pub(crate) use snapshot::replace;

use std::sync::Arc;

use axum::Router;
use axum::extract::RawPathParams;
use axum::routing::{MethodFilter, on};
use http::Method;
use mesh_model::{Gateway, Route as RouteNoun, Service};

use crate::core::Core;
use route::Route;
use run::Api;

/// Reads a request's parts; for fuzzing.
pub(crate) fn read_any(data: &[u8]) {
    if let Ok(body) = rows::body(data) {
        apply::read_any(&body);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        let path = [("name".to_owned(), path.to_owned())];
        if let Ok(args) = args::Args::read(path, query, &["index", "wait", "source"]) {
            let _ = (
                args.key("name"),
                args.number("index"),
                args.query_key("source"),
            );
            let longest = std::time::Duration::from_secs(600);
            let wait = args.duration("wait", longest, longest);
            assert!(wait.is_ok_and(|wait| wait <= longest) || args.text("wait").is_some());
        }
    }
}

/// Every route.
fn table() -> Vec<Route> {
    [
        intentions::routes(),
        check::routes(),
        named::routes::<Service>(),
        named::routes::<RouteNoun>(),
        named::routes::<Gateway>(),
        mesh::routes(),
        apply::routes(),
        config::routes(),
        catalog::routes(),
        proxies::routes(),
        ca::routes(),
        operator::routes(),
        snapshot::routes(),
        status::routes(),
        nomad::routes(),
        document::routes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What only tests have, and the API's document has not.
fn undocumented() -> Vec<Route> {
    #[cfg(feature = "tomorrow")]
    return tomorrow::routes();
    #[cfg(not(feature = "tomorrow"))]
    Vec::new()
}

/// The router of the table.
pub(crate) fn router(core: Arc<Core>) -> Router {
    let api = Arc::new(Api::new(core));
    let mut router = Router::new();
    for route in table().into_iter().chain(undocumented()) {
        let filter = match route.method {
            Method::PUT => MethodFilter::PUT,
            Method::POST => MethodFilter::POST,
            Method::DELETE => MethodFilter::DELETE,
            _ => MethodFilter::GET,
        };
        let path = route.path;
        let (api, route) = (api.clone(), Arc::new(route));
        let handler = move |params: Result<RawPathParams, _>, request| {
            let (api, route) = (api.clone(), route.clone());
            async move { run::run(api, route, params.ok(), request).await }
        };
        router = router.route(path, on(filter, handler));
    }
    let (unknown, method) = (api.clone(), api);
    router
        .fallback(move |request| async move { run::unknown(&unknown, request) })
        .method_not_allowed_fallback(
            move |request| async move { run::wrong_method(&method, request) },
        )
}
