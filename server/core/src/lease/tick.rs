//! One step of the leases: the leader judges, a follower passes on what it heard.

use mesh_model::NodeState;
use mesh_state::{Command, State};

use super::tracker::Verdict;
use super::{Leases, Tracker};
use crate::core::Core;

/// One step. Called often against the lease's length.
pub(crate) async fn tick(core: &Core) {
    if core.raft.is_leader() {
        lead(core).await;
    } else {
        follow(core).await;
    }
}

async fn follow(core: &Core) {
    let heard = core.leases.hand_over();
    if heard.is_empty() {
        return;
    }
    if let Some(leader) = core.raft.leader().filter(|leader| leader.id != core.me.id)
        && let Err(error) = core.peers.heartbeats(&leader, &heard).await
    {
        // They are heard again soon, and the leader's lease outlasts a few of these.
        tracing::debug!(%leader, %error, "heartbeats were not passed on");
    }
}

async fn lead(core: &Core) {
    let state = core.store.state();
    let now = core.clock.monotonic();
    let verdict = core.leases.judge(core.options.timing.lease, now, &state);
    if verdict.is_new {
        tracing::error!(
            nodes = verdict.unheard,
            "more than a third of the nodes fell silent together: the servers' own network is \
             suspect, and no node's state is changed; remove nodes that are really gone with \
             DELETE /v1/catalog/nodes/ID"
        );
    }
    let since = core.clock.unix_millis() / 1000;
    for node in verdict.silent {
        tracing::warn!(
            node,
            "a node is not heard any more: its instances are unknown"
        );
        set(core, node, NodeState::Silent { since }).await;
    }
    for node in verdict.alive {
        tracing::info!(node, "a node is heard again");
        set(core, node, NodeState::Alive).await;
    }
}

async fn set(core: &Core, node: String, state: NodeState) {
    let command = Command::SetNodeState { node, state };
    if let Err(error) = core.write(command).await {
        tracing::warn!(%error, "a node's state was not written; it is tried again");
    }
}

impl Leases {
    /// A follower's: what was heard, to be passed on.
    fn hand_over(&self) -> Vec<String> {
        let mut inner = self.lock();
        inner.tracker = None;
        std::mem::take(&mut inner.heard).into_iter().collect()
    }

    /// The leader's: what is to change.
    fn judge(
        &self,
        lease: std::time::Duration,
        now: std::time::Duration,
        state: &State,
    ) -> Verdict {
        let mut inner = self.lock();
        let heard = std::mem::take(&mut inner.heard);
        let tracker = inner
            .tracker
            .get_or_insert_with(|| Tracker::new(lease, now));
        for node in heard {
            tracker.heard(node, now);
        }
        let nodes = state
            .nodes()
            .map(|row| (row.value.id.as_str(), row.value.state));
        tracker.tick(now, nodes)
    }
}
