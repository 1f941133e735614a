//! What a node says of itself and of the cluster.

use std::time::Duration;

use crate::batch::{leader_of, quorum_lost};
use crate::config::{Peer, RaftConfig};
use crate::contact::Contacts;
use crate::health::Health;
use crate::types::Metrics;

/// What a node does in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes entries, has no vote (also: not a member at all).
    Learner,
    /// Takes entries, and votes.
    Follower,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
    /// Stopped.
    Stopped,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Learner => "learner",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
            Self::Stopped => "stopped",
        })
    }
}

/// A node's view of the cluster at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// This node.
    pub me: Peer,
    /// What it does.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// The leader, as far as it knows.
    pub leader: Option<Peer>,
    /// Members with a vote.
    pub voters: Vec<Peer>,
    /// Members without.
    pub learners: Vec<Peer>,
    /// Index of the last entry in its log.
    pub last_log: u64,
    /// Index of the last entry that it applied.
    pub applied: u64,
    /// Index of the last entry in its newest snapshot.
    pub snapshot: Option<u64>,
    /// Index up to which its log was cut.
    pub purged: Option<u64>,
    /// Age of the last word from the leader; of the majority's, on the leader.
    pub last_contact: Option<Duration>,
    /// How it is.
    pub health: Health,
}

/// Who leads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The term.
    pub term: u64,
    /// The leader, as far as this node knows.
    pub leader: Option<Peer>,
    /// This node leads, has applied all that was committed before its term, and
    /// has heard from a majority lately. (Only [`crate::RaftNode::linearize`] proves
    /// it.)
    pub is_leader: bool,
}

/// What a server answers to one that asks who it is; see [`crate::RaftNode::probe`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// The server that answered.
    pub node: Peer,
    /// Whether it belongs to a cluster.
    pub initialized: bool,
    /// The leader, as far as it knows.
    pub leader: Option<Peer>,
    /// Members with a vote.
    pub voters: Vec<Peer>,
    /// Members without.
    pub learners: Vec<Peer>,
}

pub(crate) fn role(metrics: &Metrics) -> Role {
    match metrics.state {
        openraft::ServerState::Learner => Role::Learner,
        openraft::ServerState::Follower => Role::Follower,
        openraft::ServerState::Candidate => Role::Candidate,
        openraft::ServerState::Leader => Role::Leader,
        openraft::ServerState::Shutdown => Role::Stopped,
    }
}

/// Voters and learners.
pub(crate) fn members(metrics: &Metrics) -> (Vec<Peer>, Vec<Peer>) {
    let membership = metrics.membership_config.membership();
    let peers = membership.nodes().map(|(id, node)| node.peer(*id));
    let voters: Vec<u64> = membership.voter_ids().collect();
    peers.partition(|peer| voters.contains(&peer.id))
}

pub(crate) fn leadership(
    config: &RaftConfig,
    metrics: &Metrics,
    contacts: &Contacts,
) -> Leadership {
    let cut_off = quorum_lost(config, metrics, contacts);
    let of_this_term = metrics
        .last_applied
        .is_some_and(|id| id.leader_id == *metrics.vote.leader_id());
    Leadership {
        term: metrics.current_term,
        leader: leader_of(metrics).filter(|peer| !(cut_off && peer.id == config.me.id)),
        is_leader: metrics.state.is_leader() && of_this_term && !cut_off,
    }
}
