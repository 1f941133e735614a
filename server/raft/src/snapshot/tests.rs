#![allow(clippy::unwrap_used)]
//! Snapshot files.

use std::fs;
use std::io::{Read, Write};

use bytes::Bytes;
use openraft::CommittedLeaderId;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::error::SnapshotError;
use crate::machine::SnapshotSource;
use crate::tests::Picture;
use crate::types::{LogId, Membership, PeerNode, StoredMembership};

pub(super) fn header(index: u64) -> Header {
    let node = PeerNode {
        name: "s1".into(),
        addr: "h:1".into(),
    };
    let membership = Membership::new(vec![BTreeSet::from([1])], BTreeMap::from([(1, node)]));
    let log_id = |index| LogId::new(CommittedLeaderId::new(2, 1), index);
    Header {
        id: format!("2-1-{index}"),
        last: Some(log_id(index)),
        membership: StoredMembership::new(Some(log_id(0)), membership),
        machine_format: 4,
    }
}

pub(super) fn picture() -> Picture {
    Picture(
        (0..20)
            .map(|n| Bytes::from(format!("command {n}")))
            .collect(),
    )
}

fn snapshots(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|row| row.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn what_is_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (store, newest) = SnapshotStore::open(dir.path().join("s")).unwrap();
    assert!(newest.is_none() && store.info().is_none());
    store.build(&header(7), &picture()).unwrap();
    let info = store.info().unwrap();
    assert_eq!((info.index, info.term, info.machine_format), (7, 2, 4));
    assert_eq!(inspect(&info.file).unwrap(), info);

    let (_, newest) = SnapshotStore::open(dir.path().join("s")).unwrap();
    let (path, found, mut body) = newest.unwrap();
    assert_eq!((path, found), (info.file, header(7)));
    let mut bytes = Vec::new();
    body.read_to_end(&mut bytes).unwrap();
    let mut expected = Vec::new();
    picture().write_to(&mut expected).unwrap();
    assert_eq!(bytes, expected);
}

#[test]
fn the_older_one_stays_until_the_newer_one_is_whole() {
    struct Fails;
    impl SnapshotSource for Fails {
        fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
            out.write_all(b"half of it")?;
            Err(io::ErrorKind::StorageFull.into())
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = SnapshotStore::open(dir.path().to_owned()).unwrap();
    store.build(&header(7), &picture()).unwrap();
    let e = store.build(&header(8), &Fails).unwrap_err();
    assert!(matches!(e, SnapshotError::Io { .. }), "{e}");
    assert_eq!(store.info().unwrap().index, 7);
    assert_eq!(snapshots(dir.path()).len(), 1);

    store.build(&header(9), &picture()).unwrap();
    assert_eq!(store.info().unwrap().index, 9);
    assert_eq!(snapshots(dir.path()).len(), 1);
    // An older one does not take its place.
    store.build(&header(8), &picture()).unwrap();
    assert_eq!(store.info().unwrap().index, 9);
}

#[test]
fn what_a_crash_left_behind_goes() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = SnapshotStore::open(dir.path().to_owned()).unwrap();
    store.build(&header(7), &picture()).unwrap();
    let older = store.info().unwrap().file;
    let kept = fs::read(&older).unwrap();
    store.build(&header(9), &picture()).unwrap();
    fs::write(&older, kept).unwrap(); // not yet removed
    fs::write(dir.path().join("incoming-3.tmp"), "half").unwrap();
    let (store, newest) = SnapshotStore::open(dir.path().to_owned()).unwrap();
    assert_eq!(newest.unwrap().1, header(9));
    assert_eq!(store.info().unwrap().index, 9);
    assert_eq!(snapshots(dir.path()).len(), 1);
}

#[test]
fn the_form_on_disk_is_fixed() {
    let json = serde_json::to_string(&header(7)).unwrap();
    assert_eq!(
        json,
        r#"{"id":"2-1-7","last":{"term":2,"node":1,"index":7},"membership":{"log_id":{"term":2,"node":1,"index":0},"configs":[[1]],"nodes":[{"id":1,"name":"s1","addr":"h:1"}]},"machine_format":4}"#
    );
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = SnapshotStore::open(dir.path().to_owned()).unwrap();
    store.build(&header(7), &picture()).unwrap();
    let bytes = fs::read(store.info().unwrap().file).unwrap();
    assert_eq!(&bytes[..12], b"MESHSNAP\0\0\0\x01");
    assert_eq!(&bytes[16..16 + json.len()], json.as_bytes());
}

fn checked(bytes: &[u8]) -> Result<SnapshotInfo, SnapshotError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.snap");
    fs::write(&file, bytes).unwrap();
    inspect(&file)
}

fn good() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = SnapshotStore::open(dir.path().to_owned()).unwrap();
    store.build(&header(7), &picture()).unwrap();
    fs::read(store.info().unwrap().file).unwrap()
}

#[test]
fn damage_is_named() {
    let good = good();
    for (bytes, why) in [
        (b"".to_vec(), "cut off"),
        (b"MESHSNAP".to_vec(), "cut off"),
        (good[..good.len() - 1].to_vec(), "cut off or damaged"),
        (b"PK\x03\x04".repeat(100), "not a snapshot of this program"),
    ] {
        let e = checked(&bytes).unwrap_err().to_string();
        assert!(e.contains("x.snap") && e.contains(why), "{e}");
    }
    let mut newer = good;
    newer[11] = 2;
    let e = checked(&newer).unwrap_err();
    assert!(
        matches!(
            e,
            SnapshotError::Version {
                found: 2,
                known: 1,
                ..
            }
        ),
        "{e}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_flip_cut_or_addition_is_an_error(at: proptest::sample::Index, bit in 0u8..8, how in 0..3) {
        let mut bytes = good();
        let at = at.index(bytes.len());
        match how {
            0 => bytes[at] ^= 1 << bit,
            1 => bytes.truncate(at),
            _ => bytes.insert(at, bit),
        }
        prop_assert!(checked(&bytes).is_err());
    }

    #[test]
    fn noise_is_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = bytes;
        prop_assert!(checked(&bytes).is_err());
        bytes.splice(0..0, *b"MESHSNAP\0\0\0\x01");
        prop_assert!(checked(&bytes).is_err());
    }
}
