//! What the agents of all servers say, put together.

use futures::future::join_all;
use mesh_proto::servers::v1::AgentStatus;
use mesh_raft::Peer;

use crate::core::Core;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// By node; each node once, by its newest stream as far as can be told.
    pub(crate) agents: Vec<AgentStatus>,
    /// Names of the servers that did not answer.
    pub(crate) unreachable: Vec<String>,
}

/// Asks all servers.
pub(crate) async fn gather(core: &Core) -> Gathered {
    let status = core.raft.status();
    let others: Vec<Peer> = status
        .voters
        .into_iter()
        .chain(status.learners)
        .filter(|peer| peer.id != core.me.id)
        .collect();
    let answers = join_all(others.iter().map(|peer| core.peers.proxies(peer))).await;
    let mut gathered = Gathered {
        agents: core.registry.statuses(),
        unreachable: Vec::new(),
    };
    for (peer, answer) in others.iter().zip(answers) {
        match answer {
            Ok(agents) => gathered.agents.extend(agents),
            Err(_) => gathered.unreachable.push(peer.name.clone()),
        }
    }
    // An agent that changed its server may be known to both for a moment.
    let age = |agent: &AgentStatus| agent.sent.as_ref().map_or(0, |sent| sent.index);
    gathered
        .agents
        .sort_by(|a, b| a.node.cmp(&b.node).then_with(|| age(b).cmp(&age(a))));
    gathered.agents.dedup_by(|a, b| a.node == b.node);
    gathered.unreachable.sort();
    gathered
}
