//! Starting servers, and asking them.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use mesh_ca::SealingKey;
use mesh_ca::cluster::{CERT_TTL, ClusterCa, create_ca, default_names};
use mesh_tls::{ClusterId, ClusterTls, Role};
use reqwest::Method;
use serde_json::Value;

use crate::{Formation, Listen, Server, ServerOptions, Timing};

/// Longer than anything here takes; what is waited for is an event.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// The certificates of the tests' cluster.
pub(crate) struct Pki {
    ca: ClusterCa,
    certificate: String,
}

pub(crate) fn pki() -> &'static Pki {
    static PKI: OnceLock<Pki> = OnceLock::new();
    PKI.get_or_init(|| {
        let now = SystemTime::now();
        let pair = create_ca("tests", CERT_TTL, now).unwrap();
        Pki {
            ca: ClusterCa::from_pem(&pair.certificate, pair.key.as_str()).unwrap(),
            certificate: pair.certificate,
        }
    })
}

impl Pki {
    pub(crate) fn tls(&self, role: Role, id: &str) -> Arc<ClusterTls> {
        let id = ClusterId::new(role, id).unwrap();
        let names = default_names(role);
        let pair = self
            .ca
            .issue(&id, &names, CERT_TTL, SystemTime::now())
            .unwrap();
        let (ca, cert, key) = (&self.certificate, &pair.certificate, pair.key.as_str());
        let tls = ClusterTls::from_pem(ca.as_bytes(), cert.as_bytes(), key.as_bytes());
        Arc::new(tls.unwrap())
    }

    pub(crate) fn trusting(&self) -> ClusterTls {
        ClusterTls::trusting("ca", self.certificate.as_bytes()).unwrap()
    }
}

pub(crate) fn sealing() -> Arc<SealingKey> {
    static KEY: OnceLock<Arc<SealingKey>> = OnceLock::new();
    let key = KEY.get_or_init(|| Arc::new(SealingKey::generate().unwrap()));
    key.clone()
}

/// As a server is, but faster. `RUST_LOG` shows what the servers say.
pub(crate) fn options(name: &str) -> ServerOptions {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
    let tls = pki().tls(Role::Server, name);
    ServerOptions {
        timing: Timing {
            mark_interval: Duration::from_millis(5),
            join_retry: Duration::from_millis(50),
            ..Timing::default()
        },
        ..ServerOptions::loopback(name, tls, sealing())
    }
}

/// One server, ready.
pub(crate) async fn one() -> (Server, Client) {
    start(options("s1")).await
}

/// One server, set up otherwise.
pub(crate) async fn one_with(change: impl FnOnce(&mut ServerOptions)) -> (Server, Client) {
    let mut options = options("s1");
    change(&mut options);
    start(options).await
}

pub(crate) async fn start(options: ServerOptions) -> (Server, Client) {
    let server = Server::start(options).await.unwrap();
    soon(server.ready()).await;
    let client = Client::of(&server);
    (server, client)
}

pub(crate) async fn soon<T>(work: impl Future<Output = T>) -> T {
    let result = tokio::time::timeout(SOON, work).await;
    result.expect("what was waited for did not happen")
}

/// The options of servers that make a cluster together.
pub(crate) fn together(count: usize) -> Vec<ServerOptions> {
    let bound: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap())
        .collect();
    let addresses: Vec<String> = bound
        .iter()
        .map(|one| one.local_addr().unwrap().to_string())
        .collect();
    let make = |(place, listener)| ServerOptions {
        formation: Formation::Expect(count),
        retry_join: addresses.clone(),
        cluster: Listen::Bound(listener),
        ..options(&format!("s{}", place + 1))
    };
    bound.into_iter().enumerate().map(make).collect()
}

/// Starts them, and waits until all are ready.
pub(crate) async fn cluster(count: usize) -> Vec<(Server, Client)> {
    let starting = together(count).into_iter().map(start);
    futures::future::join_all(starting).await
}

/// A caller of the HTTP API.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    base: String,
    http: reqwest::Client,
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).expect(&self.text)
    }

    pub(crate) fn header(&self, name: &str) -> String {
        let value = self.headers.get(name);
        value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
    }

    pub(crate) fn index(&self) -> u64 {
        self.header("x-meshctl-index").parse().unwrap()
    }

    /// The code of the error that this is.
    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"]
            .as_str()
            .expect(&self.text)
            .to_owned()
    }
}

impl Client {
    pub(crate) fn of(server: &Server) -> Self {
        let (address, _) = server.addresses().api[0];
        Self {
            base: format!("http://{address}"),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    pub(crate) fn tls(address: SocketAddr, tls: &ClusterTls) -> Self {
        let config = tls.https_config();
        let http = reqwest::Client::builder().no_proxy();
        Self {
            base: format!("https://{address}"),
            http: http.tls_backend_preconfigured(config).build().unwrap(),
        }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let request = request.build().unwrap();
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let response = soon(self.http.execute(request)).await.unwrap();
        let answer = Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            text: soon(response.text()).await.unwrap(),
        };
        super::schema::check(method.as_str(), &path, &answer);
        answer
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::PUT, path).json(&body)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::POST, path).json(&body))
            .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }
}

/// The answer's JSON, which must not be an error.
pub(crate) fn ok(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}
