//! Wiring, seen whole: what a registration and facts become.
#![allow(clippy::unwrap_used, missing_docs)]

use mesh_model::Registration;
use mesh_proto::fact::Topic;
use mesh_wiring::{FactStore, Input, Wants, Wired, wire};
use serde_json::{Value, json};

fn registration(upstreams: Value) -> Registration {
    serde_json::from_value(json!({
        "id": "frontend", "service": "frontend", "port": 8080,
        "sidecar": {"id": "frontend-sidecar-proxy", "port": 21000,
            "proxy": {"upstreams": upstreams}},
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
        let topic: Topic = topic.parse().unwrap();
        store.put(&topic, body.to_string().as_bytes()).unwrap();
    }
    store
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

fn endpoint(instance: &str, version: &str, status: &str, silent: bool) -> Value {
    let mut endpoint = json!({"instance": instance, "node": "n1", "address": "10.0.0.1",
        "port": 21001, "identity": "spiffe://1234.mesh/ns/default/dc/dc1/svc/user-service",
        "status": status, "weights": {"passing": 10, "warning": 1},
        "meta": {"version": version}});
    if silent {
        endpoint["silent"] = json!(true);
    }
    endpoint
}

#[test]
fn waits_until_every_topic_is_answered() {
    let registration =
        registration(json!([{"destination_name": "user-service", "local_bind_port": 9001}]));
    let wired = wired(
        &registration,
        &facts(&[("service/default/frontend", Value::Null)]),
    );
    assert_eq!(wired.config, None);
    let missing: Vec<String> = wired.missing.iter().map(ToString::to_string).collect();
    assert_eq!(
        missing,
        [
            "service/default/user-service",
            "route/default/user-service",
            "endpoints/default/user-service",
            "intentions/default/frontend",
        ]
    );
}

#[test]
fn a_service_with_nothing_said_of_it() {
    let registration = registration(json!([]));
    let wired = wired(
        &registration,
        &facts(&[
            ("service/default/frontend", Value::Null),
            ("intentions/default/frontend", json!([])),
        ]),
    );
    insta::assert_json_snapshot!(wired.config.unwrap());
}

#[test]
fn one_that_only_calls_is_open_where_its_sidecar_is_checked() {
    let facts = facts(&[
        ("service/default/frontend", Value::Null),
        ("intentions/default/frontend", json!([])),
    ]);
    let mut registration = registration(json!([]));
    registration.port = 0;
    assert_eq!(wired(&registration, &facts).config.unwrap().inbound, None);
    let check = json!([{"id": "c", "name": "Connect Sidecar Listening", "interval": "10s",
        "timeout": "1s", "kind": {"tcp": {"address": "10.0.0.1:21000"}}}]);
    registration.sidecar.as_mut().unwrap().checks = serde_json::from_value(check).unwrap();
    let inbound = wired(&registration, &facts)
        .config
        .unwrap()
        .inbound
        .unwrap();
    assert_eq!(
        (inbound.port, &*inbound.application),
        (21000, "127.0.0.1:0")
    );
}

#[test]
fn a_canary_with_retries() {
    let registration = registration(json!([
        {"destination_name": "user-service", "local_bind_port": 9001},
        {"destination_name": "db", "local_bind_socket_path": "/alloc/db.sock", "local_bind_socket_mode": "0660"},
    ]));
    let route = json!({"name": "user-service", "rules": [
        {"name": "canary", "match": [{"path_prefix": "/v1/"}],
         "to": [{"subset": "v1", "weight": 90}, {"subset": "v2", "weight": 10}],
         "timeout": "5s",
         "retries": {"attempts": 3, "per_try_timeout": "2s", "on": ["5xx", "connect-failure"]}},
        {"name": "elsewhere", "match": [{"headers": [{"name": "x-old", "present": true}]}],
         "to": [{"service": {"name": "legacy"}}]},
        {"name": "rest"},
    ]});
    let service = json!({"name": "user-service", "protocol": "http", "load_balancer": "round_robin",
        "subsets": {"v1": {"meta": {"version": "v1"}}, "v2": {"meta": {"version": "v2"}, "only_passing": true}},
        "outlier_detection": {"consecutive_5xx": 5, "base_ejection_time": "30s"}});
    let mut store = facts(&[
        (
            "service/default/frontend",
            json!({"name": "frontend", "protocol": "http"}),
        ),
        (
            "intentions/default/frontend",
            json!([
                {"source": {"name": "web"}, "destination": {"name": "frontend"}, "action": "allow"},
                {"source": {"name": "new"}, "destination": {"name": "frontend"}, "unheard_of": 1},
            ]),
        ),
        ("service/default/user-service", service),
        ("route/default/user-service", route),
        (
            "endpoints/default/user-service",
            json!([
                endpoint("a", "v1", "passing", false),
                endpoint("b", "v1", "warning", false),
                endpoint("c", "v2", "warning", false),
                endpoint("d", "v2", "critical", false),
                endpoint("e", "v2", "passing", true),
            ]),
        ),
        ("service/default/db", Value::Null),
        ("route/default/db", Value::Null),
        ("endpoints/default/db", json!([])),
    ]);
    let first = wired(&registration, &store);
    let missing: Vec<String> = first.missing.iter().map(ToString::to_string).collect();
    assert_eq!(
        missing,
        ["service/default/legacy", "endpoints/default/legacy"]
    );
    for (topic, body) in [
        (
            "service/default/legacy",
            json!({"name": "legacy", "protocol": "http"}),
        ),
        ("endpoints/default/legacy", json!([])),
    ] {
        store
            .put(&topic.parse().unwrap(), body.to_string().as_bytes())
            .unwrap();
    }
    insta::assert_json_snapshot!(wired(&registration, &store).config.unwrap());
}

/// Default subset, a namespace, IPv6, exposed paths, a route on a byte stream, weights of 0.
#[test]
fn the_corners() {
    let mut registration = registration(json!([
        {"destination_name": "api", "destination_namespace": "team", "local_bind_port": 9001,
         "local_bind_address": "::1"},
        {"destination_name": "db", "local_bind_port": 9002, "datacenter": "dc1"},
        {"destination_name": "far", "local_bind_port": 9003, "datacenter": "dc2"},
    ]));
    let proxy = &mut registration.sidecar.as_mut().unwrap().proxy;
    proxy.bind_address = Some("::".into());
    proxy.local_service_address = Some("::1".into());
    proxy.expose = serde_json::from_value(json!([
        {"path": "/healthz", "local_path_port": 8080, "listener_port": 21500, "protocol": "http"},
    ]))
    .unwrap();
    let api = json!({"namespace": "team", "name": "api", "protocol": "http", "default_subset": "v1",
        "subsets": {"v1": {"meta": {"version": "v1"}}, "v2": {"meta": {"version": "v2"}}}});
    let route = |rules: Value| json!({"name": "db", "rules": rules});
    let mut never = endpoint("never", "v1", "passing", false);
    never["weights"] = json!({"passing": 0, "warning": 1});
    let mut v6 = endpoint("v6", "v1", "passing", false);
    v6["address"] = json!("2001:db8::1");
    let store = facts(&[
        (
            "service/default/frontend",
            json!({"name": "frontend", "protocol": "http"}),
        ),
        ("intentions/default/frontend", json!([])),
        ("service/team/api", api),
        (
            "route/team/api",
            json!({"namespace": "team", "name": "api", "rules": [
                {"name": "some", "match": [{"path_prefix": "/new/"}],
                 "to": [{"subset": "v2", "weight": 0}, {"weight": 100}]}]}),
        ),
        (
            "endpoints/team/api",
            json!([v6, never, endpoint("v2", "v2", "passing", false)]),
        ),
        ("service/default/db", Value::Null),
        // The servers refuse it, but the protocol may have changed under it.
        (
            "route/default/db",
            route(json!([{"name": "all", "to": [{"subset": "v1"}]}])),
        ),
        (
            "endpoints/default/db",
            json!([endpoint("db", "v1", "passing", false)]),
        ),
    ]);
    let wired = wired(&registration, &store);
    assert_eq!(
        wired.problems,
        ["upstream far: it is in datacenter dc2, and this mesh is dc1; it is not wired"]
    );
    let far = |topic: &&Topic| topic.to_string().ends_with("/far");
    assert_eq!(wired.topics.iter().find(far), None);
    insta::assert_json_snapshot!(wired.config.unwrap());
}

#[test]
fn a_fact_that_cannot_be_read_leaves_the_last_one() {
    let registration = registration(json!([]));
    let mut store = facts(&[
        (
            "service/default/frontend",
            json!({"name": "frontend", "protocol": "http"}),
        ),
        ("intentions/default/frontend", json!([])),
    ]);
    let before = wired(&registration, &store).config;
    let topic: Topic = "service/default/frontend".parse().unwrap();
    let newer = json!({"name": "frontend", "protocol": "http", "antigravity": true});
    let error = store.put(&topic, newer.to_string().as_bytes()).unwrap_err();
    assert!(
        error.to_string().contains("unknown field `antigravity`"),
        "{error}"
    );
    let after = wired(&registration, &store);
    assert_eq!(after.config, before);
    assert_eq!(after.problems.len(), 1);
}

#[test]
fn the_meshs_tls_policy_goes_to_each_sidecar_and_an_unknown_name_to_none() {
    let registration = registration(json!([]));
    let mesh = |tls: Value| {
        json!({"trust_domain": "1234.mesh", "datacenter": "dc1",
            "default_intention": "deny", "tls": tls})
    };
    let policy = json!({"key_exchange": ["X25519"]});
    let mut store = facts(&[
        ("service/default/frontend", Value::Null),
        ("intentions/default/frontend", json!([])),
        ("mesh", mesh(policy.clone())),
    ]);
    let has = |store: &FactStore| wired(&registration, store).config.unwrap().tls;
    assert_eq!(serde_json::to_value(has(&store)).unwrap(), policy);
    // From servers that know more: what it could read last stays.
    let topic: Topic = "mesh".parse().unwrap();
    let unknown = mesh(json!({"key_exchange": ["X25519MLKEM1024"]}));
    let refused = store.put(&topic, unknown.to_string().as_bytes());
    assert!(
        refused.unwrap_err().to_string().contains("X25519MLKEM1024"),
        "it is named"
    );
    assert_eq!(serde_json::to_value(has(&store)).unwrap(), policy);
}
