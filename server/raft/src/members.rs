//! Who belongs to the cluster: made once, changed one server at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use openraft::ChangeMembers;
use openraft::error::{
    ChangeMembershipError, ClientWriteError, InitializeError, RaftError as OpenraftError,
};

use crate::batch::{fatal_text, leader_of};
use crate::codec;
use crate::config::Peer;
use crate::error::MemberError;
use crate::node::{Inner, RaftNode, millis};
use crate::pb;
use crate::status::{self, PeerInfo};
use crate::transport::TransportError;
use crate::types::PeerNode;

/// One change of the members.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Add(Peer),
    Remove(u64),
}

impl RaftNode {
    /// Makes the cluster, of these servers. Each of them may call it with the same
    /// list; it counts once.
    ///
    /// # Errors
    /// [`MemberError::AlreadyInitialized`] if this node belongs to a cluster.
    pub async fn bootstrap(&self, peers: Vec<Peer>) -> Result<(), MemberError> {
        let me = &self.inner.config.me;
        let mut nodes = BTreeMap::new();
        for peer in &peers {
            if peer.id == 0 {
                return Err(MemberError::Invalid(format!("server {peer} has the id 0")));
            }
            if nodes.insert(peer.id, PeerNode::from(peer)).is_some() {
                let twice = format!("two servers have the id {}", peer.id);
                return Err(MemberError::Invalid(twice));
            }
        }
        if !nodes.contains_key(&me.id) {
            let missing = format!("this server, {me}, is not among those of the cluster");
            return Err(MemberError::Invalid(missing));
        }
        match self.inner.raft.initialize(nodes).await {
            Ok(()) => Ok(()),
            Err(OpenraftError::APIError(InitializeError::NotAllowed(_))) => {
                Err(MemberError::AlreadyInitialized)
            }
            Err(OpenraftError::APIError(e)) => Err(MemberError::Invalid(e.to_string())),
            Err(OpenraftError::Fatal(e)) => Err(MemberError::Stopped {
                reason: fatal_text(&e),
            }),
        }
    }

    /// Whether this node belongs to a cluster.
    ///
    /// # Errors
    /// [`MemberError::Stopped`].
    pub async fn is_initialized(&self) -> Result<bool, MemberError> {
        let known = self.inner.raft.is_initialized().await;
        known.map_err(|e| MemberError::Stopped {
            reason: fatal_text(&e),
        })
    }

    /// Adds a server, through whichever node leads: first as a learner, until it has
    /// caught up, then with a vote. Adding one that is there brings its address up
    /// to date.
    ///
    /// # Errors
    /// [`MemberError`].
    pub async fn add_voter(&self, peer: Peer, timeout: Duration) -> Result<(), MemberError> {
        self.inner.change(Change::Add(peer), None, timeout).await
    }

    /// Adds a server as a learner, if this node leads: it is a member when this returns,
    /// and catches up from then on. Fine if it is one already. For a leader that decides
    /// who is let in: it knows who is, and no other node adds one for it.
    ///
    /// # Errors
    /// [`MemberError`]; [`MemberError::NotLeader`] if another node leads.
    pub async fn add_learner(&self, peer: Peer, timeout: Duration) -> Result<(), MemberError> {
        if peer.id == 0 {
            return Err(MemberError::Invalid(format!("server {peer} has the id 0")));
        }
        let begin = Instant::now();
        loop {
            let metrics = self.inner.metrics();
            if !metrics.state.is_leader() {
                let leader = leader_of(&metrics);
                return Err(MemberError::NotLeader { leader });
            }
            let left = timeout.saturating_sub(begin.elapsed());
            let learning = tokio::time::timeout(left, self.inner.learn(&peer));
            match learning.await {
                Ok(Err(MemberError::Busy)) => self.inner.pause(left).await,
                Ok(done) => return done,
                Err(_) => {
                    let late = format!("server {peer} was not added within {timeout:?}");
                    return Err(MemberError::Failed(late));
                }
            }
        }
    }

    /// Removes a server, voter or learner, through whichever node leads. One that
    /// removes the leader takes effect, and then another is elected.
    ///
    /// # Errors
    /// [`MemberError`].
    pub async fn remove_peer(&self, id: u64, timeout: Duration) -> Result<(), MemberError> {
        self.inner.change(Change::Remove(id), None, timeout).await
    }

    /// Asks the server at `addr` who it is and what cluster it belongs to; for the
    /// decision whether to bootstrap or to join.
    ///
    /// # Errors
    /// [`TransportError`].
    pub async fn probe(&self, addr: &str, timeout: Duration) -> Result<PeerInfo, TransportError> {
        let strange = |what: &str| TransportError::Refused(what.to_owned());
        let (peer, question) = (anyone_at(addr), pb::InfoRequest {});
        let inner = &self.inner;
        let reply = inner
            .call(&peer, pb::Kind::Info, &question, timeout)
            .await?;
        let reply: pb::InfoReply = codec::decode(&reply).map_err(|e| strange(&e.to_string()))?;
        let peers = |peers: Vec<pb::Peer>| peers.into_iter().map(codec::peer_in).collect();
        Ok(PeerInfo {
            node: codec::peer_in(
                reply
                    .node
                    .ok_or_else(|| strange("it does not say who it is"))?,
            ),
            initialized: reply.initialized,
            leader: reply.leader.map(codec::peer_in),
            voters: peers(reply.voters),
            learners: peers(reply.learners),
        })
    }

    /// Asks the cluster that the server at `addr` belongs to to add this node.
    ///
    /// # Errors
    /// [`MemberError`].
    pub async fn join(&self, addr: &str, timeout: Duration) -> Result<(), MemberError> {
        let change = Change::Add(self.inner.config.me.clone());
        let first = Some(anyone_at(addr));
        self.inner.change(change, first, timeout).await
    }
}

impl Inner {
    /// Brings a change to the leader. Doing one twice does no harm, so it is sent
    /// again until it is answered.
    async fn change(
        &self,
        change: Change,
        first: Option<Peer>,
        timeout: Duration,
    ) -> Result<(), MemberError> {
        let begin = Instant::now();
        let mut hint = first.clone();
        let mut last = None;
        loop {
            let waited = begin.elapsed();
            let Some(left) = timeout.checked_sub(waited).filter(|left| !left.is_zero()) else {
                return Err(last.unwrap_or(MemberError::NoLeader { waited }));
            };
            let metrics = self.metrics();
            if metrics.running_state.is_err() {
                let reason = self.why_stopped();
                return Err(MemberError::Stopped { reason });
            }
            let leader = hint
                .take()
                .or_else(|| leader_of(&metrics))
                .or_else(|| first.clone());
            let result = match leader {
                _ if metrics.state.is_leader() => self.change_here(change.clone(), left).await,
                Some(leader) if leader.id != self.config.me.id => {
                    self.change_there(&leader, &change, left).await
                }
                _ => Err(MemberError::NotLeader { leader: None }),
            };
            match result {
                Err(MemberError::NotLeader { leader }) => hint = leader,
                Err(e @ MemberError::Busy) => last = Some(e),
                other => return other,
            }
            self.pause(left).await;
        }
    }

    async fn change_there(
        &self,
        leader: &Peer,
        change: &Change,
        left: Duration,
    ) -> Result<(), MemberError> {
        use pb::member_reply::Outcome;
        use pb::member_request::Change as Wire;
        let message = pb::MemberRequest {
            change: Some(match change {
                Change::Add(peer) => Wire::Add(codec::peer_out(peer)),
                Change::Remove(id) => Wire::Remove(*id),
            }),
            deadline_ms: millis(left),
        };
        let not_leader = |leader| Err(MemberError::NotLeader { leader });
        let reply = match self.call(leader, pb::Kind::Member, &message, left).await {
            Ok(reply) => reply,
            Err(TransportError::Refused(reason)) => return Err(MemberError::Failed(reason)),
            Err(_) => return not_leader(None),
        };
        match codec::decode::<pb::MemberReply>(&reply).map(|r| r.outcome) {
            Ok(Some(Outcome::Done(_))) => Ok(()),
            Ok(Some(Outcome::NotLeader(n))) => not_leader(n.leader.map(codec::peer_in)),
            Ok(Some(Outcome::Refused(reason))) => Err(MemberError::Failed(reason)),
            Ok(None) | Err(_) => Err(MemberError::Failed(format!(
                "leader {leader}: its answer is not known here"
            ))),
        }
    }

    /// Makes a change on this node, which must be the leader.
    pub(crate) async fn change_here(
        &self,
        change: Change,
        left: Duration,
    ) -> Result<(), MemberError> {
        let late = match &change {
            Change::Add(peer) => format!(
                "server {peer} did not catch up within {left:?}; it is a learner until then: see \
                 that it runs and is reached at its address, and add it again"
            ),
            Change::Remove(id) => format!(
                "server {id} was not removed within {left:?}: a majority of the servers must be up"
            ),
        };
        let done = async {
            match change {
                Change::Add(peer) => self.add(peer).await,
                Change::Remove(id) => self.remove(id).await,
            }
        };
        let done = tokio::time::timeout(left, done).await;
        done.unwrap_or(Err(MemberError::Failed(late)))
    }

    async fn add(&self, peer: Peer) -> Result<(), MemberError> {
        if peer.id == 0 {
            return Err(MemberError::Invalid(format!("server {peer} has the id 0")));
        }
        let (voters, learners) = status::members(&self.metrics());
        let known = voters.iter().chain(&learners).find(|p| p.id == peer.id);
        let moved = known.is_some_and(|known| *known != peer);
        let is_voter = voters.iter().any(|p| p.id == peer.id);
        let node = PeerNode::from(&peer);
        if moved {
            let set = ChangeMembers::SetNodes(BTreeMap::from([(peer.id, node.clone())]));
            self.submit(set, true).await?;
        }
        if is_voter {
            return Ok(());
        }
        let added = self.raft.add_learner(peer.id, node, true).await;
        added.map_err(member_error)?;
        let vote = ChangeMembers::AddVoterIds(BTreeSet::from([peer.id]));
        self.submit(vote, true).await
    }

    async fn learn(&self, peer: &Peer) -> Result<(), MemberError> {
        let (voters, learners) = status::members(&self.metrics());
        if voters.iter().chain(&learners).any(|p| p.id == peer.id) {
            return Ok(());
        }
        let added = self.raft.add_learner(peer.id, PeerNode::from(peer), false);
        added.await.map(|_| ()).map_err(member_error)
    }

    async fn remove(&self, id: u64) -> Result<(), MemberError> {
        let (voters, learners) = status::members(&self.metrics());
        let ids = BTreeSet::from([id]);
        if voters.iter().any(|p| p.id == id) {
            if voters.len() == 1 {
                return Err(MemberError::LastVoter(id));
            }
            return self.submit(ChangeMembers::RemoveVoters(ids), false).await;
        }
        if learners.iter().any(|p| p.id == id) {
            return self.submit(ChangeMembers::RemoveNodes(ids), false).await;
        }
        Err(MemberError::NotMember(id))
    }

    async fn submit(
        &self,
        change: ChangeMembers<u64, PeerNode>,
        retain: bool,
    ) -> Result<(), MemberError> {
        let done = self.raft.change_membership(change, retain).await;
        done.map(|_| ()).map_err(member_error)
    }
}

fn anyone_at(addr: &str) -> Peer {
    Peer {
        addr: addr.to_owned(),
        ..Peer::default()
    }
}

fn member_error(e: OpenraftError<u64, ClientWriteError<u64, PeerNode>>) -> MemberError {
    match e {
        OpenraftError::APIError(ClientWriteError::ForwardToLeader(to)) => MemberError::NotLeader {
            leader: to
                .leader_id
                .and_then(|id| to.leader_node.map(|n| n.peer(id))),
        },
        OpenraftError::APIError(ClientWriteError::ChangeMembershipError(e)) => match e {
            ChangeMembershipError::InProgress(_) => MemberError::Busy,
            other => MemberError::Failed(other.to_string()),
        },
        OpenraftError::Fatal(e) => MemberError::Stopped {
            reason: fatal_text(&e),
        },
    }
}
