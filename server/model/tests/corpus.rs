//! Replays the corpus of each fuzz target, whole, cut short and spoilt: what
//! once made trouble, and one file of every form, stands in `corpus/`.

use std::path::Path;

use proptest::prelude::*;

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 3] = [
    ("hcl", mesh_model::fuzz::hcl),
    ("instance", mesh_model::fuzz::instance),
    ("config_entry", mesh_model::fuzz::config_entry),
];

fn files(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let listed = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut paths: Vec<_> = listed.map(|entry| entry.map(|e| e.path())).collect();
    paths.sort_by_key(|path| path.as_ref().ok().cloned());
    let read = paths.into_iter().map(|path| path.and_then(std::fs::read));
    read.map(|data| data.unwrap_or_else(|error| panic!("{folder:?}: {error}")))
        .collect()
}

#[test]
fn the_corpus_is_replayed() {
    for (target, run) in TARGETS {
        let files = files(target);
        assert!(!files.is_empty(), "{target}");
        for data in files {
            run(&data);
        }
    }
}

#[test]
fn files_that_are_cut_short() {
    for (target, run) in TARGETS {
        for data in files(target) {
            for end in (0..data.len()).step_by(1 + data.len() / 200) {
                run(data.get(..end).unwrap_or_default());
            }
        }
    }
}

/// What a file is spoilt with.
const SPOIL: &[&[u8]] = &[
    b"{", b"}", b"\"", b"\n", b"=", b"[", b"\\", b"${", b"<<E\n", b"-1", b"1e400", b"null", b"*",
    b"\xff", b"",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_text(text in "(\\PC|[ \n\"{}=\\[\\],$%#/<-]){0,200}") {
        for (_, run) in TARGETS {
            run(text.as_bytes());
        }
    }

    #[test]
    fn files_that_are_spoilt(
        target in 0..TARGETS.len(),
        file in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        with in prop::sample::select(SPOIL),
        cut in 0..20usize,
    ) {
        let (name, run) = TARGETS[target];
        let all = files(name);
        let mut data = file.get(&all).clone();
        let at = at.index(data.len() + 1);
        let end = (at + cut).min(data.len());
        data.splice(at..end, with.iter().copied());
        run(&data);
    }
}
