//! Transparent sidecars: what was asked for, and what it becomes.
#![allow(clippy::unwrap_used, missing_docs)]

use mesh_model::{Key, ProxyMode, Registration};
use mesh_proto::config::{Bind, ProxyConfig};
use mesh_proto::fact::Topic;
use mesh_wiring::{FactStore, Input, Wants, Wired, wire};
use serde_json::{Value, json};

fn registration(upstreams: Value) -> Registration {
    serde_json::from_value(json!({
        "id": "web", "service": "web", "port": 8080,
        "sidecar": {"id": "web-sidecar-proxy", "port": 21000,
            "proxy": {"mode": "transparent", "upstreams": upstreams}},
    }))
    .unwrap()
}

fn wants(services: &[&str], addresses: &[&str]) -> Wants {
    Wants {
        services: services.iter().map(|it| it.parse().unwrap()).collect(),
        addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
    }
}

/// The mesh, and what the sidecar of `web` cannot be without.
fn facts() -> FactStore {
    let mut store = FactStore::default();
    for (topic, body) in [
        (
            "mesh",
            json!({"trust_domain": "1234.mesh", "datacenter": "dc1", "default_intention": "deny"}),
        ),
        (
            "roots",
            json!({"trust_domain": "1234.mesh", "roots": ["PEM"]}),
        ),
        ("revocations", json!({})),
        (
            "service/default/web",
            json!({"name": "web", "protocol": "http"}),
        ),
        ("intentions/default/web", json!([])),
    ] {
        put(&mut store, topic, body);
    }
    store
}

fn put(store: &mut FactStore, topic: &str, body: Value) {
    let topic: Topic = topic.parse().unwrap();
    store.put(&topic, body.to_string().as_bytes()).unwrap();
}

/// A service that there is: its row, route, one instance, address and owner of that.
fn service(store: &mut FactStore, name: &str, last: u8) {
    let endpoint = json!({"instance": name, "node": "n1", "address": "10.0.0.1", "port": 21001,
        "identity": format!("spiffe://1234.mesh/ns/default/dc/dc1/svc/{name}"),
        "status": "passing", "weights": {"passing": 1, "warning": 1}});
    let row = json!({"name": name, "protocol": "http"});
    put(store, &format!("service/default/{name}"), row);
    put(store, &format!("route/default/{name}"), Value::Null);
    put(
        store,
        &format!("endpoints/default/{name}"),
        json!([endpoint]),
    );
    let both =
        json!({"ip4": format!("240.0.0.{last}"), "ip6": format!("fd6d:6573:6876::f000:{last:x}")});
    put(store, &format!("virtual/default/{name}"), both);
    let key = json!({"namespace": "default", "name": name});
    put(store, &format!("address/240.0.0.{last}"), key);
}

fn wired(registration: &Registration, facts: &FactStore, wants: &Wants) -> Wired {
    again(registration, facts, wants, None)
}

fn again(
    registration: &Registration,
    facts: &FactStore,
    wants: &Wants,
    before: Option<&ProxyConfig>,
) -> Wired {
    wire(&Input {
        registration,
        sidecar: registration.sidecar.as_ref().unwrap(),
        node: "node-1",
        facts,
        wants,
        before,
    })
}

fn topics(wired: &Wired, of: &str) -> Vec<String> {
    let all = wired.topics.iter().map(ToString::to_string);
    all.filter(|it| it.ends_with(of)).collect()
}

/// The services that are called by virtual address.
fn called(config: &ProxyConfig) -> Vec<(String, String)> {
    let outbound = config.outbound.iter();
    outbound
        .filter_map(|it| match &it.bind {
            Bind::Virtual { address } => Some((it.service.to_string(), address.to_string())),
            _ => None,
        })
        .collect()
}

#[test]
fn a_declared_upstream_is_reached_at_its_port_by_name_and_by_address() {
    let registration = registration(json!([{"destination_name": "api", "local_bind_port": 9001}]));
    let mut facts = facts();
    let before = wired(&registration, &facts, &Wants::default());
    assert_eq!(before.config, None);
    let missing: Vec<String> = before.missing.iter().map(ToString::to_string).collect();
    assert_eq!(
        missing,
        [
            "service/default/api",
            "route/default/api",
            "endpoints/default/api",
            "virtual/default/api"
        ]
    );
    service(&mut facts, "api", 7);
    let wired = wired(&registration, &facts, &Wants::default());
    assert_eq!(wired.problems, [""; 0]);
    insta::assert_json_snapshot!(wired.config.unwrap());
}

#[test]
fn wants_by_name_by_address_and_of_what_there_is_not() {
    let registration = registration(json!([]));
    let mut facts = facts();
    for (name, last) in [("api", 7), ("db", 8), ("web", 9), ("unasked", 10)] {
        service(&mut facts, name, last);
    }
    put(&mut facts, "virtual/default/ghost", Value::Null);
    put(&mut facts, "address/240.0.0.99", Value::Null);
    // Its own service among them: it may call its other instances, as any.
    let asked = wants(
        &["api", "ghost", "late", "web"],
        &["240.0.0.7", "240.0.0.8", "240.0.0.99", "240.0.0.100"],
    );
    let wired = wired(&registration, &facts, &asked);
    assert_eq!(wired.missing, []);
    insta::assert_json_snapshot!(wired.config.as_ref().unwrap());
    // Of what there is not, only whether it comes; of what may be, all at once.
    assert_eq!(topics(&wired, "/ghost"), ["virtual/default/ghost"]);
    assert_eq!(
        topics(&wired, "/late"),
        [
            "service/default/late",
            "route/default/late",
            "endpoints/default/late",
            "virtual/default/late"
        ]
    );
    assert_eq!(
        topics(&wired, "/db"),
        [
            "service/default/db",
            "route/default/db",
            "endpoints/default/db"
        ]
    );
    assert_eq!(topics(&wired, "/unasked"), [""; 0]);
    assert_eq!(topics(&wired, "240.0.0.100"), ["address/240.0.0.100"]);
}

#[test]
fn nothing_is_let_out_where_the_mesh_says_so() {
    let registration = registration(json!([]));
    let mut facts = facts();
    put(
        &mut facts,
        "mesh",
        json!({"trust_domain": "1234.mesh", "datacenter": "dc1", "default_intention": "deny",
            "outbound": "mesh_only"}),
    );
    let wired = wired(&registration, &facts, &Wants::default());
    insta::assert_json_snapshot!(wired.config.unwrap());
}

#[test]
fn a_name_is_answered_when_calls_to_it_are_wired() {
    let registration = registration(json!([]));
    let (mut facts, asked) = (facts(), wants(&["api"], &[]));
    put(
        &mut facts,
        "virtual/default/api",
        json!({"ip4": "240.0.0.7", "ip6": "fd6d:6573:6876::f000:7"}),
    );
    let first = wired(&registration, &facts, &asked).config.unwrap();
    assert_eq!(first.transparent.unwrap().names, []);
    assert_eq!(
        called(&wired(&registration, &facts, &asked).config.unwrap()),
        []
    );
    service(&mut facts, "api", 7);
    let then = wired(&registration, &facts, &asked).config.unwrap();
    let names = then.transparent.as_ref().unwrap().names.clone();
    assert_eq!(names[0].service, Key::of("api"));
    assert_eq!(called(&then), [("api".into(), "240.0.0.7".into())]);
}

#[test]
fn calls_go_on_while_a_route_turns_to_what_is_not_known_yet() {
    let registration = registration(json!([]));
    let (mut facts, asked) = (facts(), wants(&["api"], &[]));
    service(&mut facts, "api", 7);
    let before = wired(&registration, &facts, &asked).config.unwrap();
    put(
        &mut facts,
        "route/default/api",
        json!({"name": "api", "rules": [{"name": "all", "to": [{"service": {"name": "other"}}]}]}),
    );
    let turned = again(&registration, &facts, &asked, Some(&before));
    assert_eq!(
        topics(&turned, "/other"),
        ["service/default/other", "endpoints/default/other"]
    );
    assert_eq!(turned.config, Some(before.clone()));
    // Without a before there is no way to call it yet, and so no name.
    let alone = wired(&registration, &facts, &asked).config.unwrap();
    assert_eq!(called(&alone), []);
    assert_eq!(alone.transparent.unwrap().names, []);

    service(&mut facts, "other", 8);
    let then = again(&registration, &facts, &asked, Some(&before));
    let then = then.config.unwrap();
    assert_eq!(then.outbound[0].rules[0].to[0].cluster, "other.default");
    assert!(then.clusters.contains_key("other.default"));
}

#[test]
fn an_answer_of_two_addresses_is_none() {
    let registration = registration(json!([]));
    let (mut facts, asked) = (facts(), wants(&["api"], &[]));
    service(&mut facts, "api", 7);
    put(
        &mut facts,
        "virtual/default/api",
        json!({"ip4": "240.0.0.7", "ip6": "fd6d:6573:6876::f000:8"}),
    );
    let wired = wired(&registration, &facts, &asked);
    assert_eq!(called(wired.config.as_ref().unwrap()), []);
    assert_eq!(wired.problems.len(), 1, "{:?}", wired.problems);
    assert!(wired.problems[0].starts_with("virtual/default/api: 240.0.0.7 and "));
}

#[test]
fn wants_of_a_sidecar_that_is_not_transparent_count_for_nothing() {
    let mut registration = registration(json!([]));
    registration.sidecar.as_mut().unwrap().proxy.mode = ProxyMode::Direct;
    let (mut facts, asked) = (facts(), wants(&["api"], &["240.0.0.7"]));
    service(&mut facts, "api", 7);
    let wired = wired(&registration, &facts, &asked);
    let config = wired.config.as_ref().unwrap();
    assert_eq!(config.transparent, None);
    assert_eq!(called(config), []);
    assert_eq!(topics(&wired, "/api"), [""; 0]);
}

#[test]
fn the_ports_are_those_that_the_cni_plugin_redirects_to() {
    assert_eq!(mesh_wiring::OUTBOUND_PORT, mesh_cni::OUTBOUND_PORT);
    assert_eq!(mesh_wiring::DNS_PORT, mesh_cni::DNS_PORT);
}
