//! The servers' rows as Consul shows them: a golden file of each.
#![allow(clippy::unwrap_used)]

use mesh_consul::catalog::{CATALOG, HEALTH, Instance, NODE, Node, Part, Service, services};
use mesh_consul::filter::Filter;
use serde_json::{Value, json};

fn row() -> Value {
    json!({
        "namespace": "default", "service": "web", "id": "web-1", "node": "0f1e",
        "node_name": "host-1", "node_address": "10.0.0.5", "node_state": "alive",
        "address": "10.0.0.5", "port": 8080, "tags": ["blue"], "meta": {"version": "v1"},
        "weights": {"passing": 1, "warning": 1},
        "proxy": {"id": "web-1-sidecar-proxy", "address": "10.0.0.5", "port": 21000},
        "checks": {"alive": {"name": "alive", "status": "passing"},
                   "service:web-1-sidecar-proxy:1": {"name": "port", "status": "critical"},
                   "service:web-1-sidecar-proxy2": {"name": "other", "status": "passing"}},
        "status": "critical", "create_index": 3, "modify_index": 7,
        "something_new": true,
    })
}

fn instance(row: Value) -> Instance {
    serde_json::from_value(row).unwrap()
}

#[test]
fn golden_instances() {
    let web = instance(row());
    let application = Part::Application;
    insta::assert_json_snapshot!("catalog", web.catalog(application, "dc1"));
    insta::assert_json_snapshot!("catalog_sidecar", web.catalog(Part::Sidecar, "dc1"));
    insta::assert_json_snapshot!("entry", web.health(application, "dc1"));
    insta::assert_json_snapshot!("entry_sidecar", web.health(Part::Sidecar, "dc1"));
    assert!(web.is_passing(application) && !web.is_passing(Part::Sidecar));
    assert!(web.has_tags(&["BLUE".into()]) && !web.has_tags(&["blue".into(), "red".into()]));

    let mut silent = row();
    silent["node_state"] = json!("silent");
    silent["proxy"] = Value::Null;
    let silent = instance(silent);
    assert!(!silent.is_passing(application) && !silent.has(Part::Sidecar));
    let checks = &silent.health(application, "dc1")["Checks"];
    assert_eq!(checks[0]["Status"], "critical");
}

#[test]
fn a_native_instance_stands_for_itself() {
    let mut row = row();
    row["proxy"] = json!({"id": "web-1", "address": "10.0.0.5", "port": 8080, "native": true});
    row["checks"] = json!({"service:web-1:1": {"name": "own", "status": "warning"}});
    let native = instance(row);
    assert_eq!(native.in_mesh(), Some(Part::Application));
    assert!(!native.has(Part::Sidecar) && !native.is_passing(Part::Application));
    let shown = native.health(Part::Application, "dc1");
    assert_eq!(shown["Service"]["Connect"], json!({"Native": true}));
    assert_eq!(shown["Service"]["Port"], 8080);
    assert_eq!(shown["Checks"][1]["CheckID"], "service:web-1:1");
    let shown = native.catalog(Part::Application, "dc1");
    assert_eq!(shown["ServiceConnect"], json!({"Native": true}));
}

#[test]
fn golden_nodes_and_services() {
    let node: Node = serde_json::from_value(json!({
        "id": "0f1e", "name": "host-1", "address": "10.0.0.5", "version": "0.1.0",
        "meta": {"rack": "r1"}, "state": "alive", "silent_since": null, "instances": 2,
        "create_index": 2, "modify_index": 5,
    }))
    .unwrap();
    insta::assert_json_snapshot!("node", node.json("dc1"));
    let rows: Vec<Service> = serde_json::from_value(json!([
        {"namespace": "default", "name": "web", "tags": ["blue"], "instances": {}, "virtual": null},
        {"namespace": "team", "name": "db", "tags": []},
    ]))
    .unwrap();
    assert_eq!(services(&rows, "default"), json!({"web": ["blue"]}));
    assert_eq!(services(&rows, "team"), json!({"db": []}));
}

/// A selector that names nothing would keep no row, and nobody would see why.
#[test]
fn selectors_name_what_is_shown() {
    let web = instance(row());
    let node = json!({"id": "n", "name": "n", "address": "a", "meta": {}, "create_index": 1,
                      "modify_index": 1});
    let node: Node = serde_json::from_value(node).unwrap();
    for (selectors, row) in [
        (CATALOG, web.catalog(Part::Application, "dc1")),
        (HEALTH, web.health(Part::Application, "dc1")),
        (NODE, node.json("dc1")),
    ] {
        for (name, _) in selectors {
            let pointer = format!("/{}", name.replace('.', "/"));
            let pointer = pointer.replace("/Checks/", "/Checks/0/");
            let is_said = row.pointer(&pointer).is_some() || name.ends_with("Connect.Native");
            assert!(is_said, "{name}");
        }
    }
    let kept = |text: &str| {
        let filter = Filter::parse(text, HEALTH).unwrap();
        filter.keeps(&web.health(Part::Application, "dc1"))
    };
    assert!(kept("Service.Meta.version == v1 and blue in Service.Tags"));
    assert!(!kept("Checks.Status == critical"));
}
