//! Replays the corpus of configs, whole, cut short and spoilt.
#![allow(missing_docs)]

use proptest::prelude::*;

fn corpus() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/config");
    let files: Vec<Vec<u8>> = std::fs::read_dir(folder)
        .expect("the corpus is there")
        .map(|entry| std::fs::read(entry.expect("an entry").path()).expect("a file"))
        .collect();
    assert!(files.len() >= 4);
    files
}

#[test]
fn whole_and_cut_short() {
    for file in corpus() {
        for end in 0..=file.len() {
            mesh_proto::config::fuzz(&file[..end]);
        }
    }
}

proptest! {
    #[test]
    fn spoilt(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte: u8) {
        let files = corpus();
        let mut file = which.get(&files).clone();
        let at = at.index(file.len());
        file[at] = byte;
        mesh_proto::config::fuzz(&file);
    }

    #[test]
    fn anything(data in proptest::collection::vec(any::<u8>(), 0..400)) {
        mesh_proto::config::fuzz(&data);
    }
}
