//! A CA, proxies, applications and clients for the tests.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_model::{Key, LoadBalancer, Protocol, TlsPolicy};
use mesh_policy::PolicyForm;
use mesh_proto::config::{Bind, Cluster, Endpoint, Health, Inbound, Outbound, ProxyConfig};
use mesh_proxy::{BoundTo, DataPlane, Options};
use mesh_tls::{Credential, LeafKey, MeshTls, Trust};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

pub(crate) const DOMAIN: &str = "test.mesh";

/// Longer than anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// Fails a test that hangs.
pub(crate) async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, what).await.expect("it hangs")
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(
        tokio::time::timeout(LONG, wait).await.is_ok(),
        "never: {what}"
    );
}

pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    cert: CertificateDer<'static>,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = leaf_params("", Duration::from_secs(3600));
        params.subject_alt_names.clear();
        params
            .distinguished_name
            .push(DnType::CommonName, "test root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.extended_key_usages.clear();
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap().der().clone();
        Self {
            issuer: Issuer::new(params, key),
            cert,
        }
    }

    pub(crate) fn leaf(&self, service: &str) -> Credential {
        self.leaf_for(service, Duration::from_secs(3600))
    }

    pub(crate) fn leaf_for(&self, service: &str, lifetime: Duration) -> Credential {
        self.leaf_with(service, |params| {
            params.not_after = (SystemTime::now() + lifetime).into();
        })
    }

    /// A leaf, changed as wanted.
    pub(crate) fn leaf_with(
        &self,
        service: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Credential {
        let key = LeafKey::generate().unwrap();
        let public = SubjectPublicKeyInfo::from_der(&key.public_key()).unwrap();
        let mut params = leaf_params(service, Duration::from_secs(3600));
        change(&mut params);
        let cert = params.signed_by(&public, &self.issuer).unwrap();
        Credential::from_leaf_key(vec![cert.der().clone()], &key).unwrap()
    }

    /// Roots: this CA's, and others'.
    pub(crate) fn trust(&self, others: &[&Self]) -> Trust {
        let mut roots = vec![self.cert.clone()];
        roots.extend(others.iter().map(|ca| ca.cert.clone()));
        Trust::new(DOMAIN.parse().unwrap(), "test roots", &roots).unwrap()
    }

    pub(crate) fn tls(&self, service: &str) -> Arc<MeshTls> {
        Arc::new(MeshTls::new(self.leaf(service), self.trust(&[])).unwrap())
    }

    pub(crate) fn plane(&self, service: &str) -> Arc<DataPlane> {
        DataPlane::new(self.tls(service), options())
    }
}

fn leaf_params(service: &str, lifetime: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
    params.not_after = (SystemTime::now() + lifetime).into();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.subject_alt_names = vec![SanType::URI(identity(service).as_str().try_into().unwrap())];
    params
}

pub(crate) fn options() -> Options {
    Options {
        seed: Some(1),
        ..Options::default()
    }
}

pub(crate) fn identity(service: &str) -> String {
    format!("spiffe://{DOMAIN}/ns/default/dc/dc1/svc/{service}")
}

pub(crate) fn allow_all() -> PolicyForm {
    policy("allow", &[])
}

pub(crate) fn policy(default: &str, intentions: &[serde_json::Value]) -> PolicyForm {
    PolicyForm {
        default: default.to_owned(),
        intentions: intentions.to_vec(),
    }
}

pub(crate) fn intention(source: &str, destination: &str, action: &str) -> serde_json::Value {
    json!({ "source": { "name": source }, "destination": { "name": destination }, "action": action })
}

pub(crate) fn permissions(
    source: &str,
    destination: &str,
    list: serde_json::Value,
) -> serde_json::Value {
    json!({ "source": { "name": source }, "destination": { "name": destination }, "permissions": list })
}

/// The config of a sidecar in front of an application.
pub(crate) fn serving(service: &str, protocol: Protocol, application: SocketAddr) -> ProxyConfig {
    let mut config = calling(service, Vec::new(), Vec::new());
    config.inbound = Some(Inbound {
        address: "127.0.0.1".to_owned(),
        port: 0,
        protocol,
        application: application.to_string(),
        connect_timeout: "5s".parse().unwrap(),
    });
    config.policy = allow_all();
    config
}

/// The config of a sidecar whose application only calls.
pub(crate) fn calling(
    service: &str,
    outbound: Vec<Outbound>,
    clusters: Vec<(&str, Cluster)>,
) -> ProxyConfig {
    ProxyConfig {
        proxy: format!("{service}-proxy"),
        service: Key::of(service),
        identity: identity(service),
        trust_domain: DOMAIN.to_owned(),
        node: String::new(),
        tls: TlsPolicy::default(),
        policy: PolicyForm::default(),
        policies: Vec::new(),
        inbound: None,
        terminating: None,
        ingress: Vec::new(),
        dns_names: Vec::new(),
        transparent: None,
        outbound,
        expose: Vec::new(),
        clusters: clusters
            .into_iter()
            .map(|(name, cluster)| (name.to_owned(), cluster))
            .collect::<BTreeMap<_, _>>(),
    }
}

pub(crate) fn upstream(service: &str, protocol: Protocol) -> Outbound {
    Outbound {
        service: Key::of(service),
        bind: Bind::Tcp {
            address: "127.0.0.1".to_owned(),
            port: 0,
        },
        protocol,
        rules: Vec::new(),
        cluster: service.to_owned(),
        timeout: "15s".parse().unwrap(),
    }
}

pub(crate) fn cluster(service: &str, protocol: Protocol, instances: &[SocketAddr]) -> Cluster {
    Cluster {
        service: Key::of(service),
        subset: None,
        sni: format!("{service}.default.dc1.internal.{DOMAIN}"),
        protocol,
        load_balancer: LoadBalancer::RoundRobin,
        connect_timeout: "2s".parse().unwrap(),
        outlier_detection: None,
        endpoints: instances
            .iter()
            .enumerate()
            .map(|(index, address)| endpoint(service, index, *address))
            .collect(),
    }
}

pub(crate) fn endpoint(service: &str, index: usize, address: SocketAddr) -> Endpoint {
    Endpoint {
        id: format!("node/{service}-{index}"),
        address: address.ip().to_string(),
        port: address.port(),
        identity: identity(service),
        native: false,
        weight: 1,
        health: Health::Healthy,
    }
}

/// A route rule, from JSON, with what most tests do not care about filled in.
pub(crate) fn rule(form: serde_json::Value) -> mesh_proto::config::Rule {
    let mut whole = json!({ "name": "rule", "timeout": "15s" });
    for (key, value) in form.as_object().unwrap() {
        whole[key] = value.clone();
    }
    serde_json::from_value(whole).unwrap()
}

pub(crate) fn inbound_of(plane: &DataPlane) -> SocketAddr {
    bound(plane, &BoundTo::Inbound)
}

pub(crate) fn upstream_of(plane: &DataPlane, service: &str) -> SocketAddr {
    bound(plane, &BoundTo::Upstream(Key::of(service)))
}

pub(crate) fn bound(plane: &DataPlane, to: &BoundTo) -> SocketAddr {
    let all = plane.bound();
    let found = all.iter().find(|one| one.to == *to);
    found.and_then(mesh_proxy::Bound::tcp).expect("it is bound")
}

/// Two sidecars: `web`, whose application calls `api`, and `api`'s.
pub(crate) struct Pair {
    pub(crate) ca: Ca,
    pub(crate) web: Arc<DataPlane>,
    pub(crate) api: Arc<DataPlane>,
    pub(crate) web_config: ProxyConfig,
    pub(crate) api_config: ProxyConfig,
    /// Where the application of `web` calls `api`.
    pub(crate) address: SocketAddr,
}

impl Pair {
    pub(crate) async fn new(protocol: Protocol, application: SocketAddr) -> Self {
        Self::with(protocol, application, options(), |_| {}).await
    }

    pub(crate) async fn with(
        protocol: Protocol,
        application: SocketAddr,
        options: Options,
        change: impl FnOnce(&mut ProxyConfig),
    ) -> Self {
        let ca = Ca::new();
        let api = DataPlane::new(ca.tls("api"), options.clone());
        let api_config = serving("api", protocol, application);
        api.apply(api_config.clone()).await.unwrap();
        let web = DataPlane::new(ca.tls("web"), options);
        let clusters = vec![("api", cluster("api", protocol, &[inbound_of(&api)]))];
        let mut web_config = calling("web", vec![upstream("api", protocol)], clusters);
        change(&mut web_config);
        web.apply(web_config.clone()).await.unwrap();
        let address = upstream_of(&web, "api");
        Self {
            ca,
            web,
            api,
            web_config,
            api_config,
            address,
        }
    }
}

/// A connection to a sidecar of `api` from one of `web` that is not ours.
pub(crate) async fn as_web(
    ca: &Ca,
    address: SocketAddr,
    alpn: &[&[u8]],
) -> tokio_rustls::client::TlsStream<TcpStream> {
    as_web_over(ca, TcpStream::connect(address).await.unwrap(), alpn).await
}

pub(crate) async fn as_web_over(
    ca: &Ca,
    socket: TcpStream,
    alpn: &[&[u8]],
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let config = (ca.tls("web")).client_config(&identity("api").parse().unwrap(), alpn);
    let name = format!("api.default.dc1.internal.{DOMAIN}");
    tokio_rustls::TlsConnector::from(config)
        .connect(name.try_into().unwrap(), socket)
        .await
        .unwrap()
}

pub(crate) type TestBody = BoxBody<Bytes, Infallible>;

pub(crate) fn full(text: impl Into<Bytes>) -> TestBody {
    Full::new(text.into()).boxed()
}

/// An application that answers HTTP/1.1 and HTTP/2.
pub(crate) async fn application<F, A>(answer: F) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Response<TestBody>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let answering = answer(request);
                    async move { Ok::<_, Infallible>(answering.await) }
                });
                let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                    .serve_connection_with_upgrades(TokioIo::new(socket), service)
                    .await;
            });
        }
    });
    address
}

/// An application that says what it was asked, as JSON.
pub(crate) async fn telling(name: &'static str) -> SocketAddr {
    application(move |request| async move {
        let headers: BTreeMap<_, _> = request
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        let told = json!({
            "name": name,
            "method": request.method().as_str(),
            "uri": request.uri().to_string(),
            "version": format!("{:?}", request.version()),
            "headers": headers,
        });
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let mut told = told;
        told["body"] = json!(String::from_utf8_lossy(&body));
        Response::new(full(told.to_string()))
    })
    .await
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Got {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

pub(crate) async fn read(response: Response<Incoming>) -> Got {
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned();
    Got {
        status: head.status.as_u16(),
        headers: head.headers,
        body: body.to_bytes(),
        trailers,
    }
}

/// A client with one connection.
pub(crate) enum Client {
    H1(hyper::client::conn::http1::SendRequest<TestBody>),
    H2(hyper::client::conn::http2::SendRequest<TestBody>),
}

impl Client {
    pub(crate) async fn h1(address: SocketAddr) -> Self {
        Self::h1_over(TcpStream::connect(address).await.unwrap()).await
    }

    pub(crate) async fn h1_over(socket: TcpStream) -> Self {
        let io = TokioIo::new(socket);
        let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        Self::H1(sender)
    }

    pub(crate) async fn h2(address: SocketAddr) -> Self {
        Self::h2_over(TcpStream::connect(address).await.unwrap()).await
    }

    pub(crate) async fn h2_over(socket: TcpStream) -> Self {
        let io = TokioIo::new(socket);
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
            .await
            .unwrap();
        tokio::spawn(connection);
        Self::H2(sender)
    }

    pub(crate) async fn send(&mut self, request: Request<TestBody>) -> Response<Incoming> {
        self.try_send(request).await.unwrap()
    }

    pub(crate) async fn try_send(
        &mut self,
        request: Request<TestBody>,
    ) -> hyper::Result<Response<Incoming>> {
        in_time(async {
            match self {
                Self::H1(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Self::H2(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            }
        })
        .await
    }

    pub(crate) async fn get(&mut self, path: &str) -> Got {
        in_time(async { read(self.send(get(path)).await).await }).await
    }
}

pub(crate) fn get(path: &str) -> Request<TestBody> {
    request("GET", path, "")
}

pub(crate) fn request(method: &str, path: &str, body: &'static str) -> Request<TestBody> {
    Request::builder()
        .method(method)
        .uri(format!("http://api.local{path}"))
        .header("host", "api.local")
        .body(full(body))
        .unwrap()
}

/// One request on a connection of its own.
pub(crate) async fn once(address: SocketAddr, path: &str) -> Got {
    Client::h1(address).await.get(path).await
}

/// An application that gives back the bytes that come.
pub(crate) async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut read, mut write) = socket.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = tokio::io::AsyncWriteExt::shutdown(&mut write).await;
            });
        }
    });
    address
}

/// An address where nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// The value of a metric's series, by the text that it must contain.
pub(crate) fn metric(plane: &DataPlane, name: &str, labels: &[&str]) -> u64 {
    plane
        .metrics()
        .lines()
        .filter(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok())
        .sum()
}
