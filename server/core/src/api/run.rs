//! From a request to an answer: the same way for every route.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body as HttpBody;
use axum::extract::{RawPathParams, Request};
use axum::response::Response;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use mesh_model::Version;
use mesh_state::WatchKey;
use rand::Rng;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::args::Args;
use super::error::ApiError;
use super::route::{Body, Call, Content, Keys, Read, Reply, Route, Work};
use super::{access, route};
use crate::core::{Core, Freshness};
use crate::listen::Caller;

const REQUESTS: usize = 512;
const BLOCKING: usize = 4096;
const WAIT: Duration = Duration::from_secs(300);
const WAIT_LIMIT: Duration = Duration::from_secs(600);
const MAX_OWNER: usize = 63;
const MAX_REQUEST_ID: usize = 64;

const OWNER: &str = "x-meshctl-owner";
const REQUEST_ID: &str = "x-request-id";

/// What all requests share.
pub(crate) struct Api {
    core: Arc<Core>,
    requests: Semaphore,
    blocking: Semaphore,
}

impl Api {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            requests: Semaphore::new(REQUESTS),
            blocking: Semaphore::new(BLOCKING),
        }
    }
}

/// What an answer says beside its content.
struct Said {
    request_id: String,
    freshness: Freshness,
    /// It waited for a change, as it was asked to.
    blocked: bool,
}

/// Answers a request of a route.
pub(crate) async fn run(
    api: Arc<Api>,
    route: Arc<Route>,
    params: Option<RawPathParams>,
    request: Request,
) -> Response {
    let begin = Instant::now();
    let (parts, body) = request.into_parts();
    let mut said = Said {
        request_id: request_id(&parts.headers),
        freshness: Freshness::Default,
        blocked: false,
    };
    let result = answer(&api, &route, params, &parts, body, &mut said).await;
    if let Err(error) = &result {
        log(&route, &said, error);
    }
    let status = result
        .as_ref()
        .map_or_else(|error| error.status, |reply| reply.status);
    let metrics = &api.core.metrics;
    metrics
        .api_requests
        .with_label_values(&[route.path, status.as_str()])
        .inc();
    if !said.blocked {
        metrics.api_seconds.observe(begin.elapsed().as_secs_f64());
    }
    respond(&api.core, &said, result)
}

fn log(route: &Route, said: &Said, error: &ApiError) {
    let (request, code) = (&said.request_id, error.code);
    let message = &error.message;
    match error.status.is_server_error() {
        true => tracing::warn!(request, route = route.id, code, message, "a request failed"),
        false => tracing::debug!(
            request,
            route = route.id,
            code,
            message,
            "a request was refused"
        ),
    }
}

/// No route has this path.
pub(crate) fn unknown(api: &Api, request: Request) -> Response {
    let message = format!(
        "{}: there is no such route; see /openapi.json",
        request.uri().path()
    );
    let error = ApiError::new(StatusCode::NOT_FOUND, "no_such_route", message);
    refuse(api, &request, error)
}

/// The path has no route of this method.
pub(crate) fn wrong_method(api: &Api, request: Request) -> Response {
    let message = format!(
        "{} does not take {}",
        request.uri().path(),
        request.method()
    );
    let error = ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        message,
    );
    refuse(api, &request, error)
}

fn refuse(api: &Api, request: &Request, error: ApiError) -> Response {
    let said = Said {
        request_id: request_id(request.headers()),
        freshness: Freshness::Default,
        blocked: false,
    };
    respond(&api.core, &said, Err(error))
}

async fn answer(
    api: &Api,
    route: &Route,
    params: Option<RawPathParams>,
    parts: &Parts,
    body: HttpBody,
    said: &mut Said,
) -> Result<Reply, ApiError> {
    let caller = parts.extensions.get::<Caller>();
    let caller = caller.ok_or_else(|| ApiError::internal("the caller is not known"))?;
    access::check(caller, route.access, &parts.uri, &parts.headers)?;
    let known: Vec<&str> = route.query.iter().map(|param| param.0).collect();
    let params = params.ok_or_else(|| ApiError::request("the path cannot be read"))?;
    let path = params
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let args = Args::read(path, parts.uri.query().unwrap_or_default(), &known)?;
    match &route.work {
        // Those who wait have room of their own, which is not for everybody.
        Work::Read(..) if *caller == Caller::Anonymous && args.text("index").is_some() => {
            Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "forbidden",
                "to wait for a change needs a client certificate of the cluster; ask without index",
            ))
        }
        Work::Read(keys, read) => {
            said.freshness = consistency(&args)?;
            said.blocked = args.text("index").is_some();
            let read = reading(api, said.freshness, &args, *keys, *read);
            read.await
        }
        Work::Act(act) => {
            said.blocked = route.waits;
            let _permit = room(match route.waits {
                true => &api.blocking,
                false => &api.requests,
            })?;
            let call = call(api, route, parts, caller, body, args);
            let work = async { act(call.await?).await };
            let result = tokio::time::timeout(route.time_limit, work).await;
            result.unwrap_or_else(|_| Err(late(route)))
        }
    }
}

fn late(route: &Route) -> ApiError {
    let limit = route.time_limit;
    let message = format!("not done within {limit:?}; what was asked may still happen");
    ApiError::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message)
}

fn room(semaphore: &Semaphore) -> Result<SemaphorePermit<'_>, ApiError> {
    semaphore.try_acquire().map_err(|_| {
        let message = "too many requests are under way; try again";
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message)
    })
}

/// How fresh the answer must be.
pub(crate) fn consistency(args: &Args) -> Result<Freshness, ApiError> {
    match (args.flag("consistent")?, args.flag("stale")?) {
        (true, true) => Err(ApiError::request("consistent and stale: write one of them")),
        (true, false) => Ok(Freshness::Consistent),
        (false, true) => Ok(Freshness::Stale),
        (false, false) => Ok(Freshness::Default),
    }
}

async fn reading(
    api: &Api,
    freshness: Freshness,
    args: &Args,
    keys: Keys,
    read: Read,
) -> Result<Reply, ApiError> {
    let core = &*api.core;
    let watched = keys(args)?;
    let since = args.number("index")?.filter(|index| *index > 0);
    let wait = args.duration("wait", WAIT, WAIT_LIMIT)?;
    let _permit = match since {
        None => room(&api.requests)?,
        Some(_) => room(&api.blocking)?,
    };
    let by_lease = core.fresh(freshness).await?;
    if let Some(since) = since {
        let version = core.store.state().version();
        let epoch = args.text("epoch");
        let since = Version {
            epoch: epoch.map_or_else(|| version.epoch.clone(), str::to_owned),
            index: since,
        };
        // A fresh state has every index that there is; only a stale one may
        // be behind the server that gave this one.
        let ours = since.index <= version.index || freshness == Freshness::Stale;
        if ours {
            wait_for_change(core, &watched, &since, wait).await;
        }
    }
    let mut state = core.store.state();
    // It waited long, or this process stood still: there may be another leader, and newer writes.
    if by_lease && !core.is_leased() {
        core.fresh(Freshness::Default).await?;
        state = core.store.state();
    }
    let content = read(&state, args)?;
    Ok(Reply {
        status: StatusCode::OK,
        content,
        index: Some(state.index(&watched)),
    })
}

async fn wait_for_change(core: &Core, watched: &[WatchKey], since: &Version, wait: Duration) {
    core.metrics.blocking_queries.inc();
    let jitter = wait.mul_f64(rand::rng().random_range(0.0..=1.0 / 16.0));
    tokio::select! {
        _ = core.store.watch(watched, since) => {}
        () = tokio::time::sleep(wait + jitter) => {}
        () = core.stop.cancelled() => {}
    }
    core.metrics.blocking_queries.dec();
}

async fn call(
    api: &Api,
    route: &Route,
    parts: &Parts,
    caller: &Caller,
    body: HttpBody,
    args: Args,
) -> Result<Call, ApiError> {
    let content_type = parts.headers.get(CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or_default().to_ascii_lowercase();
    let media = content_type.split(';').next().unwrap_or_default().trim();
    let needs_json = matches!(route.body, Body::Json(_));
    if needs_json && media != "application/json" && !media.ends_with("+json") {
        let message = "send the body with Content-Type: application/json";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(ApiError::new(status, "unsupported_media_type", message));
    }
    Ok(Call {
        core: api.core.clone(),
        owner: owner(&parts.headers)?,
        caller: caller.clone(),
        body: match route.body {
            Body::None => Bytes::new(),
            Body::Json(_) => {
                let limit = route.body_limit.min(api.core.options.limits.http_body);
                collect(body, limit).await?
            }
            Body::Raw => collect(body, route.body_limit).await?,
        },
        args,
    })
}

async fn collect(body: HttpBody, limit: usize) -> Result<Bytes, ApiError> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let message = format!("the body has more than {limit} bytes");
            Err(ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                message,
            ))
        }
        Err(_) => Err(ApiError::request("the body ended early")),
    }
}

fn owner(headers: &HeaderMap) -> Result<String, ApiError> {
    let Some(value) = headers.get(OWNER) else {
        return Ok("api".to_owned());
    };
    let good = |text: &&str| {
        let fits = (1..=MAX_OWNER).contains(&text.len());
        fits && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_./:".contains(c))
    };
    let owner = value.to_str().ok().filter(good);
    let owner = owner.ok_or_else(|| {
        let rule = "write 1 to 63 of letters, digits, `-`, `_`, `.`, `/` and `:`";
        ApiError::request(format!("X-Meshctl-Owner: {rule}"))
    })?;
    Ok(owner.to_owned())
}

fn request_id(headers: &HeaderMap) -> String {
    let good = |text: &&str| {
        let fits = (1..=MAX_REQUEST_ID).contains(&text.len());
        fits && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
    };
    let given = headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok());
    match given.filter(good) {
        Some(given) => given.to_owned(),
        None => uuid::Uuid::new_v4().to_string(),
    }
}

fn respond(core: &Core, said: &Said, result: Result<Reply, ApiError>) -> Response {
    let version = core.store.state().version();
    let (status, content, index) = match result {
        Ok(reply) => (reply.status, reply.content, reply.index),
        Err(error) => (error.status, error.body(&said.request_id).into(), None),
    };
    let (media, body) = match content {
        Content::Json(value) => ("application/json", Bytes::from(value.to_string())),
        Content::Text { media, bytes } => (media, bytes),
    };
    let mut response = Response::new(HttpBody::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    let index = index.unwrap_or(version.index).max(1);
    let age = core.raft.last_contact();
    let known = core.raft.leader().is_some();
    let freshness = match said.freshness {
        Freshness::Default => "default",
        Freshness::Consistent => "consistent",
        Freshness::Stale => "stale",
    };
    let mut put = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    put("x-meshctl-index", &index.to_string());
    put("x-meshctl-epoch", &version.epoch);
    put(
        "x-meshctl-known-leader",
        if known { "true" } else { "false" },
    );
    if let Some(age) = age {
        put("x-meshctl-last-contact", &age.as_millis().to_string());
    }
    put("x-meshctl-consistency", freshness);
    put(REQUEST_ID, &said.request_id);
    put("x-content-type-options", "nosniff");
    put("cache-control", "no-store");
    if status == StatusCode::TOO_MANY_REQUESTS {
        put(RETRY_AFTER.as_str().trim(), "1");
    }
    response
}

/// What the document says of every answer's headers.
pub(crate) const HEADERS: [route::Param; 6] = [
    route::Param(
        "X-Meshctl-Index",
        "The index of what was read or written, 1 or more",
    ),
    route::Param("X-Meshctl-Epoch", "The epoch of the index"),
    route::Param("X-Meshctl-Known-Leader", "`true` or `false`"),
    route::Param(
        "X-Meshctl-Last-Contact",
        "Milliseconds since this server last knew itself in touch with the leader",
    ),
    route::Param(
        "X-Meshctl-Consistency",
        "`default`, `consistent` or `stale`",
    ),
    route::Param("X-Request-Id", "The request's id, also in the server's log"),
];
