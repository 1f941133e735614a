//! A snapshot in the place of everything.

use mesh_model::Action;
use mesh_state::{Command, Refusal, Restore, RowKey, State, TableName, WatchKey};

use crate::make::*;

fn restore(state: &mut State, snapshot: &str, epoch: &str) -> Result<(), Refusal> {
    for step in Command::restore(snapshot, "r1", epoch).unwrap() {
        let (result, _) = run_at(state, 7, step);
        result?;
    }
    Ok(())
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
        let (result, now) = run_at(&mut state, 7, step);
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
