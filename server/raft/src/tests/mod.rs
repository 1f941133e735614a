//! Nodes as others use them.
#![allow(clippy::unwrap_used)]

mod cluster;
mod conformance;
mod failure;
mod grpc;
mod input;
mod outcome;

use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::select_all;
use tempfile::TempDir;

use crate::testing::{MemNetwork, PowerLoss};
use crate::{Machine, MachineError, Peer, RaftConfig, RaftNode, SnapshotSource, Transport};

/// How long anything may take on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// A machine that remembers its commands, in order. Its answer is how many it has.
/// It does not know commands that begin with '?', and panics at '!'.
#[derive(Default)]
pub(crate) struct Memory {
    state: Mutex<State>,
}

#[derive(Default, Clone)]
struct State {
    commands: Vec<Bytes>,
    /// The index of each entry that was applied since the start.
    entries: Vec<u64>,
}

impl Memory {
    pub(crate) fn commands(&self) -> Vec<Bytes> {
        self.state.lock().unwrap().commands.clone()
    }

    pub(crate) fn entries(&self) -> Vec<u64> {
        self.state.lock().unwrap().entries.clone()
    }
}

impl Machine for Memory {
    fn format(&self) -> u32 {
        1
    }

    fn apply(&self, index: u64, commands: &[Bytes]) -> Result<Vec<Bytes>, MachineError> {
        let mut state = self.state.lock().unwrap();
        assert!(state.entries.last() < Some(&index), "in order");
        state.entries.push(index);
        let mut answers = Vec::new();
        for command in commands {
            match command.first() {
                Some(b'?') => return Err(MachineError::Unknown("a riddle".to_owned())),
                Some(b'!') => std::panic::panic_any("the machine broke"),
                _ => state.commands.push(command.clone()),
            }
            answers.push(state.commands.len().to_string().into());
        }
        Ok(answers)
    }

    fn snapshot(&self) -> Box<dyn SnapshotSource> {
        Box::new(Picture(self.commands()))
    }

    fn restore(&self, format: u32, body: &mut dyn Read) -> Result<(), MachineError> {
        if format != 1 {
            return Err(MachineError::Format {
                found: format,
                known: 1,
            });
        }
        let commands: Vec<String> =
            serde_json::from_reader(body).map_err(|e| MachineError::Corrupt(e.to_string()))?;
        let mut state = self.state.lock().unwrap();
        state.commands = commands.into_iter().map(Bytes::from).collect();
        Ok(())
    }
}

pub(crate) struct Picture(pub(crate) Vec<Bytes>);

impl SnapshotSource for Picture {
    fn write_to(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let commands = self.0.iter().map(|c| std::str::from_utf8(c).unwrap());
        let commands: Vec<&str> = commands.collect();
        Ok(serde_json::to_writer(out, &commands)?)
    }
}

pub(crate) fn peer(id: u64) -> Peer {
    Peer {
        id,
        name: format!("s{id}"),
        addr: format!("s{id}:8701"),
    }
}

pub(crate) fn config(id: u64, dir: &Path) -> RaftConfig {
    RaftConfig {
        heartbeat: Duration::from_millis(50),
        election_min: Duration::from_millis(250),
        election_max: Duration::from_millis(500),
        ..RaftConfig::new(peer(id), dir.join(format!("s{id}")))
    }
}

/// Nodes on a network in memory, with their files in one folder.
pub(crate) struct Cluster {
    pub(crate) dir: TempDir,
    pub(crate) net: MemNetwork,
    pub(crate) nodes: Vec<Member>,
}

pub(crate) struct Member {
    pub(crate) node: RaftNode,
    pub(crate) machine: Arc<Memory>,
}

impl Cluster {
    /// Nodes 1 to `n`, bootstrapped.
    pub(crate) async fn start(n: u64) -> Self {
        Self::start_with(n, |c| c).await
    }

    pub(crate) async fn start_with(n: u64, tune: impl Fn(RaftConfig) -> RaftConfig) -> Self {
        let mut cluster = Self {
            dir: tempfile::tempdir().unwrap(),
            net: MemNetwork::new(),
            nodes: Vec::new(),
        };
        for id in 1..=n {
            let config = tune(config(id, cluster.dir.path()));
            let member = cluster.run(config).await;
            cluster.nodes.push(member);
        }
        if n == 0 {
            return cluster;
        }
        let peers: Vec<Peer> = (1..=n).map(peer).collect();
        cluster.node(1).bootstrap(peers).await.unwrap();
        cluster.leader().await;
        cluster
    }

    /// Nodes on disks that can stall or lose power, bootstrapped.
    pub(crate) async fn start_on(disks: &[PowerLoss]) -> Self {
        let mut cluster = Self::start(0).await;
        let ids = 1..=disks.len() as u64;
        for (id, disk) in ids.clone().zip(disks) {
            let config = config(id, cluster.dir.path());
            let member = cluster.run_on(config, Some(disk)).await;
            cluster.nodes.push(member);
        }
        cluster
            .node(1)
            .bootstrap(ids.map(peer).collect())
            .await
            .unwrap();
        cluster.leader().await;
        cluster
    }

    /// Starts a node and attaches it.
    pub(crate) async fn run(&self, config: RaftConfig) -> Member {
        self.run_on(config, None).await
    }

    async fn run_on(&self, config: RaftConfig, disk: Option<&PowerLoss>) -> Member {
        let machine = Arc::new(Memory::default());
        let transport: Arc<dyn Transport> = Arc::new(self.net.clone());
        let node = match disk {
            None => RaftNode::start(config, machine.clone(), transport).await,
            Some(disk) => {
                let disk = Box::new(disk.clone());
                RaftNode::start_on(config, disk, machine.clone(), transport).await
            }
        };
        let node = node.unwrap();
        self.net.attach(&node);
        Member { node, machine }
    }

    /// Ends a node and starts it again from its folder.
    pub(crate) async fn restart(&mut self, id: u64) {
        self.stop(id).await;
        let config = (*self.node(id).inner.config).clone();
        let member = self.run(config).await;
        *self
            .nodes
            .iter_mut()
            .find(|m| id_of(&m.node) == id)
            .unwrap() = member;
    }

    pub(crate) async fn stop(&self, id: u64) {
        self.net.detach(self.node(id));
        self.node(id).shutdown().await;
    }

    pub(crate) fn member(&self, id: u64) -> &Member {
        self.nodes.iter().find(|m| id_of(&m.node) == id).unwrap()
    }

    pub(crate) fn node(&self, id: u64) -> &RaftNode {
        &self.member(id).node
    }

    pub(crate) fn machine(&self, id: u64) -> &Memory {
        &self.member(id).machine
    }

    /// Waits until one of the nodes leads.
    pub(crate) async fn leader(&self) -> u64 {
        let ids: Vec<u64> = self.nodes.iter().map(|m| id_of(&m.node)).collect();
        self.leader_among(&ids).await
    }

    pub(crate) async fn leader_among(&self, ids: &[u64]) -> u64 {
        let leads = ids.iter().map(|&id| {
            let mut leadership = self.node(id).watch_leadership();
            Box::pin(async move {
                leadership.wait_for(|l| l.is_leader).await.unwrap();
                id
            })
        });
        tokio::time::timeout(LONG, select_all(leads))
            .await
            .expect("a leader")
            .0
    }

    /// Waits until the node has applied `index`.
    pub(crate) async fn applied(&self, id: u64, index: u64) {
        let mut applied = self.node(id).watch_applied();
        let reached = applied.wait_for(|applied| *applied >= index);
        let reached = tokio::time::timeout(LONG, reached).await;
        reached.expect("applied in time").unwrap();
    }

    pub(crate) async fn stop_all(&self) {
        for member in &self.nodes {
            member.node.shutdown().await;
        }
    }
}

pub(crate) fn id_of(node: &RaftNode) -> u64 {
    node.inner.config.me.id
}
