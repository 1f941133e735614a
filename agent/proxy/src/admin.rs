//! The admin listener: `/ready`, `/metrics`, `/config`, `/drain`.
//!
//! It runs on the control side's own thread and runtime, so that a scrape never
//! waits for traffic and traffic never for a scrape. It binds where the
//! bootstrap says, a loopback address, and shows no secret.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};

use crate::status::Status;

/// What the listener shows.
#[derive(Clone)]
pub(crate) struct Admin {
    /// Ready or not, and the config.
    pub(crate) status: Status,
    /// The metrics, as Prometheus reads them.
    pub(crate) metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Told when a drain is asked for.
    pub(crate) drain: Arc<Notify>,
}

/// Connections at once: more than any scraper needs.
const CONNECTIONS: usize = 64;

/// Serves until the process ends.
pub(crate) async fn serve(listener: TcpListener, admin: Admin) {
    serve_with(listener, move |request| answer(&admin, request)).await;
}

/// Serves `/ready`, and nothing else.
pub(crate) async fn serve_ready(listener: TcpListener, status: Status) {
    serve_with(listener, move |request| {
        match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/ready") => ready(&status),
            _ => text(StatusCode::NOT_FOUND, "there is GET /ready\n".to_owned()),
        }
    })
    .await;
}

async fn serve_with<A>(listener: TcpListener, answer: A)
where
    A: Fn(&Request<Incoming>) -> Response<Full<Bytes>> + Clone + Send + 'static,
{
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "admin listener: accept failed");
                // Out of file descriptors, most likely: let some close.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let answer = answer.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                std::future::ready(Ok::<_, Infallible>(answer(&request)))
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(stream), service);
            let _ = connection.await;
            drop(place);
        });
    }
}

fn answer(admin: &Admin, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/ready") => ready(&admin.status),
        (&Method::GET | &Method::HEAD, "/metrics" | "/stats/prometheus") => {
            let mut response = text(StatusCode::OK, (admin.metrics)());
            let kind = header::HeaderValue::from_static("text/plain; version=0.0.4");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        (&Method::GET | &Method::HEAD, "/config") => config(&admin.status),
        (&Method::POST, "/drain") => {
            admin.drain.notify_one();
            text(StatusCode::ACCEPTED, "draining\n".to_owned())
        }
        (_, "/ready" | "/metrics" | "/stats/prometheus" | "/config") => {
            text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n".to_owned())
        }
        (_, "/drain") => text(StatusCode::METHOD_NOT_ALLOWED, "use POST\n".to_owned()),
        _ => text(
            StatusCode::NOT_FOUND,
            "there are GET /ready, /metrics, /config and POST /drain\n".to_owned(),
        ),
    }
}

fn ready(status: &Status) -> Response<Full<Bytes>> {
    match status.ready() {
        Ok(()) => text(StatusCode::OK, "LIVE\n".to_owned()),
        Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

fn config(status: &Status) -> Response<Full<Bytes>> {
    let Some((config, version)) = status.config() else {
        return text(StatusCode::NOT_FOUND, "no config has come yet\n".to_owned());
    };
    let shown = serde_json::json!({"version": version, "config": config});
    let body = serde_json::to_string_pretty(&shown).unwrap_or_default();
    let mut response = text(StatusCode::OK, body + "\n");
    let kind = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
