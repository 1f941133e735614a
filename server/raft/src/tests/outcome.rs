//! A write says whether it was made; a read that cannot be vouched for is refused.

use std::time::Duration;

use super::{Cluster, LONG};
use crate::{ReadError, WriteError};

const SHORT: Duration = Duration::from_millis(1500);

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_refuses_reads_and_writes() {
    let cluster = Cluster::start_with(3, |mut c| {
        c.write_timeout = Duration::from_millis(300);
        c
    })
    .await;
    let old = cluster.leader().await;
    cluster.node(old).write("a").await.unwrap();
    cluster.net.cut_off(old, true);

    // It does not know yet: the write is logged there, and its outcome is open.
    let unknown = cluster.node(old).write("lost").await;
    assert!(
        matches!(unknown, Err(WriteError::Unknown { .. })),
        "{unknown:?}"
    );
    let read = cluster.node(old).linearize(SHORT).await;
    assert_eq!(read, Err(ReadError::NoQuorum));

    let others: Vec<u64> = (1..=3).filter(|id| *id != old).collect();
    let new = cluster.leader_among(&others).await;
    let written = cluster.node(new).write("b").await.unwrap();

    // By now it knows: nothing is logged any more.
    let mut leadership = cluster.node(old).watch_leadership();
    let lost = leadership.wait_for(|l| !l.is_leader);
    tokio::time::timeout(LONG, lost).await.unwrap().unwrap();
    let refused = cluster.node(old).write("c").await.unwrap_err();
    assert!(refused.not_written(), "{refused:?}");
    let refused = cluster.node(old).write_anywhere("c", SHORT).await;
    assert_eq!(refused, Err(WriteError::NoQuorum));

    cluster.net.cut_off(old, false);
    cluster.applied(old, written.index).await;
    assert!(cluster.node(old).linearize(LONG).await.unwrap() >= written.index);
    assert_eq!(cluster.machine(old).commands(), ["a", "b"]);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_is_cut_off_refuses_linearizable_reads() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let follower = leader % 3 + 1;
    cluster.net.cut_off(follower, true);
    let read = cluster.node(follower).linearize(SHORT).await;
    assert!(matches!(read, Err(ReadError::NoLeader { .. })), "{read:?}");
    let write = cluster.node(follower).write_anywhere("a", SHORT).await;
    assert!(
        matches!(write, Err(WriteError::NoLeader { .. })),
        "{write:?}"
    );
    assert_eq!(cluster.machine(leader).commands().len(), 0);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forwarded_write_whose_answer_is_lost_is_not_sent_again() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.node(leader % 3 + 1);
    cluster.net.mute(leader, true);
    let write = follower.write_anywhere("once", LONG).await;
    assert!(
        matches!(write, Err(WriteError::Unknown { .. })),
        "{write:?}"
    );
    cluster.net.mute(leader, false);
    follower.write_anywhere("after", LONG).await.unwrap();
    assert_eq!(cluster.machine(leader).commands(), ["once", "after"]);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_finds_the_leader_that_comes() {
    let cluster = Cluster::start(3).await;
    let old = cluster.leader().await;
    let node = cluster.node(old % 3 + 1).clone();
    cluster.stop(old).await;
    // Nobody leads now; the write waits for who will.
    node.write_anywhere("a", LONG).await.unwrap();
    node.linearize(LONG).await.unwrap();
    assert_eq!(cluster.machine(old % 3 + 1).commands(), ["a"]);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_cluster_takes_nothing() {
    let cluster = Cluster::start(1).await;
    let other = cluster.run(super::config(9, cluster.dir.path())).await;
    let write = other.node.write("a").await;
    assert_eq!(write, Err(WriteError::NotLeader { leader: None }));
    let read = other.node.linearize(Duration::from_millis(100)).await;
    assert!(matches!(read, Err(ReadError::NoLeader { .. })), "{read:?}");
    other.node.shutdown().await;
    let write = other.node.write("a").await.unwrap_err();
    assert!(write.not_written(), "{write:?}");
    let read = other.node.linearize(LONG).await;
    assert!(matches!(read, Err(ReadError::Stopped { .. })), "{read:?}");
    let joined = other.node.join("s1:8701", LONG).await;
    assert!(
        matches!(joined, Err(crate::MemberError::Stopped { .. })),
        "{joined:?}"
    );
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_another_leader_cut_off_is_not_called_unwritten() {
    let cluster = Cluster::start(3).await;
    let old = cluster.leader().await;
    cluster.net.cut_off(old, true);
    let node = cluster.node(old).clone();
    let pending = tokio::spawn(async move { node.write("logged here only").await });
    let others: Vec<u64> = (1..=3).filter(|id| *id != old).collect();
    let new = cluster.leader_among(&others).await;
    cluster.node(new).write("b").await.unwrap();
    cluster.net.cut_off(old, false);
    // openraft says "not the leader" here too. But an entry that one log lost may
    // stand in another, and be committed from there.
    let Err(WriteError::Unknown { reason }) = pending.await.unwrap() else {
        panic!("it cannot know");
    };
    assert!(reason.contains("lost its leadership"), "{reason}");
    cluster.stop_all().await;
}
