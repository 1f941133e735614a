//! Calls from peers.

use std::sync::Arc;

use async_trait::async_trait;
use tonic::{Response, Status};

use crate::node::RaftNode;
use crate::pb;
use crate::transport::{FORMAT, Request};

pub use crate::pb::raft_server::RaftServer;

/// Decides whether a caller may speak to Raft at all: only servers may. It sees the
/// request's extensions, where the listener put what it verified of the peer's
/// certificate, and the node id that the caller claims.
pub type Authorize =
    Arc<dyn Fn(&tonic::Extensions, u64) -> Result<(), Status> + Send + Sync + 'static>;

/// The gRPC service of a node.
#[derive(Clone)]
pub struct RaftService {
    node: RaftNode,
    authorize: Authorize,
}

impl std::fmt::Debug for RaftService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RaftService({:?})", self.node)
    }
}

impl RaftService {
    /// A service for `node` that asks `authorize` first.
    pub fn new(node: RaftNode, authorize: Authorize) -> Self {
        Self { node, authorize }
    }

    /// What a tonic router takes.
    pub fn into_server(self) -> RaftServer<Self> {
        let bytes = self.node.inner.config.limits.message_bytes();
        RaftServer::new(self)
            .max_decoding_message_size(bytes)
            .max_encoding_message_size(bytes)
    }
}

#[async_trait]
impl pb::raft_server::Raft for RaftService {
    async fn call(
        &self,
        request: tonic::Request<pb::Request>,
    ) -> Result<Response<pb::Reply>, Status> {
        (self.authorize)(request.extensions(), request.get_ref().from)?;
        let reply = self.node.handle(Request(request.into_inner())).await;
        match reply {
            Ok(payload) => Ok(Response::new(pb::Reply {
                format: FORMAT,
                payload,
            })),
            Err(refusal) => Err(Status::failed_precondition(refusal.0)),
        }
    }
}
