//! Redirected calls. Nothing is redirected here: the test says where a
//! connection was going, and connects to where the kernel would send it.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mesh_model::{Key, Protocol, VirtualAddress};
use mesh_policy::Features;
use mesh_proto::config::{Bind, NameAnswer, ProxyConfig, Transparent};
use mesh_proxy::{Ask, BoundTo, DataPlane, Options, OriginalDestination, Want};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;

use crate::support::*;

/// A transparent sidecar of `web`, and what it asks.
pub(crate) struct Sidecar {
    pub(crate) ca: Ca,
    pub(crate) web: Arc<DataPlane>,
    pub(crate) asks: mpsc::UnboundedReceiver<Ask>,
    redirects: Arc<Mutex<HashMap<SocketAddr, SocketAddr>>>,
}

impl Sidecar {
    pub(crate) async fn new(config: ProxyConfig) -> Self {
        let redirects: Arc<Mutex<HashMap<SocketAddr, SocketAddr>>> = Arc::default();
        let (ask, asks) = mpsc::unbounded_channel();
        let known = redirects.clone();
        let options = Options {
            concurrency: 2,
            asks: Some(ask),
            original: OriginalDestination::Given(Arc::new(move |from| {
                known.lock().unwrap().get(&from).copied()
            })),
            ..options()
        };
        let ca = Ca::new();
        let web = DataPlane::new(ca.tls("web"), options);
        web.apply(config).await.unwrap();
        Self {
            ca,
            web,
            asks,
            redirects,
        }
    }

    /// A connection of the application that was going there.
    pub(crate) async fn connect(&self, to: impl Into<SocketAddr>) -> TcpStream {
        self.try_connect(to).await.unwrap()
    }

    /// The same, where the sidecar may refuse it before this knows that it is
    /// connected.
    async fn try_connect(&self, to: impl Into<SocketAddr>) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let from = socket.local_addr().unwrap();
        self.redirects.lock().unwrap().insert(from, to.into());
        let at = bound(&self.web, &BoundTo::Redirected);
        in_time(socket.connect(at)).await
    }

    /// A sidecar of `api`, in front of an application.
    pub(crate) async fn api(&self, protocol: Protocol, application: SocketAddr) -> Arc<DataPlane> {
        let api = self.ca.plane("api");
        api.apply(serving("api", protocol, application))
            .await
            .unwrap();
        api
    }

    pub(crate) async fn asked(&mut self) -> Ask {
        in_time(self.asks.recv()).await.unwrap()
    }
}

/// The config of `web`, transparent.
pub(crate) fn transparent(change: impl FnOnce(&mut Transparent)) -> ProxyConfig {
    let mut transparent = Transparent {
        outbound_port: 0,
        dns_port: 0,
        mesh_only: false,
        names: Vec::new(),
        absent: Vec::new(),
    };
    change(&mut transparent);
    let mut config = calling("web", Vec::new(), Vec::new());
    config.transparent = Some(transparent);
    config
}

pub(crate) fn address() -> VirtualAddress {
    VirtualAddress::nth(0x0001_0202).unwrap()
}

/// Puts `api` at [`address`].
pub(crate) fn at_address(config: &mut ProxyConfig, protocol: Protocol, api: &DataPlane) {
    let mut out = upstream("api", protocol);
    out.bind = Bind::Virtual { address: address() };
    config.outbound = vec![out];
    let instances = [inbound_of(api)];
    let cluster = cluster("api", protocol, &instances);
    config.clusters.insert("api".to_owned(), cluster);
}

pub(crate) fn name(address: Option<VirtualAddress>) -> NameAnswer {
    NameAnswer {
        service: Key::of("api"),
        address,
    }
}

/// What comes of a connection that is not carried.
async fn is_reset(socket: io::Result<TcpStream>) -> bool {
    let Ok(mut socket) = socket else {
        return true;
    };
    let mut got = Vec::new();
    in_time(socket.read_to_end(&mut got)).await.is_err() && got.is_empty()
}

async fn echoes(mut socket: TcpStream) {
    socket.write_all(b"hello").await.unwrap();
    let mut got = [0; 5];
    in_time(socket.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"hello");
}

#[tokio::test]
async fn a_virtual_address_is_an_upstream_at_any_port() {
    let mut config = transparent(|_| {});
    let sidecar = Sidecar::new(config.clone()).await;
    let api = sidecar.api(Protocol::Http, telling("api").await).await;
    at_address(&mut config, Protocol::Http, &api);
    sidecar.web.apply(config.clone()).await.unwrap();
    let ip6 = SocketAddr::from((address().ip6(), 8080));
    for to in [SocketAddr::from((address().ip4(), 80)), ip6] {
        let mut h1 = Client::h1_over(sidecar.connect(to).await).await;
        assert_eq!(h1.get("/a").await.json()["name"], "api");
        let mut h2 = Client::h2_over(sidecar.connect(to).await).await;
        assert_eq!(h2.get("/a").await.json()["name"], "api");
    }
    // A connection lives through a change of its rules, and of its service's
    // going.
    let mut living = Client::h1_over(sidecar.connect(ip6).await).await;
    assert_eq!(living.get("/").await.status, 200);
    config.outbound[0].rules = vec![rule(
        serde_json::json!({"name": "none", "to": [{"cluster": "gone", "weight": 1}]}),
    )];
    let gone = cluster("api", Protocol::Http, &[]);
    config.clusters.insert("gone".to_owned(), gone);
    sidecar.web.apply(config.clone()).await.unwrap();
    assert_eq!(living.get("/").await.status, 503);
    let pairs = ["source=\"web\"", "destination=\"api\"", "outbound"];
    assert_eq!(metric(&sidecar.web, "mesh_requests_total", &pairs), 6);
}

#[tokio::test]
async fn byte_streams_to_a_virtual_address() {
    // An older answer, that nobody is there, is nothing where somebody is.
    let mut config = transparent(|it| it.absent = vec![address()]);
    let sidecar = Sidecar::new(config.clone()).await;
    let api = sidecar.api(Protocol::Tcp, echo().await).await;
    at_address(&mut config, Protocol::Tcp, &api);
    sidecar.web.apply(config).await.unwrap();
    echoes(sidecar.connect((address().ip4(), 5432)).await).await;
}

#[tokio::test]
async fn an_address_that_is_not_known_is_asked_for_and_waits() {
    let mut config = transparent(|_| {});
    let mut sidecar = Sidecar::new(config.clone()).await;
    let api = sidecar.api(Protocol::Tcp, echo().await).await;
    let sockets = [
        sidecar.connect((address().ip4(), 80)).await,
        sidecar.connect((address().ip6(), 80)).await,
    ];
    let wants = vec![Want::Address(address())];
    assert_eq!(sidecar.asked().await, Ask::Wants(wants.clone()));
    assert_eq!(sidecar.web.wants(), wants);
    at_address(&mut config, Protocol::Tcp, &api);
    sidecar.web.apply(config.clone()).await.unwrap();
    for socket in sockets {
        echoes(socket).await;
    }
    // What was asked for by name is not asked for by address, too.
    config.outbound.clear();
    let answered = config.transparent.as_mut().unwrap();
    answered.absent = vec![address()];
    sidecar.web.apply(config).await.unwrap();
    let refused = sidecar.try_connect((address().ip4(), 80)).await;
    assert!(is_reset(refused).await);
    let labels = ["destination=\"unknown\""];
    until("it is counted", || {
        metric(&sidecar.web, "mesh_connections_total", &labels) == 1
    })
    .await;
}

#[tokio::test]
async fn what_is_outside_passes() {
    let sidecar = Sidecar::new(transparent(|_| {})).await;
    let outside = echo().await;
    echoes(sidecar.connect(outside).await).await;
    let labels = ["destination=\"outside\"", "source=\"web\"", "outbound"];
    assert_eq!(metric(&sidecar.web, "mesh_connections_total", &labels), 1);
    until("it is counted as ended", || {
        metric(&sidecar.web, "mesh_request_bytes_total", &labels) == 5
            && metric(&sidecar.web, "mesh_connections_active", &labels) == 0
    })
    .await;
    // Nobody there is an error for the application.
    assert!(is_reset(sidecar.try_connect(nobody().await).await).await);
    let config = transparent(|it| it.mesh_only = true);
    sidecar.web.apply(config).await.unwrap();
    assert!(is_reset(sidecar.try_connect(outside).await).await);
}

#[tokio::test]
async fn a_connection_that_nobody_redirected_is_closed() {
    let sidecar = Sidecar::new(transparent(|_| {})).await;
    let at = bound(&sidecar.web, &BoundTo::Redirected);
    assert!(is_reset(TcpStream::connect(at).await).await);
    // Also where the kernel says that it was going here.
    assert!(is_reset(sidecar.try_connect(at).await).await);
    assert_eq!(metric(&sidecar.web, "mesh_connections_total", &[]), 0);
}

#[tokio::test]
async fn listeners_stay_and_end_with_the_drain() {
    let config = transparent(|it| it.names = vec![name(None)]);
    let sidecar = Sidecar::new(config).await;
    let before = sidecar.web.bound();
    let kinds = |to: &BoundTo| before.iter().filter(|one| one.to == *to).count();
    assert!(kinds(&BoundTo::Redirected) >= 1 && kinds(&BoundTo::Dns) >= 1);
    sidecar.web.apply(transparent(|_| {})).await.unwrap();
    assert_eq!(sidecar.web.bound(), before);
    let mut running = sidecar.connect(echo().await).await;
    running.write_all(b"x").await.unwrap();
    let mut got = [0; 1];
    in_time(running.read_exact(&mut got)).await.unwrap();
    let web = sidecar.web.clone();
    let draining = tokio::spawn(async move { web.drain(LONG).await });
    until("it drains", || sidecar.web.snapshot().draining).await;
    // The application that ends may still call.
    echoes(sidecar.connect(echo().await).await).await;
    drop(running);
    assert!(in_time(draining).await.unwrap().is_clean());
    for one in before {
        let at = one.tcp().unwrap();
        assert!(TcpStream::connect(at).await.is_err(), "{one:?}");
    }
}

#[tokio::test]
async fn not_transparent_any_more_and_again() {
    let sidecar = Sidecar::new(transparent(|_| {})).await;
    let ports = |plane: &DataPlane| {
        let redirected = bound(plane, &BoundTo::Redirected).port();
        (redirected, bound(plane, &BoundTo::Dns).port())
    };
    let (outbound_port, dns_port) = ports(&sidecar.web);
    let plain = calling("web", Vec::new(), Vec::new());
    sidecar.web.apply(plain).await.unwrap();
    assert_eq!(sidecar.web.bound(), []);
    assert_eq!(sidecar.web.wants(), []);
    // The ports are free at once.
    let again = transparent(|it| (it.outbound_port, it.dns_port) = (outbound_port, dns_port));
    sidecar.web.apply(again).await.unwrap();
    assert_eq!(ports(&sidecar.web), (outbound_port, dns_port));
}

#[tokio::test]
async fn configs_that_make_no_sense_are_refused() {
    let refused = async |config: ProxyConfig, options: Options| {
        let plane = DataPlane::new(Ca::new().tls("web"), options);
        plane.apply(config).await.unwrap_err().to_string()
    };
    let error = refused(
        transparent(|it| (it.outbound_port, it.dns_port) = (15001, 15001)),
        options(),
    )
    .await;
    assert!(error.contains("both 15001"), "{error}");
    let twice = transparent(|it| it.names = vec![name(None), name(Some(address()))]);
    let error = refused(twice, options()).await;
    assert!(error.contains("name api: it is answered twice"), "{error}");
    let api = Ca::new().plane("api");
    let served = serving("api", Protocol::Tcp, nobody().await);
    api.apply(served).await.unwrap();
    let mut plain = calling("web", Vec::new(), Vec::new());
    at_address(&mut plain, Protocol::Tcp, &api);
    let error = refused(plain, options()).await;
    assert!(error.contains("the config is not transparent"), "{error}");
    let mut twice = transparent(|_| {});
    at_address(&mut twice, Protocol::Tcp, &api);
    twice.outbound.push(twice.outbound[0].clone());
    let error = refused(twice, options()).await;
    assert!(error.contains("two listeners"), "{error}");
    let older = Options {
        features: Features::default().without("transparent"),
        ..options()
    };
    let error = refused(transparent(|_| {}), older).await;
    assert!(error.contains("feature transparent"), "{error}");
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = refused(transparent(|it| it.dns_port = port), options()).await;
    assert!(
        error.contains("DNS") && error.contains("another program"),
        "{error}"
    );
}

#[tokio::test]
async fn one_that_is_not_answered_for_is_given_up() {
    let mut sidecar = Sidecar::new(transparent(|_| {})).await;
    let began = std::time::Instant::now();
    let socket = sidecar.connect((address().ip4(), 80)).await;
    assert!(matches!(sidecar.asked().await, Ask::Wants(_)));
    assert!(is_reset(Ok(socket)).await);
    assert!(began.elapsed() >= Duration::from_millis(4900));
}
