//! Virtual addresses: one for each service, and always the same.

use mesh_model::{EntryKey, VirtualAddress};
use mesh_state::{Command, Op, State, Topic};

use crate::make::*;

/// Two names whose search begins at one place.
const ONE: &str = "s16826";
const OTHER: &str = "s20653";
const PLACE: &str = "250.229.146.167";
const NEXT: &str = "250.229.146.168";

fn block(name: &str) -> Op {
    put(service(name, "a"))
}

fn without(name: &str) -> Op {
    delete(EntryKey::Service(key(name)))
}

fn with(ops: Vec<Op>) -> State {
    let mut state = cluster();
    run(&mut state, write("cli", ops)).unwrap();
    state
}

fn address(text: &str) -> VirtualAddress {
    text.parse().unwrap()
}

#[test]
fn it_is_there_while_there_is_a_block_or_an_instance() {
    let mut state = cluster();
    assert_eq!(state.virtual_of(&key("web")), None);
    let node = node("n1", "10.0.0.1");
    run(&mut state, Command::RegisterNode { node }).unwrap();
    let register = Command::PutInstance {
        node: "n1".into(),
        stream: LAST,
        instance: instance("n1", "web-1", "web", false),
    };
    let at = address("248.43.58.223");
    let web = Some(at);
    run(&mut state, register.clone()).unwrap();
    assert_eq!(state.virtual_of(&key("web")), web);
    run(&mut state, write("cli", vec![block("web")])).unwrap();
    let gone = Command::RemoveInstance {
        node: "n1".into(),
        stream: LAST,
        id: "web-1".into(),
    };
    run(&mut state, gone).unwrap();
    assert_eq!(state.virtual_of(&key("web")), web);
    assert_eq!(state.service_at(at), Some(&key("web")));
    run(&mut state, write("cli", vec![without("web")])).unwrap();
    assert_eq!(state.virtual_of(&key("web")), None);
    assert_eq!(state.service_at(at), None);

    // It comes again, with others there that were not: the same.
    run(&mut state, write("cli", vec![block("db"), block("api")])).unwrap();
    run(&mut state, register).unwrap();
    assert_eq!(state.virtual_of(&key("web")), web);
    // Another node without a memory gives it too.
    assert_eq!(with(vec![block("web")]).virtual_of(&key("web")), web);
    // A namespace is part of the name; a pattern is no service.
    let mut state = with(vec![block("team/web"), block("web")]);
    assert_ne!(state.virtual_of(&key("team/web")), web);
    let all = intention("*", "*", mesh_model::Action::Deny);
    run(&mut state, write("cli", vec![put(all)])).unwrap();
    assert_eq!(state.virtuals().count(), 2);
}

#[test]
fn two_of_one_place_are_told_apart_and_stay() {
    let (place, next) = (Some(address(PLACE)), Some(address(NEXT)));
    let both = |state: &State| [ONE, OTHER].map(|name| state.virtual_of(&key(name)));
    let mut state = with(vec![block(OTHER), block(ONE)]);
    assert_eq!(both(&state), [place, next], "within a write by name");
    // The first goes: the second does not move into its place.
    run(&mut state, write("cli", vec![without(ONE)])).unwrap();
    assert_eq!(both(&state), [None, next]);
    run(&mut state, write("cli", vec![block(ONE)])).unwrap();
    assert_eq!(both(&state), [place, next], "as it was");

    let mut state = with(vec![block(OTHER)]);
    assert_eq!(both(&state), [None, place]);
    run(&mut state, write("cli", vec![block(ONE)])).unwrap();
    assert_eq!(both(&state), [next, place], "who comes second moves on");
    // A snapshot keeps what was, not what would be.
    let bytes = state.to_snapshot().unwrap();
    let again = State::read_snapshot(bytes.as_slice()).unwrap();
    assert_eq!(both(&again), [next, place]);
    // In one write the one goes and the other comes.
    run(&mut state, write("cli", vec![without(OTHER)])).unwrap();
    let swap = write("cli", vec![block(OTHER), without(ONE)]);
    let (result, touched) = run_at(&mut state, 1, swap);
    result.unwrap();
    assert_eq!(both(&state), [None, place]);
    for (topic, wakes) in [
        (Topic::Address(place.unwrap()), true),
        (Topic::Address(next.unwrap()), true),
        (Topic::Virtual(key(ONE)), true),
        (Topic::Virtual(key("web")), false),
    ] {
        assert_eq!(touched.affects(&topic), wakes, "{topic:?}");
    }
}

#[test]
fn a_restore_brings_the_addresses_of_then() {
    let then = with(vec![block(OTHER), block("web")]);
    let mut then_more = then.clone();
    run(&mut then_more, write("cli", vec![block(ONE)])).unwrap();
    let text = String::from_utf8(then_more.to_snapshot().unwrap()).unwrap();
    // In a cluster where the two came the other way round.
    let mut state = with(vec![block(ONE), block(OTHER), block("db")]);
    assert_eq!(state.virtual_of(&key(ONE)), Some(address(PLACE)));
    for command in Command::restore(&text, "r", "epoch-2").unwrap() {
        run(&mut state, command).unwrap();
    }
    for name in [ONE, OTHER, "web", "db"] {
        assert_eq!(
            state.virtual_of(&key(name)),
            then_more.virtual_of(&key(name)),
            "{name}"
        );
    }
    let index = state.version().index;
    assert_eq!(state.topic_index(&Topic::Address(address(PLACE))), index);
    assert_eq!(state.topic_index(&Topic::Virtual(key("db"))), index);
}

#[test]
fn a_snapshot_of_before_is_given_addresses() {
    let old = include_bytes!("../corpus/snapshot/v1_without_virtual.jsonl");
    let state = State::read_snapshot(old.as_slice()).unwrap();
    assert_eq!(
        state.virtual_of(&key("web")),
        Some(address("248.43.58.223"))
    );
    assert_eq!(state.virtuals().count(), 1);
    let row = state.virtuals().next().unwrap();
    assert_eq!((row.create_index, row.owner.as_str()), (3, "server"));
    assert_eq!((row.created_at, row.modified_at), (1_000, 1_000));
    // From then on they are kept.
    let bytes = state.to_snapshot().unwrap();
    assert!(State::read_snapshot(bytes.as_slice()).unwrap() == state);

    let (mut one, mut two) = (
        without_virtual(&with(vec![block(OTHER), block(ONE)])),
        with(vec![block(ONE), block(OTHER)]),
    );
    assert_eq!(one.virtual_of(&key(ONE)), two.virtual_of(&key(ONE)));
    for state in [&mut one, &mut two] {
        run(state, write("cli", vec![without(ONE)])).unwrap();
    }
    assert_eq!(one.to_snapshot().unwrap(), two.to_snapshot().unwrap());
}

/// The state as it is read from a snapshot of before.
fn without_virtual(state: &State) -> State {
    let text = String::from_utf8(state.to_snapshot().unwrap()).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.pop();
    lines.retain(|line| !line.starts_with("{\"virtual\""));
    State::read_snapshot(sealed(&lines).as_slice()).unwrap()
}
