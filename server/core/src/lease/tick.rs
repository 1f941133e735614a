//! One step of the leases: the leader judges, a follower passes on what it heard.

use std::time::Duration;

use mesh_model::NodeState;
use mesh_state::{Command, State};

use super::tracker::Verdict;
use super::{Leases, Tracker};
use crate::core::Core;

/// One step. Called often against the lease's length.
pub(crate) async fn tick(core: &Core) {
    let leadership = core.raft.watch_leadership().borrow().clone();
    match leadership.is_leader {
        true => lead(core, leadership.term).await,
        false => follow(core).await,
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

async fn lead(core: &Core, term: u64) {
    let state = core.store.state();
    let now = core.clock.monotonic();
    let verdict = core
        .leases
        .judge(term, core.options.timing.lease, now, &state);
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
    fn judge(&self, term: u64, lease: Duration, now: Duration, state: &State) -> Verdict {
        let mut inner = self.lock();
        let heard = std::mem::take(&mut inner.heard);
        inner.tracker.take_if(|(of, _)| *of != term);
        let new = || (term, Tracker::new(lease, now));
        let (_, tracker) = inner.tracker.get_or_insert_with(new);
        for node in heard {
            tracker.heard(node, now);
        }
        let nodes = state
            .nodes()
            .map(|row| (row.value.id.as_str(), row.value.state));
        tracker.tick(now, nodes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use mesh_state::Envelope;

    const LEASE: Duration = Duration::from_secs(15);

    fn one_node() -> State {
        let mut state = State::new();
        let bootstrap = Command::Bootstrap {
            cluster_id: "c".into(),
            trust_domain: "c.mesh".into(),
            datacenter: "dc1".into(),
            epoch: "e".into(),
            default_intention: mesh_model::Action::Deny,
        };
        let node = crate::tests::agent::node("n1");
        let register = Command::RegisterNode { node };
        state.apply(&[Envelope::new(1, bootstrap), Envelope::new(1, register)]);
        assert!(state.node("n1").is_some());
        state
    }

    /// Judges each second, and says in which one the node is silent.
    fn silent_at(leases: &Leases, term: u64, from: u64) -> u64 {
        let state = one_node();
        let mut seconds = from..from + 60;
        seconds
            .find(|now| {
                let now = Duration::from_secs(*now);
                !leases.judge(term, LEASE, now, &state).silent.is_empty()
            })
            .unwrap()
    }

    #[test]
    fn a_new_leader_starts_every_lease_anew() {
        let leases = Leases::default();
        leases.heard("n1");
        assert_eq!(silent_at(&leases, 1, 0), 15);
        // The same server again, which did not see that it had lost its lead for a moment.
        assert_eq!(silent_at(&leases, 3, 16), 31);
        // And after a time in which it saw another lead.
        leases.hand_over();
        assert!(!leases.leads());
        assert_eq!(silent_at(&leases, 5, 32), 47);
        // In one term they run on.
        assert_eq!(silent_at(&leases, 5, 48), 48);
    }
}
