//! Certificates, roots and configs change under load, and no request fails.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use mesh_model::Protocol;
use mesh_tls::MeshTls;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::foreign::{calling_it, peer_with, short_grace};
use crate::support::*;

/// Requests without a pause, on kept connections and on new ones.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(address: SocketAddr) -> Self {
        let (stop, done) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let tasks = (0..6)
            .map(|index| {
                let (stop, done) = (stop.clone(), done.clone());
                tokio::spawn(async move {
                    let mut client = match index % 2 {
                        0 => Client::h1(address).await,
                        _ => Client::h2(address).await,
                    };
                    while !stop.load(SeqCst) {
                        if index >= 4 {
                            client = Client::h1(address).await;
                        }
                        let got = read(client.send(request("POST", "/", "body")).await).await;
                        assert_eq!(got.status, 200, "{got:?}");
                        done.fetch_add(1, SeqCst);
                    }
                })
            })
            .collect();
        Self { stop, done, tasks }
    }

    /// Byte streams without a pause, each a new one.
    pub(crate) fn start_streams(address: SocketAddr) -> Self {
        let (stop, done) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let tasks = (0..4)
            .map(|_| {
                let (stop, done) = (stop.clone(), done.clone());
                tokio::spawn(async move {
                    while !stop.load(SeqCst) {
                        let mut socket = TcpStream::connect(address).await.unwrap();
                        socket.write_all(b"hello").await.unwrap();
                        socket.shutdown().await.unwrap();
                        let mut got = Vec::new();
                        in_time(socket.read_to_end(&mut got)).await.unwrap();
                        assert_eq!(got, b"hello");
                        done.fetch_add(1, SeqCst);
                    }
                })
            })
            .collect();
        Self { stop, done, tasks }
    }

    /// Waits until so many more were answered.
    pub(crate) async fn more(&self, count: usize) {
        let goal = self.done.load(SeqCst) + count;
        until("requests are answered", || {
            self.done.load(SeqCst) >= goal || self.tasks.iter().any(JoinHandle::is_finished)
        })
        .await;
    }

    pub(crate) async fn stop(self) {
        self.stop.store(true, SeqCst);
        for task in self.tasks {
            in_time(task).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaves_and_roots_swap_under_load() {
    let (old, new) = (Ca::new(), Ca::new());
    let tls = |service| Arc::new(MeshTls::new(old.leaf(service), old.trust(&[])).unwrap());
    let (api_tls, web_tls) = (tls("api"), tls("web"));
    let api = mesh_proxy::DataPlane::new(api_tls.clone(), options());
    api.apply(serving("api", Protocol::Http, telling("api").await))
        .await
        .unwrap();
    let web = mesh_proxy::DataPlane::new(web_tls.clone(), options());
    let clusters = || vec![("api", cluster("api", Protocol::Http, &[inbound_of(&api)]))];
    web.apply(calling(
        "web",
        vec![upstream("api", Protocol::Http)],
        clusters(),
    ))
    .await
    .unwrap();
    let load = Load::start(upstream_of(&web, "api"));
    load.more(50).await;
    for tls in [&api_tls, &web_tls] {
        tls.swap_roots(old.trust(&[&new]));
    }
    load.more(50).await;
    for (tls, service) in [(&api_tls, "api"), (&web_tls, "web")] {
        tls.swap_leaf(new.leaf(service)).unwrap();
        load.more(50).await;
    }
    for tls in [&web_tls, &api_tls] {
        tls.swap_roots(new.trust(&[]));
    }
    load.more(50).await;
    load.stop().await;
    // New connections are made with the new ones.
    let out = || vec![upstream("api", Protocol::Http)];
    let empty = vec![("api", cluster("api", Protocol::Http, &[]))];
    web.apply(calling("web", out(), empty)).await.unwrap();
    web.apply(calling("web", out(), clusters())).await.unwrap();
    assert_eq!(once(upstream_of(&web, "api"), "/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configs_change_under_load() {
    let pair = Pair::new(Protocol::Http, telling("api").await).await;
    let second = pair.ca.plane("api");
    second
        .apply(serving("api", Protocol::Http, telling("second").await))
        .await
        .unwrap();
    let load = Load::start(pair.address);
    load.more(50).await;
    for round in 0..10 {
        let mut config = pair.web_config.clone();
        // Instances come and go, rules change, another upstream too.
        let both = [inbound_of(&pair.api), inbound_of(&second)];
        let some = match round % 3 {
            0 => &both[..1],
            1 => &both[..],
            _ => &both[1..],
        };
        let mut instances = cluster("api", Protocol::Http, &both);
        instances
            .endpoints
            .retain(|one| some.iter().any(|it| it.port() == one.port));
        config.clusters.insert("api".into(), instances);
        if round % 2 == 0 {
            config.outbound[0].rules =
                vec![rule(json!({ "to": [{ "cluster": "api", "weight": 1 }] }))];
            config.outbound.push(upstream("other", Protocol::Http));
            config.outbound[1].cluster = "api".into();
        }
        pair.web.apply(config).await.unwrap();
        pair.api.apply(pair.api_config.clone()).await.unwrap();
        load.more(30).await;
    }
    load.stop().await;
}

#[tokio::test]
async fn a_listener_that_stays_keeps_its_connections() {
    let pair = Pair::new(Protocol::Tcp, echo().await).await;
    let mut socket = TcpStream::connect(pair.address).await.unwrap();
    let ping = async |socket: &mut TcpStream| {
        socket.write_all(b"x").await.unwrap();
        in_time(socket.read_exact(&mut [0])).await.unwrap();
    };
    ping(&mut socket).await;
    let mut config = pair.web_config.clone();
    config.clusters.get_mut("api").unwrap().endpoints.clear();
    pair.web.apply(config.clone()).await.unwrap();
    assert_eq!(upstream_of(&pair.web, "api"), pair.address);
    ping(&mut socket).await; // its instance has left the list, and it goes on
    config.outbound.clear();
    pair.web.apply(config).await.unwrap();
    ping(&mut socket).await; // even its listener
    assert!(TcpStream::connect(pair.address).await.is_err());
}

#[tokio::test]
async fn a_config_is_taken_wholly_or_not_at_all() {
    let pair = Pair::new(Protocol::Http, telling("api").await).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = pair.web_config.clone();
    let mut other = upstream("other", Protocol::Http);
    other.cluster = "api".into();
    other.bind = mesh_proto::config::Bind::Tcp {
        address: "127.0.0.1".into(),
        port: taken.local_addr().unwrap().port(),
    };
    config.outbound = vec![other];
    let error = pair
        .web
        .apply(config.clone())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("for upstream other") && error.contains("another program listens"),
        "{error}"
    );
    assert_eq!(once(pair.address, "/").await.status, 200);
    assert_eq!(
        pair.web.snapshot().config.unwrap().read().unwrap().outbound,
        pair.web_config.outbound
    );
    for (change, says) in [
        (
            json!({ "identity": identity("other") }),
            "the certificate is for",
        ),
        (
            json!({ "outbound": [{ "cluster": "moon" }] }),
            "names the cluster \"moon\"",
        ),
    ] {
        let mut form = serde_json::to_value(&pair.web_config).unwrap();
        if let Some(identity) = change.get("identity") {
            form["identity"] = identity.clone();
        } else {
            form["outbound"][0]["cluster"] = json!("moon");
        }
        let error = pair
            .web
            .apply(serde_json::from_value(form).unwrap())
            .await
            .unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
    drop(taken);
    pair.web.apply(config).await.unwrap();
}

#[tokio::test]
async fn connections_to_an_instance_go_with_it() {
    for protocol in [Protocol::Http, Protocol::Tcp] {
        let application = match protocol {
            Protocol::Tcp => echo().await,
            _ => telling("api").await,
        };
        let pair = Pair::new(protocol, application).await;
        match protocol {
            Protocol::Tcp => drop(TcpStream::connect(pair.address).await.unwrap()),
            _ => assert_eq!(once(pair.address, "/").await.status, 200),
        }
        let open = || metric(&pair.api, "mesh_connections_active", &["inbound"]);
        let opened = || metric(&pair.api, "mesh_connections_total", &["inbound"]);
        until("it is called", || opened() == 1).await;
        let mut config = pair.web_config.clone();
        config.clusters.get_mut("api").unwrap().endpoints.clear();
        pair.web.apply(config).await.unwrap();
        until("the connection has ended", || open() == 0).await;
    }
}

#[tokio::test]
async fn an_address_changes_and_comes_back() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let pair = Pair::new(Protocol::Http, telling("api").await).await;
    for address in ["127.0.0.1", "0.0.0.0", "127.0.0.1"] {
        let mut config = pair.web_config.clone();
        config.outbound[0].bind = mesh_proto::config::Bind::Tcp {
            address: address.into(),
            port: free.port(),
        };
        pair.web.apply(config.clone()).await.unwrap();
        assert_eq!(once(free, "/").await.status, 200);
        if address == "0.0.0.0" {
            // Gone and there again, at once.
            let mut none = config.clone();
            none.outbound.clear();
            pair.web.apply(none).await.unwrap();
            pair.web.apply(config).await.unwrap();
            assert_eq!(once(free, "/").await.status, 200);
        }
    }
}

#[tokio::test]
async fn connections_end_with_the_certificate_and_requests_go_on() {
    let ca = Ca::new();
    let mut options = options();
    options.limits.expiry_grace = Duration::from_millis(300);
    let short = |service| {
        let leaf = ca.leaf_for(service, Duration::from_secs(2));
        Arc::new(MeshTls::new(leaf, ca.trust(&[])).unwrap())
    };
    let (api_tls, web_tls) = (short("api"), short("web"));
    let api = mesh_proxy::DataPlane::new(api_tls.clone(), options.clone());
    api.apply(serving("api", Protocol::Tcp, echo().await))
        .await
        .unwrap();
    let web = mesh_proxy::DataPlane::new(web_tls.clone(), options);
    let clusters = vec![("api", cluster("api", Protocol::Tcp, &[inbound_of(&api)]))];
    web.apply(calling(
        "web",
        vec![upstream("api", Protocol::Tcp)],
        clusters,
    ))
    .await
    .unwrap();
    let address = upstream_of(&web, "api");
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(b"x").await.unwrap();
    in_time(socket.read_exact(&mut [0])).await.unwrap();
    for (tls, service) in [(&api_tls, "api"), (&web_tls, "web")] {
        tls.swap_leaf(ca.leaf(service)).unwrap();
    }
    // The connection that was made with the old leaves ends with them.
    let mut rest = Vec::new();
    let _ = in_time(socket.read_to_end(&mut rest)).await;
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(b"x").await.unwrap();
    in_time(socket.read_exact(&mut [0])).await.unwrap();
}

/// TLS with a certificate of this many seconds.
fn tls_for(ca: &Ca, service: &str, seconds: u64) -> Arc<MeshTls> {
    let leaf = ca.leaf_for(service, Duration::from_secs(seconds));
    Arc::new(MeshTls::new(leaf, ca.trust(&[])).unwrap())
}

#[tokio::test]
async fn upgraded_connections_end_with_the_certificate_of_either() {
    let both = ["api", "web"].map(|short| async move {
        let ca = Ca::new();
        let plane = |service| {
            let seconds = if service == short { 2 } else { 3600 };
            mesh_proxy::DataPlane::new(tls_for(&ca, service, seconds), short_grace())
        };
        let (api, web) = (plane("api"), plane("web"));
        let application = crate::upgrade::upgrading().await;
        api.apply(serving("api", Protocol::Http, application))
            .await
            .unwrap();
        let clusters = vec![("api", cluster("api", Protocol::Http, &[inbound_of(&api)]))];
        let config = calling("web", vec![upstream("api", Protocol::Http)], clusters);
        web.apply(config).await.unwrap();
        let mut socket = crate::upgrade::begin(upstream_of(&web, "api")).await;
        let _ = in_time(socket.read_to_end(&mut Vec::new())).await;
    });
    futures::future::join_all(both).await;
}

#[tokio::test]
async fn a_connection_of_one_byte_stream_ends_with_the_certificate() {
    let ca = Ca::new();
    let tls = tls_for(&ca, "api", 2);
    let peer = peer_with(&tls, &[], |tls| async move {
        let (mut read, mut write) = tokio::io::split(tls);
        let _ = tokio::io::copy(&mut read, &mut write).await;
    });
    let web = calling_it(&ca, Protocol::Tcp, peer.await).await;
    let mut socket = TcpStream::connect(upstream_of(&web, "api")).await.unwrap();
    socket.write_all(b"x").await.unwrap();
    in_time(socket.read_exact(&mut [0])).await.unwrap();
    let _ = in_time(socket.read_to_end(&mut Vec::new())).await;
}

#[tokio::test]
async fn kept_http1_connections_end_with_the_certificate() {
    let ca = Ca::new();
    let tls = tls_for(&ca, "api", 2);
    let made = Arc::new(AtomicUsize::new(0));
    let makes = made.clone();
    let peer = peer_with(&tls, &[b"http/1.1"], move |tls| {
        makes.fetch_add(1, SeqCst);
        async move {
            let service = hyper::service::service_fn(|_| async {
                Ok::<_, std::convert::Infallible>(hyper::Response::new(full("x")))
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(hyper_util::rt::TokioIo::new(tls), service)
                .await;
        }
    });
    let web = calling_it(&ca, Protocol::Http, peer.await).await;
    let mut client = Client::h1(upstream_of(&web, "api")).await;
    for _ in 0..5 {
        assert_eq!(client.get("/").await.status, 200);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let kept = made.load(SeqCst);
    tls.swap_leaf(ca.leaf("api")).unwrap();
    // Over when the old leaf is; a request until then finds it as it was.
    in_time(async {
        while made.load(SeqCst) == kept {
            assert_eq!(client.get("/").await.status, 200);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn certificates_that_come_with_a_config_are_taken_with_it() {
    let ca = Ca::new();
    let tls = ca.tls("web");
    let web = mesh_proxy::DataPlane::new(tls.clone(), options());
    let config = calling("web", Vec::new(), Vec::new());
    web.apply(config.clone()).await.unwrap();
    let serial = |tls: &MeshTls| tls.leaf().unwrap().serial.clone();
    let before = serial(&tls);
    let mut missing = config.clone();
    missing.outbound = vec![upstream("api", Protocol::Http)];
    for (config, leaf) in [
        (missing, ca.leaf("web")),
        (config.clone(), ca.leaf("other")),
    ] {
        let refused = web.apply_with(config, leaf, Ca::new().trust(&[])).await;
        assert!(refused.is_err());
        assert_eq!(serial(&tls), before);
    }
    let leaf = ca.leaf("web");
    let after = leaf.leaf().serial.clone();
    web.apply_with(config, leaf, ca.trust(&[])).await.unwrap();
    assert_eq!(serial(&tls), after);
    assert_ne!(before, after);
}

/// Whatever the grace of the other end: who could not renew its certificate ends what it has.
#[tokio::test]
async fn streams_end_with_the_own_certificate_and_begin_with_the_next() {
    let both = ["api", "web"].map(|short| async move {
        let ca = Ca::new();
        let tls = |service| tls_for(&ca, service, if service == short { 2 } else { 3600 });
        let (api_tls, web_tls) = (tls("api"), tls("web"));
        let api = mesh_proxy::DataPlane::new(api_tls.clone(), options());
        let web = mesh_proxy::DataPlane::new(web_tls.clone(), options());
        api.apply(serving("api", Protocol::Tcp, echo().await))
            .await
            .unwrap();
        let clusters = vec![("api", cluster("api", Protocol::Tcp, &[inbound_of(&api)]))];
        let config = calling("web", vec![upstream("api", Protocol::Tcp)], clusters);
        web.apply(config).await.unwrap();
        let echoes = async || {
            let mut socket = TcpStream::connect(upstream_of(&web, "api")).await?;
            let _ = socket.write_all(b"x").await;
            let read = in_time(socket.read_exact(&mut [0])).await;
            read.map(|_| socket)
        };
        let mut socket = echoes().await.unwrap();
        let _ = in_time(socket.read_to_end(&mut Vec::new())).await;
        assert!(echoes().await.is_err(), "{short} has no certificate");
        for (tls, service) in [(&api_tls, "api"), (&web_tls, "web")] {
            tls.swap_leaf(ca.leaf(service)).unwrap();
        }
        let goes = async {
            while echoes().await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        in_time(goes).await;
    });
    futures::future::join_all(both).await;
}

#[tokio::test]
async fn requests_end_with_the_own_certificate_and_are_told_why() {
    let ca = Ca::new();
    let web_tls = tls_for(&ca, "web", 2);
    let (api, web) = (
        ca.plane("api"),
        mesh_proxy::DataPlane::new(web_tls.clone(), options()),
    );
    // An application that takes a request, and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let application = silent.local_addr().unwrap();
    api.apply(serving("api", Protocol::Http, application))
        .await
        .unwrap();
    let clusters = vec![("api", cluster("api", Protocol::Http, &[inbound_of(&api)]))];
    let config = calling("web", vec![upstream("api", Protocol::Http)], clusters);
    web.apply(config).await.unwrap();
    for which in ["that runs", "that is new"] {
        let got = in_time(once(upstream_of(&web, "api"), "/")).await;
        assert_eq!(got.status, 503, "a request {which}");
        let text = got.text();
        assert!(text.contains("own certificate has expired"), "{text}");
    }
}
