//! The demo's services: plain HTTP programs that know nothing of the mesh.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// One program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct App {
    /// The service that it is an instance of.
    pub(crate) service: &'static str,
    /// Its version, which the answers tell.
    pub(crate) version: &'static str,
    /// What it answers to.
    pub(crate) path: &'static str,
}

/// The services of the demo. The frontend serves nothing that is called: it is
/// the one who calls.
pub(crate) const APPS: [App; 4] = [
    App {
        service: "frontend",
        version: "v1",
        path: "/",
    },
    App {
        service: "user-service",
        version: "v1",
        path: "/v1/users",
    },
    App {
        service: "user-service",
        version: "v2",
        path: "/v1/users",
    },
    App {
        service: "payment",
        version: "v1",
        path: "/charge",
    },
];

/// Starts one on a free port of `host`, for as long as `tasks` lives.
pub(crate) async fn start(
    app: App,
    host: IpAddr,
    tasks: &mut JoinSet<()>,
) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind((host, 0)).await?;
    let address = listener.local_addr()?;
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    let service = service_fn(move |request| {
                        std::future::ready(Ok::<_, Infallible>(answer(app, &request)))
                    });
                    connections.spawn(async move {
                        let connection = hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service);
                        // A caller that goes away ends only its connection.
                        let _ = connection.await;
                    });
                }
                Some(_) = connections.join_next() => {}
            }
        }
    });
    Ok(address)
}

fn answer(app: App, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, body) = match request.uri().path() {
        "/healthz" => (StatusCode::OK, json!({"ok": true})),
        path if path == app.path => (StatusCode::OK, body(app)),
        _ => (StatusCode::NOT_FOUND, json!({"error": "not found"})),
    };
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn body(app: App) -> Value {
    let mut body = json!({"service": app.service, "version": app.version});
    match app.service {
        "user-service" => body["users"] = json!(["ada", "grace", "barbara"]),
        "payment" => body["charged"] = json!(true),
        _ => {}
    }
    body
}
