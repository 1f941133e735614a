//! Gateways, and the services outside that they stand for.

use mesh_model::{Edge, Entry, EntryKey, Gateway, GatewayKind, LinkedService, Terminating};
use mesh_state::{Command, State, Topic};

use crate::make::*;

fn terminating(name: &str, services: &[&str]) -> Entry {
    let linked = services.iter().map(|service| LinkedService {
        service: key(service),
        ca_file: String::new(),
        cert_file: String::new(),
        key_file: String::new(),
        sni: String::new(),
    });
    Entry::Gateway(Gateway {
        namespace: "default".into(),
        name: name.into(),
        edge: Edge::Terminating(Terminating {
            services: linked.collect(),
        }),
        meta: Default::default(),
    })
}

fn register(state: &mut State, instance: mesh_model::Instance) {
    let command = Command::PutInstance {
        node: "n1".into(),
        stream: LAST,
        instance,
    };
    run(state, command).unwrap();
}

fn gateway(id: &str, service: &str, kind: GatewayKind) -> mesh_model::Instance {
    let mut instance = instance("n1", id, service, true);
    instance.gateway = Some(kind);
    instance
}

fn called_at(state: &State, service: &str) -> Vec<String> {
    let endpoints = state.endpoints(&key(service));
    endpoints
        .iter()
        .map(|one| one.instance.value.id.clone())
        .collect()
}

#[test]
fn a_service_outside_is_called_at_the_gateways_that_stand_for_it() {
    let mut state = cluster();
    let node = node("n1", "10.0.0.1");
    run(&mut state, Command::RegisterNode { node }).unwrap();
    register(
        &mut state,
        gateway("out-1", "out", GatewayKind::Terminating),
    );
    assert_eq!(
        called_at(&state, "out"),
        [""; 0],
        "nobody calls a gateway itself"
    );
    register(&mut state, instance("n1", "legacy-1", "legacy", false));
    assert_eq!(called_at(&state, "legacy"), [""; 0]);
    assert_eq!(state.outside(&key("legacy")).len(), 1);

    let topic = Topic::Endpoints(key("legacy"));
    let other = Topic::Endpoints(key("other"));
    let before = (state.topic_index(&topic), state.topic_index(&other));
    run(
        &mut state,
        write("cli", vec![put(terminating("out", &["legacy", "gone"]))]),
    )
    .unwrap();
    assert_eq!(called_at(&state, "legacy"), ["out-1"]);
    assert_eq!(called_at(&state, "gone"), [""; 0], "it is nowhere");
    assert!(state.topic_index(&topic) > before.0);
    assert_eq!(state.topic_index(&other), before.1);

    // Another instance of the gateway changes where the service is called.
    let before = state.topic_index(&topic);
    register(
        &mut state,
        gateway("out-2", "out", GatewayKind::Terminating),
    );
    assert_eq!(called_at(&state, "legacy"), ["out-1", "out-2"]);
    assert!(state.topic_index(&topic) > before);

    // One that says that it is something else does not.
    register(&mut state, gateway("out-2", "out", GatewayKind::Ingress));
    assert_eq!(called_at(&state, "legacy"), ["out-1"]);

    let bytes = state.to_snapshot().unwrap();
    assert!(State::read_snapshot(bytes.as_slice()).unwrap() == state);

    // What it no longer names it no longer stands for.
    let before = state.topic_index(&topic);
    run(
        &mut state,
        write("cli", vec![put(terminating("out", &["other"]))]),
    )
    .unwrap();
    assert_eq!(called_at(&state, "legacy"), [""; 0]);
    assert!(state.topic_index(&topic) > before);
    run(
        &mut state,
        write("cli", vec![delete(EntryKey::Gateway(key("out")))]),
    )
    .unwrap();
    assert!(state.gateway(&key("out")).is_none());
}
