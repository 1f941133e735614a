//! openraft's outgoing messages, over a [`Transport`].

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, ErrorSubject, ErrorVerb, RaftNetwork, RaftNetworkFactory, Snapshot};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::codec::{self, CodecError};
use crate::config::{Peer, RaftConfig};
use crate::contact::Contacts;
use crate::pb;
use crate::transport::{Request, Transport, TransportError};
use crate::types::{LogId, PeerNode, StorageError, TypeConfig, Vote};

type RpcError<E = openraft::error::Infallible> = RPCError<u64, PeerNode, RaftError<u64, E>>;
type SnapshotFailure = StreamingError<TypeConfig, Fatal<u64>>;

/// Pieces of a snapshot that may fail in a row before it begins anew.
const PIECE_RETRIES: u32 = 5;

pub(crate) struct Network {
    pub(crate) config: Arc<RaftConfig>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) contacts: Arc<Contacts>,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &PeerNode) -> Link {
        Link {
            config: Arc::clone(&self.config),
            transport: Arc::clone(&self.transport),
            contacts: Arc::clone(&self.contacts),
            peer: node.peer(target),
            under_way: None,
        }
    }
}

/// The way to one peer.
pub(crate) struct Link {
    config: Arc<RaftConfig>,
    transport: Arc<dyn Transport>,
    contacts: Arc<Contacts>,
    peer: Peer,
    under_way: Option<UnderWay>,
}

/// An append with entries that openraft no longer waits for. It gives an append one
/// heartbeat's time, and then sends it again; over a slow line, or to a slow disk, a
/// large one would start from its first byte for ever. So it goes on here, and the
/// next try takes its answer.
struct UnderWay {
    vote: Vote,
    prev: Option<LogId>,
    last: Option<LogId>,
    task: AbortOnDrop,
}

struct AbortOnDrop(JoinHandle<Result<AppendEntriesResponse<u64>, RpcError>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Link {
    fn send<M: prost::Message>(
        &self,
        kind: pb::Kind,
        message: &M,
        timeout: Duration,
    ) -> impl Future<Output = Result<Bytes, TransportError>> + Send + use<M> {
        let request = Request::new(kind, self.config.me.id, self.peer.id, message);
        let (transport, peer) = (Arc::clone(&self.transport), self.peer.clone());
        async move { transport.call(&peer, request, timeout).await }
    }

    fn append(
        &self,
        rpc: &AppendEntriesRequest<TypeConfig>,
        timeout: Duration,
    ) -> impl Future<Output = Result<AppendEntriesResponse<u64>, RpcError>> + Send + use<> {
        let sent = Instant::now();
        let reply = self.send(pb::Kind::Append, &codec::append_out(rpc), timeout);
        let (contacts, peer) = (Arc::clone(&self.contacts), self.peer.id);
        let term = rpc.vote.leader_id().term;
        async move {
            let reply = codec::decode(&reply.await.map_err(unreachable)?).map_err(strange)?;
            let reply = codec::append_reply_in(reply).map_err(strange)?;
            if !matches!(reply, AppendEntriesResponse::HigherVote(_)) {
                contacts.peer(peer, term, sent);
            }
            Ok(reply)
        }
    }

    /// Sends one piece, again if need be.
    async fn piece(
        &self,
        message: &pb::SnapshotRequest,
        timeout: Duration,
    ) -> Result<pb::SnapshotReply, SnapshotFailure> {
        let mut failures = 0;
        loop {
            let e = match self.send(pb::Kind::Snapshot, message, timeout).await {
                Ok(reply) => {
                    return codec::decode(&reply).map_err(|e| NetworkError::new(&e).into());
                }
                Err(e) => e,
            };
            failures += 1;
            if failures >= PIECE_RETRIES || matches!(e, TransportError::Refused(_)) {
                return Err(Unreachable::new(&e).into());
            }
            tokio::time::sleep(self.config.heartbeat * failures).await;
        }
    }

    /// Heartbeats while a snapshot is sent. openraft has none for a follower whose
    /// snapshot is on its way, which would take longer than its patience: it would
    /// stand for election, and take the lead away from who serves it.
    async fn beat(&self, vote: Vote) -> Infallible {
        let nothing = AppendEntriesRequest {
            vote,
            prev_log_id: None,
            entries: Vec::new(),
            leader_commit: None,
        };
        let mut due = tokio::time::interval(self.config.heartbeat);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            // Whether there is a later vote, the next piece finds out.
            let _ = self.append(&nothing, self.config.election_min).await;
        }
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        mut snapshot: Snapshot<TypeConfig>,
        timeout: Duration,
    ) -> Result<SnapshotResponse<u64>, SnapshotFailure> {
        let signature = snapshot.meta.signature();
        let failed = move |e: std::io::Error| {
            let subject = ErrorSubject::Snapshot(Some(signature.clone()));
            StorageError::from_io_error(subject, ErrorVerb::Read, e)
        };
        let file = snapshot.snapshot.file();
        let total = file.metadata().await.map_err(&failed)?.len();
        let mut offset = 0;
        loop {
            file.seek(std::io::SeekFrom::Start(offset))
                .await
                .map_err(&failed)?;
            let mut data = Vec::new();
            (&mut *file)
                .take(self.config.limits.snapshot_chunk_bytes as u64)
                .read_to_end(&mut data)
                .await
                .map_err(&failed)?;
            let message = pb::SnapshotRequest {
                vote: Some(codec::vote_out(&vote)),
                id: snapshot.meta.snapshot_id.clone(),
                total,
                offset,
                data: data.into(),
            };
            let reply = self.piece(&message, timeout).await?;
            let theirs = codec::vote_in(reply.vote).map_err(|e| NetworkError::new(&e))?;
            if theirs > vote || reply.installed {
                return Ok(SnapshotResponse::new(theirs));
            }
            if reply.next > total || (reply.next <= offset && reply.next != 0) {
                let e = AnyError::error(format!("it asks for byte {} of {total}", reply.next));
                return Err(NetworkError::new(&e).into());
            }
            offset = reply.next;
        }
    }
}

impl RaftNetwork<TypeConfig> for Link {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RpcError> {
        let Some(last) = rpc.entries.last().map(|e| e.log_id) else {
            return self.append(&rpc, option.hard_ttl()).await;
        };
        let same = |u: &UnderWay| u.vote == rpc.vote && u.prev == rpc.prev_log_id;
        if !self.under_way.as_ref().is_some_and(same) {
            let call = self.append(&rpc, self.config.transfer_timeout);
            self.under_way = Some(UnderWay {
                vote: rpc.vote,
                prev: rpc.prev_log_id,
                last: Some(last),
                task: AbortOnDrop(tokio::spawn(call)),
            });
        }
        let Some(under_way) = &mut self.under_way else {
            return Err(unreachable(TransportError::NotSent("no task".to_owned())));
        };
        // Dropped here if it takes too long; the task is not.
        let reply = (&mut under_way.task.0).await;
        let sent = under_way.last;
        self.under_way = None;
        match reply {
            // What was sent may have been less than what is asked now.
            Ok(Ok(AppendEntriesResponse::Success)) if sent < Some(last) => {
                Ok(AppendEntriesResponse::PartialSuccess(sent))
            }
            Ok(reply) => reply,
            Err(e) => Err(RPCError::Unreachable(Unreachable::new(&e))),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RpcError> {
        let message = codec::vote_request_out(&rpc);
        let reply = self.send(pb::Kind::Vote, &message, option.hard_ttl()).await;
        let reply = codec::decode(&reply.map_err(unreachable)?).map_err(strange)?;
        codec::vote_reply_in(reply).map_err(strange)
    }

    async fn install_snapshot(
        &mut self,
        _rpc: InstallSnapshotRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, RpcError<openraft::error::InstallSnapshotError>> {
        // openraft calls this from its own `full_snapshot` only.
        let e = AnyError::error("snapshots are sent as files");
        Err(RPCError::Unreachable(Unreachable::new(&e)))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, SnapshotFailure> {
        let cancel = std::pin::pin!(cancel.fuse());
        tokio::select! {
            closed = cancel => Err(closed.into()),
            sent = self.send_snapshot(vote, snapshot, option.hard_ttl()) => sent,
            never = self.beat(vote) => match never {},
        }
    }

    fn backoff(&self) -> Backoff {
        let step = self.config.heartbeat;
        Backoff::new(
            [1, 2, 3]
                .map(|n| step * n)
                .into_iter()
                .chain(std::iter::repeat(step * 5)),
        )
    }
}

/// Every failure is a pause for openraft: its other kind is tried again at once, and
/// a peer that refuses would be asked without end.
fn unreachable(e: TransportError) -> RpcError {
    RPCError::Unreachable(Unreachable::new(&e))
}

fn strange(e: CodecError) -> RpcError {
    RPCError::Unreachable(Unreachable::new(&e))
}
