//! An ingress gateway, seen whole.
#![allow(clippy::unwrap_used, missing_docs)]

use mesh_model::Registration;
use mesh_proto::fact::Topic;
use mesh_wiring::{FactStore, Input, Wants, Wired, wire};
use serde_json::{Value, json};

fn registration(addresses: &[&str]) -> Registration {
    let bind: Vec<_> = addresses
        .iter()
        .map(|it| json!({"address": it, "port": 8080}))
        .collect();
    serde_json::from_value(json!({
        "id": "edge-1", "service": "edge", "port": 8080,
        "gateway": {"kind": "ingress", "bind": bind},
        "sidecar": {"id": "edge-1", "port": 8080},
    }))
    .unwrap()
}

fn facts(bodies: &[(&str, Value)]) -> FactStore {
    let mut store = FactStore::default();
    let mesh =
        json!({"trust_domain": "1234.mesh", "datacenter": "dc1", "default_intention": "deny"});
    let roots = json!({"trust_domain": "1234.mesh", "roots": ["PEM"]});
    for (topic, body) in [("mesh", mesh), ("roots", roots), ("revocations", json!({}))]
        .iter()
        .chain(bodies)
    {
        put(&mut store, topic, body);
    }
    store
}

fn put(store: &mut FactStore, topic: &str, body: &Value) {
    let topic: Topic = topic.parse().unwrap();
    store.put(&topic, body.to_string().as_bytes()).unwrap();
}

fn wired(registration: &Registration, facts: &FactStore) -> Wired {
    wire(&Input {
        registration,
        sidecar: registration.sidecar.as_ref().unwrap(),
        node: "node-1",
        facts,
        wants: &Wants::default(),
        before: None,
    })
}

fn service(name: &str, protocol: &str) -> [(String, Value); 3] {
    let row = json!({"name": name, "protocol": protocol});
    let endpoint = json!([{"instance": format!("{name}-1"), "node": "n1", "address": "10.0.0.1",
        "port": 21001, "identity": format!("spiffe://1234.mesh/ns/default/dc/dc1/svc/{name}"),
        "status": "passing", "weights": {"passing": 1, "warning": 1}}]);
    [
        (format!("service/default/{name}"), row),
        (format!("route/default/{name}"), Value::Null),
        (format!("endpoints/default/{name}"), endpoint),
    ]
}

fn ingress(listeners: Value) -> Value {
    json!({"name": "edge", "ingress": {"listeners": listeners}})
}

#[test]
fn hosts_lead_to_services() {
    let registration = registration(&["0.0.0.0", "10.0.0.9"]);
    let gateway = ingress(json!([
        {"port": 8080, "protocol": "http", "services": [
            {"service": {"name": "web"}, "hosts": ["Shop.example.com", "*.shop.example.com"]},
            {"service": {"name": "api"}}]},
        {"port": 5432, "services": [{"service": {"name": "db"}}]},
    ]));
    let mut store = facts(&[]);
    assert_eq!(wired(&registration, &store).config, None);
    put(&mut store, "gateway/default/edge", &gateway);
    let first = wired(&registration, &store);
    assert_eq!((first.config, first.missing.len()), (None, 9));
    for (name, protocol) in [("web", "http"), ("api", "grpc"), ("db", "tcp")] {
        for (topic, body) in service(name, protocol) {
            put(&mut store, &topic, &body);
        }
    }
    let route = json!({"name": "web", "rules": [{"name": "old", "match": [{"path_prefix": "/old/"}],
        "to": [{"service": {"name": "api"}}]}]});
    put(&mut store, "route/default/web", &route);
    let wired = wired(&registration, &store);
    assert_eq!(wired.problems, [""; 0]);
    insta::assert_json_snapshot!(wired.config.unwrap());
}

#[test]
fn a_star_is_every_service_that_speaks_http() {
    let registration = registration(&["::"]);
    let gateway = ingress(json!([{"port": 80, "protocol": "http", "services": [
        {"service": {"name": "*"}}, {"service": {"name": "web"}, "hosts": ["*"]}]}]));
    let all = json!([{"name": "api"}, {"name": "db"}, {"name": "edge"}, {"name": "web"},
        {"namespace": "team", "name": "other"}]);
    let mut store = facts(&[("gateway/default/edge", gateway), ("services", all)]);
    let missing: Vec<String> = wired(&registration, &store)
        .missing
        .iter()
        .map(ToString::to_string)
        .collect();
    // What a service speaks is asked first: the rest of db is never needed.
    assert_eq!(
        missing,
        [
            "service/default/api",
            "service/default/db",
            "service/default/web",
            "route/default/web",
            "endpoints/default/web",
        ]
    );
    for (name, protocol) in [("web", "http"), ("api", "http"), ("db", "tcp")] {
        for (topic, body) in service(name, protocol) {
            put(&mut store, &topic, &body);
        }
    }
    let config = wired(&registration, &store).config.unwrap();
    let hosts: Vec<Value> = config
        .outbound
        .iter()
        .map(|one| json!([one.service.name, one.bind]))
        .collect();
    assert_eq!(
        json!(hosts),
        json!([
            ["api", {"ingress": {"port": 80, "hosts": ["api.ingress.*"]}}],
            ["web", {"ingress": {"port": 80, "hosts": ["*"]}}],
        ])
    );
    assert_eq!(config.ingress[0].addresses, ["::"]);
}

/// The servers refuse such a gateway, but the protocol may have changed under it.
#[test]
fn a_service_that_speaks_otherwise_than_its_listener_is_left_out() {
    let registration = registration(&["0.0.0.0"]);
    let gateway = ingress(json!([
        {"port": 80, "protocol": "http", "services": [{"service": {"name": "db"}}]},
        {"port": 81, "services": [{"service": {"name": "web"}}]},
    ]));
    let mut store = facts(&[("gateway/default/edge", gateway)]);
    for (name, protocol) in [("web", "http"), ("db", "tcp")] {
        for (topic, body) in service(name, protocol) {
            put(&mut store, &topic, &body);
        }
    }
    let wired = wired(&registration, &store);
    assert_eq!(
        wired.problems,
        [
            "gateway edge: listener 80: service db speaks tcp, and the listener http; it is left out",
            "gateway edge: listener 81: service web speaks http, and the listener tcp; it is left out",
        ]
    );
    let config = wired.config.unwrap();
    assert_eq!(config.outbound, []);
    let ports: Vec<u16> = config.ingress.iter().map(|one| one.port).collect();
    assert_eq!(
        ports,
        [80],
        "a host is still answered, and no byte is taken"
    );
}

#[test]
fn a_gateway_that_nobody_wrote_does_nothing_and_says_so() {
    let registration = registration(&["0.0.0.0"]);
    let other = json!({"name": "edge", "terminating": {"services": []}});
    for (row, said) in [
        (Value::Null, "gateway edge: there is no such gateway"),
        (
            other,
            "gateway edge: is registered as ingress, and written as terminating",
        ),
    ] {
        let wired = wired(&registration, &facts(&[("gateway/default/edge", row)]));
        assert!(wired.problems[0].starts_with(said), "{:?}", wired.problems);
        let config = wired.config.unwrap();
        assert!(config.ingress.is_empty() && config.inbound.is_none());
    }
}
