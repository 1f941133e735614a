//! A snapshot in the place of everything.

use mesh_model::{Action, Entry, Instance, KeyExchange, Mesh, NodeState, TlsPolicy};
use mesh_state::{Command, Refusal, Restore, RowKey, State, TableName, Topic, WatchKey};

use crate::make::*;

fn restore(state: &mut State, snapshot: &str, epoch: &str) -> Result<(), Refusal> {
    for step in Command::restore(snapshot, "r1", epoch).unwrap() {
        let (result, _) = run_at(state, 7, step);
        result?;
    }
    Ok(())
}

fn register(id: &str) -> Command {
    let node = node(id, "10.0.0.1");
    Command::RegisterNode { node }
}

fn sync(node: &str, instances: Vec<Instance>) -> Command {
    let node = node.to_owned();
    Command::SyncInstances {
        node,
        stream: LAST,
        instances,
    }
}

fn text(state: &State) -> String {
    String::from_utf8(state.to_snapshot().unwrap()).unwrap()
}

#[test]
fn a_restore_begins_an_epoch_and_counts_on() {
    let mut state = cluster();
    run(&mut state, write("cli", vec![put(service("web", "old"))])).unwrap();
    let snapshot = text(&state);
    run(&mut state, write("cli", vec![put(service("web", "new"))])).unwrap();
    run(&mut state, write("cli", vec![put(service("db", "new"))])).unwrap();
    let before = state.version();

    let steps = Command::restore(&snapshot, "r1", "epoch-2").unwrap();
    let mut touched = None;
    for step in steps {
        let (result, now) = run_at(&mut state, 7_000, step);
        result.unwrap();
        touched = Some(now);
    }
    assert!(touched.unwrap().is_everything());
    assert_eq!(state.version().epoch, "epoch-2");
    assert!(state.version().index > before.index);
    assert_eq!(state.len(TableName::Service), 1);
    let row = state.service(&key("web")).unwrap();
    let mesh_model::Entry::Service(old) = service("web", "old") else {
        unreachable!()
    };
    assert_eq!(row.value, old);
    assert_eq!(row.modify_index, state.version().index);
    assert_eq!(
        (row.created_at, row.modified_at),
        (1_000, 1_000),
        "when it was written, and not when it was restored"
    );
    let gone = WatchKey::Key(RowKey::Service(key("db")));
    assert_eq!(state.index(&[gone]), state.version().index);
}

#[test]
fn cluster_id_and_trust_domain_come_with_it() {
    let mut old = cluster();
    run(&mut old, write("cli", vec![put(service("web", "a"))])).unwrap();
    let mut state = State::new();
    let fresh = Command::Bootstrap {
        cluster_id: "cluster-2".into(),
        trust_domain: "cluster-2.mesh".into(),
        datacenter: "dc1".into(),
        epoch: "epoch-9".into(),
        default_intention: Action::Allow,
    };
    run(&mut state, fresh).unwrap();
    restore(&mut state, &text(&old), "epoch-10").unwrap();
    let cluster = &state.cluster().unwrap().value;
    assert_eq!(cluster.cluster_id, "cluster-1");
    assert_eq!(cluster.trust_domain, "cluster-1.mesh");
    assert!(state.version().index > old.version().index);
    // It goes on as any other.
    run(&mut state, write("cli", vec![put(service("web", "b"))])).unwrap();
    let again = State::read_snapshot(text(&state).as_bytes()).unwrap();
    assert!(again == state);
}

#[test]
fn what_runs_now_counts_and_not_what_ran_then() {
    let mut state = cluster();
    for node in ["n1", "n2"] {
        run(&mut state, register(node)).unwrap();
    }
    run(
        &mut state,
        sync(
            "n1",
            vec![
                instance("n1", "web-1", "web", true),
                instance("n1", "web-2", "web", true),
            ],
        ),
    )
    .unwrap();
    run(
        &mut state,
        sync("n2", vec![instance("n2", "db-1", "db", true)]),
    )
    .unwrap();
    let snapshot = text(&state);
    // Since then: n1 lost an instance and got one, n2 is gone, n3 has come.
    run(
        &mut state,
        sync(
            "n1",
            vec![
                instance("n1", "web-2", "web", true),
                instance("n1", "api-1", "api", true),
            ],
        ),
    )
    .unwrap();
    run(&mut state, Command::RemoveNode { node: "n2".into() }).unwrap();
    run(&mut state, register("n3")).unwrap();
    run(
        &mut state,
        sync("n3", vec![instance("n3", "web-3", "web", true)]),
    )
    .unwrap();
    let before = state.clone();
    restore(&mut state, &snapshot, "epoch-2").unwrap();

    let ids = |state: &State, node: &str| -> Vec<String> {
        let rows = state.instances_on(node);
        rows.iter().map(|row| row.value.id.clone()).collect()
    };
    for node in ["n1", "n3"] {
        assert_eq!(ids(&state, node), ids(&before, node), "{node}");
        let value = |state: &State| state.node(node).unwrap().value.clone();
        assert_eq!(value(&state), value(&before));
    }
    assert_eq!(ids(&state, "n2"), ["db-1"]);
    let since = state.now() / 1000;
    assert_eq!(
        state.node("n2").unwrap().value.state,
        NodeState::Silent { since }
    );
    for (service, count) in [("web", 2), ("api", 1), ("db", 1)] {
        assert_eq!(state.instance_count(&key(service)), count, "{service}");
        let index = state.topic_index(&Topic::Endpoints(key(service)));
        assert_eq!(index, state.version().index);
    }
    let again = State::read_snapshot(text(&state).as_bytes()).unwrap();
    assert!(again == state, "what follows from the rows does");
}

#[test]
fn nobody_of_another_cluster_is_taken_for_alive() {
    let mut old = cluster();
    run(&mut old, register("n1")).unwrap();
    run(
        &mut old,
        sync("n1", vec![instance("n1", "web-1", "web", true)]),
    )
    .unwrap();
    let mut state = State::new();
    let fresh = Command::Bootstrap {
        cluster_id: "cluster-2".into(),
        trust_domain: "cluster-2.mesh".into(),
        datacenter: "dc1".into(),
        epoch: "epoch-9".into(),
        default_intention: Action::Allow,
    };
    run(&mut state, fresh).unwrap();
    run(&mut state, register("stranger")).unwrap();
    restore(&mut state, &text(&old), "epoch-10").unwrap();
    assert!(state.node("stranger").is_none());
    let since = state.now() / 1000;
    assert_eq!(
        state.node("n1").unwrap().value.state,
        NodeState::Silent { since }
    );
    assert_eq!(state.instance_count(&key("web")), 1);
    // Its agent comes back with its hello.
    run(&mut state, register("n1")).unwrap();
    assert_eq!(state.node("n1").unwrap().value.state, NodeState::Alive);
}

#[test]
fn half_a_restore_is_part_of_the_state() {
    let mut state = cluster();
    let before = state.version();
    let mut steps = Command::restore(&text(&state), "r1", "epoch-2").unwrap();
    let finish = steps.pop().unwrap();
    for step in steps.clone() {
        run(&mut state, step).unwrap();
    }
    assert_eq!(state.version(), before, "nobody sees it yet");
    // A server that takes over by a snapshot has the pieces too.
    let mut other = State::read_snapshot(text(&state).as_bytes()).unwrap();
    assert!(other == state);
    // A step that comes twice is fine.
    run(&mut other, steps.pop().unwrap()).unwrap();
    run(&mut other, finish).unwrap();
    assert_eq!(other.version().epoch, "epoch-2");
    let abort = Command::Restore(Restore::Abort { id: "r1".into() });
    run(&mut state, abort).unwrap();
    assert!(state == cluster());
}

#[test]
fn a_bad_restore_changes_nothing() {
    let mut state = cluster();
    let good = text(&state);
    let begin = |id: &str| Command::Restore(Restore::Begin { id: id.into() });
    let piece = |number, text: &str| {
        Command::Restore(Restore::Piece {
            id: "r1".into(),
            number,
            text: text.into(),
        })
    };
    let finish = |pieces, epoch: &str| {
        Command::Restore(Restore::Finish {
            id: "r1".into(),
            pieces,
            epoch: epoch.into(),
        })
    };
    refused(&mut state, piece(0, "x"));
    refused(&mut state, finish(0, "epoch-2"));
    run(&mut state, begin("r1")).unwrap();
    refused(&mut state, piece(1, "x"));
    run(&mut state, piece(0, &good[..good.len() / 2])).unwrap();
    refused(&mut state, finish(2, "epoch-2"));
    let refusal = refused(&mut state, finish(1, "epoch-2"));
    assert!(matches!(refusal, Refusal::Restore { .. }), "{refusal}");
    run(&mut state, piece(1, &good[good.len() / 2..])).unwrap();
    refused(&mut state, finish(2, "epoch-1"));
    run(&mut state, finish(2, "epoch-2")).unwrap();
    refused(&mut state, finish(2, "epoch-3"));

    run(&mut state, begin("r2")).unwrap();
    refused(&mut state, piece(0, "x"));
}

#[test]
fn a_tls_policy_that_has_nothing_in_common_is_not_restored() {
    let policy = |names: &[KeyExchange]| {
        let tls = TlsPolicy {
            key_exchange: names.to_vec(),
            ..TlsPolicy::default()
        };
        let entry = Entry::Mesh(Mesh {
            tls,
            ..Mesh::default()
        });
        write("cli", vec![put(entry)])
    };
    let (p384, hybrid) = (KeyExchange::P384, KeyExchange::Secp256r1MlKem768);
    let mut state = cluster();
    let with_default = text(&state);
    run(&mut state, policy(&[p384, hybrid])).unwrap();
    run(&mut state, policy(&[hybrid])).unwrap();
    // Sidecars that have one of them and those that have the other could not speak.
    let before = state.clone();
    let refused = restore(&mut state, &with_default, "e2").unwrap_err();
    let words = refused.to_string();
    assert!(
        words.contains("the snapshot's mesh: tls: key_exchange has nothing in common"),
        "{words}"
    );
    assert_eq!(state.tls(), before.tls());
    assert_eq!(state.version().epoch, before.version().epoch);
    // By a step, as it says.
    run(&mut state, policy(&[p384, hybrid])).unwrap();
    restore(&mut state, &with_default, "e2").unwrap();
    assert_eq!(state.tls(), TlsPolicy::default());
    // Nobody of this cluster runs in another one.
    let mut other = State::new();
    let fresh = Command::Bootstrap {
        cluster_id: "cluster-2".into(),
        trust_domain: "cluster-2.mesh".into(),
        datacenter: "dc1".into(),
        epoch: "epoch-9".into(),
        default_intention: Action::Allow,
    };
    run(&mut other, fresh).unwrap();
    run(&mut other, policy(&[p384, hybrid])).unwrap();
    run(&mut other, policy(&[hybrid])).unwrap();
    restore(&mut other, &with_default, "e3").unwrap();
}

#[test]
fn a_long_snapshot_comes_in_pieces() {
    let mut state = cluster();
    let mut ca = serde_json::Map::new();
    ca.insert("sealed".into(), "\u{1f512}".repeat(300_000).into());
    let value = ca.into();
    run(
        &mut state,
        Command::PutCa {
            value,
            cas: Some(0),
        },
    )
    .unwrap();
    let snapshot = text(&state);
    assert!(Command::restore(&snapshot, "r1", "e2").unwrap().len() > 4);
    let mut other = cluster();
    restore(&mut other, &snapshot, "e2").unwrap();
    assert_eq!(other.ca().unwrap().value, state.ca().unwrap().value);
}

#[test]
fn a_snapshot_of_no_cluster_is_refused() {
    let mut state = cluster();
    let refusal = restore(&mut state, &text(&State::new()), "e2").unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "restore: the snapshot is of no cluster"
    );
    assert_eq!(state.version(), cluster().version());
}

#[test]
fn what_cannot_fit_is_refused_before_it_is_proposed() {
    let command = Command::PutCa {
        value: "x".repeat(mesh_state::MAX_COMMAND).into(),
        cas: None,
    };
    let error = mesh_state::Envelope::new(1, command).encode().unwrap_err();
    assert!(error.to_string().contains("split it"), "{error}");
    // The worst that escaping does still fits.
    let steps = Command::restore(&"\u{1}".repeat(2 << 20), "r1", "e2").unwrap();
    for step in steps {
        mesh_state::Envelope::new(u64::MAX, step).encode().unwrap();
    }
}
