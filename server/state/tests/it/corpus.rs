//! The fuzz targets over what was found or thought of before.

use std::fs;
use std::path::Path;

use mesh_state::fuzz;
use proptest::prelude::*;

fn corpus(folder: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(folder);
    let files = fs::read_dir(folder).unwrap().map(|file| {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        (name, fs::read(file.path()).unwrap())
    });
    files.collect()
}

#[test]
fn snapshots_replay() {
    let files = corpus("snapshot");
    assert!(files.len() > 3);
    for (_, bytes) in files {
        fuzz::snapshot(&bytes);
    }
}

/// Those that are meant to be commands are: a form that changed would make the
/// whole corpus one of noise.
#[test]
fn commands_replay() {
    let wrong = [
        "deep.json",
        "empty.json",
        "level_of_tomorrow.json",
        "unknown.json",
    ];
    let files = corpus("command");
    assert!(files.len() > wrong.len() + 10);
    for (name, bytes) in files {
        let is_command = fuzz::command(&bytes);
        assert_eq!(is_command, !wrong.contains(&name.as_str()), "{name}");
    }
}

/// Cuts, repeats and replaces pieces of a text that is right.
fn damaged(text: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just(r#""mesh""#.to_owned()),
        Just("null".to_owned()),
        Just("-1".to_owned()),
        Just("{}".to_owned()),
        Just("[]".to_owned()),
        Just("18446744073709551615".to_owned()),
        "[ -~]{0,8}",
    ];
    let edit = (any::<prop::sample::Index>(), 0..6_usize, word);
    prop::collection::vec(edit, 0..4).prop_map(move |edits| {
        let mut bytes = text.as_bytes().to_vec();
        for (at, length, word) in edits {
            let at = at.index(bytes.len() + 1);
            let end = (at + length).min(bytes.len());
            bytes.splice(at..end, word.bytes());
        }
        bytes
    })
}

proptest! {
    #[test]
    fn damaged_snapshots(data in damaged(include_str!("../corpus/snapshot/v1.jsonl"))) {
        fuzz::snapshot(&data);
    }

    #[test]
    fn damaged_commands(data in damaged(include_str!("../corpus/command/transaction.json"))) {
        fuzz::command(&data);
    }

    #[test]
    fn noise(data in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz::snapshot(&data);
        fuzz::command(&data);
    }
}
