//! What servers say of gateways, and to them.

use mesh_model::GatewayKind;
use mesh_proto::servers::v1 as wire;
use mesh_tls::{Leaf, LeafKey};
use serde_json::{Value, json};

use super::agent::{Agent, instance};
use super::harness::{Client, ok, one};

fn gateway(id: &str, service: &str, kind: GatewayKind) -> mesh_model::Instance {
    let mut gateway = instance("n1", service, id);
    gateway.gateway = Some(kind);
    if let Some(proxy) = &mut gateway.proxy {
        proxy.id = id.to_owned();
    }
    gateway
}

/// The first fact of a topic.
async fn told(agent: &mut Agent, topic: &str) -> Value {
    agent.subscribe(&[topic]).await;
    agent.body(topic).await
}

async fn write(client: &Client, name: &str, body: Value) {
    ok(&client.put(&format!("/v1/gateways/{name}"), body).await);
}

#[tokio::test]
async fn callers_of_a_service_outside_are_told_the_gateway_and_its_identity() {
    let (server, client) = one().await;
    let mut agent = Agent::connect(&server, "n1").await;
    agent
        .put(&gateway("out-1", "out", GatewayKind::Terminating))
        .await;
    let mut plain = instance("n1", "legacy", "legacy-1");
    plain.proxy = None;
    agent.put(&plain).await;
    let endpoints = "endpoints/default/legacy";
    assert_eq!(told(&mut agent, endpoints).await, json!([]));
    let outside = told(&mut agent, "outside/default/legacy").await;
    assert_eq!(outside[0]["address"], "127.0.0.1");
    assert_eq!(outside[0]["port"], 8080);
    assert_eq!(told(&mut agent, "gateway/default/out").await, Value::Null);
    let all = told(&mut agent, "services").await;
    assert_eq!(all.as_array().unwrap().len(), 2, "{all}");

    let links = json!({"terminating": {"services": [{"service": {"name": "legacy"}}]}});
    write(&client, "out", links).await;
    let called = agent.body(endpoints).await;
    let identity = called[0]["identity"].as_str().unwrap();
    assert!(identity.ends_with("/svc/out"), "{called}");
    assert_eq!(called[0]["instance"], "out-1");

    // The gateway goes, and with it the way to the service.
    let change = wire::catalog::Change::Remove("out-1".into());
    let catalog = wire::Catalog {
        request: 99,
        change: Some(change),
    };
    agent.say(wire::from_agent::Message::Catalog(catalog)).await;
    assert_eq!(agent.body(endpoints).await, json!([]));
    server.shutdown().await;
}

#[tokio::test]
async fn an_ingress_is_certified_for_the_names_that_its_row_has() {
    let (server, client) = one().await;
    let mut agent = Agent::connect(&server, "n1").await;
    agent
        .put(&gateway("edge-1", "edge", GatewayKind::Ingress))
        .await;
    let row = |tls: bool| {
        json!({"ingress": {"tls": {"enabled": tls}, "listeners": [{"port": 443, "protocol": "http",
            "services": [{"service": {"name": "web"}, "hosts": ["Shop.example.com"]}]}]}})
    };
    ok(&client
        .put("/v1/services/web", json!({"protocol": "http"}))
        .await);
    let expected = [
        "*.ingress.consul",
        "*.ingress.dc1.consul",
        "shop.example.com",
    ];
    for (tls, names) in [(false, &[][..]), (true, &expected[..])] {
        write(&client, "edge", row(tls)).await;
        assert_eq!(certified(&mut agent, "edge-1").await.dns_names, names);
    }
    // One that only calls itself so has the names of none.
    agent
        .put(&gateway("edge-2", "edge", GatewayKind::Terminating))
        .await;
    let other = certified(&mut agent, "edge-2").await;
    assert!(other.dns_names.is_empty(), "{other:?}");
    server.shutdown().await;
}

async fn certified(agent: &mut Agent, proxy: &str) -> Leaf {
    let request = wire::SignRequest {
        proxy: proxy.to_owned(),
        csr: LeafKey::generate().unwrap().csr().unwrap(),
    };
    let signed = agent.client.sign(request).await.unwrap().into_inner();
    let chain = signed.chain.into_iter().map(Into::into).collect();
    Leaf::parse("leaf", chain).unwrap()
}

#[tokio::test]
async fn what_is_said_of_a_service_is_waited_for_at_its_gateways() {
    let (server, client) = one().await;
    let mut agent = Agent::connect(&server, "n1").await;
    agent
        .put(&gateway("out-1", "out", GatewayKind::Terminating))
        .await;
    let links = json!({"terminating": {"services": [{"service": {"name": "legacy"}}]}});
    write(&client, "out", links).await;
    let status = wire::ProxyStatus {
        proxy: "out-1".into(),
        namespace: "default".into(),
        service: "out".into(),
        instance: "out-1".into(),
        node: "n1".into(),
        connected: true,
        ..wire::ProxyStatus::default()
    };
    agent.report(vec![status]).await;
    let of =
        |service: &str| format!("/v1/proxies/wait?index=1&timeout=100ms&destination={service}");
    let mut waited = Value::Null;
    for _ in 0..200 {
        waited = ok(&client.get(&of("legacy")).await);
        if waited["proxies"] == 1 {
            break;
        }
    }
    assert_eq!(waited["proxies"], 1, "{waited}");
    assert_eq!(ok(&client.get(&of("other")).await)["proxies"], 0);
    server.shutdown().await;
}
