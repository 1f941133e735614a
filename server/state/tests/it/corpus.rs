//! The fuzz targets over what was found or thought of before.

use std::fs;
use std::path::Path;

use mesh_state::fuzz;
use proptest::prelude::*;

fn replay(target: fn(&[u8]), folder: &str) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(folder);
    let files: Vec<_> = fs::read_dir(folder).unwrap().collect();
    for file in &files {
        target(&fs::read(file.as_ref().unwrap().path()).unwrap());
    }
    files.len()
}

#[test]
fn replays() {
    assert!(replay(fuzz::snapshot, "snapshot") > 3);
    assert!(replay(fuzz::command, "command") > 10);
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
