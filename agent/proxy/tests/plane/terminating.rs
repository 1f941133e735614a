//! Calls of the mesh to services outside, through a terminating gateway.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_model::{Key, Protocol};
use mesh_policy::{Feature, Features};
use mesh_proto::config::{
    BindAddress, Cluster, Health, OutsideInstance, OutsideService, ProxyConfig, ServicePolicy,
    Terminating,
};
use mesh_proxy::{ApplyError, DataPlane};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

fn outside(service: &str, protocol: Protocol, instances: &[SocketAddr]) -> OutsideService {
    let instances = instances.iter().enumerate();
    OutsideService {
        service: Key::of(service),
        protocol,
        connect_timeout: "2s".parse().unwrap(),
        tls: None,
        instances: instances
            .map(|(index, address)| OutsideInstance {
                id: format!("node/{service}-{index}"),
                address: address.ip().to_string(),
                port: address.port(),
                weight: 1,
                health: Health::Healthy,
            })
            .collect(),
    }
}

fn gateway(services: Vec<OutsideService>, allowed: &[&str]) -> ProxyConfig {
    let mut config = calling("out", Vec::new(), Vec::new());
    config.terminating = Some(Terminating {
        bind: vec![BindAddress {
            address: "127.0.0.1".to_owned(),
            port: 0,
        }],
        services,
    });
    let policies = allowed.iter().map(|service| ServicePolicy {
        service: Key::of(*service),
        policy: policy("deny", &[intention("web", service, "allow")]),
    });
    config.policies = policies.collect();
    config
}

/// A service as its callers have it: at the gateway, which proves its own identity.
fn at_gateway(service: &str, protocol: Protocol, gateway: &DataPlane) -> Cluster {
    let mut cluster = cluster(service, protocol, &[inbound_of(gateway)]);
    for endpoint in &mut cluster.endpoints {
        endpoint.identity = identity("out");
    }
    cluster
}

async fn web(ca: &Ca, services: &[(&str, Protocol)], gateway: &DataPlane) -> Arc<DataPlane> {
    let web = DataPlane::new(ca.tls("web"), options());
    let upstreams = services
        .iter()
        .map(|(name, protocol)| upstream(name, *protocol));
    let clusters = services
        .iter()
        .map(|(name, protocol)| (*name, at_gateway(name, *protocol, gateway)));
    web.apply(calling("web", upstreams.collect(), clusters.collect()))
        .await
        .unwrap();
    web
}

#[tokio::test]
async fn each_service_is_called_by_its_name_and_its_own_policy_decides() {
    let ca = Ca::new();
    let out = DataPlane::new(ca.tls("out"), options());
    assert!(!out.is_listening());
    let services = || async {
        vec![
            outside("legacy", Protocol::Http, &[telling("legacy").await]),
            outside("other", Protocol::Http, &[telling("other").await]),
            outside("secret", Protocol::Http, &[telling("secret").await]),
        ]
    };
    out.apply(gateway(services().await, &["legacy", "other"]))
        .await
        .unwrap();
    assert!(out.is_listening());
    let http = Protocol::Http;
    let all = [
        ("legacy", http),
        ("other", http),
        ("secret", http),
        ("gone", http),
    ];
    let web = web(&ca, &all, &out).await;
    // Over one gateway, and never over the connection of another service.
    for name in ["legacy", "other", "legacy"] {
        let got = once(upstream_of(&web, name), "/a").await;
        assert_eq!(got.status, 200, "{name}: {got:?}");
        let told = got.json();
        assert_eq!(
            (&*told["name"].to_string(), &told["uri"]),
            (&*format!("{name:?}"), &"/a".into())
        );
        assert!(told["headers"]["x-mesh-source"].is_null(), "{told}");
    }
    let got = once(upstream_of(&web, "secret"), "/").await;
    assert_eq!(got.status, 403, "a service without a policy: {got:?}");
    let got = once(upstream_of(&web, "gone"), "/").await;
    assert_eq!(got.status, 503, "{got:?}");

    // A deny of one is not one of the other, and comes without a config.
    let config = gateway(services().await, &["other"]);
    out.apply_policies(&config.policy, &config.policies);
    assert_eq!(once(upstream_of(&web, "legacy"), "/").await.status, 403);
    assert_eq!(once(upstream_of(&web, "other"), "/").await.status, 200);
}

#[tokio::test]
async fn a_service_outside_with_a_name_is_asked_for_by_it() {
    let ca = Ca::new();
    let out = DataPlane::new(ca.tls("out"), options());
    let at = telling("legacy").await;
    let mut legacy = outside("legacy", Protocol::Http, &[at]);
    legacy.instances[0].address = "localhost".to_owned();
    let other = outside("other", Protocol::Http, &[telling("other").await]);
    out.apply(gateway(vec![legacy, other], &["legacy", "other"]))
        .await
        .unwrap();
    let all = [("legacy", Protocol::Http), ("other", Protocol::Http)];
    let web = web(&ca, &all, &out).await;
    let asked = async |name: &str| {
        let told = once(upstream_of(&web, name), "/").await.json();
        told["headers"]["host"].as_str().map(str::to_owned)
    };
    let name = format!("localhost:{}", at.port());
    assert_eq!(asked("legacy").await, Some(name));
    // One that has an address only, as the caller asked for it.
    assert_eq!(asked("other").await.as_deref(), Some("api.local"));
}

#[tokio::test]
async fn byte_streams_and_who_is_not_there() {
    let ca = Ca::new();
    let out = DataPlane::new(ca.tls("out"), options());
    let mut db = outside("db", Protocol::Tcp, &[echo().await]);
    // One that cannot be called is left out, and the others are called.
    db.instances.push(OutsideInstance {
        id: "node/wrong".to_owned(),
        address: "no such host!".to_owned(),
        port: 1,
        weight: 100,
        health: Health::Healthy,
    });
    let services = vec![db, outside("nowhere", Protocol::Http, &[])];
    out.apply(gateway(services, &["db", "nowhere"]))
        .await
        .unwrap();
    let all = [("db", Protocol::Tcp), ("nowhere", Protocol::Http)];
    let web = web(&ca, &all, &out).await;
    let mut socket = TcpStream::connect(upstream_of(&web, "db")).await.unwrap();
    socket.write_all(b"hello").await.unwrap();
    let mut got = [0; 5];
    socket.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"hello");
    let got = once(upstream_of(&web, "nowhere"), "/").await;
    assert_eq!(got.status, 503);
    assert!(
        got.header("x-mesh-error").contains("no instance"),
        "{got:?}"
    );

    // A deny cuts what runs.
    let config = gateway(Vec::new(), &[]);
    out.apply_policies(&config.policy, &config.policies);
    let mut rest = Vec::new();
    let ended = in_time(socket.read_to_end(&mut rest)).await;
    assert!(ended.is_err() || rest.is_empty());
}

#[tokio::test]
async fn a_service_that_is_no_longer_linked_is_not_served() {
    let ca = Ca::new();
    let out = DataPlane::new(ca.tls("out"), options());
    let legacy = telling("legacy").await;
    let one = |linked: bool| {
        let services = linked.then(|| outside("legacy", Protocol::Http, &[legacy]));
        gateway(
            services.into_iter().collect(),
            if linked { &["legacy"] } else { &[] },
        )
    };
    out.apply(one(true)).await.unwrap();
    let web = web(&ca, &[("legacy", Protocol::Http)], &out).await;
    let address = upstream_of(&web, "legacy");
    assert_eq!(once(address, "/").await.status, 200);
    out.apply(one(false)).await.unwrap();
    assert_ne!(once(address, "/").await.status, 200);
    out.apply(one(true)).await.unwrap();
    assert_eq!(once(address, "/").await.status, 200);
}

#[tokio::test]
async fn what_cannot_be_run_leaves_its_policies_in_force() {
    let ca = Ca::new();
    let mut older = options();
    older.features = Features::default().without(Feature::Terminating.as_str());
    let out = DataPlane::new(ca.tls("out"), older);
    let config = gateway(Vec::new(), &["legacy"]);
    assert_eq!(config.needs(), [Feature::Terminating]);
    let error = out.apply(config.clone()).await.unwrap_err();
    assert!(matches!(error, ApplyError::Feature { .. }), "{error}");

    // What cannot be read of them is not there, and so denies.
    let mut json = serde_json::to_value(&config).unwrap();
    json["terminating"]["unheard_of"] = 1.into();
    let more =
        serde_json::json!({"service": {"name": "new", "kind": 7}, "policy": {"default": "allow"}});
    json["policies"].as_array_mut().unwrap().push(more);
    let bytes = serde_json::to_vec(&json).unwrap();
    assert!(serde_json::from_slice::<ProxyConfig>(&bytes).is_err());
    assert_eq!(ProxyConfig::policies_of(&bytes), config.policies);
}
