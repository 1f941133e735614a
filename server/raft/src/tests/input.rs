//! What comes over the network is taken apart carefully: nothing makes a node panic,
//! and noise is refused.

use bytes::Bytes;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use prost::Message;

use super::{Cluster, LONG};
use crate::transport::{FORMAT, Request};
use crate::{Health, pb};

const KINDS: std::ops::RangeInclusive<i32> = 0..=9;

fn request(kind: i32, payload: impl Into<Bytes>) -> Request {
    Request(pb::Request {
        format: FORMAT,
        kind,
        from: 77,
        to: 0,
        payload: payload.into(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_not_ours_are_refused() {
    let cluster = Cluster::start(1).await;
    let node = cluster.node(1);
    let mut newer = request(pb::Kind::Info.into(), "");
    newer.0.format = 2;
    let e = node.handle(newer).await.unwrap_err();
    assert!(e.0.contains("format 2"), "{e}");
    let mut other = request(pb::Kind::Info.into(), "");
    other.0.to = 5;
    let e = node.handle(other).await.unwrap_err();
    assert!(e.0.contains("this is server 1 (s1), not 5"), "{e}");
    let e = node.handle(request(99, "")).await.unwrap_err();
    assert!(e.0.contains("kind 99"), "{e}");
    // Entries with a gap.
    let gap = pb::AppendRequest {
        vote: Some(pb::Vote {
            term: 1,
            node: 77,
            committed: true,
        }),
        entries: vec![pb::Entry {
            id: Some(pb::LogId {
                index: 9,
                ..pb::LogId::default()
            }),
            payload: Some(pb::entry::Payload::Blank(pb::entry::Blank {})),
        }],
        ..pb::AppendRequest::default()
    };
    let gap = request(pb::Kind::Append.into(), gap.encode_to_vec());
    let e = node.handle(gap).await.unwrap_err();
    assert!(e.0.contains("an entry of the sequence is missing"), "{e}");
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_does_no_harm() {
    let cluster = Cluster::start(1).await;
    let node = cluster.node(1);
    node.write("a").await.unwrap();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let bytes = proptest::collection::vec(any::<u8>(), 0..60);
    let any_request = (KINDS, bytes);
    for _ in 0..2000 {
        let (kind, bytes) = any_request.new_tree(&mut runner).unwrap().current();
        let _ = node.handle(request(kind, bytes)).await;
    }
    assert_eq!(node.health(), Health::Ok);
    node.linearize(LONG).await.unwrap();
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_that_do_not_fit_together_are_refused() {
    let cluster = Cluster::start_with(1, |mut c| {
        c.limits.snapshot_bytes = 1000;
        c
    })
    .await;
    let node = cluster.node(1);
    let vote = pb::Vote {
        term: 1000,
        node: 77,
        committed: true,
    };
    let piece = |offset: u64, total: u64, data: &'static [u8]| {
        let piece = pb::SnapshotRequest {
            vote: Some(vote),
            id: "x".to_owned(),
            total,
            offset,
            data: data.into(),
        };
        node.handle(request(pb::Kind::Snapshot.into(), piece.encode_to_vec()))
    };
    let next = |reply: Bytes| pb::SnapshotReply::decode(reply).unwrap().next;
    let e = piece(0, 1001, b"..").await.unwrap_err();
    assert!(e.0.contains("at most 1000"), "{e}");
    let e = piece(0, 1, b"..").await.unwrap_err();
    assert!(e.0.contains("do not fit"), "{e}");
    // Nothing came yet: it wants the begin.
    assert_eq!(next(piece(2, 4, b"..").await.unwrap()), 0);
    assert_eq!(next(piece(0, 4, b"..").await.unwrap()), 2);
    // The same again, as after a lost answer.
    assert_eq!(next(piece(1, 4, b"..").await.unwrap()), 2);
    let e = piece(2, 4, b"..").await.unwrap_err();
    assert!(e.0.contains("cut off"), "{e}");
    // And again from its begin.
    assert_eq!(next(piece(2, 4, b"..").await.unwrap()), 0);
    assert_eq!(next(piece(0, 4, b"..").await.unwrap()), 2);
    let e = piece(2, 4, b"..").await.unwrap_err();
    assert!(e.0.contains("cut off"), "{e}");
    // Nothing stays behind.
    let folder = cluster.dir.path().join("s1/snapshots");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
    assert_eq!(node.health(), Health::Ok);
    cluster.stop_all().await;
}
