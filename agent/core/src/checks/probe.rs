//! What a check does: asks over HTTP or gRPC, or makes a connection.
//!
//! No connection is kept between runs: a check is to see whether a new one can be made.
//!
//! A probe goes out as the agent itself, whose user may change everything at the agent's own door;
//! who wrote the check may not. So no probe goes to an address on which the agent listens: the
//! host's name is resolved first, what is connected to is what was looked at, and a redirect is
//! followed only to where the check asked anyway.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mesh_model::{CheckDefinition, CheckKind, Status};
use reqwest::{Client, Method, Url, redirect};
use tokio::net::TcpStream;

use super::board::bounded;
use super::grpc;

/// The most of an answer that is read, in bytes.
const MAX_ANSWER: usize = 4 * 1024;
/// Redirects that are followed one after the other.
const MAX_REDIRECTS: usize = 10;

/// A run's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) status: Status,
    pub(crate) output: String,
}

impl Outcome {
    pub(super) fn critical(output: impl Into<String>) -> Self {
        Self {
            status: Status::Critical,
            output: output.into(),
        }
    }
}

/// Does what a check says, once.
#[async_trait::async_trait]
pub(crate) trait Probe: Send + Sync {
    /// The caller limits the time.
    async fn probe(&self, check: &CheckDefinition) -> Outcome;
}

/// The real one.
#[derive(Debug)]
pub(crate) struct Network {
    /// Where the agent itself listens.
    own: Vec<SocketAddr>,
    clients: Mutex<HashMap<ClientKind, Client>>,
}

/// What clients differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ClientKind {
    http2: bool,
    skip_verify: bool,
}

/// Where a request goes, and which name the certificate there must have.
pub(super) struct Target<'a> {
    pub(super) url: &'a str,
    pub(super) tls_server_name: &'a str,
    pub(super) skip_verify: bool,
    pub(super) http2: bool,
}

#[async_trait::async_trait]
impl Probe for Network {
    async fn probe(&self, check: &CheckDefinition) -> Outcome {
        match &check.kind {
            CheckKind::Tcp { address } => match self.tcp(address).await {
                Ok(outcome) => outcome,
                Err(reason) => Outcome::critical(format!("TCP connect {address}: {reason}")),
            },
            CheckKind::Http { .. } => match self.http(&check.kind).await {
                Ok(outcome) => outcome,
                Err(reason) => Outcome::critical(reason),
            },
            CheckKind::Grpc { .. } => grpc::probe(self, &check.kind).await,
            CheckKind::Ttl { .. } | CheckKind::Alias { .. } => {
                Outcome::critical("this check does nothing by itself")
            }
        }
    }
}

impl Network {
    /// `own` are the addresses on which the agent listens, which no check may ask.
    pub(crate) fn new(own: Vec<SocketAddr>) -> Self {
        Self {
            own,
            clients: Mutex::default(),
        }
    }

    async fn tcp(&self, address: &str) -> Result<Outcome, String> {
        let (host, port) = address
            .rsplit_once(':')
            .and_then(|(host, port)| Some((bare(host), port.parse().ok()?)))
            .ok_or("not a host and a port")?;
        let found = self.resolve(host, port).await?;
        let connected = TcpStream::connect(found.as_slice()).await;
        connected.map_err(|e| e.to_string())?;
        Ok(Outcome {
            status: Status::Passing,
            output: format!("TCP connect {address}: success"),
        })
    }

    /// The addresses of a host; an error when the agent itself listens on one of them.
    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port))
            .await
            .map_err(|e| format!("{host}: {e}"))?
            .collect();
        if found.is_empty() {
            return Err(format!("{host}: no address"));
        }
        if let Some(at) = found.iter().find(|at| self.is_own(**at)) {
            return Err(format!(
                "{at} is the agent's own address, which no check may ask; check the application itself"
            ));
        }
        Ok(found)
    }

    /// Whether a connection to this address may end at the agent.
    fn is_own(&self, at: SocketAddr) -> bool {
        let ip = at.ip().to_canonical();
        self.own.iter().any(|own| {
            let listens = own.ip().to_canonical();
            // Where the agent listens everywhere, every address of this machine is its own.
            let reaches =
                ip == listens || ip.is_unspecified() || (listens.is_unspecified() && is_local(ip));
            own.port() == at.port() && reaches
        })
    }

    async fn http(&self, kind: &CheckKind) -> Result<Outcome, String> {
        let CheckKind::Http {
            url,
            method,
            headers,
            body,
            tls_server_name,
            tls_skip_verify,
        } = kind
        else {
            return Err("not an HTTP check".to_owned());
        };
        let method = match method.as_str() {
            "" => Method::GET,
            other => other
                .parse()
                .map_err(|_| format!("method {other:?} is not one"))?,
        };
        let target = Target {
            url,
            tls_server_name,
            skip_verify: *tls_skip_verify,
            http2: false,
        };
        let (client, at) = self.client(&target).await?;
        let mut request = client
            .request(method.clone(), at)
            .header("accept", "text/plain, text/*, */*");
        for (name, values) in headers {
            for value in values {
                request = request.header(name, value);
            }
        }
        if !body.is_empty() {
            request = request.body(body.clone());
        }
        let mut answer = request.send().await.map_err(|e| reason(&e))?;
        let code = answer.status();
        let mut text = Vec::new();
        while text.len() < MAX_ANSWER {
            match answer.chunk().await {
                Ok(Some(chunk)) => text.extend_from_slice(&chunk),
                // The status decides; a body that breaks off does not.
                Ok(None) | Err(_) => break,
            }
        }
        text.truncate(MAX_ANSWER);
        let status = match code.as_u16() {
            200..=299 => Status::Passing,
            429 => Status::Warning,
            _ => Status::Critical,
        };
        let text = String::from_utf8_lossy(&text);
        Ok(Outcome {
            status,
            output: bounded(&format!("HTTP {method} {url}: {code} Output: {text}")),
        })
    }

    /// A client and the URL to ask it for. Where the certificate must have another name than the
    /// URL's host, the URL gets that name, and the client knows the address.
    pub(super) async fn client(&self, target: &Target<'_>) -> Result<(Client, Url), String> {
        let mut url: Url = target
            .url
            .parse()
            .map_err(|e| format!("{}: {e}", target.url))?;
        let kind = ClientKind {
            http2: target.http2,
            skip_verify: target.skip_verify,
        };
        let host = bare(url.host_str().unwrap_or_default()).to_owned();
        let is_https = url.scheme() == "https";
        let port = url.port_or_known_default().unwrap_or(443);
        let found = self.resolve(&host, port).await?;
        if is_https && !target.tls_server_name.is_empty() {
            url.set_host(Some(target.tls_server_name))
                .map_err(|e| format!("TLS server name {}: {e}", target.tls_server_name))?;
            let builder = builder(kind).resolve_to_addrs(target.tls_server_name, &found);
            let client = builder.build().map_err(|e| reason(&e))?;
            return Ok((client, url));
        }
        // An address is what it is; and behind TLS there is no door of the agent's, whatever the
        // name means the next time that it is asked for.
        if is_https || host.parse::<IpAddr>().is_ok() {
            return Ok((self.shared(kind)?, url));
        }
        // What was looked at is what is asked. Without TLS's roots a client costs little.
        let builder = builder(kind)
            .tls_certs_only([])
            .resolve_to_addrs(&host, &found);
        Ok((builder.build().map_err(|e| reason(&e))?, url))
    }

    /// Clients are dear to make: each loads the system's roots.
    fn shared(&self, kind: ClientKind) -> Result<Client, String> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&kind) {
            return Ok(client.clone());
        }
        let client = builder(kind).build().map_err(|e| reason(&e))?;
        clients.insert(kind, client.clone());
        Ok(client)
    }
}

fn builder(kind: ClientKind) -> reqwest::ClientBuilder {
    let builder = Client::builder()
        .no_proxy()
        .user_agent("Consul Health Check")
        .pool_max_idle_per_host(0)
        .pool_idle_timeout(Duration::ZERO)
        .tls_danger_accept_invalid_certs(kind.skip_verify);
    match kind.http2 {
        true => builder
            .http2_prior_knowledge()
            .redirect(redirect::Policy::none()),
        false => builder.redirect(redirect::Policy::custom(same_place)),
    }
}

/// Follows a redirect within the scheme, host and port that the check asks.
fn same_place(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let asked = attempt.previous().first().map(Url::origin);
    if asked.as_ref() != Some(&attempt.url().origin()) {
        let to = attempt.url().origin().ascii_serialization();
        return attempt.error(format!(
            "it redirects to {to}, where a check does not follow; check that itself, or another path"
        ));
    }
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error(format!("it redirects more than {MAX_REDIRECTS} times"));
    }
    attempt.follow()
}

/// A host without the brackets that an IPv6 address has beside a port.
fn bare(host: &str) -> &str {
    let inner = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    inner.unwrap_or(host)
}

/// Whether an address is one of this machine: only such a one can be bound. Nothing is sent.
fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

/// An error with all of its causes: reqwest's own text names only the first.
pub(super) fn reason(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::{any, get, post};
    use serde_json::json;

    async fn server(router: Router) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        at
    }

    async fn run(body: serde_json::Value) -> Outcome {
        run_beside(Vec::new(), body).await
    }

    /// Beside an agent that listens there.
    async fn run_beside(own: Vec<SocketAddr>, mut body: serde_json::Value) -> Outcome {
        body["ServiceID"] = json!("a");
        body["Name"] = json!("a");
        body["Interval"] = json!("10s");
        let check = mesh_consul::check::parse(&body).unwrap().check;
        Network::new(own).probe(&check).await
    }

    #[tokio::test]
    async fn http_by_its_status() {
        let router =
            Router::new()
                .route("/ok", get(|| async { "fine" }))
                .route("/busy", get(|| async { StatusCode::TOO_MANY_REQUESTS }))
                .route(
                    "/bad",
                    get(|| async { (StatusCode::BAD_GATEWAY, "x".repeat(9000)) }),
                )
                .route(
                    "/put",
                    any(
                        |method: axum::http::Method,
                         headers: axum::http::HeaderMap,
                         body: String| async move {
                            format!("{method} {:?} {body}", headers["x-a"])
                        },
                    ),
                );
        let at = server(router).await;
        let ok = run(json!({"HTTP": format!("http://{at}/ok")})).await;
        assert_eq!(ok.status, Status::Passing);
        assert!(ok.output.ends_with("200 OK Output: fine"), "{}", ok.output);
        let busy = run(json!({"HTTP": format!("http://{at}/busy")})).await;
        assert_eq!(busy.status, Status::Warning);
        let bad = run(json!({"HTTP": format!("http://{at}/bad")})).await;
        assert_eq!(bad.status, Status::Critical);
        assert!(bad.output.len() <= 4096);
        let put = run(json!({"HTTP": format!("http://{at}/put"), "Method": "PUT",
                             "Header": {"x-a": ["1"]}, "Body": "hello"}))
        .await;
        assert!(put.output.ends_with("PUT \"1\" hello"), "{}", put.output);
    }

    #[tokio::test]
    async fn the_agents_own_addresses_are_not_asked() {
        let at = server(Router::new().fallback(|| async { "asked" })).await;
        let port = at.port();
        let everywhere = SocketAddr::from(([0, 0, 0, 0], port));
        for own in [at, everywhere] {
            for body in [
                json!({"HTTP": format!("http://{at}/")}),
                json!({"HTTP": format!("http://localhost:{port}/")}),
                json!({"HTTP": format!("http://0.0.0.0:{port}/")}),
                json!({"HTTP": format!("http://[::ffff:127.0.0.1]:{port}/")}),
                json!({"HTTP": format!("https://{at}/"), "TLSServerName": "other"}),
                json!({"TCP": at.to_string()}),
                json!({"TCP": format!("localhost:{port}")}),
                json!({"GRPC": at.to_string()}),
            ] {
                let refused = run_beside(vec![own], body.clone()).await;
                assert_eq!(refused.status, Status::Critical, "{body}");
                let said = refused.output.contains("the agent's own address");
                assert!(said, "{body}: {}", refused.output);
            }
        }
        // Another port of the same machine is asked, by name too.
        let other = server(Router::new().fallback(|| async { "asked" })).await;
        let url = format!("http://localhost:{}/", other.port());
        for body in [json!({"HTTP": url}), json!({"TCP": other.to_string()})] {
            let outcome = run_beside(vec![everywhere], body).await;
            assert_eq!(outcome.status, Status::Passing, "{}", outcome.output);
        }
    }

    #[tokio::test]
    async fn a_redirect_is_followed_within_the_place() {
        let other = server(Router::new().fallback(|| async { "other" })).await;
        let to_other = format!("http://{other}/");
        let redirect = axum::response::Redirect::temporary;
        let router = Router::new()
            .route("/there", get(|| async { "there" }))
            .route("/near", get(move || async move { redirect("/there") }))
            .route("/circle", get(move || async move { redirect("/circle") }))
            .route(
                "/far",
                any(move || async move { axum::response::Redirect::temporary(&to_other) }),
            );
        let at = server(router).await;
        let get = async |path: &str| run(json!({"HTTP": format!("http://{at}{path}")})).await;
        let near = get("/near").await;
        assert!(near.output.ends_with("there"), "{}", near.output);
        let far = get("/far").await;
        assert_eq!(far.status, Status::Critical);
        assert!(
            far.output.contains(&format!("redirects to http://{other}")),
            "{}",
            far.output
        );
        let circle = get("/circle").await;
        assert!(circle.output.contains("more than 10"), "{}", circle.output);
    }

    #[tokio::test]
    async fn tcp_by_connecting() {
        let at = server(Router::new()).await;
        assert_eq!(
            run(json!({"TCP": at.to_string()})).await.status,
            Status::Passing
        );
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = closed.local_addr().unwrap();
        drop(closed);
        let refused = run(json!({"TCP": at.to_string()})).await;
        assert_eq!(refused.status, Status::Critical);
        assert!(refused.output.contains("refused"), "{}", refused.output);
        let refused = run(json!({"HTTP": format!("http://{at}/")})).await;
        assert!(refused.output.contains("refused"), "{}", refused.output);
    }

    #[tokio::test]
    async fn grpc_by_what_it_says_of_the_service() {
        let answer = |bytes: axum::body::Bytes| async move {
            // The request is a frame with the service's name as field 1.
            let status: u8 = match bytes.get(7..) {
                Some(b"good") => 1,
                Some(b"bad") => 2,
                None => 1,
                Some(_) => {
                    let headers = [("grpc-status", "5"), ("grpc-message", "unknown service")];
                    return (headers, Vec::new());
                }
            };
            let frame = vec![0, 0, 0, 0, 2, 0x08, status];
            (
                [("content-type", "application/grpc"), ("x-ignored", "")],
                frame,
            )
        };
        let at = server(Router::new().route("/grpc.health.v1.Health/Check", post(answer))).await;
        let status = async |service: &str| run(json!({"GRPC": format!("{at}{service}")})).await;
        assert_eq!(status("").await.status, Status::Passing);
        assert_eq!(status("/good").await.status, Status::Passing);
        let bad = status("/bad").await;
        assert_eq!(bad.status, Status::Critical);
        assert!(bad.output.contains("NOT_SERVING"), "{}", bad.output);
        let unknown = status("/other").await;
        assert_eq!(unknown.status, Status::Critical);
        assert!(
            unknown.output.contains("unknown service"),
            "{}",
            unknown.output
        );
    }

    /// A gRPC service behind TLS; says for which name it was asked.
    async fn tls_server(router: Router) -> (SocketAddr, tokio::sync::mpsc::Receiver<String>) {
        let made = rcgen::generate_simple_self_signed(vec!["grpc.internal".into()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der());
        let mut config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.unwrap())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (names, asked) = tokio::sync::mpsc::channel(8);
        tokio::spawn(async move {
            loop {
                let (io, _) = listener.accept().await.unwrap();
                let Ok(io) = acceptor.accept(io).await else {
                    continue; // it does not believe us
                };
                let name = io.get_ref().1.server_name().unwrap_or_default().to_owned();
                names.send(name).await.unwrap();
                let service = hyper_util::service::TowerToHyperService::new(router.clone());
                let executor = hyper_util::rt::TokioExecutor::new();
                let serving = hyper::server::conn::http2::Builder::new(executor)
                    .serve_connection(hyper_util::rt::TokioIo::new(io), service);
                tokio::spawn(serving);
            }
        });
        (at, asked)
    }

    #[tokio::test]
    async fn grpc_over_tls_asks_for_the_name_that_is_told() {
        let answer = || async {
            let headers = [("content-type", "application/grpc")];
            (headers, vec![0, 0, 0, 0, 2, 0x08, 1])
        };
        let path = "/grpc.health.v1.Health/Check";
        let (at, mut asked) = tls_server(Router::new().route(path, post(answer))).await;
        let check = json!({"GRPC": at.to_string(), "GRPCUseTLS": true,
                           "TLSServerName": "grpc.internal", "TLSSkipVerify": true});
        let outcome = run(check.clone()).await;
        assert_eq!(outcome.status, Status::Passing, "{}", outcome.output);
        assert_eq!(asked.recv().await.unwrap(), "grpc.internal");
        // Nobody whom this machine trusts signed its certificate.
        let mut strict = check;
        strict["TLSSkipVerify"] = json!(false);
        let outcome = run(strict).await;
        assert_eq!(outcome.status, Status::Critical);
        assert!(outcome.output.contains("certificate"), "{}", outcome.output);
    }
}
