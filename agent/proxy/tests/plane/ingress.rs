//! Calls from outside the mesh, through an ingress gateway and a sidecar.

use mesh_model::{Action, Protocol};
use mesh_policy::{Feature, Features, PolicyForm};
use mesh_proto::config::{Bind, IngressListener, ProxyConfig};
use mesh_proxy::{ApplyError, BoundTo, DataPlane};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

/// An ingress in front of the sidecars of `api` and `web`, each with its hosts.
fn gateway(protocol: Protocol, behind: Vec<(&str, &[&str], &DataPlane)>) -> ProxyConfig {
    let outbound = behind.iter().map(|(service, hosts, _)| {
        let mut outbound = upstream(service, protocol);
        outbound.bind = Bind::Ingress {
            port: 0,
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        };
        outbound
    });
    let clusters = behind
        .iter()
        .map(|(service, _, plane)| (*service, cluster(service, protocol, &[inbound_of(plane)])));
    let mut config = calling("edge", outbound.collect(), clusters.collect());
    config.ingress = vec![IngressListener {
        addresses: vec!["127.0.0.1".to_owned()],
        port: 0,
        protocol,
        tls: false,
    }];
    config
}

fn request_of(host: &str, path: &str) -> hyper::Request<TestBody> {
    let mut request = request("GET", path, "");
    *request.uri_mut() = format!("http://{host}{path}").parse().unwrap();
    request.headers_mut().insert("host", host.parse().unwrap());
    request
}

#[tokio::test]
async fn each_host_is_a_service() {
    let ca = Ca::new();
    let mut planes = Vec::new();
    for service in ["api", "web"] {
        let plane = DataPlane::new(ca.tls(service), options());
        let config = serving(service, Protocol::Http, telling(service).await);
        plane.apply(config).await.unwrap();
        planes.push(plane);
    }
    let edge = DataPlane::new(ca.tls("edge"), options());
    assert!(!edge.is_listening());
    let config = gateway(
        Protocol::Http,
        vec![
            ("api", &["api.example", "*.api.example"], &planes[0]),
            ("web", &["web.ingress.*"], &planes[1]),
        ],
    );
    edge.apply(config.clone()).await.unwrap();
    assert!(edge.is_listening());
    let address = bound(&edge, &BoundTo::Ingress);
    let mut client = Client::h1(address).await;
    for (host, service) in [
        ("api.example", Some("api")),
        ("v1.api.example:8080", Some("api")),
        ("web.ingress.dc1.consul", Some("web")),
        ("other.example", None),
    ] {
        let got = read(client.send(request_of(host, "/a/../b?x=1")).await).await;
        match service {
            Some(service) => {
                assert_eq!(got.status, 200, "{host}: {got:?}");
                let told = got.json();
                assert_eq!(told["name"], service, "{host}");
                assert_eq!(told["uri"], "/b?x=1");
                assert_eq!(told["headers"]["x-mesh-source"], identity("edge"));
                assert_eq!(told["headers"]["x-forwarded-for"], "127.0.0.1");
                assert_eq!(told["headers"]["x-forwarded-proto"], "http");
            }
            None => assert_eq!(got.status, 404, "{host}: {got:?}"),
        }
    }
    // What the caller says of itself is not passed on as true.
    let mut forged = request_of("api.example", "/");
    for name in ["x-forwarded-for", "x-mesh-source", "x-forwarded-proto"] {
        forged.headers_mut().insert(name, "forged".parse().unwrap());
    }
    let told = read(client.send(forged).await).await.json();
    assert!(!told.to_string().contains("forged"), "{told}");
    assert!(metric(&edge, "mesh_requests_total", &["destination=\"api\""]) >= 3);

    // HTTP/2 as well, at the same port.
    let mut client = Client::h2(address).await;
    let mut asked = request("GET", "/", "");
    *asked.uri_mut() = "http://api.example/h2".parse().unwrap();
    let got = read(client.send(asked).await).await;
    assert_eq!(got.json()["uri"], "/h2", "{got:?}");

    // A host goes to another service: on the connection that there is, too.
    let mut client = Client::h1(address).await;
    let before = read(client.send(request_of("api.example", "/")).await).await;
    assert_eq!(before.json()["name"], "api");
    let config = gateway(Protocol::Http, vec![("web", &["api.example"], &planes[1])]);
    edge.apply(config).await.unwrap();
    let after = read(client.send(request_of("api.example", "/")).await).await;
    assert_eq!(after.json()["name"], "web");
    let gone = read(client.send(request_of("web.ingress.dc1", "/")).await).await;
    assert_eq!(gone.status, 404);
}

#[tokio::test]
async fn the_services_intentions_decide_for_the_gateway() {
    let ca = Ca::new();
    let api = DataPlane::new(ca.tls("api"), options());
    let mut config = serving("api", Protocol::Http, telling("api").await);
    api.apply(config.clone()).await.unwrap();
    let edge = DataPlane::new(ca.tls("edge"), options());
    edge.apply(gateway(Protocol::Http, vec![("api", &["*"], &api)]))
        .await
        .unwrap();
    let mut client = Client::h1(bound(&edge, &BoundTo::Ingress)).await;
    let got = read(client.send(request_of("anything", "/")).await).await;
    assert_eq!(got.status, 200, "{got:?}");
    config.policy = PolicyForm::new(Action::Deny, []);
    api.apply_policy(&config.policy);
    let got = read(client.send(request_of("anything", "/")).await).await;
    assert_eq!(got.status, 403, "{got:?}");
}

#[tokio::test]
async fn byte_streams_go_to_one_service() {
    let ca = Ca::new();
    let api = DataPlane::new(ca.tls("api"), options());
    let config = serving("api", Protocol::Tcp, echo().await);
    api.apply(config).await.unwrap();
    let edge = DataPlane::new(ca.tls("edge"), options());
    edge.apply(gateway(Protocol::Tcp, vec![("api", &[], &api)]))
        .await
        .unwrap();
    let mut socket = TcpStream::connect(bound(&edge, &BoundTo::Ingress))
        .await
        .unwrap();
    socket.write_all(b"hello").await.unwrap();
    let mut got = [0; 5];
    socket.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"hello");
}

#[tokio::test]
async fn what_does_not_fit_together_is_not_run() {
    let ca = Ca::new();
    let edge = DataPlane::new(ca.tls("edge"), options());
    let listener = json!({"addresses": ["127.0.0.1"], "port": 8080, "protocol": "http"});
    let behind = |protocol: &str, port: u16, hosts: serde_json::Value| {
        json!({"service": {"name": "api"}, "bind": {"ingress": {"port": port, "hosts": hosts}},
            "protocol": protocol, "cluster": "api", "timeout": "15s"})
    };
    for (listeners, outbound, said) in [
        (
            json!([listener, listener]),
            json!([]),
            "there are two of it",
        ),
        (
            json!([]),
            json!([behind("http", 8080, json!(["a"]))]),
            "no listener of this port",
        ),
        (
            json!([listener]),
            json!([behind("tcp", 8080, json!([]))]),
            "it speaks tcp, and the listener http",
        ),
        (
            json!([listener]),
            json!([behind("http", 8080, json!(["a", "a"]))]),
            "the host \"a\" is there twice",
        ),
        (
            json!([{"addresses": ["edge.example"], "port": 8080, "protocol": "http"}]),
            json!([]),
            "is not an IP address to listen at",
        ),
    ] {
        let mut config = calling(
            "edge",
            Vec::new(),
            vec![("api", cluster("api", Protocol::Http, &[]))],
        );
        config.ingress = serde_json::from_value(listeners).unwrap();
        config.outbound = serde_json::from_value(outbound).unwrap();
        let error = edge.apply(config).await.unwrap_err().to_string();
        assert!(error.contains(said), "{said}: {error}");
    }
}

#[tokio::test]
async fn an_older_proxy_keeps_what_it_has() {
    let ca = Ca::new();
    let mut older = options();
    older.features = Features::default().without(Feature::Ingress.as_str());
    let edge = DataPlane::new(ca.tls("edge"), older);
    let config = gateway(Protocol::Http, Vec::new());
    assert_eq!(config.needs(), [Feature::Ingress]);
    let error = edge.apply(config).await.unwrap_err();
    assert!(matches!(error, ApplyError::Feature { .. }), "{error}");
}
