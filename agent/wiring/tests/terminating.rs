//! A terminating gateway, seen whole.
#![allow(clippy::unwrap_used, missing_docs)]

use mesh_model::Registration;
use mesh_proto::fact::Topic;
use mesh_wiring::{FactStore, Input, Wants, Wired, wire};
use serde_json::{Value, json};

fn wired(store: &FactStore) -> Wired {
    let registration: Registration = serde_json::from_value(json!({
        "id": "out-1", "service": "out", "port": 8443,
        "gateway": {"kind": "terminating", "bind": [{"address": "0.0.0.0", "port": 8443}]},
        "sidecar": {"id": "out-1", "port": 8443},
    }))
    .unwrap();
    wire(&Input {
        registration: &registration,
        sidecar: registration.sidecar.as_ref().unwrap(),
        node: "node-1",
        facts: store,
        wants: &Wants::default(),
        before: None,
    })
}

fn put(store: &mut FactStore, topic: &str, body: &Value) {
    let topic: Topic = topic.parse().unwrap();
    store.put(&topic, body.to_string().as_bytes()).unwrap();
}

fn outside(instance: &str, status: &str, silent: bool) -> Value {
    let mut one = json!({"instance": instance, "node": "n1", "address": "legacy.example.com",
        "port": 443, "status": status, "weights": {"passing": 3, "warning": 1}});
    if silent {
        one["silent"] = json!(true);
    }
    one
}

#[test]
fn each_linked_service_has_its_policy_and_its_instances() {
    let mut store = FactStore::default();
    put(
        &mut store,
        "mesh",
        &json!({"trust_domain": "1234.mesh", "datacenter": "dc1", "default_intention": "deny"}),
    );
    put(
        &mut store,
        "roots",
        &json!({"trust_domain": "1234.mesh", "roots": ["PEM"]}),
    );
    put(&mut store, "revocations", &json!({}));
    let gateway = json!({"name": "out", "terminating": {"services": [
        {"service": {"name": "legacy"}, "ca_file": "/ca.pem", "sni": "legacy.example.com"},
        {"service": {"name": "db"}}]}});
    put(&mut store, "gateway/default/out", &gateway);
    let missing: Vec<String> = wired(&store)
        .missing
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        missing,
        [
            "service/default/db",
            "service/default/legacy",
            "intentions/default/db",
            "intentions/default/legacy",
            "outside/default/db",
            "outside/default/legacy",
        ]
    );
    let legacy = json!({"name": "legacy", "protocol": "http", "connect_timeout": "1s"});
    put(&mut store, "service/default/legacy", &legacy);
    put(&mut store, "service/default/db", &Value::Null);
    let allow =
        json!([{"source": {"name": "web"}, "destination": {"name": "legacy"}, "action": "allow"}]);
    put(&mut store, "intentions/default/legacy", &allow);
    put(&mut store, "intentions/default/db", &json!([]));
    let instances = json!([
        outside("a", "passing", false),
        outside("b", "warning", false),
        outside("c", "critical", false),
        outside("d", "passing", true),
    ]);
    put(&mut store, "outside/default/legacy", &instances);
    put(&mut store, "outside/default/db", &json!([]));
    let wired = wired(&store);
    assert_eq!(wired.problems, [""; 0]);
    insta::assert_json_snapshot!(wired.config.unwrap());
}
