//! What a cluster does when all is well, and when servers come and go.

use std::collections::HashSet;
use std::time::Duration;

use futures::future::join_all;

use super::{Cluster, LONG, config, id_of, peer};
use crate::testing::PowerLoss;
use crate::{Health, MemberError, Role, WriteError};

#[tokio::test(flavor = "multi_thread")]
async fn a_write_through_a_follower_is_applied_everywhere() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let follower = if leader == 1 { 2 } else { 1 };
    let node = cluster.node(follower);

    let written = node.write_anywhere("a", LONG).await.unwrap();
    assert_eq!(written.answer, "1");
    for id in 1..=3 {
        cluster.applied(id, written.index).await;
        assert_eq!(cluster.machine(id).commands(), ["a"]);
    }
    // A linearizable read through a follower sees a write through the leader.
    let written = cluster.node(leader).write("b").await.unwrap();
    assert!(node.linearize(LONG).await.unwrap() >= written.index);
    assert_eq!(cluster.machine(follower).commands(), ["a", "b"]);

    let refused = node.write("c").await;
    let Err(WriteError::NotLeader { leader: Some(hint) }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(hint, peer(leader));

    let status = node.status();
    assert_eq!(status.role, Role::Follower);
    assert_eq!(status.leader, Some(peer(leader)));
    assert_eq!(status.voters, [peer(1), peer(2), peer(3)]);
    assert_eq!(status.health, Health::Ok);
    assert!(status.last_contact.unwrap() < LONG);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_leader_stops_another_leads_and_a_restart_has_the_same_state() {
    let mut cluster = Cluster::start(3).await;
    let first = cluster.leader().await;
    cluster.node(first).write("a").await.unwrap();
    cluster.stop(first).await;

    let others: Vec<u64> = (1..=3).filter(|id| *id != first).collect();
    let second = cluster.leader_among(&others).await;
    assert_ne!(first, second);
    let written = cluster.node(second).write("b").await.unwrap();

    cluster.restart(first).await;
    cluster.applied(first, written.index).await;
    assert_eq!(cluster.machine(first).commands(), ["a", "b"]);
    cluster.stop_all().await;
}

/// It leads on in its term, and what it had acknowledged was perhaps not yet
/// written down as committed.
#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_leader_proves_nothing_less_than_it_had_acknowledged() {
    let mut cluster = Cluster::start(3).await;
    for round in 0..5 {
        let leader = cluster.leader().await;
        let mut last = 0;
        for n in 0..10 {
            let written = cluster.node(leader).write(format!("{round}.{n}")).await;
            last = written.unwrap().index;
        }
        cluster.stop(leader).await;
        cluster.restart(leader).await;
        let proved = cluster.node(leader).linearize(LONG).await.unwrap();
        assert!(proved >= last, "{proved} < {last}");
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_alone_keeps_everything_over_restarts() {
    let mut cluster = Cluster::start_with(1, |mut c| {
        c.snapshot_every = 4;
        c.log_tail = 1;
        c
    })
    .await;
    let mut expected = Vec::new();
    for round in 0..3 {
        for n in 0..5 {
            let command = format!("{round}.{n}");
            cluster
                .node(1)
                .write_anywhere(command.clone(), LONG)
                .await
                .unwrap();
            expected.push(command);
        }
        cluster.restart(1).await;
        cluster.node(1).linearize(LONG).await.unwrap();
        assert_eq!(cluster.machine(1).commands(), expected);
    }
    let status = cluster.node(1).status();
    assert!(
        status.snapshot.is_some() && status.purged.is_some(),
        "{status:?}"
    );
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lags_gets_a_snapshot() {
    let mut cluster = Cluster::start_with(3, |mut c| {
        c.log_tail = 0;
        c.limits.snapshot_chunk_bytes = 100; // many pieces
        c
    })
    .await;
    let leader = cluster.leader().await;
    let lagging = if leader == 3 { 2 } else { 3 };
    cluster.stop(lagging).await;
    for n in 0..50 {
        cluster
            .node(leader)
            .write(format!("command {n}"))
            .await
            .unwrap();
    }
    let info = cluster.node(leader).trigger_snapshot(LONG).await.unwrap();
    assert_eq!(crate::inspect(&info.file).unwrap(), info);
    // What is on its way to a follower is purged once the attempt has failed.
    let wait = cluster.node(leader).inner.raft.wait(Some(LONG));
    let purged = |m: &crate::types::Metrics| m.purged.is_some_and(|id| id.index >= info.index);
    wait.metrics(purged, "purged").await.unwrap();
    let last = cluster.node(leader).write("last").await.unwrap();

    cluster.restart(lagging).await;
    cluster.applied(lagging, last.index).await;
    let (theirs, ours) = (cluster.machine(lagging), cluster.machine(leader));
    assert_eq!(theirs.commands(), ours.commands());
    assert!(
        theirs.entries().len() < 10,
        "it was not replayed entry by entry"
    );
    assert_eq!(
        cluster.node(lagging).latest_snapshot().unwrap().index,
        info.index
    );

    // And it starts from that snapshot again.
    cluster.restart(lagging).await;
    cluster.applied(lagging, last.index).await;
    assert_eq!(
        cluster.machine(lagging).commands(),
        cluster.machine(leader).commands()
    );
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_join_move_and_leave() {
    let mut cluster = Cluster::start(1).await;
    cluster.node(1).write("a").await.unwrap();
    for id in [2, 3] {
        let member = cluster.run(config(id, cluster.dir.path())).await;
        // Before it decides, it asks.
        let info = member.node.probe(&peer(1).addr, LONG).await.unwrap();
        assert!(info.initialized);
        assert_eq!((info.node, info.leader), (peer(1), Some(peer(1))));
        assert!(!member.node.is_initialized().await.unwrap());
        // Through any server: the second asks a follower.
        member.node.join(&peer(id - 1).addr, LONG).await.unwrap();
        cluster.nodes.push(member);
    }
    let status = cluster.node(1).status();
    assert_eq!(status.voters, [peer(1), peer(2), peer(3)]);
    assert_eq!(status.learners, []);
    let written = cluster.node(3).write_anywhere("b", LONG).await.unwrap();
    cluster.applied(3, written.index).await;
    assert_eq!(cluster.machine(3).commands(), ["a", "b"]);

    // A server that is there comes with another address.
    let mut moved = peer(3);
    moved.addr = "elsewhere:8701".to_owned();
    cluster
        .node(2)
        .add_voter(moved.clone(), LONG)
        .await
        .unwrap();
    assert_eq!(cluster.node(1).status().voters[2], moved);
    cluster.node(2).add_voter(peer(3), LONG).await.unwrap();

    // Through a follower; and then the leader itself.
    cluster.node(2).remove_peer(3, LONG).await.unwrap();
    assert_eq!(cluster.node(1).status().voters, [peer(1), peer(2)]);
    let unknown = cluster.node(1).remove_peer(3, LONG).await;
    assert_eq!(unknown, Err(MemberError::NotMember(3)));
    cluster.stop(3).await;
    cluster.node(1).remove_peer(1, LONG).await.unwrap();
    assert_eq!(cluster.leader_among(&[2]).await, 2);
    cluster.node(2).write("c").await.unwrap();
    let last = cluster.node(2).remove_peer(2, LONG).await;
    assert_eq!(last, Err(MemberError::LastVoter(2)));
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_made_once() {
    let mut cluster = Cluster::start(1).await;
    let again = cluster.node(1).bootstrap(vec![peer(1)]).await;
    assert_eq!(again, Err(MemberError::AlreadyInitialized));
    cluster.restart(1).await;
    assert!(cluster.node(1).is_initialized().await.unwrap());
    let again = cluster.node(1).bootstrap(vec![peer(1)]).await;
    assert_eq!(again, Err(MemberError::AlreadyInitialized));

    let other = cluster.run(config(2, cluster.dir.path())).await;
    for (peers, why) in [
        (vec![peer(1)], "not among"),
        (vec![peer(2), peer(2)], "two servers have the id 2"),
        (vec![peer(2), crate::Peer::default()], "the id 0"),
    ] {
        let e = other.node.bootstrap(peers).await.unwrap_err();
        assert!(e.to_string().contains(why), "{e}");
    }
    assert!(!other.node.is_initialized().await.unwrap());
    other.node.shutdown().await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_come_together_share_an_entry() {
    const WRITERS: usize = 1000;
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let node = cluster.node(leader);
    let writes = (0..WRITERS).map(|n| node.write(format!("{n}")));
    let written = join_all(writes).await;
    let written: Vec<_> = written.into_iter().map(Result::unwrap).collect();

    let entries: HashSet<u64> = written.iter().map(|w| w.index).collect();
    assert!(entries.len() < WRITERS / 10, "{} entries", entries.len());
    // Each got its own answer: the machine has its command at that place.
    let commands = cluster.machine(leader).commands();
    assert_eq!(commands.len(), WRITERS);
    for (n, write) in written.iter().enumerate() {
        let place: usize = std::str::from_utf8(&write.answer).unwrap().parse().unwrap();
        assert_eq!(commands[place - 1], n.to_string());
    }
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_has_a_bounded_size() {
    let cluster = Cluster::start_with(1, |mut c| {
        c.limits.batch_bytes = 100;
        c.limits.command_bytes = 400;
        c.limits.append_bytes = 200;
        c
    })
    .await;
    let node = cluster.node(1);
    let large = vec![b'x'; 400];
    let commands = [&large[..], &large[..60], &large[..60], &large[..40]];
    let written = join_all(commands.map(|c| node.write(c.to_vec()))).await;
    let indexes: Vec<u64> = written.into_iter().map(|w| w.unwrap().index).collect();
    // The large one alone; 60 and 60 are more than 100.
    assert!(
        indexes[0] < indexes[1] && indexes[1] < indexes[2],
        "{indexes:?}"
    );
    assert_eq!(indexes[2], indexes[3]);
    let too_large = node.write(vec![b'x'; 401]).await;
    let expected = WriteError::TooLarge {
        bytes: 401,
        limit: 400,
    };
    assert_eq!(too_large, Err(expected));
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_told() {
    let cluster = Cluster::start(3).await;
    let first = cluster.leader().await;
    let mut seen = cluster.node(first % 3 + 1).watch_leadership();
    let of = |id| move |l: &crate::Leadership| l.leader.as_ref().is_some_and(|p| p.id == id);
    tokio::time::timeout(LONG, seen.wait_for(of(first)))
        .await
        .unwrap()
        .unwrap();
    cluster.stop(first).await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != first).collect();
    let second = cluster.leader_among(&others).await;
    tokio::time::timeout(LONG, seen.wait_for(of(second)))
        .await
        .unwrap()
        .unwrap();
    assert!(!cluster.node(first).is_leader() && cluster.node(first).leader().is_none());
    assert_eq!(id_of(cluster.node(second)), second);
    assert!(cluster.node(second).last_contact().unwrap() < Duration::from_secs(30));
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_write_gets_over_a_slow_line() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    // Six times what openraft gives an append.
    cluster.net.slow(10_000, Duration::from_millis(300));
    let written = cluster
        .node(leader)
        .write(vec![b'x'; 20_000])
        .await
        .unwrap();
    for id in 1..=3 {
        cluster.applied(id, written.index).await;
    }
    // Once to each follower; it was not begun anew while it was on its way.
    assert_eq!(cluster.net.slowed(), 2);
    assert_eq!(cluster.leader().await, leader, "heartbeats went on");
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_servers_may_bootstrap_at_once() {
    let mut cluster = Cluster::start(0).await;
    for id in 1..=3 {
        let member = cluster.run(config(id, cluster.dir.path())).await;
        cluster.nodes.push(member);
    }
    let peers: Vec<_> = (1..=3).map(peer).collect();
    let all = cluster
        .nodes
        .iter()
        .map(|m| m.node.bootstrap(peers.clone()));
    for made in join_all(all).await {
        // One that heard from another first belongs to the cluster already.
        assert!(
            matches!(made, Ok(()) | Err(MemberError::AlreadyInitialized)),
            "{made:?}"
        );
    }
    let leader = cluster.leader().await;
    cluster.node(leader).write("a").await.unwrap();
    assert_eq!(cluster.node(leader).status().voters, peers);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_stalls_knows_that_time_passes() {
    let disks = [PowerLoss::new(), PowerLoss::new(), PowerLoss::new()];
    let cluster = Cluster::start_on(&disks).await;
    let old = cluster.leader().await;
    let node = cluster.node(old);
    node.write("before").await.unwrap();
    let stall = disks[old as usize - 1].stall();
    let late = tokio::spawn({
        let node = node.clone();
        async move { node.write("late").await }
    });
    let others: Vec<u64> = (1..=3).filter(|id| *id != old).collect();
    let new = cluster.leader_among(&others).await;
    cluster.node(new).write("after").await.unwrap();
    // The others waited for as long before they followed another, however long ago
    // openraft last said how it is.
    let lease = node.inner.config.election_max;
    let contact = node.last_contact().unwrap();
    assert!(contact >= lease, "{contact:?} is within the lease");
    let mut leadership = node.watch_leadership();
    let resigned = leadership.wait_for(|l| !l.is_leader);
    let resigned = tokio::time::timeout(LONG, resigned).await;
    resigned.expect("it says that it may lead no more").unwrap();
    assert!(cluster.machine(old).commands().iter().all(|c| c != "after"));

    drop(stall);
    node.linearize(LONG).await.unwrap();
    assert!(cluster.machine(old).commands().iter().any(|c| c == "after"));
    let late = tokio::time::timeout(LONG, late).await.unwrap().unwrap();
    assert!(late.is_err(), "nobody but itself had it: {late:?}");
    cluster.stop_all().await;
}
