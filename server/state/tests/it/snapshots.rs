//! Snapshots: whole or an error.

use mesh_model::{Action, EntryKey};
use mesh_state::{Command, SnapshotError, State, inspect};

use crate::make::*;

fn full() -> State {
    let mut state = cluster();
    let node = node("n1", "10.0.0.1");
    run(&mut state, Command::RegisterNode { node }).unwrap();
    let put_web = Command::PutInstance {
        node: "n1".into(),
        stream: LAST,
        instance: instance("n1", "web-1", "web", true),
    };
    run(&mut state, put_web).unwrap();
    let ops = vec![
        put(mesh(Some(Action::Allow))),
        put(service("web", "a")),
        put(service("db", "a")),
        put(route("web", "v1")),
        put(intention("*", "web", Action::Deny)),
    ];
    run(&mut state, write("cli", ops)).unwrap();
    let ops = vec![delete(EntryKey::Service(key("db")))];
    run(&mut state, write("cli", ops)).unwrap();
    let ca = serde_json::json!({"roots": ["PEM"], "key": {"sealed": "c2VjcmV0"}});
    let ca = Command::PutCa {
        value: ca,
        cas: None,
    };
    run(&mut state, ca).unwrap();
    state
}

/// Rewrites a line and makes the trailer right again.
fn forge(bytes: &[u8], line: usize, text: &str) -> Vec<u8> {
    let all = std::str::from_utf8(bytes).unwrap();
    let mut lines: Vec<&str> = all.lines().collect();
    lines.pop();
    lines[line - 1] = text;
    sealed(&lines)
}

#[test]
fn it_comes_back_as_it_was() {
    let state = full();
    let bytes = state.to_snapshot().unwrap();
    let again = State::read_snapshot(bytes.as_slice()).unwrap();
    assert!(again == state);
    assert_eq!(again.to_snapshot().unwrap(), bytes);
    assert_eq!(
        again.endpoints(&key("web")).len(),
        1,
        "indexes are made anew"
    );
    let empty = State::new();
    let bytes = empty.to_snapshot().unwrap();
    assert!(State::read_snapshot(bytes.as_slice()).unwrap() == empty);
}

#[test]
fn the_format_is_kept() {
    // Old snapshots are read for ever: what is written here may gain lines
    // and fields, and this text must always load.
    let bytes = full().to_snapshot().unwrap();
    let old = include_bytes!("../corpus/snapshot/v1.jsonl");
    assert_eq!(
        String::from_utf8(bytes).unwrap(),
        String::from_utf8(old.to_vec()).unwrap()
    );
    assert!(State::read_snapshot(old.as_slice()).unwrap() == full());
}

#[test]
fn what_is_cut_off_is_refused_at_every_byte() {
    let bytes = full().to_snapshot().unwrap();
    for end in 0..bytes.len() {
        let cut = bytes.get(..end).unwrap();
        assert!(State::read_snapshot(cut).is_err(), "cut at {end}");
        assert!(inspect(cut).is_err(), "cut at {end}");
    }
}

#[test]
fn a_flipped_bit_is_found() {
    let bytes = full().to_snapshot().unwrap();
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        assert!(State::read_snapshot(bad.as_slice()).is_err(), "byte {at}");
    }
    let mut long = bytes;
    long.push(b'\n');
    let error = State::read_snapshot(long.as_slice()).unwrap_err();
    assert!(error.to_string().contains("after its trailer"), "{error}");
}

#[test]
fn what_is_not_known_is_named_with_its_line() {
    let bytes = full().to_snapshot().unwrap();
    for (text, expected) in [
        (r#"{"door":{"row":{}}}"#, "unknown variant `door`"),
        (
            r#"{"mesh":{"row":{"value":{"mode":1},"owner":"cli","create_index":1,"modify_index":1,"created_at":1,"modified_at":1}}}"#,
            "unknown field `mode`",
        ),
        (
            r#"{"mesh":{"row":{"value":{},"owner":"cli","create_index":1,"modify_index":1,"created_at":1,"modified_at":1,"by":1}}}"#,
            "unknown field `by`",
        ),
        (
            r#"{"mesh":{"row":{"value":{},"owner":"cli","create_index":1,"modify_index":1,"created_at":2,"modified_at":1}}}"#,
            "changed before it was made",
        ),
        (
            r#"{"mesh":{"row":{"value":{},"owner":"cli","create_index":1,"modify_index":1,"created_at":1,"modified_at":1001}}}"#,
            "after the snapshot's",
        ),
        (r#"{"mesh":{"floor":999}}"#, "above the snapshot's"),
        (r#"{"staging":{"restore":"x","text":"y"}}"#, "has not begun"),
        (
            r#"{"snapshot":{"v":1,"level":1,"epoch":"","index":1,"now":1}}"#,
            "second header",
        ),
        ("nonsense", "expected"),
        ("", "EOF"),
    ] {
        let error = State::read_snapshot(forge(&bytes, 3, text).as_slice()).unwrap_err();
        assert!(
            matches!(error, SnapshotError::Line { line: 3, .. }),
            "{error}"
        );
        assert!(error.to_string().contains(expected), "{text}: {error}");
    }
}

#[test]
fn newer_ones_say_so() {
    let bytes = full().to_snapshot().unwrap();
    for (header, expected) in [
        (r#"{"snapshot":{"v":2,"shards":3}}"#, "version 2"),
        (
            r#"{"snapshot":{"v":1,"level":99,"epoch":"e","index":9,"now":1}}"#,
            "level 99",
        ),
        (r#"{"snapshot":{"v":0}}"#, "not a snapshot"),
        (r#"{"end":{"lines":0,"sha256":""}}"#, "not a snapshot"),
        (
            r#"{"snapshot":{"v":1,"level":1,"epoch":"e","index":18446744073709551615,"now":1}}"#,
            "absurd",
        ),
    ] {
        let error = State::read_snapshot(forge(&bytes, 1, header).as_slice()).unwrap_err();
        assert!(error.to_string().contains(expected), "{header}: {error}");
    }
    let error = State::read_snapshot(&b""[..]).unwrap_err();
    assert_eq!(error.to_string(), "this is not a snapshot: it is empty");
}

#[test]
fn inconsistent_rows_are_refused() {
    let bytes = full().to_snapshot().unwrap();
    let text = String::from_utf8(bytes.clone()).unwrap();
    let line = |start: &str| 1 + text.lines().position(|l| l.starts_with(start)).unwrap();
    let filler = r#"{"mesh":{"floor":1}}"#;
    for start in ["{\"node\"", "{\"endpoints\"", "{\"instance\""] {
        let forged = forge(&bytes, line(start), filler);
        let error = State::read_snapshot(forged.as_slice()).unwrap_err();
        assert!(
            matches!(error, SnapshotError::Damaged(_)),
            "{start}: {error}"
        );
    }
    let virtual_of = |address: &str, name: &str| {
        let value = format!(
            r#"{{"address":"{address}","service":{{"namespace":"default","name":"{name}"}}}}"#
        );
        format!(
            r#"{{"virtual":{{"row":{{"value":{value},"owner":"server","create_index":1,"modify_index":1,"created_at":1,"modified_at":1}}}}}}"#
        )
    };
    let web = line("{\"virtual\"");
    for (place, text, expected) in [
        (
            web,
            virtual_of("240.0.0.1", "db"),
            "not those of the services",
        ),
        (
            web,
            r#"{"virtual":{"floor":1}}"#.to_owned(),
            "not those of the services",
        ),
        (
            line("{\"mesh\""),
            virtual_of("240.0.0.1", "web"),
            "two addresses",
        ),
        (
            line("{\"mesh\""),
            virtual_of("248.43.58.223", "db"),
            "two services",
        ),
        (web, virtual_of("10.0.0.1", "web"), "no virtual address"),
    ] {
        let error = State::read_snapshot(forge(&bytes, place, &text).as_slice()).unwrap_err();
        assert!(error.to_string().contains(expected), "{text}: {error}");
    }
    let service = line("{\"service\"");
    let twice = text.lines().nth(service - 1).unwrap();
    let forged = forge(&bytes, line("{\"mesh\""), twice);
    let error = State::read_snapshot(forged.as_slice()).unwrap_err();
    assert!(error.to_string().contains("twice"), "{error}");
}

#[test]
fn inspect_counts_and_shows_no_row() {
    let state = full();
    let bytes = state.to_snapshot().unwrap();
    let summary = inspect(bytes.as_slice()).unwrap();
    assert_eq!(summary.index, state.version().index);
    assert_eq!(summary.epoch, "epoch-1");
    assert_eq!(summary.cluster_id, "cluster-1");
    assert_eq!(summary.bytes, bytes.len() as u64);
    let services = summary.tables["service"];
    assert_eq!((services.rows, services.tombstones), (1, 1));
    assert_eq!(summary.tables["ca"].rows, 1);
    assert!(
        !serde_json::to_string(&summary)
            .unwrap()
            .contains("c2VjcmV0")
    );
    assert!(!format!("{state:?}").contains("c2VjcmV0"));
}
