//! A node that cannot go on stops, and says why; what it acknowledged is kept.

use std::path::Path;
use std::sync::Arc;

use futures::future::join_all;

use super::{Cluster, LONG, Memory, config, peer};
use crate::testing::{MemNetwork, PowerLoss};
use crate::{Health, RaftError, RaftNode, Transport};

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_not_known_stops_the_node() {
    let cluster = Cluster::start(1).await;
    let node = cluster.node(1);
    node.write("a").await.unwrap();
    let write = node.write("?").await.unwrap_err();
    assert!(!write.not_written(), "it is in the log: {write:?}");
    let reason = tokio::time::timeout(LONG, node.fatal()).await.unwrap();
    assert!(
        reason.contains("a command is not known here: a riddle"),
        "{reason}"
    );
    assert!(reason.contains("entry 3"), "{reason}");
    assert_eq!(node.health(), Health::Failed(reason));
    assert!(!node.is_leader());
    let refused = node.write("b").await.unwrap_err();
    assert!(refused.not_written(), "{refused:?}");
    assert_eq!(cluster.machine(1).commands(), ["a"]);
    cluster.stop_all().await;

    // It is not skipped at the next start either.
    let machine = Arc::new(Memory::default());
    let e = start(None, cluster.dir.path(), machine, &cluster.net).await;
    let e = match e {
        Err(e) => e.to_string(),
        // The entry was not known to be committed: it is found once it is.
        Ok(node) => {
            let reason = tokio::time::timeout(LONG, node.fatal()).await.unwrap();
            node.shutdown().await;
            reason
        }
    };
    assert!(e.contains("a command is not known here"), "{e}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_panics_stops_the_node() {
    let cluster = Cluster::start(1).await;
    let node = cluster.node(1);
    node.write("!").await.unwrap_err();
    let reason = tokio::time::timeout(LONG, node.fatal()).await.unwrap();
    assert!(reason.contains("panicked: the machine broke"), "{reason}");
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_writes_and_loses_none() {
    let dir = tempfile::tempdir().unwrap();
    let net = MemNetwork::new();
    let disk = PowerLoss::new();
    let machine = Arc::new(Memory::default());
    let node = start(Some(&disk), dir.path(), machine, &net).await.unwrap();
    node.bootstrap(vec![peer(1)]).await.unwrap();
    node.write_anywhere("first", LONG).await.unwrap();

    disk.full_at(disk.bytes().len() as u64);
    let mut acked = vec!["first".to_owned()];
    let failed = loop {
        let command = format!("{:01000}", acked.len());
        match node.write(command.clone()).await {
            Ok(_) => acked.push(command),
            Err(e) => break e,
        }
    };
    let reason = tokio::time::timeout(LONG, node.fatal()).await.unwrap();
    assert!(
        reason.contains("log.redb") && reason.contains("takes no writes"),
        "{reason}"
    );
    assert!(!failed.not_written(), "{failed:?}");
    assert!(node.write("more").await.unwrap_err().not_written());
    node.shutdown().await;

    // There is room again.
    let disk = disk.after_power_loss(None);
    let machine = Arc::new(Memory::default());
    let node = start(Some(&disk), dir.path(), machine.clone(), &net)
        .await
        .unwrap();
    node.linearize(LONG).await.unwrap();
    assert_eq!(machine.commands()[..acked.len()], acked);
    node.write("more").await.unwrap();
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn power_may_go_at_any_sync_of_a_running_node() {
    for cut in 1..=12 {
        let dir = tempfile::tempdir().unwrap();
        let net = MemNetwork::new();
        let disk = PowerLoss::new();
        let machine = Arc::new(Memory::default());
        let node = start(Some(&disk), dir.path(), machine, &net).await.unwrap();
        node.bootstrap(vec![peer(1)]).await.unwrap();
        node.write_anywhere("first", LONG).await.unwrap();
        disk.cut_at_sync(cut);
        let mut acked = vec!["first".to_owned()];
        for round in 0.. {
            let commands: Vec<String> = (0..4).map(|n| format!("{round}.{n}")).collect();
            let written = join_all(commands.iter().map(|c| node.write(c.clone()))).await;
            let done = commands
                .into_iter()
                .zip(&written)
                .filter(|(_, w)| w.is_ok());
            acked.extend(done.map(|(command, _)| command));
            if written.iter().any(Result::is_err) {
                break;
            }
        }
        node.shutdown().await;
        for chance in [None, Some(cut), Some(cut + 100)] {
            let disk = disk.after_power_loss(chance);
            let machine = Arc::new(Memory::default());
            let dir = tempfile::tempdir().unwrap();
            let node = start(Some(&disk), dir.path(), machine.clone(), &net)
                .await
                .unwrap();
            node.linearize(LONG).await.unwrap();
            let found = machine.commands();
            for command in &acked {
                assert!(
                    found.iter().any(|c| c == command),
                    "cut {cut}: {command} is lost"
                );
            }
            node.shutdown().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_cannot_be_written_is_only_late() {
    let cluster = Cluster::start(1).await;
    let node = cluster.node(1);
    node.write("a").await.unwrap();
    let folder = cluster.dir.path().join("s1/snapshots");
    std::fs::remove_dir(&folder).unwrap();
    std::fs::write(&folder, "not a folder").unwrap();
    let late = node
        .trigger_snapshot(std::time::Duration::from_millis(300))
        .await;
    let late = late.unwrap_err().to_string();
    assert!(late.contains("snapshots"), "{late}");
    assert!(
        matches!(node.health(), Health::Degraded(_)),
        "{:?}",
        node.health()
    );
    node.write("b").await.unwrap();
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_stops_the_start_and_is_named() {
    let cluster = Cluster::start(1).await;
    cluster.node(1).write("a").await.unwrap();
    let info = cluster.node(1).trigger_snapshot(LONG).await.unwrap();
    cluster.stop_all().await;
    let mut bytes = std::fs::read(&info.file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&info.file, bytes).unwrap();
    let machine = Arc::new(Memory::default());
    let e = start(None, cluster.dir.path(), machine, &cluster.net)
        .await
        .unwrap_err();
    let text = e.to_string();
    assert!(matches!(e, RaftError::Snapshot(_)), "{e:?}");
    assert!(text.contains(&info.file.display().to_string()), "{text}");
    assert!(text.contains("checksum"), "{text}");
}

async fn start(
    disk: Option<&PowerLoss>,
    dir: &Path,
    machine: Arc<Memory>,
    net: &MemNetwork,
) -> Result<RaftNode, RaftError> {
    let transport: Arc<dyn Transport> = Arc::new(net.clone());
    let config = config(1, dir);
    match disk {
        None => RaftNode::start(config, machine, transport).await,
        Some(disk) => RaftNode::start_on(config, Box::new(disk.clone()), machine, transport).await,
    }
}
