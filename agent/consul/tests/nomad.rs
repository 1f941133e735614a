//! What Nomad sends and reads, as its source has it: a golden file of each, and the rules by
//! which Nomad decides whether it must register again.
#![allow(clippy::unwrap_used)]

use mesh_consul::filter::Filter;
use mesh_consul::{agent, echo, register};
use mesh_model::Status;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// The body of an ordinary service with a sidecar, as Nomad's client builds it.
fn count_dashboard() -> Value {
    json!({
        "ID": "_nomad-task-6f3b-group-dashboard-count-dashboard-9002", "Name": "count-dashboard",
        "Port": 9002, "Meta": {"external-source": "nomad"}, "Check": null,
        "Checks": [{"CheckID": "_nomad-check-0a1b", "Name": "api-health", "Interval": "5s",
                    "Timeout": "3s", "HTTP": "http://10.0.0.5:23456/health", "Method": "", "Status": ""}],
        "Connect": {"SidecarService": {
            "Port": 22765, "Address": "10.0.0.5", "Check": null,
            "Checks": [
                {"Name": "Connect Sidecar Aliasing _nomad-task-6f3b-group-dashboard-count-dashboard-9002",
                 "AliasService": "_nomad-task-6f3b-group-dashboard-count-dashboard-9002"},
                {"Name": "Connect Sidecar Listening", "Interval": "10s", "TCP": "10.0.0.5:22765"}],
            "Proxy": {
                "Config": {"bind_address": "0.0.0.0", "bind_port": 22765,
                           "envoy_stats_tags": ["nomad.alloc_id=6f3b", "nomad.group=dashboard"]},
                "Upstreams": [{"DestinationName": "count-api", "LocalBindPort": 8080, "MeshGateway": {}}],
                "MeshGateway": {}, "Expose": {}}}},
        "SomethingNew": {"kept": true}
    })
}

#[test]
fn golden_registration() {
    let registered = register::parse(&count_dashboard()).unwrap();
    assert!(registered.warnings.is_empty());
    insta::assert_json_snapshot!("registration", registered.registration);
}

#[test]
fn golden_echo() {
    let body = count_dashboard();
    let registration = register::parse(&body).unwrap().registration;
    insta::assert_json_snapshot!("service", echo::service(&registration, Some(&body), "dc1"));
    insta::assert_json_snapshot!("sidecar", echo::sidecar(&registration, Some(&body), "dc1"));
    let check = &registration.sidecar.as_ref().unwrap().checks[1];
    let shown = agent::check_json("n1", &registration, true, check, Status::Passing, "ok");
    insta::assert_json_snapshot!("check", shown);
}

/// A selector that names nothing would be taken for empty, and nobody would see why.
#[test]
fn selectors_name_what_is_shown() {
    let body = count_dashboard();
    let registration = register::parse(&body).unwrap().registration;
    let shown = [
        echo::service(&registration, Some(&body), "dc1"),
        echo::sidecar(&registration, Some(&body), "dc1").unwrap(),
        echo::service(
            &register::parse(&json!({"Name": "a", "Connect": {"Native": true}}))
                .unwrap()
                .registration,
            Some(&json!({"Name": "a", "SocketPath": "/s"})),
            "dc1",
        ),
        json!({"Proxy": {"Mode": "transparent"}}), // where it is
    ];
    let check = &registration.sidecar.as_ref().unwrap().checks[1];
    let check = agent::check_json("n1", &registration, true, check, Status::Passing, "ok");
    for (selectors, rows) in [(agent::SERVICES, &shown[..]), (agent::CHECKS, &[check][..])] {
        for (name, _) in selectors {
            let pointer = format!("/{}", name.replace('.', "/"));
            let pointer = pointer.replace("/Upstreams/", "/Upstreams/0/");
            assert!(
                rows.iter().any(|row| row.pointer(&pointer).is_some()),
                "{name}"
            );
        }
    }
    let kept = |text: &str| {
        let filter = Filter::parse(text, agent::SERVICES).unwrap();
        let kept = shown[..2].iter().map(|row| filter.keeps(row));
        kept.collect::<Vec<_>>()
    };
    assert_eq!(kept("Kind == connect-proxy"), [false, true]);
    assert_eq!(kept("Kind == \"\""), [true, false]);
    assert_eq!(
        kept("Proxy.Upstreams.DestinationName == count-api"),
        [false, true]
    );
    assert_eq!(kept("Connect.Native == true"), [false, false]);
}

#[test]
fn golden_self() {
    let info = agent::SelfInfo {
        datacenter: "dc1",
        node_name: "n1",
        node_id: "0f1e",
        version: "0.1.0",
        grpc_port: 8502,
        dns: Some("10.0.0.5:8600".parse().unwrap()),
        mesh: json!("not an object"),
    };
    let shown = agent::self_json(&info);
    assert!(shown.as_object().unwrap().values().all(Value::is_object));
    insta::assert_json_snapshot!("self", shown);
}

#[test]
fn snake_case_is_the_same_registration() {
    let camel = count_dashboard();
    let snake = json!({
        "id": "_nomad-task-6f3b-group-dashboard-count-dashboard-9002", "name": "count-dashboard",
        "port": 9002, "meta": {"external-source": "nomad"},
        "checks": [{"check_id": "_nomad-check-0a1b", "name": "api-health", "interval": "5s",
                    "timeout": "3s", "http": "http://10.0.0.5:23456/health"}],
        "connect": {"sidecar_service": {
            "port": 22765, "address": "10.0.0.5",
            "checks": [
                {"name": "Connect Sidecar Aliasing _nomad-task-6f3b-group-dashboard-count-dashboard-9002",
                 "alias_service": "_nomad-task-6f3b-group-dashboard-count-dashboard-9002"},
                {"name": "Connect Sidecar Listening", "interval": "10s", "tcp": "10.0.0.5:22765"}],
            "proxy": {
                "config": {"bind_address": "0.0.0.0", "bind_port": 22765,
                           "envoy_stats_tags": ["nomad.alloc_id=6f3b", "nomad.group=dashboard"]},
                "upstreams": [{"destination_name": "count-api", "local_bind_port": 8080}]}}}
    });
    let read = |body| register::parse(body).unwrap().registration;
    assert_eq!(read(&camel), read(&snake));
    let upstreams = |body| {
        let echoed = echo::sidecar(&read(body), Some(body), "dc1").unwrap();
        echoed["Proxy"]["Upstreams"].clone()
    };
    assert_eq!(
        upstreams(&snake),
        json!([{"DestinationName": "count-api", "LocalBindPort": 8080}])
    );
}

#[test]
fn consuls_defaults_are_filled_in() {
    let body = json!({"Name": "web", "Port": 80, "Connect": {"SidecarService": {}},
                      "Check": {"TCP": "10.0.0.5:80", "Interval": "10s"}});
    let registration = register::parse(&body).unwrap().registration;
    assert_eq!(registration.id, "web");
    assert_eq!(registration.checks[0].id, "service:web");
    assert_eq!(registration.checks[0].name, "Service 'web' check");
    let sidecar = registration.sidecar.as_ref().unwrap();
    assert_eq!(
        (sidecar.id.as_str(), sidecar.port),
        ("web-sidecar-proxy", 0)
    );
    let checks = &sidecar.checks;
    let ids: Vec<_> = checks.iter().map(|check| check.id.as_str()).collect();
    assert_eq!(
        ids,
        ["service:web-sidecar-proxy:1", "service:web-sidecar-proxy:2"]
    );
    let echoed = echo::sidecar(&registration, Some(&body), "dc1").unwrap();
    assert_eq!(echoed["Proxy"]["LocalServiceAddress"], "127.0.0.1");
    assert_eq!(echoed["Proxy"]["LocalServicePort"], 80);
    let echoed = echo::service(&registration, Some(&body), "dc1");
    assert_eq!(echoed["Weights"], json!({"Passing": 1, "Warning": 1}));
    assert_eq!(echoed["Address"], "");
}

#[test]
fn what_cannot_be_wired_is_echoed_and_said() {
    let mut body = count_dashboard();
    body["Connect"]["SidecarService"]["Proxy"]["Upstreams"] = json!([
        {"DestinationName": "a", "LocalBindPort": 1, "Datacenter": "dc2"},
        {"DestinationName": "b", "LocalBindPort": 2, "Datacenter": "dc1"},
        {"DestinationName": "c", "LocalBindPort": 3, "DestinationPeer": "p"},
        {"DestinationName": "d", "LocalBindPort": 4, "DestinationType": "prepared_query"},
        {"DestinationName": "e"},
    ]);
    body["Kind"] = json!("zebra");
    let registered = register::parse(&body).unwrap();
    assert_eq!(registered.warnings.len(), 4, "{:?}", registered.warnings);
    let registration = registered.registration;
    let names = registration
        .sidecar
        .as_ref()
        .unwrap()
        .proxy
        .upstreams
        .iter();
    assert_eq!(
        names
            .map(|it| it.destination_name.as_str())
            .collect::<Vec<_>>(),
        ["a", "b"]
    );
    let upstreams = &registration.sidecar.as_ref().unwrap().proxy.upstreams;
    assert_eq!(upstreams[0].datacenter.as_deref(), Some("dc2"));
    let echoed = echo::sidecar(&registration, Some(&body), "dc1").unwrap();
    assert_eq!(echoed["Proxy"]["Upstreams"].as_array().unwrap().len(), 5);
    assert_eq!(
        echo::service(&registration, Some(&body), "dc1")["Kind"],
        "zebra"
    );
}

#[test]
fn an_address_that_is_none_is_refused() {
    for place in [
        "/Address",
        "/Connect/SidecarService/Address",
        "/Connect/SidecarService/Proxy/LocalServiceAddress",
        "/Connect/SidecarService/Proxy/Config/bind_address",
        "/Connect/SidecarService/Proxy/Upstreams/0/LocalBindAddress",
    ] {
        let mut body = json!({"Name": "web", "Address": "", "Connect": {"SidecarService": {
            "Address": "", "Proxy": {"LocalServiceAddress": "", "Config": {"bind_address": ""},
            "Upstreams": [
                {"DestinationName": "a", "LocalBindPort": 1, "LocalBindAddress": ""}]}}}});
        register::parse(&body).unwrap();
        for good in ["10.0.0.1", "::1", "web-1.nodes.example"] {
            *body.pointer_mut(place).unwrap() = json!(good);
            register::parse(&body).unwrap();
        }
        for bad in ["no such host!", "10.0.0.1:80"] {
            *body.pointer_mut(place).unwrap() = json!(bad);
            let error = register::parse(&body).unwrap_err().to_string();
            assert!(error.contains("is not an address"), "{place}: {error}");
        }
    }
}

#[test]
fn errors_name_the_field() {
    let with = |place: &str, value: Value| {
        let mut body = count_dashboard();
        *body.pointer_mut(place).unwrap() = value;
        register::parse(&body).unwrap_err().to_string()
    };
    for (place, value, error) in [
        (
            "/Name",
            json!(""),
            "Name: missing; write the service's name",
        ),
        (
            "/Port",
            json!("80"),
            "Port: expected a port from 0 to 65535, found \"80\"",
        ),
        (
            "/Connect/SidecarService/Proxy/Upstreams/0/LocalBindPort",
            json!(-1),
            "Connect.SidecarService.Proxy.Upstreams[0].LocalBindPort: \
             expected a port from 0 to 65535, found -1",
        ),
        (
            "/Checks/0/Interval",
            json!(null),
            "Checks[0].Interval: missing; write how often, such as \"10s\"",
        ),
        (
            "/Meta",
            json!({"a": 1}),
            "Meta.a: expected a string, found 1",
        ),
    ] {
        assert_eq!(with(place, value), error);
    }
}

#[test]
fn the_corpus_is_replayed() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");
    let mut count = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        mesh_consul::fuzz(&std::fs::read(file.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count >= 4, "{count} files");
}

/// Nomad's comparison (command/agent/consul/service_client.go): the first field for which it
/// would register again.
fn nomad_sees_a_difference(
    sent: &Value,
    parent: &Value,
    sidecar: Option<&Value>,
) -> Option<String> {
    let get = |value: &Value, key: &str| value.get(key).cloned().unwrap_or(Value::Null);
    let or = |value: Value, default: Value| if value.is_null() { default } else { value };
    for (key, shown, default) in [
        ("Kind", "Kind", json!("")),
        ("ID", "ID", json!("")),
        ("Port", "Port", json!(0)),
        ("Address", "Address", json!("")),
        ("Name", "Service", json!("")),
        ("EnableTagOverride", "EnableTagOverride", json!(false)),
        ("Meta", "Meta", json!({})),
        ("TaggedAddresses", "TaggedAddresses", json!({})),
        ("Weights", "Weights", json!({"Passing": 1, "Warning": 1})),
    ] {
        if or(get(sent, key), default.clone()) != or(get(parent, shown), default) {
            return Some(key.to_owned());
        }
    }
    let set = |value: Value| -> std::collections::BTreeSet<String> {
        serde_json::from_value(or(value, json!([]))).unwrap()
    };
    if set(get(sent, "Tags")) != set(get(parent, "Tags")) {
        return Some("Tags".to_owned());
    }
    let wanted = sent.pointer("/Connect/SidecarService")?;
    let Some(sidecar) = sidecar else {
        return Some("the sidecar is missing".to_owned());
    };
    let own = set(get(wanted, "Tags"));
    let expected = if own.is_empty() {
        set(get(parent, "Tags"))
    } else {
        own
    };
    if expected != set(get(sidecar, "Tags")) {
        return Some("the sidecar's Tags".to_owned());
    }
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let (a, b) = (
        list(wanted.pointer("/Proxy/Upstreams")),
        list(sidecar.pointer("/Proxy/Upstreams")),
    );
    if a.len() != b.len() {
        return Some("the number of upstreams".to_owned());
    }
    for (a, b) in a.iter().zip(&b) {
        for key in [
            "Datacenter",
            "DestinationName",
            "LocalBindAddress",
            "LocalBindPort",
            "DestinationPeer",
            "DestinationPartition",
            "DestinationType",
            "LocalBindSocketPath",
            "LocalBindSocketMode",
        ] {
            if get(a, key) != get(b, key) {
                return Some(format!("an upstream's {key}"));
            }
        }
        let mode = |value: &Value| {
            or(
                value
                    .pointer("/MeshGateway/Mode")
                    .cloned()
                    .unwrap_or_default(),
                json!(""),
            )
        };
        // Absent and `{}` differ for Go's reflect.DeepEqual.
        if get(a, "Config") != get(b, "Config") || mode(a) != mode(b) {
            return Some("an upstream's Config or MeshGateway".to_owned());
        }
    }
    None
}

/// Leaves out a key as Go's `omitempty` does.
fn put(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    let value = value.into();
    let empty = match &value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Number(number) => number.as_u64() == Some(0),
        Value::Bool(flag) => !flag,
    };
    if !empty {
        map.insert(key.to_owned(), value);
    }
}

prop_compose! {
    fn upstream()(
        name in "[a-z]{1,8}", port in any::<u16>(), address in "|127\\.0\\.0\\.2",
        kind in "|service|prepared_query", peer in "|p1", partition in "|default",
        dc in "|dc1|dc2", path in "|/run/a.sock", mode in "|0660", gateway in "|local|remote|none",
        config in prop::collection::btree_map("[a-z_]{1,6}", 0u32..9, 0..3),
    ) -> Value {
        let mut map = Map::new();
        put(&mut map, "DestinationName", name);
        put(&mut map, "LocalBindPort", port);
        put(&mut map, "LocalBindAddress", address);
        put(&mut map, "DestinationType", kind);
        put(&mut map, "DestinationPeer", peer);
        put(&mut map, "DestinationPartition", partition);
        put(&mut map, "Datacenter", dc);
        put(&mut map, "LocalBindSocketPath", path);
        put(&mut map, "LocalBindSocketMode", mode);
        put(&mut map, "Config", json!(config));
        let mut inner = Map::new();
        put(&mut inner, "Mode", gateway);
        map.insert("MeshGateway".into(), inner.into());
        map.into()
    }
}

prop_compose! {
    fn nomad_body()(
        name in "[a-z]{1,8}", port in any::<u16>(), address in "|10\\.0\\.0\\.5",
        tags in prop::collection::vec("[a-z]{1,4}", 0..4),
        own_tags in prop::collection::vec("[a-z]{1,4}", 0..2),
        meta in prop::collection::btree_map("[a-z-]{1,8}", "[a-z ]{0,8}", 0..3),
        weights in prop::option::of((1u32..9, 1u32..9)), kind in "|ingress-gateway",
        tag_override in any::<bool>(), tagged in any::<bool>(),
        upstreams in prop::option::of(prop::collection::vec(upstream(), 0..4)),
    ) -> Value {
        let mut map = Map::new();
        put(&mut map, "ID", format!("_nomad-task-1-group-g-{name}-http"));
        put(&mut map, "Name", name);
        put(&mut map, "Port", port);
        put(&mut map, "Address", address);
        put(&mut map, "Tags", json!(tags));
        put(&mut map, "Meta", json!(meta));
        put(&mut map, "EnableTagOverride", tag_override);
        if let Some((passing, warning)) = weights {
            put(&mut map, "Weights", json!({"Passing": passing, "Warning": warning}));
        }
        if tagged {
            put(&mut map, "TaggedAddresses", json!({"lan": {"Address": "10.0.0.5", "Port": 80}}));
        }
        if let Some(upstreams) = upstreams {
            let mut sidecar = Map::new();
            put(&mut sidecar, "Tags", json!(own_tags));
            put(&mut sidecar, "Proxy", json!({"Upstreams": upstreams, "MeshGateway": {}}));
            map.insert("Connect".into(), json!({"SidecarService": sidecar}));
        } else if port != 0 {
            // A gateway has no sidecar.
            put(&mut map, "Kind", kind);
        }
        map.into()
    }
}

proptest! {
    #[test]
    fn nomad_never_has_to_register_again(body in nomad_body()) {
        let registration = register::parse(&body).unwrap().registration;
        let parent = echo::service(&registration, Some(&body), "dc1");
        let sidecar = echo::sidecar(&registration, Some(&body), "dc1");
        prop_assert_eq!(nomad_sees_a_difference(&body, &parent, sidecar.as_ref()), None);
    }

    #[test]
    fn damaged_bodies_never_panic(at in 0usize..2000, with in any::<u8>()) {
        let mut data = count_dashboard().to_string().into_bytes();
        let at = at % data.len();
        data[at] = with;
        mesh_consul::fuzz(&data);
    }
}

/// As Nomad registers the gateway of a bridged group.
fn ingress() -> Value {
    json!({"ID": "_nomad-task-6f-group-gate-edge-inbound", "Name": "edge", "Port": 8080,
        "Address": "10.0.0.5", "Kind": "ingress-gateway", "Meta": {"external-source": "nomad"},
        "Check": null, "Checks": [],
        "TaggedAddresses": {"lan_ipv4": {"Address": "10.0.0.5", "Port": 8080}},
        "Proxy": {"Config": {
            "connect_timeout_ms": 5000,
            "envoy_gateway_bind_addresses": {"web": {"Address": "0.0.0.0", "Port": 8080}},
            "envoy_gateway_bind_tagged_addresses": false,
            "envoy_gateway_no_default_bind": true},
          "MeshGateway": {}, "Expose": {}}})
}

#[test]
fn a_gateway_is_its_own_proxy() {
    let body = ingress();
    let registered = register::parse(&body).unwrap();
    assert_eq!(registered.warnings, [""; 0]);
    let registration = registered.registration;
    let gateway = registration.gateway.as_ref().unwrap();
    let bind: Vec<_> = gateway
        .bind
        .iter()
        .map(|it| (&*it.address, it.port))
        .collect();
    assert_eq!(bind, [("0.0.0.0", 8080)]);
    let own = registration.sidecar.as_ref().unwrap();
    assert_eq!((&own.id, own.port), (&registration.id, 8080));
    assert!(own.proxy.config.contains_key("connect_timeout_ms"));

    // Nomad compares what it finds, and looks for no sidecar.
    let echoed = echo::service(&registration, Some(&body), "dc1");
    for key in [
        "ID",
        "Kind",
        "Port",
        "Address",
        "Meta",
        "TaggedAddresses",
        "Proxy",
    ] {
        assert_eq!(echoed[key], body[key], "{key}");
    }
    assert_eq!(echo::sidecar(&registration, Some(&body), "dc1"), None);
}

#[test]
fn where_a_gateway_binds() {
    let mut body = ingress();
    body["TaggedAddresses"]["wan"] = json!({"Address": "192.0.2.1", "Port": 443});
    let config = &mut body["Proxy"]["Config"];
    config["envoy_gateway_bind_tagged_addresses"] = json!(true);
    config["envoy_gateway_no_default_bind"] = json!(false);
    let registration = register::parse(&body).unwrap().registration;
    let bind = registration.gateway.unwrap().bind;
    let bind: Vec<_> = bind.iter().map(|it| (&*it.address, it.port)).collect();
    let all = [("0.0.0.0", 8080), ("10.0.0.5", 8080), ("192.0.2.1", 443)];
    assert_eq!(bind, all);
}

#[test]
fn what_no_gateway_can_be_is_refused_by_name() {
    for (place, value, said) in [
        (
            "/Kind",
            json!("mesh-gateway"),
            "Kind: \"mesh-gateway\" is not supported yet",
        ),
        ("/Port", json!(0), "Port: missing"),
        (
            "/Connect",
            json!({"SidecarService": {}}),
            "Connect: a gateway has no sidecar",
        ),
        (
            "/Proxy/Config/envoy_gateway_bind_addresses",
            json!({}),
            "Proxy.Config: it binds nothing",
        ),
        (
            "/Proxy/Config/envoy_gateway_bind_addresses/web/Address",
            json!("edge.example"),
            "is not an IP address to bind",
        ),
    ] {
        let mut body = ingress();
        match body.pointer_mut(place) {
            Some(at) => *at = value,
            None => body["Connect"] = value,
        }
        let error = register::parse(&body).unwrap_err().to_string();
        assert!(error.contains(said), "{place}: {error}");
    }
}
