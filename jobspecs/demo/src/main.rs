//! Small programs for the example jobs. They know nothing of the mesh.
//!
//! - `mesh-demo api` counts its calls: `GET /` answers `{"count": …}`.
//! - `mesh-demo dashboard` calls the API at `$COUNTING_SERVICE_URL` for each
//!   `GET /` and shows what came back; `GET /api` gives it as JSON.
//! - `mesh-demo batch` calls the API at `$COUNTING_SERVICE_URL` ten times and
//!   ends: 0 when all were answered.
//!
//! `$PORT` is where they listen (9001 and 9002), `$VERSION` is told in each
//! answer. `GET /health` says that they run. On SIGTERM they finish what runs and
//! end.
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// How long a call of the API may take.
const CALL: Duration = Duration::from_secs(10);
/// How long a batch tries until its first call is answered, and how often.
const READY: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_millis(250);
/// How long calls that run may take after SIGTERM.
const FINISH: Duration = Duration::from_secs(5);
/// How many calls a batch makes.
const BATCH: u32 = 10;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let ended = match std::env::args().nth(1).as_deref() {
        Some("api") => serve(9001, App::Api(AtomicU64::new(0))).await,
        Some("dashboard") => match Counting::new() {
            Ok(counting) => serve(9002, App::Dashboard(counting)).await,
            Err(error) => Err(error),
        },
        Some("batch") => batch().await,
        _ => Err("write api, dashboard or batch".into()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mesh-demo: {error}");
            ExitCode::FAILURE
        }
    }
}

enum App {
    Api(AtomicU64),
    Dashboard(Counting),
}

impl App {
    async fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        if path == "/health" {
            return reply(StatusCode::OK, "application/json", "{\"ok\":true}".into());
        }
        match (self, path) {
            (Self::Api(count), _) => {
                let count = count.fetch_add(1, Ordering::Relaxed) + 1;
                let body = json!({"count": count, "version": version()});
                reply(StatusCode::OK, "application/json", body.to_string())
            }
            (Self::Dashboard(counting), "/api") => match counting.call().await {
                Ok(body) => reply(StatusCode::OK, "application/json", body.to_string()),
                Err(error) => {
                    let body = json!({"error": error.to_string()});
                    reply(
                        StatusCode::BAD_GATEWAY,
                        "application/json",
                        body.to_string(),
                    )
                }
            },
            (Self::Dashboard(counting), "/") => {
                let shown = match counting.call().await {
                    Ok(body) => body["count"].to_string(),
                    Err(error) => format!("the counting service does not answer: {error}"),
                };
                let page = format!(
                    "<!doctype html><meta http-equiv=refresh content=1><title>Dashboard</title>\
                     <h1>Count</h1><p>{}</p>",
                    shown.replace('&', "&amp;").replace('<', "&lt;")
                );
                reply(StatusCode::OK, "text/html; charset=utf-8", page)
            }
            _ => reply(StatusCode::NOT_FOUND, "text/plain", "not found\n".into()),
        }
    }
}

/// The API, as who calls it knows it.
struct Counting {
    client: reqwest::Client,
    url: String,
}

impl Counting {
    fn new() -> Result<Self, Failure> {
        let url = std::env::var("COUNTING_SERVICE_URL")
            .map_err(|_| "COUNTING_SERVICE_URL is not set; write http://host:port")?;
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(CALL)
            .build()?;
        Ok(Self { client, url })
    }

    /// Nomad starts a program when its sidecar runs, which is before it is ready.
    async fn first(&self) -> Result<Value, Failure> {
        let began = Instant::now();
        loop {
            match self.call().await {
                Err(error) if began.elapsed() > READY => return Err(error),
                Err(_) => tokio::time::sleep(AGAIN).await,
                Ok(body) => return Ok(body),
            }
        }
    }

    async fn call(&self) -> Result<Value, Failure> {
        let response = self.client.get(&self.url).send().await?;
        let status = response.status();
        let text = response.text().await?;
        match status.is_success() {
            true => Ok(serde_json::from_str(&text)?),
            false => Err(format!("{status}: {}", text.trim()).into()),
        }
    }
}

async fn batch() -> Result<(), Failure> {
    let counting = Counting::new()?;
    let mut body = counting.first().await?;
    for number in 1..=BATCH {
        if number > 1 {
            body = counting.call().await?;
        }
        println!("call {number}: {body}");
    }
    Ok(())
}

async fn serve(port: u16, app: App) -> Result<(), Failure> {
    let port = match std::env::var("PORT") {
        Ok(text) => text
            .parse()
            .map_err(|_| format!("PORT={text}: not a port"))?,
        Err(_) => port,
    };
    let listener = TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], port))).await?;
    let app = Arc::new(app);
    let mut stop = signal(SignalKind::terminate())?;
    println!("listening at {}", listener.local_addr()?);
    let graceful = GracefulShutdown::new();
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted?,
            _ = stop.recv() => {
                drop(listener);
                let _ = tokio::time::timeout(FINISH, graceful.shutdown()).await;
                return Ok(());
            }
        };
        let app = app.clone();
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let app = app.clone();
            async move { Ok::<_, Infallible>(app.answer(request.uri().path()).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A caller that goes away ends only its connection.
            let _ = connection.await;
        });
    }
}

fn version() -> String {
    std::env::var("VERSION").unwrap_or_else(|_| "v1".to_owned())
}

fn reply(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
