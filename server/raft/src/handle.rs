//! What other servers ask of this one.

use std::time::Duration;

use bytes::Bytes;
use openraft::raft::AppendEntriesResponse;
use prost::Message;

use crate::batch::leader_of;
use crate::codec::{self, decode};
use crate::config::Peer;
use crate::error::{MemberError, WriteError};
use crate::members::Change;
use crate::node::RaftNode;
use crate::pb;
use crate::read::Proof;
use crate::status;
use crate::transport::{FORMAT, Refusal, Request};

/// The longest that a change of members is worked at for another server.
const CHANGE: Duration = Duration::from_secs(120);

impl RaftNode {
    /// Answers a request that came over a transport. Who the caller is was verified
    /// by then; what it says is not trusted to be well formed.
    ///
    /// # Errors
    /// [`Refusal`]: nothing was done.
    pub async fn handle(&self, request: Request) -> Result<Bytes, Refusal> {
        let Request(request) = request;
        let me = &self.inner.config.me;
        if request.format != FORMAT {
            return Err(Refusal(format!(
                "raft messages of format {} are not known here (this server speaks {FORMAT}); run \
                 the same version on all servers",
                request.format
            )));
        }
        if request.to != 0 && request.to != me.id {
            return Err(Refusal(format!(
                "this is server {} ({}), not {}",
                me.id, me.name, request.to
            )));
        }
        let payload = &request.payload;
        match request.kind() {
            pb::Kind::Append => self.on_append(payload).await,
            pb::Kind::Vote => self.on_vote(payload).await,
            pb::Kind::Snapshot => self.on_snapshot(payload).await,
            pb::Kind::Write => self.on_write(payload).await,
            pb::Kind::ReadIndex => self.on_read_index(payload).await,
            pb::Kind::Member => self.on_member(payload).await,
            pb::Kind::Info => self.on_info().await,
            pb::Kind::Unspecified => Err(Refusal(format!(
                "requests of kind {} are not known here; run the same version on all servers",
                request.kind
            ))),
        }
    }

    async fn on_append(&self, payload: &Bytes) -> Result<Bytes, Refusal> {
        let rpc = codec::append_in(decode(payload).map_err(refuse)?).map_err(refuse)?;
        let reply = self.inner.raft.append_entries(rpc).await.map_err(refuse)?;
        if !matches!(reply, AppendEntriesResponse::HigherVote(_)) {
            self.inner.heard();
        }
        Ok(encoded(&codec::append_reply_out(&reply)))
    }

    async fn on_vote(&self, payload: &Bytes) -> Result<Bytes, Refusal> {
        let rpc = codec::vote_request_in(decode(payload).map_err(refuse)?).map_err(refuse)?;
        let reply = self.inner.raft.vote(rpc).await.map_err(refuse)?;
        Ok(encoded(&codec::vote_reply_out(&reply)))
    }

    async fn on_snapshot(&self, payload: &Bytes) -> Result<Bytes, Refusal> {
        let piece: pb::SnapshotRequest = decode(payload).map_err(refuse)?;
        let reply = self.inner.receiver.piece(piece).await?;
        self.inner.heard();
        Ok(encoded(&reply))
    }

    async fn on_write(&self, payload: &Bytes) -> Result<Bytes, Refusal> {
        use pb::write_reply::{Outcome, Refused, Written};
        let request: pb::WriteRequest = decode(payload).map_err(refuse)?;
        let timeout = Duration::from_millis(request.deadline_ms);
        let outcome = match self.inner.write(request.command, timeout).await {
            Ok(written) => Outcome::Written(Written {
                index: written.index,
                answer: written.answer,
            }),
            Err(WriteError::NotLeader { leader }) => Outcome::NotLeader(not_leader(leader)),
            Err(WriteError::Unknown { reason }) => Outcome::Unknown(Refused { reason }),
            Err(other) => Outcome::Refused(Refused {
                reason: other.to_string(),
            }),
        };
        Ok(encoded(&pb::WriteReply {
            outcome: Some(outcome),
        }))
    }

    async fn on_read_index(&self, payload: &Bytes) -> Result<Bytes, Refusal> {
        use pb::read_index_reply::Outcome;
        let request: pb::ReadIndexRequest = decode(payload).map_err(refuse)?;
        let timeout = Duration::from_millis(request.deadline_ms);
        let outcome = match self.inner.prove(timeout).await {
            Proof::Index(index) => Outcome::Index(index),
            Proof::NotLeader(leader) => Outcome::NotLeader(not_leader(leader)),
            Proof::NoQuorum => Outcome::Refused("it does not reach a majority".to_owned()),
            Proof::Stopped(reason) => Outcome::Refused(reason),
        };
        Ok(encoded(&pb::ReadIndexReply {
            outcome: Some(outcome),
        }))
    }

    async fn on_member(&self, payload: &Bytes) -> Result<Bytes, Refusal> {
        use pb::member_reply::{Done, Outcome};
        use pb::member_request::Change as Wire;
        let request: pb::MemberRequest = decode(payload).map_err(refuse)?;
        let change = match request.change {
            Some(Wire::Add(peer)) => Change::Add(codec::peer_in(peer)),
            Some(Wire::Remove(id)) => Change::Remove(id),
            None => {
                return Err(Refusal(
                    "a change of that kind is not known here".to_owned(),
                ));
            }
        };
        let timeout = Duration::from_millis(request.deadline_ms).min(CHANGE);
        let outcome = match self.inner.change_here(change, timeout).await {
            Ok(()) => Outcome::Done(Done {}),
            Err(MemberError::NotLeader { leader }) => Outcome::NotLeader(not_leader(leader)),
            Err(other) => Outcome::Refused(other.to_string()),
        };
        Ok(encoded(&pb::MemberReply {
            outcome: Some(outcome),
        }))
    }

    async fn on_info(&self) -> Result<Bytes, Refusal> {
        let initialized = self.is_initialized().await.map_err(refuse)?;
        let metrics = self.inner.metrics();
        let (voters, learners) = status::members(&metrics);
        let peers = |peers: Vec<Peer>| peers.iter().map(codec::peer_out).collect();
        Ok(encoded(&pb::InfoReply {
            node: Some(codec::peer_out(&self.inner.config.me)),
            initialized,
            leader: leader_of(&metrics).as_ref().map(codec::peer_out),
            voters: peers(voters),
            learners: peers(learners),
        }))
    }
}

fn refuse(e: impl std::fmt::Display) -> Refusal {
    Refusal(e.to_string())
}

fn encoded(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

fn not_leader(leader: Option<Peer>) -> pb::NotLeader {
    pb::NotLeader {
        leader: leader.as_ref().map(codec::peer_out),
    }
}
