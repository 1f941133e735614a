//! Between openraft's types and our messages. What comes in is parsed here, once:
//! a message that lacks a part, or has one that is not known, goes no further.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use openraft::{CommittedLeaderId, EntryPayload};
use prost::Message;

use crate::config::Peer;
use crate::pb;
use crate::types::{Batch, Entry, Flag, LogId, Membership, PeerNode, TypeConfig, Vote};

/// Why a message cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("not a message: {0}")]
    Proto(#[from] prost::DecodeError),
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0} is of a kind that is not known here; run a newer version of this server")]
    Unknown(&'static str),
}

/// Decodes a message of type `M`.
pub(crate) fn decode<M: Message + Default>(bytes: &Bytes) -> Result<M, CodecError> {
    Ok(M::decode(bytes.clone())?)
}

pub(crate) fn vote_out(vote: &Vote) -> pb::Vote {
    pb::Vote {
        term: vote.leader_id.term,
        node: vote.leader_id.node_id,
        committed: vote.committed,
    }
}

pub(crate) fn vote_in(vote: Option<pb::Vote>) -> Result<Vote, CodecError> {
    let vote = vote.ok_or(CodecError::Missing("vote"))?;
    let mut out = Vote::new(vote.term, vote.node);
    if vote.committed {
        out.commit();
    }
    Ok(out)
}

pub(crate) fn log_id_out(id: &LogId) -> pb::LogId {
    pb::LogId {
        term: id.leader_id.term,
        node: id.leader_id.node_id,
        index: id.index,
    }
}

pub(crate) fn log_id_in(id: pb::LogId) -> LogId {
    LogId::new(CommittedLeaderId::new(id.term, id.node), id.index)
}

pub(crate) fn peer_out(peer: &Peer) -> pb::Peer {
    pb::Peer {
        id: peer.id,
        name: peer.name.clone(),
        addr: peer.addr.clone(),
    }
}

pub(crate) fn peer_in(peer: pb::Peer) -> Peer {
    Peer {
        id: peer.id,
        name: peer.name,
        addr: peer.addr,
    }
}

fn membership_out(membership: &Membership) -> pb::Membership {
    let configs = membership.get_joint_config().iter();
    pb::Membership {
        configs: configs
            .map(|ids| pb::membership::Voters {
                ids: ids.iter().copied().collect(),
            })
            .collect(),
        nodes: membership
            .nodes()
            .map(|(id, node)| peer_out(&node.peer(*id)))
            .collect(),
    }
}

fn membership_in(membership: pb::Membership) -> Membership {
    let configs: Vec<BTreeSet<u64>> = membership
        .configs
        .into_iter()
        .map(|voters| voters.ids.into_iter().collect())
        .collect();
    let nodes: BTreeMap<u64, PeerNode> = membership
        .nodes
        .into_iter()
        .map(peer_in)
        .map(|peer| (peer.id, PeerNode::from(&peer)))
        .collect();
    Membership::new(configs, nodes)
}

pub(crate) fn entry_out(entry: &Entry) -> pb::Entry {
    use pb::entry::{Batch, Blank, Payload};
    let payload = match &entry.payload {
        EntryPayload::Blank => Payload::Blank(Blank {}),
        EntryPayload::Normal(batch) => Payload::Batch(Batch {
            commands: batch.commands.clone(),
        }),
        EntryPayload::Membership(m) => Payload::Membership(membership_out(m)),
    };
    pb::Entry {
        id: Some(log_id_out(&entry.log_id)),
        payload: Some(payload),
    }
}

pub(crate) fn entry_in(entry: pb::Entry) -> Result<Entry, CodecError> {
    use pb::entry::Payload;
    let log_id = log_id_in(entry.id.ok_or(CodecError::Missing("the entry's id"))?);
    let payload = match entry.payload {
        Some(Payload::Blank(_)) => EntryPayload::Blank,
        Some(Payload::Batch(batch)) => EntryPayload::Normal(Batch {
            commands: batch.commands,
            proposed: Flag::default(),
        }),
        Some(Payload::Membership(m)) => EntryPayload::Membership(membership_in(m)),
        // prost drops a field that it does not know: so an entry of a new kind
        // arrives without a payload.
        None => return Err(CodecError::Unknown("the entry's payload")),
    };
    Ok(Entry { log_id, payload })
}

/// About how many bytes an entry takes, in memory and in a message.
pub(crate) fn entry_bytes(entry: &Entry) -> usize {
    64 + match &entry.payload {
        EntryPayload::Blank => 0,
        EntryPayload::Normal(batch) => batch.commands.iter().map(|c| c.len() + 16).sum(),
        EntryPayload::Membership(m) => 256 * m.nodes().count(),
    }
}

pub(crate) fn append_out(rpc: &AppendEntriesRequest<TypeConfig>) -> pb::AppendRequest {
    pb::AppendRequest {
        vote: Some(vote_out(&rpc.vote)),
        prev: rpc.prev_log_id.as_ref().map(log_id_out),
        entries: rpc.entries.iter().map(entry_out).collect(),
        commit: rpc.leader_commit.as_ref().map(log_id_out),
    }
}

pub(crate) fn append_in(
    rpc: pb::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, CodecError> {
    let prev_log_id = rpc.prev.map(log_id_in);
    let entries: Vec<Entry> = rpc
        .entries
        .into_iter()
        .map(entry_in)
        .collect::<Result<_, _>>()?;
    // openraft takes it for granted that entries follow `prev` without a gap.
    let mut next = prev_log_id.map_or(0, |id| id.index.saturating_add(1));
    for entry in &entries {
        if entry.log_id.index != next {
            return Err(CodecError::Missing("an entry of the sequence"));
        }
        next = next.saturating_add(1);
    }
    Ok(AppendEntriesRequest {
        vote: vote_in(rpc.vote)?,
        prev_log_id,
        entries,
        leader_commit: rpc.commit.map(log_id_in),
    })
}

pub(crate) fn append_reply_out(reply: &AppendEntriesResponse<u64>) -> pb::AppendReply {
    use pb::append_reply::{Conflict, Outcome, Partial, Success};
    let outcome = match reply {
        AppendEntriesResponse::Success => Outcome::Success(Success {}),
        AppendEntriesResponse::PartialSuccess(id) => Outcome::Partial(Partial {
            matching: id.as_ref().map(log_id_out),
        }),
        AppendEntriesResponse::Conflict => Outcome::Conflict(Conflict {}),
        AppendEntriesResponse::HigherVote(vote) => Outcome::Higher(vote_out(vote)),
    };
    pb::AppendReply {
        outcome: Some(outcome),
    }
}

pub(crate) fn append_reply_in(
    reply: pb::AppendReply,
) -> Result<AppendEntriesResponse<u64>, CodecError> {
    use pb::append_reply::Outcome;
    Ok(match reply.outcome {
        Some(Outcome::Success(_)) => AppendEntriesResponse::Success,
        Some(Outcome::Partial(p)) => {
            AppendEntriesResponse::PartialSuccess(p.matching.map(log_id_in))
        }
        Some(Outcome::Conflict(_)) => AppendEntriesResponse::Conflict,
        Some(Outcome::Higher(vote)) => AppendEntriesResponse::HigherVote(vote_in(Some(vote))?),
        None => return Err(CodecError::Unknown("the outcome")),
    })
}

pub(crate) fn vote_request_out(rpc: &VoteRequest<u64>) -> pb::VoteRequest {
    pb::VoteRequest {
        vote: Some(vote_out(&rpc.vote)),
        last: rpc.last_log_id.as_ref().map(log_id_out),
    }
}

pub(crate) fn vote_request_in(rpc: pb::VoteRequest) -> Result<VoteRequest<u64>, CodecError> {
    Ok(VoteRequest::new(
        vote_in(rpc.vote)?,
        rpc.last.map(log_id_in),
    ))
}

pub(crate) fn vote_reply_out(reply: &VoteResponse<u64>) -> pb::VoteReply {
    pb::VoteReply {
        vote: Some(vote_out(&reply.vote)),
        granted: reply.vote_granted,
        last: reply.last_log_id.as_ref().map(log_id_out),
    }
}

pub(crate) fn vote_reply_in(reply: pb::VoteReply) -> Result<VoteResponse<u64>, CodecError> {
    Ok(VoteResponse::new(
        vote_in(reply.vote)?,
        reply.last.map(log_id_in),
        reply.granted,
    ))
}
