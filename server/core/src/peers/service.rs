//! What other servers ask of this one.

use std::sync::Arc;
use std::time::Duration;

use mesh_proto::servers::v1 as wire;
use mesh_proto::servers::v1::peers_server::{Peers, PeersServer};
use mesh_raft::Peer;
use mesh_raft::grpc::Authorize;
use mesh_tls::Role;
use tonic::{Request, Response, Status};

use crate::core::Core;
use crate::feed::certified;
use crate::listen::Caller;

/// How long a newcomer may take to catch up.
const JOIN: Duration = Duration::from_secs(55);
/// Nodes in one message.
const MAX_NODES: usize = 100_000;
/// The longest message, in bytes.
const MAX_MESSAGE: usize = 16 << 20;

/// See the module.
#[derive(Clone)]
pub(crate) struct PeerService(Arc<Core>);

impl PeerService {
    pub(crate) fn server(core: Arc<Core>) -> PeersServer<Self> {
        PeersServer::new(Self(core))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(4 * MAX_MESSAGE)
    }
}

/// Raft is taken from servers only.
pub(crate) fn authorize_raft() -> Authorize {
    Arc::new(|extensions, _| match extensions.get::<Caller>() {
        Some(Caller::Cluster(id)) if id.role() == Role::Server => Ok(()),
        _ => Err(Status::permission_denied("Raft is taken from servers only")),
    })
}

/// Who is let in, the leader decides.
async fn pass_on(core: &Core, request: wire::JoinRequest) -> Result<wire::JoinResponse, Status> {
    let leader = core.raft.leader().filter(|peer| peer.id != core.me.id);
    match leader {
        Some(leader) if !request.forwarded => {
            let forwarded = wire::JoinRequest {
                forwarded: true,
                ..request
            };
            core.peers.join(&leader.addr, forwarded).await
        }
        _ => Err(Status::unavailable(
            "there is no leader at the moment; it is tried again",
        )),
    }
}

#[tonic::async_trait]
impl Peers for PeerService {
    async fn heartbeats(
        &self,
        request: Request<wire::HeartbeatsRequest>,
    ) -> Result<Response<wire::HeartbeatsResponse>, Status> {
        certified(&request, Role::Server)?;
        let nodes = request.into_inner().nodes;
        if nodes.len() > MAX_NODES {
            return Err(Status::resource_exhausted("too many nodes in one message"));
        }
        if !self.0.leases.leads() {
            return Err(Status::failed_precondition("this server does not lead"));
        }
        for node in &nodes {
            self.0.leases.heard(node);
        }
        Ok(Response::new(wire::HeartbeatsResponse {}))
    }

    async fn proxies(
        &self,
        request: Request<wire::ProxiesRequest>,
    ) -> Result<Response<wire::ProxiesResponse>, Status> {
        certified(&request, Role::Server)?;
        Ok(Response::new(wire::ProxiesResponse {
            agents: self.0.registry.statuses(),
        }))
    }

    async fn identify(
        &self,
        request: Request<wire::IdentifyRequest>,
    ) -> Result<Response<wire::IdentifyResponse>, Status> {
        certified(&request, Role::Server)?;
        Ok(Response::new(crate::bootstrap::identity(&self.0).await))
    }

    async fn join(
        &self,
        request: Request<wire::JoinRequest>,
    ) -> Result<Response<wire::JoinResponse>, Status> {
        certified(&request, Role::Server)?;
        let core = &self.0;
        let request = request.into_inner();
        if !core.raft.is_leader() {
            return pass_on(core, request).await.map(Response::new);
        }
        let state = core.store.state();
        let Some(cluster) = state.cluster() else {
            return Err(Status::failed_precondition(
                "this server belongs to no cluster yet",
            ));
        };
        if request.level < state.level() {
            return Err(Status::failed_precondition(format!(
                "the cluster is at level {}, and the server speaks up to {}; upgrade it",
                state.level(),
                request.level
            )));
        }
        let peer = Peer {
            id: request.id,
            name: request.server,
            addr: request.address,
        };
        crate::bootstrap::admit(core, peer, JOIN).await?;
        Ok(Response::new(wire::JoinResponse {
            cluster_id: cluster.value.cluster_id.clone(),
        }))
    }
}
